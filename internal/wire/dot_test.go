package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var dotCases = []struct {
	name, in string // in: behind DATA's CRLF
	want     string
	err      error
	next     string // the first line behind the body
}{
	{"empty", ".\r\nQUIT\r\n", "", nil, "QUIT"},
	{"one line", "a\r\n.\r\nQUIT\r\n", "a\r\n", nil, "QUIT"},
	{"stuffed dots", "..\r\n...a\r\n.b\r\n.\r\nQUIT\r\n", ".\r\n..a\r\nb\r\n", nil, "QUIT"},
	{"a dot inside a line", "a.\r\n.\r\nQUIT\r\n", "a.\r\n", nil, "QUIT"},
	{"blank lines", "\r\n\r\n.\r\nQUIT\r\n", "\r\n\r\n", nil, "QUIT"},
	{"LF.LF", "a\n.\nMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"LF.CRLF", "a\n.\r\nMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CRLF.LF", "a\r\n.\nMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CR.CR", "a\r.\rMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CR.CRLF", "a\r.\r\nMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CRLF.CR", "a\r\n.\rMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CR.LF", "a\r.\nMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"LF.CR", "a\n.\rMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CRCRLF.CRLF", "a\r\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CRLF.CRCRLF", "a\r\n.\r\r\nMAIL\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"CRLF NUL.CRLF", "a\r\n\x00.\r\n.\r\nQUIT\r\n", "a\r\n\x00.\r\n", nil, "QUIT"},
	{"LF first", "\n.\r\n\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"too large", strings.Repeat("0123456789\r\n", 100) + ".\r\nQUIT\r\n", "", ErrTooLarge, "QUIT"},
	{"the largest", strings.Repeat("0123456789\r\n", 50) + ".\r\nQUIT\r\n", strings.Repeat("0123456789\r\n", 50), nil, "QUIT"},
	{"one octet too large", strings.Repeat("0123456789\r\n", 49) + "0123456789a\r\n.\r\nQUIT\r\n", "", ErrTooLarge, "QUIT"},
	{"too large and bare", strings.Repeat("0123456789\r\n", 100) + "\n.\r\n.\r\nQUIT\r\n", "", ErrBareNewline, "QUIT"},
	{"the peer leaves", "a\r\n.\r", "", io.ErrUnexpectedEOF, ""},
	{"the peer leaves after a bare newline", "a\n.\r\n", "", io.ErrUnexpectedEOF, ""},
}

func readDot(c *Conn, max int64, direct bool) (string, error) {
	var b bytes.Buffer
	d := c.Dot(max)
	if direct {
		_, err := d.WriteTo(&b)
		return b.String(), err
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{&b}, struct{ io.Reader }{d}, make([]byte, 13))
	return b.String(), err
}

func TestOnlyCRLFDotCRLFEndsABodyHoweverThePacketsAreCut(t *testing.T) {
	t.Parallel()
	for _, tc := range dotCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			try := func(how string, in [][]byte, direct bool) {
				c := New(&packets{in: in}, Limits{})
				got, err := readDot(c, 600, direct)
				if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
					t.Fatalf("%s: error %v, want %v", how, err, tc.err)
				}
				if err == nil && got != tc.want {
					t.Fatalf("%s: body %q, want %q", how, got, tc.want)
				}
				if tc.next == "" {
					return
				}
				if line, err := c.ReadLine(); err != nil || string(line) != tc.next {
					t.Fatalf("%s: behind the body: %q, %v", how, line, err)
				}
			}
			for i := range tc.in {
				try("split", [][]byte{[]byte(tc.in[:i]), []byte(tc.in[i:])}, i%2 == 0)
			}
			for _, size := range []int{1, 2, 3, 5} {
				try("packets", cut(tc.in, size), size%2 == 0)
			}
		})
	}
}

func TestAnAmbiguousEndIsTold(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"a\r\r\n.\r\n": true, "\r\r\n.\r\n": true, "a\r\n.\r\r\n.\r\n": true, "..\r\r\n.\r\n": true,
		"a\r\n.\r\n": false, "a\nb\r\n.\r\n": false, "a\r\r\nb\r\n.\r\n": false, ".\r\n": false, "a\r\r\n\r\n.\r\n": false,
	} {
		for size := 1; size <= len(in); size++ {
			d := New(&packets{in: cut(in, size)}, Limits{}).Dot(100)
			_ = d.Discard()
			if d.Ambiguous() != want {
				t.Errorf("%q in pieces of %d: %v", in, size, d.Ambiguous())
			}
		}
	}
}

func TestABodyFarTooLargeIsGivenUp(t *testing.T) {
	t.Parallel()
	c := New(sent(strings.Repeat("0123456789\r\n", 1000)+".\r\nQUIT\r\n"), Limits{Drain: 5000})
	_, err := readDot(c, 600, true)
	if !errors.Is(err, ErrTooLarge) || !Fatal(err) {
		t.Fatalf("got %v", err)
	}
	if line, err := c.ReadLine(); err == nil {
		t.Fatalf("then read %q", line)
	}
}

func TestABodyIsReadToItsEndAfterAFailedWriter(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	for _, bad := range []string{"", "bare\n"} {
		c := New(&packets{in: cut("one\r\n..two\r\nthree\r\n"+bad+"\r\n.\r\nQUIT\r\n", 4)}, Limits{})
		d := c.Dot(1000)
		if _, err := d.WriteTo(failing{full}); err != full {
			t.Fatalf("got %v", err)
		}
		if err := d.Discard(); (bad == "") != (err == nil) {
			t.Fatalf("discard: %v", err)
		}
		if line, err := c.ReadLine(); err != nil || string(line) != "QUIT" {
			t.Fatalf("behind the body: %q, %v", line, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestDotWriter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in, want string
		err            error
	}{
		{"empty", "", ".\r\n", nil},
		{"a line", "a\r\n", "a\r\n.\r\n", nil},
		{"no line end", "a", "a\r\n.\r\n", nil},
		{"dots", ".\r\n..\r\na.\r\n.b", "..\r\n...\r\na.\r\n..b\r\n.\r\n", nil},
		{"a bare LF", "a\nb\r\n", "", ErrBareNewline},
		{"a bare CR", "a\rb\r\n", "", ErrBareNewline},
		{"a CR at the end", "a\r", "", ErrBareNewline},
		{"CR CR LF", "a\r\r\n", "", ErrBareNewline},
		{"a LF first", "\na\r\n", "", ErrBareNewline},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1, 2, 3, 1000} {
				p := sent()
				c := New(p, Limits{})
				w := c.DotWriter()
				var err error
				for _, b := range cut(tc.in, size) {
					if _, err = w.Write(b); err != nil {
						break
					}
				}
				if cerr := w.Close(); err == nil {
					err = cerr
				} else if cerr == nil {
					t.Error("a cut body was ended as if it were whole")
				}
				if !errors.Is(err, tc.err) {
					t.Fatalf("pieces of %d: %v", size, err)
				}
				if err := c.Flush(); err != nil {
					t.Fatal(err)
				}
				got := p.out.String()
				if tc.err == nil && got != tc.want {
					t.Errorf("pieces of %d: sent %q", size, got)
				}
				if rest := strings.ReplaceAll(got, "\r\n", ""); strings.ContainsAny(rest, "\r\n") {
					t.Errorf("pieces of %d: sent a bare newline: %q", size, got)
				}
			}
		})
	}
}

// body draws octets that matter to the parsers more often than others.
func body(t *rapid.T, label string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"\r\n", "\r\n", ".", "a", "\r", "\n", "\r\n.", "\x00", "\xff", "bcdefghij", "\r\n.\r\n"}), 0, 60).Draw(t, label), "")
}

func TestAnyCutGivesTheSameResult(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := body(t, "input") + "\r\n.\r\n" + body(t, "rest")
		read := func(packets2 [][]byte) string {
			c := New(&packets{in: packets2}, Limits{Line: 40})
			got, err := readDot(c, 100, true)
			if err != nil {
				got = err.Error()
			}
			return got + "|" + strings.Join(transcript(c), "|")
		}
		want := read([][]byte{[]byte(in)})
		var pieces [][]byte
		for left := in; left != ""; {
			n := rapid.IntRange(1, len(left)).Draw(t, "cut")
			pieces = append(pieces, []byte(left[:n]))
			left = left[n:]
		}
		if got := read(pieces); got != want {
			t.Fatalf("cut: %q, whole: %q", got, want)
		}
	})
}

func TestWhatDotWriterSendsDotReaderReads(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := body(t, "body")
		p := sent()
		c := New(p, Limits{})
		w := c.DotWriter()
		_, err := w.ReadFrom(strings.NewReader(in))
		if err == nil {
			err = w.Close()
		}
		bare := strings.ContainsAny(strings.ReplaceAll(in, "\r\n", ""), "\r\n")
		if bare != (err != nil) {
			t.Fatalf("%q: %v", in, err)
		}
		if bare {
			return
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		got, err := readDot(New(sent(p.out.String()), Limits{}), -1, false)
		if err != nil || got != in && got != in+"\r\n" {
			t.Fatalf("%q came back as %q, %v", in, got, err)
		}
	})
}

// reference is the slow, obvious reading of a body, an octet at a time.
func reference(in string, max int) (got string, rest int, err error) {
	var b strings.Builder
	bare, start := false, true
	for i := 0; i < len(in); i++ {
		if start && strings.HasPrefix(in[i:], ".\r\n") {
			switch {
			case bare:
				return "", i + 3, ErrBareNewline
			case b.Len() > max:
				return "", i + 3, ErrTooLarge
			}
			return b.String(), i + 3, nil
		}
		switch {
		case start && in[i] == '.':
			start = false
		case strings.HasPrefix(in[i:], "\r\n"):
			b.WriteString("\r\n")
			i++
			start = true
		default:
			bare = bare || in[i] == '\r' || in[i] == '\n'
			b.WriteByte(in[i])
			start = false
		}
	}
	return "", len(in), io.ErrUnexpectedEOF
}

func FuzzDot(f *testing.F) {
	for _, tc := range dotCases {
		f.Add([]byte(tc.in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		want, rest, wantErr := reference(string(in), 600)
		c := New(&packets{in: cut(string(in), int(size)+1)}, Limits{})
		got, err := readDot(c, 600, size%2 == 0)
		if !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) || err == nil && got != want {
			t.Fatalf("%q: got %q, %v; want %q, %v", in, got, err, want, wantErr)
		}
		if Fatal(err) {
			return
		}
		left := c.Literal(int64(len(in) - rest))
		b, err := io.ReadAll(left)
		if err != nil || !bytes.Equal(b, in[rest:]) {
			t.Fatalf("%q: %q is left, %v; want %q", in, b, err, in[rest:])
		}
	})
}

func FuzzReadLine(f *testing.F) {
	for _, tc := range lineCases {
		f.Add([]byte(tc.in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		whole := transcript(New(sent(string(in)), Limits{Line: 100}))
		cutUp := transcript(New(&packets{in: cut(string(in), int(size)+1)}, Limits{Line: 100}))
		if strings.Join(whole, "|") != strings.Join(cutUp, "|") {
			t.Fatalf("%q: whole %q, cut %q", in, whole, cutUp)
		}
		for _, line := range whole {
			if strings.ContainsAny(line, "\r\n") {
				t.Fatalf("%q: a line with a newline: %q", in, line)
			}
		}
	})
}

func BenchmarkDot10KB(b *testing.B) {
	in := []byte(strings.Repeat("A line of a message, as long as they usually are in mail: about 76 octets.\r\n", 131) + ".\r\n")
	p := &packets{}
	c := New(p, Limits{})
	one := make([][]byte, 1)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		one[0] = in
		p.in = one
		if _, err := c.Dot(1 << 20).WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadLine(b *testing.B) {
	in := []byte(strings.Repeat("RCPT TO:<somebody@example.test>\r\n", 100))
	p := &packets{}
	c := New(p, Limits{})
	one := make([][]byte, 1)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		one[0] = in
		p.in = one
		for range 100 {
			if _, err := c.ReadLine(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkDotWriter10KB(b *testing.B) {
	in := []byte(strings.Repeat("A line of a message, as long as they usually are in mail: about 76 octets.\r\n", 131))
	p := &packets{}
	c := New(p, Limits{})
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		p.out.Reset()
		w := c.DotWriter()
		if _, err := w.Write(in); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

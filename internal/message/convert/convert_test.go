package convert

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/quotedprintable"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waxwing/internal/message"
)

func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n" }

var sevenBit = Target{Line: MaxLine}

// converted is the converted text of a message.
func converted(t testing.TB, in string, to Target) (string, error) {
	t.Helper()
	e, err := Encode(strings.NewReader(in), int64(len(in)), to)
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(e.Reader())
	if err != nil || int64(len(out)) != e.Size() {
		t.Fatalf("%d octets of %d, %v", len(out), e.Size(), err)
	}
	return string(out), nil
}

func TestEncode(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word ", 300)
	for _, tc := range []struct {
		name, in string
		to       Target
		out      string // "": as it is
		err      error
	}{
		{name: "nothing to do", in: lines("Subject: x", "", "text"), to: sevenBit},
		{name: "8 bits where they may be", in: lines("Subject: é", "", "é"), to: Target{EightBit: true, Line: MaxLine}},
		{
			name: "a label that says too much", in: lines("MIME-Version: 1.0", "Content-Transfer-Encoding: 8bit", "", "text"), to: sevenBit,
			out: lines("MIME-Version: 1.0", "Content-Transfer-Encoding: 7bit", "", "text"),
		},
		{
			name: "the first field is the one that changes", in: lines("Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: binary", "", "é"), to: sevenBit,
			out: lines("Content-Type: text/plain; charset=utf-8", "MIME-Version: 1.0", "Content-Transfer-Encoding: quoted-printable", "", "=C3=A9"),
		},
		{
			name: "Chinese is shorter in base64", in: lines("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", "你好，世界。你好，世界。你好，世界。"), to: sevenBit,
			out: lines("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64", "",
				"5L2g5aW977yM5LiW55WM44CC5L2g5aW977yM5LiW55WM44CC5L2g5aW977yM5LiW55WM44CCDQo="),
		},
		{
			name: "a charset that nobody knows", in: lines("Subject: x", "", "caf\xe9"), to: sevenBit,
			out: lines("Content-Type: text/plain; charset=unknown-8bit", "Content-Transfer-Encoding: quoted-printable", "MIME-Version: 1.0", "Subject: x", "", "caf=E9"),
		},
		{
			name: "binary", in: lines("MIME-Version: 1.0", "Content-Type: application/x", "Content-Transfer-Encoding: binary", "") + "a\nb\rc\x00\xff", to: Target{EightBit: true, Line: MaxLine},
			out: lines("MIME-Version: 1.0", "Content-Type: application/x", "Content-Transfer-Encoding: base64", "", "YQpiDWMA/w=="),
		},
		{name: "a long line in something signed stays", in: lines("Content-Type: multipart/signed; boundary=b", "", "--b", "", long+long, "--b", "", "sig", "--b--"), to: sevenBit},
		{name: "8 bits in something signed", in: lines("Content-Type: multipart/signed; boundary=b", "", "--b", "", "é", "--b", "", "sig", "--b--"), to: sevenBit, err: ErrSigned},
		{
			name: "8 bits in a message inside of something signed", to: sevenBit, err: ErrSigned,
			in: lines("Content-Type: multipart/signed; boundary=b", "", "--b", "Content-Type: message/rfc822", "", "Subject: x", "", "é", "--b", "", "sig", "--b--"),
		},
		{
			name: "something signed beside text", to: sevenBit, err: ErrSigned,
			in: lines("Content-Type: multipart/mixed; boundary=a", "", "--a", "", "text", "--a", "Content-Type: multipart/signed; boundary=b", "", "--b", "", "é", "--b", "", "sig", "--b--", "--a--"),
		},
		{name: "a header", in: lines("Subject: é", "", "text"), to: sevenBit, err: ErrHeader},
		{name: "a preamble", in: lines("Content-Type: multipart/mixed; boundary=b", "", "é", "--b", "", "x", "--b--"), to: sevenBit, err: ErrForm},
		{name: "a label that lies", in: lines("Content-Transfer-Encoding: base64", "", "é"), to: sevenBit, err: ErrForm},
		{name: "a part that has no encoding", in: lines("Content-Type: message/partial", "Content-Transfer-Encoding: 8bit", "", "é"), to: sevenBit, err: ErrForm},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			out, err := converted(t, tc.in, tc.to)
			if tc.out == "" && tc.err == nil {
				tc.out = tc.in
			}
			if !errors.Is(err, tc.err) || out != tc.out {
				t.Errorf("%v\n%q\nwant %v\n%q", err, out, tc.err, tc.out)
			}
		})
	}
}

func TestLongLinesAreEncoded(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("word ", 300)
	in := lines("MIME-Version: 1.0", "Content-Type: text/html", "", text)
	for _, to := range []Target{sevenBit, {EightBit: true, Line: MaxLine}} {
		out, err := converted(t, in, to)
		if err != nil || !strings.Contains(out, "Content-Transfer-Encoding: quoted-printable") {
			t.Fatalf("%v\n%s", err, out)
		}
		var s Scanner
		_, _ = s.Write([]byte(out))
		if n := s.Facts().Longest; n > 76 {
			t.Errorf("a line of %d octets", n)
		}
		if got := decoded(t, out); len(got) != 1 || got[0] != text+"\r\n" {
			t.Errorf("%q", got)
		}
	}
}

// decoded is the decoded contents of all leaf parts.
func decoded(t interface{ Fatal(...any) }, raw string) []string {
	root := message.ParseBytes([]byte(raw))
	var out []string
	root.Walk(func(p *message.Part) bool {
		if p.IsMultipart() || p.Message != nil {
			return true
		}
		b, err := io.ReadAll(p.Decoded(strings.NewReader(raw)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
		return true
	})
	return out
}

// parts draws a message of up to some depth.
func parts(t *rapid.T, depth int) string {
	if depth > 0 && rapid.Bool().Draw(t, "multipart") {
		b := "b" + string(rune('0'+depth))
		out := "Content-Type: multipart/mixed; boundary=" + b + "\r\n\r\n"
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			out += "--" + b + "\r\n" + parts(t, depth-1) + "\r\n"
		}
		return out + "--" + b + "--\r\n"
	}
	kind := rapid.SampledFrom([]string{"", "text/plain; charset=utf-8", "text/html", "application/x"}).Draw(t, "type")
	encoding := rapid.SampledFrom([]string{"", "7bit", "8bit"}).Draw(t, "encoding")
	out := ""
	if kind != "" {
		out += "Content-Type: " + kind + "\r\n"
	}
	if encoding != "" {
		out += "Content-Transfer-Encoding: " + encoding + "\r\n"
	}
	body := ""
	for range rapid.IntRange(0, 6).Draw(t, "lines") {
		body += rapid.SampledFrom([]string{"text", "é", "你好", "=", ".", " trailing ", "\xff\xfe", strings.Repeat("x", 1200), "a\tb", "From me"}).Draw(t, "line") + "\r\n"
	}
	return out + "\r\n" + body
}

// Whatever the parts hold, what they mean stays, and the result is ASCII.
func TestEncodingKeepsWhatPartsMean(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := "MIME-Version: 1.0\r\n" + parts(t, 3)
		e, err := Encode(strings.NewReader(in), int64(len(in)), sevenBit)
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		out, err := io.ReadAll(e.Reader())
		if err != nil {
			t.Fatal(err)
		}
		if f := e.Facts(); f.Eight() || f.Bare || f.NUL || f.Longest > MaxLine {
			t.Fatalf("%q: %+v", out, f)
		}
		if before, after := decoded(t, in), decoded(t, string(out)); !slices.Equal(before, after) {
			t.Fatalf("%q\nbecame %q", before, after)
		}
	})
}

// Python's parser says of both forms what this one says.
func TestPythonReadsTheSame(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is not there: run make deps")
	}
	const script = `
import email, email.policy, sys, hashlib
raw = sys.stdin.buffer.read()
for m in raw.split(b"\x00NEXT\x00"):
    for p in email.message_from_bytes(m, policy=email.policy.compat32).walk():
        if not p.is_multipart():
            print(p.get_content_type(), hashlib.sha256(p.get_payload(decode=True).replace(b"\r\n", b"\n").rstrip(b"\n")).hexdigest())
    print("--")
`
	inputs := []string{
		lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", "你好 é", "trailing ", "--b",
			"Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", "<p>é</p>"+strings.Repeat("long ", 400), "--b", "Content-Type: application/x", "Content-Transfer-Encoding: 8bit", "", "\xff\xfe\xfd=", "--b--"),
		lines("MIME-Version: 1.0", "Content-Type: message/rfc822", "Content-Transfer-Encoding: 8bit", "", "MIME-Version: 1.0", "Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: 8bit", "", "caf\xe9 .", "."),
		lines("Subject: x", "", "héllo = wörld"),
	}
	read := func(list []string) string {
		cmd := exec.CommandContext(t.Context(), python, "-c", script)
		cmd.Stdin = strings.NewReader(strings.Join(list, "\x00NEXT\x00"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	outputs := make([]string, len(inputs))
	for i, in := range inputs {
		if outputs[i], err = converted(t, in, sevenBit); err != nil {
			t.Fatal(err)
		}
	}
	if before, after := read(inputs), read(outputs); before != after {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// Whatever a body holds, encoding and decoding gives it back.
func TestEncodersAreExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "raw")
		r := func() *io.SectionReader { return io.NewSectionReader(bytes.NewReader(raw), 0, int64(len(raw))) }
		out, err := io.ReadAll(encoded(base64Encoding, r()))
		if err != nil {
			t.Fatal(err)
		}
		back, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(out), "\r\n", ""))
		if err != nil || !bytes.Equal(back, raw) {
			t.Fatalf("base64 %q -> %q: %v", raw, back, err)
		}
		text := strings.Map(func(c rune) rune {
			if c == '\r' || c == '\n' {
				return ' '
			}
			return c
		}, string(raw))
		if out, err = io.ReadAll(encoded(quotedPrintable, io.NewSectionReader(strings.NewReader(text), 0, int64(len(text))))); err != nil {
			t.Fatal(err)
		}
		back, err = io.ReadAll(quotedprintable.NewReader(bytes.NewReader(out)))
		if err != nil || string(back) != text {
			t.Fatalf("quoted-printable %q -> %q: %v", text, back, err)
		}
	})
}

// The scanner says the same whatever pieces the octets come in, and what a plain reading of the rules says.
func TestScannerAgreesWithTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(rapid.SampledFrom([]byte("\r\n\r\nab\x00\xe9.")), 0, 60).Draw(t, "in")
		var whole, cut Scanner
		_, _ = whole.Write(in)
		for rest := in; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			_, _ = cut.Write(rest[:n])
			rest = rest[n:]
		}
		got := whole.Facts()
		if got.Bare != cut.Facts().Bare || !got.Bare && got != cut.Facts() {
			t.Fatalf("%q: %+v, in pieces %+v", in, got, cut.Facts())
		}
		stripped := strings.ReplaceAll(string(in), "\r\n", "")
		if got.Bare != strings.ContainsAny(stripped, "\r\n") || got.NUL != (bytes.IndexByte(in, 0) >= 0) {
			t.Fatalf("%q: %+v", in, got)
		}
		if got.Bare { // with bare newlines nothing is sent, and where the header ends does not matter
			return
		}
		head, body, _ := strings.Cut("\r\n"+string(in), "\r\n\r\n")
		longest := 0
		for line := range strings.SplitSeq(string(in), "\r\n") {
			longest = max(longest, len(line))
		}
		want := Facts{
			EightHeader: !ascii([]byte(head)), EightBody: !ascii([]byte(body)), NUL: got.NUL, Longest: int64(longest),
			Ended: len(in) == 0 || bytes.HasSuffix(in, []byte("\r\n")), Eights: int64(bytes.Count(in, []byte{0xe9})),
		}
		if got != want {
			t.Fatalf("%q: %+v, want %+v", in, got, want)
		}
	})
}

func TestScanningAllocatesNothing(t *testing.T) {
	b := []byte(strings.Repeat("0123456789abcdef 0123456789abcdef\r\n", 300))
	if n := testing.AllocsPerRun(100, func() { var s Scanner; _, _ = s.Write(b); _ = s.Facts() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkScan(b *testing.B) {
	data := []byte(strings.Repeat("0123456789abcdef 0123456789abcdef 0123456789abcdef 0123456789abcdef\r\n", 150))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var s Scanner
		_, _ = s.Write(data)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add([]byte(lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "--b", "", "é", "--b--")), false)
	f.Add([]byte(lines("Content-Transfer-Encoding: binary", "", "a\nb")), true)
	f.Fuzz(func(t *testing.T, in []byte, eight bool) {
		to := Target{EightBit: eight, Line: MaxLine}
		e, err := Encode(bytes.NewReader(in), int64(len(in)), to)
		if err != nil {
			return
		}
		out, err := io.ReadAll(e.Reader())
		if err != nil || int64(len(out)) != e.Size() {
			t.Fatalf("%d octets of %d, %v", len(out), e.Size(), err)
		}
		var s Scanner
		_, _ = s.Write(out)
		if !to.takes(s.Facts()) {
			t.Errorf("%q: %+v", out, s.Facts())
		}
		if len(out) > 4*len(in)+4096*(1+bytes.Count(in, []byte("\n"))) {
			t.Errorf("%d octets became %d", len(in), len(out))
		}
	})
}

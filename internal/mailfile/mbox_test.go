package mailfile

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

type read struct {
	m    Message
	text string
	next int64
}

func readAll(t *testing.T, r io.Reader) []read {
	t.Helper()
	var out []read
	mr := NewMboxReader(r, 0)
	for {
		var b bytes.Buffer
		m, err := mr.Next(&b)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, read{m, b.String(), mr.Offset()})
	}
}

func TestReadTakesTheDialects(t *testing.T) {
	t.Parallel()
	date := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, c := range []struct {
		name, file string
		want       []string
		first      Message
	}{
		{
			"two messages", "From a@b Sat Feb  3 04:05:06 2024\nSubject: 1\n\nbody\n\nFrom c@d x\nSubject: 2\n\nx\n",
			[]string{"Subject: 1\r\n\r\nbody\r\n", "Subject: 2\r\n\r\nx\r\n"},
			Message{Sender: "a@b", Date: date},
		},
		{
			"CRLF and a zone", "From a@b Sat Feb  3 06:05:06 2024 +0200\r\nSubject: 1\r\n\r\nbody\r\n\r\n",
			[]string{"Subject: 1\r\n\r\nbody\r\n"},
			Message{Sender: "a@b", Date: date},
		},
		{
			"quoted lines", "From a@b\n\n>From x\n>>From y\n>Fromage\n> From z\n",
			[]string{"\r\nFrom x\r\n>From y\r\n>Fromage\r\n> From z\r\n"},
			Message{Sender: "a@b"},
		},
		{
			"From inside a paragraph", "From a@b\nSubject: 1\n\none\nFrom here on it is text\n",
			[]string{"Subject: 1\r\n\r\none\r\nFrom here on it is text\r\n"},
			Message{Sender: "a@b"},
		},
		{
			"flags, folded keywords, fields of the format dropped", "From a@b\nStatus: RO\nX-Status: AFTD\nX-Keywords: $Label1\n work\nX-UID: 7\nSubject: 1\n more\n\nStatus: stays\n",
			[]string{"Subject: 1\r\n more\r\n\r\nStatus: stays\r\n"},
			Message{Sender: "a@b", Flags: Flags{Seen: true, Answered: true, Flagged: true, Deleted: true, Draft: true, Keywords: []string{"$Label1", "work"}}},
		},
		{"empty message, then another", "From a@b\n\nFrom c@d\nS: 2\n\n", []string{"\r\n", "S: 2\r\n\r\n"}, Message{Sender: "a@b"}},
		{"blank lines first, no end of line last", "\n\r\nFrom a@b\nS: 1\n\nx", []string{"S: 1\r\n\r\nx"}, Message{Sender: "a@b"}},
		{"blank lines in the body stay", "From a@b\nS: 1\n\n\n\nx\n\n\n\n", []string{"S: 1\r\n\r\n\r\n\r\nx\r\n\r\n\r\n"}, Message{Sender: "a@b"}},
		{"bare CR", "From a@b\nS: 1\n\na\rb\r\n", []string{"S: 1\r\n\r\na\r\nb\r\n"}, Message{Sender: "a@b"}},
	} {
		for how, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "octet by octet": iotest.OneByteReader} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				t.Parallel()
				got := readAll(t, wrap(strings.NewReader(c.file)))
				var texts []string
				for _, g := range got {
					texts = append(texts, g.text)
				}
				if !reflect.DeepEqual(texts, c.want) {
					t.Fatalf("got %q, want %q", texts, c.want)
				}
				if !reflect.DeepEqual(got[0].m, c.first) {
					t.Errorf("got %+v, want %+v", got[0].m, c.first)
				}
				if end := got[len(got)-1].next; end != int64(len(c.file)) {
					t.Errorf("last offset %d, want %d", end, len(c.file))
				}
			})
		}
	}
}

func TestReadRefusesWhatIsNoMailbox(t *testing.T) {
	t.Parallel()
	if _, err := NewMboxReader(strings.NewReader("Subject: x\n\nFrom a\n"), 0).Next(io.Discard); !errors.Is(err, ErrNotMbox) {
		t.Errorf("got %v", err)
	}
	if _, err := NewMboxReader(strings.NewReader("\n\n"), 0).Next(io.Discard); !errors.Is(err, io.EOF) {
		t.Errorf("an empty mailbox gives %v", err)
	}
}

func TestReadGoesOnAtAnOffset(t *testing.T) {
	t.Parallel()
	file := "From a\nS: 1\n\nx\n\nFrom b\nS: 2\n\ny\n\nFrom c\nS: 3\n\nz\n"
	all := readAll(t, strings.NewReader(file))
	for i, r := range all[:2] {
		rest := NewMboxReader(strings.NewReader(file[r.next:]), r.next)
		var b bytes.Buffer
		if _, err := rest.Next(&b); err != nil || b.String() != all[i+1].text || rest.Offset() != all[i+1].next {
			t.Errorf("from %d: %q, %v, offset %d", r.next, b.String(), err, rest.Offset())
		}
	}
}

func TestLongLinesAreNotHeld(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300<<10)
	file := "From a " + long + "\nS: " + long + "\nX-Keywords: " + long + "\n\n" + long + "\n\nFrom b\nS: 2\n\n"
	got := readAll(t, strings.NewReader(file))
	if len(got) != 2 || got[0].text != "S: "+long+"\r\n\r\n"+long+"\r\n" || got[0].m.Flags.Keywords != nil {
		t.Errorf("%d messages, the first of %d octets", len(got), len(got[0].text))
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SampledFrom([]string{"", "text", "From x", ">From x", ">>From ", "Status: R", strings.Repeat("y", 70<<10), "会议", "."})
		lines := rapid.SliceOfN(line, 0, 8)
		var file bytes.Buffer
		var want []read
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			m := Message{
				Sender: rapid.SampledFrom([]string{"a@example.test", "MAILER-DAEMON"}).Draw(t, "sender"),
				Date:   time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "date"), 0).UTC(),
				Flags: Flags{
					Seen: rapid.Bool().Draw(t, "seen"), Answered: rapid.Bool().Draw(t, "answered"), Flagged: rapid.Bool().Draw(t, "flagged"),
					Deleted: rapid.Bool().Draw(t, "deleted"), Draft: rapid.Bool().Draw(t, "draft"),
					Keywords: rapid.SampledFrom([][]string{nil, {"$Forwarded"}, {"a", "b"}}).Draw(t, "keywords"),
				},
			}
			text := "Subject: s\r\n\r\n"
			for _, l := range lines.Draw(t, "lines") {
				text += l + "\r\n"
			}
			before := file.Len()
			n, err := WriteMbox(&file, m, strings.NewReader(text))
			if err != nil || int(n) != file.Len()-before {
				t.Fatalf("Write: %d, %v", n, err)
			}
			want = append(want, read{m, text, int64(file.Len())})
		}
		if bytes.Contains(file.Bytes(), []byte("\r")) {
			t.Fatal("the file holds a CR")
		}
		var got []read
		r := NewMboxReader(&file, 0)
		for {
			var b bytes.Buffer
			m, err := r.Next(&b)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, read{m, b.String(), r.Offset()})
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %.300v\nwant %.300v", got, want)
		}
	})
}

func TestMessageWithoutFinalLineEndGetsOne(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	if _, err := WriteMbox(&file, Message{Sender: "a\nFrom b"}, strings.NewReader("S: 1\r\n\r\nx")); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, &file); len(got) != 1 || got[0].text != "S: 1\r\n\r\nx\r\n" || got[0].m.Sender != "aFromb" {
		t.Errorf("got %+v", got)
	}
}

func FuzzMboxReader(f *testing.F) {
	f.Add([]byte("From a@b Sat Feb  3 04:05:06 2024\nStatus: RO\nSubject: 1\n\nbody\n\nFrom c@d x\n\n>From x\r"))
	f.Fuzz(func(t *testing.T, file []byte) {
		read := func(r io.Reader) (out []string) {
			mr := NewMboxReader(r, 0)
			last := int64(-1)
			for {
				var b bytes.Buffer
				_, err := mr.Next(&b)
				if err != nil {
					return out
				}
				if mr.Offset() <= last || mr.Offset() > int64(len(file)) {
					t.Fatalf("offset %d after %d of %d", mr.Offset(), last, len(file))
				}
				last = mr.Offset()
				if bytes.Contains(bytes.ReplaceAll(b.Bytes(), crlf, nil), []byte("\n")) {
					t.Fatalf("bare LF in %q", b.Bytes())
				}
				out = append(out, b.String())
			}
		}
		if a, b := read(bytes.NewReader(file)), read(iotest.HalfReader(bytes.NewReader(file))); !reflect.DeepEqual(a, b) {
			t.Fatalf("the split changes the result: %q, %q", a, b)
		}
	})
}

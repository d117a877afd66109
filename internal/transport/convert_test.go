package transport

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waxwing/internal/message"
	"waxwing/internal/smtp"
)

func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n" }

func TestEightBitMailToASevenBitServer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in, out string // out "": refused
	}{
		{
			"text", lines("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", "héllo", ".x"),
			lines("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "", "h=C3=A9llo", ".x"),
		},
		{
			"no MIME at all", lines("Subject: x", "", "héllo"),
			lines("MIME-Version: 1.0", "Content-Type: text/plain; charset=unknown-8bit", "Content-Transfer-Encoding: quoted-printable", "Subject: x", "", "h=C3=A9llo"),
		},
		{
			"one part of two",
			lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "Content-Transfer-Encoding: 8bit", "", "--b", "Content-Type: text/plain", "", "ascii", "--b",
				"Content-Type: application/x; name=n", "Content-Transfer-Encoding: 8bit", "", "\xff\xfe", "--b--"),
			lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "Content-Transfer-Encoding: 7bit", "", "--b", "Content-Type: text/plain", "", "ascii", "--b",
				"Content-Type: application/x; name=n", "Content-Transfer-Encoding: base64", "", "//4=", "--b--"),
		},
		{
			"inside a message inside",
			lines("MIME-Version: 1.0", "Content-Type: message/rfc822", "Content-Transfer-Encoding: 8bit", "", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", "é"),
			lines("MIME-Version: 1.0", "Content-Type: message/rfc822", "Content-Transfer-Encoding: 7bit", "", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "", "=C3=A9"),
		},
		{"signed", lines("MIME-Version: 1.0", "Content-Type: multipart/signed; boundary=b", "", "--b", "Content-Type: text/plain", "", "é", "--b", "Content-Type: application/pgp-signature", "", "sig", "--b--"), ""},
		{"header", lines("Subject: é", "", "é"), ""},
		{"header of a part", lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "--b", "X: é", "", "é", "--b--"), ""},
		{"preamble", lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "é", "--b", "", "x", "--b--"), ""},
		{"quoted-printable that is not", lines("MIME-Version: 1.0", "Content-Type: text/plain", "Content-Transfer-Encoding: quoted-printable", "", "é"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(s *server) { s.ehlo = []string{"PIPELINING"} })
			tr := rig(t, map[string]*server{"b.test": s}, nil)
			m := mail("x@b.test")
			m.Body, m.Content = smtp.Body8Bit, text(tc.in)
			got := brief(deliver(t, tr, "b.test", m))
			commands, bodies := s.seen()
			if strings.Contains(strings.Join(commands, " "), "BODY=") {
				t.Errorf("BODY sent to a server that does not know it: %q", commands)
			}
			if tc.out == "" {
				if got != "failed 0 5.6.3 MAIL" || len(bodies) != 0 {
					t.Errorf("%s, %d bodies", got, len(bodies))
				}
				return
			}
			if len(bodies) != 1 || bodies[0] != tc.out {
				t.Errorf("%s\n%q\nwant\n%q", got, bodies, tc.out)
			}
		})
	}
}

func TestEightBitMailIsDeclared(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	m := mail("x@b.test")
	m.Content = text(lines("Subject: x", "", "é")) // the sender did not say 8BITMIME
	deliver(t, tr, "b.test", m)
	commands, bodies := s.seen()
	if !strings.Contains(commands[1], "BODY=8BITMIME") || len(bodies) != 1 || !strings.Contains(bodies[0], "é") {
		t.Errorf("%q %q", commands, bodies)
	}
}

func TestBinaryMail(t *testing.T) {
	t.Parallel()
	in := lines("MIME-Version: 1.0", "Content-Type: application/x", "Content-Transfer-Encoding: binary", "") + "a\nb\rc\x00\xff"
	m := mail("x@b.test")
	m.Body, m.Content = smtp.BodyBinary, text(in)
	s := newServer(t, func(s *server) { s.ehlo = []string{"CHUNKING", "BINARYMIME", "8BITMIME"} })
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	deliver(t, tr, "b.test", m)
	commands, bodies := s.seen()
	if !strings.Contains(commands[1], "BODY=BINARYMIME") || len(bodies) != 1 || bodies[0] != in {
		t.Errorf("%q %q", commands, bodies)
	}
	s = newServer(t, func(s *server) { s.ehlo = []string{"8BITMIME"} })
	tr = rig(t, map[string]*server{"b.test": s}, nil)
	deliver(t, tr, "b.test", m)
	_, bodies = s.seen()
	want := lines("MIME-Version: 1.0", "Content-Type: application/x", "Content-Transfer-Encoding: base64", "", "YQpiDWMA/w==")
	if len(bodies) != 1 || bodies[0] != want {
		t.Errorf("%q, want %q", bodies, want)
	}
}

// Whatever a body holds, encoding and decoding gives it back.
func TestEncodersAreExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "raw")
		r := func() *io.SectionReader { return io.NewSectionReader(bytes.NewReader(raw), 0, int64(len(raw))) }
		out, err := io.ReadAll(encoded("base64", r()))
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
		if out, err = io.ReadAll(encoded("quoted-printable", io.NewSectionReader(strings.NewReader(text), 0, int64(len(text))))); err != nil {
			t.Fatal(err)
		}
		back, err = io.ReadAll(quotedprintable.NewReader(bytes.NewReader(out)))
		if err != nil || string(back) != text {
			t.Fatalf("quoted-printable %q -> %q: %v", text, back, err)
		}
	})
}

// The scanner says the same whatever windows the octets come in, and what a plain reading of the rules says.
func TestScannerAgreesWithTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(rapid.SampledFrom([]byte("\r\n\r\nab\x00\xe9.")), 0, 60).Draw(t, "in")
		var whole, cut scanner
		whole.scan(in)
		for rest := in; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			cut.scan(rest[:n])
			rest = rest[n:]
		}
		if whole.result() != cut.result() {
			t.Fatalf("%q: %+v, in pieces %+v", in, whole.f, cut.f)
		}
		stripped := strings.ReplaceAll(string(in), "\r\n", "")
		head, body, _ := strings.Cut("\r\n"+string(in), "\r\n\r\n")
		want := facts{
			bare: strings.ContainsAny(stripped, "\r\n"), nul: bytes.IndexByte(in, 0) >= 0,
			crlf: len(in) == 0 || bytes.HasSuffix(in, []byte("\r\n")),
		}
		if !want.bare { // with bare newlines nothing is sent, and where the header ends does not matter
			want.eightHeader, want.eightBody = !ascii(head), !ascii(body)
			if whole.result() != want {
				t.Fatalf("%q: %+v, want %+v", in, whole.result(), want)
			}
		} else if !whole.result().bare {
			t.Fatalf("%q: a bare newline was missed", in)
		}
	})
}

func TestScanningAllocatesNothing(t *testing.T) {
	b := []byte(strings.Repeat("0123456789abcdef 0123456789abcdef\r\n", 300))
	if n := testing.AllocsPerRun(100, func() { var s scanner; s.scan(b); _ = s.result() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkScan(b *testing.B) {
	data := []byte(strings.Repeat("0123456789abcdef 0123456789abcdef 0123456789abcdef 0123456789abcdef\r\n", 150))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var s scanner
		s.scan(data)
	}
}

func FuzzDowngrade(f *testing.F) {
	f.Add([]byte(lines("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "--b", "", "é", "--b--")))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, fail := openContent(&Message{Content: bytes.NewReader(in)})
		defer c.release()
		if fail != nil {
			t.Fatal(fail)
		}
		open, err := downgrade(c)
		if err != nil {
			return
		}
		var s scanner
		out, err := io.ReadAll(open())
		if err != nil {
			t.Fatal(err)
		}
		s.scan(out)
		if r := s.result(); r.bare || r.nul || r.eightBody || r.eightHeader {
			t.Errorf("%q is not 7-bit", out)
		}
		if p := message.ParseBytes(out); p == nil {
			t.Error("the result does not parse")
		}
	})
}

package transport

import (
	"strings"
	"testing"

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
			lines("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "", "h=C3=A9llo", ".x"),
		},
		{
			"no MIME at all", lines("Subject: x", "", "héllo"),
			lines("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "MIME-Version: 1.0", "Subject: x", "", "h=C3=A9llo"),
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

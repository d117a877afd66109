package pop3server

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// script is a connection whose peer has sent all its octets at once, and takes everything.
type script struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *script) Close() error                { return nil }
func (s *script) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 110} }

func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// converse runs a session over a script, logged in or not, and returns what it said.
func converse(t *testing.T, r *rig, in []byte, login bool) string {
	t.Helper()
	nc := &script{in: bytes.NewReader(in)}
	s := r.server.newSession(nc, false)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.ctx = ctx
	s.timer = time.AfterFunc(time.Hour, func() {})
	defer s.timer.Stop()
	if login {
		drop, err := r.server.openDrop(ctx, testAccount)
		if err != nil {
			t.Fatal(err)
		}
		s.drop, s.state = drop, transaction
	}
	err := s.loop()
	s.closeDrop()
	s.release()
	if ferr := s.conn.Flush(); ferr != nil && err == nil {
		t.Errorf("flush: %v", ferr)
	}
	_ = s.conn.Close()
	return nc.out.String()
}

// checkAnswers requires whole lines, and of each command's answer that it begins with +OK, -ERR or "+ ".
func checkAnswers(t *testing.T, out string) {
	t.Helper()
	for len(out) > 0 {
		line, rest, whole := strings.Cut(out, "\r\n")
		if !whole || strings.ContainsAny(line, "\r\n") {
			t.Fatalf("no whole line: %.200q", out)
		}
		out = rest
		switch {
		case strings.HasSuffix(line, " octets"), strings.HasSuffix(line, "follows"), strings.HasSuffix(line, "follow"):
			if out, whole = afterDot(out); !whole {
				t.Fatalf("answer without end: %.200q", out)
			}
		case strings.HasPrefix(line, "+OK"), strings.HasPrefix(line, "-ERR"), strings.HasPrefix(line, "+ "):
		default:
			t.Fatalf("no answer: %.200q", line)
		}
	}
}

// afterDot returns what stands behind the line with a dot alone.
func afterDot(out string) (string, bool) {
	if rest, ok := strings.CutPrefix(out, ".\r\n"); ok {
		return rest, true
	}
	_, rest, ok := strings.Cut(out, "\r\n.\r\n")
	return rest, ok
}

// FuzzSessionBeforeLogin sends octets to a session that nobody logged in to.
func FuzzSessionBeforeLogin(f *testing.F) {
	for _, seed := range []string{
		"CAPA\r\nUTF8\r\nUSER x\r\nPASS y\r\nAUTH PLAIN =\r\nQUIT\r\n", "AUTH\r\nAUTH PLAIN\r\n*\r\n", "STLS\r\n\x16\x03\x01",
		"\r\n\r\n", "USER a\nPASS b\r\n", strings.Repeat("A", 5000) + "\r\nCAPA\r\n",
	} {
		f.Add([]byte(seed))
	}
	r := newRig(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		out := converse(t, r, in, false)
		if !bytes.Contains(bytes.ToUpper(in), []byte("STLS")) { // behind it the answer is TLS
			checkAnswers(t, out)
		}
		if strings.Contains(out, "+OK Logged in") {
			t.Fatal("logged in without TLS")
		}
	})
}

// FuzzSession sends octets to a session that is logged in and has messages; afterwards all that was not deleted by QUIT
// is still there, and the maildrop is free.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"STAT\r\nLIST\r\nLIST 1\r\nUIDL\r\nUIDL 2\r\nRETR 1\r\nRETR 3\r\nTOP 2 1\r\nDELE 9\r\nRSET\r\nLAST\r\nNOOP\r\n",
		"DELE 1\r\nRSET\r\nDELE 2\r\nSTAT\r\nLIST 2\r\n", "CAPA\r\nRETR 0\r\nRETR -1\r\nTOP 1\r\nTOP 1 999999999\r\nLIST x\r\n",
		"RETR 99999999999999999999\r\nSTLS\r\nAUTH PLAIN\r\n", "stat\r\nreTR 4\r\nquit now\r\n",
	} {
		f.Add([]byte(seed))
	}
	r := newRig(f)
	r.fill(letter(1), "no end", "bare\nlf\rcr\x00\n", strings.Repeat("large\r\n", inMemory/5))
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Contains(bytes.ToUpper(in), []byte("QUIT")) && bytes.Contains(bytes.ToUpper(in), []byte("DELE")) {
			return // it may delete, and the next input finds other messages
		}
		checkAnswers(t, converse(t, r, in, true))
		if out := converse(t, r, []byte("STAT\r\nQUIT\r\n"), true); !strings.HasPrefix(out, "+OK 4 ") {
			t.Fatalf("afterwards: %q", out)
		}
	})
}

// FuzzWireForm compares the pieces of a message with the whole.
func FuzzWireForm(f *testing.F) {
	f.Add([]byte("A: b\r\n\r\nbody\r\n"), 3)
	f.Add([]byte("A\n\r\r\n\x00"), 1)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		one, _ := form(t, text, unlimited, whole)
		two, _ := form(t, text, unlimited, func(int) int { return piece })
		if one != two {
			t.Fatalf("%q, in pieces %q", one, two)
		}
	})
}

package smtpserver

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// script is a peer that sends these octets in packets of size, and leaves.
type script struct {
	in   []byte
	size int
	out  bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.in[:min(len(s.in), s.size)])
	s.in = s.in[n:]
	return n, nil
}
func (s *script) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s *script) Close() error                { return nil }
func (s *script) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 25} }

func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4000} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// oneSession runs a session to its end in the caller's goroutine.
func oneSession(srv *Server, nc net.Conn, mode Mode) {
	s := srv.newSession(nc, mode)
	s.remote = s.conn.RemoteAddr()
	s.Run()
}

var replyLine = regexp.MustCompile(`^[2345][0-9][0-9][ -][\t -~]*$`)

// FuzzSession gives a whole session any octets, cut in any way. It must end, crash never, answer in well-formed lines,
// take no text with a bare CR or LF, and leave no transaction open; how the octets were cut makes no difference.
func FuzzSession(f *testing.F) {
	files, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var in strings.Builder
		for line := range strings.SplitSeq(string(text), "\n") {
			if c, ok := strings.CutPrefix(line, "C: "); ok {
				in.WriteString(c + "\r\n")
			}
		}
		f.Add([]byte(in.String()), uint8(7), false)
	}
	f.Add([]byte("EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@two.test>\r\nDATA\r\na\n.\r\n\r\r\n.\r\nBDAT 3 LAST\r\n"), uint8(1), true)
	f.Fuzz(func(t *testing.T, in []byte, size uint8, submission bool) {
		mode := MX
		if submission {
			mode = Submission
		}
		whole := fuzzOne(t, in, len(in)+1, mode)
		if cut := fuzzOne(t, in, int(size)+1, mode); cut != whole {
			t.Fatalf("cut: %q\nwhole: %q", cut, whole)
		}
	})
}

func fuzzOne(t *testing.T, in []byte, size int, mode Mode) string {
	rec := newRecorder()
	opts := options(rec)
	crashed := false
	opts.Metrics.Panic = func(Mode) { crashed = true }
	srv := New(opts)
	defer srv.Shutdown(context.Background())
	nc := &script{in: bytes.Clone(in), size: size}
	oneSession(srv, nc, mode)
	if crashed && !bytes.Contains(bytes.ToLower(in), []byte("panics")) {
		t.Fatalf("%q crashed the session", in)
	}
	if rec.stillOpen() != 0 {
		t.Fatalf("%q left a transaction open", in)
	}
	for _, m := range rec.taken() {
		if m.mail.Body != "BINARYMIME" && strings.ContainsAny(strings.ReplaceAll(m.body, "\r\n", ""), "\r\n") {
			t.Fatalf("%q: bare newline taken: %q", in, m.body)
		}
		if mode != MX {
			t.Fatalf("%q: taken on submission without signing in", in)
		}
	}
	answer := nc.out.String()
	if strings.Contains(answer, "220 2.0.0 ready for TLS") {
		return answer // what follows is an alert of TLS
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(answer, "\r\n"), "\r\n") {
		if !replyLine.MatchString(line) && mode == MX && !strings.Contains(line, "SMTPUTF8") {
			t.Fatalf("%q: malformed reply %q", in, line)
		}
	}
	return answer
}

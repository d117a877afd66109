package transport

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// lmtpServer takes one session on a socket of the file system. It answers the recipients of a message one by one: those
// whose name begins with "full" are put off, and at "gone" it hangs up.
type lmtpServer struct {
	path string
	mu   sync.Mutex
	said []string
	done sync.WaitGroup
}

func newLMTPServer(t *testing.T) *lmtpServer {
	t.Helper()
	s := &lmtpServer{path: filepath.Join(t.TempDir(), "lmtp")}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(c)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); s.done.Wait() })
	return s
}

func (s *lmtpServer) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.said...)
}

func (s *lmtpServer) serve(c net.Conn) {
	in := bufio.NewScanner(c)
	say := func(text string) { _, _ = fmt.Fprintf(c, "%s\r\n", text) }
	say("220 store.test LMTP")
	var to []string
	data := false
	for in.Scan() {
		line := in.Text()
		verb, _, _ := strings.Cut(line, ":")
		if data {
			if line != "." {
				continue
			}
			data = false
			for _, r := range to {
				switch {
				case strings.HasPrefix(r, "RCPT TO:<gone"):
					return
				case strings.HasPrefix(r, "RCPT TO:<full"):
					say("452 4.2.2 mailbox full")
				default:
					say("250 2.1.5 saved")
				}
			}
			to = nil
			continue
		}
		s.mu.Lock()
		s.said = append(s.said, line)
		s.mu.Unlock()
		switch verb {
		case "LHLO me.test":
			say("250-store.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 ENHANCEDSTATUSCODES")
		case "RCPT TO":
			if strings.HasPrefix(line, "RCPT TO:<unknown") {
				say("550 5.1.1 nobody")
				continue
			}
			to = append(to, line)
			say("250 2.1.5 ok")
		case "DATA":
			data = len(to) > 0
			if !data {
				say("503 5.5.1 no recipients")
				continue
			}
			say("354 go")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 2.0.0 ok")
		}
	}
}

func TestLMTPHasAReplyForEachRecipient(t *testing.T) {
	t.Parallel()
	s := newLMTPServer(t)
	tr := rig(t, nil, func(o *Options) {
		o.Routes = map[string]*SmartHost{"b.test": {LMTP: true, Socket: s.path, TLS: TLSOpportunistic}}
	})
	m := mail("x@b.test", "unknown@b.test", "full@b.test", "y@b.test")
	m.Content = text(strings.Repeat("0123456789\r\n", chunkFrom/12+1)) // large enough for chunks
	if got, want := brief(deliver(t, tr, "b.test", m)), "delivered 250 2.1.5 end of data; failed 550 5.1.1 RCPT; deferred 452 4.2.2 end of data; delivered 250 2.1.5 end of data"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if lines := s.lines(); lines[0] != "LHLO me.test" || strings.Contains(strings.Join(lines, "\n"), "BDAT") {
		t.Errorf("commands %q", lines)
	}
	if got, want := brief(deliver(t, tr, "b.test", mail("unknown@b.test"))), "failed 550 5.1.1 RCPT"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestLMTPThatBreaksOffDecidesOnlyWhatItSaid(t *testing.T) {
	t.Parallel()
	s := newLMTPServer(t)
	tr := rig(t, nil, func(o *Options) {
		o.Routes = map[string]*SmartHost{"b.test": {LMTP: true, Socket: s.path, TLS: TLSOpportunistic}}
	})
	rs := deliver(t, tr, "b.test", mail("x@b.test", "gone@b.test", "y@b.test"))
	if got, want := brief(rs), "delivered 250 2.1.5 end of data; deferred 0 4.4.2 end of data; deferred 0 4.4.2 end of data"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestLMTPRoutesAreChecked(t *testing.T) {
	t.Parallel()
	for _, h := range []SmartHost{{Socket: "/x"}, {LMTP: true, Socket: "/x", Host: "b.test"}, {LMTP: true, Host: "b.test"}} {
		if err := h.check(); err == nil {
			t.Errorf("%+v was taken", h)
		}
	}
	if err := (&SmartHost{LMTP: true, Host: "127.0.0.1", Port: 24, TLS: TLSOpportunistic}).check(); err != nil {
		t.Error(err)
	}
}

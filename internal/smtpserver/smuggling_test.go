package smtpserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"waxwing/internal/listen"
)

// pipes is a listener whose connections are net.Pipes: a write of the client is one read of the server, so that it is
// known how the octets were cut.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.conns <- named{a, "192.0.2.7:25000"}
	return b
}

// dialFrom gives the server's end a remote address.
func (p *pipes) dialFrom(addr string) net.Conn {
	a, b := net.Pipe()
	p.conns <- named{a, addr}
	return b
}

type named struct {
	net.Conn
	addr string
}

func (n named) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", n.addr)
	if err != nil {
		return n.Conn.RemoteAddr()
	}
	return a
}

// servePipes runs a server on pipes until the end of the test.
func servePipes(t testing.TB, opts Options, mode Mode) (*Server, *pipes) {
	t.Helper()
	p := newPipes()
	srv := New(opts)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(p, mode) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx) // tests leave sessions behind
		if err := <-served; !errors.Is(err, listen.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return srv, p
}

// talk sends these packets and returns all that the server answered until it closed the connection.
func talk(p *pipes, packets ...string) string {
	nc := p.dial()
	answer := make(chan string)
	go func() {
		b, _ := io.ReadAll(nc) // ends when the server closes
		answer <- string(b)
	}()
	for _, s := range packets {
		if _, err := io.WriteString(nc, s); err != nil {
			break // closed by the server
		}
	}
	all := <-answer
	nc.Close()
	return all
}

// TestSmuggling sends a message with each end of data that some server somewhere takes for one, whole and cut at each
// octet, everything pipelined. Nothing of what follows may become a second message (CVE-2023-51764 and its kin).
func TestSmuggling(t *testing.T) {
	t.Parallel()
	const (
		head = "HELO client.test\r\nMAIL FROM:<a@one.test>\r\nRCPT TO:<b@two.test>\r\nDATA\r\n"
		evil = "MAIL FROM:<smuggled@one.test>\r\nRCPT TO:<b@two.test>\r\nDATA\r\nSubject: evil\r\n"
		tail = "\r\n.\r\nQUIT\r\n"
	)
	for _, end := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r",
		"\r\r\n.\r\n", "\r\n.\r\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n..\r\n", "\r\n . \r\n", "\n\n.\n\n",
	} {
		t.Run(fmt.Sprintf("%q", end), func(t *testing.T) {
			t.Parallel()
			rec := newRecorder()
			_, p := servePipes(t, options(rec), MX)
			all := head + "Subject: x\r\n\r\nhello" + end + evil + tail
			first := len(head) - 2
			for cut := first; cut < first+60 && cut < len(all); cut++ {
				check(t, rec, talk(p, all[:cut], all[cut:]))
			}
			check(t, rec, talk(p, all))
			check(t, rec, talk(p, strings.SplitAfter(all, "")...))
		})
	}
}

func check(t *testing.T, rec *recorder, answer string) {
	t.Helper()
	got := rec.taken()
	rec.mu.Lock()
	rec.mails = nil
	rec.mu.Unlock()
	if len(got) > 1 {
		t.Fatalf("%d messages: %q", len(got), answer)
	}
	for _, m := range got {
		if m.from == "smuggled@one.test" {
			t.Fatalf("smuggled: %q", answer)
		}
		if strings.ContainsAny(strings.ReplaceAll(m.body, "\r\n", ""), "\r\n") {
			t.Fatalf("a bare newline was taken: %q", m.body)
		}
	}
	if len(got) == 0 && !strings.Contains(answer, "554 5.6.11") {
		t.Fatalf("neither taken nor refused: %q", answer)
	}
	// Where the end itself is ambiguous, nothing behind it is read.
	if !strings.HasSuffix(answer, "221 2.0.0 bye\r\n") && !strings.Contains(answer, "421 4.7.0 the message ended ambiguously") {
		t.Fatalf("the session is out of step: %q", answer)
	}
}

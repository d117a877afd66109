package dialogtest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Peer is a client that speaks raw lines.
type Peer struct {
	TB   testing.TB
	Conn net.Conn
	R    *bufio.Reader
}

// Dial connects in plaintext; the connection is closed when the test ends.
func Dial(tb testing.TB, addr string) *Peer {
	tb.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	p := &Peer{TB: tb, Conn: nc, R: bufio.NewReader(nc)}
	tb.Cleanup(func() { _ = p.Conn.Close() })
	if err := nc.SetDeadline(time.Now().Add(Patience)); err != nil {
		tb.Fatal(err)
	}
	return p
}

// Encrypt begins TLS; the handshake comes with what is sent or read next.
func (p *Peer) Encrypt(cfg *tls.Config) {
	p.Conn = tls.Client(p.Conn, cfg)
	p.R = bufio.NewReader(p.Conn)
}

// Send writes octets as they are.
func (p *Peer) Send(text string) {
	p.TB.Helper()
	if _, err := io.WriteString(p.Conn, text); err != nil {
		p.TB.Fatalf("send %.80q: %v", text, err)
	}
}

// Line reads one line and returns it without CRLF.
func (p *Peer) Line() string {
	p.TB.Helper()
	line, err := p.R.ReadString('\n')
	if err != nil {
		p.TB.Fatalf("read: %v (after %q)", err, line)
	}
	if !strings.HasSuffix(line, "\r\n") {
		p.TB.Fatalf("line without CRLF: %q", line)
	}
	return line[:len(line)-2]
}

// Gone requires that the server closes the connection; what it still says is returned.
func (p *Peer) Gone() string {
	p.TB.Helper()
	rest, err := io.ReadAll(p.R)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		p.TB.Fatalf("the server holds the connection open, after %q", rest)
	}
	return string(rest)
}

package smtpserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/auth"
	"waxwing/internal/intake"
	"waxwing/internal/listen"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// taken is one message that the recorder committed.
type taken struct {
	from string
	to   []string
	body string
	mail smtp.Mail
	peer intake.Peer
}

// recorder is an intake that keeps messages in memory. What a recipient's local part says, happens.
type recorder struct {
	max      int64
	maxRcpts int
	commit   func(ctx context.Context) error // nil: all is well

	mu    sync.Mutex
	mails []taken
	open  int // transactions begun and not aborted
}

func newRecorder() *recorder { return &recorder{max: 10_000, maxRcpts: 5} }

func (r *recorder) MaxSize() int64     { return r.max }
func (r *recorder) MaxRecipients() int { return r.maxRcpts }
func (r *recorder) Offer() intake.Offer {
	return intake.Offer{Hold: time.Hour, Domains: 3, Priority: 4}
}

func (r *recorder) Begin(p intake.Peer) Transaction {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	return &recording{r: r, peer: p}
}

func (r *recorder) taken() []taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]taken(nil), r.mails...)
}

func (r *recorder) stillOpen() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open
}

type recording struct {
	r       *recorder
	peer    intake.Peer
	mail    smtp.Mail
	to      []string
	spool   bytes.Buffer
	full    bool
	aborted bool
}

func (t *recording) Mail(_ context.Context, m smtp.Mail) error {
	t.mail = m
	if m.Size > t.r.max {
		return smtp.Errorf(552, "5.3.4", "message too large")
	}
	return nil
}

func (t *recording) Rcpt(ctx context.Context, r smtp.Rcpt) error {
	switch r.To.Local {
	case "unknown":
		return smtp.Errorf(550, "5.1.1", "no such mailbox")
	case "broken":
		return errors.New("the directory is on fire")
	case "panics":
		panic("a defect")
	case "closing":
		return smtp.Errorf(421, "4.7.0", "go away")
	case "slow":
		<-ctx.Done()
		return ctx.Err()
	case "spoolfull":
		t.full = true
	}
	t.to = append(t.to, r.To.String())
	return nil
}

func (t *recording) Spool() (io.Writer, error) {
	if t.full {
		return failingSpool{}, nil
	}
	return &t.spool, nil
}

type failingSpool struct{}

func (failingSpool) Write([]byte) (int, error) {
	return 0, smtp.Errorf(452, "4.3.1", "no room for messages")
}

func (t *recording) Commit(ctx context.Context) (intake.Receipt, error) {
	if t.r.commit != nil {
		if err := t.r.commit(ctx); err != nil {
			return intake.Receipt{}, err
		}
	}
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.r.mails = append(t.r.mails, taken{from: t.mail.From.String(), to: t.to, body: t.spool.String(), mail: t.mail, peer: t.peer})
	return intake.Receipt{TraceID: fmt.Sprintf("T%d", len(t.r.mails))}, nil
}

func (t *recording) Abort() {
	if !t.aborted {
		t.aborted = true
		t.r.mu.Lock()
		t.r.open--
		t.r.mu.Unlock()
	}
}

// users knows user@example.test with the password "correct horse", by PLAIN and LOGIN.
type users struct{}

func (users) Mechanisms(secure bool) []string {
	if !secure {
		return nil
	}
	return []string{"PLAIN", "LOGIN"}
}

func (users) Start(_ context.Context, at auth.Attempt, mechanism string) (auth.Exchange, error) {
	switch {
	case !at.TLS:
		return nil, auth.ErrTLS
	case mechanism == "PLAIN" || mechanism == "LOGIN":
		return &exchange{login: mechanism == "LOGIN"}, nil
	}
	return nil, auth.ErrMechanism
}

type exchange struct {
	login bool
	name  []byte
}

func (e *exchange) Next(_ context.Context, response []byte) ([]byte, *auth.Identity, error) {
	name, password := e.name, response
	switch {
	case e.login && response == nil:
		return []byte("Username:"), nil, nil
	case e.login && e.name == nil:
		e.name = response
		return []byte("Password:"), nil, nil
	case !e.login && response == nil:
		return []byte{}, nil, nil
	case !e.login:
		_, rest, _ := bytes.Cut(response, []byte{0})
		name, password, _ = bytes.Cut(rest, []byte{0})
	}
	if string(name) == "down" {
		return nil, nil, auth.ErrTemporary
	}
	if string(name) != "user@example.test" || string(password) != "correct horse" {
		return nil, nil, auth.ErrCredentials
	}
	return nil, &auth.Identity{Account: store.AccountID(7)}, nil
}

var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"mx.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
})

func options(r *recorder) Options {
	return Options{Hostname: "mx.test", Intake: r, Auth: users{}, TLS: testTLS(), Limits: Limits{Early: -1}}
}

// serve runs a server on loopback until the end of the test.
func serve(t testing.TB, opts Options, mode Mode) (srv *Server, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv = New(opts)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l, mode) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, listen.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return srv, l.Addr().String()
}

// patience is how long a peer waits for what must come, a whole conversation included.
const patience = 2 * time.Minute

// client is a plain peer for tests.
type client struct {
	t   testing.TB
	nc  net.Conn
	buf []byte
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, nc: nc}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, s); err != nil {
		c.t.Fatalf("send %q: %v", s, err)
	}
}

// line reads one line without its CRLF.
func (c *client) line() (string, error) {
	for {
		if i := bytes.Index(c.buf, []byte("\r\n")); i >= 0 {
			line := string(c.buf[:i])
			c.buf = c.buf[i+2:]
			return line, nil
		}
		var b [4096]byte
		n, err := c.nc.Read(b[:])
		c.buf = append(c.buf, b[:n]...)
		if n == 0 && err != nil {
			return string(c.buf), err
		}
	}
}

// expect reads a whole reply and compares its last line's beginning.
func (c *client) expect(prefix string) string {
	c.t.Helper()
	for {
		line, err := c.line()
		if err != nil {
			c.t.Fatalf("waiting for %q: %q, %v", prefix, line, err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, prefix) {
			c.t.Fatalf("got %q, want %q", line, prefix)
		}
		return line
	}
}

// do sends a command and expects its reply.
func (c *client) do(command, prefix string) {
	c.t.Helper()
	c.send(command + "\r\n")
	c.expect(prefix)
}

func (c *client) expectEnd() {
	c.t.Helper()
	if line, err := c.line(); err != io.EOF || line != "" {
		c.t.Fatalf("expected the end of the session, got %q, %v", line, err)
	}
}

func (c *client) startTLS() {
	c.t.Helper()
	tc := tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.nc = tc
}

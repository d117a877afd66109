package pop3server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/certs"
	"waxwing/internal/directory"
	"waxwing/internal/listen"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hostname     = "pop.example.test"
	testLogin    = "a@example.test"
	testPassword = "correct horse  battery" // with two spaces: PASS takes all of it
	testAccount  = store.AccountID(7)
	patience     = 2 * time.Minute // how long a peer waits for what must come, a whole conversation included
)

// accounts is a directory of one account.
type accounts struct {
	hash string
	down bool // it can't be asked
}

func (a accounts) ByLogin(_ context.Context, login string) (directory.Account, error) {
	if a.down {
		return directory.Account{}, errors.New("directory is down")
	}
	if login != testLogin {
		return directory.Account{}, directory.ErrNotFound
	}
	at, err := address.Parse(testLogin)
	return directory.Account{ID: testAccount, Address: at}, err
}

func (a accounts) PasswordHash(context.Context, store.AccountID) (string, int64, error) {
	return a.hash, 1, nil
}

var passwordHash = sync.OnceValues(func() (string, error) { return auth.HashPassword([]byte(testPassword)) })

// keys are the server's TLS configuration and that of a client that trusts it, and the certificate itself.
type keys struct {
	server, client *tls.Config
	certificate    []byte
}

var testKeys = sync.OnceValues(func() (keys, error) {
	certificate, key, err := certs.SelfSigned([]string{hostname, "127.0.0.1"}, time.Now())
	if err != nil {
		return keys{}, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return keys{
		server:      &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		client:      &tls.Config{RootCAs: pool, ServerName: hostname, MinVersion: tls.VersionTLS12},
		certificate: certificate,
	}, err
})

// newStore opens a store with one account.
func newStore(tb testing.TB) *store.Store {
	tb.Helper()
	dir := tb.TempDir()
	db, err := sqlite.Open(context.Background(), filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	packs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "packs"), Reserve: -1})
	if err != nil {
		tb.Fatal(err)
	}
	st, err := store.Open(context.Background(), store.Options{DB: db, Blobs: store.Packs(packs)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := st.Write(context.Background(), func(tx *store.Tx) error {
		return st.CreateAccountState(tx, testAccount, store.DefaultMailboxes)
	}); err != nil {
		tb.Fatal(err)
	}
	return st
}

// rig is a server on loopback over a store.
type rig struct {
	tb       testing.TB
	store    *store.Store
	server   *Server
	plain    string // address with STLS
	implicit string // address with TLS
}

func newRig(tb testing.TB, change ...func(*Options)) *rig {
	tb.Helper()
	hash, err := passwordHash()
	if err != nil {
		tb.Fatal(err)
	}
	au, err := auth.New(accounts{hash: hash}, auth.Options{Throttle: auth.ThrottleOptions{Free: 1000}})
	if err != nil {
		tb.Fatal(err)
	}
	k, err := testKeys()
	if err != nil {
		tb.Fatal(err)
	}
	st := newStore(tb)
	opt := Options{Store: st, Auth: au, TLS: k.server, Hostname: hostname}
	for _, c := range change {
		c(&opt)
	}
	r := &rig{tb: tb, store: st, server: New(opt)}
	var serving sync.WaitGroup
	for _, implicit := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		if implicit {
			r.implicit = l.Addr().String()
		} else {
			r.plain = l.Addr().String()
		}
		serving.Go(func() {
			if err := r.server.Serve(l, implicit); !errors.Is(err, listen.ErrClosed) {
				tb.Errorf("serve: %v", err)
			}
		})
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			tb.Error(err)
		}
		serving.Wait()
	})
	return r
}

// fill puts messages into the INBOX.
func (r *rig) fill(messages ...string) []store.Placed {
	r.tb.Helper()
	ctx := context.Background()
	m, err := r.store.Mailbox(ctx, testAccount, "INBOX")
	if err != nil {
		r.tb.Fatal(err)
	}
	var batch []store.NewMessage
	for _, text := range messages {
		batch = append(batch, store.NewMessage{Content: bytes.NewReader([]byte(text)), InternalDate: time.Unix(1_700_000_000, 0)})
	}
	placed, err := r.store.Append(ctx, testAccount, m.ID, batch)
	if err != nil {
		r.tb.Fatal(err)
	}
	return placed
}

func letter(i int) string {
	return fmt.Sprintf("From: b@example.test\r\nSubject: letter %d\r\n\r\nLine one of %d\r\n.hidden dot\r\n..\r\nLast line\r\n", i, i)
}

// peer is a client.
type peer struct {
	tb   testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial connects: "plain", "tls" (implicit), or "login" (implicit TLS and logged in).
func (r *rig) dial(how string) *peer {
	r.tb.Helper()
	addr := r.plain
	if how != "plain" {
		addr = r.implicit
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		r.tb.Fatal(err)
	}
	p := &peer{tb: r.tb, conn: nc}
	r.tb.Cleanup(func() { _ = p.conn.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		r.tb.Fatal(err)
	}
	p.r = bufio.NewReader(nc)
	if how != "plain" {
		p.encrypt()
	}
	if how == "login" {
		p.line()
		p.ok("USER " + testLogin)
		p.ok("PASS " + testPassword)
	}
	return p
}

// encrypt begins TLS.
func (p *peer) encrypt() {
	p.tb.Helper()
	k, err := testKeys()
	if err != nil {
		p.tb.Fatal(err)
	}
	p.conn = tls.Client(p.conn, k.client)
	p.r = bufio.NewReader(p.conn)
}

func (p *peer) send(text string) {
	p.tb.Helper()
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.tb.Fatalf("send %.80q: %v", text, err)
	}
}

// line reads one line without CRLF.
func (p *peer) line() string {
	p.tb.Helper()
	line, err := p.r.ReadString('\n')
	if err != nil {
		p.tb.Fatalf("read: %v (after %q)", err, line)
	}
	if !strings.HasSuffix(line, "\r\n") {
		p.tb.Fatalf("line without CRLF: %q", line)
	}
	return line[:len(line)-2]
}

// ok sends a command that must succeed and returns the text behind +OK.
func (p *peer) ok(command string) string {
	p.tb.Helper()
	p.send(command + "\r\n")
	line := p.line()
	if !strings.HasPrefix(line, "+OK") {
		p.tb.Fatalf("%s: %s", command, line)
	}
	return strings.TrimSpace(line[3:])
}

// lines sends a command with an answer of many lines, which it returns as a client takes them.
func (p *peer) lines(command string) (first string, body string) {
	p.tb.Helper()
	first = p.ok(command)
	var b strings.Builder
	for {
		line := p.line()
		if line == "." {
			return first, b.String()
		}
		b.WriteString(strings.TrimPrefix(line, "."))
		b.WriteString("\r\n")
	}
}

// gone requires that the server closes the connection; what it still says is returned.
func (p *peer) gone() string {
	p.tb.Helper()
	rest, err := io.ReadAll(p.r)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		p.tb.Fatalf("the server holds the connection open, after %q", rest)
	}
	return string(rest)
}

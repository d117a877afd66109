package imapserver

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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/certs"
	"waxwing/internal/digest"
	"waxwing/internal/directory"
	"waxwing/internal/listen"
	"waxwing/internal/message"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testLogin    = "a@example.test"
	testPassword = "correct horse"
	testAccount  = store.AccountID(1)
)

// oneAccount is a directory of one account.
type oneAccount struct{ hash string }

func (o oneAccount) ByLogin(_ context.Context, login string) (directory.Account, error) {
	if login != testLogin {
		return directory.Account{}, directory.ErrNotFound
	}
	a, err := address.Parse(testLogin)
	return directory.Account{ID: testAccount, Address: a}, err
}

func (o oneAccount) PasswordHash(context.Context, store.AccountID) (string, int64, error) {
	return o.hash, 1, nil
}

var passwordHash = sync.OnceValues(func() (string, error) { return auth.HashPassword([]byte(testPassword)) })

// testTLS is the server's configuration and one of a client that trusts it.
var testTLS = sync.OnceValues(func() (*tls.Config, *tls.Config) {
	certPEM, keyPEM, err := certs.SelfSigned([]string{"imap.example.test"}, time.Now())
	if err != nil {
		panic(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: pool, ServerName: "imap.example.test", MinVersion: tls.VersionTLS12}
})

// newStore opens a store with one account, which has the default mailboxes.
func newStore(t testing.TB) *store.Store {
	t.Helper()
	return openStore(t, t.TempDir())
}

// openStore is newStore in a folder of the test's.
func openStore(t testing.TB, dir string) *store.Store {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	packs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "packs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(packs)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	err = st.Write(t.Context(), func(tx *store.Tx) error {
		return st.CreateAccountState(tx, testAccount, store.DefaultMailboxes)
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// rig is a server on loopback over a fresh store.
type rig struct {
	t        testing.TB
	store    *store.Store
	server   *Server
	plain    string // address with STARTTLS
	implicit string // address with TLS
}

func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	return serve(t, newStore(t), change...)
}

// serve starts a server over a store and stops it at the end of the test.
func serve(t testing.TB, st *store.Store, change ...func(*Options)) *rig {
	t.Helper()
	hash, err := passwordHash()
	if err != nil {
		t.Fatal(err)
	}
	au, err := auth.New(oneAccount{hash}, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	serverTLS, _ := testTLS()
	opt := Options{
		Store: st, Auth: au, TLS: serverTLS, Hostname: "imap.example.test", SpoolDir: t.TempDir(),
		Clock: func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) },
	}
	for _, c := range change {
		c(&opt)
	}
	r := &rig{t: t, store: st, server: New(opt)}
	var serving sync.WaitGroup
	for _, implicit := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if implicit {
			r.implicit = l.Addr().String()
		} else {
			r.plain = l.Addr().String()
		}
		serving.Go(func() {
			if err := r.server.Serve(l, implicit); !errors.Is(err, listen.ErrClosed) {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return r
}

// on is the rig for a test inside the test.
func (r *rig) on(t testing.TB) *rig {
	inner := *r
	inner.t = t
	return &inner
}

// fill appends messages to a mailbox of the account, without IMAP.
func (r *rig) fill(mailbox string, messages ...string) {
	r.t.Helper()
	m, err := r.store.Mailbox(r.t.Context(), testAccount, mailbox)
	if err != nil {
		r.t.Fatal(err)
	}
	batch := make([]store.NewMessage, 0, len(messages))
	for _, text := range messages {
		c := memory{bytes.NewReader([]byte(text))}
		root, err := message.Parse(c, c.Size(), message.DefaultLimits)
		if err != nil {
			r.t.Fatal(err)
		}
		batch = append(batch, store.NewMessage{
			Content: c, Summary: digest.Make(root, c, c.Size()),
			InternalDate: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		})
	}
	if _, err := r.store.Append(r.t.Context(), testAccount, m.ID, batch); err != nil {
		r.t.Fatal(err)
	}
}

// memory is a message in memory.
type memory struct{ *bytes.Reader }

func (m memory) Size() int64 { return m.Reader.Size() }

// peer is a client that speaks raw lines.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	tag  int
}

// peerPatience is how long a peer waits for what must come, a whole conversation included.
const peerPatience = 2 * time.Minute

// dial connects: "plain", "tls" (implicit), or "login" (implicit TLS and logged in).
func (r *rig) dial(how string) *peer {
	r.t.Helper()
	_, clientTLS := testTLS()
	addr := r.plain
	if how != "plain" {
		addr = r.implicit
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	if how != "plain" {
		nc = tls.Client(nc, clientTLS)
	}
	p := &peer{t: r.t, conn: nc, r: bufio.NewReader(nc)}
	r.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(peerPatience))
	if how == "login" {
		p.line()
		p.ok("LOGIN " + testLogin + " \"" + testPassword + "\"")
	}
	return p
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Fatalf("send %.80q: %v", text, err)
	}
}

// line reads one line without CRLF.
func (p *peer) line() string {
	p.t.Helper()
	line, err := p.r.ReadString('\n')
	if err != nil {
		p.t.Fatalf("read: %v (after %q)", err, line)
	}
	if !strings.HasSuffix(line, "\r\n") {
		p.t.Fatalf("line without CRLF: %q", line)
	}
	return line[:len(line)-2]
}

// do sends a command and reads up to its tagged answer; literals are in the lines as they come.
func (p *peer) do(command string) (untagged []string, tagged string) {
	p.t.Helper()
	p.tag++
	tag := fmt.Sprintf("t%d", p.tag)
	p.send(tag + " " + command + "\r\n")
	for {
		line := p.response()
		if rest, found := strings.CutPrefix(line, tag+" "); found {
			return untagged, rest
		}
		untagged = append(untagged, line)
	}
}

// response reads one response with its literals.
func (p *peer) response() string {
	p.t.Helper()
	line := p.line()
	for {
		n, _, found := trailingLiteral([]byte(line[strings.LastIndexByte(line, '\n')+1:]))
		if !found {
			return line
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(p.r, b); err != nil {
			p.t.Fatalf("read literal of %d: %v", n, err)
		}
		line += "\r\n" + string(b) + p.line()
	}
}

// ok sends a command that must succeed.
func (p *peer) ok(command string) []string {
	p.t.Helper()
	untagged, tagged := p.do(command)
	if !strings.HasPrefix(tagged, "OK") {
		p.t.Fatalf("%s: %s", command, tagged)
	}
	return untagged
}

// gone requires that the server closes the connection; what it still says is returned.
func (p *peer) gone() string {
	p.t.Helper()
	rest, err := io.ReadAll(p.r)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		p.t.Fatalf("the server holds the connection open, after %q", rest)
	}
	return string(rest)
}

func testMessage(i int) string {
	return "From: Anna <anna" + strconv.Itoa(i) + "@example.test>\r\nTo: a@example.test\r\nSubject: message " +
		strconv.Itoa(i) + "\r\nDate: Mon, 2 Mar 2026 10:00:00 +0800\r\nMessage-ID: <" + strconv.Itoa(i) +
		"@example.test>\r\n\r\nbody of " + strconv.Itoa(i) + "\r\n"
}

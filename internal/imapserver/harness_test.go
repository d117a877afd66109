package imapserver

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/auth"
	"waxwing/internal/dialogtest"
	"waxwing/internal/digest"
	"waxwing/internal/message"
	"waxwing/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hostname     = "imap.example.test"
	testLogin    = dialogtest.Login
	testPassword = "correct horse"
	testAccount  = store.AccountID(1)
)

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
	return serve(t, dialogtest.OpenStore(t, t.TempDir(), testAccount), change...)
}

// serve starts a server over a store and stops it at the end of the test.
func serve(t testing.TB, st *store.Store, change ...func(*Options)) *rig {
	t.Helper()
	au, err := auth.New(dialogtest.Accounts{ID: testAccount, Hash: dialogtest.Hash(t, testPassword)}, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{
		Store: st, Auth: au, TLS: dialogtest.KeysFor(t, hostname).Server, Hostname: hostname, SpoolDir: t.TempDir(),
		Clock: func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) },
	}
	for _, c := range change {
		c(&opt)
	}
	r := &rig{t: t, store: st, server: New(opt)}
	r.plain, r.implicit = dialogtest.Serve(t, r.server)
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

// peer is a client.
type peer struct {
	*dialogtest.Peer
	tag int
}

// dial connects: "plain", "tls" (implicit), or "login" (implicit TLS and logged in).
func (r *rig) dial(how string) *peer {
	r.t.Helper()
	if how == "plain" {
		return &peer{Peer: dialogtest.Dial(r.t, r.plain)}
	}
	p := &peer{Peer: dialogtest.Dial(r.t, r.implicit)}
	p.Encrypt(dialogtest.KeysFor(r.t, hostname).Client)
	if how == "login" {
		p.Line()
		p.ok("LOGIN " + testLogin + " \"" + testPassword + "\"")
	}
	return p
}

// do sends a command and reads up to its tagged answer; literals are in the lines as they come.
func (p *peer) do(command string) (untagged []string, tagged string) {
	p.TB.Helper()
	p.tag++
	tag := fmt.Sprintf("t%d", p.tag)
	p.Send(tag + " " + command + "\r\n")
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
	p.TB.Helper()
	line := p.Line()
	for {
		n, _, found := trailingLiteral([]byte(line[strings.LastIndexByte(line, '\n')+1:]))
		if !found {
			return line
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(p.R, b); err != nil {
			p.TB.Fatalf("read literal of %d: %v", n, err)
		}
		line += "\r\n" + string(b) + p.Line()
	}
}

// ok sends a command that must succeed.
func (p *peer) ok(command string) []string {
	p.TB.Helper()
	untagged, tagged := p.do(command)
	if !strings.HasPrefix(tagged, "OK") {
		p.TB.Fatalf("%s: %s", command, tagged)
	}
	return untagged
}

func testMessage(i int) string {
	return "From: Anna <anna" + strconv.Itoa(i) + "@example.test>\r\nTo: a@example.test\r\nSubject: message " +
		strconv.Itoa(i) + "\r\nDate: Mon, 2 Mar 2026 10:00:00 +0800\r\nMessage-ID: <" + strconv.Itoa(i) +
		"@example.test>\r\n\r\nbody of " + strconv.Itoa(i) + "\r\n"
}

package pop3server

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/auth"
	"waxwing/internal/dialogtest"
	"waxwing/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hostname     = "pop.example.test"
	testLogin    = dialogtest.Login
	testPassword = "correct horse  battery" // with two spaces: PASS takes all of it
	testAccount  = store.AccountID(7)
	patience     = dialogtest.Patience
)

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
	au, err := auth.New(dialogtest.Accounts{ID: testAccount, Hash: dialogtest.Hash(tb, testPassword)}, auth.Options{Throttle: auth.ThrottleOptions{Free: 1000}})
	if err != nil {
		tb.Fatal(err)
	}
	st := dialogtest.OpenStore(tb, tb.TempDir(), testAccount)
	opt := Options{Store: st, Auth: au, TLS: dialogtest.KeysFor(tb, hostname).Server, Hostname: hostname}
	for _, c := range change {
		c(&opt)
	}
	r := &rig{tb: tb, store: st, server: New(opt)}
	r.plain, r.implicit = dialogtest.Serve(tb, r.server)
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
type peer struct{ *dialogtest.Peer }

// dial connects: "plain", "tls" (implicit), or "login" (implicit TLS and logged in).
func (r *rig) dial(how string) *peer {
	r.tb.Helper()
	if how == "plain" {
		return &peer{dialogtest.Dial(r.tb, r.plain)}
	}
	p := &peer{dialogtest.Dial(r.tb, r.implicit)}
	p.Encrypt(dialogtest.KeysFor(r.tb, hostname).Client)
	if how == "login" {
		p.Line()
		p.ok("USER " + testLogin)
		p.ok("PASS " + testPassword)
	}
	return p
}

// ok sends a command that must succeed and returns the text behind +OK.
func (p *peer) ok(command string) string {
	p.TB.Helper()
	p.Send(command + "\r\n")
	line := p.Line()
	if !strings.HasPrefix(line, "+OK") {
		p.TB.Fatalf("%s: %s", command, line)
	}
	return strings.TrimSpace(line[3:])
}

// lines sends a command with an answer of many lines, which it returns as a client takes them.
func (p *peer) lines(command string) (first string, body string) {
	p.TB.Helper()
	first = p.ok(command)
	var b strings.Builder
	for {
		line := p.Line()
		if line == "." {
			return first, b.String()
		}
		b.WriteString(strings.TrimPrefix(line, "."))
		b.WriteString("\r\n")
	}
}

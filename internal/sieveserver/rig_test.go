package sieveserver

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/dialogtest"
	"waxwing/internal/directory"
	"waxwing/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hostname     = "sieve.example.test"
	testPassword = "correct horse"
	testAccount  = store.AccountID(7)
)

// rig is a server on loopback over a store.
type rig struct {
	tb              testing.TB
	store           *store.Store
	server          *Server
	plain, implicit string
}

func newRig(tb testing.TB) *rig {
	tb.Helper()
	au, err := auth.New(dialogtest.Accounts{ID: testAccount, Hash: dialogtest.Hash(tb, testPassword)}, auth.Options{Throttle: auth.ThrottleOptions{Free: 1000}})
	if err != nil {
		tb.Fatal(err)
	}
	st := dialogtest.OpenStore(tb, tb.TempDir(), testAccount)
	settings := directory.DefaultSettings()
	settings.SieveScripts, settings.SieveScriptSize = 3, 5000
	r := &rig{tb: tb, store: st, server: New(Options{
		Store: st, Auth: au, TLS: dialogtest.KeysFor(tb, hostname).Server, Settings: func() directory.Settings { return settings },
	})}
	r.plain, r.implicit = dialogtest.Serve(tb, r.server)
	return r
}

// dial connects: "plain", "tls" (implicit), or "login" (implicit TLS and logged in).
func (r *rig) dial(how string) *dialogtest.Peer {
	r.tb.Helper()
	if how == "plain" {
		return dialogtest.Dial(r.tb, r.plain)
	}
	p := dialogtest.Dial(r.tb, r.implicit)
	p.Encrypt(dialogtest.KeysFor(r.tb, hostname).Client)
	if how == "login" {
		p.Send("AUTHENTICATE \"PLAIN\" \"AGFAZXhhbXBsZS50ZXN0AGNvcnJlY3QgaG9yc2U=\"\r\n")
		for line := ""; line != `OK "Logged in"`; line = p.Line() {
			if strings.HasPrefix(line, "NO") {
				r.tb.Fatal(line)
			}
		}
	}
	return p
}

// TestDialogs plays the conversations in testdata/dialogs, as dialogtest.Play explains them. A session connects by plain, tls
// or login (the greeting and AUTHENTICATE are done then). "@large N" sends a script of N octets as a literal of PUTSCRIPT.
func TestDialogs(t *testing.T) {
	t.Parallel()
	dialogtest.Play(t, "testdata/dialogs", func(t *testing.T) dialogtest.Stage {
		r := newRig(t)
		return dialogtest.Stage{
			Dial:   r.dial,
			Client: dialogtest.KeysFor(t, hostname).Client,
			Do:     func(word, _ string) error { return fmt.Errorf("no such word: %s", word) },
		}
	})
}

// script is a connection whose peer has sent all its octets at once, and takes everything.
type script struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *script) Close() error                { return nil }
func (s *script) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4190} }

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
		s.state, s.identity = user, &auth.Identity{Account: testAccount, Address: address.Address{Local: "a", Domain: "example.test"}}
	}
	err := s.loop()
	if ferr := s.conn.Flush(); ferr != nil && err == nil {
		t.Errorf("flush: %v", ferr)
	}
	_ = s.conn.Close()
	return nc.out.String()
}

// FuzzSession sends octets to a session, before login and after: every answer is a line of the protocol, nobody logs in
// without TLS, and no more scripts are kept than may be.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"CAPABILITY\r\nNOOP \"x\"\r\nLISTSCRIPTS\r\nLOGOUT\r\n", "AUTHENTICATE \"PLAIN\" {4+}\r\nabcd\r\n", "STARTTLS\r\n\x16\x03\x01",
		"PUTSCRIPT \"a\" {5+}\r\nkeep;\r\nSETACTIVE \"a\"\r\nGETSCRIPT \"a\"\r\nRENAMESCRIPT \"a\" \"b\"\r\nDELETESCRIPT \"b\"\r\n",
		"PUTSCRIPT {1+}\r\nx \"keep;\"\r\nHAVESPACE \"a\" 99999\r\nCHECKSCRIPT {99999999999+}\r\n", "\r\n{3+}\r\nabc\r\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	r := newRig(f)
	f.Fuzz(func(t *testing.T, in []byte, login bool) {
		out := converse(t, r, in, login)
		if !login && strings.Contains(out, `OK "Logged in"`) {
			t.Fatal("logged in without TLS")
		}
		if !bytes.Contains(bytes.ToUpper(in), []byte("STARTTLS")) && out != "" && !strings.HasSuffix(out, "\r\n") {
			t.Fatalf("no whole line: %.200q", out)
		}
		if list, err := r.store.SieveScripts(t.Context(), testAccount); err != nil || len(list) > 3 {
			t.Fatalf("%d scripts: %v", len(list), err)
		}
	})
}

// TestALiteralThatIsTooLargeLeavesTheSessionInStep holds that what a refused literal says is never a command.
func TestALiteralThatIsTooLargeLeavesTheSessionInStep(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	inner := strings.Repeat("PUTSCRIPT \"evil\" \"keep;\"\r\n", 400)
	out := converse(t, r, fmt.Appendf(nil, "PUTSCRIPT \"a\" {%d+}\r\n%s\r\nNOOP \"in step\"\r\n", len(inner), inner), true)
	if !strings.HasPrefix(out, "NO (QUOTA/MAXSIZE) ") || !strings.HasSuffix(out, "OK (TAG \"in step\") \"Done\"\r\n") || strings.Count(out, "\r\n") != 2 {
		t.Errorf("%q", out)
	}
	huge := converse(t, r, []byte("PUTSCRIPT \"a\" {2147483647+}\r\nNOOP\r\n"), true)
	if huge != "BYE \"Too long\"\r\n" {
		t.Errorf("%q", huge)
	}
	if list, err := r.store.SieveScripts(t.Context(), testAccount); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

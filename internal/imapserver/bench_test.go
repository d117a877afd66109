package imapserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"waxwing/internal/dialogtest"
	"waxwing/internal/listen"
)

// loaded is a trusted session on an INBOX with many messages of about 4 KB.
func loaded(tb testing.TB, messages int) *peer {
	tb.Helper()
	r := newRig(tb, func(o *Options) { o.Limits.TimeBefore = time.Hour }) // trusted sessions never log in
	body := strings.Repeat("The quick brown fox jumps over the lazy dog, said the letter.\r\n", 45) + "number %d\r\n"
	var batch []string
	for i := range messages {
		batch = append(batch, testMessage(i)+
			fmt.Sprintf(body, i))
		if len(batch) == 500 {
			r.fill("INBOX", batch...)
			batch = batch[:0]
		}
	}
	if len(batch) > 0 {
		r.fill("INBOX", batch...)
	}
	p := r.trusted(tb)
	p.ok("SELECT INBOX")
	return p
}

// trusted is a session without TLS that is logged in: what it costs is the protocol and the store, not cryptography.
func (r *rig) trusted(tb testing.TB) *peer {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	start := func(nc net.Conn) listen.Session {
		s := r.server.session(nc, false)
		s.state, s.acct = authenticated, testAccount
		lim := s.conn.Limits()
		lim.Line = 64 << 10
		s.conn.SetLimits(lim)
		return s
	}
	refuse := func(_ net.Conn, why listen.Reason) { tb.Error(why) }
	go func() { _ = r.server.pool.Serve(l, listen.Handler{Start: start, Refuse: refuse}) }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(10 * time.Minute))
	tb.Cleanup(func() { _ = client.Close() })
	p := &peer{Peer: &dialogtest.Peer{TB: tb, Conn: client, R: bufio.NewReaderSize(client, 256<<10)}}
	p.Line()
	return p
}

// drain sends a command and reads the answer as fast as it comes.
func (p *peer) drain(command string) (octets int64) {
	p.TB.Helper()
	p.tag++
	tag := fmt.Sprintf("t%d ", p.tag)
	p.Send(tag + command + "\r\n")
	end := []byte(tag + "OK")
	var tail []byte
	for {
		if _, err := p.R.Peek(1); err != nil {
			p.TB.Fatal(err)
		}
		chunk, _ := p.R.Peek(p.R.Buffered())
		octets += int64(len(chunk))
		tail = append(tail[max(0, len(tail)-200):], chunk[max(0, len(chunk)-200):]...)
		_, _ = p.R.Discard(len(chunk))
		if bytes.Contains(tail, end) && bytes.HasSuffix(tail, []byte("\r\n")) {
			return octets
		}
		if bytes.Contains(tail, []byte(tag+"NO")) || bytes.Contains(tail, []byte(tag+"BAD")) {
			p.TB.Fatalf("%s: %s", command, tail)
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	const messages = 10_000
	p := loaded(b, messages)
	for _, c := range []struct{ name, command string }{
		{"flags", "FETCH 1:* FLAGS"},
		{"fast", "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)"},
		{"envelope", "FETCH 1:* ENVELOPE"},
		{"bodystructure", "FETCH 1:* BODYSTRUCTURE"},
		{"headers", "FETCH 1:* BODY.PEEK[HEADER.FIELDS (DATE FROM SUBJECT)]"},
		{"header", "FETCH 1:* BODY.PEEK[HEADER]"},
		{"full", "FETCH 1:* BODY.PEEK[]"},
		{"part", "FETCH 1:* BODY.PEEK[1]"},
		{"search flag", "SEARCH UNSEEN"},
		{"search from", "SEARCH FROM nobody"},
		{"search subject", "SEARCH SUBJECT nothing"},
		{"search text", "SEARCH TEXT wonderland"},
		{"store", "STORE 1:* +FLAGS.SILENT (\\Flagged)\nSTORE 1:* -FLAGS.SILENT (\\Flagged)"},
		{"store replace", "STORE 1:* FLAGS.SILENT (\\Seen)\nSTORE 1:* FLAGS.SILENT ()"},
		{"store aloud", "STORE 1:* +FLAGS (\\Flagged)\nSTORE 1:* -FLAGS (\\Flagged)"},
		{"select", "SELECT INBOX"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := &peer{Peer: &dialogtest.Peer{TB: b, Conn: p.Conn, R: p.R}, tag: p.tag + 1000}
			commands := strings.Split(c.command, "\n") // those that change something alternate, so that each time there is a change
			for _, command := range commands {
				p.drain(command)
			}
			b.ReportAllocs()
			var octets int64
			n := 0
			for b.Loop() {
				octets = p.drain(commands[n%len(commands)])
				n++
			}
			b.SetBytes(octets)
		})
	}
}

// TestFetchStaysWithinItsBudget holds the allocations of the hot loops: next to none a message.
func TestFetchStaysWithinItsBudget(t *testing.T) {
	const messages = 2000
	p := loaded(t, messages)
	for _, c := range []struct {
		command string
		perItem float64
	}{
		{"FETCH 1:* (UID FLAGS)", 0.05},
		{"FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE)", 0.05},
		{"UID SEARCH UNSEEN", 0.05},
		{"FETCH 1:* BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]", 3},
		{"FETCH 1:* BODY.PEEK[]", 3},
	} {
		p.drain(c.command)
		got := testing.AllocsPerRun(5, func() { p.drain(c.command) }) / messages
		t.Logf("%s: %.3f allocations a message", c.command, got)
		if got > c.perItem {
			t.Errorf("%s: %.2f allocations a message, budget %.2f", c.command, got, c.perItem)
		}
	}
}

// TestAnIdleSessionIsSmall measures what sessions over TLS hold in IDLE with a mailbox selected. The budget has room for
// the clients of the test, which live in the same process.
func TestAnIdleSessionIsSmall(t *testing.T) {
	const sessions = 200
	r := newRig(t)
	r.fill("INBOX", testMessage(1))
	measure := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	r.dial("login").ok("SELECT INBOX")
	clients := clientCost(t, sessions, measure)
	before := measure()
	var peers []*peer
	for range sessions {
		p := r.dial("login")
		p.ok("SELECT INBOX")
		p.Send("a IDLE\r\n")
		p.Line()
		peers = append(peers, p)
	}
	after := measure()
	each := (int64(after)-int64(before))/sessions - clients
	t.Logf("an idle session over TLS: %d octets (its client: %d)", each, clients)
	if each > 40<<10 {
		t.Errorf("an idle session holds %d octets", each)
	}
	runtime.KeepAlive(peers)
}

// clientCost measures one client over TLS against a server that keeps nothing.
func clientCost(t *testing.T, n int, measure func() uint64) int64 {
	t.Helper()
	keys := dialogtest.KeysFor(t, hostname)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := measure()
	var held []any
	for range n {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		client := tls.Client(nc, keys.Client)
		server := tls.Server(far, keys.Server)
		go func() { done <- server.HandshakeContext(context.Background()) }()
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(server, strings.Repeat("x", 100)+"\r\n") }()
		r := bufio.NewReader(client)
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		held = append(held, client, r)
		defer nc.Close()
		defer far.Close()
	}
	// The far ends are garbage but for their sockets.
	each := (int64(measure()) - int64(before)) / int64(n)
	runtime.KeepAlive(held)
	return each
}

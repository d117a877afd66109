package smtpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"waxwing/internal/listen"
)

// ticketCache counts the session tickets that a server handed out.
type ticketCache struct {
	mu sync.Mutex
	n  int
}

func (c *ticketCache) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func (c *ticketCache) Put(_ string, state *tls.ClientSessionState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state != nil {
		c.n++
	}
}

func TestNoSessionTicketsOnPort25(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mode    Mode
		version uint16
		tickets bool // the client does see them where they are on: the test can fail
	}{
		{MX, tls.VersionTLS12, false},
		{MX, tls.VersionTLS13, false},
		{Submission, tls.VersionTLS12, true},
		{Submission, tls.VersionTLS13, true},
	} {
		t.Run(fmt.Sprintf("%v %s", tc.mode, tls.VersionName(tc.version)), func(t *testing.T) {
			t.Parallel()
			_, addr := serve(t, options(newRecorder()), tc.mode)
			c := dial(t, addr)
			c.expect("220")
			c.do("HELO client.test", "250")
			c.do("STARTTLS", "220")
			cache := &ticketCache{}
			tc2 := tls.Client(c.nc, &tls.Config{ServerName: "mx.test", InsecureSkipVerify: true, ClientSessionCache: cache, MinVersion: tc.version, MaxVersion: tc.version})
			if err := tc2.Handshake(); err != nil {
				t.Fatal(err)
			}
			c.nc = tc2
			c.do("NOOP", "250") // TLS 1.3 sends tickets behind the handshake
			cache.mu.Lock()
			defer cache.mu.Unlock()
			if (cache.n > 0) != tc.tickets {
				t.Errorf("%d tickets", cache.n)
			}
		})
	}
}

func TestShutdownTellsIdleSessionsAndLetsTransactionsFinish(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := New(options(rec))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l, MX) }()
	idle, busy := dial(t, l.Addr().String()), dial(t, l.Addr().String())
	idle.expect("220")
	busy.expect("220")
	busy.do("HELO client.test", "250")
	busy.do("MAIL FROM:<a@one.test>", "250")

	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(context.Background()) }()
	idle.expect("421 4.3.2")
	idle.expectEnd()
	if err := <-served; !errors.Is(err, listen.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	busy.do("RCPT TO:<b@two.test>", "250")
	busy.do("DATA", "354")
	busy.send("hi\r\n.\r\n")
	busy.expect("250")
	busy.expect("421 4.3.2")
	busy.expectEnd()
	idle.nc.Close()
	busy.nc.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(rec.taken()) != 1 || rec.stillOpen() != 0 {
		t.Errorf("%d messages, %d transactions open", len(rec.taken()), rec.stillOpen())
	}
	if err := srv.Serve(l, MX); !errors.Is(err, listen.ErrClosed) {
		t.Errorf("a server that was shut down serves: %v", err)
	}
}

func TestShutdownDoesNotWaitForHandshakes(t *testing.T) {
	t.Parallel()
	opts := options(newRecorder())
	opts.Limits.Handshake = time.Hour
	begun := make(chan struct{})
	opts.Metrics.Sessions = func(_ Mode, change int) {
		if change > 0 {
			close(begun)
		}
	}
	srv, addr := serve(t, opts, Submissions)
	c := dial(t, addr)
	<-begun
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	c.expectEnd()
}

func TestShutdownCutsWhatDoesNotFinish(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	committing := make(chan struct{})
	rec.commit = func(ctx context.Context) error {
		close(committing)
		<-ctx.Done()
		return ctx.Err()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := New(options(rec))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l, MX) }()
	c := dial(t, l.Addr().String())
	c.send("HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@two.test>\r\nDATA\r\n")
	for _, want := range []string{"220", "250", "250", "250", "354"} {
		c.expect(want)
	}
	c.send("hi\r\n.\r\n")
	<-committing
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-served
	if line, err := c.line(); err == nil && strings.HasPrefix(line, "250") {
		t.Errorf("250 without a commit: %q", line)
	}
	if len(rec.taken()) != 0 || rec.stillOpen() != 0 {
		t.Errorf("%d messages, %d transactions open", len(rec.taken()), rec.stillOpen())
	}
}

func TestACommitThatFailsIsNever250(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	rec.commit = func(context.Context) error { return errors.New("the disk is gone") }
	_, addr := serve(t, options(rec), MX)
	c := dial(t, addr)
	c.expect("220")
	c.do("HELO a", "250")
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<b@two.test>", "250")
	c.do("DATA", "354")
	c.do("hi\r\n.", "451 4.3.0")
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<b@two.test>", "250")
	c.do("BDAT 0 LAST", "451 4.3.0")
}

func TestACommandIsCancelledWhenThePeerLeaves(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	srv, addr := serve(t, options(rec), MX)
	c := dial(t, addr)
	c.expect("220")
	c.do("HELO a", "250")
	c.do("MAIL FROM:<>", "250")
	c.send("RCPT TO:<slow@two.test>\r\n")
	c.nc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil { // returns when the session has ended
		t.Errorf("the command went on without its peer: %v", err)
	}
	if rec.stillOpen() != 0 {
		t.Error("the transaction is still open")
	}
}

func TestAPeerThatLeavesInsideAMessageLeavesNothing(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	srv, addr := serve(t, options(rec), MX)
	for _, body := range []string{"DATA\r\nhi\r\n.\r", "BDAT 10 LAST\r\nhi\r\n", "BDAT 4\r\nhi\r\n"} {
		c := dial(t, addr)
		c.send("HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@two.test>\r\n" + body)
		for range 4 {
			if _, err := c.line(); err != nil {
				t.Fatal(err)
			}
		}
		c.nc.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if len(rec.taken()) != 0 || rec.stillOpen() != 0 {
		t.Errorf("%d messages, %d transactions open", len(rec.taken()), rec.stillOpen())
	}
}

func TestTooManySessionsAreTurnedAway(t *testing.T) {
	t.Parallel()
	opts := options(newRecorder())
	opts.Limits.Sessions, opts.Limits.SessionsPerPeer = 3, 2
	var rejected atomic.Int32
	opts.Metrics.Rejected = func(Mode, string) { rejected.Add(1) }
	_, p := servePipes(t, opts, MX)
	greeting := func(addr string) (net.Conn, string) {
		nc := p.dialFrom(addr)
		b := make([]byte, 100)
		n, _ := nc.Read(b)
		return nc, string(b[:n])
	}
	a1, g := greeting("[2001:db8::1]:1")
	if !strings.HasPrefix(g, "220") {
		t.Fatal(g)
	}
	_, _ = greeting("[2001:db8::2]:1")
	if _, g := greeting("[2001:db8::3]:1"); !strings.HasPrefix(g, "421 4.3.2 mx.test too many connections from your address") {
		t.Errorf("third of one /64: %q", g)
	}
	if _, g := greeting("192.0.2.1:1"); !strings.HasPrefix(g, "220") {
		t.Errorf("another address: %q", g)
	}
	if _, g := greeting("127.0.0.1:1"); !strings.HasPrefix(g, "421 4.3.2 mx.test too many connections,") {
		t.Errorf("fourth of all: %q", g)
	}
	if rejected.Load() != 2 {
		t.Errorf("%d rejected", rejected.Load())
	}
	// The end of one makes room for another.
	if _, err := io.WriteString(a1, "QUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(a1); err != nil {
		t.Fatal(err)
	}
	for {
		if _, g := greeting("[2001:db8::4]:1"); strings.HasPrefix(g, "220") {
			return
		}
	}
}

func TestLoopbackIsExemptFromTheLimitOfOneAddress(t *testing.T) {
	t.Parallel()
	opts := options(newRecorder())
	opts.Limits.SessionsPerPeer = 1
	_, addr := serve(t, opts, MX)
	for range 5 {
		dial(t, addr).expect("220")
	}
}

// starved is a listener without file descriptors.
type starved struct {
	*pipes
	accepts atomic.Int32
	left    atomic.Int32 // how often it fails
}

func (s *starved) Accept() (net.Conn, error) {
	if s.left.Add(-1) >= 0 {
		s.accepts.Add(1)
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return s.pipes.Accept()
}

func TestALackOfDescriptorsIsWaitedOutWithoutSpinning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &starved{pipes: newPipes()}
		l.left.Store(20)
		srv := New(options(newRecorder()))
		served := make(chan error, 1)
		start := time.Now()
		go func() { served <- srv.Serve(l, MX) }()
		nc := l.dial() // taken when the lack is over
		if took := time.Since(start); took < 10*time.Second || took > 30*time.Second {
			t.Errorf("%d attempts in %v", l.accepts.Load(), took)
		}
		b := make([]byte, 100)
		if n, _ := nc.Read(b); !strings.HasPrefix(string(b[:n]), "220") {
			t.Errorf("then %q", b[:n])
		}
		nc.Close()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// scarce fails once with EMFILE, and gives a connection when a descriptor was freed.
type scarce struct {
	starved
	deadlines atomic.Int32
}

func (s *scarce) SetDeadline(time.Time) error { s.deadlines.Add(1); return nil }

func TestWithoutDescriptorsPeersAreTold421(t *testing.T) {
	t.Parallel()
	l := &scarce{starved: starved{pipes: newPipes()}}
	l.left.Store(1)
	srv := New(options(newRecorder()))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l, MX) }()
	nc := l.dial()
	b, err := io.ReadAll(nc)
	if err != nil || string(b) != "421 4.3.2 mx.test out of resources, try again later\r\n" {
		t.Errorf("%q, %v", b, err)
	}
	if l.deadlines.Load() != 2 {
		t.Errorf("the deadline of accept was set %d times", l.deadlines.Load())
	}
	if err := srv.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
}

func TestServeReturnsAnErrorThatDoesNotPass(t *testing.T) {
	t.Parallel()
	p := newPipes()
	p.Close()
	if err := New(options(newRecorder())).Serve(p, MX); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := New(Options{Hostname: "mx.test", Intake: newRecorder()}).Serve(newPipes(), Submission); err == nil {
		t.Error("submission without TLS")
	}
}

// TestSlowPeers plays peers that take their time, in fake time.
func TestSlowPeers(t *testing.T) {
	t.Parallel()
	const data = "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@two.test>\r\nDATA\r\n"
	for _, tc := range []struct {
		name string
		fast string // sent at once
		slow string // then an octet each step, over and over
		step time.Duration
		want string // the last line
		took time.Duration
	}{
		{"says nothing", "", "", 0, "421 4.4.2 too slow", 5 * time.Minute},
		{"an octet of a command a second", "", "A", time.Second, "421 4.4.2 too slow", 2 * time.Minute},
		{"NOOP for ever", "", "NOOP\r\n", time.Second, "421 4.7.0 too many commands", 12 * time.Minute},
		{"an octet of a message a second", data, "A", time.Second, "421 4.4.2 too slow", 61 * time.Second},
		{"stops inside a message", data + "hello", "", 0, "421 4.4.2 too slow", time.Minute},
		{"a transaction for hours", "HELO a\r\nMAIL FROM:<>\r\n", "NOOP\r\n", 19 * time.Second, "421 4.4.2 transaction too long", 2 * time.Hour},
		{"a session for hours", "HELO a\r\n", "MAIL FROM:<>\r\nRSET\r\n", 4 * time.Second, "421 4.4.2 session too long", 4 * time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rec := newRecorder()
				opts := options(rec)
				if strings.Contains(tc.name, "hours") {
					opts.Limits.Idle = 1000
				}
				srv := New(opts)
				p := newPipes()
				served := make(chan error, 1)
				go func() { served <- srv.Serve(p, MX) }()
				nc := p.dial()
				start := time.Now()
				answer := make(chan string)
				go func() {
					b, _ := io.ReadAll(nc)
					answer <- string(b)
				}()
				written := make(chan struct{})
				go func() {
					defer close(written)
					_, err := io.WriteString(nc, tc.fast)
					for i := 0; err == nil && tc.slow != ""; i++ {
						time.Sleep(tc.step)
						_, err = nc.Write([]byte{tc.slow[i%len(tc.slow)]})
					}
				}()
				lines := strings.Split(strings.TrimSpace(<-answer), "\r\n")
				took := time.Since(start)
				if last := lines[len(lines)-1]; !strings.HasPrefix(last, tc.want) {
					t.Errorf("last line %q", last)
				}
				if took < tc.took-time.Second || took > tc.took+6*time.Minute {
					t.Errorf("took %v", took)
				}
				nc.Close()
				if err := srv.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
				<-served
				<-written
				if rec.stillOpen() != 0 {
					t.Error("a transaction is still open")
				}
			})
		})
	}
}

func TestMessagesInOneSessionAreBounded(t *testing.T) {
	t.Parallel()
	opts := options(newRecorder())
	opts.Limits.Messages = 2
	_, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220")
	c.do("EHLO a", "250")
	for range 2 {
		c.do("MAIL FROM:<>", "250")
		c.do("RCPT TO:<b@two.test>", "250")
		c.do("BDAT 0 LAST", "250")
	}
	c.do("MAIL FROM:<>", "421 4.7.0")
	c.expectEnd()
}

func TestASearchForRecipientsIsCutOff(t *testing.T) {
	t.Parallel()
	opts := options(newRecorder())
	opts.Limits.Refusals = 10
	_, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220")
	c.do("EHLO a", "250")
	c.do("MAIL FROM:<>", "250")
	for range 10 {
		c.do("RCPT TO:<unknown@two.test>", "550")
	}
	c.expect("421 4.7.0")
	c.expectEnd()
}

func TestXClientIsTakenFromTrustedPeersAlone(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	opts := options(rec)
	opts.XClient = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	opts.Limits.SessionsPerPeer = 1
	_, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220")
	c.do("EHLO proxy.test", "250")
	for _, bad := range []string{"ADDR=x", "LOGIN=me", "PORT=70000", "ADDR", "HELO=a+0Ab", "ADDR=fe80::1%25eth0"} {
		c.do("XCLIENT "+bad, "501 5.5.4")
	}
	c.do("XCLIENT ADDR=IPV6:2001:db8::9 PORT=4711 HELO=true.test NAME=[UNAVAILABLE] PROTO=ESMTP", "220")
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<b@two.test>", "250")
	c.do("BDAT 0 LAST", "250")
	m := rec.taken()
	if len(m) != 1 || m[0].peer.Remote.String() != "[2001:db8::9]:4711" || m[0].peer.HELO != "true.test" {
		t.Errorf("taken %+v", m)
	}
	d := dial(t, addr)
	d.expect("220")
	d.do("XCLIENT ADDR=2001:db8::8", "421 4.3.2") // the second session of that network

	opts.XClient = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	_, addr = serve(t, opts, MX)
	c = dial(t, addr)
	c.expect("220")
	c.do("XCLIENT ADDR=192.0.2.1", "500")
}

func TestMetricsTellWhatHappened(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	opts := options(rec)
	var mu sync.Mutex
	seen := map[string]int{}
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		seen[fmt.Sprintf(format, args...)]++
	}
	opts.Metrics = Metrics{
		Sessions: func(m Mode, n int) { note("sessions %v %+d", m, n) },
		Message:  func(m Mode, code int, octets int64, _ time.Duration) { note("message %v %d %d", m, code, octets) },
		SignIn:   func(m Mode, mechanism string, ok bool) { note("sign-in %v %s %v", m, mechanism, ok) },
		TLS:      func(m Mode, _ uint16, ok bool) { note("tls %v %v", m, ok) },
		Panic:    func(m Mode) { note("panic %v", m) },
	}
	srv, addr := serve(t, opts, Submissions)
	c := dial(t, addr)
	c.startTLS()
	c.expect("220")
	c.do("EHLO a", "250")
	c.do("AUTH PLAIN AHVzZXJAZXhhbXBsZS50ZXN0AHdyb25n", "535")
	c.do("AUTH PLAIN AHVzZXJAZXhhbXBsZS50ZXN0AGNvcnJlY3QgaG9yc2U=", "235")
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<b@two.test>", "250")
	c.do("DATA", "354")
	c.do("hi\r\n.", "250")
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<panics@two.test>", "421")
	c.nc.Close()
	plain := dial(t, addr)
	plain.send("EHLO a\r\n")
	_, _ = plain.line()
	plain.nc.Close()
	if err := srv.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"sessions submissions +1", "sessions submissions -1", "tls submissions true", "tls submissions false",
		"sign-in submissions PLAIN false", "sign-in submissions PLAIN true", "message submissions 250 4", "panic submissions",
	} {
		if seen[want] == 0 {
			t.Errorf("not told: %s; told: %v", want, seen)
		}
	}
	m := rec.taken()
	if len(m) != 1 || m[0].peer.Identity == nil || m[0].peer.Identity.Account != 7 || m[0].peer.TLS == nil || !m[0].peer.Submission || !m[0].peer.ESMTP {
		t.Errorf("taken %+v", m)
	}
}

// TestRecipientsOverTheLimitDontEndTheSession holds that a sender that pipelines a long list loses none that was taken.
func TestRecipientsOverTheLimitDontEndTheSession(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	opts := options(rec)
	opts.Limits.Refusals = 3
	_, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220 ")
	c.do("EHLO lists.test", "250 ")
	c.do("MAIL FROM:<a@b.test>", "250 ")
	for i := range rec.maxRcpts + 20 {
		want := "250 "
		if i >= rec.maxRcpts {
			want = "452 4.5.3"
		}
		c.do(fmt.Sprintf("RCPT TO:<r%d@mx.test>", i), want)
	}
	c.do("DATA", "354 ")
	c.do("x\r\n.", "250 ")
	if got := rec.taken(); len(got) != 1 || len(got[0].to) != rec.maxRcpts {
		t.Errorf("taken %+v", got)
	}
}

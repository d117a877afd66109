package listen

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a session that says hello, and ends when it is woken or its peer leaves.
type echo struct {
	pool *Pool
	conn *wire.Conn
	deaf bool // does not end when it is woken
}

func (s *echo) Conn() *wire.Conn { return s.conn }

func (s *echo) Run() {
	defer s.conn.Close()
	_, _ = s.conn.WriteString("hello\r\n")
	for {
		if s.conn.Flush() != nil {
			return
		}
		if woken, err := s.conn.Wait(); err != nil || woken && !s.deaf {
			return
		}
		if s.deaf {
			<-s.pool.Context().Done()
		}
		if _, err := s.conn.ReadLine(); err != nil {
			return
		}
	}
}

type bench struct {
	t      *testing.T
	pool   *Pool
	addr   string
	served chan error
}

func start(t *testing.T, o Options, l net.Listener, deaf bool) *bench {
	t.Helper()
	b := &bench{t: t, pool: New(o), addr: l.Addr().String(), served: make(chan error, 1)}
	h := Handler{
		Start: func(nc net.Conn) Session {
			return &echo{pool: b.pool, conn: wire.New(nc, wire.Limits{Line: 100}), deaf: deaf}
		},
		Refuse: func(nc net.Conn, why Reason) { _, _ = io.WriteString(nc, string(why)+"\r\n") },
	}
	go func() { b.served <- b.pool.Serve(l, h) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.pool.Shutdown(ctx)
	})
	return b
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// hears dials and expects one line.
func (b *bench) hears(want string) net.Conn {
	b.t.Helper()
	nc, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { nc.Close() })
	line, err := bufio.NewReader(nc).ReadString('\n')
	if line != want+"\r\n" {
		b.t.Fatalf("heard %q, %v; want %q", line, err, want)
	}
	return nc
}

func (b *bench) ended() error {
	b.t.Helper()
	select {
	case err := <-b.served:
		return err
	case <-time.After(2 * time.Minute):
		b.t.Fatal("Serve does not end")
		return nil
	}
}

func TestSessionsBeyondTheLimitAreTold(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Name: "test", Sessions: 2, PerPeer: 1}, loopback(t), false)
	b.hears("hello") // loopback is exempt from the limit of one a peer
	b.hears("hello")
	b.hears(string(TooMany))
}

func TestShutdownWakesSessionsAndWaits(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Name: "test", Sessions: 9, PerPeer: 9}, loopback(t), false)
	nc := b.hears("hello")
	if err := b.pool.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the session's end was %v", err)
	}
	if err := b.ended(); !errors.Is(err, ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	if err := b.pool.Serve(loopback(t), Handler{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Serve after Shutdown returned %v", err)
	}
}

func TestShutdownCutsSessionsWhenTheTimeIsOver(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Name: "test", Sessions: 9, PerPeer: 9}, loopback(t), true)
	nc := b.hears("hello")
	if _, err := io.WriteString(nc, "work\r\n"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.pool.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v", err)
	}
}

// starved is a listener that fails every second time, as long as it has an error to fail with.
type starved struct {
	net.Listener
	mu    sync.Mutex
	err   error
	asked int
}

func (l *starved) Accept() (net.Conn, error) {
	l.mu.Lock()
	l.asked++
	err := l.err
	if l.asked%2 == 0 {
		err = nil
	}
	l.mu.Unlock()
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	return l.Listener.Accept()
}

func (l *starved) SetDeadline(t time.Time) error { return l.Listener.(*net.TCPListener).SetDeadline(t) }

func TestALackOfDescriptorsIsAnsweredAndPasses(t *testing.T) {
	t.Parallel()
	l := &starved{Listener: loopback(t), err: syscall.EMFILE} // every second call is the one with the spare descriptor
	b := start(t, Options{Name: "test", Sessions: 9, PerPeer: 9}, l, false)
	b.hears(string(NoDescriptors))
	l.mu.Lock()
	l.err = nil
	l.mu.Unlock()
	// One more may still be on its way to the spare descriptor.
	for range 3 {
		nc, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(nc).ReadString('\n')
		nc.Close()
		if line == "hello\r\n" {
			return
		}
	}
	t.Error("nobody is served after the lack has passed")
}

func TestAnErrorThatStaysEndsServe(t *testing.T) {
	t.Parallel()
	l := &starved{Listener: loopback(t), err: syscall.EBADF}
	b := start(t, Options{Name: "test", Sessions: 9, PerPeer: 9}, l, false)
	if err := b.ended(); err == nil || errors.Is(err, ErrClosed) || !errors.Is(err, syscall.EBADF) {
		t.Errorf("Serve returned %v", err)
	}
}

func TestPeersAreCountedByAddressOrNetwork(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::",
		"127.0.0.1": "invalid IP", "::1": "invalid IP",
	} {
		if got := peerKey(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("%s counts as %s, want %s", in, got, want)
		}
	}
}

func TestRecountMovesASessionToTheNamedPeer(t *testing.T) {
	t.Parallel()
	p := New(Options{Name: "test", Sessions: 9, PerPeer: 1})
	far := netip.MustParseAddr("192.0.2.1")
	var all []*echo
	for range 2 {
		a, b := net.Pipe()
		defer a.Close()
		s := &echo{pool: p, conn: wire.New(b, wire.Limits{})}
		defer b.Close()
		if why := p.register(s); why != "" {
			t.Fatal(why)
		}
		all = append(all, s)
	}
	if !p.Recount(all[0], far) {
		t.Error("the first session of a peer is too many")
	}
	if p.Recount(all[1], far) {
		t.Error("the second session of a peer is not too many")
	}
	p.unregister(all[1])
	if p.peers[far] != 1 {
		t.Errorf("the peer has %d sessions, want 1", p.peers[far])
	}
	p.unregister(all[0])
	if len(p.peers) != 0 || len(p.sessions) != 0 {
		t.Error("sessions that have ended are still counted")
	}
	p.work.Add(-2)
}

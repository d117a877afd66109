// Package listen takes connections for a server of sessions and counts them: how many at once, how many from one
// address, what happens when there are no file descriptors left, and how all of it ends. It knows no protocol: what a
// refused peer is told, and what a session is, the servers of SMTP, IMAP and POP3 say.
//
//	pool := listen.New(listen.Options{Name: "pop3server", Sessions: 10_000, PerPeer: 50})
//	err := pool.Serve(l, listen.Handler{Start: newSession, Refuse: sayTooMany})
//	...
//	err = pool.Shutdown(ctx)
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/wire"
)

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("listen: closed")

// Reason says why a connection is refused.
type Reason string

// The reasons.
const (
	TooMany         Reason = "sessions"    // Options.Sessions are open
	TooManyFromPeer Reason = "peer"        // Options.PerPeer are open from this address
	NoDescriptors   Reason = "descriptors" // of files; the spare one answers
	Closing         Reason = "shutdown"
	Denied          Reason = "denied" // by Handler.Admit
)

// Session is one connection being served.
type Session interface {
	// Conn is the session's connection. Shutdown wakes it, and aborts it when the time is over.
	Conn() *wire.Conn
	// Run serves the session to its end and closes the connection. It watches Pool.Draining when it is woken.
	Run()
}

// Handler says what becomes of the connections of a listener.
type Handler struct {
	// Start makes the session of a connection. It must not read or write.
	Start func(nc net.Conn) Session
	// Admit tells whether a peer is served at all; nil: all are.
	Admit func(netip.Addr) bool
	// Refuse tells a peer that it is not served; the connection is closed behind it. A deadline of a second is set:
	// one small write to a fresh socket does not block.
	Refuse func(nc net.Conn, why Reason)
}

// Options configure New.
type Options struct {
	Name     string       // of the server, for errors
	Sessions int          // at once, on all listeners
	PerPeer  int          // at once from one IPv4 address or one IPv6 /64; loopback is exempt
	Logger   *slog.Logger // discarded when nil
}

// Pool is the sessions of one server. All methods may be called at the same time.
type Pool struct {
	o       Options
	work    sync.WaitGroup // sessions and listeners
	closing atomic.Bool
	evicted atomic.Bool  // some session must end
	headers atomic.Int64 // connections whose PROXY header is awaited

	// ctx ends when a session must end at once, drain already when it must end soon.
	ctx, drain   context.Context
	cancel, stop context.CancelFunc

	mu        sync.Mutex // guards what follows
	listeners map[net.Listener]struct{}
	sessions  map[Session]*place
	peers     map[netip.Addr]int
}

// New makes a pool; Serve starts it.
func New(o Options) *Pool {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pool{
		o: o, listeners: make(map[net.Listener]struct{}), sessions: make(map[Session]*place), peers: make(map[netip.Addr]int),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.drain, p.stop = context.WithCancel(p.ctx)
	return p
}

// Context ends when Shutdown has run out of time: what a session does then is cut off.
func (p *Pool) Context() context.Context { return p.ctx }

// Draining reports whether Shutdown has been called: a session then ends as soon as its command is done.
func (p *Pool) Draining() bool { return p.closing.Load() }

// Drain is the context that ends when Draining becomes true: for what need not be finished, like a handshake.
func (p *Pool) Drain() context.Context { return p.drain }

const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// Serve takes connections of l until Shutdown, and closes it. Errors that may pass, above all a lack of file
// descriptors, are waited out; any other is returned.
func (p *Pool) Serve(l net.Listener, h Handler) error {
	if !p.begin(l) {
		l.Close()
		return ErrClosed
	}
	defer p.end(l)
	spare := newSpare()
	defer spare.close()
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			if proxied, ok := l.(*Proxied); ok {
				p.proxied(proxied, nc, h)
			} else {
				p.admit(nc, h)
			}
		case p.closing.Load():
			return ErrClosed
		case !passes(err):
			return fmt.Errorf("%s: accept on %v: %w", p.o.Name, l.Addr(), err)
		default:
			if pause == 0 {
				p.o.Logger.Error("connections can't be taken", "listener", l.Addr().String(), "err", err)
			}
			if isDescriptors(err) && spare.turnAway(l, func(nc net.Conn) { refuse(nc, h, NoDescriptors) }) {
				pause = minPause // that one was answered; still no hurry
			}
			pause = min(max(2*pause, minPause), maxPause)
			if !p.sleep(pause) {
				return ErrClosed
			}
		}
	}
}

func (p *Pool) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.drain.Done():
		return false
	}
}

func (p *Pool) begin(l net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Load() {
		return false
	}
	p.listeners[l] = struct{}{}
	p.work.Add(1)
	return true
}

func (p *Pool) end(l net.Listener) {
	l.Close()
	p.mu.Lock()
	delete(p.listeners, l)
	p.mu.Unlock()
	p.work.Done()
}

// admit starts a session, or turns the connection away.
func (p *Pool) admit(nc net.Conn, h Handler) {
	s := h.Start(nc)
	if h.Admit != nil && !h.Admit(s.Conn().RemoteAddr().Addr()) {
		refuse(nc, h, Denied)
		return
	}
	if why := p.register(s); why != "" {
		refuse(nc, h, why)
		return
	}
	go func() {
		defer p.work.Done()
		defer p.unregister(s)
		s.Run()
	}()
}

func refuse(nc net.Conn, h Handler, why Reason) {
	defer nc.Close()
	if nc.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
		h.Refuse(nc, why)
	}
}

func (p *Pool) register(s Session) (why Reason) {
	peer := peerKey(s.Conn().RemoteAddr().Addr())
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closing.Load():
		return Closing
	case len(p.sessions) >= p.o.Sessions:
		return TooMany
	case peer.IsValid() && p.peers[peer] >= p.o.PerPeer:
		return TooManyFromPeer
	}
	p.sessions[s] = &place{peer: peer}
	p.count(peer, 1)
	p.work.Add(1)
	return ""
}

func (p *Pool) unregister(s Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(p.sessions[s].peer, -1)
	delete(p.sessions, s)
}

// count changes the number of sessions of a peer; an address that is not valid is not counted.
func (p *Pool) count(peer netip.Addr, change int) {
	if !peer.IsValid() {
		return
	}
	if p.peers[peer] += change; p.peers[peer] <= 0 {
		delete(p.peers, peer)
	}
}

// Recount moves a session to the address that a trusted proxy has named. It returns false when that address has too
// many sessions: end this one.
func (p *Pool) Recount(s Session, a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, ok := p.sessions[s]
	if !ok {
		return false
	}
	peer := peerKey(a)
	p.count(old.peer, -1)
	p.count(peer, 1)
	old.peer = peer
	return !peer.IsValid() || p.peers[peer] <= p.o.PerPeer
}

// peerKey is what sessions are counted by: an IPv4 address or an IPv6 /64; nothing for loopback.
func peerKey(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.IsValid() || a.IsLoopback() {
		return netip.Addr{}
	}
	if a.Is6() {
		if prefix, err := a.Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return a
}

// Shutdown takes no more connections, wakes every session so that it ends as soon as its command is done, and waits
// for them. When ctx ends first, the connections that are left are cut. It returns when no goroutine of the pool is left.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.closing.Store(true)
	p.stop()
	for l := range p.listeners {
		l.Close()
	}
	for s := range p.sessions {
		s.Conn().Wake()
	}
	p.mu.Unlock()

	done := make(chan struct{})
	go func() {
		p.work.Wait()
		close(done)
	}()
	defer p.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	p.cancel()
	p.mu.Lock()
	for s := range p.sessions {
		_ = s.Conn().Abort() // the session notices by itself
	}
	p.mu.Unlock()
	<-done
	return fmt.Errorf("%s: shutdown: %w", p.o.Name, ctx.Err())
}

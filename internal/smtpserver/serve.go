package smtpserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"waxwing/internal/wire"
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("smtpserver: server closed")

// Serve takes connections of l until Shutdown, and closes it. Accept errors that may pass, above all a lack of file
// descriptors, are waited out; any other error is returned.
func (srv *Server) Serve(l net.Listener, mode Mode) error {
	if mode != MX && (srv.opts.TLS == nil || srv.opts.Auth == nil) {
		l.Close()
		return fmt.Errorf("smtpserver: %v on %v: submission needs TLS and authentication", mode, l.Addr())
	}
	if !srv.begin(l) {
		l.Close()
		return ErrServerClosed
	}
	defer srv.end(l)
	spare := newSpare()
	defer spare.close()
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			srv.admit(nc, mode)
		case srv.draining.Load():
			return ErrServerClosed
		case !passes(err):
			return fmt.Errorf("smtpserver: accept on %v: %w", l.Addr(), err)
		default:
			if pause == 0 {
				srv.log.Error("connections can't be taken", "listener", l.Addr().String(), "error", err)
			}
			if isDescriptors(err) && spare.turnAway(l, func(nc net.Conn) { srv.reject(nc, mode, "descriptors") }) {
				pause = minPause // that one was answered; still no hurry
			}
			pause = min(max(2*pause, minPause), maxPause)
			if !srv.sleep(pause) {
				return ErrServerClosed
			}
		}
	}
}

const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

func (srv *Server) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-srv.drain.Done():
		return false
	}
}

// passes tells accept errors that go away on their own.
func passes(err error) bool {
	return isDescriptors(err) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EPROTO) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}

func isDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// spare is a file descriptor held back, so that a peer can be told 421 when there is none left.
type spare struct{ file *os.File }

func newSpare() *spare {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return &spare{} // tried again after the next lack
	}
	return &spare{file: f}
}

func (s *spare) close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// turnAway takes one waiting connection on the spare descriptor and hands it to reject.
func (s *spare) turnAway(l net.Listener, reject func(net.Conn)) bool {
	timed, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok || s.file == nil {
		*s = *newSpare()
		return false
	}
	s.close()
	defer func() { *s = *newSpare() }()
	// The connection may have gone meanwhile: don't wait for the next one without a spare.
	if timed.SetDeadline(time.Now().Add(minPause)) != nil {
		return false
	}
	defer func() { _ = timed.SetDeadline(time.Time{}) }()
	nc, err := l.Accept()
	if err != nil {
		return false
	}
	reject(nc)
	return true
}

// reject answers a connection that is not served. The socket is new, so that the write can't block for long.
func (srv *Server) reject(nc net.Conn, mode Mode, reason string) {
	defer nc.Close()
	if f := srv.opts.Metrics.Rejected; f != nil {
		f(mode, reason)
	}
	if mode == Submissions {
		return // nothing can be said before the handshake
	}
	if nc.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
		_, _ = fmt.Fprintf(nc, "421 4.3.2 %s %s\r\n", srv.opts.Hostname, rejections[reason])
	}
}

var rejections = map[string]string{
	"sessions":    "too many connections, try again later",
	"peer":        "too many connections from your address, try again later",
	"descriptors": "out of resources, try again later",
	"shutdown":    "shutting down, try again later",
}

func (srv *Server) begin(l net.Listener) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.draining.Load() {
		return false
	}
	srv.listeners[l] = struct{}{}
	srv.work.Add(1)
	return true
}

func (srv *Server) end(l net.Listener) {
	l.Close()
	srv.mu.Lock()
	delete(srv.listeners, l)
	srv.mu.Unlock()
	srv.work.Done()
}

// admit starts a session, or turns the connection away.
func (srv *Server) admit(nc net.Conn, mode Mode) {
	s := &session{srv: srv, mode: mode, conn: wire.New(nc, srv.wire), started: srv.opts.Clock()}
	s.remote = s.conn.RemoteAddr()
	s.counted = peerKey(s.remote.Addr())
	s.mayXClient = srv.trusts(s.remote.Addr())
	if reason := srv.register(s); reason != "" {
		srv.reject(nc, mode, reason)
		return
	}
	go func() {
		defer srv.work.Done()
		defer srv.unregister(s)
		s.run()
	}()
}

func (srv *Server) register(s *session) (reason string) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case srv.draining.Load():
		return "shutdown"
	case len(srv.sessions) >= srv.limits.Sessions:
		return "sessions"
	case s.counted.IsValid() && srv.peers[s.counted] >= srv.limits.SessionsPerPeer:
		return "peer"
	}
	if s.counted.IsValid() {
		srv.peers[s.counted]++
	}
	srv.sessions[s] = struct{}{}
	srv.work.Add(1)
	return ""
}

func (srv *Server) unregister(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
	srv.uncount(s)
}

func (srv *Server) uncount(s *session) {
	if !s.counted.IsValid() {
		return
	}
	if srv.peers[s.counted]--; srv.peers[s.counted] <= 0 {
		delete(srv.peers, s.counted)
	}
}

// recount moves a session to the address that XCLIENT named.
func (srv *Server) recount(s *session, a netip.Addr) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.uncount(s)
	s.counted = peerKey(a)
	if !s.counted.IsValid() {
		return true
	}
	srv.peers[s.counted]++
	return srv.peers[s.counted] <= srv.limits.SessionsPerPeer
}

// peerKey is what connections are counted by: an IPv4 address or an IPv6 /64; nothing for loopback.
func peerKey(a netip.Addr) netip.Addr {
	if !a.IsValid() || a.IsLoopback() {
		return netip.Addr{}
	}
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

func (srv *Server) trusts(a netip.Addr) bool {
	for _, p := range srv.opts.XClient {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Shutdown stops taking connections, tells idle sessions 421 4.3.2, and waits for the others to finish their
// transactions. When ctx ends first, the sessions left are cut off: none of their messages was answered with 250
// without being committed. It returns when every goroutine of the server has ended.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.mu.Lock()
	srv.draining.Store(true)
	srv.stop()
	for l := range srv.listeners {
		l.Close()
	}
	for s := range srv.sessions {
		s.conn.Wake()
	}
	srv.mu.Unlock()

	done := make(chan struct{})
	go func() {
		srv.work.Wait()
		close(done)
	}()
	defer srv.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	srv.cancel()
	srv.mu.Lock()
	for s := range srv.sessions {
		_ = s.conn.Abort() // the session notices by itself
	}
	srv.mu.Unlock()
	<-done
	return fmt.Errorf("smtpserver: shutdown: %w", ctx.Err())
}

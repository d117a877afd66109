package smtpserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"waxwing/internal/listen"
	"waxwing/internal/wire"
)

// Serve takes connections of l until Shutdown, when it returns listen.ErrClosed, and closes l.
func (srv *Server) Serve(l net.Listener, mode Mode) error {
	if mode.forUsers() && (srv.opts.TLS == nil || srv.opts.Auth == nil) {
		l.Close()
		return fmt.Errorf("smtpserver: %v on %v: submission needs TLS and authentication", mode, l.Addr())
	}
	return srv.pool.Serve(l, listen.Handler{
		Start:  func(nc net.Conn) listen.Session { return srv.newSession(nc, mode) },
		Refuse: func(nc net.Conn, why listen.Reason) { srv.refuse(nc, mode, why) },
	})
}

func (srv *Server) newSession(nc net.Conn, mode Mode) *session {
	s := &session{srv: srv, mode: mode, conn: wire.New(nc, srv.wire), started: srv.opts.Clock()}
	s.remote, s.local = s.conn.RemoteAddr(), s.conn.LocalAddr()
	s.mayXClient = mode != LMTP && srv.trusts(s.remote.Addr())
	s.guard = srv.opts.Guard
	if mode == LMTP { // whoever may speak it is trusted
		s.guard = openDoor{}
	}
	s.trail = srv.opts.Trace.Trail()
	s.noteConnection()
	return s
}

// refuse answers a connection that is not served.
func (srv *Server) refuse(nc net.Conn, mode Mode, why listen.Reason) {
	if f := srv.opts.Metrics.Rejected; f != nil {
		f(mode, string(why))
	}
	srv.noteRefused(nc, mode, why)
	if mode != Submissions { // there nothing can be said before the handshake
		_, _ = fmt.Fprintf(nc, "421 4.3.2 %s %s\r\n", srv.opts.Hostname, refusals[why])
	}
}

var refusals = map[listen.Reason]string{
	listen.TooMany:         "too many connections, try again later",
	listen.TooManyFromPeer: "too many connections from your address, try again later",
	listen.NoDescriptors:   "out of resources, try again later",
	listen.Closing:         "shutting down, try again later",
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
func (srv *Server) Shutdown(ctx context.Context) error { return srv.pool.Shutdown(ctx) }

// Pool is the sessions of this server.
func (srv *Server) Pool() *listen.Pool { return srv.pool }

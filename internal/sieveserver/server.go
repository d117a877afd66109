// Package sieveserver speaks ManageSieve (RFC 5804): users' programs store the filter scripts of their accounts through it,
// have them checked, and say which one is active.
//
// It runs no script (deliveries do, in package intake) and judges no password (auth does). There is no login outside of TLS.
//
//	srv := sieveserver.New(sieveserver.Options{Store: st, Auth: a, TLS: cfg, Settings: dir.Settings})
//	err := srv.Serve(listener, false)
package sieveserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/directory"
	"waxwing/internal/listen"
	"waxwing/internal/store"
	"waxwing/internal/wire"
)

// Authenticator decides who may log in; *auth.Auth is one.
type Authenticator interface {
	// Mechanisms lists the SASL mechanisms that may be offered; none without TLS.
	Mechanisms(tls bool) []string
	// Start begins a SASL exchange.
	Start(ctx context.Context, at auth.Attempt, mechanism string) (auth.Exchange, error)
}

// Store is what a session asks of the store; *store.Store is one.
type Store interface {
	SieveScripts(ctx context.Context, acct store.AccountID) ([]store.SieveScript, error)
	SieveText(ctx context.Context, acct store.AccountID, name string) ([]byte, error)
	CheckSieveRoom(ctx context.Context, acct store.AccountID, name string, octets int64, limits store.SieveLimits) error
	PutSieve(ctx context.Context, acct store.AccountID, name string, text []byte, limits store.SieveLimits) error
	ActivateSieve(ctx context.Context, acct store.AccountID, name string) error
	DeleteSieve(ctx context.Context, acct store.AccountID, name string) error
	RenameSieve(ctx context.Context, acct store.AccountID, name, to string) error
}

// Limits bound what a session may cost. A zero field takes the value of DefaultLimits.
type Limits struct {
	Sessions        int           // at once; beyond it a connection is refused
	SessionsPerPeer int           // at once from one address; loopback is exempt
	Line            int           // octets of a line
	OctetsBefore    int           // octets that a session may send before login
	TimeBefore      time.Duration // from the connection to the end of login
	Tries           int           // failed logins a session
	Errors          int           // refused commands that are none or malformed, in a row; before login five at most
	Idle            time.Duration // without a command; RFC 5804, section 1.2: at least 30 minutes
	Read            time.Duration // for each read within a line or literal
	Write           time.Duration // for each write
	Drain           int64         // octets of a literal that is too large that are read and forgotten
}

// DefaultLimits are the limits of a server that is told no others.
var DefaultLimits = Limits{
	Sessions:        10_000,
	SessionsPerPeer: 100,
	Line:            8 << 10,
	OctetsBefore:    64 << 10,
	TimeBefore:      time.Minute,
	Tries:           3,
	Errors:          20,
	Idle:            30 * time.Minute,
	Read:            time.Minute,
	Write:           2 * time.Minute,
	Drain:           2 << 20,
}

func orDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	orDefault(&l.Sessions, d.Sessions)
	orDefault(&l.SessionsPerPeer, d.SessionsPerPeer)
	orDefault(&l.Line, d.Line)
	orDefault(&l.OctetsBefore, d.OctetsBefore)
	orDefault(&l.TimeBefore, d.TimeBefore)
	orDefault(&l.Tries, d.Tries)
	orDefault(&l.Errors, d.Errors)
	orDefault(&l.Idle, d.Idle)
	orDefault(&l.Read, d.Read)
	orDefault(&l.Write, d.Write)
	orDefault(&l.Drain, d.Drain)
	return l
}

// Metrics are called as things happen, from many goroutines; a nil function is left out. They must not block.
type Metrics struct {
	Sessions func(change int)                               // +1 at the start of a session, -1 at its end
	Refused  func(reason string)                            // a connection: "sessions", "peer", "closing"
	SignIn   func(mechanism string, ok bool)                // one try
	Command  func(name string, ok bool, took time.Duration) // name is from the command table, or "unknown"
	Panic    func()                                         // a session ended by a defect of this server
}

// Options configure New. Store, Auth and Settings are needed.
type Options struct {
	Store    Store
	Auth     Authenticator
	TLS      *tls.Config               // nil: no STARTTLS, and so no login
	Settings func() directory.Settings // what scripts may cost
	Limits   Limits
	Logger   *slog.Logger // discarded when nil
	Metrics  Metrics
}

// Server serves ManageSieve sessions on any number of listeners.
type Server struct {
	opt  Options
	pool *listen.Pool
}

// New makes a server; Serve starts it.
func New(opt Options) *Server {
	opt.Limits = opt.Limits.withDefaults()
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	return &Server{opt: opt, pool: listen.New(listen.Options{
		Name: "sieveserver", Sessions: opt.Limits.Sessions, PerPeer: opt.Limits.SessionsPerPeer, Logger: opt.Logger,
	})}
}

// Serve takes connections from l until Shutdown, when it returns listen.ErrClosed, and closes l. With implicitTLS each
// connection begins with a handshake.
func (srv *Server) Serve(l net.Listener, implicitTLS bool) error {
	if implicitTLS && srv.opt.TLS == nil {
		_ = l.Close()
		return fmt.Errorf("sieveserver: serve %s: implicit TLS without a TLS configuration", l.Addr())
	}
	return srv.pool.Serve(l, listen.Handler{
		Start:  func(nc net.Conn) listen.Session { return srv.newSession(nc, implicitTLS) },
		Refuse: func(nc net.Conn, why listen.Reason) { srv.refuse(nc, implicitTLS, why) },
	})
}

// refuse tells a peer that it is not served.
func (srv *Server) refuse(nc net.Conn, implicitTLS bool, why listen.Reason) {
	if m := srv.opt.Metrics.Refused; m != nil {
		m(string(why))
	}
	if !implicitTLS { // there nothing can be said before the handshake
		_, _ = io.WriteString(nc, "BYE (TRYLATER) \"Too many connections\"\r\n")
	}
}

// newSession makes the session of a connection.
func (srv *Server) newSession(nc net.Conn, implicitTLS bool) *session {
	lim := srv.opt.Limits
	conn := wire.New(nc, wire.Limits{
		Line: max(lim.Line, auth.MaxLine+64), Idle: lim.TimeBefore, Read: lim.Read, LineTime: lim.TimeBefore,
		Write: lim.Write, Handshake: lim.TimeBefore, Bulk: 2 * lim.Read,
	})
	return &session{srv: srv, conn: conn, state: stranger, log: srv.opt.Logger, implicitTLS: implicitTLS}
}

// Shutdown takes no more connections, ends every session as soon as its command is done, and waits for them. When ctx ends
// first, the connections that are left are cut. It returns when no goroutine of the server is left.
func (srv *Server) Shutdown(ctx context.Context) error { return srv.pool.Shutdown(ctx) }

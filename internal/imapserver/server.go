package imapserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/cache"
	"waxwing/internal/listen"
	"waxwing/internal/store"
	"waxwing/internal/wire"
)

// Authenticator decides who may log in; *auth.Auth is one.
type Authenticator interface {
	// Mechanisms lists the SASL mechanisms that may be offered; none without TLS.
	Mechanisms(tls bool) []string
	// Password verifies a login name and a password, for LOGIN.
	Password(ctx context.Context, at auth.Attempt, login string, password []byte) (*auth.Identity, error)
	// Start begins a SASL exchange, for AUTHENTICATE.
	Start(ctx context.Context, at auth.Attempt, mechanism string) (auth.Exchange, error)
}

// Limits bound what a session may cost. A zero field takes the value of DefaultLimits.
type Limits struct {
	Sessions        int           // at once; beyond it a connection is refused with BYE
	SessionsPerPeer int           // at once from one address; loopback is exempt
	LineBefore      int           // octets of a command line before login
	Line            int           // octets of a command line after login
	Literal         int           // octets of a literal that is not a message
	OctetsBefore    int           // octets that a session may send before login
	TimeBefore      time.Duration // from the connection to the end of login
	Tries           int           // failed logins a session
	Errors          int           // BAD answers in a row before the session ends
	Idle            time.Duration // without a command, RFC 3501, section 5.4: at least 30 minutes
	Read            time.Duration // for each read within a command
	Write           time.Duration // for each write
	MinRate         int           // octets a second that a literal must average after half a minute
	Bulk            time.Duration // for one whole literal
}

// DefaultLimits are the limits of a server that is told no others.
var DefaultLimits = Limits{
	Sessions:        50_000,
	SessionsPerPeer: 200,
	LineBefore:      8 << 10,
	Line:            64 << 10,
	Literal:         64 << 10,
	OctetsBefore:    64 << 10,
	TimeBefore:      time.Minute,
	Tries:           3,
	Errors:          20,
	Idle:            30 * time.Minute,
	Read:            time.Minute,
	Write:           2 * time.Minute,
	MinRate:         512,
	Bulk:            time.Hour,
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	for _, f := range []struct{ to, from *int }{
		{&l.Sessions, &d.Sessions},
		{&l.SessionsPerPeer, &d.SessionsPerPeer},
		{&l.LineBefore, &d.LineBefore},
		{&l.Line, &d.Line},
		{&l.Literal, &d.Literal},
		{&l.OctetsBefore, &d.OctetsBefore},
		{&l.Tries, &d.Tries},
		{&l.Errors, &d.Errors},
		{&l.MinRate, &d.MinRate},
	} {
		if *f.to <= 0 {
			*f.to = *f.from
		}
	}
	for _, f := range []struct{ to, from *time.Duration }{
		{&l.TimeBefore, &d.TimeBefore},
		{&l.Idle, &d.Idle},
		{&l.Read, &d.Read},
		{&l.Write, &d.Write},
		{&l.Bulk, &d.Bulk},
	} {
		if *f.to <= 0 {
			*f.to = *f.from
		}
	}
	return l
}

// Hooks are called as things happen, from many goroutines; a nil hook is left out. They must not block.
type Hooks struct {
	SessionOpened func()
	SessionClosed func()
	Refused       func(reason string)                        // a connection: "sessions", "peer"
	LoggedIn      func(mechanism string, ok bool)            // one try
	Command       func(name, status string, d time.Duration) // name is from the command table, or "unknown"
	Panic         func()                                     // a session ended by a defect of the server
}

// Options configure New. Store, Auth and Hostname are needed.
type Options struct {
	Store    *store.Store
	Auth     Authenticator
	TLS      *tls.Config // nil: neither STARTTLS nor implicit TLS, and so no login
	Hostname string
	Limits   Limits
	Logger   *slog.Logger // discarded when nil
	Hooks    Hooks
	Clock    func() time.Time // time.Now when nil
	// MessageSize tells how many octets an appended message may have at present; 50 MiB when nil.
	MessageSize func() int64
	Admit       func(netip.Addr) bool // tells which peers are served; nil: all are
	SpoolDir    string                // for appended messages above 256 KiB; the system's folder when empty
}

// Server serves IMAP sessions on any number of listeners.
type Server struct {
	opt       Options
	headers   *cache.Cache[messageKey, []byte] // fields of listFields
	announced []command                        // the rows of the command table with a capability, each capability once
	pool      *listen.Pool
}

// New makes a server; Serve starts it.
func New(opt Options) *Server {
	opt.Limits = opt.Limits.withDefaults()
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.MessageSize == nil {
		opt.MessageSize = func() int64 { return 50 << 20 }
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	srv := &Server{
		opt:     opt,
		headers: cache.New[messageKey, []byte](headerMemory),
	}
	seen := make(map[string]bool)
	for _, c := range commandList() {
		if c.capability != "" && !seen[c.capability] {
			seen[c.capability] = true
			srv.announced = append(srv.announced, c)
		}
	}
	srv.pool = listen.New(listen.Options{
		Name: "imapserver", Sessions: opt.Limits.Sessions, PerPeer: opt.Limits.SessionsPerPeer, Logger: opt.Logger,
	})
	return srv
}

// Serve takes connections from l until Shutdown, when it returns listen.ErrClosed, and closes l. With implicitTLS each
// connection begins with a handshake (RFC 8314, port 993).
func (srv *Server) Serve(l net.Listener, implicitTLS bool) error {
	if implicitTLS && srv.opt.TLS == nil {
		_ = l.Close()
		return fmt.Errorf("imapserver: serve %s: implicit TLS without a TLS configuration", l.Addr())
	}
	return srv.pool.Serve(l, listen.Handler{
		Start:  func(nc net.Conn) listen.Session { return srv.session(nc, implicitTLS) },
		Refuse: func(nc net.Conn, why listen.Reason) { srv.refuse(nc, implicitTLS, why) },
		Admit:  srv.opt.Admit,
	})
}

// refuse tells a peer that it is not served.
func (srv *Server) refuse(nc net.Conn, implicitTLS bool, why listen.Reason) {
	if hook := srv.opt.Hooks.Refused; hook != nil {
		hook(string(why))
	}
	if !implicitTLS { // there nothing can be said before the handshake
		text := "* BYE [UNAVAILABLE] Too many connections\r\n"
		if why == listen.Denied {
			text = "* BYE Access denied\r\n"
		}
		_, _ = io.WriteString(nc, text)
	}
}

// session makes the session of a connection.
func (srv *Server) session(nc net.Conn, implicitTLS bool) *session {
	lim := srv.opt.Limits
	conn := wire.New(nc, wire.Limits{
		Line: lim.LineBefore, Idle: lim.TimeBefore, Read: lim.Read, LineTime: lim.TimeBefore, Write: lim.Write,
		MinRate: lim.MinRate, Grace: 30 * time.Second, Bulk: lim.Bulk, Drain: 1 << 20, Handshake: lim.TimeBefore,
	})
	return &session{srv: srv, conn: conn, state: notAuthenticated, log: srv.opt.Logger, implicitTLS: implicitTLS}
}

// Shutdown takes no more connections, tells every session BYE as soon as its command is done, and waits for them. When
// ctx ends first, the connections that are left are cut. It returns when no goroutine of the server is left.
func (srv *Server) Shutdown(ctx context.Context) error { return srv.pool.Shutdown(ctx) }

// Pool is the sessions of this server.
func (srv *Server) Pool() *listen.Pool { return srv.pool }

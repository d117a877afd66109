// Package pop3server speaks POP3 (RFC 1939) with CAPA and response codes (RFC 2449, 3206), STLS (RFC 2595), AUTH
// (RFC 5034) and UTF8 (RFC 6856). A session serves the INBOX of one account, as it was at login, under a lock that one
// session at a time can have.
//
// It does not judge passwords (auth does) nor keep mail (store does), and it knows no APOP: that needs passwords in
// plaintext on the server. There is no login outside of TLS.
//
// # What is sent, and how it is counted
//
// Stored octets are sent as they are, but for four repairs that POP3 and old clients need; they are rare, since mail
// that came by SMTP needs none. A CR or LF alone becomes CRLF; NUL becomes 0x80; a last line without CRLF gets one; a
// message without an end of the header gets an empty line. The sizes in STAT, LIST and RETR count the octets after
// these repairs and before dot-stuffing, so that they agree with what the client has when it undoes the dot-stuffing.
// Whether a message needs repair is found out by reading it once; the server remembers it for each account. A session
// looks through at most Limits.Verify octets of mail that nobody looked through before: in larger maildrops the rest
// counts as stored until a later session has looked.
//
// Messages with UTF-8 or other 8-bit octets in the header are sent as they are whether or not the client gave UTF8:
// refusing them (RFC 6856, section 5) would lock out the raw 8-bit headers that are common in practice.
//
//	srv := pop3server.New(pop3server.Options{Store: st, Auth: a, TLS: cfg, Hostname: "mx.example.test"})
//	err := srv.Serve(listener, true)
package pop3server

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
	// Password verifies a login name and a password, for USER and PASS.
	Password(ctx context.Context, at auth.Attempt, login string, password []byte) (*auth.Identity, error)
	// Start begins a SASL exchange, for AUTH.
	Start(ctx context.Context, at auth.Attempt, mechanism string) (auth.Exchange, error)
}

// Store is what a session asks of the store; *store.Store is one.
type Store interface {
	LockMaildrop(ctx context.Context, acct store.AccountID) (unlock func(), ok bool, err error)
	Mailbox(ctx context.Context, acct store.AccountID, name string) (store.Mailbox, error)
	View(ctx context.Context, acct store.AccountID, mbox store.MailboxID, notify func(), opts ...store.ViewOption) (*store.View, error)
	PrefetchBlobs(ctx context.Context, acct store.AccountID, ids []store.MessageID)
	ReadBlob(ctx context.Context, acct store.AccountID, id store.MessageID, buf []byte) ([]byte, error)
	OpenBlob(ctx context.Context, acct store.AccountID, id store.MessageID) (store.Blob, error)
	Expunge(ctx context.Context, acct store.AccountID, mbox store.MailboxID, uids []store.UID, onlyDeleted bool) ([]store.UID, error)
	GUID(acct store.AccountID, id store.MessageID) string
	UIDLs(ctx context.Context, acct store.AccountID) (map[store.MessageID]string, error)
}

// Limits bound what a session may cost. A zero field takes the value of DefaultLimits.
type Limits struct {
	Sessions        int           // at once; beyond it a connection is refused
	SessionsPerPeer int           // at once from one address; loopback is exempt
	Line            int           // octets of a command line after login; before it, what a SASL response may take
	OctetsBefore    int           // octets that a session may send before login
	TimeBefore      time.Duration // from the connection to the end of login
	Tries           int           // failed logins a session
	Errors          int           // -ERR for commands that are none or malformed, in a row; before login five at most
	Idle            time.Duration // without a command, RFC 1939, section 3: at least 10 minutes
	Read            time.Duration // for each read within a line
	Write           time.Duration // for each write
	Verify          int64         // octets of messages that a session looks through to learn their exact sizes
}

// DefaultLimits are the limits of a server that is told no others.
var DefaultLimits = Limits{
	Sessions:        50_000,
	SessionsPerPeer: 200,
	Line:            512,
	OctetsBefore:    64 << 10,
	TimeBefore:      time.Minute,
	Tries:           3,
	Errors:          20,
	Idle:            10 * time.Minute,
	Read:            time.Minute,
	Write:           2 * time.Minute,
	Verify:          64 << 20,
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
	orDefault(&l.Verify, d.Verify)
	return l
}

// Metrics are called as things happen, from many goroutines; a nil function is left out. They must not block.
type Metrics struct {
	Sessions  func(change int)                               // +1 at the start of a session, -1 at its end
	Refused   func(reason string)                            // a connection: "sessions", "peer", "closing"
	SignIn    func(mechanism string, ok bool)                // one try; "USER" for USER and PASS
	Command   func(name string, ok bool, took time.Duration) // name is from the command table, or "unknown"
	Retrieved func(octets int64)                             // one message by RETR
	Panic     func()                                         // a session ended by a defect of this server
}

// Options configure New. Store, Auth and Hostname are needed.
type Options struct {
	Store    Store
	Auth     Authenticator
	TLS      *tls.Config // nil: neither STLS nor implicit TLS, and so no login
	Hostname string
	Limits   Limits
	Logger   *slog.Logger // discarded when nil
	Metrics  Metrics
	Admit    func(netip.Addr) bool // tells which peers are served; nil: all are
}

// Server serves POP3 sessions on any number of listeners.
type Server struct {
	opt   Options
	sizes *cache.Cache[store.AccountID, knownSizes]
	pool  *listen.Pool
}

// New makes a server; Serve starts it.
func New(opt Options) *Server {
	opt.Limits = opt.Limits.withDefaults()
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	srv := &Server{
		opt:   opt,
		sizes: cache.New[store.AccountID, knownSizes](sizesMemory),
	}
	srv.pool = listen.New(listen.Options{
		Name: "pop3server", Sessions: opt.Limits.Sessions, PerPeer: opt.Limits.SessionsPerPeer, Logger: opt.Logger,
	})
	return srv
}

// Serve takes connections from l until Shutdown, when it returns listen.ErrClosed, and closes l. With implicitTLS each
// connection begins with a handshake (RFC 8314, port 995).
func (srv *Server) Serve(l net.Listener, implicitTLS bool) error {
	if implicitTLS && srv.opt.TLS == nil {
		_ = l.Close()
		return fmt.Errorf("pop3server: serve %s: implicit TLS without a TLS configuration", l.Addr())
	}
	return srv.pool.Serve(l, listen.Handler{
		Start:  func(nc net.Conn) listen.Session { return srv.newSession(nc, implicitTLS) },
		Refuse: func(nc net.Conn, why listen.Reason) { srv.refuse(nc, implicitTLS, why) },
		Admit:  srv.opt.Admit,
	})
}

// refuse tells a peer that it is not served.
func (srv *Server) refuse(nc net.Conn, implicitTLS bool, why listen.Reason) {
	if m := srv.opt.Metrics.Refused; m != nil {
		m(string(why))
	}
	if !implicitTLS { // there nothing can be said before the handshake
		text := "-ERR [SYS/TEMP] Too many connections\r\n"
		if why == listen.Denied {
			text = "-ERR [SYS/PERM] Access denied\r\n"
		}
		_, _ = io.WriteString(nc, text)
	}
}

// newSession makes the session of a connection.
func (srv *Server) newSession(nc net.Conn, implicitTLS bool) *session {
	lim := srv.opt.Limits
	conn := wire.New(nc, wire.Limits{
		Line: max(lim.Line, auth.MaxLine+64), Idle: lim.TimeBefore, Read: lim.Read, LineTime: lim.TimeBefore,
		Write: lim.Write, Handshake: lim.TimeBefore,
	})
	return &session{srv: srv, conn: conn, state: authorization, log: srv.opt.Logger, implicitTLS: implicitTLS}
}

// Shutdown takes no more connections, ends every session as soon as its command is done, and waits for them. Messages
// that were marked and not confirmed by QUIT stay (RFC 1939, section 6). When ctx ends first, the connections that are
// left are cut. It returns when no goroutine of the server is left.
func (srv *Server) Shutdown(ctx context.Context) error { return srv.pool.Shutdown(ctx) }

// Pool is the sessions of this server.
func (srv *Server) Pool() *listen.Pool { return srv.pool }

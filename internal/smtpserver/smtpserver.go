// Package smtpserver speaks SMTP with those who bring mail: other servers on port 25, and users on the submission
// ports 465 and 587 (RFC 5321, RFC 6409, RFC 8314). It keeps the order of commands, the limits and TLS; what may be
// sent by whom to whom is decided by intake, who somebody is by auth.
//
// Extensions: PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531), ENHANCEDSTATUSCODES (2034, 3463),
// CHUNKING and BINARYMIME (3030), DSN (3461), DELIVERBY (2852), FUTURERELEASE (4865), MT-PRIORITY (6710), RRVS (7293),
// STARTTLS (3207), AUTH (4954), LIMITS (9422), and XCLIENT for trusted proxies. It delivers nothing itself. LMTP (2033) is spoken
// with trusted peers.
//
// A message that is answered with 250 is committed. Only CRLF.CRLF ends a message; one with a bare CR or LF is refused
// as a whole after its true end. BINARYMIME, which comes in counted chunks and can't be cut short by its content, may
// hold any octet (RFC 3030, section 3); intake decides what becomes of it.
//
//	srv := smtpserver.New(smtpserver.Options{Hostname: "mx.example.test", Intake: smtpserver.Bind(in), Auth: a, TLS: cfg})
//	go srv.Serve(listener, smtpserver.MX)
//	...
//	srv.Shutdown(ctx)
package smtpserver

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/intake"
	"waxwing/internal/listen"
	"waxwing/internal/smtp"
	"waxwing/internal/trace"
	"waxwing/internal/wire"
)

// Mode is what a listener is for.
type Mode uint8

// The modes.
const (
	MX          Mode = iota // port 25: mail from other servers; STARTTLS, no AUTH at all
	Submission              // port 587: mail from users; nothing but STARTTLS before TLS, nothing but AUTH before AUTH
	Submissions             // port 465: the same with TLS from the first octet on
	LMTP                    // the last hop, from trusted peers: mail for mailboxes here
)

func (m Mode) String() string { return [...]string{"mx", "submission", "submissions", "lmtp"}[m] }

// forUsers tells the modes of submission.
func (m Mode) forUsers() bool { return m == Submission || m == Submissions }

// Intake is what takes messages in: *intake.Intake by way of Bind.
type Intake interface {
	Begin(p intake.Peer) Transaction
	MaxSize() int64     // octets of one message, for SIZE
	MaxRecipients() int // recipients of one message, for LIMITS
	Offer() intake.Offer
}

// Transaction is one message on its way in. Its errors are *smtp.Reply where the peer is to be told something; any
// other error is a failure of this server, 451.
type Transaction interface {
	Mail(ctx context.Context, m smtp.Mail) error
	Rcpt(ctx context.Context, r smtp.Rcpt) error
	Spool() (io.Writer, error)
	Commit(ctx context.Context) (intake.Receipt, error)
	Abort() // idempotent, also after Commit
}

// Authenticator is what signs users in: *auth.Auth.
type Authenticator interface {
	Mechanisms(tls bool) []string
	Start(ctx context.Context, at auth.Attempt, mechanism string) (auth.Exchange, error)
}

// Limits bound what peers may cost. A zero value stands for the default beside it.
type Limits struct {
	Sessions        int           // at one time, 10,000
	SessionsPerPeer int           // from one address (IPv6: one /64), loopback excepted; 50
	Errors          int           // bad commands in one session before 421, 20
	Idle            int           // commands without effect (NOOP, RSET, VRFY, ...) between messages before each counts as bad, 100
	Refusals        int           // refused recipients in one session before 421, 200
	AuthFailures    int           // failed sign-ins in one session before 421, 5
	Messages        int           // transactions in one session (MAILMAX), 1,000
	Wait            time.Duration // for the next command, 5 min (RFC 5321, section 4.5.3.2.7)
	Read            time.Duration // for the next octets of a command or message, 3 min
	LineTime        time.Duration // for one whole command, 2 min
	Write           time.Duration // for a write to be taken, 3 min
	Handshake       time.Duration // for the TLS handshake, 30 s
	Early           time.Duration // before the greeting on port 25, in which a stranger must keep still, 100 ms; negative: none
	MinRate         int           // octets a second that a message must average after Grace, 100
	Grace           time.Duration // 1 min
	Body            time.Duration // for one whole message or chunk, 1 h
	Transaction     time.Duration // from MAIL to the end of the message, 2 h
	Session         time.Duration // for the session, asked between transactions, 4 h
	Command         time.Duration // for the server's own work on MAIL, RCPT, AUTH, 2 min
	Commit          time.Duration // for the server's own work on a message, 8 min (clients wait 10)
}

func (l Limits) withDefaults() Limits {
	for _, n := range []struct {
		v        *int
		standard int
	}{
		{&l.Sessions, 10_000},
		{&l.SessionsPerPeer, 50},
		{&l.Errors, 20},
		{&l.Idle, 100},
		{&l.Refusals, 200},
		{&l.AuthFailures, 5},
		{&l.Messages, 1000},
		{&l.MinRate, 100},
	} {
		if *n.v <= 0 {
			*n.v = n.standard
		}
	}
	for _, d := range []struct {
		v        *time.Duration
		standard time.Duration
	}{
		{&l.Wait, 5 * time.Minute},
		{&l.Read, 3 * time.Minute},
		{&l.LineTime, 2 * time.Minute},
		{&l.Write, 3 * time.Minute},
		{&l.Handshake, 30 * time.Second},
		{&l.Early, 100 * time.Millisecond},
		{&l.Grace, time.Minute},
		{&l.Body, time.Hour},
		{&l.Transaction, 2 * time.Hour},
		{&l.Session, 4 * time.Hour},
		{&l.Command, 2 * time.Minute},
		{&l.Commit, 8 * time.Minute},
	} {
		if *d.v == 0 || *d.v < 0 && d.v != &l.Early {
			*d.v = d.standard
		}
	}
	return l
}

// Metrics are hooks that are called as things happen, from many goroutines; each may be nil.
type Metrics struct {
	Sessions func(mode Mode, change int)                                 // +1 at the start of a session, -1 at its end
	Rejected func(mode Mode, reason string)                              // connections not served: "sessions", "peer", "descriptors", "shutdown"
	Message  func(mode Mode, code int, octets int64, took time.Duration) // the end of each message: its reply, size, time from MAIL
	SignIn   func(mode Mode, mechanism string, ok bool)                  // each AUTH that was decided
	TLS      func(mode Mode, version uint16, ok bool)                    // each handshake
	Answer   func(mode Mode, verb string, code int)                      // each reply; "other" for what is no command, "" for the greeting and the end
	Ended    func(mode Mode, lasted time.Duration)                       // each session
	Panic    func(mode Mode)                                             // a session ended by a defect of this server
}

// Options of a Server. Hostname and Intake are needed; without TLS there is no STARTTLS, and no submission.
type Options struct {
	Hostname string
	Intake   Intake
	Auth     Authenticator // needed for the submission modes
	TLS      *tls.Config   // session tickets are always off in mode MX
	Limits   Limits
	XClient  []netip.Prefix // peers that may name the true client by XCLIENT
	// LMTPClients are peers beyond this machine that may speak LMTP.
	LMTPClients []netip.Prefix
	Logger      *slog.Logger // discarded when nil
	Metrics     Metrics
	Clock       func() time.Time // time.Now when nil
	Guard       Guard            // lets everybody in when nil
	Trace       *trace.Recorder  // keeps what became of sessions and messages; nil: nobody does
}

// Server serves SMTP on any number of listeners.
type Server struct {
	opts   Options
	limits Limits
	log    *slog.Logger
	tlsMX  *tls.Config // without session tickets: Microsoft's servers break off on them (golang/go#70232)
	wire   wire.Limits
	pool   *listen.Pool
}

// New makes a Server. It starts nothing.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Guard == nil {
		opts.Guard = openDoor{}
	}
	srv := &Server{
		opts:   opts,
		limits: opts.Limits.withDefaults(),
		log:    opts.Logger,
	}
	if opts.TLS != nil {
		srv.tlsMX = opts.TLS.Clone()
		srv.tlsMX.SessionTicketsDisabled = true
	}
	l := srv.limits
	srv.wire = wire.Limits{
		Line:      maxLine,
		Idle:      l.Wait,
		Read:      l.Read,
		LineTime:  l.LineTime,
		Write:     l.Write,
		MinRate:   l.MinRate,
		Grace:     l.Grace,
		Bulk:      l.Body,
		Handshake: l.Handshake,
	}
	srv.pool = listen.New(listen.Options{Name: "smtpserver", Sessions: l.Sessions, PerPeer: l.SessionsPerPeer, Logger: opts.Logger})
	return srv
}

// Octets of a command line with its CRLF. RFC 5321 asks for 512 and what the extensions add: 26 for SIZE, 500 for AUTH,
// some 700 for DSN. A line of an AUTH exchange may be longer.
const (
	maxLine     = 2048
	maxAuthLine = auth.MaxLine + 64
)

func (srv *Server) tlsFor(mode Mode) *tls.Config {
	if mode == MX {
		return srv.tlsMX
	}
	return srv.opts.TLS
}

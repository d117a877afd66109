// Package intake takes one message in, from a stranger, from a signed-in user or from the server itself: it holds the
// rules of the envelope (who may send as whom, to whom, how much), takes the octets to a spool, parses them once, holds
// the rules of the header, adds trace fields, and commits all local copies and all remote recipients in one transaction
// (RFC 5321, sections 3.6, 4.4 and 6.3; RFC 6409 for submission; RFC 3461 for delivery status).
//
// It speaks no protocol: the SMTP sessions do. It opens no connection and asks no DNS. A refusal is a *smtp.Reply.
//
//	t := in.Begin(peer)
//	defer t.Abort()
//	err := t.Mail(ctx, mail)
//	err = t.Rcpt(ctx, rcpt)
//	sp, err := t.Spool()
//	_, err = io.Copy(sp, body)
//	receipt, err := t.Commit(ctx) // only now 250
package intake

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/directory"
	"waxwing/internal/guard"
	"waxwing/internal/mailrule"
	"waxwing/internal/milter"
	"waxwing/internal/routing"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/trace"
)

// Store is what intake asks of the store.
type Store interface {
	Deliver(ctx context.Context, d store.Delivery) (store.Delivered, error)
	Usage(ctx context.Context, acct store.AccountID) (store.Usage, error)
}

// Directory is what intake asks of the directory.
type Directory interface {
	Owns(ctx context.Context, id store.AccountID, a address.Address) (bool, error)
	Domain(name string) (directory.Domain, error)
	Settings() directory.Settings
	RuleSet() *mailrule.Set
}

// Router is what intake asks of routing.
type Router interface {
	Route(ctx context.Context, req routing.Request) (routing.Route, error)
}

// Limits bound what one message and all messages together may cost; zero values stand for the defaults. The size of a
// message and the number of its recipients are settings.
type Limits struct {
	HeaderBytes int64 // octets of the message's header; 512 KiB
	Fields      int   // fields of the message's header; 1,000
	Line        int64 // octets of one line; 100,000
	Hops        int   // Received fields; 50
	OwnHops     int   // Received fields by this host; 10
	Targets     int   // mailboxes and remote addresses of one message, after expansion; 20,000
	SpoolMemory int64 // octets that all messages being received hold in memory; 64 MiB
	SpoolBytes  int64 // the same in memory and in files; 4 GiB
	Reserve     int64 // free octets that the disk keeps; 256 MiB
}

func (l Limits) withDefaults() Limits {
	set := func(p *int64, d int64) {
		if *p <= 0 {
			*p = d
		}
	}
	count := func(p *int, d int) {
		if *p <= 0 {
			*p = d
		}
	}
	set(&l.HeaderBytes, 512<<10)
	set(&l.Line, 100_000)
	set(&l.SpoolMemory, 64<<20)
	set(&l.SpoolBytes, 4<<30)
	set(&l.Reserve, 256<<20)
	count(&l.Fields, 1000)
	count(&l.Hops, 50)
	count(&l.OwnHops, 10)
	count(&l.Targets, 20_000)
	return l
}

// Options of an Intake. Store, Directory and Hostname are needed.
type Options struct {
	Store     Store
	Directory Directory
	Routing   Router
	Hostname  string
	Limits    Limits
	// Held tells why the mail of an account is kept in the queue until an administrator releases it, "" when it is not; nil:
	// never.
	Held     func(store.AccountID) (reason string)
	SpoolDir string                // for messages too large for memory; os.TempDir() when empty
	Milters  *milter.Chain         // other programs that are asked; nil: none
	Trace    *trace.Recorder       // keeps what became of messages that this server made; nil: nobody does
	Scripts  Scripts               // filter scripts of the mailboxes; nil: none are run
	Notifier Notifier              // makes delivery status notifications of success; none are made when nil
	Surge    Surge                 // notices mail bombs; nobody does when nil
	Clock    func() time.Time      // time.Now when nil
	IDs      func() string         // trace ids; ULIDs when nil
	Free     func() (int64, error) // free octets where mail is kept; those of SpoolDir when nil
	Logger   *slog.Logger          // discarded when nil

	// TraceClientName writes the HELO name of signed-in users into Received. By default only their address is written:
	// the name of someone's computer is nobody's business.
	TraceClientName bool
	// AddressLiterals lets signed-in users send to addresses such as user@[192.0.2.1].
	AddressLiterals bool
	// Suppressed tells why nothing is sent to an address for a sender's domain, "" when it is; nil: the queue says so later.
	Suppressed func(ctx context.Context, to, sender string) (why string)
}

// Intake takes messages in. It is safe for concurrent use and starts no goroutine.
type Intake struct {
	opts     Options
	limits   Limits
	log      *slog.Logger
	notifier atomic.Pointer[Notifier]
	filters  *filters // nil: no scripts are run

	inMemory atomic.Int64 // octets of spools in memory
	spooled  atomic.Int64 // octets of all spools

	freeAt    atomic.Int64 // when free octets were looked up last, Unix nanoseconds
	freeBytes atomic.Int64
}

// New gives an Intake.
func New(opts Options) (*Intake, error) {
	if opts.Store == nil || opts.Directory == nil || opts.Routing == nil || opts.Hostname == "" {
		return nil, errors.New("intake: store, directory, routing and host name are needed")
	}
	if opts.SpoolDir == "" {
		opts.SpoolDir = os.TempDir()
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.IDs == nil {
		opts.IDs = func() string { return ulid.Make().String() }
	}
	if opts.Free == nil {
		opts.Free = func() (int64, error) { return freeOctets(opts.SpoolDir) }
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	in := &Intake{opts: opts, limits: opts.Limits.withDefaults(), log: opts.Logger, filters: newFilters(opts.Scripts)}
	if opts.Notifier != nil {
		in.SetNotifier(opts.Notifier)
	}
	return in, nil
}

// SetNotifier sets who makes notifications of success, which may need this Intake itself.
func (in *Intake) SetNotifier(n Notifier) { in.notifier.Store(&n) }

// MaxSize is the most octets that a message may have, for the SIZE extension (RFC 1870).
func (in *Intake) MaxSize() int64 { return in.opts.Directory.Settings().MessageSize }

// MaxRecipients is the most recipients that a message may have, for the LIMITS extension (RFC 9422).
func (in *Intake) MaxRecipients() int { return in.opts.Directory.Settings().Recipients }

func freeOctets(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// roomFor tells whether the disk takes so many octets more and keeps its reserve. The disk is asked at most once a
// second; when it can't be asked, the writes themselves will tell.
func (in *Intake) roomFor(octets int64) bool {
	now := in.opts.Clock().UnixNano()
	if last := in.freeAt.Load(); last == 0 || now-last > int64(time.Second) || now < last {
		free, err := in.opts.Free()
		if err != nil {
			in.log.Warn("free space is unknown", "error", err)
			return true
		}
		in.freeBytes.Store(free)
		in.freeAt.Store(now)
	}
	return in.freeBytes.Load() >= in.limits.Reserve+octets
}

// Peer is who a message comes from, as its session knows them.
type Peer struct {
	Remote, Local netip.AddrPort
	HELO          string // as the client said it
	ESMTP         bool   // EHLO, not HELO
	TLS           *tls.ConnectionState
	Identity      *auth.Identity // nil for strangers
	Visitor       *guard.Visitor // what the guard knows of a session; nil without one
	LMTP          bool           // by LMTP, from a trusted peer (RFC 2033)
	Submission    bool           // the message submission service (RFC 6409): rules for users, not for servers
	Trail         *trace.Trail   // what is known of the message so far; nil: it is not traced
}

// Receipt is what Commit made.
type Receipt struct {
	TraceID string // stands in Received and in the logs
	Queue   store.QueueID
	Local   int // copies in mailboxes here
	Remote  int // recipients elsewhere
}

// Refusals that stand for failures of this server: the sender keeps the message and tries again.
var (
	replyDirectory   = reply(451, "4.3.0", "the directory can't be asked now, try again later")
	replyExpansion   = reply(451, "4.3.5", "the address is configured wrongly here, try again later")
	replyStore       = reply(451, "4.3.0", "the message can't be stored now, try again later")
	replyFull        = reply(452, "4.3.1", "no room for messages now, try again later")
	replyDomainQuota = reply(452, "4.2.2", "the mailboxes of this domain are full, try again later")
	replyQuota       = reply(452, "4.2.2", "the mailbox is full, try again later")
	replyOrder       = reply(503, "5.5.1", "bad sequence of commands")
)

// reply is a refusal with a fixed text.
func reply(code int, enhanced, text string) *smtp.Reply {
	var e smtp.Enhanced
	e.Class, e.Subject, e.Detail = int(enhanced[0]-'0'), int(enhanced[2]-'0'), int(enhanced[4]-'0')
	return &smtp.Reply{Code: code, Enhanced: e, Text: text}
}

// storeReply is what a peer gets to hear about an error of the store.
func storeReply(err error) *smtp.Reply {
	switch {
	case errors.Is(err, store.ErrFull), errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return replyFull
	case errors.Is(err, store.ErrOverQuota):
		return replyQuota
	}
	return replyStore
}

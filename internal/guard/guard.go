// Package guard is the front door: it decides at each stage of a session whether a peer may go on, must wait, or is sent
// away. It is a chain of checks, each a value with a name that looks at the stages it cares about: access lists, limits
// by address and network, early talkers, tarpit, load. DNS lists, greylisting and what else judges a peer by more than its
// behaviour stand in packages below this one and join the same chain.
//
// It speaks no protocol. A session asks it with a Visitor, which holds what is known of the peer, and gets a Verdict: go
// on, wait, or the reply to give, each with the reason in words for the log, the metrics and the trace. What it remembers is in
// memory, bounded, and costs the same for each event however much there is of it.
//
//	v := guard.Visitor{Listener: guard.MX, Remote: remote}
//	if d := g.Ask(ctx, guard.Connect, &v); d.Reply != nil { ... }
//	...
//	g.Ask(ctx, guard.End, &v) // once for each Connect
package guard

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// Listener is what a connection came in by.
type Listener string

// The listeners.
const (
	MX          Listener = "mx"          // port 25
	Submission  Listener = "submission"  // port 587
	Submissions Listener = "submissions" // port 465
	IMAP        Listener = "imap"
	POP3        Listener = "pop3"
)

// Listeners are all listeners, for those who check a name.
var Listeners = []Listener{MX, Submission, Submissions, IMAP, POP3}

// Stage is a moment of a session at which the guard is asked.
type Stage uint8

// The stages. Those marked as told have happened: a verdict may let the answer wait, or end the session.
const (
	Connect   Stage = iota // before the greeting; Delay is how long the peer must keep still
	Early                  // told: the peer talked before it was its turn
	Helo                   // Visitor.HELO
	Mail                   // Visitor.From
	Rcpt                   // Visitor.To, before anything is looked up
	Recipient              // told: Visitor.To, and what became of it in Visitor.Outcome
	Data                   // a message is about to come
	Message                // told: Visitor.Octets, and Visitor.Outcome
	Bad                    // told: a bad command was answered with Visitor.Outcome
	Command                // told: a command, good or bad, has come
	SignedIn               // Visitor.Account and Visitor.Login
	NotSigned              // told: a sign-in failed
	End                    // told: the session is over; asked once for each Connect
	stages
)

var stageNames = [stages]string{
	"connect", "early", "helo", "mail", "rcpt", "recipient", "data", "message", "bad", "command", "signed-in", "not-signed-in", "end",
}

func (s Stage) String() string { return stageNames[s] }

// Finding is something that speaks for or against a peer: the weights of all add up.
type Finding struct {
	Check  string
	Weight int // positive: against the peer
	Reason string
}

// Visitor is what is known of the peer of one connection. It belongs to the session's goroutine; checks keep in it what
// they found.
type Visitor struct {
	Listener Listener
	Remote   netip.AddrPort // IPv4 unmapped
	Local    netip.AddrPort
	TLS      bool
	HELO     string // as the peer said it, "" before
	ESMTP    bool
	Account  store.AccountID // signed in, 0 before
	Login    address.Address // of the account

	Trusted bool // by the access lists: no check of behaviour applies, those of rights do
	Exempt  bool // from limits and delays: loopback, and what the settings exempt
	Known   bool // has behaved well before: no greet delay

	From address.Address // since Mail
	UTF8 bool            // the transaction is SMTPUTF8, since Mail
	To   address.Address // of the stages Rcpt and Recipient
	// Outcome is the refusal that a recipient, message or command met, nil when it was taken. Anything but a *smtp.Reply is
	// a failure of this server.
	Outcome error
	Octets  int64 // of the message, at Message

	Pipelined  bool // octets came before the answer to this command
	Recipients int  // taken in this transaction
	Refused    int  // recipients refused in this session
	Errors     int  // bad commands in this session
	Findings   []Finding

	network [17]byte // that it is counted under while it is open
	counted bool
}

// Find notes a finding.
func (v *Visitor) Find(check string, weight int, reason string) {
	if len(v.Findings) < maxFindings {
		v.Findings = append(v.Findings, Finding{check, weight, reason})
	}
}

const maxFindings = 64

// Score is the sum of the weights found so far.
func (v *Visitor) Score() (sum int) {
	for _, f := range v.Findings {
		sum += f.Weight
	}
	return sum
}

// Unknown tells whether the outcome says that there is no such recipient.
func (v *Visitor) Unknown() bool {
	var r *smtp.Reply
	return errors.As(v.Outcome, &r) && r.Permanent() && r.Enhanced.Subject == 1 && r.Enhanced.Detail == 1
}

// Verdict is the answer to one question; the zero value lets the peer go on.
type Verdict struct {
	Check  string        // who decided
	Reason string        // in words, for the log and the trace; what the peer hears stands in Reply
	Reply  *smtp.Reply   // nil: go on; a 421 ends the session
	Delay  time.Duration // before the answer
}

// Refuse is a verdict that refuses with a reply.
func Refuse(reply *smtp.Reply, reason string) Verdict { return Verdict{Reply: reply, Reason: reason} }

// Wait is a verdict that lets the peer wait.
func Wait(d time.Duration, reason string) Verdict { return Verdict{Delay: d, Reason: reason} }

// Func looks at one stage. It must not keep the visitor.
type Func func(ctx context.Context, v *Visitor) Verdict

// Check is one link of the chain.
type Check struct {
	Name   string
	Always bool // asked about trusted and exempt peers too
	Stages map[Stage]Func
}

// Options of a Guard; the zero value serves.
type Options struct {
	Logger *slog.Logger // discarded when nil
	// Decided is told of each verdict that isn't to go on at once; may be nil.
	Decided func(stage Stage, v *Visitor, d Verdict)
}

// Guard is a chain of checks. It is safe for concurrent use and starts no goroutine.
type Guard struct {
	opts  Options
	links [stages][]link
}

type link struct {
	name   string
	always bool
	fn     Func
}

// New gives a Guard that asks the checks in their order.
func New(opts Options, checks ...Check) *Guard {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Guard{opts: opts}
	for _, c := range checks {
		for stage, fn := range c.Stages {
			g.links[stage] = append(g.links[stage], link{c.Name, c.Always, fn})
		}
	}
	return g
}

// maxDelay bounds what all checks together let a peer wait.
const maxDelay = 30 * time.Second

// Ask gives the verdict on a stage: the first refusal, and the longest wait that a check asked for. At End all checks are
// told.
func (g *Guard) Ask(ctx context.Context, stage Stage, v *Visitor) Verdict {
	var all Verdict
	for i := range g.links[stage] {
		l := &g.links[stage][i]
		if (v.Trusted || v.Exempt) && !l.always {
			continue
		}
		d := l.fn(ctx, v)
		if d.Delay > all.Delay || d.Reply != nil {
			all.Check, all.Reason, all.Reply = l.name, d.Reason, d.Reply
			all.Delay = max(min(d.Delay, maxDelay), all.Delay)
		}
		if d.Reply != nil && stage != End {
			break
		}
	}
	if all.Check != "" {
		g.decided(ctx, stage, v, all)
	}
	return all
}

func (g *Guard) decided(ctx context.Context, stage Stage, v *Visitor, d Verdict) {
	if f := g.opts.Decided; f != nil {
		f(stage, v, d)
	}
	if d.Reply == nil {
		return
	}
	g.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "refused by the guard", slog.String("check", d.Check), slog.String("stage", stage.String()),
		slog.String("reason", d.Reason), slog.String("listener", string(v.Listener)), slog.String("remote", v.Remote.Addr().String()),
		slog.String("helo", v.HELO), slog.String("from", v.From.String()), slog.String("to", v.To.String()), slog.Int("code", d.Reply.Code))
}

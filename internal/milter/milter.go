// Package milter asks other programs about messages over Sendmail's milter protocol (versions 2 to 6): Rspamd, OpenDKIM and
// others stand beside the server's own checks, in the order that the settings name.
//
// A run accompanies one transaction: what a milter answers to MAIL, RCPT and the message becomes the answer to the client.
// Changes of the header, of the sender and of recipients are applied; a body is replaced only where the settings allow it. A
// milter that can't be asked, or is too slow, costs what the settings say: the message is put off, refused, or passes.
//
// The connection and HELO are told to a milter with MAIL, and refusals of them are answered there. Each transaction has a
// connection of its own: a milter never sees two clients in one. The words of a milter are cleaned before anybody hears them.
//
//	run := chain.Begin(milter.Client{...})
//	defer run.Close()
//	err := run.Mail(ctx, "a@example.test", nil)
//	err = run.Rcpt(ctx, "b@example.test", nil)
//	changes, err := run.Message(ctx, header, body)
package milter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	protocol "github.com/emersion/go-milter"

	"waxwing/internal/directory"
	"waxwing/internal/smtp"
	"waxwing/internal/trace"
)

// Options of a Chain. Milters is needed.
type Options struct {
	Milters  func() []directory.Milter // as they are now
	Hostname string
	Logger   *slog.Logger
	Failed   func(name string) // a milter could not be asked; may be nil
}

// Chain is the milters that are asked, in their order. A nil Chain has none. It is safe for concurrent use.
type Chain struct {
	o    Options
	open atomic.Int64 // connections
	old  sync.Map     // addresses of milters that speak an older version
}

// maxOpen is how many connections to milters there may be at a time.
const maxOpen = 500

// New makes a Chain.
func New(o Options) *Chain {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Chain{o: o}
}

// Client is who a message comes from.
type Client struct {
	ID         string // of the message
	Remote     netip.AddrPort
	HELO       string
	TLS        *tls.ConnectionState
	Login      string // who is signed in, "" for nobody
	Mechanism  string
	Submission bool
	Trusted    bool         // by the access lists
	Trail      *trace.Trail // where it is told what milters did
}

// Run is the milters' part in one transaction. It belongs to one goroutine. A nil Run does nothing.
type Run struct {
	chain  *Chain
	client Client
	from   string
	asked  []*asked
}

// asked is one milter in a run.
type asked struct {
	directory.Milter
	s    *protocol.ClientSession // nil: it has said what it has to say, or it failed
	conn *conn
}

// Begin makes the run of a transaction: nil when no milter wants to see it. It connects nowhere yet.
func (c *Chain) Begin(client Client) *Run {
	if c == nil {
		return nil
	}
	var r *Run
	for _, m := range c.o.Milters() {
		if client.Trusted && !m.TrustedIn || m.When == "mx" && client.Submission || m.When == "submission" && !client.Submission {
			continue
		}
		if r == nil {
			r = &Run{chain: c, client: client}
		}
		r.asked = append(r.asked, &asked{Milter: m})
	}
	return r
}

// Close ends all connections.
func (r *Run) Close() {
	if r == nil {
		return
	}
	for _, a := range r.asked {
		r.end(a)
	}
}

// end closes the connection to a milter.
func (r *Run) end(a *asked) {
	if a.s != nil {
		_ = a.s.Close() // it hears QUIT if it still listens
		a.s = nil
	}
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
		r.chain.open.Add(-1)
	}
}

// ErrDiscard is the answer of a milter that wants the message taken and thrown away.
var ErrDiscard = errors.New("milter: discard")

// each asks all milters that still have something to say; a refusal ends it.
func (r *Run) each(ctx context.Context, what string, ask func(a *asked) (*protocol.Action, error)) error {
	if r == nil {
		return nil
	}
	for _, a := range r.asked {
		if a.s == nil {
			continue
		}
		if err := r.one(ctx, a, what, ask); err != nil {
			return err
		}
	}
	return nil
}

// one asks one milter and reads its answer.
func (r *Run) one(ctx context.Context, a *asked, what string, ask func(a *asked) (*protocol.Action, error)) error {
	stop := context.AfterFunc(ctx, a.conn.expire)
	act, err := ask(a)
	stop()
	if err != nil {
		return r.failed(a, what, err)
	}
	return r.decide(a, what, act)
}

// decide turns an action into the answer to the client: nil to go on.
func (r *Run) decide(a *asked, what string, act *protocol.Action) error {
	switch act.Code {
	case protocol.ActContinue:
		return nil
	case protocol.ActAccept: // it wants to see no more of this message
		r.end(a)
		return nil
	case protocol.ActDiscard:
		r.note(a, trace.Dropped, what+": to be thrown away", "")
		return ErrDiscard
	}
	reply := replyOf(act)
	r.note(a, trace.OfReply(reply.Code), what, fmt.Sprintf("%d %s %s", reply.Code, reply.Enhanced, reply.Text))
	return reply
}

// failed does what the settings say about a milter that can't be asked.
func (r *Run) failed(a *asked, what string, err error) error {
	if f := r.chain.o.Failed; f != nil {
		f(a.Name)
	}
	r.chain.o.Logger.Error("a milter can't be asked", "milter", a.Name, "stage", what, "failure", a.Failure, "trace", r.client.ID, "error", err)
	if a.s != nil {
		a.s = nil // nothing polite is said on a connection that failed
	}
	r.end(a)
	outcome := trace.Passed
	var reply error
	switch a.Failure {
	case "accept":
	case "reject":
		outcome, reply = trace.Rejected, smtp.Errorf(550, "5.7.1", "the message can't be checked, and is not taken unchecked")
	default:
		outcome, reply = trace.Deferred, smtp.Errorf(451, "4.7.1", "the message can't be checked now, try again later")
	}
	r.note(a, outcome, what+": it can't be asked: "+err.Error(), "")
	return reply
}

func (r *Run) note(a *asked, outcome trace.Outcome, reason, reply string) {
	r.client.Trail.Add(trace.Step{
		Kind: trace.Check, Outcome: outcome, Reason: reason, Reply: reply, Data: []trace.Pair{{Name: "check", Value: "milter " + a.Name}},
	})
}

// replyOf is a refusal in the words of a milter, as far as they are fit for a client.
func replyOf(act *protocol.Action) *smtp.Reply {
	code, text := 550, "refused by a content check"
	switch act.Code {
	case protocol.ActTempFail:
		code, text = 451, "not taken now by a content check, try again later"
	case protocol.ActReplyCode:
		if act.SMTPCode >= 400 && act.SMTPCode <= 599 && act.SMTPCode != 421 { // one that hangs up isn't a milter's to give
			code = act.SMTPCode
		} else if act.SMTPCode == 421 {
			code = 451
		}
		if said := sayable(act.SMTPText); said != "" {
			text = said
		}
	}
	status := fmt.Sprintf("%d.7.1", code/100)
	if first, rest, _ := strings.Cut(text, " "); rest != "" {
		if e, ok := smtp.ParseEnhanced(first); ok && e.Class == code/100 {
			status, text = first, rest
		}
	}
	return smtp.Errorf(code, status, "%s", text)
}

// sayable makes text fit for a reply: one line of printable ASCII.
func sayable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), 400)]
}

// Probed is what a milter said when it was connected to.
type Probed struct {
	Took  time.Duration
	Wants []string // actions that it may take
	Skips []string // steps that it does not want to see
}

// Probe connects to a milter and negotiates.
func (c *Chain) Probe(ctx context.Context, m directory.Milter) (Probed, error) {
	began := time.Now()
	r := &Run{chain: c, client: Client{ID: "probe"}}
	a := &asked{Milter: m}
	defer r.end(a)
	if err := r.connect(ctx, a); err != nil {
		return Probed{}, err
	}
	p := Probed{Took: time.Since(began)}
	for _, w := range []struct {
		bit  protocol.OptAction
		name string
	}{
		{protocol.OptAddHeader, "add fields"},
		{protocol.OptChangeHeader, "change fields"},
		{protocol.OptChangeBody, "replace bodies"},
		{protocol.OptAddRcpt, "add recipients"},
		{protocol.OptRemoveRcpt, "remove recipients"},
		{protocol.OptQuarantine, "hold messages"},
		{protocol.OptChangeFrom, "change senders"},
	} {
		if a.s.ActionOption(w.bit) {
			p.Wants = append(p.Wants, w.name)
		}
	}
	for _, w := range []struct {
		bit  protocol.OptProtocol
		name string
	}{
		{protocol.OptNoConnect, "connect"},
		{protocol.OptNoHelo, "helo"},
		{protocol.OptNoMailFrom, "mail"},
		{protocol.OptNoRcptTo, "rcpt"},
		{protocol.OptNoHeaders, "header"},
		{protocol.OptNoBody, "body"},
	} {
		if a.s.ProtocolOption(w.bit) {
			p.Skips = append(p.Skips, w.name)
		}
	}
	return p, nil
}

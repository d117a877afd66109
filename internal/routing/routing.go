// Package routing turns the recipient of an envelope into the places where its mail goes: mailboxes of local accounts
// and addresses at other servers, and says under which sender it goes there. It stands over the directory and beneath
// intake; what an address means (aliases, groups, forwards, catch-all, sub-addresses, role addresses) is the directory's
// to say.
//
// Mail that leaves because an address of ours leads elsewhere goes under a sender that is ours (package srs), so that the
// next server's look at SPF (RFC 7208) holds and failures come back; here they are sent on to the true sender.
//
// It doesn't deliver, and it doesn't judge whether a sender may relay: that and quota are intake's.
package routing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/mailrule"
	"waxwing/internal/smtp"
	"waxwing/internal/srs"
	"waxwing/internal/store"
)

// Directory is what routing asks of the directory.
type Directory interface {
	Resolve(ctx context.Context, to address.Address) (directory.Resolution, error)
	MaySend(r *directory.Resolution, from directory.Sender) bool
	Local(domain string) bool
	Settings() directory.Settings
	RuleSet() *mailrule.Set
}

// Request is one recipient with what is known of its message.
type Request struct {
	To   address.Address
	From directory.Sender
	// Explain asks for Why also where mail takes its plain way.
	Explain bool
}

// Target is one place for a message: a mailbox of an account, or an address elsewhere.
type Target struct {
	Account *directory.Account // nil when remote; shared: do not change
	Role    store.Role         // mailbox of the account
	Detail  string             // sub-address that was used, for filters
	Remote  address.Address    // zero when local
	By      address.Address    // the address of ours that leads here, when it is not the recipient's own account
	Sender  Sender             // under which it goes to Remote
	Queue   string             // destination under which mail to Remote is queued
}

// Sender is a reverse-path that takes the place of the message's own.
type Sender struct {
	Replaced bool
	Address  address.Address
	Owner    bool // of a group: what the sender asked to be told does not hold for its members
}

// Route is what became of one recipient.
type Route struct {
	Status   directory.Status
	Targets  []Target
	Expanded bool        // through an alias, a forward or a catch-all
	Passes   bool        // it may leave whoever sends it: to a relay domain, or back to a sender that was rewritten here
	Refusal  *smtp.Reply // the recipient is refused with it, whatever the status; nil: it isn't
	Why      []string    // what was decided on the way, in words
}

// Options of a Router.
type Options struct {
	Directory Directory
	Keys      Keys             // of SRS; nil: senders stay as they are
	Asker     Asker            // asks the next server about recipients of relay domains; nil: nobody can be asked
	Clock     func() time.Time // time.Now when nil
	Logger    *slog.Logger
}

// Router finds routes. It is safe for concurrent use.
type Router struct {
	dir   Directory
	clock func() time.Time
	log   *slog.Logger
	keys  *keyring
	asked *asked
}

// New gives a Router over a directory.
func New(o Options) *Router {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Router{dir: o.Directory, clock: o.Clock, log: o.Logger}
	if o.Asker != nil {
		r.asked = newAsked(o.Asker)
	}
	if o.Keys != nil {
		r.keys = &keyring{from: o.Keys}
	}
	return r
}

// Refusals of routing itself.
func refuse(code int, class, subject, detail int, format string, args ...any) *smtp.Reply {
	return &smtp.Reply{
		Code: code, Enhanced: smtp.Enhanced{Class: class, Subject: subject, Detail: detail}, Text: fmt.Sprintf(format, args...),
	}
}

// Route finds the targets of a recipient. A recipient that isn't ours has status NotLocal and itself as the only
// target: whether it may be used depends on the sender. An error is a failure of the directory: answer 451.
func (r *Router) Route(ctx context.Context, req Request) (Route, error) {
	if r.keys != nil && srs.Is(req.To.Local) && r.dir.Local(req.To.Domain) {
		return r.back(ctx, req)
	}
	rules := r.dir.RuleSet()
	local, relay := r.dir.Local(req.To.Domain), rules.Relay(req.To.Domain)
	if rule := rules.Route(req.From.Address, req.To); rule != nil && !(rule.Wide() && (local || relay != nil)) {
		if route, done := r.ruled(req, rule, local, relay != nil); done {
			return route, nil
		}
	}
	if relay == nil {
		return r.resolve(ctx, req)
	}
	if local { // addresses here go before those at the next server
		if route, err := r.resolve(ctx, req); err != nil || route.Status != directory.NoMailbox {
			return route, err
		}
	}
	return r.relayed(ctx, req, relay)
}

// resolve asks the directory.
func (r *Router) resolve(ctx context.Context, req Request) (Route, error) {
	res, err := r.dir.Resolve(ctx, req.To)
	if err != nil {
		return Route{}, err
	}
	route := Route{Status: res.Status, Expanded: res.Expanded}
	if res.Status == directory.OK && !r.dir.MaySend(&res, req.From) {
		route.Refusal = refuse(550, 5, 7, 2, "<%s> takes mail from those who may send to it only", req.To) // RFC 3463, section 3.8
		route.say("a group, and the sender is none of those who may send to it")
		return route, nil
	}
	switch res.Status {
	case directory.NotLocal:
		route.Targets = []Target{{Remote: req.To, Queue: r.hop(req, req.To)}}
		if req.Explain {
			route.say("the domain is none of ours: only users of this server may send to it")
			route.sayHop(r.dir.RuleSet(), &route.Targets[0])
		}
	case directory.OK:
		err = r.expanded(ctx, req, res.Recipients, &route)
	default:
		if req.Explain {
			route.say("the domain is ours, the address stands for nothing that takes mail: " + res.Status.String())
		}
	}
	return route, err
}

// expanded gives the targets of an address of ours.
func (r *Router) expanded(ctx context.Context, req Request, list []directory.Recipient, route *Route) error {
	route.Targets = make([]Target, 0, len(list))
	for i := range list {
		if !list[i].Remote.IsNull() {
			switch rule := r.dir.RuleSet().Route(req.From.Address, list[i].Remote); {
			case rule == nil:
			case rule.Action == mailrule.ActionReject:
				route.Refusal = refuse(550, 5, 7, 1, "<%s>: %s", req.To, rule.Text)
				route.say("the route " + rule.Name + " refuses mail to <" + list[i].Remote.String() + ">, where the address leads")
				return nil
			case rule.Action == mailrule.ActionDiscard:
				route.say("the route " + rule.Name + " discards mail to <" + list[i].Remote.String() + ">")
				continue
			}
		}
		t, err := r.target(ctx, req, &list[i])
		if err != nil {
			return err
		}
		route.Targets = append(route.Targets, t)
		if route.Expanded || req.Explain {
			route.sayTarget(&t)
			route.sayHop(r.dir.RuleSet(), &t)
		}
	}
	return nil
}

// target gives one recipient of an address of ours as a target, with the sender under which it leaves.
func (r *Router) target(ctx context.Context, req Request, rc *directory.Recipient) (Target, error) {
	t := Target{Account: rc.Account, Detail: rc.Detail, Remote: rc.Remote, By: rc.By}
	if rc.Account != nil {
		t.Role = store.RoleInbox
		return t, nil
	}
	t.Queue = r.hop(req, t.Remote)
	from := req.From.Address
	switch {
	case from.IsNull():
	case !rc.Owner.IsNull():
		t.Sender = Sender{Replaced: true, Address: rc.Owner, Owner: true}
	case r.keys == nil || r.dir.Local(from.Domain):
	default:
		sender, err := r.rewrite(ctx, from, rc.By)
		if err != nil {
			return t, err
		}
		t.Sender = Sender{Replaced: true, Address: sender}
	}
	return t, nil
}

// rewrite gives the sender under which mail of another domain's goes on from an address of ours. One that is too long to be
// rewritten gives way to the address of ours itself: whoever set up the forwarding gets the failures then.
func (r *Router) rewrite(ctx context.Context, from, by address.Address) (address.Address, error) {
	set := r.dir.Settings()
	codec, err := r.keys.codec(ctx, r.clock(), set.SRSDays)
	if err != nil {
		return from, err
	}
	domain := set.SRSDomain
	if domain == "" || !r.dir.Local(domain) {
		domain = by.Domain
	}
	sender, err := codec.Forward(from, domain, r.clock())
	if errors.Is(err, srs.ErrTooLong) {
		return by, nil
	}
	return sender, err
}

// back finds who a rewritten sender stands for. Only notifications come back on that way (with the null reverse-path): an
// address that was given to the world must not become a way through this server.
func (r *Router) back(ctx context.Context, req Request) (Route, error) {
	codec, err := r.keys.codec(ctx, r.clock(), r.dir.Settings().SRSDays)
	if err != nil {
		return Route{}, err
	}
	sender, err := codec.Reverse(req.To, r.clock())
	route := Route{Status: directory.NoMailbox}
	switch {
	case errors.Is(err, srs.ErrExpired):
		route.Refusal = refuse(550, 5, 7, 1, "<%s>: mail was forwarded under this address too long ago", req.To)
	case err != nil:
		route.Refusal = refuse(550, 5, 7, 1, "<%s>: no mail was forwarded under this address", req.To)
	case !req.From.Address.IsNull():
		route.Refusal = refuse(550, 5, 7, 1, "<%s>: takes notifications of delivery only", req.To)
	}
	if route.Refusal != nil {
		route.say("an address that looks like a rewritten sender: " + route.Refusal.Text)
		return route, nil
	}
	said := fmt.Sprintf("mail was forwarded here for <%s>: the notification goes back to it", sender)
	if r.dir.Local(sender.Domain) {
		req.To = sender
		if srs.Is(sender.Local) { // two domains of ours forwarded to each other
			route, err = r.back(ctx, req)
		} else {
			route, err = r.resolve(ctx, req)
		}
	} else {
		route = Route{Status: directory.OK, Passes: true, Expanded: true, Targets: []Target{{Remote: sender, Queue: r.hop(req, sender)}}}
	}
	route.Why = append([]string{said}, route.Why...)
	return route, err
}

// maxWhy bounds the words about one recipient: a group may have a thousand members.
const maxWhy = 50

func (r *Route) say(text string) {
	if len(r.Why) < maxWhy {
		r.Why = append(r.Why, text)
	}
}

func (r *Route) sayTarget(t *Target) {
	text := ""
	if !t.By.IsNull() {
		text = "<" + t.By.String() + "> leads "
	}
	if t.Account != nil {
		text += "to the mailbox of <" + t.Account.Address.String() + ">"
	} else {
		text += "to <" + t.Remote.String() + ">"
	}
	switch {
	case t.Sender.Owner:
		text += ", under the group's owner <" + t.Sender.Address.String() + "> as sender"
	case t.Sender.Replaced:
		text += ", under the sender <" + t.Sender.Address.String() + ">"
	}
	r.say(text)
}

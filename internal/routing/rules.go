package routing

import (
	"context"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/mailrule"
	"waxwing/internal/smtp"
)

// hop is the destination under which mail for an address elsewhere is queued.
func (r *Router) hop(req Request, to address.Address) string {
	rules := r.dir.RuleSet()
	return rules.Destination(rules.Route(req.From.Address, to), to)
}

// ruled carries out the route that a recipient falls under; false when it only says where mail leaves, not what becomes of the
// recipient.
func (r *Router) ruled(req Request, rule *mailrule.Route, local, relay bool) (route Route, done bool) {
	switch rule.Action {
	case mailrule.ActionReject:
		route = Route{Status: directory.NoMailbox, Refusal: refuse(550, 5, 7, 1, "<%s>: %s", req.To, rule.Text)}
		route.say("the route " + rule.Name + " refuses it: " + rule.Text)
		return route, true
	case mailrule.ActionDiscard:
		if !local && !relay && req.From.Account == 0 && !req.From.Ours {
			return route, false // whether a stranger may send there comes first
		}
		route = Route{Status: directory.OK}
		route.say("the route " + rule.Name + " discards it")
		return route, true
	}
	if !local || notation(req.To) {
		return route, false
	}
	rules := r.dir.RuleSet()
	route = Route{Status: directory.OK, Passes: true, Targets: []Target{{Remote: req.To, Queue: rules.Destination(rule, req.To)}}}
	if req.Explain {
		route.say("the domain is ours, but a route takes its mail elsewhere")
		route.sayHop(rules, &route.Targets[0])
	}
	return route, true
}

// notation tells local parts that ask for a further hop: none is relayed (see directory.Resolve).
func notation(a address.Address) bool { return strings.ContainsAny(a.Local, "%!@") }

// relayed is the route of a recipient in a relay domain.
func (r *Router) relayed(ctx context.Context, req Request, relay *mailrule.Relay) (Route, error) {
	route := Route{Status: directory.NoMailbox}
	if notation(req.To) {
		return route, nil
	}
	switch {
	case relay.Check == mailrule.CheckList && !relay.Lists(req.To):
		route.say("mail for " + relay.Domain + " is relayed, but the address is not in the list of its recipients")
		return route, nil
	case relay.Check == mailrule.CheckAsk:
		if refusal, why := r.ask(ctx, req, relay); refusal != nil {
			route.Refusal = refusal
			route.say(why)
			return route, nil
		} else if req.Explain {
			route.say(why)
		}
	}
	route.Status, route.Passes = directory.OK, true
	route.Targets = []Target{{Remote: req.To, Queue: r.hop(req, req.To)}}
	if req.Explain {
		route.say("mail for " + relay.Domain + " is relayed")
		route.sayHop(r.dir.RuleSet(), &route.Targets[0])
	}
	return route, nil
}

// ask has the next server say whether it takes a recipient.
func (r *Router) ask(ctx context.Context, req Request, relay *mailrule.Relay) (refusal *smtp.Reply, why string) {
	if req.Explain && r.asked == nil {
		return nil, "the next server is asked whether it takes the recipient (not in this test)"
	}
	if r.asked == nil {
		return refuse(451, 4, 3, 0, "<%s>: the next server can't be asked now, try again later", req.To), "nobody can be asked"
	}
	set := r.dir.Settings()
	a := r.asked.ask(ctx, r.clock(), r.hop(req, req.To), req.To,
		time.Duration(set.RelayKnown)*time.Minute, time.Duration(set.RelayUnknown)*time.Minute)
	switch {
	case a.verdict == Taken:
		return nil, "the next server takes the recipient: " + a.words
	case a.verdict == Unknown:
		return refuse(550, 5, 1, 1, "<%s>: the next server refuses it: %s", req.To, cut(a.words)), "the next server refuses the recipient: " + a.words
	case relay.AcceptDown:
		return nil, "the next server can't be asked, and the rule takes the recipient then: " + a.words
	}
	r.log.Warn("recipient can't be checked at the next server", "to", req.To.String(), "reason", a.words)
	return refuse(451, 4, 4, 1, "<%s>: the next server can't be asked now, try again later", req.To), "the next server can't be asked: " + a.words
}

// cut makes another server's words fit into one reply.
func cut(words string) string {
	words = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, words)
	return words[:min(len(words), 200)]
}

// sayHop says which way mail for a target leaves.
func (r *Route) sayHop(rules *mailrule.Set, t *Target) {
	if t.Remote.IsNull() {
		return
	}
	switch rule, domain := rules.Find(t.Queue); {
	case rule != nil && rule.Action == mailrule.ActionRelay:
		r.say("the route " + rule.Name + " sends it to " + strings.Join(rule.Hosts, ", then "))
	case rules.Relay(domain) != nil && len(rules.Relay(domain).Hosts) > 0:
		r.say("the relay domain sends it to " + strings.Join(rules.Relay(domain).Hosts, ", then "))
	case rule != nil:
		r.say("the route " + rule.Name + " sends it to the servers of " + domain)
	}
}

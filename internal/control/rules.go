package control

import (
	"context"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/mailrule"
	"waxwing/internal/routing"
)

// Operations on the rules about the way of mail.
var (
	RelayAdd    = operation("relay.add", (*Service).relayAdd)
	RelaySet    = operation("relay.set", (*Service).relaySet)
	RelayList   = operation("relay.list", (*Service).relayList)
	RelayRemove = operation("relay.remove", (*Service).relayRemove)

	RouteAdd      = operation("route.add", (*Service).routeAdd)
	RouteSet      = operation("route.set", (*Service).routeSet)
	RouteList     = operation("route.list", (*Service).routeList)
	RouteRemove   = operation("route.remove", (*Service).routeRemove)
	JournalAdd    = operation("journal.add", (*Service).journalAdd)
	JournalSet    = operation("journal.set", (*Service).journalSet)
	JournalList   = operation("journal.list", (*Service).journalList)
	JournalRemove = operation("journal.remove", (*Service).journalRemove)

	RouteTest = operation("route.test", (*Service).routeTest)
)

// The rules, as they stand in requests, answers and documents.
type (
	Relay   = mailrule.Relay
	Route   = mailrule.Route
	Journal = mailrule.Journal
)

// RuleRef names one rule; a relay domain by its domain.
type RuleRef struct {
	Name string `json:"name"`
}

// Relays is all relay domains in order of name, Routes and Journals the same of their kinds.
type (
	Relays struct {
		Relays []Relay `json:"relays"`
	}
	Routes struct {
		Routes []Route `json:"routes"`
	}
	Journals struct {
		Journals []Journal `json:"journals"`
	}
)

func (s *Service) relayAdd(ctx context.Context, req Relay) (Relay, error) {
	return req, s.dir.SaveRelay(ctx, req, false)
}

func (s *Service) relaySet(ctx context.Context, req Relay) (Relay, error) {
	return req, s.dir.SaveRelay(ctx, req, true)
}

func (s *Service) relayList(context.Context, Done) (Relays, error) {
	return Relays{s.dir.MailRules().Relays}, nil
}

func (s *Service) relayRemove(ctx context.Context, req RuleRef) (Done, error) {
	name, err := address.ParseDomain(req.Name)
	if err != nil {
		return Done{}, addressError("name", err)
	}
	return Done{}, s.dir.RemoveRule(ctx, directory.RelayRule, name)
}

func (s *Service) routeAdd(ctx context.Context, req Route) (Route, error) {
	return req, s.dir.SaveRoute(ctx, req, false)
}

func (s *Service) routeSet(ctx context.Context, req Route) (Route, error) {
	return req, s.dir.SaveRoute(ctx, req, true)
}

func (s *Service) routeList(context.Context, Done) (Routes, error) {
	return Routes{s.dir.MailRules().Routes}, nil
}

func (s *Service) routeRemove(ctx context.Context, req RuleRef) (Done, error) {
	return Done{}, s.dir.RemoveRule(ctx, directory.RouteRule, req.Name)
}

func (s *Service) journalAdd(ctx context.Context, req Journal) (Journal, error) {
	return req, s.dir.SaveJournal(ctx, req, false)
}

func (s *Service) journalSet(ctx context.Context, req Journal) (Journal, error) {
	return req, s.dir.SaveJournal(ctx, req, true)
}

func (s *Service) journalList(context.Context, Done) (Journals, error) {
	return Journals{s.dir.MailRules().Journals}, nil
}

func (s *Service) journalRemove(ctx context.Context, req RuleRef) (Done, error) {
	return Done{}, s.dir.RemoveRule(ctx, directory.JournalRule, req.Name)
}

// RouteQuestion asks where a message would go. Nothing is sent, and no other server is asked.
type RouteQuestion struct {
	To     string `json:"to"`
	From   string `json:"from,omitempty"` // "": the null sender
	Signed bool   `json:"signed"`         // the sender has signed in
}

// RouteAnswer is where it would go, and why.
type RouteAnswer struct {
	Accepted bool        `json:"accepted"`
	Refusal  string      `json:"refusal,omitempty"` // what the sender is told
	Targets  []RouteGoal `json:"targets"`
	Why      []string    `json:"why"`
}

// RouteGoal is one place.
type RouteGoal struct {
	Mailbox string `json:"mailbox,omitempty"` // of this account
	Remote  string `json:"remote,omitempty"`  // address elsewhere
	Sender  string `json:"sender,omitempty"`  // in place of the message's
	Queue   string `json:"queue,omitempty"`   // destination that it waits under
}

func (s *Service) routeTest(ctx context.Context, req RouteQuestion) (RouteAnswer, error) {
	to, err := parseAddress("to", req.To)
	if err != nil {
		return RouteAnswer{}, err
	}
	from := directory.Sender{}
	if req.From != "" {
		if from.Address, err = parseAddress("from", req.From); err != nil {
			return RouteAnswer{}, err
		}
	}
	if req.Signed {
		a, err := s.dir.ByLogin(ctx, req.From)
		if err != nil {
			return RouteAnswer{}, err
		}
		from.Account = a.ID
	}
	router := routing.New(routing.Options{Directory: s.dir, Keys: s.store, Clock: s.clock, Logger: s.log})
	route, err := router.Route(ctx, routing.Request{To: to, From: from, Explain: true})
	if err != nil {
		return RouteAnswer{}, err
	}
	return answered(route, to, from), nil
}

func answered(route routing.Route, to address.Address, from directory.Sender) RouteAnswer {
	out := RouteAnswer{Why: route.Why, Targets: []RouteGoal{}}
	switch {
	case route.Refusal != nil:
		out.Refusal = route.Refusal.Error()
	case route.Status == directory.NotLocal && from.Account == 0:
		out.Refusal = "550 5.7.1 <" + to.String() + ">: relaying denied"
	case route.Status == directory.NoMailbox:
		out.Refusal = "550 5.1.1 <" + to.String() + ">: no such mailbox here"
	case route.Status == directory.Suspended:
		out.Refusal = "550 5.2.1 <" + to.String() + ">: mailbox disabled"
	default:
		out.Accepted = true
	}
	if !out.Accepted {
		return out
	}
	for _, t := range route.Targets {
		g := RouteGoal{Remote: t.Remote.Unicode(), Queue: t.Queue}
		if t.Account != nil {
			g = RouteGoal{Mailbox: t.Account.Address.Unicode()}
		}
		if t.Sender.Replaced {
			g.Sender = t.Sender.Address.String()
		}
		out.Targets = append(out.Targets, g)
	}
	return out
}

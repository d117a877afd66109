package control

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/queue"
	"waxwing/internal/store"
)

// Operations on what is decided about outgoing mail.
var (
	QueueRules       = operation("queue.rules", (*Service).queueRules)
	QueueLimitSet    = operation("queue.limit.set", (*Service).queueLimitSet)
	QueueLimitRemove = operation("queue.limit.remove", (*Service).queueLimitRemove)
	QueuePause       = operation("queue.pause", (*Service).queuePause)
	QueueResume      = operation("queue.resume", (*Service).queueResume)
	QueuePoolSet     = operation("queue.pool.set", (*Service).queuePoolSet)
	QueuePoolRemove  = operation("queue.pool.remove", (*Service).queuePoolRemove)
)

// OutgoingRules is all that is decided.
type OutgoingRules struct {
	Limits []QueueLimit  `json:"limits"`
	Pauses []QueuePaused `json:"pauses"`
	Pools  []QueuePool   `json:"pools"`
}

// QueueLimit is what a destination bears; 0 is as for all.
type QueueLimit struct {
	Destination   string `json:"destination"`
	Concurrency   int    `json:"concurrency"`    // connections at a time, of each node
	PerMinute     int    `json:"per_minute"`     // messages, of each node
	PerConnection int    `json:"per_connection"` // messages
}

// QueuePaused is mail that is not sent until it is resumed: to a domain, from a domain, or, when neither is given, all.
type QueuePaused struct {
	To     string    `json:"to,omitempty"`
	From   string    `json:"from,omitempty"`
	All    bool      `json:"all,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// QueuePool is local addresses that mail is sent from.
type QueuePool struct {
	Name         string       `json:"name"`
	Addresses    []PoolSource `json:"addresses"`
	Accounts     []string     `json:"accounts,omitempty"`
	Senders      []string     `json:"senders,omitempty"`
	Destinations []string     `json:"destinations,omitempty"`
	Fallback     string       `json:"fallback,omitempty"`
	Warmup       *PoolWarmup  `json:"warmup,omitempty"`
}

// PoolSource is one of them.
type PoolSource struct {
	Address string           `json:"address"`
	Name    string           `json:"name,omitempty"` // for EHLO
	Sent    map[string]int64 `json:"sent,omitempty"` // today, by provider
}

// PoolWarmup lets its addresses send more from day to day, to each provider by itself.
type PoolWarmup struct {
	Begin  time.Time `json:"begin,omitzero"` // now when it is not given
	First  int       `json:"first"`
	Growth float64   `json:"growth"`
	Until  int       `json:"until"`
	Today  int64     `json:"today"` // messages that an address may send to a provider; -1: any number. Only shown
}

// Named names a rule.
type Named struct {
	Name string `json:"name"`
}

func (s *Service) outgoingRules(ctx context.Context) (queue.Rules, error) {
	list, _, err := s.store.QueueRules(ctx)
	if err != nil {
		return queue.Rules{}, err
	}
	rules, bad := queue.ReadRules(list)
	if bad != nil {
		s.log.Error("rules of the queue can't be read", "error", bad)
	}
	return rules, nil
}

func (s *Service) queueRules(ctx context.Context, _ Done) (OutgoingRules, error) {
	rules, err := s.outgoingRules(ctx)
	if err != nil {
		return OutgoingRules{}, err
	}
	out := OutgoingRules{Limits: []QueueLimit{}, Pauses: []QueuePaused{}, Pools: []QueuePool{}}
	for _, l := range rules.Limits() {
		out.Limits = append(out.Limits, QueueLimit{l.Destination, l.Concurrency, l.PerMinute, l.PerConnection})
	}
	for _, p := range rules.Pauses() {
		shown := QueuePaused{Reason: p.Reason, Since: p.Since.UTC()}
		switch {
		case strings.HasPrefix(p.What, queue.PauseTo):
			shown.To = strings.TrimPrefix(p.What, queue.PauseTo)
		case strings.HasPrefix(p.What, queue.PauseFrom):
			shown.From = strings.TrimPrefix(p.What, queue.PauseFrom)
		default:
			shown.All = true
		}
		out.Pauses = append(out.Pauses, shown)
	}
	now := time.Now()
	sent, err := s.store.QueueSent(ctx, store.QueueDay(now))
	if err != nil {
		return OutgoingRules{}, err
	}
	for _, p := range rules.Pools() {
		shown, err := s.shownPool(ctx, p, sent, now)
		if err != nil {
			return OutgoingRules{}, err
		}
		out.Pools = append(out.Pools, shown)
	}
	return out, nil
}

func (s *Service) shownPool(ctx context.Context, p queue.Pool, sent []store.QueueSource, now time.Time) (QueuePool, error) {
	out := QueuePool{Name: p.Name, Senders: p.Senders, Destinations: p.Destinations, Fallback: p.Fallback}
	for _, src := range p.Sources {
		shown := PoolSource{Address: src.Address.String(), Name: src.Name}
		for _, x := range sent {
			if x.Address == shown.Address {
				if shown.Sent == nil {
					shown.Sent = map[string]int64{}
				}
				shown.Sent[x.Provider] = x.Messages
			}
		}
		out.Addresses = append(out.Addresses, shown)
	}
	for _, id := range p.Accounts {
		a, err := s.dir.AccountByID(ctx, store.AccountID(id))
		if err != nil { // it is gone: the rule has no effect
			continue
		}
		out.Accounts = append(out.Accounts, a.Address.Unicode())
	}
	if w := p.Warmup; w != nil {
		out.Warmup = &PoolWarmup{Begin: w.Begin.UTC(), First: w.First, Growth: w.Growth, Until: w.Until, Today: w.Allowed(now)}
	}
	return out, nil
}

// setRule checks and keeps a rule.
func (s *Service) setRule(ctx context.Context, kind, name string, rule interface{ Check() error }) (Done, error) {
	if rule != nil {
		if err := rule.Check(); err != nil {
			return Done{}, &Error{Kind: Invalid, Field: kind, Text: err.Error()}
		}
	}
	value, err := json.Marshal(rule)
	if err == nil {
		err = s.store.SetQueueRule(ctx, store.QueueRule{Kind: kind, Name: name, Value: string(value)})
	}
	if err == nil {
		s.log.Info("rule of the queue set", "kind", kind, "name", name, "value", string(value), "actor", actor(ctx))
	}
	return Done{}, err
}

func (s *Service) removeRule(ctx context.Context, kind, name string) (Done, error) {
	err := s.store.RemoveQueueRule(ctx, kind, name)
	if err == nil {
		s.log.Info("rule of the queue removed", "kind", kind, "name", name, "actor", actor(ctx))
	}
	return Done{}, err
}

func domainField(field, name string) (string, error) {
	d, err := address.ParseDomain(name)
	if err != nil {
		return "", &Error{Kind: Invalid, Field: field, Text: field + ": " + err.Error()}
	}
	return d, nil
}

func (s *Service) queueLimitSet(ctx context.Context, req QueueLimit) (Done, error) {
	d, err := domainField("destination", req.Destination)
	if err != nil {
		return Done{}, err
	}
	return s.setRule(ctx, queue.KindLimit, d, queue.Limit{
		Destination: d, Concurrency: req.Concurrency, PerMinute: req.PerMinute, PerConnection: req.PerConnection,
	})
}

func (s *Service) queueLimitRemove(ctx context.Context, req Named) (Done, error) {
	d, err := domainField("destination", req.Name)
	if err != nil {
		return Done{}, err
	}
	return s.removeRule(ctx, queue.KindLimit, d)
}

// what is the name of a pause.
func (p QueuePaused) what() (string, error) {
	switch {
	case p.All && p.To == "" && p.From == "":
		return queue.PauseAll, nil
	case !p.All && p.To != "" && p.From == "":
		d, err := domainField("to", p.To)
		return queue.PauseTo + d, err
	case !p.All && p.From != "" && p.To == "":
		d, err := domainField("from", p.From)
		return queue.PauseFrom + d, err
	}
	return "", &Error{Kind: Invalid, Field: "to", Text: "one of: a domain to send to, a domain of senders, or all"}
}

func (s *Service) queuePause(ctx context.Context, req QueuePaused) (Done, error) {
	what, err := req.what()
	if err != nil {
		return Done{}, err
	}
	if len(req.Reason) > 500 {
		return Done{}, &Error{Kind: Invalid, Field: "reason", Text: "reason: 500 octets at most"}
	}
	return s.setRule(ctx, queue.KindPause, what, queue.Pause{What: what, Reason: req.Reason, Since: time.Now().UTC()})
}

// queueResume takes a pause back, and lets go on what was put aside for it. What a crash keeps it from doing is done when it is
// asked for again.
func (s *Service) queueResume(ctx context.Context, req QueuePaused) (Changed, error) {
	what, err := req.what()
	if err != nil {
		return Changed{}, err
	}
	_, missing := s.removeRule(ctx, queue.KindPause, what)
	if missing != nil && KindOf(missing) != NotFound {
		return Changed{}, missing
	}
	var out Changed
	switch {
	case req.From != "":
		out.Recipients, err = s.store.QueueRelease(ctx, store.QueueFilter{HeldFor: what})
	case req.To != "":
		err = s.store.QueueWakeDestination(ctx, strings.TrimPrefix(what, queue.PauseTo))
	}
	if err == nil && missing != nil && out.Recipients == 0 {
		err = missing
	}
	return out, err
}

func (s *Service) queuePoolSet(ctx context.Context, req QueuePool) (Done, error) {
	p := queue.Pool{Name: req.Name, Fallback: req.Fallback}
	for _, src := range req.Addresses {
		a, err := netip.ParseAddr(src.Address)
		if err != nil {
			return Done{}, &Error{Kind: Invalid, Field: "addresses", Text: "addresses: " + src.Address + " is no IP address"}
		}
		p.Sources = append(p.Sources, queue.Source{Address: a.Unmap(), Name: src.Name})
	}
	for _, name := range req.Accounts {
		a, err := s.account(ctx, name)
		if err != nil {
			return Done{}, err
		}
		p.Accounts = append(p.Accounts, int64(a.ID))
	}
	for _, list := range []struct {
		field string
		from  []string
		to    *[]string
	}{{"senders", req.Senders, &p.Senders}, {"destinations", req.Destinations, &p.Destinations}} {
		for _, name := range list.from {
			d := name
			if d != "*" {
				var err error
				if d, err = domainField(list.field, name); err != nil {
					return Done{}, err
				}
			}
			*list.to = append(*list.to, d)
		}
	}
	if w := req.Warmup; w != nil {
		p.Warmup = &queue.Warmup{Begin: w.Begin, First: w.First, Growth: w.Growth, Until: w.Until}
		if w.Begin.IsZero() {
			p.Warmup.Begin = time.Now().UTC()
		}
	}
	if err := s.poolKnown(ctx, p.Fallback); err != nil {
		return Done{}, err
	}
	return s.setRule(ctx, queue.KindPool, p.Name, p)
}

// poolKnown refuses a fallback that isn't there.
func (s *Service) poolKnown(ctx context.Context, name string) error {
	rules, err := s.outgoingRules(ctx)
	if err != nil || name == "" {
		return err
	}
	for _, p := range rules.Pools() {
		if p.Name == name {
			return nil
		}
	}
	return &Error{Kind: Invalid, Field: "fallback", Text: "fallback: there is no pool " + name}
}

func (s *Service) queuePoolRemove(ctx context.Context, req Named) (Done, error) {
	rules, err := s.outgoingRules(ctx)
	if err != nil {
		return Done{}, err
	}
	for _, p := range rules.Pools() {
		if p.Fallback == req.Name {
			return Done{}, Errorf(Conflict, "pool %s falls back on it", p.Name)
		}
	}
	return s.removeRule(ctx, queue.KindPool, req.Name)
}

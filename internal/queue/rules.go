package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// Kinds of rules, as the store keeps them.
const (
	KindLimit = "limit"
	KindPause = "pause"
	KindPool  = "pool"
)

// Limit is what a destination bears. What is 0 is as for all.
type Limit struct {
	Destination   string `json:"-"`                        // as recipients name it
	Concurrency   int    `json:"concurrency,omitempty"`    // connections at a time, of each node
	PerMinute     int    `json:"per_minute,omitempty"`     // messages, of each node
	PerConnection int    `json:"per_connection,omitempty"` // messages
}

// Check says what is wrong with l.
func (l Limit) Check() error {
	if _, err := address.ParseDomain(l.Destination); err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	if l.Concurrency < 0 || l.Concurrency > 1000 || l.PerMinute < 0 || l.PerMinute > 1_000_000 || l.PerConnection < 0 || l.PerConnection > 10_000 {
		return errors.New("connections: 1 to 1000, messages a minute: 1 to 1000000, messages a connection: 1 to 10000; 0 for none of its own")
	}
	if l.Concurrency == 0 && l.PerMinute == 0 && l.PerConnection == 0 {
		return errors.New("a limit of at least one kind is needed")
	}
	return nil
}

// Pause keeps mail from being sent until it is taken back.
type Pause struct {
	What   string    `json:"-"` // PauseAll, or a domain behind PauseTo or PauseFrom
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// Check says what is wrong with p.
func (p Pause) Check() error {
	if p.What == "" {
		return errors.New("what is paused has no name")
	}
	return nil
}

// What is paused.
const (
	PauseAll  = "all"
	PauseTo   = "to:"   // a destination
	PauseFrom = "from:" // senders of a domain: their recipients are held when their turn comes
)

// Rules is what an administrator has decided, as the scheduler looks it up.
type Rules struct {
	limits map[string]Limit
	paused map[string]Pause
	pools  []Pool
}

// ReadRules reads rules. Those that can't be read are left out, and told.
func ReadRules(list []store.QueueRule) (Rules, error) {
	r := Rules{limits: map[string]Limit{}, paused: map[string]Pause{}}
	var bad []error
	for _, rule := range list {
		var err error
		switch rule.Kind {
		case KindLimit:
			var l Limit
			err = json.Unmarshal([]byte(rule.Value), &l)
			l.Destination = rule.Name
			r.limits[rule.Name] = l
		case KindPause:
			var p Pause
			err = json.Unmarshal([]byte(rule.Value), &p)
			p.What = rule.Name
			r.paused[rule.Name] = p // also one whose reason can't be read
		case KindPool:
			var p Pool
			if err = json.Unmarshal([]byte(rule.Value), &p); err == nil {
				p.Name = rule.Name
				r.pools = append(r.pools, p)
			}
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("queue: %s %q: %w", rule.Kind, rule.Name, err))
		}
	}
	return r, errors.Join(bad...)
}

// Limits lists the limits, by destination.
func (r Rules) Limits() []Limit {
	list := make([]Limit, 0, len(r.limits))
	for _, l := range r.limits {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b Limit) int { return strings.Compare(a.Destination, b.Destination) })
	return list
}

// Pauses lists what is paused.
func (r Rules) Pauses() []Pause {
	list := make([]Pause, 0, len(r.paused))
	for _, p := range r.paused {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Pause) int { return strings.Compare(a.What, b.What) })
	return list
}

// Pools lists the pools by name.
func (r Rules) Pools() []Pool { return r.pools }

func (r Rules) isPaused(what string) bool { _, ok := r.paused[what]; return ok }

// rulesFresh is how old rules may be that another node has changed.
const rulesFresh = 2 * time.Second

// sentFresh is how often what was sent from each address is written and read: a crash forgets what was sent since.
const sentFresh = 10 * time.Second

// refreshRules reads the rules anew when they changed. An error leaves the old ones.
func (q *Queue) refreshRules(ctx context.Context) {
	now, changed := q.o.Clock(), q.o.Store.QueueRulesChanged()
	if age := now.Sub(q.rulesAt); !q.rulesAt.IsZero() && changed == q.rulesSeen && age >= 0 && age < rulesFresh {
		return
	}
	version, err := q.o.Store.QueueRulesVersion(ctx)
	if err == nil && (q.rulesAt.IsZero() || version != q.rulesVersion) {
		var list []store.QueueRule
		if list, version, err = q.o.Store.QueueRules(ctx); err == nil {
			rules, bad := ReadRules(list)
			if bad != nil {
				q.o.Logger.Error("queue: rules can't be read", "error", bad)
			}
			q.setRules(rules)
			q.rulesVersion, q.sentAt = version, time.Time{}
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			q.o.Logger.Error("queue: rules can't be looked at", "error", err)
		}
		return
	}
	q.rulesAt, q.rulesSeen = now, changed
	if age := now.Sub(q.sentAt); q.sentAt.IsZero() || age >= sentFresh || age < 0 {
		q.syncSent(ctx, now)
		q.sentAt = now
	}
}

func (q *Queue) setRules(r Rules) {
	q.rules.Store(&r)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range q.hops { // a new limit holds at once
		h.most = 0
	}
}

// SourceCheck tells whether an address can be a source; for tests it may be on loopback.
func checkSource(a netip.Addr) error {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
		return fmt.Errorf("%s is no address to send from", a)
	}
	return nil
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/bounce"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

// Pool is local addresses that mail is sent from, and whose mail that is. An account's pool goes before one of the sender's
// domain, and that before one of the destination. A pool that names none is a fallback of others.
type Pool struct {
	Name         string   `json:"-"`
	Sources      []Source `json:"sources"`
	Accounts     []int64  `json:"accounts,omitempty"`
	Senders      []string `json:"senders,omitempty"`      // domains of reverse-paths
	Destinations []string `json:"destinations,omitempty"` // domains; "*" is all
	Fallback     string   `json:"fallback,omitempty"`     // pool that takes what this one may not send; "": it waits
	Warmup       *Warmup  `json:"warmup,omitempty"`
}

// Source is one local address.
type Source struct {
	Address netip.Addr `json:"address"`
	Name    string     `json:"name,omitempty"` // for EHLO, the server's when empty
}

// Warmup lets new addresses send more from day to day, to each provider by itself.
type Warmup struct {
	Begin  time.Time `json:"begin"`
	First  int       `json:"first"`  // messages on the first day, of each address to each provider
	Growth float64   `json:"growth"` // factor from day to day
	Until  int       `json:"until"`  // from so many on there is no limit any more
}

// Bounds of pools.
const (
	maxSources    = 100
	maxPoolRules  = 1000
	maxWarmupMail = 100_000_000
)

// Check says what is wrong with p.
func (p Pool) Check() error {
	if p.Name == "" || len(p.Name) > 60 || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return errors.New("name: 1 to 60 small letters, digits, and - _ . between them")
	}
	if len(p.Sources) == 0 || len(p.Sources) > maxSources {
		return fmt.Errorf("addresses: 1 to %d", maxSources)
	}
	for _, s := range p.Sources {
		if err := checkSource(s.Address); err != nil {
			return err
		}
		if s.Name != "" {
			if _, err := address.ParseDomain(s.Name); err != nil {
				return fmt.Errorf("EHLO name: %w", err)
			}
		}
	}
	if len(p.Accounts)+len(p.Senders)+len(p.Destinations) > maxPoolRules {
		return fmt.Errorf("accounts, senders and destinations: %d at most", maxPoolRules)
	}
	for _, d := range slices.Concat(p.Senders, p.Destinations) {
		if _, err := address.ParseDomain(d); err != nil && d != "*" {
			return err
		}
	}
	if p.Fallback == p.Name {
		return errors.New("fallback: another pool")
	}
	return p.Warmup.check()
}

func (w *Warmup) check() error {
	if w == nil {
		return nil
	}
	if w.First < 1 || w.Growth < 1.01 || w.Growth > 10 || w.Until < w.First || w.Until > maxWarmupMail {
		return fmt.Errorf("warm-up: 1 message or more on the first day, a growth of 1.01 to 10, and an end from there to %d", maxWarmupMail)
	}
	return nil
}

// Allowed is how many messages an address may send to a provider on the day of now; -1: any number.
func (w *Warmup) Allowed(now time.Time) int64 {
	if w == nil {
		return -1
	}
	days := float64(store.QueueDay(now) - store.QueueDay(w.Begin))
	n := float64(w.First) * math.Pow(w.Growth, max(0, days))
	if n >= float64(w.Until) {
		return -1
	}
	return int64(n)
}

// poolOf is the pool that the rules give a message; nil for none.
func (r *Rules) poolOf(m *store.QueueMessage, destination string) *Pool {
	sender := senderDomain(m.From)
	for _, fits := range []func(*Pool) bool{
		func(p *Pool) bool { return m.Account != 0 && slices.Contains(p.Accounts, int64(m.Account)) },
		func(p *Pool) bool { return sender != "" && slices.Contains(p.Senders, sender) },
		func(p *Pool) bool { return slices.Contains(p.Destinations, destination) },
		func(p *Pool) bool { return slices.Contains(p.Destinations, "*") },
	} {
		for i := range r.pools {
			if fits(&r.pools[i]) {
				return &r.pools[i]
			}
		}
	}
	return nil
}

func (r *Rules) pool(name string) *Pool {
	for i := range r.pools {
		if r.pools[i].Name == name {
			return &r.pools[i]
		}
	}
	return nil
}

func senderDomain(from string) string {
	at := strings.LastIndexByte(from, '@')
	return strings.ToLower(from[at+1:])
}

// sending is where a message is sent from: the zero value is as the system chooses.
type sending struct {
	pool string
	via  transport.Via
}

// chooseSource says where a message is sent from, and whether it has to wait for the next day. The address of the connection that
// is open is preferred, so that it is used again.
func (q *Queue) chooseSource(m *store.QueueMessage, destination string, open transport.Via, now time.Time) (s sending, wait bool) {
	rules := q.rules.Load()
	reuse := rules.limits[destination].PerConnection
	s.via.Reuse = reuse
	if len(rules.pools) == 0 {
		return s, false
	}
	provider := q.providerOf(destination)
	p := rules.poolOf(m, destination)
	for seen := 0; p != nil && seen < len(rules.pools); seen++ {
		if src, ok := q.sent.pick(p, provider, open, now); ok {
			return sending{p.Name, transport.Via{Name: src.Name, Address: src.Address, Reuse: reuse}}, false
		}
		if p.Fallback == "" {
			return s, true
		}
		p = rules.pool(p.Fallback)
	}
	return s, p != nil // pools that fall back on each other: it waits
}

// nextDay is when warm-up plans allow more.
func nextDay(now time.Time) time.Time { return time.Unix((store.QueueDay(now)+1)*86400, 0) }

// maxKnownProviders bounds the destinations whose provider is remembered.
const maxKnownProviders = 10_000

// learnProvider remembers who runs the servers of a destination.
func (q *Queue) learnProvider(destination, provider string) {
	if len(q.rules.Load().pools) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.providers) >= maxKnownProviders {
		clear(q.providers)
	}
	q.providers[destination] = provider
}

func (q *Queue) providerOf(destination string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p, ok := q.providers[destination]; ok {
		return p
	}
	return bounce.OtherProvider
}

// syncSent writes what was sent since the last time, and reads what all nodes have sent today.
func (q *Queue) syncSent(ctx context.Context, now time.Time) {
	if len(q.rules.Load().pools) == 0 {
		return
	}
	day, list := q.sent.drain()
	if len(list) > 0 {
		if err := q.o.Store.QueueCountSent(ctx, day, list); err != nil {
			q.sent.restore(day, list)
			q.o.Logger.Error("queue: what was sent can't be counted", "error", err)
			return
		}
	}
	today := store.QueueDay(now)
	all, err := q.o.Store.QueueSent(ctx, today)
	if err != nil {
		if ctx.Err() == nil {
			q.o.Logger.Error("queue: what was sent today can't be read", "error", err)
		}
		return
	}
	q.sent.load(today, all)
}

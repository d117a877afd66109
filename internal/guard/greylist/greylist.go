// Package greylist lets strangers show that they try again, as mail servers do and most spam programs don't (RFC 6647).
// Who is asked to is for others to say; this package remembers attempts by network, sender and recipient, and the
// networks that have shown it.
//
// It remembers in memory, within bounds, and writes what is new to the store in batches, from where another node reads it: a
// retry may come to any node. What a crash loses are seconds, and all that comes of it is one more delay.
//
//	g := greylist.New(greylist.Options{Store: st})
//	go g.Run(ctx)
//	if wait := g.Check(ctx, greylist.Attempt{Client: addr, From: from, To: to}, policy); wait > 0 { ... 451 }
package greylist

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// Store keeps the rows: *store.Store.
type Store interface {
	GreyRows(ctx context.Context, keys ...string) ([]store.GreyRow, error)
	SaveGreyRows(ctx context.Context, rows []store.GreyRow, stale time.Time) error
	ExpireGreyRows(ctx context.Context, waiting, passed time.Time) (left int64, err error)
}

// Policy is what the settings say.
type Policy struct {
	Delay time.Duration // until a retry passes
	Known time.Duration // for which a network that passed is not asked again
}

// Bounds.
const (
	Window     = 48 * time.Hour // within which a retry must come
	again      = 24 * time.Hour // after which the use of a known network is written anew
	maxEntries = 65_536         // in memory, twice
	maxFresh   = 20_000         // that wait to be written
	maxOfOne   = 500            // the same of one network
	maxRows    = 2_000_000      // in the store: beyond, new attempts are remembered in memory alone
)

// Attempt is one recipient of one message.
type Attempt struct {
	Client   netip.Addr
	From, To address.Address
}

// Options of a List. Store is needed.
type Options struct {
	Store  Store
	Clock  func() time.Time // time.Now when nil
	Logger *slog.Logger     // discarded when nil
	Lead   func() bool      // whether this node expires rows; always when nil
	Policy func() Policy    // for the expiry
}

// List remembers attempts. It is safe for concurrent use.
type List struct {
	opts Options

	mu       sync.Mutex
	new, old map[string]*entry // two generations, the older is dropped when the newer is full
	fresh    map[string]*entry // to be written
	ofOne    map[string]int    // fresh ones by network
	full     bool              // the store holds maxRows
}

type entry struct {
	first, last, passed time.Time
}

// New gives a List that has nothing in memory.
func New(o Options) *List {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &List{opts: o, new: map[string]*entry{}, fresh: map[string]*entry{}, ofOne: map[string]int{}}
}

// keys of an attempt: itself, its network, and its network with the sender's domain.
type keys struct{ attempt, network, domain string }

func (a Attempt) keys() keys {
	network := Network(a.Client).String()
	return keys{
		attempt: key("attempt", network, normal(a.From), a.To.Key()),
		network: key("network", network),
		domain:  key("domain", network, a.From.Domain),
	}
}

// key hashes what a row is about, so that the table tells nobody who writes to whom.
func key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:15])
}

// Network is what counts as one client: a /24 of IPv4, a /64 of IPv6.
func Network(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // the zero Prefix for no address
	return p
}

// Check tells how long an attempt has to wait still; 0 is that it may pass.
func (g *List) Check(ctx context.Context, a Attempt, p Policy) time.Duration {
	k, now := a.keys(), g.opts.Clock()
	if g.known(k, now, p) {
		return 0
	}
	// Another node, or this one before it was started anew, may have seen it. When the store can't be asked, what is in
	// memory counts: a stranger waits, and passes in the end.
	rows, err := g.opts.Store.GreyRows(ctx, k.attempt, k.network, k.domain)
	if err != nil {
		g.opts.Logger.Warn("greylisting works from memory alone", "error", err)
	}
	g.mu.Lock()
	for _, r := range rows {
		g.adopt(r)
	}
	g.mu.Unlock()
	if g.known(k, now, p) {
		return 0
	}
	return g.attempt(k, now, p)
}

// Remembers tells whether a client's network is known to this node to try again, without asking the store.
func (g *List) Remembers(client netip.Addr, p Policy) bool {
	k := Attempt{Client: client}.keys()
	k.domain = ""
	return g.known(k, g.opts.Clock(), p)
}

// known tells whether the network, by itself or with this sender's domain, has passed lately.
func (g *List) known(k keys, now time.Time, p Policy) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, key := range []string{k.network, k.domain} {
		e := g.get(key)
		if e == nil || e.passed.IsZero() || now.Sub(e.passed) > p.Known {
			continue
		}
		if now.Sub(e.passed) > again {
			e.last, e.passed = now, now
			g.save(key, k.network, e)
		}
		return true
	}
	return false
}

// attempt counts one, and tells how long it has to wait still.
func (g *List) attempt(k keys, now time.Time, p Policy) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.get(k.attempt)
	switch {
	case e == nil, now.Sub(e.first) > Window, e.first.After(now): // the last: the clock was set back
		e = &entry{first: now}
		g.put(k.attempt, e)
	case now.Sub(e.first) >= p.Delay:
		e.last, e.passed = now, now
		g.save(k.attempt, k.network, e)
		g.pass(k.network, k.network, now)
		return 0
	}
	e.last = now
	g.save(k.attempt, k.network, e)
	return p.Delay - now.Sub(e.first)
}

// Delivered notes that a client has delivered a message that nothing spoke against: its network is known for that sender's
// domain.
func (g *List) Delivered(client netip.Addr, from address.Address) {
	if from.IsNull() {
		return
	}
	k, now := Attempt{Client: client, From: from}.keys(), g.opts.Clock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.get(k.domain); e == nil || now.Sub(e.passed) > again || e.passed.After(now) {
		g.pass(k.domain, k.network, now)
	}
}

// pass is called with the lock held.
func (g *List) pass(key, network string, now time.Time) {
	e := &entry{first: now, last: now, passed: now}
	g.put(key, e)
	g.save(key, network, e)
}

// adopt takes over what the store knows. It is called with the lock held.
func (g *List) adopt(r store.GreyRow) {
	e := g.get(r.Key)
	if e == nil {
		e = &entry{first: r.First, last: r.Last, passed: r.Passed}
		g.put(r.Key, e)
		return
	}
	if r.First.Before(e.first) {
		e.first = r.First
	}
	if r.Passed.After(e.passed) {
		e.passed = r.Passed
	}
}

// get is called with the lock held.
func (g *List) get(key string) *entry {
	if e := g.new[key]; e != nil {
		return e
	}
	e := g.old[key]
	if e != nil {
		g.put(key, e)
	}
	return e
}

// put is called with the lock held.
func (g *List) put(key string, e *entry) {
	if len(g.new) >= maxEntries {
		g.old, g.new = g.new, make(map[string]*entry)
	}
	g.new[key] = e
}

// save has an entry written with the next batch. What is over the bounds stays in memory alone: it may have to wait once
// more. It is called with the lock held.
func (g *List) save(key, network string, e *entry) {
	if _, waits := g.fresh[key]; waits {
		g.fresh[key] = e
		return
	}
	if len(g.fresh) >= maxFresh || e.passed.IsZero() && (g.full || g.ofOne[network] >= maxOfOne) {
		return
	}
	g.fresh[key] = e
	g.ofOne[network]++
}

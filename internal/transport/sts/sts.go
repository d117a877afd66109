// Package sts finds the MTA-STS policies of other domains (RFC 8461), fetches them over HTTPS, and keeps them in the store
// for as long as they say: so a policy holds on through failures of the domain's DNS or web server, by which an attacker
// would otherwise be rid of it. Policies in use are fetched anew before they end.
//
// What policies mean for a connection is for package transport to say.
//
//	p, err := sts.New(sts.Options{Store: st, Resolver: resolver})
//	go p.Run(ctx)
//	policy, err := p.Policy(ctx, "example.org")
package sts

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"waxwing/internal/cache"
	"waxwing/internal/dns"
	"waxwing/internal/mtasts"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

const (
	memory      = 8 << 20          // octets of policies and of their absence in memory
	lookAgain   = 10 * time.Minute // when another node may have fetched what isn't known here
	failedWait  = 5 * time.Minute  // before a fetch that failed is tried again
	refreshAge  = 24 * time.Hour   // RFC 8461, section 5.1, advises to look from time to time
	unusedAge   = 31 * 24 * time.Hour
	round       = time.Hour // of what Run does
	maxRefresh  = 5000      // policies fetched anew in one round
	maxTouched  = 10_000
	refreshJobs = 4
)

// Store is what is kept; *store.Store is one.
type Store interface {
	STSPolicy(ctx context.Context, domain string) (store.STSPolicy, bool, error)
	SetSTSPolicy(ctx context.Context, p store.STSPolicy) error
	UsedSTSPolicies(ctx context.Context, domains []string, at time.Time) error
	OldSTSPolicies(ctx context.Context, before time.Time, limit int) ([]store.STSPolicy, error)
	DropSTSPolicies(ctx context.Context, now, unused time.Time) error
	WhileLeading(ctx context.Context) (context.Context, context.CancelFunc)
}

// Resolver is what is asked of the DNS; *dns.Resolver is one.
type Resolver interface {
	TXT(ctx context.Context, name string) (dns.Texts, error)
	IP(ctx context.Context, host string) (dns.IPs, error)
}

// Options of Policies. Store and Resolver are needed.
type Options struct {
	Store    Store
	Resolver Resolver
	RootCAs  *x509.CertPool // nil: those of the system
	Port     int            // of web servers, default 443
	Private  bool           // lets web servers have addresses that are not on the public Internet
	Clock    func() time.Time
	Logger   *slog.Logger
}

// Policies finds and keeps. It is safe for concurrent use.
type Policies struct {
	o       Options
	fetcher *fetcher
	known   *cache.Cache[string, *known]
	flights singleflight.Group

	mu      sync.Mutex // guards what follows
	touched map[string]bool
}

// known is what this process knows of a domain. Its fields do not change.
type known struct {
	row    store.STSPolicy
	policy mtasts.Policy
	found  bool      // there is a row, and it can be read
	read   time.Time // from the store

	failed time.Time // the last fetch, when it failed
	fail   *fetchError
	failID string // of the record then
}

// New makes Policies.
func New(o Options) (*Policies, error) {
	if o.Store == nil || o.Resolver == nil {
		return nil, errors.New("sts: a store and a resolver are needed")
	}
	if o.Port == 0 {
		o.Port = 443
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Policies{o: o, known: cache.New[string, *known](memory), touched: map[string]bool{}}
	p.fetcher = newFetcher(&p.o)
	return p, nil
}

// Policy gives the policy that holds for a domain now: the one that is kept, unless the domain's record says that there is
// a newer one. An error means that nothing is kept and nobody could say whether there is a record.
func (p *Policies) Policy(ctx context.Context, domain string) (transport.STSPolicy, error) {
	now := p.o.Clock()
	k, err := p.look(ctx, domain, now)
	if err != nil {
		return transport.STSPolicy{}, err
	}
	valid := k.found && now.Before(k.row.Expires)
	texts, err := p.o.Resolver.TXT(ctx, "_mta-sts."+domain)
	id := ""
	if err == nil {
		id, err = mtasts.ParseRecord(texts.Texts)
	}
	switch {
	case valid && (err != nil || id == k.row.ID): // a record that is gone or can't be had ends no policy: section 5.1
		p.touch(k, now)
		return transport.STSPolicy{Policy: k.policy, Found: true}, nil
	case err != nil && dns.Temporary(err) && !errors.Is(err, mtasts.ErrNoRecord):
		return transport.STSPolicy{}, err
	case err != nil:
		return transport.STSPolicy{}, nil
	}
	fresh := p.renew(ctx, domain, id, k, now)
	switch {
	case fresh.found && now.Before(fresh.row.Expires):
		return transport.STSPolicy{Policy: fresh.policy, Found: true}, nil
	case fresh.fail != nil:
		return transport.STSPolicy{Problem: fresh.fail.kind}, nil
	}
	return transport.STSPolicy{}, nil
}

// look gives what is known of a domain, from memory or the store.
func (p *Policies) look(ctx context.Context, domain string, now time.Time) (*known, error) {
	k, ok := p.known.Get(domain)
	if ok {
		age := now.Sub(k.read)
		if age >= 0 && (age < lookAgain || k.found && now.Before(k.row.Expires)) {
			return k, nil
		}
	}
	fresh := &known{read: now}
	if ok {
		fresh.failed, fresh.fail, fresh.failID = k.failed, k.fail, k.failID
	}
	if err := p.load(ctx, domain, fresh); err != nil {
		return nil, err
	}
	p.remember(domain, fresh)
	return fresh, nil
}

// load reads the row of a domain.
func (p *Policies) load(ctx context.Context, domain string, k *known) error {
	row, found, err := p.o.Store.STSPolicy(ctx, domain)
	if err != nil || !found {
		return err
	}
	policy, err := mtasts.ParsePolicy(row.Body)
	if err != nil {
		p.o.Logger.Error("sts: a policy that is kept can't be read, it is fetched anew", "domain", domain, "error", err)
		return nil
	}
	k.row, k.policy, k.found = row, policy, true
	return nil
}

func (p *Policies) remember(domain string, k *known) {
	p.known.Put(domain, k, int64(len(domain)+2*len(k.row.Body)+400))
}

// renew fetches the policy of a domain whose record has another id than what is known; another node may have done so.
// Those who ask at the same time wait for one fetch. It ends by itself when they all give up.
func (p *Policies) renew(ctx context.Context, domain, id string, k *known, now time.Time) *known {
	if k.fail != nil && k.failID == id && now.Sub(k.failed) < failedWait && !now.Before(k.failed) {
		return k
	}
	done := p.flights.DoChan(domain, func() (any, error) {
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
		defer cancel()
		return p.fetch(fctx, domain, id, k), nil
	})
	select {
	case r := <-done:
		return r.Val.(*known)
	case <-ctx.Done():
		return &known{found: k.found, row: k.row, policy: k.policy, fail: &fetchError{failFetch, ctx.Err()}}
	}
}

// fetch fetches the policy of a domain and keeps it. When that fails, what was known goes on to hold.
func (p *Policies) fetch(ctx context.Context, domain, id string, k *known) *known {
	now := p.o.Clock()
	next := &known{read: now}
	if err := p.load(ctx, domain, next); err == nil && next.found && next.row.ID == id && now.Before(next.row.Expires) && next.row.Fetched.After(k.row.Fetched) {
		p.remember(domain, next)
		return next
	}
	policy, err := p.fetcher.fetch(ctx, domain)
	if err != nil {
		next.row, next.policy, next.found = k.row, k.policy, k.found
		next.failed, next.failID = now, id
		if !errors.As(err, &next.fail) {
			next.fail = &fetchError{failFetch, err}
		}
		p.o.Logger.Warn("sts: the policy of a domain can't be fetched", "domain", domain, "kind", next.fail.kind, "error", err, "kept", k.found && now.Before(k.row.Expires))
		p.remember(domain, next)
		return next
	}
	row := store.STSPolicy{Domain: domain, ID: id, Body: policy.String(), Fetched: now, Expires: now.Add(policy.Age), Used: now}
	next = &known{row: row, policy: policy, found: true, read: now}
	if err := p.o.Store.SetSTSPolicy(ctx, row); err != nil {
		p.o.Logger.Error("sts: a policy can't be kept", "domain", domain, "error", err)
	}
	p.o.Logger.Info("sts: policy fetched", "domain", domain, "mode", policy.Mode, "mx", policy.MX, "max_age", policy.Age)
	p.remember(domain, next)
	return next
}

// touch notes, once a day, that a policy is in use.
func (p *Policies) touch(k *known, now time.Time) {
	if now.Sub(k.row.Used) < 24*time.Hour {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.touched) < maxTouched {
		p.touched[k.row.Domain] = true
	}
}

// Run keeps what is in use up to date until ctx ends.
func (p *Policies) Run(ctx context.Context) {
	tick := time.NewTicker(round)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.keepHouse(context.WithoutCancel(ctx), false)
			return
		case <-tick.C:
			p.keepHouse(ctx, true)
		}
	}
}

// keepHouse writes down what was used and, on the node that leads, drops what has ended and fetches anew what is old.
func (p *Policies) keepHouse(ctx context.Context, all bool) {
	p.mu.Lock()
	var used []string
	for d := range p.touched {
		used = append(used, d)
	}
	clear(p.touched)
	p.mu.Unlock()
	now := p.o.Clock()
	var err error
	if len(used) > 0 {
		err = p.o.Store.UsedSTSPolicies(ctx, used, now)
		for _, d := range used {
			p.known.Drop(d) // what is in memory has the day before
		}
	}
	if all && err == nil {
		lead, done := p.o.Store.WhileLeading(ctx)
		if lead.Err() == nil {
			err = p.refresh(lead, now)
		}
		done()
	}
	if err != nil && ctx.Err() == nil {
		p.o.Logger.Error("sts: policies can't be looked after, it is tried again", "error", err)
	}
}

// refresh fetches policies anew that were fetched a day ago or earlier. The id of the record may be the same as before:
// the new fetch makes the policy last longer.
func (p *Policies) refresh(ctx context.Context, now time.Time) error {
	if err := p.o.Store.DropSTSPolicies(ctx, now, now.Add(-unusedAge)); err != nil {
		return err
	}
	old, err := p.o.Store.OldSTSPolicies(ctx, now.Add(-refreshAge), maxRefresh)
	if err != nil {
		return err
	}
	jobs := make(chan store.STSPolicy)
	var wg sync.WaitGroup
	for range refreshJobs {
		wg.Go(func() {
			for row := range jobs {
				p.refreshOne(ctx, row)
			}
		})
	}
	for _, row := range old {
		if ctx.Err() != nil {
			break
		}
		jobs <- row
	}
	close(jobs)
	wg.Wait()
	return nil
}

func (p *Policies) refreshOne(ctx context.Context, row store.STSPolicy) {
	texts, err := p.o.Resolver.TXT(ctx, "_mta-sts."+row.Domain)
	if err != nil {
		return // without a record the policy holds to its end
	}
	id, err := mtasts.ParseRecord(texts.Texts)
	if err != nil {
		return
	}
	policy, err := p.fetcher.fetch(ctx, row.Domain)
	if err != nil {
		p.o.Logger.Warn("sts: the policy of a domain can't be fetched anew", "domain", row.Domain, "until", row.Expires, "error", err)
		return
	}
	now := p.o.Clock()
	row.ID, row.Body, row.Fetched, row.Expires = id, policy.String(), now, now.Add(policy.Age)
	if err := p.o.Store.SetSTSPolicy(ctx, row); err != nil {
		p.o.Logger.Error("sts: a policy can't be kept", "domain", row.Domain, "error", err)
		return
	}
	p.remember(row.Domain, &known{row: row, policy: policy, found: true, read: now})
}

package dnslist

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Why a list is off. None of the texts names the zone, which may hold a key.
var (
	errDead     = errors.New("it does not answer")
	errForeign  = errors.New("it answers with addresses outside of 127.0.0.0/8: the domain is no list any more")
	errRefuses  = errors.New("it refuses to answer this server's resolver (127.255.255.x)")
	errAll      = errors.New("it lists what no list may: it answers everything")
	errNothing  = errors.New("it does not list its own test entry")
	errUnproved = errors.New("it was not tried yet")
)

// The rhythm of the proofs.
const (
	maxFailures  = 5 // questions in a row without an answer
	proveEvery   = time.Hour
	firstRetry   = time.Minute
	maxRetry     = time.Hour
	proofTimeout = 10 * time.Second
	maxStep      = 10 * time.Minute // between two looks, so that a clock that is set doesn't stop the proofs
)

// state is a list with what is known of it.
type state struct {
	List
	proved chan struct{} // closed after the first proof

	mu       sync.Mutex
	tried    bool
	off      error // why it isn't asked
	failures int
	retry    time.Duration
	next     time.Time // of the next proof
	since    time.Time // of off
}

// usable waits for the first proof of a list and tells whether to ask it.
func (s *state) usable(ctx context.Context) bool {
	select {
	case <-s.proved:
	case <-ctx.Done():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.off == nil
}

func (s *state) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = 0
}

// failed counts a question without an answer, and switches the list off when it is no use to ask on.
func (c *Checker) failed(s *state, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	if s.off != nil || errors.Is(why, errDead) && s.failures < maxFailures {
		return
	}
	c.switchOff(s, why)
}

// switchOff is called with the lock of s held.
func (c *Checker) switchOff(s *state, why error) {
	if s.off == nil || s.off.Error() != why.Error() {
		c.opts.Logger.Warn("DNS list is switched off, it is tried again later", "list", s.Name, "reason", why.Error())
	}
	now := c.opts.Clock()
	if s.off == nil {
		s.since, s.retry = now, firstRetry
	} else {
		s.retry = min(2*s.retry, maxRetry)
	}
	s.off, s.next = why, now.Add(s.retry)
}

// Run proves the lists, new ones at once and each from time to time, until ctx ends.
func (c *Checker) Run(ctx context.Context) {
	for {
		wait := c.ProveDue(ctx)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-c.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// ProveDue proves the lists whose time has come, and tells how long the next one has time.
func (c *Checker) ProveDue(ctx context.Context) time.Duration {
	c.mu.RLock()
	lists := c.lists
	c.mu.RUnlock()
	var wg sync.WaitGroup
	for _, s := range lists {
		s.mu.Lock()
		now := c.opts.Clock()
		due := !s.tried || !now.Before(s.next) || s.next.Sub(now) > maxRetry // the clock was set back
		s.mu.Unlock()
		if due {
			wg.Go(func() { c.prove(ctx, s) })
		}
	}
	wg.Wait()
	wait := maxStep
	for _, s := range lists {
		s.mu.Lock()
		wait = min(wait, s.next.Sub(c.opts.Clock()))
		s.mu.Unlock()
	}
	return max(wait, time.Second)
}

// prove tries a list by the entries that RFC 5782, section 5, asks for.
func (c *Checker) prove(ctx context.Context, s *state) {
	why := c.tryOut(ctx, s.List)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if why != nil {
		c.switchOff(s, why)
	} else {
		if s.off != nil {
			c.opts.Logger.Warn("DNS list is in use again", "list", s.Name)
		}
		s.off, s.failures, s.next = nil, 0, c.opts.Clock().Add(proveEvery)
	}
	if !s.tried {
		s.tried = true
		close(s.proved)
	}
}

var (
	mustList    = netip.AddrFrom4([4]byte{127, 0, 0, 2})
	mustNotList = netip.AddrFrom4([4]byte{127, 0, 0, 1})
)

const mustNotListDomain = "invalid"

func (c *Checker) tryOut(ctx context.Context, l List) error {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	good, bad := reversed(mustList), reversed(mustNotList)
	if l.Of != Address {
		good, bad = l.Probe, mustNotListDomain
	}
	answer, err := c.question(ctx, bad+"."+l.Zone)
	switch {
	case err != nil:
		return err
	case len(answer) > 0:
		return errAll
	}
	answer, err = c.question(ctx, good+"."+l.Zone)
	switch {
	case err != nil:
		return err
	case len(answer) == 0:
		return errNothing
	}
	return nil
}

// Status is what is known of one list.
type Status struct {
	List  List
	Off   string    // why it isn't asked, "" when it is
	Since time.Time // of Off
	Next  time.Time // when it is tried again
}

// Status tells of all lists.
func (c *Checker) Status() []Status {
	c.mu.RLock()
	lists := c.lists
	c.mu.RUnlock()
	out := make([]Status, len(lists))
	for i, s := range lists {
		s.mu.Lock()
		out[i] = Status{List: s.List, Since: s.since, Next: s.next}
		switch {
		case !s.tried:
			out[i].Off = errUnproved.Error()
		case s.off != nil:
			out[i].Off = s.off.Error()
		}
		s.mu.Unlock()
	}
	return out
}

// Tried is what one list says when it is asked by hand.
type Tried struct {
	List    List
	Fault   string // why the list isn't to be used, "" when it is sound
	Listing *Listing
	Text    string
	Failed  string // why there is no answer
}

// Try asks one list about an address or a domain, and proves it, whether it is in use or not.
func (c *Checker) Try(ctx context.Context, l List, a netip.Addr, domain string) Tried {
	out := Tried{List: l}
	if err := c.tryOut(ctx, l); err != nil {
		out.Fault = err.Error()
	}
	name := domain
	if a.IsValid() {
		name = reversed(a)
	}
	ctx, cancel := context.WithTimeout(ctx, l.Timeout)
	defer cancel()
	query := name + "." + l.Zone
	answer, err := c.question(ctx, query)
	if err != nil {
		out.Failed = err.Error()
		return out
	}
	if weight, ok := l.weigh(answer); ok {
		out.Listing = &Listing{List: l.Name, Allow: l.Allow, Weight: weight, Answer: texts(answer), query: query}
		out.Text = c.Explain(ctx, *out.Listing)
	}
	return out
}

package auth

import (
	"context"
	"hash/maphash"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"waxwing/internal/directory"
)

// ThrottleOptions say how failures slow down further tries; the zero value serves.
type ThrottleOptions struct {
	Free    int                   // failures without delay; 5 when 0
	Step    time.Duration         // first delay, doubled with each failure; 1 s when 0
	MaxStep time.Duration         // longest delay between two tries; 5 min when 0
	MaxWait time.Duration         // a try that would wait longer is refused with ErrThrottled; 10 s when 0
	Forget  time.Duration         // a pair without tries for so long is new again; 1 h when 0
	Pairs   int                   // pairs remembered; 65,536 when 0
	Exempt  func(netip.Addr) bool // addresses that are never slowed down; may be nil
}

// throttle slows down those who guess passwords. It counts by pairs of network (/24 or /64) and account: an attacker
// elsewhere never slows down the owner, and no account can be locked from afar. Tries of one pair are given slots in
// time, one after another, so that many connections at once gain nothing. The time spent waiting is the session's;
// whoever would wait too long is refused without the password being looked at.
type throttle struct {
	opts  ThrottleOptions
	clock func() time.Time
	seed  maphash.Seed

	mu       sync.Mutex
	new, old map[pairKey]*pair // two generations, the older is dropped when the newer is full
}

type pairKey struct {
	network netip.Addr
	account uint64
}

type pair struct {
	failures int
	pending  int       // tries that are under way
	next     time.Time // when the next delayed try may begin
	last     time.Time
}

// burst is how many tries of a pair without failures may be under way at once: what one person's clients open.
const burst = 20

func newThrottle(o ThrottleOptions, clock func() time.Time) *throttle {
	if o.Free <= 0 {
		o.Free = 5
	}
	if o.Step <= 0 {
		o.Step = time.Second
	}
	if o.MaxStep <= 0 {
		o.MaxStep = 5 * time.Minute
	}
	if o.MaxWait <= 0 {
		o.MaxWait = 10 * time.Second
	}
	if o.Forget <= 0 {
		o.Forget = time.Hour
	}
	if o.Pairs <= 0 {
		o.Pairs = 1 << 16
	}
	return &throttle{opts: o, clock: clock, seed: maphash.MakeSeed()}
}

// pairName names the account of a pair: aliases of one account count together, and unknown names like known ones.
func pairName(acct directory.Account, login string) string {
	if acct.ID != 0 {
		return "\x00" + strconv.FormatInt(int64(acct.ID), 10)
	}
	return strings.ToLower(login)
}

// network is what one peer easily has many addresses of.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}

// try is one attempt that was let through; exactly one of its methods is called.
type try struct {
	t *throttle
	k pairKey
	p *pair
}

// begin waits for the turn of an attempt. ErrThrottled when that would take too long, or the error of the context.
func (t *throttle) begin(ctx context.Context, remote netip.Addr, account string) (*try, error) {
	if t.opts.Exempt != nil && t.opts.Exempt(remote) {
		return nil, nil
	}
	k := pairKey{network(remote), maphash.String(t.seed, account)}
	wait, p := t.enter(k)
	if p == nil {
		return nil, ErrThrottled
	}
	tr := &try{t: t, k: k, p: p}
	if wait <= 0 {
		return tr, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return tr, nil
	case <-ctx.Done():
		tr.cancel()
		return nil, ctx.Err()
	}
}

// enter counts an attempt as under way and tells how long it waits; a nil pair is a refusal.
func (t *throttle) enter(k pairKey) (time.Duration, *pair) {
	now := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.find(k, now)
	p.last = now
	counted := p.failures + p.pending
	if p.failures == 0 && p.pending < burst || counted < t.opts.Free {
		p.pending++
		return 0, p
	}
	slot := now
	if p.next.After(slot) {
		slot = p.next
	}
	wait := slot.Sub(now)
	if wait > t.opts.MaxWait {
		return 0, nil
	}
	p.pending++
	p.next = slot.Add(t.delay(counted))
	return wait, p
}

// find gives the pair, fresh when it was forgotten.
func (t *throttle) find(k pairKey, now time.Time) *pair {
	p, ok := t.new[k]
	if !ok {
		if p, ok = t.old[k]; !ok {
			p = &pair{}
		}
		if len(t.new) >= max(t.opts.Pairs/2, 1) {
			t.old, t.new = t.new, nil
		}
		if t.new == nil {
			t.new = make(map[pairKey]*pair)
		}
		t.new[k] = p
	}
	if p.pending == 0 && now.Sub(p.last) > t.opts.Forget {
		*p = pair{}
	}
	return p
}

// delay is how far apart tries are after so many failures.
func (t *throttle) delay(failures int) time.Duration {
	d := t.opts.Step
	for i := t.opts.Free; i < failures && d < t.opts.MaxStep; i++ {
		d *= 2
	}
	return min(d, t.opts.MaxStep)
}

func (t *throttle) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.new) + len(t.old)
}

// failed counts a wrong password.
func (tr *try) failed() {
	if tr == nil {
		return
	}
	t := tr.t
	now := t.clock()
	t.mu.Lock()
	defer t.mu.Unlock()
	p := tr.p
	p.pending--
	p.failures++
	p.last = now
	if p.failures >= t.opts.Free {
		if after := now.Add(t.delay(p.failures)); after.After(p.next) {
			p.next = after
		}
	}
}

// succeeded forgives the pair's failures.
func (tr *try) succeeded() {
	if tr == nil {
		return
	}
	tr.t.mu.Lock()
	defer tr.t.mu.Unlock()
	tr.p.pending--
	tr.p.failures = 0
	tr.p.next = time.Time{}
}

// cancel ends an attempt that wasn't decided.
func (tr *try) cancel() {
	if tr == nil {
		return
	}
	tr.t.mu.Lock()
	defer tr.t.mu.Unlock()
	tr.p.pending--
}

package stranger

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/guard"
	"waxwing/internal/guard/greylist"
	"waxwing/internal/smtp"
)

// Probing keeps strangers from finding out the addresses of this server by trying them. It counts recipients that don't
// exist by address and network, over sessions; a message that is taken makes up for one, since lists with dead addresses
// are normal. First answers get slower; over the limit every recipient is deferred, so that those that exist can't be told
// from the others.
type Probing struct {
	clock func() time.Time
	limit func() int // unknown recipients of an address, 0: none

	mu       sync.Mutex
	new, old map[netip.Prefix]*count // two generations, the older is dropped when the newer is full
}

// count decays: after halfLife half of it is left.
type count struct {
	unknown float64
	at      time.Time
}

const (
	halfLife   = time.Hour
	maxCounts  = 32_768          // in memory, twice
	ofNetwork  = 5               // limits of an address that its network may use
	slowAt     = 4               // answers get slower from the limit's fourth part on
	slowStep   = time.Second / 2 // with each recipient more
	slowest    = 10 * time.Second
	endSession = 2 // limits of deferred recipients in one session before it ends
)

// NewProbing gives a Probing with a limit that may change.
func NewProbing(clock func() time.Time, limit func() int) *Probing {
	if clock == nil {
		clock = time.Now
	}
	return &Probing{clock: clock, limit: limit, new: map[netip.Prefix]*count{}}
}

// Check is the link of the guard's chain.
func (p *Probing) Check() guard.Check {
	return guard.Check{Name: "probing", Stages: map[guard.Stage]guard.Func{
		guard.Rcpt: p.rcpt, guard.Recipient: p.recipient, guard.Message: p.message,
	}}
}

func (p *Probing) rcpt(_ context.Context, v *guard.Visitor) guard.Verdict {
	limit := p.limit()
	if limit <= 0 || !isStranger(v) || directory.IsRole(v.To) {
		return guard.Verdict{}
	}
	n := math.Round(p.level(v.Remote.Addr()))
	switch {
	case n >= float64(limit) && v.Refused >= endSession*limit:
		return guard.Refuse(smtp.Errorf(421, "4.7.1", "too many unknown recipients from your address, closing the connection"),
			fmt.Sprintf("%d refused recipients in a session of a client that probes for addresses", v.Refused))
	case n >= float64(limit):
		return guard.Refuse(smtp.Errorf(450, "4.7.1", "too many unknown recipients from your address, try again later"),
			fmt.Sprintf("%.0f unknown recipients lately, the limit is %d", n, limit))
	}
	if over := n - float64(limit)/slowAt; over > 0 {
		return guard.Wait(min(time.Duration(math.Ceil(over))*slowStep, slowest), fmt.Sprintf("%.0f unknown recipients lately", n))
	}
	return guard.Verdict{}
}

func (p *Probing) recipient(_ context.Context, v *guard.Visitor) guard.Verdict {
	if v.Unknown() && isStranger(v) {
		p.add(v.Remote.Addr(), 1)
	}
	return guard.Verdict{}
}

func (p *Probing) message(_ context.Context, v *guard.Visitor) guard.Verdict {
	if v.Outcome == nil && isStranger(v) {
		p.add(v.Remote.Addr(), -1)
	}
	return guard.Verdict{}
}

// level is the count of an address, or that of its network on the scale of one address, whichever is more.
func (p *Probing) level(a netip.Addr) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	return max(p.get(netip.PrefixFrom(a, a.BitLen())).now(now), p.get(greylist.Network(a)).now(now)/ofNetwork)
}

func (p *Probing) add(a netip.Addr, n float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	for _, key := range []netip.Prefix{netip.PrefixFrom(a, a.BitLen()), greylist.Network(a)} {
		c := p.get(key)
		if c == nil {
			if n < 0 {
				continue
			}
			c = &count{}
			p.put(key, c)
		}
		c.unknown, c.at = max(0, c.now(now)+n), now
	}
}

// now is what is left of a count. A clock that was set back leaves it as it is.
func (c *count) now(now time.Time) float64 {
	if c == nil {
		return 0
	}
	return c.unknown * math.Exp2(-max(0, now.Sub(c.at).Hours())/halfLife.Hours())
}

// get is called with the lock held.
func (p *Probing) get(key netip.Prefix) *count {
	c := p.new[key]
	if c == nil {
		if c = p.old[key]; c != nil {
			p.put(key, c)
		}
	}
	return c
}

// put is called with the lock held.
func (p *Probing) put(key netip.Prefix, c *count) {
	if len(p.new) >= maxCounts {
		p.old, p.new = p.new, make(map[netip.Prefix]*count)
	}
	p.new[key] = c
}

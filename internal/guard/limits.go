package guard

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/smtp"
)

// Limits is the check of what an address, a network, a sender and a recipient may do within a time. The limits are
// settings; the default of each is far above what honest mail does.
type Limits struct {
	settings Settings
	rates    *Rates
	open     counts
}

// rateSubjects is how many subjects the limits remember, about 24 MiB.
const rateSubjects = 400_000

// NewLimits gives the check.
func NewLimits(settings Settings, clock func() time.Time) *Limits {
	return &Limits{settings: settings, rates: NewRates(rateSubjects, clock)}
}

// Check is the link of the chain.
func (c *Limits) Check() Check {
	return Check{Name: "limits", Stages: map[Stage]Func{
		Connect: c.connect, Command: c.command, Bad: c.spoil(1), NotSigned: c.spoil(1), Early: c.spoil(earlyCost), Mail: c.mail, Rcpt: c.rcpt,
		Data: c.data, Message: c.message, End: c.end,
	}}
}

// earlyCost is how many errors talking before the greeting counts as.
const earlyCost = 5

// subjects are an address and its network, as limits see them.
type subjects struct{ address, network [17]byte }

// of gives the subjects of an address: itself and its /24, or its /64 and its /48.
func of(a netip.Addr) (s subjects) {
	a = a.Unmap().WithZone("")
	narrow, wide := 32, 24
	if a.Is6() {
		narrow, wide = 64, 48
	}
	s.address, s.network = masked(a, narrow), masked(a, wide)
	return s
}

func masked(a netip.Addr, bits int) (out [17]byte) {
	p, err := a.Prefix(bits)
	if err != nil {
		return out
	}
	b := p.Addr().As16()
	copy(out[:], b[:])
	out[16] = byte(bits)
	return out
}

func (c *Limits) rate(l directory.Limit) Rate {
	set := c.settings.Settings()
	return Rate{Amount: set.Guard.Limits[l], Per: l.Per()}
}

// unit is the time of a limit in words.
func unit(l directory.Limit) string {
	switch l.Per() {
	case time.Minute:
		return "a minute"
	case time.Hour:
		return "an hour"
	}
	return "at one time"
}

// take takes n units of a limit; text says what is too much when there are none.
func (c *Limits) take(l directory.Limit, subject []byte, n int64, code int, enhanced, text string) Verdict {
	rate := c.rate(l)
	if c.rates.Take(byte(l), subject, rate, n) {
		return Verdict{}
	}
	return exceeded(l, rate.Amount, code, enhanced, text)
}

// takeNamed is take for a subject whose words are written only when they are needed, and whose key only when there is a
// limit.
func (c *Limits) takeNamed(l directory.Limit, a address.Address, enhanced, what string) Verdict {
	rate := c.rate(l)
	if rate.unlimited() || c.rates.Take(byte(l), []byte(a.Key()), rate, 1) {
		return Verdict{}
	}
	return exceeded(l, rate.Amount, 450, enhanced, fmt.Sprintf("%s <%s>", what, a))
}

func exceeded(l directory.Limit, amount int64, code int, enhanced, what string) Verdict {
	return Refuse(smtp.Errorf(code, enhanced, "%s (at most %d %s), try again later", what, amount, unit(l)), l.Name())
}

func (c *Limits) connect(_ context.Context, v *Visitor) Verdict {
	s := of(v.Remote.Addr())
	v.network = s.network
	v.counted = true
	if most := c.settings.Settings().Guard.Limits[directory.OpenPerNetwork]; c.open.add(s.network[:], 1) > int(most) && most > 0 {
		return exceeded(directory.OpenPerNetwork, most, 421, "4.7.0", "too many connections from your network")
	}
	for _, l := range []struct {
		limit   directory.Limit
		subject []byte
		from    string
	}{{directory.ErrorsPerAddress, s.address[:], "address"}, {directory.ErrorsPerNetwork, s.network[:], "network"}} {
		if rate := c.rate(l.limit); !c.rates.Left(byte(l.limit), l.subject, rate) {
			return exceeded(l.limit, rate.Amount, 421, "4.7.0", "too many errors from your "+l.from)
		}
	}
	if d := c.take(directory.ConnectionsPerAddress, s.address[:], 1, 421, "4.7.0", "too many connections from your address"); d.Reply != nil {
		return d
	}
	return c.take(directory.ConnectionsPerNetwork, s.network[:], 1, 421, "4.7.0", "too many connections from your network")
}

func (c *Limits) end(_ context.Context, v *Visitor) Verdict {
	if v.counted {
		c.open.add(v.network[:], -1)
	}
	return Verdict{}
}

func (c *Limits) command(_ context.Context, v *Visitor) Verdict {
	s := of(v.Remote.Addr())
	return c.take(directory.CommandsPerAddress, s.address[:], 1, 421, "4.7.0", "too many commands from your address")
}

// spoil counts errors. The session goes on: it has a limit of its own; the next connection is not taken.
func (c *Limits) spoil(n int64) Func {
	return func(_ context.Context, v *Visitor) Verdict {
		s := of(v.Remote.Addr())
		c.rates.Spend(byte(directory.ErrorsPerAddress), s.address[:], c.rate(directory.ErrorsPerAddress), n)
		c.rates.Spend(byte(directory.ErrorsPerNetwork), s.network[:], c.rate(directory.ErrorsPerNetwork), n)
		return Verdict{}
	}
}

// mail counts messages of strangers. Those of users are counted by account: many may share an address.
func (c *Limits) mail(_ context.Context, v *Visitor) Verdict {
	if v.Account != 0 {
		return Verdict{}
	}
	s := of(v.Remote.Addr())
	if d := c.take(directory.MessagesPerAddress, s.address[:], 1, 450, "4.7.1", "too many messages from your address"); d.Reply != nil {
		return d
	}
	if d := c.take(directory.MessagesPerNetwork, s.network[:], 1, 450, "4.7.1", "too many messages from your network"); d.Reply != nil {
		return d
	}
	if v.From.IsNull() { // no one's
		return Verdict{}
	}
	return c.takeNamed(directory.MessagesPerSender, v.From, "4.7.1", "too many messages from")
}

func (c *Limits) rcpt(_ context.Context, v *Visitor) Verdict {
	if v.Account != 0 {
		return Verdict{}
	}
	s := of(v.Remote.Addr())
	if d := c.take(directory.RecipientsPerAddress, s.address[:], 1, 450, "4.7.1", "too many recipients from your address"); d.Reply != nil {
		return d
	}
	if d := c.take(directory.RecipientsPerNetwork, s.network[:], 1, 450, "4.7.1", "too many recipients from your network"); d.Reply != nil {
		return d
	}
	if !v.From.IsNull() {
		if d := c.takeNamed(directory.RecipientsPerSender, v.From, "4.7.1", "too many recipients from"); d.Reply != nil {
			return d
		}
	}
	return c.takeNamed(directory.MessagesPerRecipient, v.To, "4.2.1", "too many messages to")
}

// data holds the limits of octets, of which message takes: a message that has come is not refused for its size.
func (c *Limits) data(_ context.Context, v *Visitor) Verdict {
	if v.Account != 0 {
		return Verdict{}
	}
	s := of(v.Remote.Addr())
	for _, l := range []struct {
		limit   directory.Limit
		subject []byte
		from    string
	}{{directory.OctetsPerAddress, s.address[:], "address"}, {directory.OctetsPerNetwork, s.network[:], "network"}} {
		if rate := c.rate(l.limit); !c.rates.Left(byte(l.limit), l.subject, rate) {
			return exceeded(l.limit, rate.Amount, 451, "4.7.1", "too many octets from your "+l.from)
		}
	}
	return Verdict{}
}

func (c *Limits) message(_ context.Context, v *Visitor) Verdict {
	if v.Account == 0 {
		s := of(v.Remote.Addr())
		c.rates.Spend(byte(directory.OctetsPerAddress), s.address[:], c.rate(directory.OctetsPerAddress), v.Octets)
		c.rates.Spend(byte(directory.OctetsPerNetwork), s.network[:], c.rate(directory.OctetsPerNetwork), v.Octets)
	}
	return Verdict{}
}

// knownSize is how many addresses that have brought good mail are remembered.
const knownSize = 50_000

// Manners is the check of how a peer behaves in a session: that it waits for its turn, and that it makes few errors.
type Manners struct {
	settings Settings

	mu       sync.Mutex
	new, old map[[17]byte]struct{} // who has brought mail that was taken
}

// NewManners gives the check.
func NewManners(settings Settings) *Manners { return &Manners{settings: settings} }

// Check is the link of the chain.
func (c *Manners) Check() Check {
	return Check{Name: "manners", Stages: map[Stage]Func{
		Connect: c.connect, Helo: c.pipelining, Data: c.pipelining, Bad: c.tarpit, NotSigned: c.tarpit, Message: c.message, Early: c.forget,
	}}
}

// connect lets strangers on port 25 wait for the greeting, and not those who have brought mail before.
func (c *Manners) connect(_ context.Context, v *Visitor) Verdict {
	if v.Listener != MX {
		return Verdict{}
	}
	key := of(v.Remote.Addr()).address
	c.mu.Lock()
	_, known := c.new[key]
	if !known {
		if _, known = c.old[key]; known {
			c.remember(key)
		}
	}
	c.mu.Unlock()
	v.Known = v.Known || known // who judges strangers may know a network
	delay := c.settings.Settings().Guard.GreetDelay
	if v.Known || delay == 0 {
		return Verdict{}
	}
	return Wait(time.Duration(delay)*time.Millisecond, "greet delay")
}

func (c *Manners) message(_ context.Context, v *Visitor) Verdict {
	if v.Listener == MX && v.Outcome == nil {
		c.mu.Lock()
		c.remember(of(v.Remote.Addr()).address)
		c.mu.Unlock()
	}
	return Verdict{}
}

func (c *Manners) forget(_ context.Context, v *Visitor) Verdict {
	key := of(v.Remote.Addr()).address
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.new, key)
	delete(c.old, key)
	return Verdict{}
}

// remember adds to two generations, of which the older goes when the newer is full.
func (c *Manners) remember(key [17]byte) {
	if len(c.new) >= knownSize/2 {
		c.old, c.new = c.new, nil
	}
	if c.new == nil {
		c.new = make(map[[17]byte]struct{})
	}
	c.new[key] = struct{}{}
}

// pipelining refuses what came before the answer to EHLO, or to DATA, could be known (RFC 2920, section 3.1).
func (c *Manners) pipelining(_ context.Context, v *Visitor) Verdict {
	if v.Listener != MX || !v.Pipelined || c.settings.Settings().Guard.Pipelining != directory.Refuse {
		return Verdict{}
	}
	return Refuse(smtp.Errorf(421, "5.5.1", "talking before the answer has come is not allowed, closing the connection"), "unauthorised pipelining")
}

// tarpit delays what follows an error the longer the more errors there were.
func (c *Manners) tarpit(_ context.Context, v *Visitor) Verdict {
	set := c.settings.Settings().Guard
	over := v.Errors - set.TarpitAfter
	if over <= 0 || set.TarpitStep == 0 {
		return Verdict{}
	}
	ms := min(over*set.TarpitStep, set.TarpitMax)
	return Wait(time.Duration(ms)*time.Millisecond, fmt.Sprintf("%d errors", v.Errors))
}

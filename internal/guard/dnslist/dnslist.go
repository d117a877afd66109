package dnslist

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"waxwing/internal/dns"
)

// Resolver is what the lists are asked through: *dns.Resolver.
type Resolver interface {
	A(ctx context.Context, name string) (dns.IPs, error)
	TXT(ctx context.Context, name string) (dns.Texts, error)
}

// Options of a Checker. Resolver is needed.
type Options struct {
	Resolver Resolver
	Clock    func() time.Time // time.Now when nil
	Logger   *slog.Logger     // discarded when nil
	// Asked is told of each question and what came of it: "listed", "clear", "failed"; may be nil.
	Asked func(list, outcome string)
}

// Checker asks the lists that are configured. It is safe for concurrent use.
type Checker struct {
	opts Options
	wake chan struct{} // lists have changed

	mu    sync.RWMutex
	lists []*state

	ahead chan struct{} // a token each question that is asked ahead of its need
	work  sync.WaitGroup
	ctx   context.Context // of that work, ends with Close
	stop  context.CancelFunc
}

// New gives a Checker without lists. Close it.
func New(o Options) *Checker {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Asked == nil {
		o.Asked = func(string, string) {}
	}
	c := &Checker{opts: o, wake: make(chan struct{}, 1), ahead: make(chan struct{}, maxAhead)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// maxAhead is how many questions are under way before anybody needs their answers.
const maxAhead = 256

// Close ends the questions that were asked ahead, and waits for them.
func (c *Checker) Close() {
	c.stop()
	c.work.Wait()
}

// Ahead begins to ask in the background, so that the answers are in the resolver's memory when they are needed. Under load
// it does nothing: who needs the answers asks by themself.
func (c *Checker) Ahead(ask func(ctx context.Context)) {
	select {
	case c.ahead <- struct{}{}:
	default:
		return
	}
	c.work.Go(func() {
		defer func() { <-c.ahead }()
		ctx, cancel := context.WithTimeout(c.ctx, maxTimeout)
		defer cancel()
		ask(ctx)
	})
}

// Configure sets the lists. What is known of one that stays is kept.
func (c *Checker) Configure(lists []List) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make([]*state, 0, len(lists))
	for _, l := range lists {
		s := &state{List: l, proved: make(chan struct{})}
		for _, have := range c.lists {
			if have.String() == l.String() {
				s = have
			}
		}
		next = append(next, s)
	}
	c.lists = next
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Any tells whether any list is of such a subject.
func (c *Checker) Any(of Subject) bool { return len(c.of(of)) > 0 }

func (c *Checker) of(subject Subject) []*state {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []*state
	for _, s := range c.lists {
		if s.Of&subject != 0 {
			out = append(out, s)
		}
	}
	return out
}

// Listing is that a list lists somebody.
type Listing struct {
	List   string // its name
	Allow  bool
	Weight int
	Answer string // "127.0.0.2"

	query string
}

// Address asks the lists of addresses. It takes as long as the slowest list may; a list that fails to answer says nothing.
func (c *Checker) Address(ctx context.Context, a netip.Addr) []Listing {
	lists := c.of(Address)
	if len(lists) == 0 {
		return nil
	}
	return c.ask(ctx, lists, reversed(a))
}

// Domain asks the lists of domains.
func (c *Checker) Domain(ctx context.Context, of Subject, domain string) []Listing {
	lists := c.of(of &^ Address)
	if len(lists) == 0 || domain == "" || domain[0] == '[' {
		return nil
	}
	return c.ask(ctx, lists, domain)
}

// ask asks several lists at once.
func (c *Checker) ask(ctx context.Context, lists []*state, name string) []Listing {
	found := make([]*Listing, len(lists))
	var wg sync.WaitGroup
	for i, s := range lists {
		if i == len(lists)-1 { // the last one needs no goroutine
			found[i] = c.one(ctx, s, name)
			break
		}
		wg.Go(func() { found[i] = c.one(ctx, s, name) })
	}
	wg.Wait()
	var out []Listing
	for _, l := range found {
		if l != nil {
			out = append(out, *l)
		}
	}
	return out
}

// one asks one list, within its time.
func (c *Checker) one(ctx context.Context, s *state, name string) *Listing {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if !s.usable(ctx) {
		return nil
	}
	query := name + "." + s.Zone
	answer, err := c.question(ctx, query)
	switch {
	case err != nil:
		c.opts.Asked(s.Name, "failed")
		if ctx.Err() == nil || context.Cause(ctx) == context.DeadlineExceeded {
			c.failed(s, err)
		}
		return nil
	case len(answer) == 0:
		c.opts.Asked(s.Name, "clear")
		s.answered()
		return nil
	}
	s.answered()
	weight, ok := s.weigh(answer)
	if !ok {
		c.opts.Asked(s.Name, "clear")
		return nil
	}
	c.opts.Asked(s.Name, "listed")
	return &Listing{List: s.Name, Allow: s.Allow, Weight: weight, Answer: texts(answer), query: query}
}

// question asks for the addresses of a name: none when it isn't listed. An error says that the list has nothing to say.
func (c *Checker) question(ctx context.Context, query string) ([]netip.Addr, error) {
	ips, err := c.opts.Resolver.A(ctx, query)
	switch {
	case err == nil:
	case dns.Temporary(err):
		return nil, errDead
	default:
		return nil, nil
	}
	for _, a := range ips.Addrs {
		switch {
		case a.As4()[0] != 127: // RFC 5782, section 2.1: a domain that has changed hands answers so
			return nil, errForeign
		case lowBits(a) >= refusals:
			return nil, errRefuses
		}
	}
	return ips.Addrs, nil
}

// Explain gives the text that a list has about what it lists, fit for a reply: "" when there is none.
func (c *Checker) Explain(ctx context.Context, l Listing) string {
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	txt, err := c.opts.Resolver.TXT(ctx, l.query)
	if err != nil || len(txt.Texts) == 0 {
		return ""
	}
	return clean(txt.Texts[0])
}

// maxText is how much of a list's text is passed on.
const maxText = 200

// clean makes a text from the network harmless: printable ASCII on one line.
func clean(text string) string {
	var b strings.Builder
	for _, r := range text {
		if b.Len() >= maxText {
			break
		}
		if r < ' ' || r > '~' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func texts(list []netip.Addr) string {
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.String()
	}
	return strings.Join(names, ",")
}

// reversed is how an address stands before the zone: 2.0.0.127, or 32 nibbles (RFC 5782, sections 2.1 and 2.4).
func reversed(a netip.Addr) string {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}).String()
	}
	const digits = "0123456789abcdef"
	b := a.As16()
	out := make([]byte, 0, 63)
	for i := len(b) - 1; i >= 0; i-- {
		out = append(out, digits[b[i]&15], '.', digits[b[i]>>4], '.')
	}
	return string(out[:len(out)-1])
}

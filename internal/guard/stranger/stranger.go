// Package stranger judges who brings mail on port 25 without being known: by lists in the DNS, by the name that the client
// gives itself, by the name of its address, and by the domain that it sends from. What speaks against a client is a finding
// with a weight; the sum decides whether its mail is taken, has to come a second time (greylisting), or is refused. Only what
// can't be true (our own name out of a stranger's mouth) and senders that nobody can answer are refused by themselves.
//
// It also sees to it that nobody finds out the addresses of this server by trying them (Probing).
//
// A failure of the DNS is never held against a client: it goes on without that finding or, where the settings say so, is
// asked to come again. Postmaster and abuse take mail from everybody, so that those who are refused can say so.
// RFC 5321, sections 2.3.5 and 4.1.4; RFC 5782; RFC 6647; RFC 7505.
//
//	door := stranger.New(stranger.Options{Resolver: r, Lists: lists, Grey: grey, Contacts: book, Settings: now})
//	g := guard.New(guard.Options{}, append(checks, door.Checks()...)...)
package stranger

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/dns"
	"waxwing/internal/guard"
	"waxwing/internal/guard/dnslist"
	"waxwing/internal/guard/greylist"
	"waxwing/internal/smtp"
)

// Resolver is what names are looked up with: *dns.Resolver.
type Resolver interface {
	IP(ctx context.Context, name string) (dns.IPs, error)
	PTR(ctx context.Context, a netip.Addr) (dns.Names, error)
	MX(ctx context.Context, domain string) (dns.MX, error)
}

// Contacts knows whom users have written to: *contacts.Book.
type Contacts interface {
	Any(ctx context.Context, a address.Address) bool
}

// Mode says what becomes of something.
type Mode string

// The modes of the settings.
const (
	Off        Mode = "off"
	Weigh      Mode = "weigh"      // HELO: lies weigh too, and refuse nobody by themselves
	Refuse     Mode = "refuse"     // HELO: lies are refused
	On         Mode = "on"         // sender's domain: 550 when it takes no mail, 450 when the DNS can't say
	Definite   Mode = "definite"   // sender's domain: 550 when it takes no mail, and on when the DNS can't say
	Suspicious Mode = "suspicious" // greylisting of those with a score
	All        Mode = "all"        // greylisting of everybody who isn't known
)

// Settings are the settings at one moment.
type Settings struct {
	RefuseScore   int // 0: nobody is refused for it
	GreylistScore int
	Hello         Mode // Off, Weigh, Refuse
	Reverse       bool
	Sender        Mode // Off, Definite, On
	Greylist      Mode // Off, Suspicious, All
	Policy        greylist.Policy
}

// Options of a Door. All are needed.
type Options struct {
	Resolver Resolver
	Lists    *dnslist.Checker
	Grey     *greylist.List
	Contacts Contacts
	Hostname string
	Local    func(domain string) bool // whether a domain is ours
	Settings func() Settings
}

// Door judges strangers. It is safe for concurrent use.
type Door struct {
	opts Options

	mu       sync.Mutex
	sessions map[*guard.Visitor]*session
}

// session is what was found out about one visitor. The visitor's goroutine owns what is in it.
type session struct {
	client  *client
	hello   *hello
	sender  *sender
	allowed string // the allow list that spares it
	score   int
}

// New gives a Door.
func New(o Options) *Door { return &Door{opts: o, sessions: map[*guard.Visitor]*session{}} }

// Names of the checks and of their findings.
const (
	nameLists   = "dns-list"
	nameReverse = "reverse-dns"
	nameHello   = "helo"
	nameSender  = "sender-domain"
	nameScore   = "score"
	nameGrey    = "greylist"
)

// Checks are the links of the guard's chain, in their order.
func (d *Door) Checks() []guard.Check {
	return []guard.Check{
		{Name: nameHello, Stages: map[guard.Stage]guard.Func{
			guard.Connect: d.connect, guard.Helo: d.greeted, guard.Mail: d.mail, guard.Rcpt: d.asked(d.lie),
		}},
		{Name: nameSender, Stages: map[guard.Stage]guard.Func{guard.Rcpt: d.asked(d.unanswerable)}},
		{Name: nameScore, Stages: map[guard.Stage]guard.Func{guard.Rcpt: d.asked(d.tooMuch)}},
		{Name: nameGrey, Stages: map[guard.Stage]guard.Func{guard.Rcpt: d.asked(d.again), guard.Message: d.delivered}},
		{Name: "forget", Always: true, Stages: map[guard.Stage]guard.Func{guard.End: d.forget}},
	}
}

// isStranger tells a client that is judged: one from the Internet on port 25 that nobody vouches for.
func isStranger(v *guard.Visitor) bool {
	a := v.Remote.Addr()
	return v.Listener == guard.MX && v.Account == 0 && !v.Trusted && !v.Exempt &&
		a.IsGlobalUnicast() && !a.IsPrivate()
}

// connect begins to ask about an address, so that the answers are there when they are needed.
func (d *Door) connect(_ context.Context, v *guard.Visitor) guard.Verdict {
	if !isStranger(v) {
		return guard.Verdict{}
	}
	v.Known = v.Known || d.opts.Grey.Remembers(v.Remote.Addr(), d.opts.Settings().Policy)
	a := v.Remote.Addr()
	if d.opts.Lists.Any(dnslist.Address) {
		d.opts.Lists.Ahead(func(ctx context.Context) { d.opts.Lists.Address(ctx, a) })
	}
	if d.opts.Settings().Reverse {
		d.opts.Lists.Ahead(func(ctx context.Context) { d.reverse(ctx, a) })
	}
	return guard.Verdict{}
}

func (d *Door) greeted(_ context.Context, v *guard.Visitor) guard.Verdict {
	if name := v.HELO; isStranger(v) && d.opts.Settings().Hello != Off && strings.Contains(name, ".") && name[0] != '[' {
		d.opts.Lists.Ahead(func(ctx context.Context) { _, _ = d.opts.Resolver.IP(ctx, name) }) // asked again when it is needed
	}
	return guard.Verdict{}
}

func (d *Door) mail(_ context.Context, v *guard.Visitor) guard.Verdict {
	d.mu.Lock()
	if s := d.sessions[v]; s != nil && s.sender != nil && s.sender.refusal != nil && s.sender.refusal.Temporary() {
		s.sender = nil // looked up anew with each message
	}
	d.mu.Unlock()
	if from := v.From; isStranger(v) && d.opts.Settings().Sender != Off && from.Domain != "" {
		d.opts.Lists.Ahead(func(ctx context.Context) { _, _ = d.opts.Resolver.MX(ctx, from.Domain) }) // the same
	}
	return guard.Verdict{}
}

// maxWait bounds what the answers about one recipient may take together.
const maxWait = 12 * time.Second

// asked makes a check of what is asked about each recipient of a stranger.
func (d *Door) asked(check func(ctx context.Context, v *guard.Visitor, s *session, set Settings) guard.Verdict) guard.Func {
	return func(ctx context.Context, v *guard.Visitor) guard.Verdict {
		if !isStranger(v) || directory.IsRole(v.To) {
			return guard.Verdict{}
		}
		ctx, cancel := context.WithTimeout(ctx, maxWait)
		defer cancel()
		set := d.opts.Settings()
		return check(ctx, v, d.judge(ctx, v, set), set)
	}
}

// judge finds out what isn't known yet of a visitor, and brings its findings up to date.
func (d *Door) judge(ctx context.Context, v *guard.Visitor, set Settings) *session {
	d.mu.Lock()
	s := d.sessions[v]
	if s == nil {
		s = &session{}
		d.sessions[v] = s
	}
	d.mu.Unlock()
	if s.client != nil && s.hello != nil && s.hello.name == v.HELO && s.sender != nil && s.sender.from == v.From {
		return s
	}
	var wg sync.WaitGroup
	if s.client == nil {
		wg.Go(func() { s.client = d.judgeClient(ctx, v.Remote.Addr(), set) })
	}
	if s.hello == nil || s.hello.name != v.HELO {
		wg.Go(func() { s.hello = d.judgeHello(ctx, v, set) })
	}
	if s.sender == nil || s.sender.from != v.From {
		wg.Go(func() { s.sender = d.judgeSender(ctx, v.From, set) })
	}
	wg.Wait()
	s.sum(v)
	return s
}

// sum puts the findings into the visitor's, in place of those from before.
func (s *session) sum(v *guard.Visitor) {
	kept := v.Findings[:0]
	for _, f := range v.Findings {
		switch f.Check {
		case nameLists, nameReverse, nameHello, nameSender:
		default:
			kept = append(kept, f)
		}
	}
	v.Findings, s.allowed = kept, ""
	for _, l := range s.listings() {
		if l.Allow {
			s.allowed = l.List
			v.Find(nameLists, 0, "listed by the allow list "+l.List)
			continue
		}
		v.Find(nameLists, l.Weight, fmt.Sprintf("listed by %s (%s)", l.List, l.Answer))
	}
	for _, f := range [][]guard.Finding{s.client.findings, s.hello.findings, s.sender.findings} {
		for _, x := range f {
			v.Find(x.Check, x.Weight, x.Reason)
		}
	}
	s.score = v.Score()
}

func (s *session) listings() []dnslist.Listing {
	var all []dnslist.Listing
	for _, list := range [][]dnslist.Listing{s.client.listings, s.hello.listings, s.sender.listings} {
		all = append(all, list...)
	}
	return all
}

func (d *Door) lie(_ context.Context, _ *guard.Visitor, s *session, set Settings) guard.Verdict {
	if set.Hello != Refuse || s.hello.lie == "" {
		return guard.Verdict{}
	}
	return guard.Refuse(smtp.Errorf(550, "5.7.1", "%s", s.hello.lie), s.hello.lie)
}

func (d *Door) unanswerable(_ context.Context, v *guard.Visitor, s *session, _ Settings) guard.Verdict {
	if s.sender.refusal == nil {
		return guard.Verdict{}
	}
	return guard.Refuse(s.sender.refusal, s.sender.refusal.Text)
}

// tooMuch refuses who has a score of the threshold or above.
func (d *Door) tooMuch(ctx context.Context, v *guard.Visitor, s *session, set Settings) guard.Verdict {
	if set.RefuseScore <= 0 || s.score < set.RefuseScore || s.allowed != "" {
		return guard.Verdict{}
	}
	var told, kept []string
	for _, l := range s.listings() {
		if l.Allow || l.Weight == 0 {
			continue
		}
		text := "listed by " + l.List
		if why := d.opts.Lists.Explain(ctx, l); why != "" {
			text += " (" + why + ")"
		}
		told = append(told, text)
	}
	for _, f := range v.Findings {
		if f.Weight > 0 {
			kept = append(kept, fmt.Sprintf("%s: %d", f.Reason, f.Weight))
			if f.Check != nameLists {
				told = append(told, f.Reason)
			}
		}
	}
	return guard.Refuse(
		smtp.Errorf(554, "5.7.1", "%s is refused: %s", v.Remote.Addr(), strings.Join(told, "; ")),
		fmt.Sprintf("score %d of %d: %s", s.score, set.RefuseScore, strings.Join(kept, "; ")))
}

// again asks to come a second time.
func (d *Door) again(ctx context.Context, v *guard.Visitor, s *session, set Settings) guard.Verdict {
	switch {
	case s.allowed != "":
	case set.Greylist == All, set.Greylist == Suspicious && s.score >= set.GreylistScore:
		if d.opts.Contacts.Any(ctx, v.From) {
			break
		}
		wait := d.opts.Grey.Check(ctx, greylist.Attempt{Client: v.Remote.Addr(), From: v.From, To: v.To}, set.Policy)
		if wait > 0 {
			return guard.Refuse(smtp.Errorf(451, "4.7.1", "greylisted, try again in %s", roughly(wait)),
				fmt.Sprintf("greylisted with score %d, for %v more", s.score, wait.Round(time.Second)))
		}
	}
	return guard.Verdict{}
}

// roughly writes a time for people, rounded up.
func roughly(d time.Duration) string {
	if d > time.Minute {
		return fmt.Sprintf("%d minutes", (d+time.Minute-1)/time.Minute)
	}
	return fmt.Sprintf("%d seconds", max(1, (d+time.Second-1)/time.Second))
}

// delivered remembers who has brought a message that nothing spoke against.
func (d *Door) delivered(_ context.Context, v *guard.Visitor) guard.Verdict {
	if v.Outcome != nil || !isStranger(v) {
		return guard.Verdict{}
	}
	d.mu.Lock()
	s := d.sessions[v]
	d.mu.Unlock()
	if s != nil && s.score < d.opts.Settings().GreylistScore {
		d.opts.Grey.Delivered(v.Remote.Addr(), v.From)
	}
	return guard.Verdict{}
}

func (d *Door) forget(_ context.Context, v *guard.Visitor) guard.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, v)
	return guard.Verdict{}
}

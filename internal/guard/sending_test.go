package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// ledger is a SendingStore in memory.
type ledger struct {
	mu      sync.Mutex
	clock   func() time.Time
	counts  map[string]store.SendingCount
	holds   map[store.AccountID]store.SendingHold
	held    []store.AccountID // of QueueHold
	failing bool
}

func newLedger(clock func() time.Time) *ledger {
	return &ledger{clock: clock, counts: map[string]store.SendingCount{}, holds: map[store.AccountID]store.SendingHold{}}
}

var errLedger = errors.New("the disk is full")

func (l *ledger) SendingCounts(context.Context) (out []store.SendingCount, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.counts {
		out = append(out, c)
	}
	return out, nil
}

func (l *ledger) AddSending(_ context.Context, spent []store.SendingSpent) (out []store.SendingCount, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing {
		return nil, errLedger
	}
	now := l.clock()
	for _, s := range spent {
		c := l.counts[s.Subject]
		c.Subject, c.Usual, c.Touched = s.Subject, s.Usual, now
		for i := range c.Full {
			if c.Full[i].Before(now) {
				c.Full[i] = now
			}
			c.Full[i] = c.Full[i].Add(s.Spent[i])
		}
		l.counts[s.Subject] = c
		out = append(out, c)
	}
	return out, nil
}

func (l *ledger) SendingHolds(context.Context) (out []store.SendingHold, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.holds {
		out = append(out, h)
	}
	return out, nil
}

func (l *ledger) HoldSending(_ context.Context, acct store.AccountID, reason string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing {
		return false, errLedger
	}
	_, had := l.holds[acct]
	l.holds[acct] = store.SendingHold{Account: acct, Reason: reason}
	return !had, nil
}

func (l *ledger) QueueHold(_ context.Context, sel store.QueueFilter) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, sel.Account)
	return 1, nil
}

// post is a Sending with its surroundings.
type post struct {
	t      *testing.T
	clock  *hand
	set    *settled
	ledger *ledger
	c      *Sending
	alarms []Alarm
}

func newPost(t *testing.T) *post {
	t.Helper()
	p := &post{t: t, clock: &hand{}, set: standard()}
	p.clock.at.Store(1_700_000_000e9)
	p.ledger = newLedger(p.clock.now)
	p.open()
	return p
}

// open starts anew on the same ledger.
func (p *post) open() {
	p.t.Helper()
	var err error
	p.c, err = NewSending(p.t.Context(), SendingOptions{
		Store: p.ledger, Settings: p.set, Clock: p.clock.now, Alarm: func(a Alarm) { p.alarms = append(p.alarms, a) },
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *post) user(acct store.AccountID) *Visitor {
	v := visitor("192.0.2.1")
	v.Listener, v.Account, v.Login = Submission, acct, mailbox(p.t, fmt.Sprintf("u%d@our.test", acct))
	return v
}

// send asks about a message to n recipients in so many domains, and gives how many were let through.
func (p *post) send(acct store.AccountID, n, domains int, outcome error) (through int) {
	g := New(Options{}, p.c.Check())
	v := p.user(acct)
	if g.Ask(p.t.Context(), Mail, v).Reply != nil {
		return 0
	}
	for i := range n {
		v.To = mailbox(p.t, fmt.Sprintf("r%d@d%d.test", i, i%max(domains, 1)))
		if g.Ask(p.t.Context(), Rcpt, v).Reply != nil {
			return through
		}
		through++
		v.Outcome = outcome
		g.Ask(p.t.Context(), Recipient, v)
	}
	return through
}

func TestAccountsAndDomainsHaveTheirLimits(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	two, ten := int64(2), int64(10)
	p.set.change(func(s *directory.Settings) {
		s.Guard.Sending.RecipientsPerHour = 5
		s.Rules = &directory.Rules{Sending: []directory.SendingLimit{{For: "u2@our.test", RecipientsPerHour: &two}, {For: "our.test", RecipientsPerDay: &ten}}}
	})
	if got := p.send(1, 9, 1, nil); got != 5 {
		t.Errorf("the setting lets %d through", got)
	}
	if got := p.send(2, 9, 1, nil); got != 2 {
		t.Errorf("the account's own limit lets %d through", got)
	}
	if got := p.send(3, 9, 1, nil); got != 3 {
		t.Errorf("the domain's limit lets %d through", got)
	}
	p.clock.forward(time.Hour)
	if got := p.send(1, 9, 1, nil); got != 0 {
		t.Errorf("the domain's limit of a day lets %d through after an hour", got)
	}
	p.clock.forward(24 * time.Hour)
	if got := p.send(1, 9, 1, nil); got != 5 {
		t.Errorf("after a day %d are let through", got)
	}
	d := New(Options{}, p.c.Check()).Ask(t.Context(), Rcpt, p.user(1))
	if want := "450 4.7.1 your account may send 5 recipients an hour at most, try again later"; d.Reply == nil || d.Reply.Error() != want {
		t.Errorf("%v, want %s", d.Reply, want)
	}
}

func TestLimitsSurviveARestartAndHoldOnAllNodes(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	p.set.change(func(s *directory.Settings) { s.Guard.Sending.RecipientsPerHour = 100 })
	other := &post{t: t, clock: p.clock, set: p.set, ledger: p.ledger}
	other.open()
	p.send(1, 60, 1, nil)
	p.ledger.failing = true
	if err := p.c.Flush(t.Context()); err == nil {
		t.Error("a flush that failed is said to be well")
	}
	p.ledger.failing = false
	other.send(1, 30, 1, nil)
	for _, n := range []*post{p, other, p} { // what the first didn't write is still there
		if err := n.c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.open()
	if got := p.send(1, 60, 1, nil); got != 10 {
		t.Errorf("after a restart %d of 100 are left, want 10", got)
	}
}

func TestABurstPutsMailOnHold(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	p.set.change(func(s *directory.Settings) { s.Guard.Sending.Floor, s.Guard.Sending.Factor = 50, 5 })
	for range 30 { // 20 recipients an hour are usual
		p.send(1, 20, 1, nil)
		p.clock.forward(time.Hour)
	}
	p.send(1, 90, 1, nil)
	if len(p.alarms) != 0 {
		t.Fatalf("alarm within five times the usual: %+v", p.alarms)
	}
	p.send(1, 90, 1, nil)
	if len(p.alarms) != 1 || !p.alarms[0].Held || !strings.Contains(p.alarms[0].Reason, "recipients, usual are") {
		t.Fatalf("%+v", p.alarms)
	}
	if p.c.Held(1) == "" || p.c.Held(2) != "" || len(p.ledger.held) != 1 || p.ledger.held[0] != 1 {
		t.Errorf("held %q, queue %v", p.c.Held(1), p.ledger.held)
	}
	p.send(1, 90, 1, nil)
	if len(p.alarms) != 1 {
		t.Error("an account is an alarm again and again")
	}
	// Released, it may send on.
	p.ledger.mu.Lock()
	delete(p.ledger.holds, 1)
	p.ledger.mu.Unlock()
	if err := p.c.LearnHolds(t.Context()); err != nil || p.c.Held(1) != "" {
		t.Errorf("%q, %v", p.c.Held(1), err)
	}
}

func TestOtherAnomalies(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*directory.SendingSettings)
		do     func(*post)
		want   string // in the reason; "" for no alarm
	}{
		"destinations": {func(s *directory.SendingSettings) { s.NewDomains = 40 }, func(p *post) { p.send(1, 60, 60, nil) }, "destinations for the first time"},
		"failures": {func(s *directory.SendingSettings) { s.Failures = 50 }, func(p *post) {
			p.send(1, 60, 1, smtp.Errorf(550, "5.1.1", "no such mailbox"))
		}, "recipients failed"},
		"bounces": {func(s *directory.SendingSettings) { s.Failures = 50 }, func(p *post) {
			p.send(1, 60, 1, nil)
			for range 40 {
				p.c.Failed(1)
			}
		}, "recipients failed"},
		"networks": {func(s *directory.SendingSettings) { s.Networks = 5 }, func(p *post) {
			for i := range 8 {
				p.c.SignedIn(p.t.Context(), 1, "u1@our.test", netip.AddrFrom4([4]byte{10, 0, byte(i), 1}))
			}
		}, "signed in to from 6 networks"},
		"one network": {func(s *directory.SendingSettings) { s.Networks = 5 }, func(p *post) {
			for i := range 100 {
				p.c.SignedIn(p.t.Context(), 1, "u1@our.test", netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
			}
		}, ""},
		"below the floor": {func(s *directory.SendingSettings) { s.NewDomains, s.Failures, s.Factor = 1, 1, 1 }, func(p *post) { p.send(1, 50, 50, nil) }, ""},
		"off":             {func(s *directory.SendingSettings) { s.NewDomains, s.Anomaly = 1, directory.Off }, func(p *post) { p.send(1, 90, 90, nil) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPost(t)
			p.set.change(func(s *directory.Settings) {
				q := &s.Guard.Sending
				q.Floor, q.Factor, q.NewDomains, q.Failures, q.Networks = 50, 0, 0, 0, 0
				tc.change(q)
			})
			tc.do(p)
			switch {
			case tc.want == "" && len(p.alarms) != 0:
				t.Errorf("%+v", p.alarms)
			case tc.want != "" && (len(p.alarms) != 1 || !strings.Contains(p.alarms[0].Reason, tc.want)):
				t.Errorf("%+v, want %q", p.alarms, tc.want)
			}
		})
	}
}

func TestAHoldThatCantBeWrittenIsTriedAgain(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	p.set.change(func(s *directory.Settings) { s.Guard.Sending.Floor, s.Guard.Sending.Factor = 5, 1 })
	p.ledger.failing = true
	p.send(1, 10, 1, nil)
	if len(p.alarms) != 0 || p.c.Held(1) != "" {
		t.Fatalf("%+v", p.alarms)
	}
	p.ledger.failing = false
	p.send(1, 1, 1, nil)
	if len(p.alarms) != 1 || p.c.Held(1) == "" {
		t.Errorf("%+v", p.alarms)
	}
}

func TestLoadIsShed(t *testing.T) {
	t.Parallel()
	set, clock := standard(), &hand{}
	var u Usage
	looks := 0
	g := New(Options{}, NewLoad(set, func() Usage { looks++; return u }, clock.now).Check())
	ask := func(stage Stage) string {
		clock.forward(time.Second)
		v := visitor("127.0.0.1")
		v.Exempt, v.Trusted = true, true // nobody is exempt from what runs out
		if d := g.Ask(t.Context(), stage, v); d.Reply != nil {
			return d.Reply.Error() + " / " + d.Reason
		}
		return ""
	}
	for _, tc := range []struct {
		u     Usage
		stage Stage
		want  string
	}{
		{Usage{}, Connect, ""},
		{Usage{Memory: 899, MemoryLimit: 1000}, Connect, ""},
		{Usage{Memory: 900, MemoryLimit: 1000}, Connect, "421 4.3.2 the server is overloaded, try again later / 900 of 1000 octets of memory are in use"},
		{Usage{Memory: 900, MemoryLimit: 1000}, Mail, "451 4.3.2 the server is overloaded, try again later / 900 of 1000 octets of memory are in use"},
		{Usage{Descriptors: 95, DescriptorsLimit: 100}, Connect, "421 4.3.2 the server is overloaded, try again later / 95 of 100 file descriptors are in use"},
		{Usage{Descriptors: 95, DescriptorsLimit: 100}, Data, ""},
		{Usage{Waiting: 5000}, Data, "451 4.3.2 the server is overloaded, try again later / 5000 transactions wait for the database"},
	} {
		u = tc.u
		if got := ask(tc.stage); got != tc.want {
			t.Errorf("%+v at %s: %q, want %q", tc.u, tc.stage, got, tc.want)
		}
	}
	before := looks
	for range 100 {
		g.Ask(t.Context(), Mail, visitor("192.0.2.1"))
	}
	if looks > before+1 {
		t.Errorf("%d looks within a second", looks-before)
	}
	if used := Node(func() int { return 7 })(); used.Memory <= 0 || used.Waiting != 7 || used.Descriptors < 0 {
		t.Errorf("%+v", used)
	}
}

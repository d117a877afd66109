package guard

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// SendingStore keeps what was sent and who is on hold: *store.Store.
type SendingStore interface {
	SendingCounts(ctx context.Context) ([]store.SendingCount, error)
	AddSending(ctx context.Context, spent []store.SendingSpent) ([]store.SendingCount, error)
	SendingHolds(ctx context.Context) ([]store.SendingHold, error)
	HoldSending(ctx context.Context, acct store.AccountID, reason string) (fresh bool, err error)
	QueueHold(ctx context.Context, sel store.QueueFilter) (int, error)
}

// Alarm says that an account sends as it never did.
type Alarm struct {
	Account store.AccountID
	Login   string // its address, "" when it isn't known
	Reason  string
	Held    bool // its mail is on hold now
}

// SendingOptions of a Sending. Store and Settings are needed.
type SendingOptions struct {
	Store    SendingStore
	Settings Settings
	Clock    func() time.Time
	Logger   *slog.Logger
	// Alarm is told of each anomaly, once in an hour for an account. It must not block; may be nil.
	Alarm func(Alarm)
	// OnHold is told of each account that comes on hold, on this node or another. It must not block; may be nil.
	OnHold func(store.AccountID)
}

// Sending is the check of what users send: limits by account and by domain, and what is unusual for an account. It counts in
// memory; Flush writes what was added and learns what other nodes added, so that a restart or another node gives nobody a new
// allowance. Between two flushes nodes don't know of each other.
type Sending struct {
	o    SendingOptions
	seed maphash.Seed

	mu      sync.Mutex
	senders map[string]*sender // by subject
	holds   map[store.AccountID]string
	rules   *directory.Rules // that limits was made of
	limits  map[string]directory.SendingLimit
}

// The four allowances.
const (
	messagesHour = iota
	messagesDay
	recipientsHour
	recipientsDay
	allowances
)

var allowancePer = [allowances]time.Duration{time.Hour, 24 * time.Hour, time.Hour, 24 * time.Hour}

var allowanceWords = [allowances]string{"messages an hour", "messages a day", "recipients an hour", "recipients a day"}

// sender is what is known of one account, or of a domain.
type sender struct {
	full  [allowances]time.Time     // when each allowance is whole again
	spent [allowances]time.Duration // since the last flush
	usual int64                     // recipients of an active hour, thousandths
	dirty bool
	seen  time.Time

	// The hour under way; of accounts only.
	hour                               time.Time
	recipients, failures, fresh, alarm int64
	domains                            map[uint64]struct{} // destinations ever sent to, bounded
	networks                           map[netip.Addr]struct{}
}

const (
	maxSenders        = 100_000
	maxKnownDomains   = 4000
	maxKnownNetworks  = 1100
	senderForgotten   = 25 * time.Hour // every allowance is whole again by then
	usualOld, usualOf = 4, 5           // an hour counts for a fifth
)

// NewSending gives the check with what the store knows.
func NewSending(ctx context.Context, o SendingOptions) (*Sending, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Sending{o: o, seed: maphash.MakeSeed(), senders: make(map[string]*sender)}
	counts, err := o.Store.SendingCounts(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range counts {
		c.senders[k.Subject] = &sender{full: k.Full, usual: k.Usual, seen: k.Touched}
	}
	return c, c.LearnHolds(ctx)
}

// Check is the link of the chain.
func (c *Sending) Check() Check {
	return Check{Name: "sending", Stages: map[Stage]Func{Mail: c.mail, Rcpt: c.rcpt, Recipient: c.recipient}}
}

// Held tells why the mail of an account is on hold, "" when it is not.
func (c *Sending) Held(acct store.AccountID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holds[acct]
}

// LearnHolds reads who is on hold: other nodes and administrators change it.
func (c *Sending) LearnHolds(ctx context.Context) error {
	list, err := c.o.Store.SendingHolds(ctx)
	if err != nil {
		return err
	}
	holds := make(map[store.AccountID]string, len(list))
	for _, h := range list {
		holds[h.Account] = h.Reason
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for acct := range c.holds {
		if _, still := holds[acct]; !still { // released: what came before is no reason for the next alarm
			if s := c.senders[accountSubject(acct)]; s != nil {
				s.hour, s.alarm = time.Time{}, 0
			}
		}
	}
	if c.o.OnHold != nil && c.holds != nil {
		for acct := range holds {
			if _, known := c.holds[acct]; !known {
				c.o.OnHold(acct)
			}
		}
	}
	c.holds = holds
	return nil
}

func accountSubject(acct store.AccountID) string {
	return "account:" + strconv.FormatInt(int64(acct), 10)
}

// quotas are what an account and its domain may send: 0 is no limit.
func quotas(set directory.SendingSettings, limits map[string]directory.SendingLimit, login, domain string) (account, whole [allowances]int64) {
	account = [allowances]int64{set.MessagesPerHour, set.MessagesPerDay, set.RecipientsPerHour, set.RecipientsPerDay}
	override(&account, limits[login])
	override(&whole, limits[domain])
	return account, whole
}

func override(to *[allowances]int64, l directory.SendingLimit) {
	for i, v := range [allowances]*int64{l.MessagesPerHour, l.MessagesPerDay, l.RecipientsPerHour, l.RecipientsPerDay} {
		if v != nil {
			to[i] = *v
		}
	}
}

// byScope gives limits by what they are for.
func byScope(rules *directory.Rules) map[string]directory.SendingLimit {
	out := make(map[string]directory.SendingLimit)
	if rules != nil {
		for _, l := range rules.Sending {
			out[l.For] = l
		}
	}
	return out
}

func (c *Sending) mail(_ context.Context, v *Visitor) Verdict {
	return c.take(v, messagesHour, messagesDay)
}

func (c *Sending) rcpt(_ context.Context, v *Visitor) Verdict {
	return c.take(v, recipientsHour, recipientsDay)
}

// take takes one from two allowances of the account and of its domain, all of them or none.
func (c *Sending) take(v *Visitor, which ...int) Verdict {
	if v.Account == 0 {
		return Verdict{}
	}
	now := c.o.Clock()
	set := c.o.Settings.Settings()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limits == nil || c.rules != set.Rules {
		c.rules, c.limits = set.Rules, byScope(set.Rules)
	}
	account, whole := quotas(set.Guard.Sending, c.limits, v.Login.Key(), v.Login.Domain)
	of := []struct {
		s     *sender
		quota *[allowances]int64
		whose string
	}{{c.sender(accountSubject(v.Account), now), &account, "your account"}, {nil, &whole, "your domain"}}
	if whole != [allowances]int64{} {
		of[1].s = c.sender("domain:"+v.Login.Domain, now)
	}
	for _, o := range of {
		for _, i := range which {
			if o.s != nil && o.quota[i] > 0 && o.s.debt(i, now)+allowancePer[i]/time.Duration(o.quota[i]) > allowancePer[i] {
				return Refuse(smtp.Errorf(450, "4.7.1", "%s may send %d %s at most, try again later", o.whose, o.quota[i], allowanceWords[i]),
					fmt.Sprintf("%s: %d %s", o.whose, o.quota[i], allowanceWords[i]))
			}
		}
	}
	for _, o := range of {
		for _, i := range which {
			if o.s != nil && o.quota[i] > 0 {
				o.s.spend(i, now, allowancePer[i]/time.Duration(o.quota[i]))
			}
		}
	}
	return Verdict{}
}

// sender finds or makes what is known of a subject; with too many one that has been still is forgotten.
func (c *Sending) sender(subject string, now time.Time) *sender {
	s := c.senders[subject]
	if s == nil {
		if len(c.senders) >= maxSenders {
			for name, old := range c.senders { // in no order: an attacker can't choose
				if !old.dirty {
					delete(c.senders, name)
					break
				}
			}
		}
		s = &sender{}
		c.senders[subject] = s
	}
	s.seen = now
	return s
}

// debt is how long an allowance takes to be whole again; a clock that was set back makes it no longer than that.
func (s *sender) debt(i int, now time.Time) time.Duration {
	return min(max(s.full[i].Sub(now), 0), allowancePer[i])
}

func (s *sender) spend(i int, now time.Time, cost time.Duration) {
	s.full[i] = now.Add(s.debt(i, now) + cost)
	s.spent[i] += cost
	s.dirty = true
}

// turn begins a new hour, and learns from the last one what is usual. An hour in which nothing was sent says nothing.
func (s *sender) turn(now time.Time) {
	if passed := now.Sub(s.hour); passed >= 0 && passed < time.Hour && !s.hour.IsZero() {
		return
	}
	if s.recipients > 0 && s.alarm == 0 {
		s.usual = (s.usual*usualOld + s.recipients*1000) / usualOf
		s.dirty = true
	}
	s.hour, s.recipients, s.failures, s.fresh, s.alarm = now, 0, 0, 0, 0
	s.networks = nil
}

// recipient counts a recipient of a user, and looks whether that is usual.
func (c *Sending) recipient(ctx context.Context, v *Visitor) Verdict {
	if v.Account == 0 {
		return Verdict{}
	}
	now := c.o.Clock()
	c.mu.Lock()
	s := c.sender(accountSubject(v.Account), now)
	s.turn(now)
	s.recipients++
	if v.Outcome != nil && v.Unknown() {
		s.failures++
	}
	s.meets(maphash.String(c.seed, v.To.Domain))
	reason := c.anomaly(s)
	c.mu.Unlock()
	c.raise(ctx, v.Account, v.Login.String(), reason)
	return Verdict{}
}

// meets counts destinations that the account never sent to. Those of an account's first hour are not held against it.
func (s *sender) meets(domain uint64) {
	if _, known := s.domains[domain]; known {
		return
	}
	if s.domains == nil || len(s.domains) >= maxKnownDomains {
		s.domains = make(map[uint64]struct{})
	}
	s.domains[domain] = struct{}{}
	s.fresh++
}

// Failed counts a recipient of an account's mail that another server refused for good.
func (c *Sending) Failed(acct store.AccountID) {
	now := c.o.Clock()
	c.mu.Lock()
	s := c.sender(accountSubject(acct), now)
	s.turn(now)
	s.failures++
	reason := c.anomaly(s)
	c.mu.Unlock()
	c.raise(context.Background(), acct, "", reason)
}

// SignedIn counts from how many networks an account is signed in to.
func (c *Sending) SignedIn(ctx context.Context, acct store.AccountID, login string, from netip.Addr) {
	p, err := from.Unmap().WithZone("").Prefix(map[bool]int{true: 24, false: 48}[from.Unmap().Is4()])
	if err != nil {
		return
	}
	now := c.o.Clock()
	c.mu.Lock()
	s := c.sender(accountSubject(acct), now)
	s.turn(now)
	if s.networks == nil {
		s.networks = make(map[netip.Addr]struct{})
	}
	if len(s.networks) < maxKnownNetworks {
		s.networks[p.Addr()] = struct{}{}
	}
	reason := c.anomaly(s)
	c.mu.Unlock()
	c.raise(ctx, acct, login, reason)
}

// anomaly tells what is unusual about the hour of an account, "" for nothing, and once in an hour.
func (c *Sending) anomaly(s *sender) string {
	set := c.o.Settings.Settings().Guard.Sending
	if s.alarm > 0 || set.Anomaly == directory.Off {
		return ""
	}
	var found []string
	if n := int64(len(s.networks)); set.Networks > 0 && n > set.Networks {
		found = append(found, fmt.Sprintf("signed in to from %d networks", n))
	}
	if s.recipients > set.Floor || s.failures > set.Floor {
		if usual := s.usual / 1000; set.Factor > 0 && s.recipients > usual*set.Factor {
			found = append(found, fmt.Sprintf("%d recipients, usual are %d", s.recipients, usual))
		}
		if set.NewDomains > 0 && s.fresh > set.NewDomains {
			found = append(found, fmt.Sprintf("%d destinations for the first time", s.fresh))
		}
		if set.Failures > 0 && s.failures*100 > s.recipients*int64(set.Failures) {
			found = append(found, fmt.Sprintf("%d of %d recipients failed", s.failures, s.recipients))
		}
	}
	if len(found) == 0 {
		return ""
	}
	s.alarm = 1
	return "within an hour: " + strings.Join(found, "; ")
}

// raise acts on an anomaly. A hold that can't be written is tried again with the next recipient.
func (c *Sending) raise(ctx context.Context, acct store.AccountID, login, reason string) {
	if reason == "" {
		return
	}
	ctx = context.WithoutCancel(ctx) // the peer may leave: its mail goes on hold all the same
	held := c.o.Settings.Settings().Guard.Sending.Anomaly == directory.Hold
	if held {
		if err := c.hold(ctx, acct, reason); err != nil {
			c.o.Logger.Error("an account that sends as it never did can't be put on hold yet", "account", int64(acct), "reason", reason, "error", err)
			c.mu.Lock()
			if s := c.senders[accountSubject(acct)]; s != nil {
				s.alarm = 0
			}
			c.mu.Unlock()
			return
		}
	}
	c.o.Logger.Error("an account sends as it never did", "account", int64(acct), "address", login, "reason", reason, "held", held)
	if f := c.o.Alarm; f != nil {
		f(Alarm{Account: acct, Login: login, Reason: reason, Held: held})
	}
}

// hold keeps the further mail of an account, and what waits in the queue.
func (c *Sending) hold(ctx context.Context, acct store.AccountID, reason string) error {
	if _, err := c.o.Store.HoldSending(ctx, acct, reason); err != nil {
		return err
	}
	if err := c.LearnHolds(ctx); err != nil {
		return err
	}
	_, err := c.o.Store.QueueHold(ctx, store.QueueFilter{Account: acct})
	return err
}

// Flush writes what was used since the last time, and learns what was used on all nodes. What can't be written is kept for
// the next time.
func (c *Sending) Flush(ctx context.Context) error {
	now := c.o.Clock()
	c.mu.Lock()
	var rows []store.SendingSpent
	for subject, s := range c.senders {
		switch {
		case s.dirty:
			rows = append(rows, store.SendingSpent{Subject: subject, Spent: s.spent, Usual: s.usual})
			s.spent, s.dirty = [allowances]time.Duration{}, false
		case now.Sub(s.seen) > senderForgotten && s.usual == 0:
			delete(c.senders, subject)
		}
	}
	c.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	sums, err := c.o.Store.AddSending(ctx, rows)
	c.mu.Lock()
	defer c.mu.Unlock()
	written := make(map[string]bool, len(sums))
	for _, k := range sums {
		written[k.Subject] = true
		if s := c.senders[k.Subject]; s != nil {
			for i := range s.full { // what was used while this was written comes on top
				s.full[i] = k.Full[i].Add(s.spent[i])
			}
		}
	}
	for _, r := range rows {
		if s := c.senders[r.Subject]; s != nil && !written[r.Subject] {
			for i := range s.spent {
				s.spent[i] += r.Spent[i]
			}
			s.dirty = true
		}
	}
	return err
}

// SendingUse is what an account has left, for those who ask.
type SendingUse struct {
	Allowed, Used [allowances]int64 // messages of the hour and the day, recipients of the hour and the day; allowed 0: no limit
	Usual         int64             // recipients of an active hour
}

// UseOf tells what an account has used, from the counts that a store keeps.
func UseOf(set directory.Settings, count store.SendingCount, login, domain string, now time.Time) SendingUse {
	account, _ := quotas(set.Guard.Sending, byScope(set.Rules), login, domain)
	u := SendingUse{Allowed: account, Usual: count.Usual / 1000}
	s := sender{full: count.Full}
	for i := range account {
		if account[i] > 0 {
			u.Used[i] = int64(s.debt(i, now) / (allowancePer[i] / time.Duration(account[i])))
		}
	}
	return u
}

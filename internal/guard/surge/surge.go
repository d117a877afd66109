// Package surge notices mail bombs: a mailbox that gets far more mail from strangers than it usually does, be it
// confirmations and newsletters that somebody signed it up for, bounces of mail that it never sent, or letters. It says which
// messages are the surplus; what becomes of them is for intake.
//
// An account's usual rate is an average over a week, kept in bounded memory and written down now and then. A surge begins
// when ten minutes bring several times as much, from many domains, and more than a floor; it ends by itself. Senders that the
// account has written to, or that wrote to it at least a day before, are no strangers.
//
//	w := surge.New(surge.Options{Store: st, Contacts: book, Policy: policy, Begun: tell})
//	go w.Run(ctx)
//	if w.Aside(ctx, surge.Arrival{Account: id, From: from, Kind: surge.Lists}) { ... }
package surge

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// Action is what becomes of surplus mail.
type Action string

// The actions.
const (
	Default Action = ""       // of an account: the server's
	Folder  Action = "folder" // into a folder of its own
	Defer   Action = "defer"  // refused for now, 451 4.2.1
	Off     Action = "off"    // nothing
)

// Actions are those that may be chosen.
var Actions = []Action{Folder, Defer, Off}

// Kind is what a message is, as a bomb is made of one kind.
type Kind uint8

// The kinds.
const (
	Letters Kind = iota // what bears no mark
	Lists               // newsletters, confirmations, notices: List-Unsubscribe, Auto-Submitted and the like
	Bounces             // with the null reverse-path
	kinds
)

func (k Kind) String() string { return [...]string{"letters", "lists", "bounces"}[k] }

// Policy is what the settings say.
type Policy struct {
	Action Action
	Least  int // messages in ten minutes that are never a surge
	Factor int // times the usual number that are one
}

// Store keeps the rows: *store.Store.
type Store interface {
	SurgeRow(ctx context.Context, acct store.AccountID) (store.SurgeRow, error)
	SaveSurges(ctx context.Context, rows []store.SurgeRow) error
}

// Contacts knows whom users have written to: *contacts.Book.
type Contacts interface {
	Of(ctx context.Context, acct store.AccountID, a address.Address) bool
}

// Event is a surge that begins or ends.
type Event struct {
	Account store.AccountID
	Kind    Kind
	Begins  bool
	Count   int // messages in the last ten minutes
	Usual   float64
	Action  Action
	Aside   int       // that were set aside or deferred, at the end
	Told    time.Time // when the account's owner was last told of one
}

// Options of a Watch. Store, Contacts and Policy are needed.
type Options struct {
	Store    Store
	Contacts Contacts
	Policy   func() Policy
	Clock    func() time.Time // time.Now when nil
	Logger   *slog.Logger     // discarded when nil
	Happened func(ctx context.Context, e Event)
}

// The measures.
const (
	window      = 10 * time.Minute
	memory      = 7 * 24 * time.Hour // over which the usual rate is averaged
	outgoing    = 24 * time.Hour     // for which own mail explains bounces
	acquainted  = 24 * time.Hour     // since a sender was first heard of, and is no stranger any more
	leastDomain = 10                 // domains that a surge of letters or lists comes from
	maxAccounts = 20_000             // in memory
	maxEvents   = 1000               // that wait to be told
	ringSize    = 64                 // senders that are remembered of an account
	sketchBits  = 256                // to count domains with
)

// Watch watches the mail that comes in. It is safe for concurrent use.
type Watch struct {
	opts Options

	mu       sync.Mutex
	accounts map[store.AccountID]*account
	load     map[store.AccountID]bool // whose rows are to be read
	events   []Event
}

// account is what is known of one account.
type account struct {
	loaded bool
	action Action
	told   time.Time
	saved  time.Time
	dirty  bool

	at              time.Time // when the numbers held
	lately, usually [kinds]float64
	sent            float64
	heard           []heard // the last at the end

	surging [kinds]bool
	aside   [kinds]int
	domains [kinds][sketchBits / 64]uint64 // that wrote since the sketch was cleared
	cleared time.Time
}

// heard is a sender and when it was first heard of.
type heard struct {
	sender uint64
	first  int64 // seconds
}

// New gives a Watch.
func New(o Options) *Watch {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Happened == nil {
		o.Happened = func(context.Context, Event) {}
	}
	return &Watch{opts: o, accounts: map[store.AccountID]*account{}, load: map[store.AccountID]bool{}}
}

// Arrival is one message for one account.
type Arrival struct {
	Account store.AccountID
	From    address.Address
	Kind    Kind // Bounces when From is null
}

func (a *Arrival) kind() Kind {
	if a.From.IsNull() {
		return Bounces
	}
	return a.Kind
}

// Aside counts a message that is about to be stored, and tells whether it is surplus that goes into the folder for it. It
// asks nobody but memory while nothing is unusual.
func (w *Watch) Aside(ctx context.Context, a Arrival) bool {
	p := w.opts.Policy()
	w.mu.Lock()
	defer w.mu.Unlock()
	acct, now := w.account(a.Account), w.opts.Clock()
	kind := a.kind()
	acct.decay(now)
	limit := acct.limit(kind, p)
	if acct.surging[kind] || acct.lately[kind]+1 > limit/2 {
		if w.knows(ctx, acct, &a, now) {
			return false
		}
	}
	acct.count(kind, w.hash(a.From.Domain), now)
	action := acct.choice(p)
	if !w.surges(acct, &a, limit, action) {
		acct.usually[kind]++
		acct.hear(w.sender(a.From), now)
		return false
	}
	acct.usually[kind] += learning
	if action != Folder {
		return false
	}
	acct.aside[kind]++
	return true
}

// learning is how much a message of a surge counts for what is usual: what lasts becomes usual in the end.
const learning = 0.1

// Deferred tells at RCPT whether mail of a sender has to wait, and counts it then.
func (w *Watch) Deferred(ctx context.Context, id store.AccountID, from address.Address) bool {
	p := w.opts.Policy()
	w.mu.Lock()
	defer w.mu.Unlock()
	acct := w.accounts[id]
	if acct == nil || acct.choice(p) != Defer {
		return false
	}
	a := Arrival{Account: id, From: from}
	kind := a.kind() // what a message bears isn't known yet: a letter may be of a list
	if kind == Letters && !acct.surging[Letters] {
		kind = Lists
	}
	if !acct.surging[kind] {
		return false
	}
	now := w.opts.Clock()
	acct.decay(now)
	if w.knows(ctx, acct, &a, now) {
		return false
	}
	acct.count(kind, w.hash(from.Domain), now)
	if !w.surges(acct, &Arrival{Account: id, From: from, Kind: kind}, acct.limit(kind, p), Defer) {
		return false
	}
	acct.aside[kind]++
	return true
}

// Sent notes that an account has sent to so many recipients: bounces are to be expected.
func (w *Watch) Sent(id store.AccountID, recipients int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	acct := w.account(id)
	acct.decay(w.opts.Clock())
	acct.sent += float64(recipients)
}

// account is called with the lock held.
func (w *Watch) account(id store.AccountID) *account {
	a := w.accounts[id]
	if a == nil {
		if len(w.accounts) >= maxAccounts {
			w.forgetOne()
		}
		a = &account{}
		w.accounts[id] = a
		w.load[id] = true
	}
	return a
}

// forgetOne makes room, of the accounts that map order brings up the one that was quiet for longest. What it loses of an
// account is what came since it was last saved. It is called with the lock held.
func (w *Watch) forgetOne() {
	const looks = 20
	var oldest store.AccountID
	n := 0
	for id, a := range w.accounts {
		if oldest == 0 || a.at.Before(w.accounts[oldest].at) {
			oldest = id
		}
		if n++; n == looks {
			break
		}
	}
	delete(w.accounts, oldest)
	delete(w.load, oldest)
}

// knows tells a sender that is no stranger to the account. It is called with the lock held, and gives it up for as long as
// the contacts are asked.
func (w *Watch) knows(ctx context.Context, acct *account, a *Arrival, now time.Time) bool {
	if a.From.IsNull() {
		return false
	}
	sender := w.sender(a.From)
	for _, h := range acct.heard {
		if h.sender == sender && now.Sub(time.Unix(h.first, 0)) >= acquainted {
			return true
		}
	}
	w.mu.Unlock()
	defer w.mu.Lock()
	return w.opts.Contacts.Of(ctx, a.Account, a.From)
}

// surges tells whether a kind of mail surges, and notices the beginning and the end. It is called with the lock held.
func (w *Watch) surges(acct *account, a *Arrival, limit float64, action Action) bool {
	kind := a.kind()
	lately := acct.lately[kind]
	switch {
	case !acct.loaded || action == Off:
		acct.surging[kind] = false
		return false
	case acct.surging[kind] && lately >= limit/2:
		return true
	case acct.surging[kind]:
		w.ends(a.Account, acct, kind)
		return false
	case lately <= limit || kind != Bounces && acct.distinct(kind) < leastDomain:
		return false
	}
	acct.surging[kind], acct.aside[kind] = true, 0
	w.happened(Event{
		Account: a.Account, Kind: kind, Begins: true, Count: int(lately), Usual: acct.usual(kind), Action: action, Told: acct.told,
	})
	return true
}

func (w *Watch) ends(id store.AccountID, acct *account, kind Kind) {
	acct.surging[kind] = false
	w.happened(Event{Account: id, Kind: kind, Count: int(acct.lately[kind]), Usual: acct.usual(kind), Aside: acct.aside[kind], Told: acct.told})
}

func (w *Watch) happened(e Event) {
	if len(w.events) < maxEvents {
		w.events = append(w.events, e)
	}
}

// decay brings the numbers up to now. A clock that was set back leaves them as they are.
func (a *account) decay(now time.Time) {
	past := max(0, now.Sub(a.at))
	if a.at.IsZero() {
		past = 0
	}
	for k := range a.lately {
		a.lately[k] *= math.Exp(-past.Seconds() / window.Seconds())
		a.usually[k] *= math.Exp(-past.Seconds() / memory.Seconds())
	}
	a.sent *= math.Exp(-past.Seconds() / outgoing.Seconds())
	a.at = now
	if d := now.Sub(a.cleared); d > window && a.quiet() || d < 0 {
		a.domains, a.cleared = [kinds][sketchBits / 64]uint64{}, now
	}
}

// quiet tells that nothing surges.
func (a *account) quiet() bool { return a.surging == [kinds]bool{} }

// usual is how many messages ten minutes usually bring.
func (a *account) usual(k Kind) float64 { return a.usually[k] * window.Seconds() / memory.Seconds() }

// limit is how many messages in ten minutes are no surge.
func (a *account) limit(k Kind, p Policy) float64 {
	n := max(float64(p.Least), float64(p.Factor)*a.usual(k))
	if k == Bounces {
		n += a.sent
	}
	return n
}

func (a *account) choice(p Policy) Action {
	if a.action != Default {
		return a.action
	}
	return p.Action
}

func (a *account) count(k Kind, domain uint64, now time.Time) {
	a.lately[k]++
	a.domains[k][domain%sketchBits/64] |= 1 << (domain % 64)
	a.at, a.dirty = now, true
}

// distinct estimates how many domains have written, by linear counting.
func (a *account) distinct(k Kind) float64 {
	zeros := 0
	for _, word := range a.domains[k] {
		for bit := range 64 {
			if word&(1<<bit) == 0 {
				zeros++
			}
		}
	}
	return sketchBits * math.Log(sketchBits/max(1, float64(zeros)))
}

// hear remembers a sender; the one that was heard of longest ago goes.
func (a *account) hear(sender uint64, now time.Time) {
	for i, h := range a.heard {
		if h.sender == sender {
			copy(a.heard[i:], a.heard[i+1:])
			a.heard[len(a.heard)-1] = h
			return
		}
	}
	if len(a.heard) >= ringSize {
		copy(a.heard, a.heard[1:])
		a.heard = a.heard[:ringSize-1]
	}
	a.heard = append(a.heard, heard{sender, now.Unix()})
}

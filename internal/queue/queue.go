// Package queue sends what waits in the store's outbound queue: it decides what is tried when, hands messages to package
// transport, and tells senders what became of them (delivery status notifications, RFC 3461, 3464, 6522 and 6533).
//
// The rows are the truth; the scheduler holds only what is under way. It leases due recipients, a destination at a time
// and all destinations in turn, so that neither a long queue nor a dead site delays the rest, and its memory does not
// grow with the queue. A lease that was lost by a crash is taken up again: a message is delivered at least once, and
// twice only when the crash fell between the remote server's answer and the commit of it. What finally became of a
// recipient is committed before its sender is told, and the row goes only when the notification is committed, so a
// crash loses no notification.
//
// It does not speak SMTP, sign, or judge. DESIGN.md beside this file explains the schedule and its failure cases.
//
//	q, err := queue.New(queue.Options{Store: st, Transport: queue.Over(tr), Injector: queue.Through(in), Hostname: "mx.example.test"})
//	err = q.Run(ctx)
package queue

import (
	"context"
	"errors"
	"log/slog"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/intake"
	"waxwing/internal/store"
	"waxwing/internal/trace"
	"waxwing/internal/transport"
)

// Policy is when and how often things are tried. Zero values mean the defaults given here.
type Policy struct {
	RetryMin     time.Duration // wait after the first failed attempt, 5 min; doubled after each further one
	RetryMax     time.Duration // the longest wait, 4,000 s
	DelayWarning time.Duration // age at which the sender is told that a message is still waiting, once; 4 h; negative: never
	ClockGap     time.Duration // a jump of the clock, or a time without a scheduler, that suspends expiry; 1 h
	ExpiryGrace  time.Duration // and for how long at most, 24 h

	Workers     int           // connections at a time in all, 100
	Concurrency int           // and to one destination, 5
	Batch       int           // recipients leased for one connection at a time, 50
	Lease       time.Duration // how long a lease lasts; 30 min
	RestMin     time.Duration // rest of a destination that can't be reached, 1 min; doubled each time
	RestMax     time.Duration // the longest rest, 30 min; unless it is given neither is longer than the waits above
	IdleLink    time.Duration // how long a connection is kept for the next message, 30 s
	Grace       time.Duration // for attempts under way when Run's context ends, 20 s
	MaxReturn   int64         // octets up to which a whole message is returned in a notification that asks for it, 1 MiB
}

func (p *Policy) setDefaults() {
	rest := p.RestMax != 0
	for _, d := range []struct {
		v *time.Duration
		n time.Duration
	}{
		{&p.RetryMin, 5 * time.Minute},
		{&p.RetryMax, 4000 * time.Second},
		{&p.DelayWarning, 4 * time.Hour},
		{&p.ClockGap, time.Hour},
		{&p.ExpiryGrace, 24 * time.Hour},
		{&p.Lease, 30 * time.Minute},
		{&p.RestMin, time.Minute},
		{&p.RestMax, 30 * time.Minute},
		{&p.IdleLink, 30 * time.Second},
		{&p.Grace, 20 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.n
		}
	}
	for _, d := range []struct {
		v *int
		n int
	}{{&p.Workers, 100}, {&p.Concurrency, 5}, {&p.Batch, 50}} {
		if *d.v <= 0 {
			*d.v = d.n
		}
	}
	if p.MaxReturn <= 0 {
		p.MaxReturn = 1 << 20
	}
	p.RetryMax = max(p.RetryMax, p.RetryMin)
	if !rest { // no message waits longer because its destination rests than it would for itself
		p.RestMax = min(p.RestMax, p.RetryMax)
		p.RestMin = min(p.RestMin, p.RetryMin, p.RestMax)
	}
	p.RestMax = max(p.RestMax, p.RestMin)
}

// Carrier takes messages to their destinations; Over makes one of a Transport.
type Carrier interface {
	Link(destination string, via transport.Via) Link
	NextHop(destination string) string
	Concurrency(destination string) int
}

// Link is a way to one next hop that may keep its connection.
type Link interface {
	Deliver(ctx context.Context, m *transport.Message) []transport.Result
	Open() bool
	Retarget(destination string, via transport.Via) bool
	Via() transport.Via
	Used() time.Time
	Close()
}

// Over makes a Carrier of a Transport.
func Over(t *transport.Transport) Carrier { return over{t} }

type over struct{ *transport.Transport }

func (o over) Link(destination string, via transport.Via) Link {
	return o.LinkVia(destination, via)
}

// Injector takes a notification in for delivery: locally, or by way of this queue. It returns after the commit.
type Injector interface {
	Inject(ctx context.Context, to address.Address, raw []byte) error
}

// Through makes an Injector of an Intake.
func Through(in *intake.Intake) Injector { return through{in} }

type through struct{ in *intake.Intake }

func (t through) Inject(ctx context.Context, to address.Address, raw []byte) error {
	_, err := t.in.Submit(ctx, address.Address{}, []address.Address{to}, raw)
	return err
}

// Metrics are hooks for what happens; nil ones are not called. They are called from several goroutines.
type Metrics struct {
	Attempt func(status transport.Status, took time.Duration) // of one recipient
	Outcome func(status transport.Status, category, provider string)
	Failed  func(account store.AccountID) // a recipient of the account's mail failed for good
	Report  func(kind Kind)               // a notification was sent
	Damaged func(recipients int)          // rows were set aside
}

// Options make a Queue.
type Options struct {
	Store     *store.Store
	Transport Carrier // may be nil when Run is not called
	Injector  Injector
	Hostname  string
	Node      string // whose leases these are, default Hostname: no two schedulers may have the same
	Policy    Policy
	Clock     func() time.Time
	Rand      func() float64 // in [0, 1), for jitter
	Logger    *slog.Logger
	Metrics   Metrics
	Trace     *trace.Recorder       // keeps what became of messages; nil: nobody does
	Suppress  func() SuppressPolicy // the default: never
}

// SuppressPolicy is when nothing is sent to an address any more.
type SuppressPolicy struct {
	After  int           // failures for good that say that the address is dead; 0: never
	Within time.Duration // so many within this time
	For    time.Duration // for so long nothing is sent then
}

// Queue is the scheduler of one node, and the administrator's hands on the queue.
type Queue struct {
	o       Options
	p       Policy
	wake    chan struct{}   // something changed: look again
	running context.Context // the one given to Run

	wg       sync.WaitGroup         // workers and links being closed
	outcomes chan store.QueueResult // deliveries whose rows are to go, in the order of the answers

	mu        sync.Mutex // guards what follows
	hops      map[string]*hop
	active    int               // workers
	blocked   map[string]bool   // destinations that are paused and stand among those that are due
	providers map[string]string // who runs the servers of destinations, while there are pools

	rules        atomic.Pointer[Rules]
	rulesAt      time.Time // these of the scheduler's goroutine
	rulesVersion string
	rulesSeen    int64
	sentAt       time.Time
	sent         sentToday

	noExpiry atomic.Int64 // Unix ms until which nothing expires
	counters counters
}

type counters struct {
	delivered, deferred, failed, expired, reports, damaged, lost atomic.Int64
}

// New makes a Queue; it does nothing by itself until Run.
func New(o Options) (*Queue, error) {
	if o.Store == nil || o.Hostname == "" {
		return nil, errors.New("queue: a store and a host name are needed")
	}
	if o.Node == "" {
		o.Node = o.Hostname
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = mrand.Float64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Suppress == nil {
		o.Suppress = func() SuppressPolicy { return SuppressPolicy{} }
	}
	o.Policy.setDefaults()
	q := &Queue{o: o, p: o.Policy, wake: make(chan struct{}, 1), hops: map[string]*hop{}, blocked: map[string]bool{}, providers: map[string]string{}}
	q.rules.Store(&Rules{})
	return q, nil
}

// poke makes the scheduler look again. It never blocks.
func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Stats describes the queue and what this process did with it.
type Stats struct {
	store.QueueCounts
	Active                                     int // connections under way
	Delivered, Deferred, Failed, Expired, Lost int64
	Reports, SetAside                          int64
	OldestAge                                  time.Duration
	ExpirySuspendedUntil                       time.Time // zero: not suspended
}

// Stats counts. Its cost grows with the queue: ask it every some seconds at most.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	counts, err := q.o.Store.QueueCounts(ctx)
	if err != nil {
		return Stats{}, err
	}
	c := &q.counters
	s := Stats{
		QueueCounts: counts, Delivered: c.delivered.Load(), Deferred: c.deferred.Load(), Failed: c.failed.Load(),
		Expired: c.expired.Load(), Reports: c.reports.Load(), SetAside: c.damaged.Load(), Lost: c.lost.Load(),
	}
	q.mu.Lock()
	s.Active = q.active
	q.mu.Unlock()
	now := q.o.Clock()
	if !counts.Oldest.IsZero() {
		s.OldestAge = max(0, now.Sub(counts.Oldest))
	}
	if until := time.UnixMilli(q.noExpiry.Load()); until.After(now) {
		s.ExpirySuspendedUntil = until
	}
	return s, nil
}

// Load is what this node has under way.
type Load struct {
	Active  int // connections in use
	Resting int // next hops that are left alone for a while
}

// Load counts in memory.
func (q *Queue) Load() Load {
	now := q.o.Clock()
	q.mu.Lock()
	defer q.mu.Unlock()
	l := Load{Active: q.active}
	for _, h := range q.hops {
		if h.until.After(now) {
			l.Resting++
		}
	}
	return l
}

// List returns a page of messages, oldest first, and the id to go on after (0 at the end).
func (q *Queue) List(ctx context.Context, f store.QueueFilter, after store.QueueID, limit int) ([]store.QueueMessage, store.QueueID, error) {
	return q.o.Store.QueueList(ctx, f, after, limit)
}

// Show returns one message with all its recipients.
func (q *Queue) Show(ctx context.Context, id store.QueueID) (store.QueueMessage, error) {
	return q.o.Store.QueueMessage(ctx, id)
}

// Retry makes waiting recipients due now and ends the rest of their destinations. It returns how many.
func (q *Queue) Retry(ctx context.Context, sel store.QueueFilter) (int, error) {
	return q.o.Store.QueueRetry(ctx, sel)
}

// Hold keeps recipients from being tried until Release.
func (q *Queue) Hold(ctx context.Context, sel store.QueueFilter) (int, error) {
	return q.o.Store.QueueHold(ctx, sel)
}

// Release makes held and damaged recipients due now.
func (q *Queue) Release(ctx context.Context, sel store.QueueFilter) (int, error) {
	return q.o.Store.QueueRelease(ctx, sel)
}

// Drop removes recipients; with report their senders are told that it was done.
func (q *Queue) Drop(ctx context.Context, sel store.QueueFilter, report bool, reason string) (int, error) {
	return q.o.Store.QueueDrop(ctx, sel, report, reason)
}

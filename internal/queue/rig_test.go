package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
	"waxwing/internal/transport"
)

var begin = time.UnixMilli(1_700_000_000_000)

// sent is one message that the fake carrier was given.
type sent struct {
	destination string
	via         transport.Via
	to          []string
	at          time.Time
}

// carrier is a Carrier whose results a test decides.
type carrier struct {
	r *rig

	mu      sync.Mutex
	answer  func(destination, to string) transport.Result
	block   chan struct{} // deliveries wait until it is closed
	sent    []sent
	links   int
	running map[string]int
	most    map[string]int // of running, at any time, and "" of all
}

func (c *carrier) NextHop(destination string) string { return destination }
func (c *carrier) Concurrency(string) int            { return 0 }
func (c *carrier) Link(destination string, via transport.Via) Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links++
	return &link{c: c, destination: destination, via: via}
}

type link struct {
	c           *carrier
	destination string
	via         transport.Via
	open        bool
	used        time.Time
}

func (l *link) Open() bool                              { return l.open }
func (l *link) Used() time.Time                         { return l.used }
func (l *link) Close()                                  { l.open = false }
func (l *link) Via() transport.Via                      { return l.via }
func (l *link) Retarget(d string, v transport.Via) bool { return d == l.destination && v == l.via }
func (l *link) Deliver(ctx context.Context, m *transport.Message) []transport.Result {
	c := l.c
	c.mu.Lock()
	for _, key := range []string{l.destination, ""} {
		c.running[key]++
		c.most[key] = max(c.most[key], c.running[key])
	}
	block, answer := c.block, c.answer
	s := sent{destination: l.destination, via: l.via, at: c.r.now()}
	for _, r := range m.Recipients {
		s.to = append(s.to, r.To)
	}
	c.sent = append(c.sent, s)
	c.mu.Unlock()
	c.r.changed()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
		}
	}
	out := make([]transport.Result, len(m.Recipients))
	for i, r := range m.Recipients {
		out[i] = answer(l.destination, r.To)
		if ctx.Err() != nil {
			out[i] = deferred
		}
	}
	c.mu.Lock()
	c.running[l.destination]--
	c.running[""]--
	c.mu.Unlock()
	l.used, l.open = c.r.now(), true
	return out
}

var (
	ok       = transport.Result{Status: transport.Delivered, Code: 250, Enhanced: smtp.Enhanced{Class: 2}, Message: "250 2.0.0 ok", Host: "mx.b.test"}
	notified = transport.Result{Status: transport.Delivered, Code: 250, Enhanced: smtp.Enhanced{Class: 2}, Message: "250 2.0.0 ok", Host: "mx.b.test", Notifies: true}
	deferred = transport.Result{Status: transport.Deferred, Code: 450, Enhanced: smtp.Enhanced{Class: 4, Subject: 2, Detail: 1}, Message: "450 4.2.1 mailbox busy", Host: "mx.b.test"}
	refused  = transport.Result{Status: transport.Failed, Code: 550, Enhanced: smtp.Enhanced{Class: 5, Subject: 1, Detail: 1}, Message: "550 5.1.1 no such user", Host: "mx.b.test"}
	dead     = transport.Result{Status: transport.Deferred, Enhanced: smtp.Enhanced{Class: 4, Subject: 4, Detail: 1}, Message: "no connection", Unreachable: true}
)

// injector collects notifications.
type injector struct {
	r   *rig
	mu  sync.Mutex
	err error
	got []string // raw
	to  []string
}

func (i *injector) Inject(_ context.Context, to address.Address, raw []byte) error {
	defer i.r.changed()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return i.err
	}
	i.got = append(i.got, string(raw))
	i.to = append(i.to, to.String())
	return nil
}

func (i *injector) notifications() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.got)
}

// rig is a queue over a real store, with a fake carrier, a fake injector and a clock in hand.
type rig struct {
	t     *testing.T
	dir   string
	store *store.Store
	q     *Queue
	c     *carrier
	in    *injector

	mu     sync.Mutex
	clock  time.Time
	notice chan struct{} // closed and renewed at every change
	cancel context.CancelFunc
	ended  chan error
}

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), clock: begin, notice: make(chan struct{})}
	r.store = storetest.Open(t, r.dir, r.now)
	r.c = &carrier{r: r, running: map[string]int{}, most: map[string]int{}, answer: func(string, string) transport.Result { return ok }}
	r.in = &injector{r: r}
	r.rebuild(change)
	return r
}

func (r *rig) rebuild(change func(*Options)) {
	r.t.Helper()
	o := Options{Store: r.store, Transport: r.c, Injector: r.in, Hostname: "mx.here.test", Clock: r.now, Rand: func() float64 { return 0.5 }}
	if change != nil {
		change(&o)
	}
	q, err := New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.q = q
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock
}

func (r *rig) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.notice)
	r.notice = make(chan struct{})
}

// run starts the scheduler; it ends with the test.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel, r.ended = cancel, make(chan error, 1)
	stop := r.store.WatchQueue(r.changed)
	go func() { r.ended <- r.q.Run(ctx) }()
	r.t.Cleanup(func() { r.halt(); stop() })
}

func (r *rig) halt() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	if err := <-r.ended; err != nil && !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run: %v", err)
	}
	r.cancel = nil
}

// advance moves the clock and lets the scheduler look.
func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	r.clock = r.clock.Add(d)
	r.mu.Unlock()
	r.q.poke()
}

// until waits for a condition; it is looked at whenever something changed.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	timeout := time.After(2 * time.Minute)       // a busy machine takes its time
	tick := time.NewTicker(5 * time.Millisecond) // commits that nobody is told of
	defer tick.Stop()
	for {
		r.mu.Lock()
		notice := r.notice
		r.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-notice:
		case <-tick.C:
		case <-timeout:
			c, err := r.store.QueueCounts(context.Background())
			r.t.Fatalf("never happened: %s (queue %+v, %v)", what, c, err)
		}
	}
}

func (r *rig) add(to string, change func(*store.QueueMessage)) store.QueueID {
	r.t.Helper()
	m := &store.QueueMessage{TraceID: "TRACE1", From: "a@here.test", Created: r.now(), Recipients: recipients(to)}
	if change != nil {
		change(m)
	}
	d, err := r.store.Deliver(r.t.Context(), store.Delivery{
		Content: strings.NewReader("From: a@here.test\r\nMessage-ID: <orig@here.test>\r\nSubject: hello\r\n\r\nbody\r\n"), Queue: m,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return d.Queue
}

func recipients(to string) []store.QueueRecipient {
	var out []store.QueueRecipient
	for f := range strings.FieldsSeq(to) {
		_, domain, _ := strings.Cut(f, "@")
		out = append(out, store.QueueRecipient{To: f, Domain: domain})
	}
	return out
}

func (r *rig) counts() store.QueueCounts {
	r.t.Helper()
	c, err := r.store.QueueCounts(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) empty() bool { c := r.counts(); return c.Messages == 0 }

func (r *rig) sends() []sent {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return slices.Clone(r.c.sent)
}

// waiting tells that all rows wait again, after n attempts at the first.
func (r *rig) waiting(id store.QueueID, n int) func() bool {
	return func() bool {
		m, err := r.store.QueueMessage(r.t.Context(), id)
		return err == nil && m.Recipients[0].Attempts == n && m.Recipients[0].State == store.QueueWaiting
	}
}

func (r *rig) answers(fn func(destination, to string) transport.Result) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.c.answer = fn
}

func always(res transport.Result) func(string, string) transport.Result {
	return func(string, string) transport.Result { return res }
}

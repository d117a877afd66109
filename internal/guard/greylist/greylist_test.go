package greylist

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waxwing/internal/address"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Unix(1_800_000_000, 0)} }

var policy = Policy{Delay: 5 * time.Minute, Known: 36 * 24 * time.Hour}

func list(st Store, c *clock) *List {
	return New(Options{Store: st, Clock: c.Now, Policy: func() Policy { return policy }})
}

func attempt(t testing.TB, client, from, to string) Attempt {
	t.Helper()
	a := Attempt{Client: netip.MustParseAddr(client)}
	var err error
	if a.To, err = address.Parse(to); err != nil {
		t.Fatal(err)
	}
	if from != "" {
		if a.From, err = address.Parse(from); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func TestStrangerPassesWhenItComesAgainInTime(t *testing.T) {
	t.Parallel()
	c := newClock()
	g := list(storetest.New(t), c)
	one := attempt(t, "192.0.2.1", "a@far.test", "li@example.test")
	wait := func(a Attempt, want time.Duration) {
		t.Helper()
		if got := g.Check(t.Context(), a, policy); got != want {
			t.Errorf("at %v: %+v waits %v, want %v", c.Now(), a, got, want)
		}
	}
	wait(one, 5*time.Minute)
	c.step(time.Minute)
	wait(one, 4*time.Minute)
	wait(attempt(t, "192.0.2.99", "a@far.test", "li@example.test"), 4*time.Minute)   // of the same network
	wait(attempt(t, "198.51.100.1", "a@far.test", "li@example.test"), 5*time.Minute) // of another
	c.step(4 * time.Minute)
	wait(attempt(t, "192.0.2.1", "b@far.test", "li@example.test"), 5*time.Minute)
	wait(one, 0)
	// From now on the network is known, whoever writes.
	wait(attempt(t, "192.0.2.200", "c@other.test", "ann@example.test"), 0)
	if !g.Remembers(netip.MustParseAddr("192.0.2.3"), policy) {
		t.Error("the network is not remembered")
	}
	c.step(37 * 24 * time.Hour)
	wait(one, 5*time.Minute)
	// Who comes too late begins anew.
	late := attempt(t, "203.0.113.1", "a@far.test", "li@example.test")
	wait(late, 5*time.Minute)
	c.step(Window + time.Second)
	wait(late, 5*time.Minute)
}

func TestRetryAtAnotherNodeOrAfterARestartPasses(t *testing.T) {
	t.Parallel()
	c, st := newClock(), storetest.New(t)
	first, second := list(st, c), list(st, c)
	a := attempt(t, "2001:db8::1", "a@far.test", "li@example.test")
	b := attempt(t, "2001:db8::2", "b@far.test", "li@example.test")
	if first.Check(t.Context(), a, policy) == 0 || second.Check(t.Context(), b, policy) == 0 {
		t.Fatal("a stranger was not greylisted")
	}
	for _, g := range []*List{first, second} {
		if err := g.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.step(policy.Delay)
	if w := second.Check(t.Context(), a, policy); w != 0 {
		t.Errorf("a retry at another node waits %v", w)
	}
	if err := second.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	third := list(st, c)
	if w := third.Check(t.Context(), attempt(t, "2001:db8::9", "new@far.test", "li@example.test"), policy); w != 0 {
		t.Errorf("a known network waits %v", w)
	}
	// All of it expires.
	c.step(40 * 24 * time.Hour)
	if err := third.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, err := st.GreyRows(t.Context(), a.keys().attempt, a.keys().network); err != nil || len(rows) != 0 {
		t.Errorf("%+v, %v", rows, err)
	}
}

func TestWhoHasDeliveredWellIsKnown(t *testing.T) {
	t.Parallel()
	c := newClock()
	g := list(storetest.New(t), c)
	a := attempt(t, "192.0.2.1", "news@far.test", "li@example.test")
	g.Delivered(a.Client, a.From)
	g.Delivered(netip.MustParseAddr("198.51.100.1"), address.Address{}) // a bounce says nothing of who sends it
	if w := g.Check(t.Context(), a, policy); w != 0 {
		t.Errorf("a known sender waits %v", w)
	}
	for _, other := range []Attempt{
		attempt(t, "192.0.2.1", "news@other.test", "li@example.test"), attempt(t, "198.51.100.1", "", "li@example.test"),
	} {
		if g.Check(t.Context(), other, policy) == 0 {
			t.Errorf("%+v passes", other)
		}
	}
}

// broken is a store that fails.
type broken struct{ fails bool }

var errBroken = errors.New("broken")

func (b *broken) GreyRows(context.Context, ...string) ([]store.GreyRow, error) { return nil, b.err() }

func (b *broken) SaveGreyRows(context.Context, []store.GreyRow, time.Time) error { return b.err() }

func (b *broken) ExpireGreyRows(context.Context, time.Time, time.Time) (int64, error) {
	return maxRows, b.err()
}

func (b *broken) err() error {
	if b.fails {
		return errBroken
	}
	return nil
}

func TestAStoreThatFailsOnlyDelays(t *testing.T) {
	t.Parallel()
	c, st := newClock(), &broken{fails: true}
	g := list(st, c)
	a := attempt(t, "192.0.2.1", "a@far.test", "li@example.test")
	if g.Check(t.Context(), a, policy) != policy.Delay {
		t.Error("no delay")
	}
	if err := g.Flush(t.Context()); !errors.Is(err, errBroken) || len(g.fresh) != 1 {
		t.Errorf("%v, %d rows wait", err, len(g.fresh))
	}
	c.step(policy.Delay)
	if w := g.Check(t.Context(), a, policy); w != 0 {
		t.Errorf("a retry waits %v", w)
	}
	st.fails = false
	if err := g.Flush(t.Context()); err != nil || len(g.fresh) != 0 {
		t.Errorf("%v, %d rows wait", err, len(g.fresh))
	}
}

func TestMemoryAndStoreAreBounded(t *testing.T) {
	t.Parallel()
	c := newClock()
	g := list(&broken{}, c)
	for i := range 2*maxEntries + 1000 {
		client := netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
		g.Check(t.Context(), Attempt{Client: client, To: address.Address{Local: fmt.Sprint(i), Domain: "example.test"}}, policy)
	}
	if n := len(g.new) + len(g.old); n > 2*maxEntries {
		t.Errorf("%d entries in memory", n)
	}
	if len(g.fresh) > maxFresh {
		t.Errorf("%d rows wait to be written", len(g.fresh))
	}
	if err := g.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	one := netip.MustParseAddr("192.0.2.1")
	for i := range 2 * maxOfOne {
		g.Check(t.Context(), Attempt{Client: one, To: address.Address{Local: fmt.Sprint(i), Domain: "example.test"}}, policy)
	}
	if len(g.fresh) != maxOfOne {
		t.Errorf("%d rows of one network wait to be written", len(g.fresh))
	}
	// A full store takes no new attempts, and still what has passed.
	if err := errors.Join(g.Flush(t.Context()), g.Expire(t.Context())); err != nil {
		t.Fatal(err)
	}
	a := attempt(t, "198.51.100.1", "a@far.test", "li@example.test")
	g.Check(t.Context(), a, policy)
	if len(g.fresh) != 0 {
		t.Error("a new attempt goes to a full store")
	}
	c.step(policy.Delay)
	if g.Check(t.Context(), a, policy) != 0 || len(g.fresh) == 0 {
		t.Error("what has passed is not kept")
	}
}

// TestClockJumpsOnlyDelay: whatever the clock does, a stranger that goes on trying gets through, and nobody waits longer
// than the delay.
func TestClockJumpsOnlyDelay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		g := list(&broken{}, c)
		a := Attempt{Client: netip.MustParseAddr("192.0.2.1"), To: address.Address{Local: "li", Domain: "example.test"}}
		for range rapid.IntRange(1, 20).Draw(t, "tries") {
			c.step(time.Duration(rapid.Int64Range(int64(-400*24*time.Hour), int64(400*24*time.Hour)).Draw(t, "jump")))
			if w := g.Check(t.Context(), a, policy); w < 0 || w > policy.Delay {
				t.Fatalf("waits %v", w)
			}
		}
		g.Check(t.Context(), a, policy)
		c.step(policy.Delay)
		if w := g.Check(t.Context(), a, policy); w != 0 {
			t.Fatalf("a retry after the delay waits %v", w)
		}
	})
}

func TestSendersThatChangeWithEachMessageAreOne(t *testing.T) {
	t.Parallel()
	for _, same := range [][]string{
		{"bounce-123456-7@list.test", "bounce-98-12@list.test"},
		{"bounces+4711-ab12-li=example.test@mail.test", "bounces+4712-cd34-ann=example.test@mail.test"},
		{"news-return-12-li=example.test@list.test", "news-return-13-ann=example.test@list.test"},
		{"0100018f3a-1b2c@ses.test", "0100019f44-9a8b@ses.test"},
		{"prvs=1234abcdef=li@far.test", "prvs=9876fedcba=li@far.test", "li@far.test"},
		{"SRS0=abCD=X1=orig.test=li@fwd.test", "srs0=ZZzz=Y2=other.test=ann@fwd.test"},
	} {
		want := ""
		for i, text := range same {
			a, err := address.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				want = normal(a)
			} else if got := normal(a); got != want {
				t.Errorf("%s is %s, %s is %s", same[0], want, text, got)
			}
		}
	}
	for _, differ := range [][2]string{{"li@far.test", "ann@far.test"}, {"li@far.test", "li@near.test"}, {"li.wei@far.test", "li@far.test"}} {
		a, _ := address.Parse(differ[0])
		b, _ := address.Parse(differ[1])
		if normal(a) == normal(b) {
			t.Errorf("%s and %s are one", differ[0], differ[1])
		}
	}
}

func BenchmarkKnown(b *testing.B) {
	g := list(&broken{}, newClock())
	a := Attempt{Client: netip.MustParseAddr("192.0.2.1"), From: address.Address{Local: "a", Domain: "far.test"}, To: address.Address{Local: "li", Domain: "example.test"}}
	g.Delivered(a.Client, a.From)
	b.ReportAllocs()
	for b.Loop() {
		if g.Check(b.Context(), a, policy) != 0 {
			b.Fatal("not known")
		}
	}
}

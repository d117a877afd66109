package queue

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

// rule keeps a rule as an administrator would.
func (r *rig) rule(kind, name string, value any) {
	r.t.Helper()
	text, err := json.Marshal(value)
	if err == nil {
		err = r.store.SetQueueRule(r.t.Context(), store.QueueRule{Kind: kind, Name: name, Value: string(text)})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) unrule(kind, name string) {
	r.t.Helper()
	if err := r.store.RemoveQueueRule(r.t.Context(), kind, name); err != nil {
		r.t.Fatal(err)
	}
}

// first is the first recipient in the queue.
func (r *rig) first() store.QueueRecipient {
	r.t.Helper()
	page, _, err := r.store.QueueList(r.t.Context(), store.QueueFilter{}, 0, 1)
	if err != nil || len(page) == 0 || len(page[0].Recipients) == 0 {
		r.t.Fatal(page, err)
	}
	return page[0].Recipients[0]
}

// sentTo counts what was sent to a destination.
func (r *rig) sentTo(destination string) int {
	n := 0
	for _, s := range r.sends() {
		if s.destination == destination {
			n++
		}
	}
	return n
}

func TestPausesHoldAcrossARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.rule(KindPause, PauseTo+"b.test", Pause{})
	r.rule(KindPause, PauseFrom+"bulk.test", Pause{})
	r.add("x@b.test", nil)
	r.add("x@c.test", nil)
	r.add("y@c.test", func(m *store.QueueMessage) { m.From = "News@Bulk.test" })
	r.run()
	r.until("what is not paused is sent", func() bool { return r.counts().Messages == 2 && r.counts().Held == 1 })
	r.halt()
	r.rebuild(nil)
	r.run()
	r.add("z@c.test", nil)
	r.until("what is not paused is sent", func() bool { return r.sentTo("c.test") == 2 })
	if n := r.sentTo("b.test"); n != 0 {
		t.Fatalf("%d messages to a destination that is paused", n)
	}
	r.unrule(KindPause, PauseTo+"b.test")
	if err := r.store.QueueWakeDestination(t.Context(), "b.test"); err != nil {
		t.Fatal(err)
	}
	r.until("the destination is resumed", func() bool { return r.sentTo("b.test") == 1 })
	r.unrule(KindPause, PauseFrom+"bulk.test")
	n, err := r.store.QueueRelease(t.Context(), store.QueueFilter{HeldFor: PauseFrom + "bulk.test"})
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	r.until("the end", r.empty)

	r.rule(KindPause, PauseAll, Pause{})
	r.add("a@d.test", nil)
	r.add("a@e.test", nil)
	r.advance(time.Hour)
	if n := r.sentTo("d.test"); n != 0 {
		t.Fatalf("%d messages while all is paused", n)
	}
	r.unrule(KindPause, PauseAll)
	r.until("the end", r.empty)
}

func TestARateIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.rule(KindLimit, "b.test", Limit{PerMinute: 12}) // two at once, then one each five seconds
	for range 10 {
		r.add("x@b.test", nil)
	}
	r.add("x@c.test", nil)
	r.run()
	r.until("the first ones", func() bool { return r.sentTo("b.test") == 2 && r.sentTo("c.test") == 1 })
	for want := 3; want <= 10; want++ {
		r.until("the next is given back", func() bool { return r.counts().Leased == 0 })
		r.advance(5 * time.Second)
		r.until(fmt.Sprint(want), func() bool { return r.sentTo("b.test") == want })
	}
	r.until("the end", r.empty)
	sends := map[int64]int{}
	for _, s := range r.sends() {
		if s.destination == "b.test" {
			sends[s.at.Sub(begin).Milliseconds()/5000]++
		}
	}
	for at, n := range sends {
		if n > 2 || at > 0 && n > 1 {
			t.Errorf("%d messages in the five seconds from %d", n, at*5)
		}
	}
}

func TestConcurrencyStartsSlowlyAndFallsWhenTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	q := r.q
	q.rules.Store(&Rules{limits: map[string]Limit{"b.test": {Concurrency: 8}}})
	_, n := q.allow("b.test", false)
	if n != slowStart {
		t.Fatalf("%d connections to begin with", n)
	}
	h := q.newHop("b.test")
	q.hops["b.test"] = h
	for range 20 {
		q.reached("b.test")
	}
	if _, n = q.allow("b.test", false); n != 8 {
		t.Fatalf("%d connections after success", n)
	}
	busy := transport.Result{Status: transport.Deferred, Code: 451, Reply: "451 4.7.1 too many connections", Host: "mx.b.test"}
	v := verdict(&busy)
	for range 5 { // all at the same time: once
		if rest := q.adapt("b.test", &busy, v, time.Time{}); !rest.IsZero() {
			t.Fatal("it rests at once")
		}
	}
	if _, n = q.allow("b.test", false); n != 4 {
		t.Fatalf("%d connections after trouble", n)
	}
	q.reached("b.test")
	if _, n = q.allow("b.test", false); n != 4 {
		t.Fatalf("%d connections after one success", n)
	}
	for range 40 {
		q.reached("b.test")
	}
	if _, n = q.allow("b.test", false); n != 8 {
		t.Fatalf("%d connections after recovery", n)
	}
	var rest time.Time
	for range maxPutOffs {
		r.advance(time.Minute)
		rest = q.adapt("b.test", &busy, v, time.Time{})
	}
	if _, n = q.allow("b.test", false); n != 0 || !rest.After(r.now()) {
		t.Fatalf("%d connections, rest until %v after trouble again and again", n, rest)
	}
	r.advance(time.Hour)
	if _, n = q.allow("b.test", false); n != 1 {
		t.Fatalf("%d connections try whether it is back", n)
	}
}

func TestADeadAddressIsSuppressed(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) {
		o.Suppress = func() SuppressPolicy { return SuppressPolicy{After: 2, Within: 24 * time.Hour, For: 48 * time.Hour} }
	})
	r.answers(always(refused))
	r.run()
	try := func(want int) {
		t.Helper()
		notices := len(r.in.notifications())
		r.add("X@b.test", nil)
		r.until("the report", func() bool { return r.empty() && len(r.in.notifications()) == notices+1 })
		if n := len(r.sends()); n != want {
			t.Fatalf("%d attempts, want %d", n, want)
		}
	}
	try(1)
	try(2)
	try(2)
	if got := strings.ReplaceAll(r.in.notifications()[2], "\r\n ", " "); !strings.Contains(got, "5.7.1") || !strings.Contains(got, "nothing is sent to this address since 2023-11-14: 550 5.1.1") {
		t.Errorf("report:\n%s", got)
	}
	r.add("x@b.test", func(m *store.QueueMessage) { m.From = "a@other.test" })
	r.until("another sender's mail is tried", func() bool { return r.empty() && len(r.sends()) == 3 })
	r.advance(49 * time.Hour)
	if err := r.store.QueueTidy(t.Context(), r.now()); err != nil {
		t.Fatal(err)
	}
	try(4)
}

func TestAFullMailboxIsNotSuppressed(t *testing.T) {
	t.Parallel()
	q := &Queue{o: Options{Suppress: func() SuppressPolicy { return SuppressPolicy{After: 1, Within: time.Hour, For: time.Hour} }}}
	m := &store.QueueMessage{From: "a@b.test"}
	for text, want := range map[string]bool{
		"550 5.1.1 no such user": true, "552 5.2.2 mailbox full": false, "554 5.7.1 spam": false, "550 5.7.1 your ip is blocked": false,
	} {
		tr := transport.Result{Status: transport.Failed, Code: 550, Reply: text, Message: text}
		tr.Enhanced, _ = smtp.ParseEnhanced(text[4:9])
		if got := q.failure(m, &tr, verdict(&tr)) != nil; got != want {
			t.Errorf("%s: counted %t", text, got)
		}
	}
}

func TestPoolsAreChosenByRuleAndWarmUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	r.rule(KindPool, "account", Pool{Sources: []Source{{Address: a, Name: "out-a.test"}}, Accounts: []int64{7}})
	r.rule(KindPool, "news", Pool{
		Sources: []Source{{Address: b}}, Senders: []string{"news.test"}, Fallback: "rest",
		Warmup: &Warmup{Begin: begin, First: 2, Growth: 2, Until: 1000},
	})
	r.rule(KindPool, "rest", Pool{Sources: []Source{{Address: c}}})
	r.run()
	r.add("x@b.test", func(m *store.QueueMessage) { m.Account, m.From = 7, "a@news.test" })
	for range 5 {
		r.add("x@c.test", func(m *store.QueueMessage) { m.From = "a@news.test" })
	}
	r.add("x@d.test", nil)
	r.until("the end", r.empty)
	got := map[string]int{}
	for _, s := range r.sends() {
		got[s.destination+" "+s.via.Address.String()+" "+s.via.Name]++
	}
	want := map[string]int{"b.test 192.0.2.1 out-a.test": 1, "c.test 192.0.2.2 ": 2, "c.test 192.0.2.3 ": 3, "d.test invalid IP ": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("sent %v, want %v", got, want)
	}
	// What was sent today is known after a restart, and without a fallback it waits for the next day.
	r.halt()
	r.rule(KindPool, "news", Pool{
		Sources: []Source{{Address: b}}, Senders: []string{"news.test"}, Warmup: &Warmup{Begin: begin, First: 2, Growth: 2, Until: 1000},
	})
	r.rebuild(nil)
	r.run()
	r.add("y@c.test", func(m *store.QueueMessage) { m.From = "a@news.test" })
	r.until("it waits", func() bool {
		return r.counts().Waiting == 1 && r.counts().Leased == 0 && !r.first().NextAttempt.Before(nextDay(begin))
	})
	r.advance(24 * time.Hour)
	r.until("it is sent on the next day", r.empty)
}

func TestWarmUpGrowsByPlan(t *testing.T) {
	t.Parallel()
	w := &Warmup{Begin: time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC), First: 50, Growth: 2, Until: 400}
	for day, want := range map[int]int64{0: 50, 1: 100, 2: 200, 3: -1, 1000: -1, -3: 50} {
		if got := w.Allowed(time.Date(2026, 3, 1+day, 1, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("day %d: %d, want %d", day, got, want)
		}
	}
	var none *Warmup
	if none.Allowed(time.Now()) != -1 {
		t.Error("no plan is a limit")
	}
}

// TestTokensNeverExceedTheRate: whatever the clock does, no more is sent than the rate and one burst allow.
func TestTokensNeverExceedTheRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &hop{perMinute: rapid.IntRange(1, 600).Draw(t, "rate")}
		now, sent := begin, 0
		for range rapid.IntRange(1, 300).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "ms")) * time.Millisecond)
			if at := h.nextToken(now); at.IsZero() {
				h.tokens--
				sent++
			} else if !at.After(now) {
				t.Fatal("a token is promised for the past")
			}
		}
		if most := float64(h.perMinute)*now.Sub(begin).Minutes() + max(1, float64(h.perMinute)*burst.Minutes()) + 1; float64(sent) > most {
			t.Fatalf("%d sent, %v allowed", sent, most)
		}
	})
}

func TestRulesThatCannotBeRightAreRefused(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr("192.0.2.1")
	for _, rule := range []interface{ Check() error }{
		Limit{Destination: "b.test"},
		Limit{Destination: "b test", Concurrency: 1},
		Limit{Destination: "b.test", Concurrency: -1},
		Pause{},
		Pool{Name: "a", Sources: nil},
		Pool{Name: "A b", Sources: []Source{{Address: ip}}},
		Pool{Name: "a", Sources: []Source{{}}},
		Pool{Name: "a", Sources: []Source{{Address: ip, Name: "x y"}}},
		Pool{Name: "a", Sources: []Source{{Address: ip}}, Fallback: "a"},
		Pool{Name: "a", Sources: []Source{{Address: ip}}, Senders: []string{"@"}},
		Pool{Name: "a", Sources: []Source{{Address: ip}}, Warmup: &Warmup{First: 0, Growth: 2, Until: 10}},
	} {
		if rule.Check() == nil {
			t.Errorf("%+v passes", rule)
		}
	}
	if _, err := ReadRules([]store.QueueRule{{Kind: KindLimit, Name: "x", Value: "{"}, {Kind: "unknown", Name: "y"}}); err == nil {
		t.Error("a rule that can't be read is not told")
	}
}

package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/message"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDeliveredMailLeavesTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.add("x@b.test y@b.test z@c.test", nil)
	r.run()
	r.until("delivery", r.empty)
	var got []string
	for _, s := range r.sends() {
		got = append(got, fmt.Sprint(s.destination, s.to))
	}
	slices.Sort(got)
	if want := []string{"b.test[x@b.test y@b.test]", "c.test[z@c.test]"}; !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
	if n := r.in.notifications(); len(n) != 0 {
		t.Errorf("%d notifications", len(n))
	}
	s, err := r.q.Stats(t.Context())
	if err != nil || s.Delivered != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestNewMailIsNoticedAtOnceAndUsesTheOpenLink(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.run()
	for i := range 5 {
		r.add("x@b.test", nil)
		r.until(fmt.Sprintf("delivery %d", i), r.empty)
		r.until("the link is back", func() bool { s, err := r.q.Stats(t.Context()); return err == nil && s.Active == 0 })
	}
	if r.c.links != 1 {
		t.Errorf("%d links for five messages one after another", r.c.links)
	}
}

func TestBackoffGrowsToItsLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(deferred))
	id := r.add("x@b.test", nil)
	r.run()
	want := []time.Duration{300, 600, 1200, 2400, 4000, 4000}
	for i, w := range want {
		r.until(fmt.Sprintf("attempt %d", i+1), r.waiting(id, i+1))
		m, err := r.q.Show(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		rc := m.Recipients[0]
		if got := rc.NextAttempt.Sub(r.now()); got != w*time.Second {
			t.Errorf("after attempt %d: %v, want %v", i+1, got, w*time.Second)
		}
		if rc.LastError != deferred.Message || rc.LastStatus != "4.2.1" || rc.LastHost != "mx.b.test" {
			t.Errorf("row %+v", rc)
		}
		r.advance(w*time.Second - time.Millisecond)
		if n := len(r.sends()); n != i+1 {
			t.Errorf("tried too early: %d attempts", n)
		}
		r.advance(time.Millisecond)
	}
}

func TestJitterSpreadsRetries(t *testing.T) {
	t.Parallel()
	x := 0.0
	q, err := New(Options{Store: &store.Store{}, Hostname: "h", Rand: func() float64 { return x }})
	if err != nil {
		t.Fatal(err)
	}
	low := q.backoff(1)
	x = 0.999999
	if high := q.backoff(1); low != 255*time.Second || high < 344*time.Second || high > 345*time.Second {
		t.Errorf("from %v to %v", low, high)
	}
	if d := q.backoff(1 << 30); d > 4600*time.Second {
		t.Errorf("after very many attempts: %v", d)
	}
}

func TestWhoIsNotifiedOfWhat(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		notify smtp.Notify
		from   string
		result transport.Result
		want   string // Action of the notification, "" for none
	}{
		{"failure by default", 0, "a@here.test", refused, "failed"},
		{"failure asked for", smtp.NotifyFailure, "a@here.test", refused, "failed"},
		{"failure not asked for", smtp.NotifySuccess | smtp.NotifyDelay, "a@here.test", refused, ""},
		{"never", smtp.NotifyNever, "a@here.test", refused, ""},
		{"null sender", 0, "", refused, ""},
		{"null sender that asks", smtp.NotifyFailure | smtp.NotifySuccess, "", refused, ""},
		{"success by default", 0, "a@here.test", ok, ""},
		{"success asked for, next hop sends none", smtp.NotifySuccess, "a@here.test", ok, "relayed"},
		{"success asked for, next hop sends it", smtp.NotifySuccess, "a@here.test", notified, ""},
		{"success asked for by null sender", smtp.NotifySuccess, "", ok, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.answers(always(tc.result))
			r.add("x@b.test", func(m *store.QueueMessage) { m.From = tc.from; m.Recipients[0].Notify = uint8(tc.notify) })
			r.run()
			r.until("the end", r.empty)
			got := r.in.notifications()
			if tc.want == "" {
				if len(got) != 0 {
					t.Errorf("notified: %s", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], "\r\nAction: "+tc.want+"\r\n") {
				t.Fatalf("notifications %q", got)
			}
			if len(r.sends()) != 1 {
				t.Errorf("%d attempts", len(r.sends()))
			}
		})
	}
}

func TestOneNotificationTellsOfAllRecipientsThatFailed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(func(_, to string) transport.Result {
		if strings.HasPrefix(to, "good") {
			return ok
		}
		return refused
	})
	r.add("x@b.test good@b.test y@b.test", nil)
	r.run()
	r.until("the end", r.empty)
	got := r.in.notifications()
	if len(got) != 1 || strings.Count(got[0], "Final-Recipient:") != 2 || strings.Contains(got[0], "good@b.test") {
		t.Errorf("%d notifications: %s", len(got), got)
	}
}

func TestDelayIsToldOnceAndExpiryInTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Policy.ClockGap = 2 * time.Hour }) // the test's steps are no jumps
	r.answers(always(deferred))
	id := r.add("x@b.test", nil)
	r.run()
	start := r.now()
	told := time.Duration(0)
	n := 0
	for ; n < 1000; n++ {
		r.until("attempt", func() bool { return r.empty() || r.waiting(id, n+1)() || len(r.in.notifications()) > 1 })
		if told == 0 && len(r.in.notifications()) == 1 {
			told = r.now().Sub(start)
		}
		if len(r.in.notifications()) > 1 {
			break
		}
		r.advance(4000 * time.Second)
	}
	r.until("the end", r.empty)
	got := r.in.notifications()
	if told < 4*time.Hour || told > 6*time.Hour {
		t.Errorf("delay told after %v", told)
	}
	if age := r.now().Sub(start); age < 5*24*time.Hour || age > 5*24*time.Hour+3*time.Hour {
		t.Errorf("given up after %v", age)
	}
	if len(got) != 2 || !strings.Contains(got[0], "Action: delayed\r\n") || !strings.Contains(got[0], "Will-Retry-Until:") || !strings.Contains(got[1], "Action: failed\r\n") {
		t.Errorf("%d notifications", len(got))
	}
}

func TestNothingExpiresBecauseTheClockJumped(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(deferred))
	id := r.add("x@b.test", nil)
	r.run()
	r.until("first attempt", r.waiting(id, 1))
	r.advance(10 * 365 * 24 * time.Hour)
	r.until("second attempt", r.waiting(id, 2))
	if s, err := r.q.Stats(t.Context()); err != nil || s.ExpirySuspendedUntil.IsZero() || s.Expired != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	// A restart does not end the grace.
	r.halt()
	r.rebuild(nil)
	r.run()
	r.advance(2 * time.Hour) // one step: a step for each look would be over the grace on a slow machine
	r.until("third attempt", r.waiting(id, 3))
	if got := r.in.notifications(); len(got) != 1 || strings.Contains(got[0], "Action: failed") {
		t.Errorf("%d notifications", len(got)) // the delay alone
	}
	r.until("expiry after the grace", func() bool { r.advance(30 * time.Minute); return r.empty() })
	if len(r.in.notifications()) != 2 {
		t.Error("the end was not told")
	}
}

func TestAJumpOfTheClockDoesNotSendTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	block := make(chan struct{})
	r.c.block = block
	r.add("x@b.test", nil)
	r.run()
	r.until("an attempt is under way", func() bool { return len(r.sends()) == 1 })
	r.advance(10 * 365 * 24 * time.Hour)
	r.add("y@c.test", nil)
	r.until("the scheduler has looked", func() bool { return len(r.sends()) == 2 })
	close(block)
	r.until("the end", r.empty)
	if n := len(r.sends()); n != 2 {
		t.Errorf("%d attempts for two messages", n)
	}
}

func TestAClockSetBackDoesNotStopTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(deferred))
	id := r.add("x@b.test", nil)
	r.run()
	r.until("first attempt", r.waiting(id, 1))
	r.advance(-10 * 365 * 24 * time.Hour)
	r.until("the schedule is repaired", func() bool {
		m, err := r.q.Show(t.Context(), id)
		return err == nil && m.Recipients[0].NextAttempt.Sub(r.now()) <= 4000*time.Second
	})
	r.answers(always(ok))
	r.advance(4001 * time.Second)
	r.until("delivery", r.empty)
}

func TestANotificationThatCannotBeSentWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(refused))
	r.in.err = errors.New("disk full")
	id := r.add("x@b.test", nil)
	r.run()
	r.until("the report failed once", r.waiting(id, 2))
	m, err := r.q.Show(t.Context(), id)
	if err != nil || m.Recipients[0].Outcome != store.QueueFailed || m.Recipients[0].LastError != refused.Message {
		t.Fatalf("%+v, %v", m, err)
	}
	r.in.mu.Lock()
	r.in.err = nil
	r.in.mu.Unlock()
	r.advance(time.Hour)
	r.until("the end", r.empty)
	if len(r.sends()) != 1 || len(r.in.notifications()) != 1 {
		t.Errorf("%d attempts, %d notifications", len(r.sends()), len(r.in.notifications()))
	}
}

func TestASenderThatTakesNoNotificationEndsIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(refused))
	r.in.err = fmt.Errorf("submit: %w", &smtp.Reply{Code: 550, Enhanced: smtp.Enhanced{Class: 5, Subject: 1, Detail: 1}, Text: "no such mailbox"})
	r.add("x@b.test", nil)
	r.run()
	r.until("the end", r.empty)
}

func TestACrashAfterTheOutcomeLosesNoNotification(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	id := r.add("x@b.test", nil)
	// What a process leaves that was killed between the commit of the outcome and the notification: leased for it.
	take := func() store.QueueTaken {
		w, err := r.store.QueueTakeWork(t.Context(), store.QueueTake{
			Now: r.now(), Owner: "mx.here.test", Lease: time.Hour, Slots: 1, Batch: 1, Allow: func(string, bool) (string, int) { return "x", 1 },
		})
		if err != nil || len(w.Work) != 1 {
			t.Fatal(w, err)
		}
		return w
	}
	rc := take().Work[0].Messages[0].Recipients[0]
	if _, err := r.store.QueueFinish(t.Context(), r.now(), []store.QueueResult{{
		Message: id, ID: rc.ID, Domain: "b.test", Lane: rc.Lane, Lease: rc.Lease, Outcome: store.QueueFailed, NextAttempt: r.now(), LastError: "550 no", LastStatus: "5.0.0",
	}}); err != nil {
		t.Fatal(err)
	}
	take()
	r.run()
	r.until("the end", r.empty)
	if len(r.sends()) != 0 || len(r.in.notifications()) != 1 {
		t.Errorf("%d attempts, %d notifications", len(r.sends()), len(r.in.notifications()))
	}
}

func TestADeadDestinationRestsAndTheOthersFlow(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Policy.Workers = 4; o.Policy.Batch = 1 })
	r.answers(func(d, _ string) transport.Result {
		if d == "dead.test" {
			return dead
		}
		return ok
	})
	for i := range 50 {
		r.add(fmt.Sprintf("x%d@dead.test", i), nil)
	}
	for i := range 50 {
		r.add(fmt.Sprintf("x%d@live%d.test", i, i), nil)
	}
	r.run()
	r.until("the living got theirs", func() bool { return r.counts().Messages == 50 })
	r.until("the dead one rests", func() bool { c := r.counts(); return c.Leased == 0 })
	first := 0
	for _, s := range r.sends() {
		if s.destination == "dead.test" {
			first++
		}
	}
	if first > 5 {
		t.Errorf("%d attempts at a dead destination before it rests", first)
	}
	// After its rest one connection tries; when that works, all follow.
	r.advance(time.Minute)
	r.until("a probe", func() bool {
		n := 0
		for _, s := range r.sends() {
			if s.destination == "dead.test" {
				n++
			}
		}
		return n == first+1
	})
	r.until("it rests again", func() bool { return r.counts().Leased == 0 })
	r.answers(always(ok))
	r.until("all is delivered", func() bool { r.advance(10 * time.Minute); return r.empty() })
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Policy.Workers = 12; o.Policy.Concurrency = 5; o.Policy.Batch = 1 })
	block := make(chan struct{})
	r.c.block = block
	for i := range 40 {
		r.add(fmt.Sprintf("x%d@b.test", i), nil)
		r.add(fmt.Sprintf("x%d@c.test", i), nil)
		r.add(fmt.Sprintf("x%d@d%d.test", i, i), nil)
	}
	r.run()
	r.until("all workers are busy", func() bool { r.c.mu.Lock(); defer r.c.mu.Unlock(); return r.c.running[""] == 12 })
	close(block)
	r.until("the end", r.empty)
	for key, limit := range map[string]int{"b.test": 5, "c.test": 5, "": 12} {
		if got := r.c.most[key]; got > limit {
			t.Errorf("%d at a time to %q, limit %d", got, key, limit)
		}
	}
}

func TestAnAdministratorEndsTheRestOfADestination(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(dead))
	id := r.add("x@b.test", nil)
	r.run()
	r.until("first attempt", r.waiting(id, 1))
	r.until("it rests", func() bool { _, resting := r.q.resting("b.test"); return resting })
	r.answers(always(ok))
	if n, err := r.store.QueueRetry(t.Context(), store.QueueFilter{IDs: []store.QueueID{id}}); err != nil || n != 1 { // as the command line does
		t.Fatal(n, err)
	}
	r.until("delivery without any time passing", r.empty)
}

func TestTroubleLowersConcurrencyAndSuccessRaisesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	q := r.q
	q.hops["b.test"] = &hop{limit: 5}
	q.unreachable("b.test")
	if h := q.hops["b.test"]; h.limit != 2.5 || h.fails != 1 {
		t.Errorf("%+v", h)
	}
	first := q.hops["b.test"].until
	q.unreachable("b.test") // by another worker, at the same time
	if h := q.hops["b.test"]; h.limit != 2.5 || h.until != first {
		t.Errorf("%+v", h)
	}
	if _, n := q.allow("b.test", false); n != 0 {
		t.Errorf("%d allowed at rest", n)
	}
	r.advance(time.Hour)
	if _, n := q.allow("b.test", false); n != 1 {
		t.Errorf("%d allowed as a probe", n)
	}
	q.unreachable("b.test")
	if d := q.hops["b.test"].until.Sub(r.now()); d != 2*time.Minute {
		t.Errorf("second rest %v", d)
	}
	for range 100 {
		q.reached("b.test")
	}
	if _, n := q.allow("b.test", false); n != 5 {
		t.Errorf("%d allowed after success", n)
	}
}

func TestDamagedMailIsSetAsideAndTheRestFlows(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	damage := func(query string) func(id store.QueueID) {
		return func(id store.QueueID) {
			if err := r.store.Write(t.Context(), func(tx *store.Tx) error {
				_, err := tx.Exec(query, id)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	ids := []store.QueueID{}
	for _, d := range []func(store.QueueID){
		damage(`UPDATE queue_recipient SET rcpt = 'x@b.test> NOTIFY=NEVER' WHERE message_id = $1`),
		damage(`UPDATE queue_message SET sender = 'no address' WHERE id = $1`),
		damage(`UPDATE queue_message SET blob_id = 999 WHERE id = $1`),
	} {
		id := r.add("bad@b.test", nil)
		d(id)
		ids = append(ids, id)
	}
	r.add("good@b.test", nil)
	r.run()
	r.until("the good one is delivered", func() bool { c := r.counts(); return c.Messages == 3 && c.Damaged == 3 })
	for _, id := range ids {
		m, err := r.q.Show(t.Context(), id)
		if err != nil || m.Recipients[0].State != store.QueueDamaged || m.Recipients[0].LastError == "" {
			t.Errorf("%+v, %v", m, err)
		}
	}
	r.until("all are counted", func() bool { // behind the commit
		s, err := r.q.Stats(t.Context())
		return err == nil && s.SetAside == 3
	})
}

func TestContentThatTurnsOutDamagedIsSetAside(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	broken := deferred
	broken.Err = fmt.Errorf("read: %w", store.ErrCorrupt)
	r.answers(always(broken))
	r.add("x@b.test", nil)
	r.run()
	r.until("it is set aside", func() bool { return r.counts().Damaged == 1 })
}

func TestStoppingFinishesWhatIsUnderWayAndGivesTheRestBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Policy.Concurrency = 1 })
	block := make(chan struct{})
	r.c.block = block
	first := r.add("x1@b.test", nil)
	second := r.add("x2@b.test", nil)
	r.run()
	r.until("the first is under way", func() bool { return len(r.sends()) == 1 })
	r.cancel()
	close(block)
	r.halt()
	r.cancel = nil
	if _, err := r.q.Show(t.Context(), first); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the first was not finished: %v", err)
	}
	m, err := r.q.Show(t.Context(), second)
	if err != nil || m.Recipients[0].State != store.QueueWaiting || m.Recipients[0].Attempts != 0 {
		t.Errorf("the second: %+v, %v", m, err)
	}
}

func TestStoppingCutsWhatHangs(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Policy.Grace = 10 * time.Millisecond })
	r.c.block = make(chan struct{}) // never closed
	id := r.add("x@b.test", nil)
	r.run()
	r.until("it is under way", func() bool { return len(r.sends()) == 1 })
	r.halt()
	if m, err := r.q.Show(t.Context(), id); err != nil || m.Recipients[0].State != store.QueueWaiting {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAdministration(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(deferred))
	ctx := t.Context()
	id := r.add("x@b.test", nil)
	sel := store.QueueFilter{IDs: []store.QueueID{id}}
	r.run()
	r.until("first attempt", r.waiting(id, 1))
	if n, err := r.q.Retry(ctx, sel); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	r.until("second attempt", r.waiting(id, 2))
	if n, err := r.q.Hold(ctx, sel); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	r.advance(24 * time.Hour / 30)
	if n, err := r.q.Release(ctx, sel); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	r.until("third attempt", r.waiting(id, 3))
	if n, err := r.q.Drop(ctx, sel, true, "removed by the administrator"); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	r.until("the end", r.empty)
	if got := r.in.notifications(); len(got) != 1 || !strings.Contains(got[0], "removed by the administrator") {
		t.Errorf("notifications %q", got)
	}
}

func TestNotificationParses(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	bad := refused
	bad.Message = "550-5.1.1 no such user\n550 5.1.1 here: \x01\x1b[31m用户"
	r.answers(always(bad))
	r.add("x@b.test", func(m *store.QueueMessage) {
		m.EnvID, m.Ret = "env-1", "FULL"
		m.Recipients[0].ORcpt = "rfc822;orig@b.test"
		m.Prefix = []byte("X-Prefix: p\r\n")
	})
	r.run()
	r.until("the end", r.empty)
	raw := r.in.notifications()[0]
	p := message.ParseBytes([]byte(raw))
	if p.Type != "multipart" || p.Subtype != "report" || len(p.Parts) != 3 || p.AllDefects() != 0 {
		t.Fatalf("structure %s, %d parts, defects %v\n%s", p.MediaType(), len(p.Parts), p.AllDefects().Names(), raw)
	}
	if string(p.Header.Get("Auto-Submitted")) != "auto-replied" || string(p.Header.Get("In-Reply-To")) != "<orig@here.test>" {
		t.Errorf("header\n%s", raw[:p.BodyOffset])
	}
	status := raw[p.Parts[1].BodyOffset:p.Parts[1].End]
	for _, want := range []string{
		"Original-Envelope-Id: env-1\r\n", "Reporting-MTA: dns; mx.here.test\r\n", "Arrival-Date: ", "\r\n\r\nOriginal-Recipient: rfc822; orig@b.test\r\n",
		"Final-Recipient: rfc822; x@b.test\r\n", "Action: failed\r\n", "Status: 5.1.1\r\n", "Remote-MTA: dns; mx.b.test\r\n", "Last-Attempt-Date: ",
		"Diagnostic-Code: smtp; 550-5.1.1 no such user 550 5.1.1 here: ??[31m??",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("%q is not in\n%s", want, status)
		}
	}
	if m := p.Parts[2].Message; m == nil || string(m.Header.Get("X-Prefix")) != "p" || !strings.Contains(raw, "body\r\n") {
		t.Errorf("the original is not returned whole:\n%s", raw)
	}
}

// TestRestsFollowTheRetries lets a site that is set to short waits not rest for longer than they are.
func TestRestsFollowTheRetries(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ set, want Policy }{
		{Policy{}, Policy{RestMin: time.Minute, RestMax: 30 * time.Minute}},
		{Policy{RetryMin: time.Second, RetryMax: 2 * time.Second}, Policy{RestMin: time.Second, RestMax: 2 * time.Second}},
		{Policy{RetryMin: time.Second, RestMin: time.Hour, RestMax: time.Hour}, Policy{RestMin: time.Hour, RestMax: time.Hour}},
	} {
		p := tc.set
		p.setDefaults()
		if p.RestMin != tc.want.RestMin || p.RestMax != tc.want.RestMax {
			t.Errorf("%+v: rests from %v to %v", tc.set, p.RestMin, p.RestMax)
		}
	}
}

package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
)

func TestQueueIsSelectedByWhatIsKnownOfIt(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		old := enqueue(t, s, "x", rcpt("a@b.test"), rcpt("c@d.test"))
		w := take(t, s, queueClock, nil)
		finish(t, s, queueClock, results(w, func(r *store.QueueResult) {
			r.NextAttempt, r.LastError, r.Category, r.Provider, r.Pool = queueClock.Add(time.Hour), "450 4.7.1 Try LATER, 100%", "greylist", "other", "news"
		}))
		d, err := s.Deliver(t.Context(), store.Delivery{Content: strings.NewReader("y"), Queue: &store.QueueMessage{
			From: "z@Else.test", Size: 5000, Created: queueClock.Add(time.Hour), Priority: 4,
			Recipients: []store.QueueRecipient{{To: "e@f.test", Domain: "f.test", State: store.QueueHeld, HeldFor: "limit"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range []struct {
			f    store.QueueFilter
			want int
		}{
			{store.QueueFilter{Text: "try later"}, 2},
			{store.QueueFilter{Text: "100%"}, 2},
			{store.QueueFilter{Text: "elsewhere"}, 0},
			{store.QueueFilter{Category: "greylist"}, 2},
			{store.QueueFilter{Category: "greylist", Domain: "b.test"}, 1},
			{store.QueueFilter{Provider: "google"}, 0},
			{store.QueueFilter{Pool: "news"}, 2},
			{store.QueueFilter{SenderDomain: "else.test"}, 1},
			{store.QueueFilter{SenderDomain: "lse.test"}, 0},
			{store.QueueFilter{HeldFor: "limit"}, 1},
			{store.QueueFilter{Before: queueClock.Add(time.Minute)}, 2},
			{store.QueueFilter{After: queueClock.Add(time.Minute)}, 1},
			{store.QueueFilter{Larger: 5000}, 1},
			{store.QueueFilter{Smaller: 100}, 2},
			{store.QueueFilter{Account: 7, IDs: []store.QueueID{old}}, 2},
		} {
			n, sample, err := s.QueueSelected(t.Context(), c.f, 1)
			if err != nil || n != c.want || len(sample) != min(n, 1) {
				t.Errorf("%d: %d recipients, %d messages, %v, want %d", i, n, len(sample), err, c.want)
			}
		}
		if m, err := s.QueueMessage(t.Context(), d.Queue); err != nil || m.Priority != 4 || m.Recipients[0].HeldFor != "limit" {
			t.Errorf("message %+v, %v", m, err)
		}
	})
}

func TestQueueGoesByAnotherWay(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		for i := range 3 {
			enqueue(t, s, "x", rcpt(fmt.Sprintf("%d@b.test", i)))
		}
		if n, err := s.QueueReroute(t.Context(), store.QueueFilter{Domain: "b.test"}, "relay:mx.test:25"); err != nil || n != 3 {
			t.Fatal(n, err)
		}
		if got := counts(t, s); got != "3 messages: 3 waiting 0 leased 0 held 0 damaged, 1 destinations" {
			t.Error(got)
		}
		if n, err := s.QueueReroute(t.Context(), store.QueueFilter{To: "1@b.test"}, ""); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		w := take(t, s, time.Now(), nil)
		if got := taken(w); got != "relay:mx.test:25: 0@b.test; relay:mx.test:25: 2@b.test; b.test: 1@b.test" {
			t.Error(got)
		}
		if n := finish(t, s, time.Now(), results(w, done)); n != 0 {
			t.Errorf("%d lost", n)
		}
	})
}

func TestQueueSelectionsOfManyRowsAreChangedWhole(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		var rs []store.QueueRecipient
		for i := range 1200 { // more than one step
			rs = append(rs, rcpt(fmt.Sprintf("%d@b%d.test", i, i%2)))
		}
		enqueue(t, s, "x", rs...)
		if n, err := s.QueueHold(t.Context(), store.QueueFilter{Domain: "b1.test"}); err != nil || n != 600 {
			t.Fatal(n, err)
		}
		if n, err := s.QueueDrop(t.Context(), store.QueueFilter{State: store.QueueHeld}, false, ""); err != nil || n != 600 {
			t.Fatal(n, err)
		}
		if n, err := s.QueueDrop(t.Context(), store.QueueFilter{}, false, ""); !errors.Is(err, store.ErrSelection) {
			t.Fatal(n, err)
		}
		if got := counts(t, s); got != "1 messages: 600 waiting 0 leased 0 held 0 damaged, 1 destinations" {
			t.Error(got)
		}
	})
}

// TestALetterIsNotKeptByAFlood: a hundred thousand would take too long; the first ten messages of a sender never wait behind more
// than a share of what another one sends.
func TestALetterIsNotKeptByAFlood(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		var rs []store.QueueRecipient
		for i := range 400 {
			rs = append(rs, rcpt(fmt.Sprintf("x@d%d.test", i)))
		}
		enqueue(t, s, "x", rs...)
		for _, to := range []string{"y@d1.test", "y@other.test"} {
			if _, err := s.Deliver(t.Context(), store.Delivery{Content: strings.NewReader("y"), Queue: &store.QueueMessage{
				From: "quiet@there.test", Created: queueClock.Add(time.Second), Recipients: []store.QueueRecipient{rcpt(to)},
			}}); err != nil {
				t.Fatal(err)
			}
		}
		found, before := 0, 0
		for found < 2 {
			w := take(t, s, queueClock.Add(time.Minute), func(q *store.QueueTake) { q.Slots, q.Batch = 4, 5 })
			if len(w.Work) == 0 {
				t.Fatal("nothing is left")
			}
			for _, u := range w.Work {
				for _, m := range u.Messages {
					before++
					if m.From == "quiet@there.test" {
						found++
					}
				}
			}
		}
		if before > 60 {
			t.Errorf("%d of 400 went before two letters", before)
		}
	})
}

func TestSuppressedAddresses(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		now := queueClock
		fail := func(from string) {
			t.Helper()
			enqueue(t, s, "x", rcpt("Dead@b.test"))
			w := take(t, s, now, nil)
			finish(t, s, now, results(w, func(r *store.QueueResult) {
				r.Done, r.To = true, "Dead@b.test"
				r.Failure = &store.QueueFailure{Sender: from, Reason: "550 no", After: 2, Within: time.Hour, For: 2 * time.Hour}
			}))
		}
		suppressed := func(sender string) bool {
			t.Helper()
			_, ok, err := s.QueueSuppressed(t.Context(), "dead@B.test", sender, now)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		fail("a.test")
		now = now.Add(2 * time.Hour) // the first is forgotten
		fail("a.test")
		if suppressed("a.test") {
			t.Error("after two failures in three hours")
		}
		fail("a.test")
		if !suppressed("a.test") || suppressed("c.test") {
			t.Error("not for its sender alone")
		}
		if err := s.Suppress(t.Context(), []store.Suppression{{Address: "dead@b.test", Since: now, Expires: now.Add(time.Hour), Reason: "r"}}); err != nil {
			t.Fatal(err)
		}
		if !suppressed("c.test") || !suppressed("") {
			t.Error("not for all")
		}
		list, err := s.Suppressions(t.Context(), store.Suppression{}, false, 1)
		if err != nil || len(list) != 1 || list[0].Sender != "" {
			t.Fatal(list, err)
		}
		if list, err = s.Suppressions(t.Context(), list[0], false, 10); err != nil || len(list) != 1 || list[0].Failures != 2 {
			t.Fatal(list, err)
		}
		if err := s.Unsuppress(t.Context(), "Dead@b.test", ""); err != nil || suppressed("c.test") {
			t.Error(err)
		}
		if err := s.Unsuppress(t.Context(), "dead@b.test", ""); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
		now = now.Add(3 * time.Hour)
		if err := s.QueueTidy(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if list, err := s.Suppressions(t.Context(), store.Suppression{}, true, 10); err != nil || len(list) != 0 {
			t.Errorf("left: %v, %v", list, err)
		}
	})
}

package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing/internal/sqlitefile"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// queueClock is when the tests of the queue begin.
var queueClock = time.UnixMilli(1_700_000_000_000)

func enqueue(t testing.TB, s *store.Store, body string, rcpts ...store.QueueRecipient) store.QueueID {
	t.Helper()
	d, err := s.Deliver(t.Context(), store.Delivery{
		Content: strings.NewReader(body),
		Queue: &store.QueueMessage{
			TraceID: "T1", From: "a@here.test", Size: int64(len(body)), Created: queueClock, Description: "subject", Recipients: rcpts,
			Prefix: []byte("X: 1\r\n"), UTF8: true, Body: "8BITMIME", Ret: "FULL", EnvID: "e", Account: 7,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d.Queue
}

func rcpt(to string) store.QueueRecipient {
	_, domain, _ := strings.Cut(to, "@")
	return store.QueueRecipient{To: to, Domain: domain, Notify: 8, ORcpt: "rfc822;" + to}
}

func anyHop(free int) func(string, bool) (string, int) {
	return func(domain string, _ bool) (string, int) { return domain, free }
}

func take(t testing.TB, s *store.Store, now time.Time, change func(*store.QueueTake)) store.QueueTaken {
	t.Helper()
	q := store.QueueTake{Now: now, Owner: "me", Lease: time.Minute, Slots: 10, Batch: 10, Allow: anyHop(5)}
	if change != nil {
		change(&q)
	}
	out, err := s.QueueTakeWork(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// taken lists what was taken as "domain: to to; ...".
func taken(w store.QueueTaken) string {
	var out []string
	for _, u := range w.Work {
		var to []string
		for _, m := range u.Messages {
			for _, r := range m.Recipients {
				to = append(to, r.To)
			}
		}
		out = append(out, u.Domain+": "+strings.Join(to, " "))
	}
	return strings.Join(out, "; ")
}

func results(w store.QueueTaken, change func(*store.QueueResult)) []store.QueueResult {
	var out []store.QueueResult
	for _, u := range w.Work {
		for _, m := range u.Messages {
			for _, r := range m.Recipients {
				res := store.QueueResult{Message: m.ID, ID: r.ID, Domain: u.Domain, Lane: u.Lane, Lease: r.Lease}
				change(&res)
				out = append(out, res)
			}
		}
	}
	return out
}

func finish(t testing.TB, s *store.Store, now time.Time, rs []store.QueueResult) int {
	t.Helper()
	lost, err := s.QueueFinish(t.Context(), now, rs)
	if err != nil {
		t.Fatal(err)
	}
	return lost
}

func done(r *store.QueueResult) { r.Done = true }

func counts(t testing.TB, s *store.Store) string {
	t.Helper()
	c, err := s.QueueCounts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d messages: %d waiting %d leased %d held %d damaged, %d destinations", c.Messages, c.Waiting, c.Leased, c.Held, c.Damaged, c.Destinations)
}

func TestQueueKeepsWhatWasGiven(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		id := enqueue(t, s, "body\r\n", rcpt("x@b.test"), rcpt("y@b.test"), rcpt("z@c.test"))
		m, err := s.QueueMessage(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if m.TraceID != "T1" || m.From != "a@here.test" || m.Size != 6 || !m.Created.Equal(queueClock) || string(m.Prefix) != "X: 1\r\n" ||
			!m.UTF8 || m.Body != "8BITMIME" || m.Ret != "FULL" || m.EnvID != "e" || m.Account != 7 || m.Description != "subject" ||
			!m.Expires.Equal(queueClock.Add(5*24*time.Hour)) || len(m.Recipients) != 3 {
			t.Errorf("message %+v", m)
		}
		r := m.Recipients[1]
		if r.To != "y@b.test" || r.Domain != "b.test" || r.Notify != 8 || r.ORcpt != "rfc822;y@b.test" || r.State != store.QueueWaiting || !r.NextAttempt.Equal(queueClock) {
			t.Errorf("recipient %+v", r)
		}
		b, err := s.OpenBlobID(t.Context(), m.Blob)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if b.Size() != 6 {
			t.Errorf("content of %d octets", b.Size())
		}
		if _, err := s.QueueMessage(t.Context(), id+1); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("missing message: %v", err)
		}
	})
}

func TestMessagesOfOneDeliveryStandOrFallTogether(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		part := func(body, to string) store.Delivery {
			r := rcpt(to)
			if to == "" {
				r.To = ""
			}
			return store.Delivery{
				Content: strings.NewReader(body),
				Queue:   &store.QueueMessage{TraceID: body, From: "a@here.test", Size: int64(len(body)), Created: queueClock, Recipients: []store.QueueRecipient{r}},
			}
		}
		d := part("first", "x@b.test")
		d.Also = []store.Delivery{part("second", "y@c.test"), {Content: strings.NewReader("for nobody")}, part("third", "z@c.test")}
		done, err := s.Deliver(t.Context(), d)
		if err != nil || done.Queue == 0 || len(done.Also) != 2 {
			t.Fatalf("%+v, %v", done, err)
		}
		for i, want := range []string{"second", "third"} {
			m, err := s.QueueMessage(t.Context(), done.Also[i].Queue)
			if err != nil || m.TraceID != want || m.Size != int64(len(want)) {
				t.Errorf("%+v, %v", m, err)
			}
		}
		d = part("fourth", "x@b.test")
		d.Also = []store.Delivery{part("fifth", "")}
		if _, err := s.Deliver(t.Context(), d); err == nil {
			t.Error("a delivery without a recipient was taken")
		}
		if got := counts(t, s); !strings.HasPrefix(got, "3 messages") {
			t.Error(got)
		}
	})
}

func TestQueueTakesByDestinationAndInTurn(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		for i := range 6 {
			enqueue(t, s, "x", rcpt(fmt.Sprintf("m%d@big.test", i)))
		}
		enqueue(t, s, "x", rcpt("a@small.test"))
		now := queueClock.Add(time.Second)
		one := func(q *store.QueueTake) { q.Slots, q.Batch = 1, 2 }
		got := []string{}
		for range 5 {
			got = append(got, taken(take(t, s, now, one)))
		}
		want := []string{"big.test: m0@big.test m1@big.test", "small.test: a@small.test", "big.test: m2@big.test m3@big.test", "big.test: m4@big.test m5@big.test", ""}
		if !slices.Equal(got, want) {
			t.Errorf("taken %q, want %q", got, want)
		}
		if got := counts(t, s); got != "7 messages: 0 waiting 7 leased 0 held 0 damaged, 0 destinations" {
			t.Error(got)
		}
	})
}

func TestQueueSharesSlotsAndHonoursLimits(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		for i := range 4 {
			for _, d := range []string{"a.test", "b.test", "c.test"} {
				enqueue(t, s, "x", rcpt(fmt.Sprintf("%d@%s", i, d)))
			}
		}
		now := queueClock.Add(time.Second)
		w := take(t, s, now, func(q *store.QueueTake) {
			q.Slots, q.Batch = 6, 1
			q.Allow = func(d string, _ bool) (string, int) {
				if d == "c.test" {
					return d, 0
				}
				return "hop", 3 // both by the same smart host
			}
		})
		if got := taken(w); got != "a.test: 0@a.test; a.test: 1@a.test; a.test: 2@a.test" && got != "a.test: 0@a.test; a.test: 1@a.test; b.test: 0@b.test" {
			t.Errorf("taken %q", got)
		}
		if len(w.Work) != 3 {
			t.Errorf("%d units over a hop that may have 3", len(w.Work))
		}
	})
}

func TestQueueDueTimes(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		later := rcpt("l@b.test")
		later.NextAttempt = queueClock.Add(time.Hour)
		enqueue(t, s, "x", later)
		w := take(t, s, queueClock, nil)
		if taken(w) != "" || !w.NextDue.Equal(queueClock.Add(time.Hour)) {
			t.Errorf("taken %q, next %v", taken(w), w.NextDue)
		}
		enqueue(t, s, "x", rcpt("n@b.test")) // makes the destination due earlier
		w = take(t, s, queueClock, nil)
		if taken(w) != "b.test: n@b.test" {
			t.Errorf("taken %q", taken(w))
		}
		finish(t, s, queueClock, results(w, func(r *store.QueueResult) {
			r.NextAttempt = queueClock.Add(2 * time.Hour)
			r.LastError = strings.Repeat("é", 5000)
		}))
		w = take(t, s, queueClock.Add(time.Hour), nil)
		if taken(w) != "b.test: l@b.test" {
			t.Errorf("taken %q", taken(w))
		}
		finish(t, s, queueClock, results(w, done))
		w = take(t, s, queueClock.Add(2*time.Hour), nil)
		if taken(w) != "b.test: n@b.test" || w.Work[0].Messages[0].Recipients[0].Attempts != 2 {
			t.Errorf("taken %q", taken(w))
		}
		if l := w.Work[0].Messages[0].Recipients[0].LastError; len(l) > 2000 || len(l) < 1990 || strings.Trim(l, "é") != "" {
			t.Errorf("last error of %d octets", len(l))
		}
		finish(t, s, queueClock, results(w, done))
		if got := counts(t, s); got != "0 messages: 0 waiting 0 leased 0 held 0 damaged, 0 destinations" {
			t.Error(got)
		}
	})
}

func TestQueueRestsADestination(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		enqueue(t, s, "x", rcpt("a@b.test"), rcpt("b@b.test"))
		until := queueClock.Add(time.Hour)
		if err := s.QueueRest(t.Context(), "b.test", until); err != nil {
			t.Fatal(err)
		}
		enqueue(t, s, "x", rcpt("c@b.test")) // new mail does not end the rest
		if w := take(t, s, until.Add(-time.Second), nil); taken(w) != "" || !w.NextDue.Equal(until) {
			t.Errorf("taken %q, next %v", taken(w), w.NextDue)
		}
		if n, err := s.QueueRetry(t.Context(), store.QueueFilter{To: "a@b.test"}); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		if err := s.QueueRest(t.Context(), "b.test", until); err != nil { // by an attempt that ended before the wish
			t.Fatal(err)
		}
		wasForced := false
		take(t, s, time.Now(), func(q *store.QueueTake) {
			q.Allow = func(_ string, forced bool) (string, int) { wasForced = forced; return "", 0 }
		})
		if !wasForced {
			t.Error("an administrator's wish is not passed on")
		}
		if w := take(t, s, time.Now(), nil); !strings.Contains(taken(w), "c@b.test") {
			t.Errorf("taken %q", taken(w))
		}
	})
}

func TestQueueLeases(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		enqueue(t, s, "x", rcpt("a@b.test"))
		first := take(t, s, queueClock, nil)
		expire := func(owner string, at time.Time) int {
			n, err := s.QueueExpireLeases(t.Context(), owner, at)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := expire("other", queueClock.Add(59*time.Second)); n != 0 {
			t.Errorf("%d taken before the lease ran out", n)
		}
		leased := first.Work[0].Messages[0].Recipients
		if lost, err := s.QueueExtend(t.Context(), leased, queueClock.Add(2*time.Minute)); err != nil || lost != 0 {
			t.Fatal(lost, err)
		}
		forged := []store.QueueRecipient{{ID: leased[0].ID, Lease: leased[0].Lease + 1}}
		if lost, err := s.QueueExtend(t.Context(), forged, queueClock.Add(time.Hour)); err != nil || lost != 1 {
			t.Fatal(lost, err)
		}
		if n := expire("other", queueClock.Add(time.Minute)); n != 0 {
			t.Errorf("%d taken in spite of the longer lease", n)
		}
		if n := expire("me", queueClock.Add(time.Hour)); n != 0 {
			t.Errorf("%d taken from their own owner", n)
		}
		if n := expire("other", queueClock.Add(2*time.Minute)); n != 1 {
			t.Errorf("%d taken of one that ran out", n)
		}
		second := take(t, s, queueClock.Add(2*time.Minute), func(q *store.QueueTake) { q.Owner = "other" })
		if taken(second) != "b.test: a@b.test" {
			t.Errorf("taken %q", taken(second))
		}
		if lost := finish(t, s, queueClock, results(first, func(r *store.QueueResult) { r.NextAttempt = queueClock })); lost != 1 {
			t.Errorf("%d lost: an attempt without a lease changed the row", lost)
		}
		if lost := finish(t, s, queueClock, results(first, done)); lost != 1 {
			t.Errorf("%d lost: an old attempt removed the row of a new one", lost)
		}
		if lost := finish(t, s, queueClock, results(second, done)); lost != 0 {
			t.Errorf("%d lost", lost)
		}
	})
}

// TestALeaseThatWasGivenBackEndsNoOther repeats an answer that got lost, after another attempt has begun.
func TestALeaseThatWasGivenBackEndsNoOther(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		enqueue(t, s, "x", rcpt("a@b.test"))
		first := take(t, s, queueClock, nil)
		back := results(first, func(r *store.QueueResult) { r.Unattempted, r.NextAttempt = true, queueClock })
		if lost := finish(t, s, queueClock, back); lost != 0 {
			t.Fatalf("%d lost", lost)
		}
		second := take(t, s, queueClock, func(q *store.QueueTake) { q.Owner = "other" })
		if got, was := second.Work[0].Messages[0].Recipients[0].Attempts, first.Work[0].Messages[0].Recipients[0].Attempts; got != was {
			t.Fatalf("attempt %d, want %d again", got, was)
		}
		if lost := finish(t, s, queueClock, back); lost != 1 {
			t.Errorf("%d lost: what was given back was given back once more", lost)
		}
		if lost := finish(t, s, queueClock, results(second, done)); lost != 0 {
			t.Errorf("%d lost", lost)
		}
	})
}

func TestQueueKeepsWhateverARemoteServerSaid(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		id := enqueue(t, s, "body\r\n", rcpt("x@b.test"))
		w := take(t, s, queueClock, nil)
		finish(t, s, queueClock, results(w, func(r *store.QueueResult) {
			r.NextAttempt, r.LastError = queueClock.Add(time.Hour), "450 \xff\x00 稍后再试 \xe4\xbd"
		}))
		m, err := s.QueueMessage(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Recipients[0].LastError; !strings.HasPrefix(got, "450 ") || !strings.Contains(got, "稍后再试") {
			t.Errorf("kept %q", got)
		}
	})
}

func TestQueueReclaimsItsOwnLeases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	enqueue(t, s, "x", rcpt("a@b.test"), rcpt("b@c.test"))
	take(t, s, queueClock, func(q *store.QueueTake) { q.Slots = 1 })
	take(t, s, queueClock, func(q *store.QueueTake) { q.Owner = "other" })
	if n, err := s.QueueReclaim(t.Context(), "me", queueClock); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if w := take(t, s, queueClock, nil); taken(w) != "b.test: a@b.test" {
		t.Errorf("taken %q", taken(w))
	}
}

func TestQueueGivesBackUntried(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		enqueue(t, s, "x", rcpt("a@b.test"))
		w := take(t, s, queueClock, nil)
		finish(t, s, queueClock, results(w, func(r *store.QueueResult) { r.Unattempted, r.NextAttempt = true, queueClock }))
		w = take(t, s, queueClock, nil)
		if r := w.Work[0].Messages[0].Recipients[0]; r.Attempts != 1 || !r.FirstAttempt.IsZero() {
			t.Errorf("%+v", r)
		}
	})
}

func TestQueueFreesTheContentWithTheLastRecipient(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		id := enqueue(t, s, "only here\r\n", rcpt("a@b.test"), rcpt("b@c.test"))
		m, err := s.QueueMessage(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		finish(t, s, queueClock, results(take(t, s, queueClock, func(q *store.QueueTake) { q.Slots = 1 }), done))
		if b, err := s.OpenBlobID(t.Context(), m.Blob); err != nil {
			t.Fatalf("gone while a recipient waits: %v", err)
		} else {
			b.Close()
		}
		finish(t, s, queueClock, results(take(t, s, queueClock, nil), done))
		if b, err := s.OpenBlobID(t.Context(), m.Blob); !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrCorrupt) {
			if err == nil {
				b.Close()
			}
			t.Errorf("the content outlives its last recipient: %v", err)
		}
	})
}

func TestQueueAdministration(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		a := enqueue(t, s, "x", rcpt("a@b.test"), rcpt("b@c.test"))
		b := enqueue(t, s, "x", rcpt("c@b.test"))
		for name, fn := range map[string]func() (int, error){
			"hold": func() (int, error) { return s.QueueHold(ctx, store.QueueFilter{}) },
			"drop": func() (int, error) { return s.QueueDrop(ctx, store.QueueFilter{}, false, "") },
		} {
			if _, err := fn(); !errors.Is(err, store.ErrSelection) {
				t.Errorf("%s of everything by mistake: %v", name, err)
			}
		}
		if n, err := s.QueueHold(ctx, store.QueueFilter{Domain: "B.test"}); err != nil || n != 2 {
			t.Errorf("hold: %d, %v", n, err)
		}
		if w := take(t, s, queueClock, nil); taken(w) != "c.test: b@c.test" {
			t.Errorf("taken %q", taken(w))
		}
		if got := counts(t, s); got != "2 messages: 0 waiting 1 leased 2 held 0 damaged, 0 destinations" {
			t.Error(got)
		}
		if n, err := s.QueueRetry(ctx, store.QueueFilter{IDs: []store.QueueID{a, b}}); err != nil || n != 0 {
			t.Errorf("retry of held and leased ones: %d, %v", n, err)
		}
		if n, err := s.QueueRelease(ctx, store.QueueFilter{IDs: []store.QueueID{a}}); err != nil || n != 1 {
			t.Errorf("release: %d, %v", n, err)
		}
		if n, err := s.QueueDrop(ctx, store.QueueFilter{From: "<a@here.test>", To: "c@b.test"}, false, ""); err != nil || n != 1 {
			t.Errorf("drop: %d, %v", n, err)
		}
		if n, err := s.QueueDrop(ctx, store.QueueFilter{To: "a@b.test"}, true, "by the administrator"); err != nil || n != 1 {
			t.Errorf("drop: %d, %v", n, err)
		}
		m, err := s.QueueMessage(ctx, a)
		if err != nil || m.Recipients[0].Outcome != store.QueueFailed || m.Recipients[0].LastError != "by the administrator" {
			t.Errorf("%+v, %v", m, err)
		}
		if _, err := s.QueueMessage(ctx, b); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a message without recipients is still there: %v", err)
		}
	})
}

func TestQueueHeldDuringAnAttemptIsNotSentAgain(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		id := enqueue(t, s, "x", rcpt("a@b.test"), rcpt("b@b.test"))
		w := take(t, s, queueClock, nil)
		if n, err := s.QueueHold(t.Context(), store.QueueFilter{IDs: []store.QueueID{id}}); err != nil || n != 2 {
			t.Fatal(n, err)
		}
		rs := results(w, func(r *store.QueueResult) { r.LastError = "450 later"; r.NextAttempt = queueClock })
		rs[0].Done = true
		if lost := finish(t, s, queueClock, rs); lost != 0 {
			t.Errorf("%d lost", lost)
		}
		m, err := s.QueueMessage(t.Context(), id)
		if err != nil || len(m.Recipients) != 1 || m.Recipients[0].State != store.QueueHeld || m.Recipients[0].LastError != "450 later" {
			t.Errorf("%+v, %v", m.Recipients, err)
		}
	})
}

func TestQueueListsInPages(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		var all []store.QueueID
		for i := range 25 {
			all = append(all, enqueue(t, s, "x", rcpt(fmt.Sprintf("a@d%d.test", i%2)), rcpt("z@z.test")))
		}
		var got []store.QueueID
		for after := store.QueueID(0); ; {
			page, next, err := s.QueueList(t.Context(), store.QueueFilter{}, after, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page {
				got = append(got, m.ID)
				if len(m.Recipients) != 2 {
					t.Errorf("message %d with %d recipients", m.ID, len(m.Recipients))
				}
			}
			if next == 0 {
				break
			}
			after = next
		}
		if !slices.Equal(got, all) {
			t.Errorf("listed %v", got)
		}
		page, _, err := s.QueueList(t.Context(), store.QueueFilter{Domain: "d1.test", IDs: all[:6]}, 0, 100)
		if err != nil || len(page) != 3 {
			t.Errorf("filtered: %d, %v", len(page), err)
		}
		if n, err := s.QueueHold(t.Context(), store.QueueFilter{IDs: append(slices.Repeat([]store.QueueID{1 << 40}, 700), all...)}); err != nil || n != 50 {
			t.Errorf("a long list of ids: %d, %v", n, err)
		}
	})
}

// damage changes rows behind the store's back.
func damage(t *testing.T, dir, query string, args ...any) {
	t.Helper()
	f, err := sqlitefile.Open(t.Context(), filepath.Join(dir, "mail.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	db, err := f.Pool(t.Context(), sqlitefile.Pool{Pragmas: []string{"busy_timeout(5000)"}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatal(err)
	}
}

func TestQueueSetsDamagedRowsAside(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, query string }{
		{"the message's row is gone", `DELETE FROM queue_message WHERE id = 1`},
		{"a number out of range", `UPDATE queue_recipient SET notify = 70000 WHERE message_id = 1`},
		{"a negative set", `UPDATE queue_recipient SET notify = -1 WHERE message_id = 1`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := storetest.Open(t, dir, nil)
			bad := enqueue(t, s, "x", rcpt("a@b.test"))
			enqueue(t, s, "x", rcpt("good@b.test"))
			damage(t, dir, tc.query)
			w := take(t, s, queueClock, nil)
			if taken(w) != "b.test: good@b.test" || len(w.Damaged) != 1 {
				t.Errorf("taken %q, %d damaged", taken(w), len(w.Damaged))
			}
			if got := counts(t, s); !strings.Contains(got, "1 damaged") {
				t.Error(got)
			}
			page, _, err := s.QueueList(t.Context(), store.QueueFilter{State: store.QueueDamaged}, 0, 10)
			if err != nil || len(page) != 1 || page[0].ID != bad || page[0].Recipients[0].State != store.QueueDamaged {
				t.Errorf("%+v, %v", page, err)
			}
			if n, err := s.QueueDrop(t.Context(), store.QueueFilter{IDs: []store.QueueID{bad}}, false, ""); err != nil || n != 1 {
				t.Errorf("drop: %d, %v", n, err)
			}
		})
	}
}

func TestQueueClockAndRebase(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		if last, grace, err := s.QueueClock(ctx, queueClock); err != nil || !last.IsZero() || !grace.IsZero() {
			t.Fatal(last, grace, err)
		}
		if err := s.QueueGrace(ctx, queueClock.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if last, grace, err := s.QueueClock(ctx, queueClock.Add(time.Second)); err != nil || !last.Equal(queueClock) || !grace.Equal(queueClock.Add(time.Minute)) {
			t.Fatal(last, grace, err)
		}
		far := rcpt("a@b.test")
		far.NextAttempt = queueClock.Add(10 * 365 * 24 * time.Hour)
		enqueue(t, s, "x", far)
		limit := queueClock.Add(time.Hour)
		if err := s.QueueRebase(ctx, limit); err != nil {
			t.Fatal(err)
		}
		if w := take(t, s, queueClock, nil); !w.NextDue.Equal(limit) {
			t.Errorf("next %v", w.NextDue)
		}
		if w := take(t, s, limit, nil); taken(w) == "" {
			t.Error("not due after the rebase")
		}
	})
}

// BenchmarkQueueTakeAndFinish takes and defers one recipient of a queue of various lengths: the cost must not grow.
func BenchmarkQueueTakeAndFinish(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := storetest.New(b)
			for i := 0; i < n; i += 500 {
				m := &store.QueueMessage{TraceID: "T", From: "a@here.test", Created: queueClock}
				for k := range 500 {
					m.Recipients = append(m.Recipients, rcpt(fmt.Sprintf("u%d@d%d.test", k, (i+k)%(n/10))))
				}
				if _, err := s.Deliver(b.Context(), store.Delivery{Content: strings.NewReader("x"), Queue: m}); err != nil {
					b.Fatal(err)
				}
			}
			now := queueClock.Add(time.Second)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				w := take(b, s, now, func(q *store.QueueTake) { q.Slots, q.Batch = 1, 1 })
				if len(w.Work) != 1 {
					b.Fatal("nothing taken")
				}
				finish(b, s, now, results(w, func(r *store.QueueResult) { r.NextAttempt = now }))
			}
		})
	}
}

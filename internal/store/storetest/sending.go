package storetest

import (
	"time"

	"waxwing/internal/store"
)

var sendingChecks = []check{
	{"what is sent adds up over nodes and restarts", sendingAddsUp},
	{"an account is put on hold once, and released once", sendingHolds},
}

func sendingAddsUp(h *harness) {
	spend := func(subject string, hour, day time.Duration, usual int64) store.SendingCount {
		h.Helper()
		sums, err := h.s.AddSending(h.Context(), []store.SendingSpent{{Subject: subject, Spent: [4]time.Duration{hour, day, hour, day}, Usual: usual}})
		h.ok(err)
		h.equal("counts that were given back", len(sums), 1)
		return sums[0]
	}
	at := func(d time.Duration) time.Time { return h.clock().Add(d).Truncate(time.Millisecond) }
	spend("account:1", 10*time.Minute, time.Hour, 1500)
	sum := spend("account:1", 5*time.Minute, 2*time.Hour, 2500)
	h.equal("the hour", sum.Full[0].UTC(), at(15*time.Minute).UTC())
	h.equal("the day", sum.Full[3].UTC(), at(3*time.Hour).UTC())
	spend("domain:example.test", time.Minute, time.Minute, 0)
	h.restart()
	h.advance(time.Hour)
	sum = spend("account:1", time.Minute, time.Minute, 3500)
	h.equal("the hour after an hour", sum.Full[0].UTC(), at(time.Minute).UTC())
	h.equal("the day after an hour", sum.Full[3].UTC(), at(2*time.Hour+time.Minute).UTC())
	one, err := h.s.SendingCount(h.Context(), 1)
	h.ok(err)
	h.equal("one count", one, sum)
	h.equal("what is usual", one.Usual, int64(3500))
	all, err := h.s.SendingCounts(h.Context())
	h.ok(err)
	h.equal("counts", len(all), 2)
	h.advance(61 * 24 * time.Hour)
	spend("account:2", time.Minute, time.Minute, 0)
	all, err = h.s.SendingCounts(h.Context())
	h.ok(err)
	h.equal("counts after two months", len(all), 1)
	none, err := h.s.SendingCount(h.Context(), 9)
	h.ok(err)
	h.equal("the count of nobody", none, store.SendingCount{})
}

func sendingHolds(h *harness) {
	hold := func(want bool) {
		h.Helper()
		fresh, err := h.s.HoldSending(h.Context(), 1, "too much")
		h.ok(err)
		h.equal("a new hold", fresh, want)
	}
	hold(true)
	hold(false)
	h.restart()
	list, err := h.s.SendingHolds(h.Context())
	h.ok(err)
	if len(list) != 1 || list[0].Account != 1 || list[0].Reason != "too much" || list[0].Since.IsZero() {
		h.Errorf("holds %+v", list)
	}
	h.ok(h.s.ReleaseSending(h.Context(), 1))
	h.is(h.s.ReleaseSending(h.Context(), 1), store.ErrNotFound)
	list, err = h.s.SendingHolds(h.Context())
	h.ok(err)
	h.equal("holds after the release", len(list), 0)
	hold(true)
}

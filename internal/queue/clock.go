package queue

import (
	"context"
	"time"
)

// lookAtClock notes the time and compares it with when it was last noted, by this run or a former one.
//
// Messages expire by age. If the clock jumps ahead, or the server was down for days, all that waits seems old at once,
// and would be returned although nobody tried to deliver it. So after a gap of Policy.ClockGap nothing expires for as
// long as the gap was, at most Policy.ExpiryGrace; attempts go on meanwhile. If the clock was set back, what is due in a
// far future is made due within the longest wait.
func (q *Queue) lookAtClock(ctx context.Context, now time.Time) {
	last, grace, err := q.o.Store.QueueClock(ctx, now)
	if err != nil {
		if ctx.Err() == nil {
			q.o.Logger.Error("queue: the clock can't be noted", "error", err)
		}
		return
	}
	if grace.After(now) && grace.Sub(now) <= q.p.ExpiryGrace {
		q.noExpiry.Store(grace.UnixMilli())
	}
	switch gap := now.Sub(last); {
	case last.IsZero():
	case gap > q.p.ClockGap:
		until := now.Add(min(gap, q.p.ExpiryGrace))
		q.noExpiry.Store(until.UnixMilli())
		if err := q.o.Store.QueueGrace(ctx, until); err != nil {
			q.o.Logger.Error("queue: the end of the grace can't be noted", "error", err)
		}
		q.o.Logger.Warn("queue: the clock jumped ahead or the queue was not running: nothing expires for a while", "gap", gap, "until", until)
	case gap < -5*time.Minute:
		q.noExpiry.Store(0)
		if err := q.o.Store.QueueRebase(ctx, now.Add(q.p.RetryMax)); err != nil {
			q.o.Logger.Error("queue: the schedule can't be repaired", "error", err)
			return
		}
		q.o.Logger.Warn("queue: the clock was set back, the schedule was repaired", "gap", gap)
	}
}

// mayExpire tells whether messages are given up at all now.
func (q *Queue) mayExpire(now time.Time) bool { return now.UnixMilli() >= q.noExpiry.Load() }

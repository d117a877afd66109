package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waxwing/internal/store"
)

const (
	poll      = 30 * time.Second // looks even when nothing was told: notices of other nodes may be lost
	clockTick = time.Minute      // how often the clock is noted
	maxHops   = 50_000           // next hops remembered; idle healthy ones go at once
	maxUnits  = 64               // units taken in one transaction, which other writers wait for
)

// Run schedules until ctx ends. It then lets attempts under way finish for Policy.Grace, and returns when nothing of it
// is left running. It returns an error only when it could not begin.
func (q *Queue) Run(ctx context.Context) error {
	if q.o.Transport == nil || q.o.Injector == nil {
		return errors.New("queue: run: a transport and an injector are needed")
	}
	// Attempts outlive ctx by the grace; what they learned is committed even after that.
	stop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	q.running = ctx
	unwatch := q.o.Store.WatchQueue(q.poke)
	defer unwatch()
	for wait := time.Second; ; wait = min(2*wait, poll) {
		n, err := q.o.Store.QueueReclaim(ctx, q.o.Node, q.o.Clock())
		if err == nil {
			if n > 0 {
				q.o.Logger.Info("queue: took up what a former run had begun", "recipients", n)
			}
			break
		}
		if errors.Is(err, store.ErrClosed) || !q.sleep(ctx, wait) {
			return fmt.Errorf("queue: run: %w", err)
		}
		q.o.Logger.Error("queue: leases of a former run can't be reclaimed yet", "error", err)
	}
	q.outcomes = make(chan store.QueueResult, maxOutcomes)
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		q.commitOutcomes(stop)
	}()
	q.loop(ctx, stop)
	grace := time.AfterFunc(q.p.Grace, cancel)
	q.wg.Wait()
	close(q.outcomes) // the workers have ended
	<-settled
	grace.Stop()
	q.syncSent(stop, q.o.Clock())
	q.closeLinks(true)
	q.wg.Wait()
	return nil
}

// loop looks for work until ctx ends.
func (q *Queue) loop(ctx, attempts context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var ticked time.Time
	trouble := time.Duration(0)
	for {
		if now := q.o.Clock(); ticked.IsZero() || now.Sub(ticked) >= clockTick || now.Before(ticked) {
			q.lookAtClock(ctx, now)
			if n, err := q.o.Store.QueueExpireLeases(ctx, q.o.Node, now); err == nil && n > 0 {
				q.o.Logger.Warn("queue: took up what another node had begun", "recipients", n)
			} // an error shows when work is taken
			if err := q.o.Store.QueueTidy(ctx, now); err != nil && ctx.Err() == nil {
				q.o.Logger.Error("queue: what is over can't be forgotten", "error", err)
			}
			ticked = now
		}
		q.closeLinks(false)
		wait, err := q.dispatch(ctx, attempts)
		if err != nil && ctx.Err() == nil {
			trouble = min(max(2*trouble, time.Second), poll)
			wait = trouble
			q.o.Logger.Error("queue: no work can be taken", "error", err)
		} else {
			trouble = 0
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
			if trouble > 0 && !q.sleep(ctx, trouble) { // a store in trouble is not asked at every notice
				return
			}
		case <-timer.C:
		}
	}
}

// sleep waits, or returns false when ctx ends first.
func (q *Queue) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// dispatch takes work while there are workers for it, and tells when to look again.
func (q *Queue) dispatch(ctx, attempts context.Context) (time.Duration, error) {
	for {
		q.mu.Lock()
		free := q.p.Workers - q.active
		q.mu.Unlock()
		q.refreshRules(ctx)
		if q.rules.Load().isPaused(PauseAll) {
			return rulesFresh, nil
		}
		if free <= 0 {
			return poll, nil // a worker that ends wakes us
		}
		now := q.o.Clock()
		taken, err := q.o.Store.QueueTakeWork(ctx, store.QueueTake{
			Now: now, Owner: q.o.Node, Lease: q.p.Lease, Slots: min(free, maxUnits), Batch: q.p.Batch, Allow: q.allow, Most: q.allowance,
		})
		if err != nil {
			return 0, err
		}
		if n := len(taken.Damaged); n > 0 {
			q.setAside(n, "rows that can't be read", "recipients", taken.Damaged)
		}
		for _, w := range taken.Work {
			q.start(attempts, w)
		}
		q.moveBlocked(ctx, now)
		if len(taken.Work) == 0 {
			return q.until(now, taken.NextDue), nil
		}
	}
}

// until is how long to wait when nothing more can be taken now.
func (q *Queue) until(now, next time.Time) time.Duration {
	wait := poll
	if !next.IsZero() {
		wait = min(wait, next.Sub(now))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range q.hops {
		if h.until.After(now) {
			wait = min(wait, h.until.Sub(now))
		}
		if at := h.nextToken(now); at.After(now) {
			wait = min(wait, at.Sub(now))
		}
		if len(h.links) > 0 {
			wait = min(wait, q.p.IdleLink)
		}
	}
	return max(wait, time.Millisecond)
}

// start gives a unit of work to a worker of its own.
func (q *Queue) start(ctx context.Context, w store.QueueWork) {
	key := q.o.Transport.NextHop(w.Domain)
	q.mu.Lock()
	h := q.hops[key]
	if h == nil {
		h = q.newHop(w.Domain)
		q.hops[key] = h
	}
	h.active++
	q.active++
	var link Link
	if n := len(h.links); n > 0 {
		link = h.links[n-1]
		h.links = h.links[:n-1]
	}
	q.mu.Unlock()
	q.wg.Go(func() {
		defer q.poke()
		link := q.work(ctx, w, link)
		q.end(key, link)
	})
}

// end takes a worker's link back.
func (q *Queue) end(key string, link Link) {
	q.mu.Lock()
	h := q.hops[key]
	h.active--
	q.active--
	if link != nil && link.Open() && q.running.Err() == nil && len(h.links) < int(h.limit) {
		h.links = append(h.links, link)
		link = nil
	}
	q.forget(key, h)
	q.mu.Unlock()
	if link != nil {
		link.Close()
	}
}

// forget drops a next hop that there is nothing to remember of. q.mu is held.
func (q *Queue) forget(key string, h *hop) {
	if h.active == 0 && len(h.links) == 0 && (h.healthy(q.o.Clock()) || len(q.hops) > maxHops) {
		delete(q.hops, key)
	}
}

// closeLinks closes connections that were idle for long, or all.
func (q *Queue) closeLinks(all bool) {
	now := q.o.Clock()
	var closing []Link
	q.mu.Lock()
	for key, h := range q.hops {
		kept := h.links[:0]
		for _, l := range h.links {
			if idle := now.Sub(l.Used()); all || idle >= q.p.IdleLink || idle < 0 {
				closing = append(closing, l)
			} else {
				kept = append(kept, l)
			}
		}
		clear(h.links[len(kept):])
		h.links = kept
		q.forget(key, h)
	}
	q.mu.Unlock()
	for _, l := range closing {
		q.wg.Go(l.Close) // says QUIT and waits shortly for the answer
	}
}

// doubled is base doubled n times, at most limit.
func doubled(base time.Duration, n int, limit time.Duration) time.Duration {
	for ; n > 0 && base < limit; n-- {
		base *= 2
	}
	return min(base, limit)
}

// jitter spreads a wait by 15 % to either side, so that what failed together does not come back together.
func (q *Queue) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.85 + 0.3*q.o.Rand()))
}

// backoff is the wait after a number of attempts.
func (q *Queue) backoff(attempts int) time.Duration {
	return q.jitter(doubled(q.p.RetryMin, max(0, attempts-1), q.p.RetryMax))
}

// setAside counts and reports rows that were set aside.
func (q *Queue) setAside(n int, what string, args ...any) {
	q.counters.damaged.Add(int64(n))
	if q.o.Metrics.Damaged != nil {
		q.o.Metrics.Damaged(n)
	}
	q.o.Logger.Error("queue: set aside as damaged: "+what, args...)
}

package queue

import (
	"context"
	"math"
	"time"

	"waxwing/internal/transport"
)

const (
	slowStart   = 2                // connections that a next hop begins with
	slowAgain   = 10 * time.Second // trouble that several connections have at the same time counts once
	maxPutOffs  = 4                // times in a row that a next hop asks for less, until it rests
	burst       = 10 * time.Second // a limit of messages a minute may be used for so long at once
	pausedUntil = 365 * 24 * time.Hour
)

// hop is what is known of a next hop while it is in use or in trouble.
type hop struct {
	active  int
	limit   float64 // connections it may have at a time: falls by half on trouble, grows by success
	most    int     // what limit may grow to; 0: to be looked up, since the rules changed
	steady  bool    // it had trouble: limit grows slowly
	fails   int     // attempts in a row that reached nobody
	putOffs int     // answers in a row that asked for less
	slowed  time.Time
	until   time.Time
	links   []Link // open, idle

	perMinute int     // messages, 0: any number
	tokens    float64 // messages it may have now
	filled    time.Time
}

func (q *Queue) newHop(destination string) *hop {
	h := &hop{}
	q.limits(h, destination)
	h.limit = float64(min(slowStart, h.most))
	return h
}

// limits looks up what a next hop may have. q.mu is held.
func (q *Queue) limits(h *hop, destination string) {
	if h.most > 0 {
		return
	}
	l := q.rules.Load().limits[destination]
	h.most = l.Concurrency
	if h.most == 0 {
		h.most = q.o.Transport.Concurrency(destination)
	}
	if h.most == 0 {
		h.most = q.p.Concurrency
	}
	h.limit = min(h.limit, float64(h.most))
	if h.perMinute != l.PerMinute {
		h.perMinute, h.filled = l.PerMinute, time.Time{}
	}
}

// healthy tells that there is nothing to remember of a hop that is not in use.
func (h *hop) healthy(now time.Time) bool {
	return h.fails == 0 && h.putOffs == 0 && (h.perMinute == 0 || now.Sub(h.filled) > time.Minute)
}

// refill brings the messages that a hop may have up to now.
func (h *hop) refill(now time.Time) {
	most := max(1, float64(h.perMinute)*burst.Minutes())
	switch age := now.Sub(h.filled); {
	case h.filled.IsZero() || age > time.Minute || age < -time.Minute:
		h.tokens = most
	case age > 0:
		h.tokens = min(most, h.tokens+float64(h.perMinute)*age.Minutes())
	default:
		return
	}
	h.filled = now
}

// nextToken is when a hop may have another message; the zero time when it may have one now.
func (h *hop) nextToken(now time.Time) time.Time {
	if h.perMinute == 0 {
		return time.Time{}
	}
	h.refill(now)
	if h.tokens >= 1 {
		return time.Time{}
	}
	return now.Add(time.Duration(math.Ceil((1-h.tokens)/float64(h.perMinute)*60_000)) * time.Millisecond)
}

// allow tells the store the next hop of a destination and how many units it may have now.
func (q *Queue) allow(destination string, forced bool) (key string, units int) {
	key = q.o.Transport.NextHop(destination)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rules.Load().isPaused(PauseTo + destination) {
		q.blocked[destination] = true
		return key, 0
	}
	h := q.hops[key]
	if h == nil {
		h = q.newHop(destination)
		if h.perMinute > 0 { // its messages are counted from the first
			q.hops[key] = h
		}
		return key, int(h.limit)
	}
	q.limits(h, destination)
	now := q.o.Clock()
	if forced { // an administrator knows better whether it is back
		h.until = time.Time{}
	}
	if h.until.After(now) || !h.nextToken(now).IsZero() {
		return key, 0
	}
	if h.fails > 0 { // one tries whether it is back
		return key, max(0, 1-h.active)
	}
	return key, max(0, int(h.limit)-h.active)
}

// allowance is how many messages a destination may have now; 0: any number.
func (q *Queue) allowance(destination string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hops[q.o.Transport.NextHop(destination)]
	if h == nil || h.perMinute == 0 {
		return 0
	}
	h.refill(q.o.Clock())
	return max(1, int(h.tokens))
}

// moveBlocked takes destinations that are paused out of those that are due, where they stand before others.
func (q *Queue) moveBlocked(ctx context.Context, now time.Time) {
	q.mu.Lock()
	var list []string
	for d := range q.blocked {
		list = append(list, d)
	}
	clear(q.blocked)
	q.mu.Unlock()
	for _, d := range list {
		if err := q.o.Store.QueueRest(ctx, d, now.Add(pausedUntil)); err != nil && ctx.Err() == nil {
			q.o.Logger.Error("queue: a destination can't be paused", "destination", d, "error", err)
		}
	}
}

// takeToken counts a message for a next hop with a limit of them; when it has none left it returns when it has.
func (q *Queue) takeToken(destination string) (next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hops[q.o.Transport.NextHop(destination)]
	if h == nil || h.perMinute == 0 {
		return time.Time{}
	}
	if next = h.nextToken(q.o.Clock()); next.IsZero() {
		h.tokens--
	}
	return next
}

// reached notes that a next hop could be spoken to.
func (q *Queue) reached(destination string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hops[q.o.Transport.NextHop(destination)]
	if h == nil {
		return
	}
	before := int(h.limit)
	h.fails, h.putOffs, h.until = 0, 0, time.Time{}
	q.limits(h, destination)
	grow := 1.0
	if h.steady {
		grow = 1 / h.limit
	}
	if h.limit = min(h.limit+grow, float64(h.most)); int(h.limit) > before {
		q.poke()
	}
}

// unreachable notes that a next hop could not be spoken to, and returns until when it rests.
func (q *Queue) unreachable(destination string) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hops[q.o.Transport.NextHop(destination)]
	if h == nil { // can't be while a worker is at it
		return time.Time{}
	}
	now := q.o.Clock()
	if h.until.After(now) { // another worker has seen the same
		return h.until
	}
	h.halve()
	rest := q.jitter(doubled(q.p.RestMin, h.fails, q.p.RestMax))
	h.fails++
	h.until = now.Add(rest)
	return h.until
}

func (h *hop) halve() {
	h.limit = max(1, h.limit/2)
	h.steady = true
}

// putOff notes that a next hop asked for less: it gets half as many connections, and rests when that does not help. It returns
// until when, zero when it does not rest.
func (q *Queue) putOff(destination string) time.Time {
	q.mu.Lock()
	h := q.hops[q.o.Transport.NextHop(destination)]
	now := q.o.Clock()
	if h == nil || now.Sub(h.slowed) < slowAgain && !now.Before(h.slowed) {
		q.mu.Unlock()
		return time.Time{}
	}
	h.slowed = now
	h.putOffs++
	h.halve()
	rest := h.putOffs >= maxPutOffs
	q.mu.Unlock()
	if rest {
		return q.unreachable(destination)
	}
	return time.Time{}
}

// resting tells whether, and until when, a destination is left alone.
func (q *Queue) resting(destination string) (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.hops[q.o.Transport.NextHop(destination)]
	if h == nil || !h.until.After(q.o.Clock()) {
		return time.Time{}, false
	}
	return h.until, true
}

// isPaused tells whether nothing goes to a destination until an administrator says so.
func (q *Queue) isPaused(destination string) bool {
	r := q.rules.Load()
	return r.isPaused(PauseAll) || r.isPaused(PauseTo+destination)
}

// viaOf is how a link connects that is there or not.
func viaOf(link Link) transport.Via {
	if link == nil {
		return transport.Via{}
	}
	return link.Via()
}

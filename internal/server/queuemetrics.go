package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/queue"
	"waxwing/internal/store"
)

// How queueFigures count: the cost of a count grows with the queue, so scrapes that come close together share one.
const (
	queueFiguresFresh = 10 * time.Second
	queueFiguresWait  = 5 * time.Second
)

// queueFigures are the length and the age of the queue.
type queueFigures struct {
	count func(context.Context) (store.QueueCounts, error)
	clock func() time.Time

	mu     sync.Mutex
	last   store.QueueCounts
	lastAt time.Time
}

// registerQueue reports how much waits in the queue, and how long.
func registerQueue(reg *prometheus.Registry, count func(context.Context) (store.QueueCounts, error), clock func() time.Time) {
	f := &queueFigures{count: count, clock: clock}
	recipients := func(state store.QueueState, n func(store.QueueCounts) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "waxwing_queue_recipients", Help: "Recipients in the queue, by state.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 { return float64(n(f.get())) })
	}
	reg.MustRegister(
		recipients(store.QueueWaiting, func(c store.QueueCounts) int { return c.Waiting }),
		recipients(store.QueueLeased, func(c store.QueueCounts) int { return c.Leased }),
		recipients(store.QueueHeld, func(c store.QueueCounts) int { return c.Held }),
		recipients(store.QueueDamaged, func(c store.QueueCounts) int { return c.Damaged }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_queue_messages", Help: "Messages in the queue."},
			func() float64 { return float64(f.get().Messages) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_queue_destinations", Help: "Destinations that recipients in the queue wait for."},
			func() float64 { return float64(f.get().Destinations) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_queue_oldest_seconds", Help: "Age of the oldest message in the queue; 0 when it is empty."},
			f.oldest),
	)
}

// registerSending reports what the scheduler has under way.
func registerSending(reg *prometheus.Registry, load func() queue.Load) {
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_queue_connections", Help: "Connections to other servers that are in use."},
			func() float64 { return float64(load().Active) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_queue_resting", Help: "Next hops that rest because they could not be reached or asked for it, as far as this node remembers."},
			func() float64 { return float64(load().Resting) }),
	)
}

// get counts, or gives the last count while it is fresh or when the store does not answer.
func (f *queueFigures) get() store.QueueCounts {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.clock()
	if age := now.Sub(f.lastAt); age >= 0 && age < queueFiguresFresh {
		return f.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), queueFiguresWait)
	defer cancel()
	if c, err := f.count(ctx); err == nil {
		f.last = c
	}
	f.lastAt = now // a store that fails is not asked again for each figure
	return f.last
}

func (f *queueFigures) oldest() float64 {
	c := f.get()
	if c.Oldest.IsZero() {
		return 0
	}
	return max(0, f.clock().Sub(c.Oldest).Seconds())
}

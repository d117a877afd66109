package greylist

import (
	"context"
	"time"

	"waxwing/internal/guard/batch"
	"waxwing/internal/store"
)

// expireEvery is how often rows are expired.
const expireEvery = time.Hour

// Run writes what is new and expires what is old until ctx ends; then it writes what is left.
func (g *List) Run(ctx context.Context) {
	batch.Run(ctx, batch.Work{Name: "greylisting", Flush: g.Flush, Expire: g.Expire, Every: expireEvery, Lead: g.opts.Lead, Logger: g.opts.Logger})
}

// Flush writes what is new to the store. What can't be written waits for the next time.
func (g *List) Flush(ctx context.Context) error {
	g.mu.Lock()
	rows := make([]store.GreyRow, 0, len(g.fresh))
	for key, e := range g.fresh {
		rows = append(rows, store.GreyRow{Key: key, First: e.first, Last: e.last, Passed: e.passed})
	}
	g.fresh, g.ofOne = map[string]*entry{}, map[string]int{}
	g.mu.Unlock()
	stale := g.opts.Clock().Add(-Window)
	left, err := batch.InParts(rows, func(part []store.GreyRow) error { return g.opts.Store.SaveGreyRows(ctx, part, stale) })
	g.again(left)
	return err
}

// again puts back what could not be written, unless there is newer.
func (g *List) again(rows []store.GreyRow) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range rows {
		if _, newer := g.fresh[r.Key]; !newer && len(g.fresh) < maxFresh {
			g.fresh[r.Key] = &entry{first: r.First, last: r.Last, passed: r.Passed}
		}
	}
}

// Expire removes from the store what is of no use any more.
func (g *List) Expire(ctx context.Context) error {
	now := g.opts.Clock()
	left, err := g.opts.Store.ExpireGreyRows(ctx, now.Add(-Window), now.Add(-g.opts.Policy().Known))
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if full := left >= maxRows; full != g.full {
		g.full = full
		g.opts.Logger.Warn("greylisting in the store", "full", full, "rows", left)
	}
	return nil
}

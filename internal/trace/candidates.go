package trace

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"waxwing/internal/store"
)

// candidates lists the ids of traces that may fit a filter, the newest first: those of the word that tells most, or all.
type candidates struct {
	store  *store.Store
	filter *Filter
	before string // the next one is less

	ids   []string
	begun bool
	ended bool

	word          uint32
	byWord        bool
	bucket, first int64 // the one that comes next, and the last one to look into
}

func (c *candidates) next(ctx context.Context) (string, error) {
	if !c.begun {
		c.begun = true
		if err := c.begin(ctx); err != nil {
			return "", err
		}
	}
	for len(c.ids) == 0 && !c.ended {
		if err := c.more(ctx); err != nil {
			return "", err
		}
	}
	if len(c.ids) == 0 {
		return "", nil
	}
	id := c.ids[0]
	c.ids = c.ids[1:]
	c.before = id
	return id, nil
}

// begin chooses the word, and the buckets to look into.
func (c *candidates) begin(ctx context.Context) error {
	c.word, c.byWord = c.filter.word()
	if !c.byWord {
		return nil
	}
	first, last, ok, err := c.store.TraceBuckets(ctx)
	if err != nil || !ok {
		c.ended = true
		return err
	}
	c.first, c.bucket = first, last
	if !c.filter.Since.IsZero() {
		c.first = max(first, bucketOf(c.filter.Since))
	}
	if at, ok := TimeOf(c.before); ok {
		c.bucket = min(last, bucketOf(at))
	}
	return nil
}

// more looks for the next ids.
func (c *candidates) more(ctx context.Context) (err error) {
	if !c.byWord {
		after := ""
		if !c.filter.Since.IsZero() {
			after = firstID(c.filter.Since.Add(-time.Hour)) // an id may be older than its first step by nothing, but clocks differ
		}
		c.ids, err = c.store.TraceIDs(ctx, after, c.before, idsAtOnce)
		c.ended = len(c.ids) == 0
		return err
	}
	if c.bucket < c.first {
		c.ended = true
		return ctx.Err()
	}
	c.ids, err = c.inBucket(ctx)
	if len(c.ids) < idsAtOnce {
		c.bucket--
	}
	return err
}

// inBucket gives the newest ids of the bucket that have the word, those before the last one.
func (c *candidates) inBucket(ctx context.Context) ([]string, error) {
	var ids []string
	trim := func() {
		slices.Sort(ids)
		slices.Reverse(ids)
		ids = slices.Compact(ids)
		ids = ids[:min(len(ids), idsAtOnce)]
	}
	err := c.store.TraceIndexes(ctx, c.bucket, math.MaxInt32, func(index store.TraceIndex) {
		lookUp(index, c.word, func(id string) {
			if id < c.before {
				ids = append(ids, id)
			}
		})
		if len(ids) > 4*idsAtOnce {
			trim()
		}
	})
	trim()
	return ids, err
}

// word chooses the word that finds the fewest traces; false when none of what is asked for has words.
func (f *Filter) word() (uint32, bool) {
	for _, w := range []struct{ kind, text string }{
		{wordMessageID, f.MessageID},
		{wordAddress, f.From},
		{wordAddress, f.To},
		{wordAddress, f.Address},
		{wordRemote, ipOf(f.Remote)},
		{wordHost, f.Host},
		{wordDomain, f.Domain},
	} {
		if w.text != "" {
			return hashOf(w.kind, w.text), true
		}
	}
	if len(f.Outcomes) == 1 && !slices.Contains(f.Outcomes, Delivered) {
		return hashOf(wordOutcome, f.Outcomes[0].String()), true
	}
	return 0, false
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }

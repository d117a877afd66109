// Package batch is the rhythm of what the front door remembers: what is new in memory is written to the store every few
// seconds and once more at the end, and what is old there is expired by one of the nodes. An error is said, and the work tried
// again with the next beat.
//
//	go batch.Run(ctx, batch.Work{Name: "greylisting", Flush: g.Flush, Expire: g.Expire, Every: time.Hour, Lead: st.Leads})
package batch

import (
	"context"
	"log/slog"
	"time"
)

const (
	// Beat is how often what is new is written: what a crash may lose.
	Beat = 2 * time.Second
	// end is how long the last writing may take.
	end = 5 * time.Second
	// Size is how many rows are written at once.
	Size = 1000
)

// Work is what there is to do. Flush is needed.
type Work struct {
	Name   string
	Flush  func(ctx context.Context) error
	Expire func(ctx context.Context) error // nil: nothing expires
	Every  time.Duration                   // between two expiries
	Lead   func() bool                     // whether this node expires; always when nil
	Logger *slog.Logger
}

// Run works until ctx ends.
func Run(ctx context.Context, w Work) {
	beat := time.NewTicker(Beat)
	defer beat.Stop()
	expiry := time.NewTimer(Beat)
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), end)
			defer cancel()
			w.do(last, w.Flush)
			return
		case <-beat.C:
			w.do(ctx, w.Flush)
		case <-expiry.C:
			if w.Expire == nil {
				continue
			}
			if w.Lead == nil || w.Lead() {
				w.do(ctx, w.Expire)
			}
			expiry.Reset(w.Every)
		}
	}
}

func (w Work) do(ctx context.Context, fn func(ctx context.Context) error) {
	if err := fn(ctx); err != nil && ctx.Err() == nil {
		w.Logger.Warn("what the front door remembers can't be written, it is tried again", "what", w.Name, "error", err)
	}
}

// InParts hands a list on in parts of Size until one fails, and gives what is left.
func InParts[T any](list []T, write func(part []T) error) (left []T, err error) {
	for len(list) > 0 {
		n := min(len(list), Size)
		if err := write(list[:n]); err != nil {
			return list, err
		}
		list = list[n:]
	}
	return nil, nil
}

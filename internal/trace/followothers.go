package trace

import (
	"context"
	"time"

	"waxwing/internal/store"
)

// With several nodes the rows are asked for: every pollEvery those that are older than settled, by when all transactions
// that could still bring older ones have ended.
const (
	pollEvery = time.Second
	settled   = 3 * time.Second
	pollRows  = 500
)

func (r *Recorder) othersAfter(ctx context.Context, place int64) ([]store.TraceRow, int64, error) {
	if place < 0 {
		place = partFloor(r.now().Add(-settled))
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		rows, err := r.o.Store.TraceBetween(ctx, place, partFloor(r.now().Add(-settled)), pollRows)
		if err != nil {
			if ctx.Err() != nil {
				err = nil
			}
			return nil, place, err
		}
		if len(rows) > 0 {
			return rows, rows[len(rows)-1].Part, nil
		}
		select {
		case <-ctx.Done():
			return nil, place, nil
		case <-tick.C:
		}
	}
}

// partFloor is less than the numbers of rows whose last step came at t or later.
func partFloor(t time.Time) int64 { return t.UnixMicro() << 9 }

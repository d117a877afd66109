package trace

import (
	"context"
	"sync"

	"waxwing/internal/store"
)

// Bounds of what is remembered for those who follow.
const (
	recentRows   = 2048
	recentOctets = 4 << 20
)

// recent is the last rows that this process handed over, for those who follow.
type recent struct {
	mu     sync.Mutex
	rows   []store.TraceRow // the oldest first
	octets int
	next   int64         // number of the row that comes next; those in rows end before it
	news   chan struct{} // closed when a row comes
	heard  bool          // somebody waits
}

func (c *recent) add(row store.TraceRow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows = append(c.rows, row)
	c.octets += len(row.Steps)
	c.next++
	drop := 0
	for drop < len(c.rows) && (len(c.rows)-drop > recentRows || c.octets > recentOctets) {
		c.octets -= len(c.rows[drop].Steps)
		drop++
	}
	c.rows = c.rows[drop:]
	if c.heard {
		close(c.news)
		c.news, c.heard = make(chan struct{}), false
	}
}

// after gives the rows from a number on, and how many of them are forgotten; news tells that more came.
func (c *recent) after(number int64) (rows []store.TraceRow, next, missed int64, news <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.next - int64(len(c.rows))
	if number < 0 || number > c.next {
		number = c.next
	}
	if number < first {
		missed, number = first-number, first
	}
	rows = append(rows, c.rows[number-first:]...)
	c.heard = true
	return rows, c.next, missed, c.news
}

// Happening is what followers get: steps of one trace.
type Happening struct {
	ID    string
	Steps []Step
}

// Follow waits until something happens after a place, or ctx ends, and gives it with the place to go on from. A negative
// place is now. missed counts rows that came faster than they were asked for. Of several nodes on one database it shows what
// all have written, some seconds later.
func (r *Recorder) Follow(ctx context.Context, place int64) (list []Happening, next, missed int64, err error) {
	if r == nil {
		return nil, place, 0, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.o.Alive, cancel)()
	var rows []store.TraceRow
	if r.o.Store.Shared() {
		rows, next, err = r.othersAfter(ctx, place)
	} else {
		rows, next, missed = r.ownAfter(ctx, place)
	}
	for _, row := range rows {
		if steps, _ := decode(row.Steps); len(steps) > 0 { // what can be read of a damaged row
			list = append(list, Happening{row.ID, steps})
		}
	}
	return list, next, missed, err
}

func (r *Recorder) ownAfter(ctx context.Context, place int64) ([]store.TraceRow, int64, int64) {
	for {
		rows, next, missed, news := r.recent.after(place)
		if place < 0 {
			place = next
		}
		if len(rows) > 0 || missed > 0 {
			return rows, next, missed
		}
		select {
		case <-ctx.Done():
			return nil, next, 0
		case <-news:
		}
	}
}

package trace

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/store"
)

// Bounds of the recorder.
const (
	maxHanded  = 8192                   // rows that wait to be written
	maxOctets  = 16 << 20               // and their octets
	maxBatch   = 256                    // rows of one transaction
	gather     = 200 * time.Millisecond // for which rows are gathered
	patience   = 2 * time.Second        // between two tries to write
	maxPace    = 200                    // traces of refusals a second
	paceBurst  = 4000                   // and at once
	flushGrace = 3 * time.Second        // for what waits when the server stops
)

// Options of a Recorder. Store is needed.
type Options struct {
	Store     *store.Store
	Clock     func() time.Time
	Retention func() time.Duration // for which traces are kept; 0: for ever
	Logger    *slog.Logger
	Alive     context.Context // ends those who follow; nil: only their own contexts do
}

// Stats are what a recorder has done since it was made.
type Stats struct {
	Written int64 // rows
	Shed    int64 // rows that were dropped since the store could not keep pace, or too much was refused
	Failed  int64 // transactions that failed; what they held was tried again
	Waiting int64 // rows that wait to be written
}

// Recorder writes what is no part of a delivery's transaction. A nil Recorder takes everything and forgets it. It is safe for
// concurrent use; Run writes.
type Recorder struct {
	o   Options
	log *slog.Logger

	handed chan entry
	octets atomic.Int64
	recent recent
	pace   pace
	stats  struct{ written, shed, failed atomic.Int64 }
	behind atomic.Int64 // since when rows may lack their words, Unix ms; 0: none does
}

// entry is a row on its way.
type entry struct {
	row    store.TraceRow
	stands bool // it was written with its message, only its words are missing
}

// New makes a Recorder.
func New(o Options) (*Recorder, error) {
	if o.Store == nil {
		return nil, errors.New("trace: a store is needed")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Alive == nil {
		o.Alive = context.Background()
	}
	if o.Retention == nil {
		o.Retention = func() time.Duration { return 0 }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{o: o, log: o.Logger, handed: make(chan entry, maxHanded)}
	r.recent.news = make(chan struct{})
	return r, nil
}

func (r *Recorder) now() time.Time {
	if r == nil {
		return time.Time{}
	}
	return r.o.Clock()
}

// Record adds steps to a trace that was written before. It doesn't block.
func (r *Recorder) Record(id string, steps ...Step) {
	if r == nil || id == "" || len(steps) == 0 {
		return
	}
	t := Trail{r: r, id: id}
	for _, s := range steps {
		t.Add(s)
	}
	r.hand(entry{row: t.Row()})
}

// Stats tells what was done.
func (r *Recorder) Stats() Stats {
	if r == nil {
		return Stats{}
	}
	return Stats{
		Written: r.stats.written.Load(), Shed: r.stats.shed.Load(), Failed: r.stats.failed.Load(), Waiting: int64(len(r.handed)),
	}
}

// hand gives a row to Run, or drops it where Run can't keep pace.
func (r *Recorder) hand(e entry) {
	r.recent.add(e.row)
	size := int64(len(e.row.Steps))
	if r.octets.Add(size) <= maxOctets {
		select {
		case r.handed <- e:
			return
		default:
		}
	}
	r.octets.Add(-size)
	r.shed(e)
}

// shed counts what is dropped. A row that stands gets its words later.
func (r *Recorder) shed(e entry) {
	if !e.stands {
		r.stats.shed.Add(1)
		return
	}
	r.behind.CompareAndSwap(0, timeOfPart(e.row.Part)/1000)
}

// mayRefuse bounds the traces of refusals, which anybody can cause.
func (r *Recorder) mayRefuse() bool {
	if r.pace.take(r.now()) {
		return true
	}
	r.stats.shed.Add(1)
	return false
}

// pace is a bucket of tokens.
type pace struct {
	mu   sync.Mutex
	full time.Time // when it is full again
}

func (p *pace) take(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full.Before(now) || p.full.Sub(now) > time.Minute {
		p.full = now
	}
	if p.full.Sub(now) > paceBurst*time.Second/maxPace {
		return false
	}
	p.full = p.full.Add(time.Second / maxPace)
	return true
}

// Run writes until ctx ends, and then what waits.
func (r *Recorder) Run(ctx context.Context) {
	r.catchUp(ctx, r.startOfGap(ctx))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			r.drain(ctx)
			return
		case e := <-r.handed:
			timer.Reset(gather)
			batch := r.gather(ctx, e, timer.C)
			for !r.write(ctx, batch) {
				timer.Reset(patience)
				select {
				case <-ctx.Done():
					r.drain(ctx)
					return
				case <-timer.C:
				}
			}
			if since := r.behind.Swap(0); since != 0 {
				r.catchUp(ctx, time.UnixMilli(since))
			}
		}
	}
}

// gather takes what comes within a short time, up to a batch.
func (r *Recorder) gather(ctx context.Context, first entry, end <-chan time.Time) []entry {
	batch := []entry{first}
	for len(batch) < maxBatch {
		select {
		case e := <-r.handed:
			batch = append(batch, e)
		case <-end:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// drain writes what waits when the server stops.
func (r *Recorder) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushGrace)
	defer cancel()
	for ctx.Err() == nil {
		var batch []entry
		for len(batch) < maxBatch && len(r.handed) > 0 {
			batch = append(batch, <-r.handed)
		}
		if len(batch) == 0 || !r.write(ctx, batch) {
			return
		}
	}
}

// write commits a batch; false when it must be tried again.
func (r *Recorder) write(ctx context.Context, batch []entry) bool {
	rows, index := prepare(batch)
	err := r.o.Store.TraceWrite(context.WithoutCancel(ctx), rows, index, maxTrace)
	if err != nil && !errors.Is(err, store.ErrClosed) {
		if r.stats.failed.Add(1)%100 == 1 {
			r.log.Error("traces can't be written, they are tried again", "rows", len(batch), "error", err)
		}
		return false
	}
	r.stats.written.Add(int64(len(batch)))
	for _, e := range batch {
		r.octets.Add(-int64(len(e.row.Steps)))
	}
	return true
}

// prepare gives the rows of a batch that are still to be written, and what all of them are found by.
func prepare(batch []entry) (rows []store.TraceRow, index []store.TraceIndex) {
	var x indexer
	for _, e := range batch {
		if !e.stands {
			rows = append(rows, e.row)
		}
		x.add(e.row)
	}
	return rows, x.rows()
}

// gapMinutes is how far behind the newest row words may be missing after a crash: rows wait no longer than some seconds.
const gapMinutes = 10 * time.Minute

// startOfGap tells from when on rows may lack words because the process before this one ended early.
func (r *Recorder) startOfGap(ctx context.Context) time.Time {
	newest, indexed, err := r.o.Store.TraceNewest(ctx)
	if err != nil {
		r.log.Warn("it is unknown which traces lack words", "error", err)
		return time.Time{}
	}
	at, ok := TimeOf(newest)
	switch {
	case newest == "":
		return time.Time{}
	case !indexed: // they came from a backup or another store
		return time.UnixMilli(1)
	case !ok:
		return time.Time{}
	}
	return at.Add(-gapMinutes)
}

// catchUp makes the words of the rows since a time, which may be there already.
func (r *Recorder) catchUp(ctx context.Context, since time.Time) {
	if since.IsZero() {
		return
	}
	after := firstID(since)
	for ctx.Err() == nil {
		rows, err := r.o.Store.TraceAfter(ctx, after, maxBatch)
		if err != nil || len(rows) == 0 {
			if err != nil {
				r.log.Warn("traces can't be made findable now", "error", err)
				r.behind.CompareAndSwap(0, since.UnixMilli())
			}
			return
		}
		batch := make([]entry, len(rows))
		for i, row := range rows {
			batch[i] = entry{row: row, stands: true}
			after = row.ID
		}
		_, index := prepare(batch)
		if err := r.o.Store.TraceWrite(ctx, nil, index, maxTrace); err != nil {
			r.log.Warn("traces can't be made findable now", "error", err)
			r.behind.CompareAndSwap(0, since.UnixMilli())
			return
		}
	}
}

// Expire removes traces that are older than the retention. It may be stopped at any point.
func (r *Recorder) Expire(ctx context.Context) error {
	keep := r.o.Retention()
	if keep <= 0 {
		return nil
	}
	if may, err := r.o.Store.MayExpire(ctx); err != nil || !may { // the clock has jumped
		return err
	}
	end := r.o.Clock().Add(-keep)
	return r.o.Store.TraceExpire(ctx, firstID(end), bucketOf(end))
}

package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Bounds on the lines of one text: so many at once, and one more each so often.
const (
	boundedBurst = 100
	boundedEvery = 200 * time.Millisecond
	boundedTexts = 256 // beyond so many texts, all others share one bound
)

// Bounded gives a logger for a part whose lines a peer can cause at will: of each text it writes 100 lines at once and
// 5 a second from then on, so that nobody fills a disk by connecting. How many were left out stands in the next line of the
// text, as left_out. Debug lines are bounded as well.
func Bounded(log *slog.Logger, clock func() time.Time) *slog.Logger {
	return slog.New(boundedHandler{log.Handler(), &lineBounds{clock: clock, texts: map[string]*lineBound{}}})
}

// lineBounds is shared by all loggers that were made from one.
type lineBounds struct {
	clock func() time.Time
	mu    sync.Mutex
	texts map[string]*lineBound
}

// lineBound is a bucket of lines.
type lineBound struct {
	full    time.Time // when the bucket is full again
	leftOut int64
}

// take tells whether a line may be written, and how many weren't since the last one.
func (b *lineBounds) take(text string) (leftOut int64, ok bool) {
	now := b.clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	t, known := b.texts[text]
	if !known {
		if len(b.texts) >= boundedTexts {
			text = ""
		}
		if t = b.texts[text]; t == nil {
			t = &lineBound{}
			b.texts[text] = t
		}
	}
	if t.full.Before(now) {
		t.full = now
	}
	if t.full.Sub(now) > (boundedBurst-1)*boundedEvery {
		t.leftOut++
		return 0, false
	}
	t.full = t.full.Add(boundedEvery)
	leftOut, t.leftOut = t.leftOut, 0
	return leftOut, true
}

type boundedHandler struct {
	slog.Handler
	bounds *lineBounds
}

func (h boundedHandler) Handle(ctx context.Context, r slog.Record) error {
	leftOut, ok := h.bounds.take(r.Message)
	if !ok {
		return nil
	}
	if leftOut > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int64("left_out", leftOut))
	}
	return h.Handler.Handle(ctx, r)
}

func (h boundedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return boundedHandler{h.Handler.WithAttrs(attrs), h.bounds}
}

func (h boundedHandler) WithGroup(name string) slog.Handler {
	return boundedHandler{h.Handler.WithGroup(name), h.bounds}
}

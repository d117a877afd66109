// Package follow is what the indexes of text do alike, wherever they keep their terms: it reads a message into a document,
// never gives up on one without saying so, and tries again and again what fails, at longer and longer intervals. It holds
// no terms itself: packages fts and tsv do.
package follow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// Pick fills a document with the text of a message. It is called by one goroutine at a time.
type Pick func(d *search.Document, r io.ReaderAt, size int64) error

// Bounds of one batch, which is one transaction.
const (
	BatchMessages = 256
	BatchTerms    = 8 << 20 // octets of terms
	BatchTime     = 250 * time.Millisecond
)

const (
	maxHeld  = 1 << 20 // a message up to this size is read as a whole
	maxTries = 3       // a message that can't be read after as many tries goes in without its text
)

// Reader reads messages into one document, which is filled anew for each.
type Reader struct {
	Source store.SearchSource
	Pick   Pick
	Log    *slog.Logger
	Doc    search.Document

	raw     []byte
	failing store.MessageID // the message that can't be read
	tries   int
}

// Read fills Doc. A message that is damaged, that the picker can't bear, or that can't be read after some tries is incomplete:
// it must be a candidate of every search. store.ErrNotFound says that it is gone; any other error, that it is to be tried again.
func (r *Reader) Read(ctx context.Context, m store.MessageRef) error {
	r.Doc.Reset()
	err := r.pick(ctx, m)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, store.ErrNotFound) && r.gone(ctx, m):
		return err
	case !r.givenUp(m, err):
		return fmt.Errorf("message %d of account %d: %w", m.Message, m.Account, err)
	default:
		r.Doc.Reset()
		r.Doc.SetIncomplete()
	}
	return nil
}

// gone tells a message that is gone from one whose content can't be found: that one may be mended yet.
func (r *Reader) gone(ctx context.Context, m store.MessageRef) bool {
	gone, err := r.Source.GoneMessages(ctx, []store.MessageID{m.Message})
	return err == nil && len(gone) == 1
}

// givenUp tells whether a message goes in without its text: because it is damaged, or was tried often enough.
func (r *Reader) givenUp(m store.MessageRef, err error) bool {
	if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, errPanic) {
		if r.failing != m.Message {
			r.failing, r.tries = m.Message, 0
		}
		if r.tries++; r.tries < maxTries {
			return false
		}
	}
	r.Log.Warn("search index: a message can't be read, searches will try", "account", m.Account, "message", m.Message, "err", err)
	return true
}

// errPanic is the error of a message that the picker could not bear.
var errPanic = errors.New("panic while a message was read")

func (r *Reader) pick(ctx context.Context, m store.MessageRef) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.Log.Error("search index: panic while a message was read", "account", m.Account, "message", m.Message, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	if m.Size <= maxHeld {
		if r.raw, err = r.Source.ReadBlob(ctx, m.Account, m.Message, r.raw[:0]); err != nil {
			return err
		}
		return r.Pick(&r.Doc, bytes.NewReader(r.raw), int64(len(r.raw)))
	}
	b, err := r.Source.OpenBlob(ctx, m.Account, m.Message)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // it was only read
	return r.Pick(&r.Doc, b, b.Size())
}

// Loop is how an index goes about its work.
type Loop struct {
	Clock   func() time.Time
	Sleep   func(ctx context.Context, d time.Duration) // returns early when ctx ends
	Wake    <-chan struct{}                            // there may be something to do
	Idle    time.Duration                              // a look without being woken
	Changes func() int64                               // notices of the store so far
	Failed  func(error)                                // called for each step that fails
	Fine    func()                                     // called for each that doesn't
}

// Run takes one step after the other until ctx ends; more tells that there may be more to do. When mail came in meanwhile it
// rests as long as the step took: mail goes first.
func (l *Loop) Run(ctx context.Context, step func(ctx context.Context) (more bool, err error)) {
	const shortest, longest = time.Second, time.Minute
	delay := shortest
	for ctx.Err() == nil {
		start, changes := l.Clock(), l.Changes()
		more, err := step(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			l.Failed(err)
			l.Sleep(ctx, delay)
			delay = min(2*delay, longest)
			continue
		case !more:
			l.idle(ctx)
		case l.Changes() != changes:
			l.Sleep(ctx, l.Clock().Sub(start))
		}
		l.Fine()
		delay = shortest
	}
}

// idle waits for something to do.
func (l *Loop) idle(ctx context.Context) {
	t := time.NewTimer(l.Idle)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-l.Wake:
	case <-t.C:
	}
}

// Sleep waits; it returns early when ctx ends.
func Sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Status is where an index stands.
type Status struct {
	Indexed  int64 // messages indexed since the start
	Rebuilds int64 // how often the index was begun anew since the start
	Waiting  int64 // messages that are not indexed yet, about
	Err      error // why nothing is indexed now, nil when all is well
}

// Package fts keeps the terms of messages in SQLite's FTS5, in a database file of its own, and follows the store behind
// its commits. Nothing of mail hangs on it: the file may be deleted, lost or damaged, and is made anew in the background;
// what it does not know yet is read.
//
// One goroutine writes. It reads the messages above the last one that it has indexed, in the order of their ids, and commits
// their terms together with the new mark, so that a crash repeats at most one batch. While mail comes in it works half of
// the time at most. DESIGN.md beside package search says why what it excludes can be believed.
//
//	idx, err := fts.New(fts.Options{Path: filepath.Join(dir, "search.db"), Pick: pick})
//	s, err := store.Open(ctx, store.Options{Search: idx, ...}) // starts it; Close of the store ends it
package fts

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/follow"
)

// Options of New. Zero values mean the defaults given here.
type Options struct {
	Path string // of the database file; required
	// Pick fills a document with the text of a message. Required.
	Pick   follow.Pick
	Logger *slog.Logger
	Stem   bool // take the plural off English words

	Clock      func() time.Time
	Sleep      func(ctx context.Context, d time.Duration) // returns early when ctx ends
	SweepEvery time.Duration                              // between two looks for messages that are gone, 1 h
	Readers    int                                        // connections that answer searches, 4
	MaxPages   int64                                      // the file refuses to grow beyond as many pages; 0: no bound
	// Progress is called after each commit, by the goroutine that writes, with the number of messages that came in and the
	// last one that is indexed. A commit that removes messages brings none in.
	Progress func(messages int, upto store.MessageID)
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = follow.Sleep
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = time.Hour
	}
	if o.Readers == 0 {
		o.Readers = 4
	}
	if o.Progress == nil {
		o.Progress = func(int, store.MessageID) {}
	}
}

// Index is a store.Searcher. All methods may be called at the same time.
type Index struct {
	opts Options
	log  *slog.Logger
	src  store.SearchSource // set by Start
	next store.MessageID    // set by Start: where ids began when the store was opened

	engine *follow.Engine

	mu      sync.RWMutex // held for reading by searches, for writing while the database is opened, closed or discarded
	db      *database    // nil while there is none
	damaged atomic.Bool  // a search found the file damaged

	goneMu sync.Mutex
	gone   []store.MessageRef // purged, and still in the index
	missed bool               // more were purged than gone holds

	upto atomic.Int64 // the last message that is indexed
	last atomic.Int64 // the last message that there is

	feed feed // of the goroutine
}

var (
	_ store.Searcher     = (*Index)(nil)
	_ store.SearchProver = (*Index)(nil)
)

// New makes an index that is not started. It touches no file.
func New(o Options) (*Index, error) {
	if o.Path == "" || o.Pick == nil {
		return nil, errors.New("fts: path and pick are required")
	}
	o.setDefaults()
	o.Pick = follow.Shared(o.Pick)
	x := &Index{opts: o, log: o.Logger, engine: follow.NewEngine(o.Logger)}
	x.feed.reader = follow.Reader{Pick: o.Pick, Log: o.Logger, Doc: search.Document{Analyzer: search.Analyzer{Stem: o.Stem}}}
	return x, nil
}

// Start implements store.Searcher.
func (x *Index) Start(src store.SearchSource, next store.MessageID) {
	x.src, x.next = src, next
	x.feed.reader.Source = src
	x.engine.Start(src, follow.Loop{Clock: x.opts.Clock, Sleep: x.opts.Sleep, Idle: x.opts.SweepEvery, Failed: x.failed}, x.step)
}

// Close ends the goroutine and closes the file. An index that was not started has neither.
func (x *Index) Close() error {
	return x.engine.Stop(func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		err := x.db.close()
		x.db = nil
		return err
	})
}

// Status tells where the index stands.
func (x *Index) Status() follow.Status {
	return x.engine.Status(max(0, x.last.Load()-x.upto.Load())) // ids that were skipped count
}

// maxGone is how many purged messages are remembered; more are found by looking.
const maxGone = 1 << 16

// Purged tells of messages that are gone for good, so that their terms go soon. It does not block.
func (x *Index) Purged(acct store.AccountID, ids []store.MessageID) {
	x.goneMu.Lock()
	for _, id := range ids {
		if len(x.gone) >= maxGone {
			x.missed = true
			break
		}
		x.gone = append(x.gone, store.MessageRef{Account: acct, Message: id})
	}
	x.goneMu.Unlock()
	x.engine.Poke()
}

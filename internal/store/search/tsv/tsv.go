// Package tsv keeps the terms of messages in PostgreSQL, beside the rows of the store that any number of nodes share: a tsvector
// a message under a GIN index. It stands behind the store as package fts does, and nothing of mail hangs on it.
//
// A trigger notes each message that comes or goes in search_todo, in the transaction that it comes or goes with. One node at a
// time takes notes, oldest first, and commits the terms and the end of the notes together; what is still noted is a candidate
// of every search. So it does not matter in which order ids are given or transactions commit: DESIGN.md beside package search.
//
//	idx, err := tsv.New(tsv.Options{DSN: dsn, Pick: pick})
//	s, err := store.Open(ctx, store.Options{Search: idx, ...}) // starts it; Close of the store ends it
package tsv

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/follow"
)

// Options of New. Zero values mean the defaults given here.
type Options struct {
	DSN string // of the database that the store is in, and whose schema it has made; required
	// Pick fills a document with the text of a message. Required.
	Pick   follow.Pick
	Logger *slog.Logger
	Stem   bool // take the plural off English words

	Clock    func() time.Time
	Sleep    func(ctx context.Context, d time.Duration) // returns early when ctx ends
	Poll     time.Duration                              // between two looks for what other nodes did, 5 s
	Readers  int                                        // connections that answer searches, 4
	Progress func()                                     // called after each commit, by the goroutine that writes
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
	if o.Poll == 0 {
		o.Poll = 5 * time.Second
	}
	if o.Readers == 0 {
		o.Readers = 4
	}
	if o.Progress == nil {
		o.Progress = func() {}
	}
}

// version names what the terms depend on. The place where they are kept belongs to it.
func (o *Options) version() string {
	return "tsv1/" + search.Version + "/stem=" + strconv.FormatBool(o.Stem)
}

// Index is a store.Searcher. All methods may be called at the same time.
type Index struct {
	opts Options
	log  *slog.Logger

	source store.SearchSource // set by Start

	engine *follow.Engine

	mu      sync.RWMutex // held for reading by searches
	readers *sql.DB      // nil before the first step and after Close

	waiting atomic.Int64 // messages that are not indexed yet

	// Of the goroutine.
	reader follow.Reader
	writer *sql.DB
	conn   *sql.Conn // with the lock of the one who indexes; nil without
	loose  bool      // terms were written that may not be merged into the lists yet
}

var (
	_ store.Searcher     = (*Index)(nil)
	_ store.SearchProver = (*Index)(nil)
)

// New makes an index that is not started. It connects to nothing.
func New(o Options) (*Index, error) {
	if o.DSN == "" || o.Pick == nil {
		return nil, errors.New("tsv: connection string and pick are required")
	}
	o.setDefaults()
	o.Pick = follow.Shared(o.Pick)
	x := &Index{opts: o, log: o.Logger, engine: follow.NewEngine(o.Logger)}
	x.reader = follow.Reader{Pick: o.Pick, Log: o.Logger, Doc: search.Document{Analyzer: search.Analyzer{Stem: o.Stem}}}
	return x, nil
}

// Start implements store.Searcher.
func (x *Index) Start(src store.SearchSource, _ store.MessageID) {
	x.source, x.reader.Source = src, src
	x.engine.Start(src, follow.Loop{Clock: x.opts.Clock, Sleep: x.opts.Sleep, Idle: x.opts.Poll, Failed: x.failed}, x.step)
}

// Purged tells of messages that are gone for good. The trigger has noted them; they are looked at soon.
func (x *Index) Purged(store.AccountID, []store.MessageID) { x.engine.Poke() }

// Close ends the goroutine and the connections. An index that was not started has neither.
func (x *Index) Close() error {
	return x.engine.Stop(func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.readers == nil {
			return nil
		}
		x.letGo()
		err := errors.Join(x.readers.Close(), x.writer.Close())
		x.readers = nil
		return err
	})
}

// Status tells where the index stands.
func (x *Index) Status() follow.Status { return x.engine.Status(x.waiting.Load()) }

// failed lets the connection go, whatever the error was, and with it the lock: another node may do better.
func (x *Index) failed(error) { x.letGo() }

// letGo ends the session that has the lock, if there is one.
func (x *Index) letGo() {
	if x.conn == nil {
		return
	}
	_ = x.conn.Raw(func(any) error { return driver.ErrBadConn }) // out of the pool, so that the session ends
	_ = x.conn.Close()
	x.conn = nil
}

// connect opens the connections. It looks at none.
func (x *Index) connect() error {
	if x.readers != nil {
		return nil
	}
	// A crash of the database may take the last batch: its notes are then there again. Plans: nothing but the index will do.
	readers, err := postgres.OpenPool(x.opts.DSN, x.opts.Readers, map[string]string{"enable_seqscan": "off", "jit": "off", "max_parallel_workers_per_gather": "0"})
	if err != nil {
		return err
	}
	writer, err := postgres.OpenPool(x.opts.DSN, 1, map[string]string{"synchronous_commit": "off", "jit": "off", "max_parallel_workers_per_gather": "0"})
	if err != nil {
		return errors.Join(err, readers.Close())
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.readers, x.writer = readers, writer
	return nil
}

// lockClass is the first key of the advisory lock of the one who indexes: "waxs".
const lockClass int32 = 0x77617873

// lead tells whether this node is the one who indexes. The lock belongs to the session that writes the terms too: who has lost
// it can't write. It spares work that two would do; what they would write is the same.
func (x *Index) lead(ctx context.Context) (bool, error) {
	if x.conn != nil {
		return true, nil
	}
	conn, err := x.writer.Conn(ctx)
	if err != nil {
		return false, fmt.Errorf("tsv: connect: %w", err)
	}
	x.conn = conn
	var ours bool
	err = conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1, hashtext(current_schema()))`, lockClass).Scan(&ours)
	if err != nil {
		return false, fmt.Errorf("tsv: lock: %w", err)
	}
	if !ours {
		x.conn = nil
		return false, conn.Close() // back into the pool
	}
	return true, x.renew(ctx)
}

// renew notes all messages when their terms were made by other rules, or not at all yet. Whatever commits meanwhile notes
// itself.
func (x *Index) renew(ctx context.Context) error {
	return x.transaction(ctx, func(tx *sql.Tx) error {
		var found string
		if err := tx.QueryRowContext(ctx, `SELECT version FROM search_state FOR UPDATE`).Scan(&found); err != nil {
			return fmt.Errorf("tsv: version: %w", err)
		}
		if found == x.opts.version() {
			return nil
		}
		if found != "" {
			x.log.Warn("search index: made anew by other rules", "made_by", found, "now", x.opts.version())
			x.engine.Rebuilds.Add(1)
		}
		if _, err := tx.ExecContext(ctx, noteAll); err != nil {
			return fmt.Errorf("tsv: note all messages: %w", err)
		}
		_, err := tx.ExecContext(ctx, `UPDATE search_state SET version = $1`, x.opts.version())
		return err
	})
}

// noteAll has the terms of all messages made anew.
const noteAll = `INSERT INTO search_todo (account_id, message_id) SELECT m.account_id, m.message_id FROM message AS m
	WHERE NOT EXISTS (SELECT 1 FROM search_todo AS d WHERE d.message_id = m.message_id) ORDER BY m.message_id`

// transaction runs fn in a transaction of the session that has the lock.
func (x *Index) transaction(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := x.conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("tsv: begin: %w", err)
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("tsv: commit: %w", err)
	}
	return nil
}

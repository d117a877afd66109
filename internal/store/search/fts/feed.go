package fts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// Bounds of one batch, which is one transaction.
const (
	batchMessages = 256
	batchTerms    = 8 << 20 // octets of terms
	batchTime     = 250 * time.Millisecond
	maxHeld       = 1 << 20  // a message up to this size is read as a whole
	maxTries      = 3        // a message that can't be read after as many tries goes in without its text
	reserve       = 64 << 20 // octets that must be left for mail
	sweepStep     = 1000     // rows that one look for gone messages takes
)

// feed is the state of the goroutine that writes.
type feed struct {
	doc   search.Document
	terms []byte
	raw   []byte

	failing store.MessageID // the message that can't be read
	tries   int

	swept    time.Time // when the last sweep ended
	sweeping bool
	at       int64 // row where the sweep goes on
	seen     int64 // notices of the store when the last sweep began
}

// run is the goroutine: it indexes until ctx ends. Whatever fails is tried again, at longer and longer intervals.
func (x *Index) run(ctx context.Context) {
	const shortest, longest = time.Second, time.Minute
	delay := shortest
	for ctx.Err() == nil {
		start, changes := x.opts.Clock(), x.changes.Load()
		more, err := x.step(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			x.failed(err)
			x.opts.Sleep(ctx, delay)
			delay = min(2*delay, longest)
			continue
		case !more:
			x.idle(ctx)
		case x.changes.Load() != changes: // mail comes in: it goes first
			x.opts.Sleep(ctx, x.opts.Clock().Sub(start))
		}
		x.failure.Store(nil)
		delay = shortest
	}
}

// idle waits for something to do.
func (x *Index) idle(ctx context.Context) {
	t := time.NewTimer(x.opts.SweepEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-x.wake:
	case <-t.C:
	}
}

// failed notes an error, and discards an index that is damaged.
func (x *Index) failed(err error) {
	if x.failure.Swap(&err) == nil {
		x.log.Error("search index: stopped for now, searches read the messages instead", "err", err)
	}
	if !mustDiscard(err) {
		return
	}
	if err := x.discard(); err != nil {
		x.log.Error("search index: it can't be removed", "err", err)
	}
}

// discard removes the file. The next step makes a new one.
func (x *Index) discard() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.log.Warn("search index: made anew", "path", x.opts.Path)
	x.rebuilds.Add(1)
	err := x.db.close()
	x.db = nil
	x.upto.Store(0)
	x.feed.sweeping = false
	x.damaged.Store(false)
	return errors.Join(err, remove(x.opts.Path))
}

// step does one piece of work; more tells that there may be more of it.
func (x *Index) step(ctx context.Context) (more bool, err error) {
	if x.damaged.Load() {
		if err := x.discard(); err != nil {
			return false, err
		}
	}
	if err := x.ready(ctx); err != nil {
		return false, err
	}
	last, err := x.src.LastMessage(ctx)
	if err != nil {
		return false, err
	}
	x.last.Store(int64(last))
	if did, err := x.forget(ctx); did || err != nil {
		return true, err
	}
	list, err := x.src.MessagesAfter(ctx, store.MessageID(x.upto.Load()), batchMessages)
	if err != nil {
		return false, err
	}
	if len(list) == 0 {
		return x.sweep(ctx)
	}
	if err := x.src.Writable(reserve); err != nil {
		return false, fmt.Errorf("fts: room is kept for mail: %w", err)
	}
	return true, x.index(ctx, list)
}

// ready opens the file.
func (x *Index) ready(ctx context.Context) error {
	if x.db != nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	db, upto, err := openDatabase(ctx, &x.opts)
	if err != nil {
		return err
	}
	if err := x.belongs(ctx, db, upto); err != nil {
		return errors.Join(err, db.close())
	}
	x.next = 0 // only what was there at the start can be ahead
	x.db = db
	x.upto.Store(int64(upto))
	return nil
}

// index adds the terms of messages and moves the mark, in one transaction.
func (x *Index) index(ctx context.Context, list []store.MessageRef) (err error) {
	tx, err := x.db.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("fts: begin: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreDone(tx.Rollback()))
		}
	}()
	insert, err := tx.PrepareContext(ctx, `INSERT INTO term (rowid, terms) VALUES ($1, $2)`)
	if err != nil {
		return fmt.Errorf("fts: prepare: %w", err)
	}
	defer func() { _ = insert.Close() }() // the transaction ends it too
	end, octets, n := x.opts.Clock().Add(batchTime), 0, 0
	for n < len(list) && octets < batchTerms && (n == 0 || x.opts.Clock().Before(end)) {
		size, err := x.add(ctx, insert, list[n])
		if err != nil {
			return err
		}
		octets += size
		n++
	}
	mark := list[n-1].Message
	if _, err := tx.ExecContext(ctx, `UPDATE state SET value = $1 WHERE name = 'upto'`, int64(mark)); err != nil {
		return fmt.Errorf("fts: mark: %w", err)
	}
	if err := x.testify(ctx, tx, mark); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("fts: commit: %w", err)
	}
	x.upto.Store(int64(mark))
	x.indexed.Add(int64(n))
	x.opts.Progress(n, mark)
	return nil
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// add adds the terms of one message and returns their size.
func (x *Index) add(ctx context.Context, insert *sql.Stmt, m store.MessageRef) (int, error) {
	row, ok := rowOf(m.Account, m.Message)
	if !ok {
		return 0, nil
	}
	f := &x.feed
	f.doc.Reset()
	err := x.pick(ctx, m)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.Is(err, store.ErrNotFound):
		return 0, nil // gone since
	case !x.givenUp(m, err):
		return 0, fmt.Errorf("fts: message %d of account %d: %w", m.Message, m.Account, err)
	default:
		f.doc.Reset()
		f.doc.SetIncomplete()
	}
	f.terms = appendAccountTerm(f.terms[:0], m.Account, f.doc.Incomplete())
	f.terms = f.doc.AppendTerms(f.terms)
	if _, err := insert.ExecContext(ctx, row, string(f.terms)); err != nil {
		return 0, fmt.Errorf("fts: message %d of account %d: %w", m.Message, m.Account, err)
	}
	return len(f.terms), nil
}

// givenUp tells whether a message goes in without its text: because it is damaged, or was tried often enough. It is a
// candidate of every search then.
func (x *Index) givenUp(m store.MessageRef, err error) bool {
	if f := &x.feed; !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, errPanic) {
		if f.failing != m.Message {
			f.failing, f.tries = m.Message, 0
		}
		if f.tries++; f.tries < maxTries {
			return false
		}
	}
	x.log.Warn("search index: a message can't be read, searches will try", "account", m.Account, "message", m.Message, "err", err)
	return true
}

// errPanic is the error of a message that the picker could not bear.
var errPanic = errors.New("fts: panic while a message was read")

// pick fills the document with a message.
func (x *Index) pick(ctx context.Context, m store.MessageRef) (err error) {
	defer func() {
		if p := recover(); p != nil {
			x.log.Error("search index: panic while a message was read", "account", m.Account, "message", m.Message, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	f := &x.feed
	if m.Size <= maxHeld {
		if f.raw, err = x.src.ReadBlob(ctx, m.Account, m.Message, f.raw[:0]); err != nil {
			return err
		}
		return x.opts.Pick(&f.doc, readerAt(f.raw), int64(len(f.raw)))
	}
	b, err := x.src.OpenBlob(ctx, m.Account, m.Message)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // it was only read
	return x.opts.Pick(&f.doc, b, b.Size())
}

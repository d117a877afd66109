package fts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/search/follow"
)

const (
	reserve   = 64 << 20 // octets that must be left for mail
	sweepStep = 1000     // rows that one look for gone messages takes
)

// feed is the state of the goroutine that writes.
type feed struct {
	reader follow.Reader
	terms  []byte

	swept    time.Time // when the last sweep ended
	sweeping bool
	at       int64 // row where the sweep goes on
	seen     int64 // notices of the store when the last sweep began
}

// failed discards an index that is damaged.
func (x *Index) failed(err error) {
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
	x.engine.Rebuilds.Add(1)
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
	list, err := x.src.MessagesAfter(ctx, store.MessageID(x.upto.Load()), follow.BatchMessages)
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

// ready opens the file. Searches don't wait for it: a large file whose pages get their sums is rewritten first.
func (x *Index) ready(ctx context.Context) error {
	if x.db != nil {
		return nil
	}
	db, upto, err := openDatabase(ctx, &x.opts)
	if err != nil {
		return err
	}
	if err := x.belongs(ctx, db, upto); err != nil {
		return errors.Join(err, db.close())
	}
	x.next = 0 // only what was there at the start can be ahead
	x.mu.Lock()
	defer x.mu.Unlock()
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
	end, octets, n := x.opts.Clock().Add(follow.BatchTime), 0, 0
	for n < len(list) && octets < follow.BatchTerms && (n == 0 || x.opts.Clock().Before(end)) {
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
	x.engine.Indexed.Add(int64(n))
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
	err := f.reader.Read(ctx, m)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil // gone since
	}
	if err != nil {
		return 0, fmt.Errorf("fts: %w", err)
	}
	f.terms = appendAccountTerm(f.terms[:0], m.Account, f.reader.Doc.Incomplete())
	f.terms = f.reader.Doc.AppendTerms(f.terms)
	if _, err := insert.ExecContext(ctx, row, string(f.terms)); err != nil {
		return 0, fmt.Errorf("fts: message %d of account %d: %w", m.Message, m.Account, err)
	}
	return len(f.terms), nil
}

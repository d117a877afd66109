package fts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"waxwing/internal/store"
)

// forget removes the terms of messages that were purged.
func (x *Index) forget(ctx context.Context) (did bool, err error) {
	x.goneMu.Lock()
	list := x.gone[:min(len(x.gone), sweepStep)]
	missed := x.missed
	x.missed = false
	x.goneMu.Unlock()
	if missed {
		x.feed.swept, x.feed.seen = x.feed.swept.Add(-x.opts.SweepEvery), -1
	}
	if len(list) == 0 {
		return false, nil
	}
	rows := make([]int64, 0, len(list))
	for _, m := range list {
		if row, ok := rowOf(m.Account, m.Message); ok && int64(m.Message) <= x.upto.Load() {
			rows = append(rows, row)
		}
	}
	if err := x.remove(ctx, rows); err != nil {
		return false, err
	}
	x.goneMu.Lock()
	defer x.goneMu.Unlock()
	if x.gone = x.gone[len(list):]; len(x.gone) == 0 {
		x.gone = nil
	}
	return true, nil
}

// remove deletes rows in one transaction.
func (x *Index) remove(ctx context.Context, rows []int64) error {
	if len(rows) == 0 {
		return nil
	}
	tx, err := x.db.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("fts: begin: %w", err)
	}
	for _, row := range rows {
		if _, err := tx.ExecContext(ctx, `DELETE FROM term WHERE rowid = $1`, row); err != nil {
			return errors.Join(fmt.Errorf("fts: delete message %d: %w", messageOf(row), err), ignoreDone(tx.Rollback()))
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("fts: commit: %w", err)
	}
	x.opts.Progress(0, store.MessageID(x.upto.Load()))
	return nil
}

// sweep looks, a step at a time, whether messages of the index are gone: those that a crash kept from being purged. It
// begins when the store has changed since the last one and that is long enough ago.
func (x *Index) sweep(ctx context.Context) (more bool, err error) {
	f := &x.feed
	if !f.sweeping {
		changes := x.engine.Changes.Load()
		if !f.swept.IsZero() && (changes == f.seen || x.opts.Clock().Sub(f.swept) < x.opts.SweepEvery) {
			return false, nil
		}
		f.sweeping, f.at, f.seen = true, 0, changes
	}
	rows, err := rowsAfter(ctx, x.db.writer, f.at, sweepStep)
	if err != nil {
		return false, err
	}
	if len(rows) == 0 {
		f.sweeping, f.swept = false, x.opts.Clock()
		return false, nil
	}
	ids := make([]store.MessageID, len(rows))
	byID := make(map[store.MessageID]int64, len(rows))
	for i, row := range rows {
		ids[i] = messageOf(row)
		byID[ids[i]] = row
	}
	gone, err := x.src.GoneMessages(ctx, ids)
	if err != nil {
		return false, err
	}
	dead := make([]int64, len(gone))
	for i, id := range gone {
		dead[i] = byID[id]
	}
	if err := x.remove(ctx, dead); err != nil {
		return false, err
	}
	f.at = rows[len(rows)-1]
	return true, nil
}

// rowsAfter lists the rows of the index. FTS5 keeps one row of sizes for each.
func rowsAfter(ctx context.Context, db *sql.DB, after int64, limit int) ([]int64, error) {
	rows, err := db.QueryContext(ctx, `SELECT id FROM term_docsize WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("fts: list messages: %w", err)
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var row int64
		if err := rows.Scan(&row); err != nil {
			return nil, fmt.Errorf("fts: list messages: %w", err)
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

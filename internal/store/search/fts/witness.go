package fts

import (
	"context"
	"database/sql"
	"fmt"

	"waxwing/internal/store"
)

// witnesses is how many messages are kept with their fingerprints, the last one of each batch. They tell whether the file
// belongs to the store that it is opened with.
const witnesses = 64

// testify adds a witness to the transaction, and lets the oldest go.
func (x *Index) testify(ctx context.Context, tx *sql.Tx, id store.MessageID) error {
	prints, err := x.src.Fingerprints(ctx, []store.MessageID{id})
	if err != nil {
		return fmt.Errorf("fts: fingerprint of message %d: %w", id, err)
	}
	print, there := prints[id]
	if !there {
		return nil // gone since
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO witness (message_id, fingerprint) VALUES ($1, $2)`, int64(id), print); err != nil {
		return fmt.Errorf("fts: witness: %w", err)
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM witness WHERE message_id <=
		(SELECT message_id FROM witness ORDER BY message_id DESC LIMIT 1 OFFSET $1)`, witnesses)
	if err != nil {
		return fmt.Errorf("fts: witness: %w", err)
	}
	return nil
}

// belongs tells whether the file is about the messages of this store. One that knows of ids that the store has not given
// yet is of a later state, before the store was restored from a copy, say. One whose witnesses are other messages, or are
// all gone, is of another store.
func (x *Index) belongs(ctx context.Context, db *database, upto store.MessageID) error {
	if x.next > 0 && upto >= x.next {
		return fmt.Errorf("%w: it is ahead of the store", errStale)
	}
	known, err := db.witnesses(ctx)
	if err != nil || len(known) == 0 {
		return err
	}
	ids := make([]store.MessageID, 0, len(known))
	for id := range known {
		ids = append(ids, id)
	}
	prints, err := x.src.Fingerprints(ctx, ids)
	if err != nil {
		return err
	}
	for id, print := range prints {
		if known[id] != print {
			return fmt.Errorf("%w: message %d is another one", errStale, id)
		}
	}
	if len(prints) == 0 && len(known) >= witnesses {
		return fmt.Errorf("%w: the messages that it knows are gone", errStale)
	}
	return nil
}

func (db *database) witnesses(ctx context.Context) (map[store.MessageID]int64, error) {
	rows, err := db.writer.QueryContext(ctx, `SELECT message_id, fingerprint FROM witness`)
	if err != nil {
		return nil, fmt.Errorf("fts: witnesses: %w", err)
	}
	defer rows.Close()
	out := make(map[store.MessageID]int64)
	for rows.Next() {
		var id store.MessageID
		var print int64
		if err := rows.Scan(&id, &print); err != nil {
			return nil, fmt.Errorf("fts: witnesses: %w", err)
		}
		out[id] = print
	}
	return out, rows.Err()
}

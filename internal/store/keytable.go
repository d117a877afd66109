package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"waxwing/internal/store/keyring"
)

// KeyTable keeps the wrapped data keys in a database that several nodes share: a keyring.Home. It uses a connection of its
// own, as a ring is asked while the others are busy.
type KeyTable struct{ db *Database }

// NewKeyTable returns the table of a database, which must have a Side.
func NewKeyTable(db *Database) *KeyTable { return &KeyTable{db} }

// keyTables are the two tables, each of which holds all.
var keyTables = [...]string{"data_keys", "data_keys_copy"}

// Read implements keyring.Home.
func (t *KeyTable) Read(ctx context.Context) []keyring.Copy {
	out := make([]keyring.Copy, len(keyTables))
	for i, name := range keyTables {
		out[i].Name = "table " + name + " of the database"
		err := t.db.Side.QueryRowContext(ctx, `SELECT body FROM `+name+` WHERE part = 0`).Scan(&out[i].Text)
		if errors.Is(err, sql.ErrNoRows) {
			err = fs.ErrNotExist
		}
		out[i].Err = t.db.dbError(err)
	}
	return out
}

// Write implements keyring.Home.
func (t *KeyTable) Write(ctx context.Context, old, generation int64, text []byte) error {
	tx, err := t.db.Side.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", t, t.db.dbError(err))
	}
	if err := t.write(ctx, tx, old, generation, text); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("%s: %w", t, t.db.dbError(err))
	}
	return nil
}

func (t *KeyTable) write(ctx context.Context, tx *sql.Tx, old, generation int64, text []byte) error {
	known := int64(0)
	for _, name := range keyTables {
		// An UPDATE that changes nothing locks the row, so that nobody comes between.
		if _, err := tx.ExecContext(ctx, `UPDATE `+name+` SET part = 0 WHERE part = 0`); err != nil {
			return fmt.Errorf("%s: %w", t, t.db.dbError(err))
		}
		var g int64
		err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(generation), 0) FROM `+name).Scan(&g)
		if err != nil {
			return fmt.Errorf("%s: %w", t, t.db.dbError(err))
		}
		known = max(known, g)
	}
	if known != old {
		return keyring.ErrStale
	}
	for _, name := range keyTables {
		query := `INSERT INTO ` + name + ` (part, generation, body) VALUES (0, $1, $2)`
		if old > 0 {
			query += ` ON CONFLICT (part) DO UPDATE SET generation = excluded.generation, body = excluded.body`
		}
		_, err := tx.ExecContext(ctx, query, generation, text)
		if err != nil && t.db.Dialect.Fault(err) == FaultUnique {
			return keyring.ErrStale // another node made the first keys at the same time
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t, t.db.dbError(err))
		}
	}
	return nil
}

// Unused tells whether the database holds no content yet, so that its first data key may be made without asking.
func (t *KeyTable) Unused(ctx context.Context) (bool, error) {
	var contents int
	err := t.db.Side.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM blob LIMIT 1) AS b`).Scan(&contents)
	if err != nil {
		return false, fmt.Errorf("%s: %w", t, t.db.dbError(err))
	}
	return contents == 0, nil
}

// String names the table for people.
func (*KeyTable) String() string { return "table " + keyTables[0] + " of the database" }

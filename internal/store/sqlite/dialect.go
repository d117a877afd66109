package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strconv"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile"
	"waxwing/internal/store"
)

// dialect tells package store what is peculiar to SQLite.
type dialect struct{}

func (dialect) Begin() string { return "BEGIN IMMEDIATE" }

func (dialect) BeginRead() string { return "BEGIN" }

func (dialect) BeginSnapshot() string { return "BEGIN" }

func (dialect) LastID(q store.Querier, table string) (id int64, err error) {
	err = q.QueryRow(`SELECT COALESCE(max(seq), 0) FROM sqlite_sequence WHERE name = $1`, table).Scan(&id)
	return id, err
}

func (d dialect) RaiseLastID(tx *store.Tx, table string, id int64) error {
	last, err := d.LastID(tx, table)
	if err != nil || last >= id {
		return err
	}
	if _, err := tx.Exec(`DELETE FROM sqlite_sequence WHERE name = $1`, table); err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)`, table, id)
	return err
}

func (dialect) In(column, param string) string {
	return column + " IN (SELECT value FROM json_each(" + param + "))"
}

func (dialect) Table(alias, param string) string {
	return "(SELECT value AS v FROM json_each(" + param + ")) AS " + alias
}

// Numbers writes a JSON array: SQLite takes no arrays as parameters, and one parameter for each number would need a
// statement of its own for each count.
func (dialect) Numbers(n []int64) any {
	b := make([]byte, 0, 2+8*len(n))
	b = append(b, '[')
	for i, v := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, v, 10)
	}
	return string(append(b, ']'))
}

// State is always sound: a failed statement leaves the transaction open, and there is no connection that could break.
func (dialect) State(*sql.Conn) store.ConnState { return store.ConnSound }

func (dialect) Fault(err error) store.Fault {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return store.FaultBusy
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return store.FaultOther
	}
	switch e.Code() {
	case lib.SQLITE_CONSTRAINT_UNIQUE, lib.SQLITE_CONSTRAINT_PRIMARYKEY, lib.SQLITE_CONSTRAINT_ROWID:
		return store.FaultUnique
	case lib.SQLITE_IOERR_FSYNC, lib.SQLITE_IOERR_DIR_FSYNC:
		return store.FaultFailed
	case lib.SQLITE_IOERR_CORRUPTFS, lib.SQLITE_IOERR_DATA: // the second: a page with wrong sums
		return store.FaultCorrupt
	}
	switch e.Code() & 0xff { // the primary code of an extended one
	case lib.SQLITE_FULL:
		return store.FaultFull
	case lib.SQLITE_READONLY, lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN, lib.SQLITE_PERM:
		return store.FaultReadOnly
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_INTERRUPT, lib.SQLITE_NOMEM:
		return store.FaultBusy
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_FORMAT:
		return store.FaultCorrupt
	}
	return store.FaultOther
}

// ScrubPages implements store.PageScrubber.
func (dialect) ScrubPages(ctx context.Context, conn *sql.Conn, first int64) (store.PageRun, error) {
	r, err := sqlitefile.Scrub(ctx, conn, first)
	return store.PageRun{Next: r.Next, Octets: r.Seen * sqlitefile.PageSize, Mended: r.Mended, Broken: r.Broken}, err
}

// CheckIntegrity has SQLite check its pages and indexes; at most 100 faults are told.
func (dialect) CheckIntegrity(q store.Querier) ([]string, error) {
	rows, err := q.Query(`PRAGMA integrity_check(100)`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return out, err
		}
		if line != "ok" {
			out = append(out, line)
		}
	}
	return out, rows.Err()
}

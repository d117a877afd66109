package fts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile"
	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// Rows of the table of terms are named by account and message in one number, so that the messages of an account lie
// together in each list of the index.
const (
	messageBits = 40
	maxAccount  = 1 << (63 - messageBits)
	maxMessage  = 1 << messageBits
)

// rowOf names the row of a message; ok is false for ids that no number has room for, which are never indexed.
func rowOf(acct store.AccountID, id store.MessageID) (row int64, ok bool) {
	return int64(acct)<<messageBits | int64(id), acct >= 0 && acct < maxAccount && id > 0 && id < maxMessage
}

func messageOf(row int64) store.MessageID { return store.MessageID(row & (maxMessage - 1)) }

// schema: a table of terms without their text. The tokenizer only splits at spaces, since the terms hold nothing else that
// it splits at. Lists hold message numbers alone: no places, no columns.
const schema = `
CREATE VIRTUAL TABLE term USING fts5(terms, content='', contentless_delete=1, detail=none, tokenize="ascii tokenchars '@._-+'");
INSERT INTO term (term, rank) VALUES ('hashsize', 8388608);
CREATE TABLE witness (message_id INTEGER NOT NULL PRIMARY KEY, fingerprint INTEGER NOT NULL);
CREATE TABLE state (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO state (name, value) VALUES ('version', $1), ('upto', '0');`

// database is the open file.
type database struct {
	writer, reader *sql.DB
}

func (db *database) close() error {
	if db == nil {
		return nil
	}
	var errs []error
	for _, pool := range []*sql.DB{db.reader, db.writer} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}

// version names what the terms depend on.
func (o *Options) version() string { return search.Version + "/stem=" + strconv.FormatBool(o.Stem) }

// errStale is the error of a file that was made otherwise: it must be made anew.
var errStale = errors.New("fts: the index was made by other rules")

// openDatabase opens the file, or makes it. It returns the last message that is in it.
func openDatabase(ctx context.Context, o *Options) (db *database, upto store.MessageID, err error) {
	// No commit is synced for itself: what a crash takes is indexed again, and the file stays whole.
	pragmas := []string{
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "temp_store(MEMORY)",
		"cache_size(-16384)", "journal_size_limit(67108864)",
	}
	if o.MaxPages > 0 {
		pragmas = append(pragmas, fmt.Sprintf("max_page_count(%d)", o.MaxPages))
	}
	if err := makePrivate(o.Path); err != nil {
		return nil, 0, err
	}
	db = &database{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("fts: open %s: %w", o.Path, err), db.close())
			db = nil
		}
	}()
	file, err := sqlitefile.Open(ctx, o.Path, o.Logger)
	if err != nil {
		return db, 0, err
	}
	if db.writer, err = file.Pool(ctx, sqlitefile.Pool{Pragmas: pragmas}); err != nil {
		return db, 0, err
	}
	reading := []string{"busy_timeout(10000)", "query_only(1)", "cache_size(-8192)"}
	if db.reader, err = file.Pool(ctx, sqlitefile.Pool{Pragmas: reading, Conns: o.Readers}); err != nil {
		return db, 0, err
	}
	upto, err = db.prepare(ctx, o.version())
	return db, upto, err
}

// makePrivate makes the file for its owner alone, since the terms tell nearly as much as the mail.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// prepare makes the tables of an empty file, and checks those of another.
func (db *database) prepare(ctx context.Context, version string) (store.MessageID, error) {
	var tables int
	if err := db.writer.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&tables); err != nil {
		return 0, err
	}
	if tables == 0 {
		return 0, db.create(ctx, version)
	}
	var found string
	if err := db.writer.QueryRowContext(ctx, `SELECT value FROM state WHERE name = 'version'`).Scan(&found); err != nil {
		return 0, errors.Join(errStale, err)
	}
	if found != version {
		return 0, fmt.Errorf("%w: %s, now %s", errStale, found, version)
	}
	return upto(ctx, db.writer)
}

func (db *database) create(ctx context.Context, version string) error {
	tx, err := db.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, schema, version)
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// querier is what upto asks: a pool or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// upto reads the last message that is indexed.
func upto(ctx context.Context, q querier) (id store.MessageID, err error) {
	err = q.QueryRowContext(ctx, `SELECT value FROM state WHERE name = 'upto'`).Scan(&id)
	return id, err
}

// remove deletes the file and what belongs to it.
func remove(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mustDiscard tells errors after which only a new file helps.
func mustDiscard(err error) bool {
	if errors.Is(err, errStale) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff { // the primary code of an extended one
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_FORMAT:
		return true
	}
	return e.Code() == lib.SQLITE_IOERR_CORRUPTFS || e.Code() == lib.SQLITE_IOERR_DATA // a page with wrong sums
}

// Package sqlitefile opens SQLite database files in which every page carries a check sum, so that a flipped octet is put
// right when it is read, and larger damage is an error instead of a wrong answer.
//
// SQLite itself has no check sums of pages. This package registers a VFS (a layer between SQLite and the file system) in the
// manner of SQLite's own cksumvfs. Each page keeps its last 24 octets free ("reserved bytes"); the VFS fills them when a page
// goes to the database or to its log, checks them when it comes back, and hands it on with zeros there. Two CRC-32s of
// different polynomials find the place and the value of one wrong octet in a page without a search (see sum.go), and a page that was
// written to or read from another one's place is as damaged. In the log,
// the headers of the file and of its frames are put right as well: otherwise one octet there would end the log for SQLite,
// and all commits behind it would be gone after a crash (see log.go).
//
// Such a file is an SQLite database that other programs can read, its log included, since the sums are made so that
// they change nothing in the check sums that SQLite has for the log. They can't write to it, which would leave old sums under new
// pages: the first page says that it takes a newer program (the "file format write version").
//
// Files of before, without sums, are rewritten when they are opened (see convert.go). What another program makes of one by VACUUM
// INTO is such a file too.
//
//	f, err := sqlitefile.Open(ctx, path, logger)
//	db, err := f.Pool(ctx, sqlitefile.Pool{Pragmas: []string{"journal_mode(WAL)"}})
package sqlitefile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"

	"waxwing/internal/durable"
)

// File is a database file that is ready to be opened.
type File struct {
	path   string // without links
	log    *slog.Logger
	below  Below
	vfs    string // ours
	summed bool
}

// Below is what files lie on. The zero value is the system's; tests have others.
type Below struct {
	VFS string     // name of one that SQLite knows; "" is its own
	FS  durable.FS // the same files; nil is durable.OS
}

// Pool says how connections are opened. Zero values mean the defaults given here.
type Pool struct {
	Pragmas []string // run on each connection when it is opened, as "name(value)"
	TxLock  string   // how transactions begin: deferred, immediate or exclusive; deferred
	Conns   int      // connections at most, all of which are kept once open; 1
}

// ofd switches the process to locks that belong to an open file, once and before the first database is opened: with
// POSIX locks any Close of another descriptor of the file, by a backup say, would drop the locks of the database.
// Where the system has none, POSIX locks stay.
var ofd = sync.OnceValue(func() error {
	_, err := sqlite.OFDLocking(true)
	if errors.Is(err, sqlite.ErrOFDLockingUnavailable) || errors.Is(err, sqlite.ErrOFDLockingTooLate) {
		return nil
	}
	return err
})

// Look finds out what the file at path is. It may be missing: the first connection makes it, with sums. log, which may be nil, gets
// what is found wrong in pages.
func Look(path string, log *slog.Logger, below Below) (*File, error) {
	f, err := look(path, log, below)
	if err != nil {
		return nil, fmt.Errorf("sqlitefile: %w", err)
	}
	return f, nil
}

func look(path string, log *slog.Logger, below Below) (*File, error) {
	if err := ofd(); err != nil {
		return nil, err
	}
	vfs, err := register(below.VFS)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, log: log, below: below, vfs: vfs.name}
	if below.FS == nil {
		f.below.FS = durable.OS
		if f.path, err = withoutLinks(path); err != nil {
			return nil, err
		}
	}
	if log == nil {
		f.log = slog.New(slog.DiscardHandler)
	} else {
		watch(f.path, log)
	}
	f.summed, err = f.isSummed(f.path)
	return f, err
}

// Open is Look and Convert: nobody else may use the file meanwhile.
func Open(ctx context.Context, path string, log *slog.Logger) (*File, error) {
	f, err := Look(path, log, Below{})
	if err == nil {
		err = f.Convert(ctx)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// withoutLinks is the name that SQLite gives a file, which may be missing.
func withoutLinks(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		return real, nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	return path, nil // what opens it says what is wrong
}

// Summed tells whether the pages have sums.
func (f *File) Summed() bool { return f.summed }

// Pool opens connections to the file.
func (f *File) Pool(ctx context.Context, p Pool) (*sql.DB, error) {
	vfs := f.below.VFS
	if f.summed {
		vfs = f.vfs
	}
	return pool(ctx, f.path, vfs, p)
}

// pool opens connections over the VFS of that name; "" is SQLite's own.
func pool(ctx context.Context, path, vfs string, p Pool) (*sql.DB, error) {
	q := url.Values{"_pragma": p.Pragmas}
	if p.TxLock != "" {
		q.Set("_txlock", p.TxLock)
	}
	db, err := sql.Open("sqlite", uri(path, vfs, q))
	if err != nil {
		return nil, err
	}
	n := max(1, p.Conns)
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// uri names a file as SQLite wants it, whatever is in the path.
func uri(path, vfs string, q url.Values) string {
	if vfs != "" {
		q.Set("vfs", vfs)
	}
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: q.Encode()}
	return u.String()
}

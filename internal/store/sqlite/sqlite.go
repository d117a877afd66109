// Package sqlite is the embedded SQL back-end of package store: it opens the database file with the settings that make a
// commit durable, brings the schema up to date, and tells the store what is peculiar to SQLite. The file is one of package
// sqlitefile: each page has a check sum, and one wrong octet in it is put right.
//
// It holds no queries: these stand in package store and are the same for all back-ends. The migrations under migrations/
// belong to the packages that own the rows: mail state, the directory, the queue.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"

	"github.com/pressly/goose/v3"

	"waxwing/internal/build"
	"waxwing/internal/sqlitefile"
	"waxwing/internal/store"
	"waxwing/internal/store/schema"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options of Open. Zero values mean the defaults given here.
type Options struct {
	Readers    int              // connections for reading, 4 and at least twice the cores
	WriteCache int64            // octets of page cache of the writer, 64 MiB
	ReadCache  int64            // octets of page cache of each reader, 8 MiB
	Checkpoint int              // pages of the log at which it is written back, 4,000
	MaxPages   int64            // the database refuses to grow beyond as many pages; 0: no bound
	Logger     *slog.Logger     // also gets what is found wrong in pages
	Below      sqlitefile.Below // what the file lies on; tests have their own
	// Before is called before the tables of a database that has been in use are changed by this version of the program:
	// when all is in the file at path, and nobody writes. Its error is that of Open.
	Before func(ctx context.Context, u schema.Upgrade) error
}

func (o *Options) setDefaults() {
	if o.Readers <= 0 {
		o.Readers = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if o.WriteCache <= 0 {
		o.WriteCache = 64 << 20
	}
	if o.ReadCache <= 0 {
		o.ReadCache = 8 << 20
	}
	if o.Checkpoint <= 0 {
		o.Checkpoint = 4000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Open opens the database file at path, makes it when it is missing, and migrates its schema. A file from before pages had sums gets
// them after the migrations: the copy that is made before these is one that the older program reads.
func Open(ctx context.Context, path string, o Options) (*store.Database, error) {
	file, err := sqlitefile.Look(path, o.Logger, o.Below)
	if err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	o.setDefaults()
	writer, err := file.Pool(ctx, writing(o))
	if err != nil {
		return nil, fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	if err := migrate(ctx, writer, &o); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: migrate %s: %w", path, err), writer.Close())
	}
	if !file.Summed() {
		if writer, err = convert(ctx, file, writer, o); err != nil {
			return nil, fmt.Errorf("sqlite: convert %s: %w", path, err)
		}
	}
	reader, err := file.Pool(ctx, sqlitefile.Pool{Pragmas: readerPragmas(o), Conns: o.Readers})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %s for reading: %w", path, err), writer.Close())
	}
	return &store.Database{Writer: writer, Reader: reader, Dialect: dialect{}}, nil
}

// convert gives the pages sums, and opens the file again.
func convert(ctx context.Context, file *sqlitefile.File, writer *sql.DB, o Options) (*sql.DB, error) {
	if err := writer.Close(); err != nil {
		return nil, err
	}
	if err := file.Convert(ctx); err != nil {
		return nil, err
	}
	return file.Pool(ctx, writing(o))
}

func writing(o Options) sqlitefile.Pool {
	return sqlitefile.Pool{Pragmas: writerPragmas(o), TxLock: "immediate"}
}

func writerPragmas(o Options) []string {
	p := []string{
		"busy_timeout(10000)", // first: the others may meet a lock
		"journal_mode(WAL)",
		"synchronous(FULL)", // each commit is synced: 250 means committed
		"foreign_keys(0)",
		"temp_store(MEMORY)",
		"secure_delete(ON)", // deleted rows are overwritten, not only forgotten
		fmt.Sprintf("cache_size(-%d)", o.WriteCache/1024),
		fmt.Sprintf("wal_autocheckpoint(%d)", o.Checkpoint),
		"journal_size_limit(67108864)", // a log that one huge transaction made large is cut again
	}
	if o.MaxPages > 0 {
		p = append(p, fmt.Sprintf("max_page_count(%d)", o.MaxPages))
	}
	return p
}

func readerPragmas(o Options) []string {
	return []string{
		"busy_timeout(10000)",
		"query_only(1)",
		"temp_store(MEMORY)",
		fmt.Sprintf("cache_size(-%d)", o.ReadCache/1024),
	}
}

// Migrations are the files of the schema, which the other back-ends translate.
func Migrations() fs.FS {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the name is a constant
	}
	return dir
}

// Schema is the schema that they lead to.
func Schema() int64 {
	last, err := schema.Last(Migrations())
	if err != nil {
		panic(err) // they are part of the program
	}
	return last
}

func migrate(ctx context.Context, db *sql.DB, o *Options) error {
	return schema.Migrate(ctx, schema.Options{
		Dialect: goose.DialectSQLite3, DB: db, Files: Migrations(), Program: build.Version, Logger: o.Logger,
		Before: func(ctx context.Context, u schema.Upgrade) error {
			if o.Before == nil {
				return nil
			}
			if err := checkpoint(ctx, db); err != nil {
				return err
			}
			return o.Before(ctx, u)
		},
	})
}

// checkpoint writes the log back into the file, and empties it.
func checkpoint(ctx context.Context, db *sql.DB) error {
	var busy, log, done int
	if err := db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &log, &done); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if busy != 0 {
		return errors.New("checkpoint: another process reads the database")
	}
	return nil
}

// Package schema brings the tables of a store's database to what this program knows, whatever the back-end. It refuses a
// database that a newer program has changed, lets its caller make a copy before the first change of one that is in use,
// and applies each migration in a transaction of its own: what was killed goes on with the next start.
//
// Besides goose's table, which says which migrations were applied, it keeps schema_history: which program brought the
// database to which version. That table belongs to no migration, since a program must be able to read it in a database
// whose migrations it doesn't know.
package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/pressly/goose/v3"
)

// Options of Migrate.
type Options struct {
	Dialect goose.Dialect
	DB      *sql.DB // its one connection writes
	Files   fs.FS   // the migrations
	Program string  // version of this program
	Logger  *slog.Logger
	// Before is called before the first migration of a database that has been in use. Its error is the end of it; nothing
	// was written by then.
	Before func(ctx context.Context, u Upgrade) error
}

// Upgrade is what stands before a database.
type Upgrade struct {
	From, To int64
	Made     string // version of the program that brought it to From, "" when nobody wrote it down
	Program  string // version of this program
}

// NewerError is the answer to a database that a newer program has changed.
type NewerError struct {
	Schema, Known int64  // of the database, and the last one of this program
	Made          string // version of the program that brought it there, "" when nobody wrote it down
	Program       string // version of this program
}

func (e *NewerError) Error() string {
	by := "a newer version of waxwing"
	if e.Made != "" {
		by = "waxwing " + e.Made
	}
	return fmt.Sprintf("%s has brought this store to schema %d; this is waxwing %s, which knows schemas up to %d. Run that version or a newer one, or go back to the copy from before the upgrade (`waxwing store rollback`; what came since is lost)",
		by, e.Schema, e.Program, e.Known)
}

// Migrate brings the database up to date.
func Migrate(ctx context.Context, o Options) error {
	p, err := goose.NewProvider(o.Dialect, o.DB, o.Files)
	if err != nil {
		return err
	}
	u, pending, err := look(ctx, p, &o)
	if err != nil {
		return err
	}
	if !pending {
		return o.record(ctx, u.To)
	}
	inUse := u.From > 0
	if inUse && o.Before != nil {
		if err := o.Before(ctx, u); err != nil {
			return err
		}
	}
	for {
		done, err := p.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			break
		}
		if err != nil {
			return err
		}
		if inUse {
			o.Logger.Info("schema: migrated", "to", done.Source.Version, "took", done.Duration)
		}
	}
	return o.record(ctx, u.To)
}

// Last is the schema that migrations lead to.
func Last(files fs.FS) (last int64, err error) {
	names, err := fs.Glob(files, "*.sql")
	for _, name := range names {
		n, err := goose.NumericComponent(name)
		if err != nil {
			return 0, err
		}
		last = max(last, n)
	}
	return last, err
}

// Version is the schema that a database has.
func Version(ctx context.Context, db *sql.DB) (version int64, err error) {
	err = db.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version`).Scan(&version)
	return version, err
}

// look says what has to be done. It changes nothing in a database that has been in use.
func look(ctx context.Context, p *goose.Provider, o *Options) (u Upgrade, pending bool, err error) {
	u.Program = o.Program
	if u.From, u.To, err = p.GetVersions(ctx); err != nil {
		return u, false, err
	}
	if u.From > 0 {
		u.Made = o.made(ctx, u.From)
	}
	if u.From > u.To {
		return u, false, &NewerError{Schema: u.From, Known: u.To, Made: u.Made, Program: o.Program}
	}
	pending, err = p.HasPending(ctx)
	return u, pending, err
}

// made is the program that brought the database to a version; "" when it can't be told, as in a database from before
// schema_history.
func (o *Options) made(ctx context.Context, version int64) (program string) {
	err := o.DB.QueryRowContext(ctx, `SELECT program FROM schema_history WHERE version = $1`, version).Scan(&program)
	if err != nil {
		return ""
	}
	return program
}

// record writes down who brought the database to a version, unless somebody did before.
func (o *Options) record(ctx context.Context, version int64) error {
	if o.made(ctx, version) != "" {
		return nil
	}
	_, err := o.DB.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_history (version BIGINT NOT NULL PRIMARY KEY, program TEXT NOT NULL, at BIGINT NOT NULL)`)
	if err != nil {
		return err
	}
	_, err = o.DB.ExecContext(ctx, `INSERT INTO schema_history (version, program, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		version, o.Program, time.Now().Unix())
	return err
}

// Package postgres is the SQL back-end of package store for many machines: it opens a PostgreSQL database through pgx,
// refuses one whose settings would break the store's promises, brings the schema up to date, and tells the store what is
// peculiar to PostgreSQL.
//
// It holds no queries: these stand in package store and are the same for all back-ends. The schema is that of package
// sqlite, translated: see translation.go. Any engine that speaks PostgreSQL's protocol and its SQL serves.
//
//	db, err := postgres.Open(ctx, postgres.Options{DSN: "postgres://waxwing@db.example.test/waxwing?sslmode=verify-full"})
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"waxwing/internal/build"
	"waxwing/internal/store"
	"waxwing/internal/store/schema"
)

// Options of Open. Zero values mean the defaults given here.
type Options struct {
	DSN     string // connection string, as a URL or as key=value words; required
	Readers int    // connections for reading, 4 and at least twice the cores
	Logger  *slog.Logger
	// Before is called before the tables of a database that has been in use are changed by this version of the program. Its
	// error is that of Open.
	Before func(ctx context.Context, u schema.Upgrade) error
	// Shared lets other nodes write to the database at the same time. What they know of contents must be in the database too: it
	// is for stores with a bucket.
	Shared bool
}

// ErrInUse says that another server has the database: one at a time writes, unless all open it as Shared.
var ErrInUse = errors.New("postgres: the database is in use by another server")

// Times that bound what a dead peer can hold up.
const (
	connectTimeout = 10 * time.Second
	keepAliveIdle  = 10 * time.Second
	keepAliveEvery = 5 * time.Second
	keepAliveCount = 3
	unansweredTime = 10 * time.Second // what was sent and not acknowledged breaks the connection, where keepalives don't look
)

// Open opens the database and migrates its schema. The connection that writes holds an advisory lock for as long as it
// lives: whoever comes second gets ErrInUse. Nodes that share the database share the lock.
func Open(ctx context.Context, o Options) (*store.Database, error) {
	if o.Readers <= 0 {
		o.Readers = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	cfg, err := parse(o.DSN)
	if err != nil {
		return nil, err
	}
	if o.Shared {
		return openShared(ctx, cfg, o)
	}
	writer := openPool(cfg, 1, claim)
	if err := prepare(ctx, writer, &o); err != nil {
		return nil, errors.Join(fmt.Errorf("postgres: open %s: %w", where(cfg), err), writer.Close())
	}
	return newDatabase(cfg, writer, asItIs, o), nil
}

func newDatabase(cfg *pgx.ConnConfig, writer *sql.DB, ready func(context.Context, *pgx.Conn) error, o Options) *store.Database {
	return &store.Database{
		Writer: writer, Reader: openPool(cfg, o.Readers, ready), Side: openPool(cfg, 1, ready), Dialect: dialect{},
	}
}

// asItIs is the preparation of a connection that needs none.
func asItIs(context.Context, *pgx.Conn) error { return nil }

// OpenPool opens at most n connections that read and write beside the store's, with settings of their own. It looks at
// nothing of the database: Open has done so.
func OpenPool(dsn string, n int, settings map[string]string) (*sql.DB, error) {
	cfg, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	maps.Copy(cfg.RuntimeParams, settings)
	return openPool(cfg, n, asItIs), nil
}

// where names the database for messages, without user and password.
func where(cfg *pgx.ConnConfig) string {
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))) + "/" + cfg.Database
}

// openPool makes a pool of n connections, all of which are kept once open.
func openPool(cfg *pgx.ConnConfig, n int, ready func(context.Context, *pgx.Conn) error) *sql.DB {
	db := sql.OpenDB(connector{stdlib.GetConnector(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		if err := ready(ctx, c); err != nil {
			return errors.Join(err, c.Close(ctx))
		}
		return nil
	}))})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db
}

// claim takes the lock of a server that writes alone. It belongs to the session, so PostgreSQL gives it back whatever
// becomes of this process, a moment after the session's end; keepalives bound how long that takes when the machine is gone.
func claim(ctx context.Context, c *pgx.Conn) error { return takeClaim(ctx, c, "pg_advisory_lock") }

func takeClaim(ctx context.Context, c *pgx.Conn, how string) error {
	if _, err := c.Exec(ctx, `SET lock_timeout = '`+claimTimeout+`'`); err != nil {
		return err
	}
	_, err := c.Exec(ctx, `SELECT `+how+`($1, hashtext(current_schema()))`, lockClass)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "55P03" {
		return ErrInUse
	}
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, `RESET lock_timeout`)
	return err
}

// claimTimeout is how long the lock is waited for: a server that just ended gives it back within it.
const claimTimeout = "3s"

// lockClass is the first key of Waxwing's advisory locks.
const lockClass int32 = 0x77617877

// prepare looks at the server's settings and migrates the schema.
func prepare(ctx context.Context, db *sql.DB, o *Options) error {
	if err := checkServer(ctx, db, o.Logger); err != nil {
		return err
	}
	err := schema.Migrate(ctx, schema.Options{
		Dialect: goose.DialectPostgres, DB: db, Files: migrations(), Program: build.Version,
		Logger: o.Logger, Before: o.Before,
	})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// minVersion is PostgreSQL 13, in the form of server_version_num.
const minVersion = 130000

// checkServer refuses a server that would answer COMMIT before the commit is safe, or that can't hold all text.
func checkServer(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	var version int
	var encoding, fsync, pages, commit string
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
		current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')`).
		Scan(&version, &encoding, &fsync, &pages, &commit)
	switch {
	case err != nil:
		return err
	case version < minVersion:
		return fmt.Errorf("server version %d is older than 13", version)
	case encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s: make it with ENCODING 'UTF8'", encoding)
	case fsync != "on":
		return errors.New("fsync is off in postgresql.conf: what was answered would be lost with the power")
	case commit == "off" || commit == "local":
		return fmt.Errorf("synchronous_commit is %s: what was answered could be lost", commit)
	}
	if pages != "on" {
		log.Warn("postgres: full_page_writes is off: a power cut can damage the database unless its file system prevents torn pages")
	}
	return nil
}

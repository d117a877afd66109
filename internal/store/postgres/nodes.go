package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"waxwing/internal/build"
	"waxwing/internal/store"
	"waxwing/internal/store/schema"
)

// ErrOlder says that the schema must be changed while nodes of an older version use it.
var ErrOlder = errors.New("postgres: the database has an older schema and is in use: stop all nodes, then start one of the new version")

// How long a node's transaction may stand still before the database ends it, and how long others wait for what it has locked.
const (
	stalledTime = "10s"
	lockTime    = "5s"
)

// openShared opens the database as one node of several. The schema is changed by a node that is alone.
func openShared(ctx context.Context, cfg *pgx.ConnConfig, o Options) (*store.Database, error) {
	for name, limit := range map[string]string{
		"idle_in_transaction_session_timeout": stalledTime, // a node that hangs must not keep others from accounts
		"lock_timeout":                        lockTime,
	} {
		cfg.RuntimeParams[name] = limit
	}
	known, err := schema.Last(migrations())
	if err == nil {
		err = upgrade(ctx, cfg, &o)
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: open %s: %w", where(cfg), err)
	}
	join := func(ctx context.Context, c *pgx.Conn) error { return join(ctx, c, known) }
	writer := openPool(cfg, 1, join)
	if err := prepare(ctx, writer, &o); err != nil { // nothing is left to change: it refuses a newer schema
		return nil, errors.Join(fmt.Errorf("postgres: open %s: %w", where(cfg), err), writer.Close())
	}
	db := newDatabase(cfg, writer, join, o)
	db.Peers = newPeers(cfg)
	return db, nil
}

// join takes a share in the lock of a server that writes alone, so that nobody changes the schema as long as the connection
// lives. Each connection has one: the schema may have been changed while a node had none, and then it must not go on.
func join(ctx context.Context, c *pgx.Conn, known int64) error {
	if err := takeClaim(ctx, c, "pg_advisory_lock_shared"); err != nil {
		return err
	}
	e := schema.NewerError{Known: known, Program: build.Version}
	err := c.QueryRow(ctx, `SELECT max(version_id) FROM goose_db_version`).Scan(&e.Schema)
	if err != nil || e.Schema <= known {
		return err
	}
	err = c.QueryRow(ctx, `SELECT program FROM schema_history WHERE version = $1`, e.Schema).Scan(&e.Made)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return &e
}

// upgrade changes an older schema, when no node uses it. When another node is at it, it waits for its end.
func upgrade(ctx context.Context, cfg *pgx.ConnConfig, o *Options) (err error) {
	look := openPool(cfg, 1, asItIs)
	defer func() { err = errors.Join(err, look.Close()) }()
	for told := false; ; {
		current, err := isCurrent(ctx, look)
		if err != nil || current {
			return err
		}
		alone := openPool(cfg, 1, claim)
		err = errors.Join(prepare(ctx, alone, o), alone.Close())
		if !errors.Is(err, ErrInUse) {
			return err
		}
		claimed, err := isClaimed(ctx, look)
		if err != nil {
			return err
		}
		if !claimed {
			if current, err = isCurrent(ctx, look); err != nil || current { // it has just ended
				return err
			}
			return ErrOlder
		}
		if !told {
			o.Logger.Info("postgres: waiting for whoever has the database alone, to change its schema or to fill it")
			told = true
		}
	}
}

// isCurrent checks the server, and tells whether its schema is that of this version.
func isCurrent(ctx context.Context, db *sql.DB) (bool, error) {
	if err := checkServer(ctx, db, slog.New(slog.DiscardHandler)); err != nil {
		return false, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations())
	if err != nil {
		return false, err
	}
	has, known, err := p.GetVersions(ctx)
	if err != nil || has > known {
		return true, err
	}
	pending, err := p.HasPending(ctx)
	return !pending, err
}

// isClaimed tells whether somebody has the database alone.
func isClaimed(ctx context.Context, db *sql.DB) (claimed bool, err error) {
	err = db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND classid = $1::bigint::oid AND objid = (hashtext(current_schema())::bigint & 4294967295)::oid AND objsubid = 2)`,
		int64(lockClass)).Scan(&claimed)
	return claimed, err
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/durable"
	"waxwing/internal/store/schema"
	"waxwing/internal/store/sqlite"
	"waxwing/internal/store/upgrade"
)

// place is where the embedded store stands, as package upgrade sees it.
func place(cfg *config.Config) *upgrade.Place {
	p := &upgrade.Place{
		Dir: cfg.DataDir, Database: databaseName,
		Linked: []string{filepath.Join(packsName, "packs"), filepath.Join(packsName, "large")},
		Kept:   []string{dataKeysName, filepath.Join(packsName, dataKeysName)},
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		p.Derived = append(p.Derived, searchName+suffix)
	}
	return p
}

// Upgraded is what an upgrade of the store did.
type Upgraded struct {
	Schema int64         `json:"schema"`         // as it is now
	From   int64         `json:"from,omitempty"` // 0: nothing had to be done
	Copy   *upgrade.Copy `json:"copy,omitempty"` // from before
}

// upgrader makes the copy before the tables of a store are changed.
type upgrader struct {
	cfg    *config.Config
	log    *slog.Logger
	noCopy bool // the administrator has a backup
	alone  bool // no other node may use the database
	did    Upgraded
}

// errNoCopy is what a PostgreSQL says that this version would change. Its copy is not ours to make.
const errNoCopy = `this version of waxwing (%s) changes the tables of the PostgreSQL database (schema %d to %d), and can't copy them before. Make a backup (e.g. with pg_dump) while no waxwing uses the database, then run "waxwing store upgrade --no-copy". Nothing was changed`

func (u *upgrader) before(ctx context.Context, s schema.Upgrade) error {
	u.did.From = s.From
	if u.noCopy {
		u.log.Warn("upgrading the store without a copy, as told", "from", s.From, "to", s.To)
		return nil
	}
	if u.cfg.Store.Driver == config.Postgres {
		return control.Errorf(control.Unavailable, errNoCopy, s.Program, s.From, s.To)
	}
	c, err := place(u.cfg).Save(ctx, upgrade.Copy{Schema: s.From, To: s.To, Program: s.Made, Upgraded: s.Program, Time: time.Now()})
	if err != nil {
		return control.Errorf(control.Unavailable, `%w. With a backup at hand, "waxwing store upgrade --no-copy" goes on without`, err)
	}
	u.log.Info("upgrading the store", "from", s.From, "to", s.To, "copy", c.Name)
	u.did.Copy = &c
	return nil
}

// lockStore takes the lock of the data directory for a command that works on closed files.
func lockStore(cfg *config.Config) (io.Closer, error) {
	lock, err := durable.OS.Lock(filepath.Join(cfg.DataDir, lockName))
	if errors.Is(err, durable.ErrLocked) {
		return nil, control.Errorf(control.Unavailable, "%s is in use by another process: stop the server first", cfg.DataDir)
	}
	if err != nil {
		return nil, control.Errorf(control.Unavailable, "%w", err)
	}
	return lock, nil
}

// notPending refuses a store that a way back left between two states.
func notPending(cfg *config.Config) error {
	name, err := place(cfg).Pending()
	if err != nil {
		return control.Errorf(control.Unavailable, "open store: %w", err)
	}
	if name != "" {
		return control.Errorf(control.Unavailable, "open store: going back to the copy before an upgrade was broken off: run `waxwing store rollback` to finish it")
	}
	return nil
}

// UpgradeStore brings the tables of a store up to date, as the start of the server does. With noCopy it makes no copy
// before. The store must be closed.
func UpgradeStore(ctx context.Context, cfg *config.Config, log *slog.Logger, noCopy bool) (did Upgraded, err error) {
	lock, err := lockStore(cfg)
	if err != nil {
		return did, fmt.Errorf("upgrade store: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := notPending(cfg); err != nil {
		return did, err
	}
	u := &upgrader{cfg: cfg, log: log, noCopy: noCopy}
	db, err := openDatabase(ctx, cfg, log, u)
	if err != nil {
		return did, err
	}
	u.did.Schema, err = schema.Version(ctx, db.Reader)
	return u.did, errors.Join(err, db.Close())
}

// Copies lists what was kept before upgrades.
func Copies(cfg *config.Config) ([]upgrade.Copy, error) {
	all, err := place(cfg).List()
	if err != nil {
		return nil, control.Errorf(control.Unavailable, "%w", err)
	}
	return all, nil
}

// DropCopy removes a copy from before an upgrade, and with it what was deleted since.
func DropCopy(cfg *config.Config, name string) error {
	err := place(cfg).Drop(name)
	if errors.Is(err, upgrade.ErrNoCopy) {
		return control.Errorf(control.NotFound, "%w", err)
	}
	return err
}

// RollbackStore puts a copy from before an upgrade in the place of the store; the newest when name is "". The store must
// be closed.
func RollbackStore(ctx context.Context, cfg *config.Config, name string) (r upgrade.Return, err error) {
	if cfg.Store.Driver == config.Postgres {
		return r, control.Errorf(control.Invalid, "roll back: a PostgreSQL database is brought back by its own backup, e.g. with pg_restore")
	}
	lock, err := lockStore(cfg)
	if err != nil {
		return r, fmt.Errorf("roll back: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	r, err = place(cfg).Back(ctx, name, time.Now(), sqlite.JumpAhead)
	if errors.Is(err, upgrade.ErrNoCopy) {
		return r, control.Errorf(control.NotFound, "roll back: %w", err)
	}
	if err != nil {
		return r, control.Errorf(control.Unavailable, "roll back: %w", err)
	}
	return r, nil
}

// expireCopies removes what was kept long enough.
func (s *State) expireCopies(ctx context.Context) error {
	if s.cfg.Store.Driver == config.Postgres {
		return nil
	}
	if may, err := s.Store.MayExpire(ctx); err != nil || !may {
		return err
	}
	gone, err := place(s.cfg).Expire(time.Now())
	for _, name := range gone {
		s.log.Info("removed a copy from before an upgrade", "copy", name)
	}
	return err
}

package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/durable"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/keyring"
)

// dataKeysName is the file of data keys, in the data directory; its copy stands beside the packs. With PostgreSQL they stand
// in the database, for all its nodes.
const dataKeysName = "data-keys"

// keyOptions are the options of the keys of a store: they stand in the database when it can be shared, in files with nil.
func keyOptions(cfg *config.Config, db *store.Database, log *slog.Logger) keyring.Options {
	o := keyring.Options{
		Files:  [2]string{filepath.Join(cfg.DataDir, dataKeysName), filepath.Join(cfg.DataDir, packsName, dataKeysName)},
		Source: KeySource(cfg), Logger: log,
	}
	if db != nil {
		o.Home = store.NewKeyTable(db)
	}
	return o
}

// keysPlace names where the data keys of a store stand.
func keysPlace(o keyring.Options) string {
	if o.Home != nil {
		return o.Home.String()
	}
	return o.Files[0]
}

// KeySource is where the configuration says that the master key comes from.
func KeySource(cfg *config.Config) keyring.Source {
	e := cfg.Encryption
	return keyring.Source{
		Kind: keyring.Kind(e.Source), File: e.File, Credential: e.Credential, Dir: os.Getenv("CREDENTIALS_DIRECTORY"),
		Command: e.Command, Timeout: e.Timeout.Std(),
	}
}

// openKeys opens the keys of the store; nil when messages are not encrypted. Without its master key a store with keys is
// not opened at all: what can be read of it would look like loss.
//
// A database without contents gets its keys from the first node that opens it.
func openKeys(ctx context.Context, cfg *config.Config, db *store.Database, log *slog.Logger) (*keyring.Ring, error) {
	o := keyOptions(cfg, db, log)
	if cfg.Encryption.Source == config.KeyNone {
		if keyring.Exists(ctx, o) {
			return nil, control.Errorf(control.Invalid,
				"open store: %s is there, so messages are encrypted, but waxwing.toml names no source of the master key: set [encryption]", keysPlace(o))
		}
		return nil, nil
	}
	forbidCore()
	ring, err := keyring.Open(ctx, o)
	if errors.Is(err, keyring.ErrNoFile) && o.Home != nil {
		ring, err = firstKeys(ctx, o, db, err)
	}
	if errors.Is(err, keyring.ErrNoFile) {
		return nil, control.Errorf(control.Unavailable, "open store: %w. If this store was never encrypted, `waxwing store key create` begins with it", err)
	}
	if err != nil {
		return nil, control.Errorf(control.Unavailable, "open store: %w", err)
	}
	return ring, nil
}

// firstKeys makes the data keys of a database that holds no content. When there are contents, keys were lost: none is made.
func firstKeys(ctx context.Context, o keyring.Options, db *store.Database, missing error) (*keyring.Ring, error) {
	unused, err := store.NewKeyTable(db).Unused(ctx)
	if err != nil {
		return nil, err
	}
	if !unused {
		return nil, missing
	}
	ring, err := keyring.Create(ctx, o, true)
	if errors.Is(err, keyring.ErrExists) { // another node was first
		return keyring.Open(ctx, o)
	}
	return ring, err
}

// forbidCore keeps keys out of core files. A limit of 1 also keeps the kernel from handing one to a program (core(5)).
func forbidCore() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &limit) == nil {
		limit.Cur, limit.Max = min(limit.Cur, 1), min(limit.Max, 1)
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &limit) // lowering is always allowed
	}
}

// blobKeys is a ring as the packs take it.
func blobKeys(ring *keyring.Ring) blob.Keys {
	if ring == nil {
		return nil
	}
	return ring
}

// CreateKeys makes the data keys of a store that has none and, for a source that is a file which isn't there, the master
// key. fresh says that the store holds no mail yet. The store must be closed.
func CreateKeys(ctx context.Context, cfg *config.Config, fresh bool) (info keyring.Info, err error) {
	if cfg.Encryption.Source == config.KeyNone {
		return info, control.Errorf(control.Invalid, "create keys: set [encryption] in waxwing.toml first, e.g. source = \"file\" and file = \"keys/master.key\"")
	}
	lock, err := durable.OS.Lock(filepath.Join(cfg.DataDir, lockName))
	if errors.Is(err, durable.ErrLocked) {
		return info, control.Errorf(control.Unavailable, "create keys: %s is in use: stop the server first", cfg.DataDir)
	}
	if err != nil {
		return info, control.Errorf(control.Unavailable, "create keys: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	log := slog.New(slog.DiscardHandler)
	var db *store.Database
	if cfg.Store.Driver == config.Postgres {
		if db, err = openDatabase(ctx, cfg, log, &upgrader{cfg: cfg, log: log}); err != nil {
			return info, err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	o := keyOptions(cfg, db, log)
	if keyring.Exists(ctx, o) {
		return info, control.Errorf(control.Conflict, "create keys: %s is there already: nothing is overwritten", keysPlace(o))
	}
	if cfg.Encryption.Source == config.KeyFile {
		if err := createMaster(cfg.Encryption.File); err != nil {
			return info, err
		}
	}
	ring, err := keyring.Create(ctx, o, fresh)
	if err != nil {
		return info, control.Errorf(control.Unavailable, "create keys: %w", err)
	}
	return ring.Info(), nil
}

// createMaster makes the file of a master key unless it is there.
func createMaster(name string) error {
	if _, err := os.Lstat(name); err == nil {
		return nil
	}
	m, err := keyring.NewMaster(rand.Reader)
	if err == nil {
		err = keyring.WriteMaster(durable.OS, name, m, time.Now())
	}
	if err != nil {
		return control.Errorf(control.Unavailable, "create keys: %w", err)
	}
	return nil
}

// RecoverySheet is the master key with what somebody needs to know who holds it in their hands.
func RecoverySheet(ctx context.Context, cfg *config.Config) (string, error) {
	source := KeySource(cfg)
	found, err := source.Load(ctx, durable.OS)
	if err != nil {
		return "", control.Errorf(control.Unavailable, "recovery sheet: %w", err)
	}
	if len(found) > 1 {
		return "", control.Errorf(control.Conflict, "recovery sheet: a change of master keys was broken off: start the server once, then ask again")
	}
	return keyring.Sheet(found[0], source, cfg.Hostname, time.Now()), nil
}

// keysChanged gets a value when records are to be encrypted anew; never without keys.
func (s *State) keysChanged() <-chan struct{} {
	if s.Keys == nil {
		return nil
	}
	return s.Keys.Changed()
}

// describeKeys says in one line what the log should know.
func describeKeys(ring *keyring.Ring) string {
	if ring == nil {
		return "off"
	}
	info := ring.Info()
	return fmt.Sprintf("data key %s, master key %s", info.Keys[len(info.Keys)-1].ID, info.Master)
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"waxwing/internal/backup"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/digest"
	"waxwing/internal/directory"
	"waxwing/internal/durable"
	"waxwing/internal/store"
	"waxwing/internal/store/keyring"
	"waxwing/internal/store/search/follow"
	"waxwing/internal/store/search/fts"
	"waxwing/internal/store/search/tsv"
	"waxwing/internal/trace"
)

// The names in the data directory.
const (
	lockName     = "lock"
	databaseName = "waxwing.db"
	searchName   = "search.db"
	packsName    = "packs"
	stagingName  = "staging" // on the way to a bucket
	backupName   = "backup"  // what is known of backups, and the bundle in the making
)

// State is the opened store with its directory: what a command needs while the server is stopped, and the ground that
// the server stands on. One process at a time holds it.
type State struct {
	Store     *store.Store
	Directory *directory.Directory
	Keys      *keyring.Ring // of encryption at rest, nil when messages are not encrypted
	Backup    *backup.Agent
	Trace     *trace.Recorder // nil unless the server runs in this process

	cfg    *config.Config
	log    *slog.Logger
	lock   io.Closer
	search index // the store's
	alone  bool  // no other node may use the database

	watching sync.Mutex // guards watchers
	watchers []func(directory.Settings)
}

// settings passes changed settings on.
func (s *State) settings(now directory.Settings) {
	s.Store.SetPolicy(now.Policy())
	s.watching.Lock()
	defer s.watching.Unlock()
	for _, w := range s.watchers {
		w(now)
	}
}

// onSettings has fn called with the settings, now and after each change. It must not call the Directory.
func (s *State) onSettings(fn func(directory.Settings)) {
	s.watching.Lock()
	defer s.watching.Unlock()
	s.watchers = append(s.watchers, fn)
	fn(s.Directory.Settings())
}

// CreateDataDir makes the data directory of a new server.
func CreateDataDir(cfg *config.Config) error {
	for _, dir := range []string{cfg.DataDir, cfg.Spool.Dir} {
		if err := durable.OS.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	return nil
}

// OpenState locks the data directory and opens the store in it.
func OpenState(ctx context.Context, cfg *config.Config, log *slog.Logger) (s *State, err error) {
	if s, err = lockState(cfg, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if err = notRestoring(cfg); err != nil {
		return s, err
	}
	if s.search, err = newSearch(cfg, log); err != nil {
		return s, err
	}
	if err = s.openStore(ctx, store.Options{Search: s.search, Purged: s.search.Purged}); err != nil {
		return s, err
	}
	s.Directory, err = directory.New(ctx, s.Store, directory.Options{
		Logger:     log.With("part", "directory"),
		OnSettings: s.settings,
	})
	if err == nil {
		s.Backup = s.newAgent()
	}
	return s, err
}

// lockState locks the data directory, unless a step back to a copy of it is under way.
func lockState(cfg *config.Config, log *slog.Logger) (*State, error) {
	fi, err := os.Stat(cfg.DataDir)
	if err != nil || !fi.IsDir() {
		return nil, control.Errorf(control.NotFound, "open store: %s is no data directory: `waxwing init` makes one", cfg.DataDir)
	}
	if owner, ok := ownerOf(fi); ok && owner != os.Geteuid() {
		return nil, control.Errorf(control.Unavailable, "open store: %s belongs to user %s: run this as that user, e.g. with `runuser -u %[2]s --`", cfg.DataDir, userName(owner))
	}
	s := &State{cfg: cfg, log: log}
	s.lock, err = durable.OS.Lock(filepath.Join(cfg.DataDir, lockName))
	if errors.Is(err, durable.ErrLocked) {
		return nil, control.Errorf(control.Unavailable, "open store: %s is in use by another process: one server, or one command while it is stopped, at a time", cfg.DataDir)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err = notPending(cfg); err == nil {
		if err = os.MkdirAll(cfg.Spool.Dir, 0o700); err != nil {
			err = fmt.Errorf("open store: %w", err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ownerOf is the user that a file belongs to. The store is opened by its owner alone: what root would make in it, the
// server could not open later.
func ownerOf(fi fs.FileInfo) (uid int, ok bool) {
	s, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(s.Uid), true
}

// userName is the name of a user, or its number when it has none.
func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// index is an index of the text of messages.
type index interface {
	store.Searcher
	Status() follow.Status
	Purged(acct store.AccountID, ids []store.MessageID)
}

// newSearch makes the index: a file of its own beside SQLite, tables beside the others in PostgreSQL. Every process that opens
// the store brings it along, so that the file never belongs to another state of the store.
func newSearch(cfg *config.Config, log *slog.Logger) (idx index, err error) {
	log = log.With("part", "search")
	pick := new(digest.TextPicker).Pick
	if cfg.Store.Driver == config.Postgres {
		var dsn string
		if dsn, err = readDSN(cfg); err != nil {
			return nil, err
		}
		idx, err = tsv.New(tsv.Options{DSN: dsn, Pick: pick, Logger: log})
	} else {
		idx, err = fts.New(fts.Options{Path: filepath.Join(cfg.DataDir, searchName), Pick: pick, Logger: log})
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return idx, nil
}

// openStore opens the database, the keys, which may stand in it, what holds the octets, and the store of them, with what else
// o says.
func (s *State) openStore(ctx context.Context, o store.Options) (err error) {
	log := s.log.With("part", "store")
	keysLog := s.log.With("part", "keys")
	shared := s.cfg.Store.Driver == config.Postgres
	if !shared { // before anything is touched
		if s.Keys, err = openKeys(ctx, s.cfg, nil, keysLog); err != nil {
			return err
		}
	}
	db, err := openDatabase(ctx, s.cfg, log, &upgrader{cfg: s.cfg, log: log, alone: s.alone})
	if err != nil {
		return err
	}
	if shared {
		if s.Keys, err = openKeys(ctx, s.cfg, db, keysLog); err != nil {
			return errors.Join(err, db.Close())
		}
	}
	blobs, err := openBlobs(ctx, s.cfg, log, blobKeys(s.Keys))
	if err != nil {
		return errors.Join(err, db.Close())
	}
	o.DB, o.Blobs, o.Clock, o.Logger, o.Name = db, blobs, time.Now, log, s.cfg.Hostname
	s.Store, err = store.Open(ctx, o)
	if errors.Is(err, store.ErrLoading) {
		err = control.Errorf(control.Unavailable, "open store: a move or a restore into the store of %s is not finished: run `waxwing store migrate` or `waxwing backup restore` again to its end, or make this store anew", s.cfg.Path)
	}
	if err != nil {
		return errors.Join(err, blobs.Close(), db.Close())
	}
	return nil
}

// Control is the service layer over this state; server is nil unless it runs in this process.
func (s *State) Control(server control.Server) *control.Service {
	return control.New(control.Options{
		Store: s.Store, Directory: s.Directory, Keys: s.Keys, Backup: s.Backup, Trace: s.Trace, Server: server, SpoolDir: s.cfg.Spool.Dir, Logger: s.log.With("part", "control"),
		TryList: s.tryList,
	})
}

// Close closes the store and gives up the lock.
func (s *State) Close() error {
	var errs []error
	if s.Store != nil {
		errs = append(errs, s.Store.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

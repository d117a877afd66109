package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"waxwing/internal/backup"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/durable"
	"waxwing/internal/store"
	"waxwing/internal/store/keyring"
	"waxwing/internal/store/sqlite"
)

// Watch hears how far a Restore is.
type Watch struct {
	Loaded   func(store.Loading)
	Compared func(store.Compared)
	Damaged  func(c store.ContentInfo, err error) // a content that comes back without its octets
}

// RestoreOptions says how Restore goes about it.
type RestoreOptions struct {
	Queue       backup.QueueFate
	KeepDamaged bool // go on without contents that the repository can't give whole; those that were damaged before are no hindrance
}

// restoreName is the file that says what is being restored, as long as it is.
const restoreName = "restore.json"

// restoring is what a restore that goes on must do as it was begun.
type restoring struct {
	Backup string           `json:"backup"`
	At     time.Time        `json:"at"`
	Queue  backup.QueueFate `json:"queue"`
	// Everything is in and was compared: a store that holds something is then the restored one.
	Compared bool `json:"compared,omitempty"`
}

func (r restoring) write(file string) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, file, raw, 0o600)
}

// Schema is the newest form of the tables that this program knows, whatever the kind of store.
func Schema() int64 { return sqlite.Schema() }

// Restore fills the empty store of a configuration with a backup, all counters ahead of it, reads everything back, and
// compares. Broken off, the same call goes on. It makes the data directory, and keys, when they are missing.
func Restore(ctx context.Context, cfg *config.Config, log *slog.Logger, rd *backup.Reader, o RestoreOptions, w Watch) (err error) {
	if err := CreateDataDir(cfg); err != nil {
		return control.Errorf(control.Unavailable, "restore: %w", err)
	}
	// PostgreSQL gets its keys from who opens it first.
	if cfg.Encryption.Source != config.KeyNone && cfg.Store.Driver == config.SQLite && !keyring.Exists(ctx, keyOptions(cfg, nil, log)) {
		if _, err := CreateKeys(ctx, cfg, true); err != nil {
			return err
		}
	}
	s, err := lockState(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.alone = true
	if err := s.openStore(ctx, store.Options{Load: true}); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	file := filepath.Join(cfg.DataDir, restoreName)
	r, err := beginRestore(file, rd.ID, o.Queue)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("backup %s at %d", r.Backup, r.At.Unix())
	damaged := func(c store.ContentInfo, err error) error {
		if !o.KeepDamaged && !rd.Damaged(c.Sum) {
			return fmt.Errorf("%w: try again, see what `waxwing backup verify` says, take another backup into a new directory, or go on without it: --keep-damaged", err)
		}
		w.Damaged(c, err)
		return nil
	}
	err = load(ctx, s.Store, name, &backup.Ahead{Reader: rd, At: r.At, Queue: r.Queue}, w, damaged, func() error {
		done := r
		done.Compared = true
		return done.write(file)
	})
	if errors.Is(err, store.ErrNotEmpty) {
		if err = nil; !r.Compared {
			err = control.Errorf(control.Conflict, "restore: %s holds a server already, and nothing is restored over it: make an empty one with `waxwing init --empty`", cfg.DataDir)
		}
	} else if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return errors.Join(err, durable.OS.Remove(file), durable.OS.SyncDir(cfg.DataDir))
}

// notRestoring refuses a store that is being restored: not even an empty one may take mail that is in the way then.
func notRestoring(cfg *config.Config) error {
	var r restoring
	raw, err := durable.ReadFile(durable.OS, filepath.Join(cfg.DataDir, restoreName), 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return control.Errorf(control.Unavailable, "open store: %w", err)
	}
	return control.Errorf(control.Unavailable, "open store: a restore of backup %s was begun here and is not finished: run `waxwing backup restore --all --backup %[1]s` again, it goes on; or begin with a new directory", r.Backup)
}

// beginRestore notes what is restored and when it began, or finds that noted.
func beginRestore(file, id string, queue backup.QueueFate) (r restoring, err error) {
	raw, err := durable.ReadFile(durable.OS, file, 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		r = restoring{Backup: id, At: time.Now().UTC().Truncate(time.Second), Queue: queue}
		return r, r.write(file)
	}
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	switch {
	case err != nil:
	case r.Backup != id:
		err = control.Errorf(control.Conflict, "restore: backup %s is being restored here: name it with --backup to go on", r.Backup)
	case r.Queue != queue:
		err = control.Errorf(control.Conflict, "restore: this restore was begun with --queue %s: go on so", r.Queue)
	}
	return r, err
}

// load fills an empty store from a backup, compares the two, calls compared, and makes the store an ordinary one. damaged
// decides about contents that can't be had.
func load(ctx context.Context, st *store.Store, name string, src store.Source, w Watch, damaged func(store.ContentInfo, error) error,
	compared func() error,
) error {
	tally, err := store.TallyRows(ctx, src, nil)
	if err != nil {
		return err
	}
	l, err := st.Load(ctx, name)
	if err != nil {
		return err
	}
	l.Progress = w.Loaded
	l.Damaged = damaged
	if err := l.Fill(ctx, src); err != nil {
		return err
	}
	if _, err := l.Verify(ctx, src, tally, w.Compared); err != nil {
		return err
	}
	if err := compared(); err != nil {
		return err
	}
	return l.Finish(ctx)
}

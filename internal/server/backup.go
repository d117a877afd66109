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

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/backup"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/durable"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/keyring"
	"waxwing/internal/store/sqlite"
)

// newAgent makes what makes the backups of this state.
func (s *State) newAgent() *backup.Agent {
	return backup.NewAgent(backup.AgentOptions{
		Dir:      filepath.Join(s.cfg.DataDir, backupName),
		Snapshot: func(ctx context.Context) (backup.Snapshot, error) { return s.Store.Snapshot(ctx) },
		Plan:     func() backup.Plan { return s.Directory.Settings().BackupPlan() },
		Restore:  s.restoreTest,
		Host:     s.cfg.Hostname, Logger: s.log.With("part", "backup"),
	})
}

// restoreTest loads a backup into a store below dir, under the same keys, and compares the two.
func (s *State) restoreTest(ctx context.Context, rd *backup.Reader, dir string) (err error) {
	db, err := sqlite.Open(ctx, filepath.Join(dir, databaseName), sqlite.Options{})
	if err != nil {
		return err
	}
	packs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, packsName), Keys: blobKeys(s.Keys)})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	st, err := store.Open(ctx, store.Options{DB: db, Blobs: store.Packs(packs), Load: true})
	if err != nil {
		return errors.Join(err, packs.Close(), db.Close())
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return load(ctx, st, rd.ID, rd, Watch{})
}

// load fills an empty store from a backup, compares the two, and makes the store an ordinary one. What was damaged before
// the backup stays so.
func load(ctx context.Context, st *store.Store, name string, src store.Source, w Watch) error {
	tally, err := store.TallyRows(ctx, src, nil)
	if err != nil {
		return err
	}
	l, err := st.Load(ctx, name)
	if err != nil {
		return err
	}
	l.Progress = w.Loaded
	l.Damaged = func(c store.ContentInfo, err error) error {
		if w.Damaged != nil {
			w.Damaged(c, err)
		}
		return nil
	}
	if err := l.Fill(ctx, src); err != nil {
		return err
	}
	if _, err := l.Verify(ctx, src, tally, w.Compared); err != nil {
		return err
	}
	return l.Finish(ctx)
}

// backupLook is how often the server looks whether a backup or a test is due.
const backupLook = 15 * time.Second

// backups makes backups and tests when they are due.
func (s *Server) backups(ctx context.Context) {
	last := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waxwing_backup_last_good_seconds", Help: "When the last good backup began, in seconds since 1970; 0 before the first."})
	tested := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waxwing_backup_last_good_test_seconds", Help: "When the last good test of a backup began, in seconds since 1970; 0 before the first."})
	sent := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waxwing_backup_last_sent_octets", Help: "Octets that the last good backup sent to its target."})
	well := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waxwing_backup_ok", Help: "1 when the last backup and the last test were good, 0 when one failed or is late."})
	s.reg.MustRegister(last, tested, sent, well)
	tick := time.NewTicker(backupLook)
	defer tick.Stop()
	for {
		lead, done := s.state.Store.WhileLeading(ctx) // of several nodes one does it
		s.backupDue(lead)
		leads := lead.Err() == nil
		done()
		if ctx.Err() != nil {
			return
		}
		st, err := s.state.Backup.State()
		if err == nil {
			if st.LastGood != nil {
				last.Set(float64(st.LastGood.Began.Unix()))
				sent.Set(float64(st.LastGood.Sent))
			}
			if st.TestGood != nil {
				tested.Set(float64(st.TestGood.Began.Unix()))
			}
			err = backupProblem(st, s.state.Backup.Plan(), time.Now())
		}
		if !leads { // another node makes them, and knows how they are
			err = nil
		}
		well.Set(0)
		if err == nil {
			well.Set(1)
		}
		s.health.Set("backup", err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// backupDue does what is due. Errors are in the log and in the state.
func (s *Server) backupDue(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	a := s.state.Backup
	st, err := a.State()
	if err != nil {
		return
	}
	p, now := a.Plan(), time.Now()
	if due := st.Due(p, now); !due.IsZero() && !due.After(now) {
		if _, err := a.Now(ctx, p, false); err != nil && ctx.Err() == nil {
			return // its failure stands in the state
		}
		if st, err = a.State(); err != nil {
			return
		}
	}
	if due := st.TestDue(p); !due.IsZero() && !due.After(now) && ctx.Err() == nil {
		_, _ = a.Test(ctx, p) // what was found stands in the state
	}
}

// backupProblem is what is wrong with the backups; nil when none are wanted.
func backupProblem(st backup.State, p backup.Plan, now time.Time) error {
	if p.Schedule.Every() == 0 {
		return nil
	}
	switch {
	case st.Late(p, now) && st.LastGood == nil:
		return fmt.Errorf("no backup was ever made: %s", st.Last.Error)
	case st.Late(p, now):
		return fmt.Errorf("the last good backup is of %s", st.LastGood.Began.UTC().Format(time.RFC3339))
	case st.Last != nil && st.Last.Error != "":
		return fmt.Errorf("the last backup failed: %s", st.Last.Error)
	case st.Test != nil && !st.Test.Good():
		return errors.New("the last test of a backup failed: `waxwing backup list` says how")
	}
	return nil
}

// Watch hears how far a Restore is.
type Watch struct {
	Loaded   func(store.Loading)
	Compared func(store.Compared)
	Damaged  func(c store.ContentInfo, err error) // a content that was damaged before the backup was made
}

// restoreName is the file that says what is being restored, as long as it is.
const restoreName = "restore.json"

// restoring is what a restore that goes on must do as it was begun.
type restoring struct {
	Backup string    `json:"backup"`
	At     time.Time `json:"at"`
}

// Restore fills the empty store of a configuration with a backup, all counters ahead of it, reads everything back, and
// compares. Broken off, the same call goes on. It makes the data directory, and keys, when they are missing.
func Restore(ctx context.Context, cfg *config.Config, log *slog.Logger, rd *backup.Reader, w Watch) (err error) {
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
	r, err := beginRestore(filepath.Join(cfg.DataDir, restoreName), rd.ID)
	if err != nil {
		return err
	}
	if err = s.openStore(ctx, store.Options{Load: true}); err == nil {
		name := fmt.Sprintf("backup %s at %d", r.Backup, r.At.Unix())
		err = load(ctx, s.Store, name, &backup.Ahead{Reader: rd, At: r.At}, w)
	}
	if errors.Is(err, store.ErrNotEmpty) {
		return control.Errorf(control.Conflict, "restore: %s holds a server already, and nothing is restored over it: make an empty one with `waxwing init --empty`", cfg.DataDir)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := durable.OS.Remove(filepath.Join(cfg.DataDir, restoreName)); err != nil {
		return err
	}
	return durable.OS.SyncDir(cfg.DataDir)
}

// beginRestore notes what is restored and when it began, or finds that noted.
func beginRestore(file, id string) (r restoring, err error) {
	raw, err := durable.ReadFile(durable.OS, file, 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		r = restoring{id, time.Now().UTC().Truncate(time.Second)}
		if raw, err = json.Marshal(r); err == nil {
			err = durable.WriteFile(durable.OS, file, raw, 0o600)
		}
		return r, err
	}
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err == nil && r.Backup != id {
		err = control.Errorf(control.Conflict, "restore: backup %s is being restored here: name it with --backup to go on", r.Backup)
	}
	return r, err
}

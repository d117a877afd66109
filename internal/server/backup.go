package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/backup"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
)

// newAgent makes what makes the backups of this state.
func (s *State) newAgent() *backup.Agent {
	return backup.NewAgent(backup.AgentOptions{
		Dir:      filepath.Join(s.cfg.DataDir, backupName),
		Snapshot: func(ctx context.Context) (backup.Snapshot, error) { return s.Store.Snapshot(ctx) },
		Plan:     func() backup.Plan { return s.Directory.Settings().BackupPlan() },
		Restore:  s.restoreTest,
		Host:     s.cfg.Hostname, Schema: Schema(), Logger: s.log.With("part", "backup"),
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
	damaged := func(c store.ContentInfo, err error) error {
		if rd.Damaged(c.Sum) {
			return nil // the backup says so
		}
		return err
	}
	return load(ctx, st, rd.ID, rd, Watch{}, damaged, func() error { return nil })
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

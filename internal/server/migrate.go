package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/store"
	"waxwing/internal/store/keyring"
)

// Phase is a part of a migration.
type Phase string

// The phases, in their order.
const (
	MigrateReading   Phase = "reading"  // the rows of the source, for their digest
	MigrateContents  Phase = "contents" // the octets of messages
	MigrateRows      Phase = "rows"
	MigrateComparing Phase = "comparing" // the target's rows with the digest
	MigrateProving   Phase = "proving"   // reading back the octets of every message
)

// MigrateProgress is how far a migration is.
type MigrateProgress struct {
	Phase Phase `json:"phase"`
	Done  int64 `json:"done"`
	Total int64 `json:"total,omitempty"` // 0: not known
}

// MigrateOptions says how Migrate goes about it.
type MigrateOptions struct {
	KeepDamaged bool // a message whose octets are damaged moves without them; otherwise it ends the migration
	Progress    func(MigrateProgress)
	Log         *slog.Logger
}

// Migrated is what a migration did.
type Migrated struct {
	Rows     int64            `json:"rows"`
	Contents int64            `json:"contents"`
	Octets   int64            `json:"octets"`
	Resumed  bool             `json:"resumed"`           // it went on with one that had been broken off
	Digest   string           `json:"digest"`            // of all rows, the same on both sides
	Damaged  []DamagedContent `json:"damaged,omitempty"` // found by this run, the first maxDamaged
	Lost     int64            `json:"lost"`              // contents whose octets are not in the target, as they are damaged in the source
	Keys     *keyring.Info    `json:"-"`                 // of the target, while no backup of its master key was confirmed; nil otherwise
}

// DamagedContent is a content that the source can't give.
type DamagedContent struct {
	ID     int64  `json:"id"`
	Reason string `json:"reason"`
}

// maxDamaged bounds Migrated.Damaged.
const maxDamaged = 100

// Migrate copies everything that one configuration's store holds into the empty store of another: see store.Loader. Both are
// locked as by a server. Broken off, it goes on when it is called again; the target serves nothing until it is whole and
// compared.
func Migrate(ctx context.Context, from, to *config.Config, o MigrateOptions) (out Migrated, err error) {
	if err := apart(from, to); err != nil {
		return out, err
	}
	if o.Progress == nil {
		o.Progress = func(MigrateProgress) {}
	}
	source, err := openBare(ctx, from, o.Log, false)
	if err != nil {
		return out, fmt.Errorf("source: %w", err)
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if err := prepareTarget(ctx, to); err != nil {
		return out, fmt.Errorf("target: %w", err)
	}
	target, err := openBare(ctx, to, o.Log, true)
	if err != nil {
		return out, fmt.Errorf("target: %w", err)
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if target.Keys != nil {
		if info := target.Keys.Info(); info.Backup.IsZero() {
			out.Keys = &info
		}
	}
	m := &migration{options: o, out: &out}
	return out, explained(m.run(ctx, source.Store, target.Store))
}

// apart refuses to move a store into itself.
func apart(from, to *config.Config) error {
	if from.DataDir == to.DataDir {
		return control.Errorf(control.Invalid, "migrate: both configurations name the data directory %s: the target needs its own", to.DataDir)
	}
	a, b := from.Store.S3, to.Store.S3
	if a != nil && b != nil && a.Endpoint == b.Endpoint && a.Bucket == b.Bucket && strings.TrimSuffix(a.Prefix, "/") == strings.TrimSuffix(b.Prefix, "/") {
		return control.Errorf(control.Invalid, "migrate: both configurations name the bucket %s and the prefix %q: the target needs its own", b.Bucket, b.Prefix)
	}
	return nil
}

// openBare opens a store without the index of text and the directory: nothing in it changes but what a load does.
func openBare(ctx context.Context, cfg *config.Config, log *slog.Logger, load bool) (*State, error) {
	s, err := lockState(cfg, log)
	if err != nil {
		return nil, err
	}
	s.alone = true
	if err := s.openStore(ctx, store.Options{Load: load}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepareTarget makes what a new target lacks: the data directory, the master key when it is to come from a file, and data
// keys where they stand in files. Those in a database are made by whoever opens it first.
func prepareTarget(ctx context.Context, cfg *config.Config) error {
	if err := CreateDataDir(cfg); err != nil || cfg.Encryption.Source == config.KeyNone {
		return err
	}
	if cfg.Store.Driver == config.Postgres {
		if cfg.Encryption.Source == config.KeyFile {
			return createMaster(cfg.Encryption.File)
		}
		return nil
	}
	if keyring.Exists(ctx, keyOptions(cfg, nil, slog.New(slog.DiscardHandler))) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, databaseName)); err == nil {
		return nil // something is in it: opening says what is wrong
	}
	_, err := CreateKeys(ctx, cfg, true)
	return err
}

// migration is one run.
type migration struct {
	options MigrateOptions
	out     *Migrated

	rows, contents int64 // that there are in the source
}

func (m *migration) run(ctx context.Context, from, to *store.Store) (err error) {
	src, err := from.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	tell := m.options.Progress
	tell(MigrateProgress{Phase: MigrateReading})
	tally, err := store.TallyRows(ctx, src, func(n int64) { tell(MigrateProgress{Phase: MigrateReading, Done: n}) })
	if err != nil {
		return err
	}
	for _, err := range src.Contents(ctx) {
		if err != nil {
			return err
		}
		m.contents++
	}
	m.rows, m.out.Rows, m.out.Digest = tally.Rows(), tally.Rows(), tally.String()
	l, err := to.Load(ctx, m.out.Digest)
	if err != nil {
		return err
	}
	m.out.Resumed = l.At() != store.Loading{Source: m.out.Digest}
	if err := m.fill(ctx, l, src); err != nil {
		return err
	}
	tell(MigrateProgress{Phase: MigrateComparing, Total: m.rows})
	done, err := l.Verify(ctx, src, tally, m.verified)
	if err != nil {
		return err
	}
	m.out.Contents, m.out.Octets, m.out.Lost = done.Contents, done.Octets, done.Damaged
	return l.Finish(ctx)
}

func (m *migration) fill(ctx context.Context, l *store.Loader, src store.Source) error {
	l.Progress = m.loaded
	l.Damaged = m.damaged
	m.loaded(l.At())
	return l.Fill(ctx, src)
}

func (m *migration) loaded(at store.Loading) {
	if at.Table == "" {
		m.options.Progress(MigrateProgress{Phase: MigrateContents, Done: at.Contents, Total: m.contents})
		return
	}
	m.options.Progress(MigrateProgress{Phase: MigrateRows, Done: at.AllRows, Total: m.rows})
}

func (m *migration) verified(v store.Compared) {
	if v.Contents == 0 {
		m.options.Progress(MigrateProgress{Phase: MigrateComparing, Done: v.Rows, Total: m.rows})
		return
	}
	m.options.Progress(MigrateProgress{Phase: MigrateProving, Done: v.Contents, Total: m.contents})
}

func (m *migration) damaged(c store.ContentInfo, err error) error {
	if len(m.out.Damaged) < maxDamaged {
		m.out.Damaged = append(m.out.Damaged, DamagedContent{ID: c.ID, Reason: err.Error()})
	}
	if m.options.KeepDamaged {
		return nil
	}
	return fmt.Errorf("content %d: %w", c.ID, err)
}

// explained says what to do about an error.
func explained(err error) error {
	switch {
	case errors.Is(err, store.ErrNotEmpty):
		return control.Errorf(control.Conflict, "migrate: the target holds something already (%w): give it a new data directory, or an empty database and bucket", err)
	case errors.Is(err, store.ErrOtherSource):
		return control.Errorf(control.Conflict, "migrate: the source has changed since this migration began (%w): make the target anew and begin again", err)
	case errors.Is(err, store.ErrDiffers):
		return control.Errorf(control.Failed, "migrate: %w: the target stays closed; make it anew and begin again", err)
	case errors.Is(err, store.ErrCorrupt):
		return control.Errorf(control.Failed, "migrate: %w: `waxwing store verify` on the source says whose it is; restore it from a backup, or go on without its octets with --keep-damaged", err)
	}
	return err
}

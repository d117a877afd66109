package upgrade_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/store/schema"
	"waxwing/internal/store/upgrade"
)

// migrations are a schema that grew: an older program knows two, a newer one five.
func migrations(n int) fs.FS {
	all := []string{
		`CREATE TABLE letter (id INTEGER PRIMARY KEY, body TEXT NOT NULL);`,
		`CREATE TABLE tag (letter INTEGER NOT NULL, name TEXT NOT NULL);`,
		`ALTER TABLE letter ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
UPDATE letter SET size = length(body);`,
		`CREATE TABLE letter2 (id INTEGER PRIMARY KEY, body TEXT NOT NULL, size INTEGER NOT NULL) STRICT;
INSERT INTO letter2 (id, body, size) SELECT id, body, size FROM letter;
DROP TABLE letter;
ALTER TABLE letter2 RENAME TO letter;`,
		`CREATE INDEX letter_size ON letter (size);`,
	}
	dir := fstest.MapFS{}
	for i, text := range all[:n] {
		dir[fmt.Sprintf("%04d_x.sql", i+1)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + text + "\n")}
	}
	return dir
}

const letters = 300

func open(ctx context.Context, dir string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "mail.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, db.PingContext(ctx)
}

func placeIn(dir string) *upgrade.Place {
	return &upgrade.Place{
		Dir: dir, Database: "mail.db", Linked: []string{filepath.Join("packs", "packs"), filepath.Join("packs", "large")},
		Kept: []string{"data-keys", filepath.Join("packs", "data-keys")}, Derived: []string{"search.db", "search.db-wal"},
	}
}

// migrate opens a store with a program that knows n migrations.
func migrate(ctx context.Context, dir string, n int, program string, log *slog.Logger) (err error) {
	db, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return schema.Migrate(ctx, schema.Options{
		Dialect: goose.DialectSQLite3, DB: db, Files: migrations(n), Program: program, Logger: log,
		Before: func(ctx context.Context, u schema.Upgrade) error {
			var busy, pages, done int
			if err := db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &done); err != nil || busy != 0 {
				return fmt.Errorf("checkpoint: busy %d, %w", busy, err)
			}
			_, err := placeIn(dir).Save(ctx, upgrade.Copy{Schema: u.From, To: u.To, Program: u.Made, Upgraded: u.Program, Time: time.Now()})
			log.Info("copied")
			return err
		},
	})
}

var quiet = slog.New(slog.DiscardHandler)

// oldStore makes a store as the older program leaves it.
func oldStore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := migrate(t.Context(), dir, 2, "v1", quiet); err != nil {
		t.Fatal(err)
	}
	db, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < $1 - 1)
		INSERT INTO letter (id, body) SELECT i, substr(hex(zeroblob(i + 1)), 1, i) FROM n`, letters)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"packs/packs/00000001.blob": "sealed", "packs/packs/00000002.blob": "grow", "packs/large/80000001.blob": "large",
		"data-keys": "keys", "packs/data-keys": "keys", "search.db": "index",
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// holds says what a store must hold, whatever program opened it last.
func holds(t *testing.T, dir string, version, more int) {
	t.Helper()
	db, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var schemaVersion, n, octets int
	if err := db.QueryRow(`SELECT max(version_id) FROM goose_db_version`).Scan(&schemaVersion); err != nil || schemaVersion != version {
		t.Errorf("schema %d, %v; want %d", schemaVersion, err, version)
	}
	err = db.QueryRow(`SELECT count(*), sum(length(body)) FROM letter WHERE id < $1`, letters).Scan(&n, &octets)
	if err != nil || n != letters || octets != letters*(letters-1)/2 {
		t.Errorf("%d letters of %d octets, %v", n, octets, err)
	}
	if err := db.QueryRow(`SELECT count(*) FROM letter WHERE id >= $1`, letters).Scan(&n); err != nil || n != more {
		t.Errorf("%d newer letters, %v; want %d", n, err, more)
	}
	if version == 5 {
		if err := db.QueryRow(`SELECT sum(size) FROM letter WHERE id < $1`, letters).Scan(&n); err != nil || n != octets {
			t.Errorf("sizes %d, %v; want %d", n, err, octets)
		}
	}
	var state string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&state); err != nil || state != "ok" {
		t.Error(state, err)
	}
}

func TestAnUpgradeIsCopiedBeforeAndTakenBack(t *testing.T) {
	t.Parallel()
	dir := oldStore(t)
	p := placeIn(dir)
	if err := migrate(t.Context(), dir, 5, "v2", quiet); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, 5, 0)
	all, err := p.List()
	if err != nil || len(all) != 1 || all[0].Schema != 2 || all[0].To != 5 || all[0].Program != "v1" || !strings.Contains(all[0].Name, "-schema-2-waxwing-v1") {
		t.Fatalf("copies %+v, %v", all, err)
	}
	if err := migrate(t.Context(), dir, 5, "v2", quiet); err != nil { // nothing to do: no copy
		t.Fatal(err)
	}
	var newer *schema.NewerError
	err = migrate(t.Context(), dir, 2, "v1", quiet)
	if !errors.As(err, &newer) || newer.Schema != 5 || newer.Made != "v2" || !strings.Contains(err.Error(), "waxwing v2 has brought this store to schema 5") {
		t.Errorf("an older program: %v", err)
	}
	db, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO letter (id, body, size) VALUES (100000, 'new', 3)`); err != nil {
		t.Fatal(err)
	}
	// The newer program rewrites packs: the first name of a file goes, and a pack grows.
	if err := errors.Join(db.Close(), os.Remove(filepath.Join(dir, "packs/packs/00000001.blob")), os.WriteFile(filepath.Join(dir, "packs/packs/00000002.blob"), []byte("grown"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r, err := p.Back(t.Context(), "", time.Now(), func(context.Context, string) error { return nil })
	if err != nil || r.To.Name != all[0].Name {
		t.Fatalf("%+v, %v", r, err)
	}
	holds(t, dir, 2, 0)
	for name, want := range map[string]string{"packs/packs/00000001.blob": "sealed", "packs/packs/00000002.blob": "grown", "packs/large/80000001.blob": "large", "data-keys": "keys"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "search.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the index is still there: %v", err)
	}
	holds(t, filepath.Join(dir, "upgrades", r.Aside), 5, 1)
	if err := migrate(t.Context(), dir, 2, "v1", quiet); err != nil {
		t.Error(err)
	}
	if err := migrate(t.Context(), dir, 5, "v3", quiet); err != nil { // and up again
		t.Error(err)
	}
	holds(t, dir, 5, 0)
}

func TestCopiesGoAfterTheirTime(t *testing.T) {
	t.Parallel()
	dir := oldStore(t)
	p := placeIn(dir)
	if err := migrate(t.Context(), dir, 5, "v2", quiet); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "upgrades", "x.partial"), 0o700); err != nil {
		t.Fatal(err)
	}
	gone, err := p.Expire(time.Now().Add(upgrade.Keep - time.Hour))
	if all, lerr := p.List(); err != nil || lerr != nil || len(gone) != 1 || len(all) != 1 {
		t.Errorf("gone %v, %v; left %v, %v", gone, err, all, lerr)
	}
	gone, err = p.Expire(time.Now().Add(upgrade.Keep + time.Hour))
	if all, lerr := p.List(); err != nil || lerr != nil || len(gone) != 1 || len(all) != 0 {
		t.Errorf("gone %v, %v; left %v, %v", gone, err, all, lerr)
	}
	if _, err := p.Back(t.Context(), "", time.Now(), nil); !errors.Is(err, upgrade.ErrNoCopy) {
		t.Error(err)
	}
	for _, name := range []string{"", ".", "..", "../packs", "none"} {
		if err := p.Drop(name); !errors.Is(err, upgrade.ErrNoCopy) {
			t.Errorf("drop %q: %v", name, err)
		}
	}
	holds(t, dir, 5, 0)
}

func TestAChangedCopyIsNotGoneBackTo(t *testing.T) {
	t.Parallel()
	dir := oldStore(t)
	if err := migrate(t.Context(), dir, 5, "v2", quiet); err != nil {
		t.Fatal(err)
	}
	all, err := placeIn(dir).List()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "upgrades", all[0].Name, "mail.db")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := placeIn(dir).Back(t.Context(), "", time.Now(), nil); err == nil || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("went back to a damaged copy: %v", err)
	}
	holds(t, dir, 5, 0)
}

// What the child of the tests below does, on which directory, and at which moment it dies.
const killVariable = "WAXWING_TEST_UPGRADE_KILL"

// killer kills its own process at the nth moment that it hears of: a line of the log, or a look at the context.
type killer struct {
	slog.Handler
	context.Context
	left atomic.Int64
}

func (k *killer) moment() {
	if k.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (k *killer) Handle(context.Context, slog.Record) error { k.moment(); return nil }

func (k *killer) Enabled(context.Context, slog.Level) bool { return true }

func (k *killer) Err() error { k.moment(); return k.Context.Err() }

// child carries out one order: "up" or "back", a directory and a moment.
func child(t *testing.T, order string) {
	t.Helper()
	words := strings.SplitN(order, " ", 3)
	at, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	k := &killer{Handler: slog.DiscardHandler, Context: context.Background()}
	k.left.Store(at)
	switch dir := words[2]; words[0] {
	case "up":
		err = migrate(k, dir, 5, "v2", slog.New(k))
	case "back":
		_, err = placeIn(dir).Back(k, "", time.Now(), func(context.Context, string) error { k.moment(); return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runChild tells whether the child was killed; any other end than that or success fails the test.
func runChild(t *testing.T, what string, at int, dir string, after time.Duration) (killed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestAKilledUpgradeGoesOn$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", killVariable, what, at, dir))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, context.DeadlineExceeded): // its time ran out before it began, or as it ended
		return false
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	}
	t.Fatalf("%v\n%s", err, out)
	return false
}

// TestAKilledUpgradeGoesOn kills an upgrade at each moment that can be told apart, and at some that can't: the next start
// goes on, one copy from before is there, and the way back from it, killed in the same way, leads to the old store.
func TestAKilledUpgradeGoesOn(t *testing.T) {
	if order := os.Getenv(killVariable); order != "" {
		child(t, order)
		return
	}
	t.Parallel()
	o := ordeal.Begin(t)
	chance := o.Chance(0)
	killed := 0
	for at := 1; ; at++ {
		dir := oldStore(t)
		if !runChild(t, "up", at, dir, time.Minute) {
			break
		}
		killed++
		o.Kill()
		runChild(t, "up", 1<<40, dir, time.Duration(chance.IntN(60))*time.Millisecond) // and once at random
		if err := migrate(t.Context(), dir, 5, "v2", quiet); err != nil {
			t.Fatalf("after moment %d: %v", at, err)
		}
		holds(t, dir, 5, 0)
		all, err := placeIn(dir).List()
		if err != nil || len(all) != 1 || all[0].Schema != 2 {
			t.Fatalf("after moment %d: copies %+v, %v", at, all, err)
		}
		for back := 1 + at%3; ; back += 3 {
			if !runChild(t, "back", back, dir, time.Minute) {
				break
			}
			o.Kill()
			if pending, err := placeIn(dir).Pending(); err != nil {
				t.Errorf("pending %q, %v", pending, err)
			}
		}
		holds(t, dir, 2, 0)
	}
	if killed < 6 {
		t.Errorf("killed at %d moments only", killed)
	}
}

package sqlitefile_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/sqlitefile"
)

const killVariable = "WAXWING_TEST_CONVERT" // the file that the child converts

// TestAKilledConversionGoesOn kills conversions while they write, wherever they are: the next opening finds all rows, and the
// file gets its sums.
func TestAKilledConversionGoesOn(t *testing.T) {
	if path := os.Getenv(killVariable); path != "" {
		if _, err := sqlitefile.Open(t.Context(), path, nil); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	killConversions(t, ordeal.Begin(t), 6)
}

func TestSoakAKilledConversionGoesOn(t *testing.T) {
	o := ordeal.Soak(t)
	killConversions(t, o, o.Times(200))
}

func killConversions(t *testing.T, o *ordeal.Ordeal, n int) {
	t.Helper()
	source := filepath.Join(t.TempDir(), "old.db")
	old := plain(t, source)
	run(t, old, `PRAGMA journal_mode(WAL)`)
	fill(t, old, 50)
	run(t, old, `INSERT INTO t (name, body) SELECT 'large', randomblob(200000) FROM t`)
	want := mustContent(t, old)
	file, log := read(t, source), read(t, source+"-wal")
	chance := o.Chance(0)
	killed := 0
	for round := range n {
		path := filepath.Join(t.TempDir(), "mail.db")
		write(t, path, file)
		write(t, path+"-wal", log)
		for killConversion(t, path, chance.IntN(1<<chance.IntN(16))) {
			killed++
			o.Kill()
			if chance.IntN(3) == 0 {
				break
			}
		}
		db := open(t, path) // fails without sums
		if got := mustContent(t, db); got != want {
			o.Lost("round %d: there are other rows", round)
		}
		integrity(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if left, err := filepath.Glob(path + "?*"); err != nil || len(left) > 0 {
			t.Errorf("round %d leaves %v, %v", round, left, err)
		}
	}
	if killed == 0 {
		t.Error("no conversion was killed")
	}
}

// killConversion converts in a child, and kills it some looks after it has begun to write. It tells whether it came to that.
func killConversion(t *testing.T, path string, looks int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestAKilledConversionGoesOn$")
	cmd.Env = append(os.Environ(), killVariable+"="+path)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			return false
		default:
		}
		if _, err := os.Stat(path + ".converting"); err == nil {
			if looks--; looks < 0 {
				break
			}
		}
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	return <-ended != nil
}

// TestAConversionKeepsLinksAndSaysWhatItDoes converts a file behind a symbolic link.
func TestAConversionKeepsLinksAndSaysWhatItDoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	real, link := filepath.Join(dir, "disk", "real.db"), filepath.Join(dir, "mail.db")
	if err := errors.Join(os.Mkdir(filepath.Dir(real), 0o700), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	old := plain(t, real)
	fill(t, old, 20)
	want := mustContent(t, old)
	if err := errors.Join(old.Close(), os.Chmod(real, 0o640)); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	f, err := sqlitefile.Open(t.Context(), link, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || !f.Summed() {
		t.Fatal(err, log.String())
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link is gone:", err)
	}
	if fi, err := os.Stat(real); err != nil || fi.Mode().Perm() != 0o640 {
		t.Error(fi.Mode(), err)
	}
	if got := mustContent(t, open(t, link)); got != want {
		t.Error("it has other rows")
	}
	if !strings.Contains(log.String(), "rewriting the database") || !strings.Contains(log.String(), "has sums") {
		t.Error("the log doesn't tell of it:", log.String())
	}
}

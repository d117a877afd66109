package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/sqlitefile"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
	"waxwing/internal/store/storetest"
)

// TestTheScrubFindsDamageAndForgetsWhatHealed goes through rounds of the scrub with a clock of its own.
func TestTheScrubFindsDamageAndForgetsWhatHealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := populated(t, dir, 20).Close(); err != nil {
		t.Fatal(err)
	}
	var now atomic.Int64
	now.Store(1_900_000_000)
	s := storetest.Open(t, dir, func() time.Time { return time.Unix(now.Load(), 0) })
	round := func() store.ScrubStatus {
		t.Helper()
		for {
			more, err := s.ScrubStep(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if !more {
				break
			}
		}
		st, err := s.Scrub(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := round(); st.Checked != 20 || st.Damaged != 0 || st.Finished.Unix() != now.Load() {
		t.Errorf("first round: %+v", st)
	}
	files, err := filepath.Glob(filepath.Join(dir, "blobs", "packs", "*.blob"))
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	const inFirstRecord = 64 + 88 + 8
	flip(t, files[0], inFirstRecord, 1)
	if st := round(); st.Damaged != 0 {
		t.Errorf("a second round within the day: %+v", st)
	}
	now.Add(25 * 3600)
	if st := round(); st.Damaged != 1 || st.Checked != 20 {
		t.Errorf("the damage is not found: %+v", st)
	}
	flip(t, files[0], inFirstRecord, 1)
	now.Add(25 * 3600)
	if st := round(); st.Damaged != 0 {
		t.Errorf("what is sound again is not forgotten: %+v", st)
	}
}

// TestAFlippedByteInTheDatabaseHarmsNothing flips octets of the database of a store that was closed, and of the database and the log
// of one that crashed, each alone. All is read as it was, and verify finds nothing.
func TestAFlippedByteInTheDatabaseHarmsNothing(t *testing.T) {
	t.Parallel()
	flipEach(t, ordeal.Begin(t), 30)
}

func TestSoakAFlippedByteInTheDatabaseHarmsNothing(t *testing.T) {
	o := ordeal.Soak(t)
	flipEach(t, o, o.Times(3000))
}

func flipEach(t *testing.T, o *ordeal.Ordeal, n int) {
	t.Helper()
	r := o.Chance(0)
	closed, crashed := t.TempDir(), t.TempDir()
	s := populated(t, closed, 60)
	all, _ := readAll(t, s)
	copyDir(t, closed, crashed)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		source, name := closed, "mail.db"
		switch i % 3 {
		case 1:
			source = crashed
		case 2:
			source, name = crashed, "mail.db-wal"
		}
		dir := t.TempDir()
		copyDir(t, source, dir)
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		at := r.Int64N(fi.Size())
		flip(t, filepath.Join(dir, name), at, byte(1+r.IntN(255)))
		o.Fault(1)
		s := storetest.Open(t, dir, nil)
		if whole, broken := readAll(t, s); whole != all || broken != 0 {
			t.Errorf("octet %d of %s: %d entries of %d can be read, %d can't", at, name, whole, all, broken)
		}
		if list, _ := problems(t, s, store.VerifyOptions{}); len(list) > 0 {
			t.Errorf("octet %d of %s: %v", at, name, list)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}

// TestADamagedPageIsFoundAndNothingElseIsShown damages more than one octet of a page, for each page: what is harmed can't be read,
// verify and the scrub say so, and what can be read is what it was.
func TestADamagedPageIsFoundAndNothingElseIsShown(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	s := populated(t, source, 60)
	all, _ := readAll(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(source, "mail.db"))
	if err != nil {
		t.Fatal(err)
	}
	harmed := 0
	for page := int64(1); page < fi.Size()/sqlitefile.PageSize; page += 4 {
		dir := t.TempDir()
		copyDir(t, source, dir)
		for _, at := range []int64{10, 2000, 4000} {
			flip(t, filepath.Join(dir, "mail.db"), page*sqlitefile.PageSize+at, 0x11)
		}
		if readDamaged(t, dir) < all {
			harmed++
		}
	}
	if harmed == 0 {
		t.Error("no damage harmed anything")
	}
}

// readDamaged opens a store whose database is damaged and counts the entries that can be read. readAll fails the test when one
// has other octets than its own. Verify must find fault.
func readDamaged(t *testing.T, dir string) (whole int) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		return 0
	}
	blobs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Reserve: -1})
	if err != nil {
		t.Fatal(errors.Join(err, db.Close()))
	}
	s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(blobs)})
	if err != nil {
		if cerr := errors.Join(blobs.Close(), db.Close()); cerr != nil {
			t.Log(cerr)
		}
		return 0
	}
	whole, _ = readAll(t, s)
	found := 0
	if _, err := s.Verify(t.Context(), store.VerifyOptions{Found: func(store.Problem) { found++ }}); err == nil && found == 0 {
		t.Error("a page is damaged, and verify finds nothing wrong")
	}
	if _, err := s.ScrubStep(t.Context(), 0); err == nil {
		if st, err := s.Scrub(t.Context()); err != nil || st.Broken != 1 {
			t.Errorf("the scrub found %d damaged pages, %v", st.Broken, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Log(err)
	}
	return whole
}

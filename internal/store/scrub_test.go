package store_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

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

// TestAFlippedByteInTheDatabaseShowsNoMessageWithOtherOctets flips octets of pages of the database, opens the store and reads: what
// is harmed can't be read, and verify finds fault whenever something can't.
func TestAFlippedByteInTheDatabaseShowsNoMessageWithOtherOctets(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	s := populated(t, source, 60)
	all, _ := readAll(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var one, many, none int
	for i := range 60 {
		dir := t.TempDir()
		copyDir(t, source, dir)
		flip(t, filepath.Join(dir, "mail.db"), int64(i)*3989+1000, 1<<(i%8))
		lost := all - readFlipped(t, dir)
		switch lost {
		case 0:
			none++
		case 1:
			one++
		default:
			many++
		}
	}
	t.Logf("60 flips in pages: %d harmed nothing that is read, %d one message, %d more", none, one, many)
	if none == 0 {
		t.Error("no store with a flipped octet could be read")
	}
}

// readFlipped opens a store whose database may be damaged and counts the entries that can be read. readAll fails the test when one
// has other octets than its own. When something can't be read, verify must find fault.
func readFlipped(t *testing.T, dir string) (whole int) {
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
	whole, broken := readAll(t, s)
	if broken > 0 {
		found := 0
		if _, err := s.Verify(t.Context(), store.VerifyOptions{Found: func(store.Problem) { found++ }}); err == nil && found == 0 {
			t.Errorf("%d entries can't be read, and verify finds nothing wrong", broken)
		}
	}
	if err := s.Close(); err != nil {
		t.Log(err)
	}
	return whole
}

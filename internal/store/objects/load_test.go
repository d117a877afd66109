package objects_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/objects"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/sqlite"
	"waxwing/internal/store/storetest"
)

// TestAStoreMovesToPostgresAndS3AndBack loads a store with something in every table from SQLite and packs into PostgreSQL and
// a bucket, and from there into SQLite and packs again. storetest.Load compares the rows and reads every content.
func TestAStoreMovesToPostgresAndS3AndBack(t *testing.T) {
	t.Parallel()
	first := storetest.New(t)
	storetest.Fill(t, first, 300)
	dir := t.TempDir()
	steps := 0
	second := storetest.Load(t, first, func(load bool) *store.Store { return openLoading(t, dir, load) }, func(store.Loading) bool {
		steps++
		return steps%10 == 0
	})
	if n := (&node{T: t, Store: second}).number(countFresh); n != 0 {
		t.Errorf("%d contents are still in the database", n)
	}
	if len(service.Keys(t, name(dir))) < 2 {
		t.Errorf("objects: %v", service.Keys(t, name(dir)))
	}
	noProblems(t, second)
	home := t.TempDir()
	third := storetest.Load(t, second, func(load bool) *store.Store { return openPacks(t, home, load) }, nil)
	noProblems(t, third)
	if a, b := tallyOf(t, first), tallyOf(t, third); len(a.Difference(b)) != 0 || a.String() != b.String() || a.Rows() < 500 {
		t.Errorf("there and back again the rows differ: %v", a.Difference(b))
	}
}

func openLoading(t *testing.T, dir string, load bool) *store.Store {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Options{DSN: cluster.Schema(t, name(dir)), Readers: 4})
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := objects.Open(t.Context(), bucketOptions(t, dir, ""))
	if err != nil {
		t.Fatal(err)
	}
	return openOptions(t, store.Options{DB: db, Blobs: store.Objects(bucket), Load: load})
}

func openPacks(t *testing.T, dir string, load bool) *store.Store {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	return openOptions(t, store.Options{DB: db, Blobs: store.Packs(blobs), Load: load})
}

func openOptions(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func tallyOf(t *testing.T, s *store.Store) store.Tally {
	t.Helper()
	n, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	tally, err := store.TallyRows(t.Context(), n, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tally
}

func noProblems(t *testing.T, s *store.Store) {
	t.Helper()
	_, err := s.Verify(t.Context(), store.VerifyOptions{Found: func(p store.Problem) { t.Errorf("problem %+v", p) }})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoObjectGoesWhileASnapshotIsOpen(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	n.deliver(strings.Repeat("a line of a large message\r\n", 5000))
	src, err := n.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in, err := n.Mailbox(t.Context(), 1, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.ExpungeAll(t.Context(), 1, in.ID, false); err != nil {
		t.Fatal(err)
	}
	keep := func(want int) {
		t.Helper()
		for range 3 {
			if err := n.Housekeep(t.Context()); err != nil {
				t.Fatal(err)
			}
			n.now = n.now.Add(2 * time.Hour)
		}
		if got := n.keys(); len(got) != want {
			t.Errorf("objects %v, want %d", got, want)
		}
	}
	keep(1)
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	keep(0)
}

package store_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/internal/store/storetest"
)

// cluster is the PostgreSQL server of these tests, started when the first asks for it: a test of this binary that runs as a
// child needs none.
var (
	started atomic.Bool
	cluster = sync.OnceValues(func() (*pgtest.Cluster, error) {
		started.Store(true)
		return pgtest.Start()
	})
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := errors.Join(stopCluster(), goleak.Find()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func stopCluster() error {
	if !started.Load() {
		return nil
	}
	c, err := cluster()
	if err != nil {
		return err
	}
	return c.Close()
}

// onEachDatabase runs a test with an empty store on SQLite, and with one on PostgreSQL.
func onEachDatabase(t *testing.T, fn func(t *testing.T, s *store.Store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		fn(t, storetest.New(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		c, err := cluster()
		if err != nil {
			t.Fatal(err)
		}
		h := fnv.New64a()
		h.Write([]byte(t.Name()))
		db, err := postgres.Open(t.Context(), postgres.Options{DSN: c.Schema(t, fmt.Sprintf("t%016x", h.Sum64())), Readers: 4})
		if err != nil {
			t.Fatal(err)
		}
		blobs, err := blob.Open(blob.Options{Dir: t.TempDir(), Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(blobs)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("close the store: %v", err)
			}
		})
		fn(t, s)
	})
}

// copyDir copies a directory as it is at some moment.
func copyDir(tb testing.TB, from, to string) {
	tb.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		tb.Fatal(err)
	}
}

func overwrite(tb testing.TB, name string, off int64, b []byte) {
	tb.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		tb.Error(err)
	}
	if err := f.Close(); err != nil {
		tb.Error(err)
	}
}

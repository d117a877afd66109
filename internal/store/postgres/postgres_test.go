package postgres_test

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/internal/store/storetest"
)

// cluster is the server that the tests of this package share; each has a schema of its own.
var cluster *pgtest.Cluster

func TestMain(m *testing.M) {
	var err error
	if cluster, err = pgtest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// schemaOf names the schema that stands for a directory of a test.
func schemaOf(dir string) string {
	h := fnv.New64a()
	h.Write([]byte(dir))
	return fmt.Sprintf("t%016x", h.Sum64())
}

// open opens a store with its rows in PostgreSQL and its contents in packs below dir.
func open(tb testing.TB, dir string, clock func() time.Time) *store.Store {
	tb.Helper()
	return openOn(tb, cluster, dir, clock)
}

func openOn(tb testing.TB, c *pgtest.Cluster, dir string, clock func() time.Time) *store.Store {
	tb.Helper()
	db, err := postgres.Open(tb.Context(), postgres.Options{DSN: c.Schema(tb, schemaOf(dir)), Readers: 4})
	if err != nil {
		tb.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Reserve: -1})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := store.Open(tb.Context(), store.Options{DB: db, Blobs: store.Packs(blobs), Clock: clock})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close the store: %v", err)
		}
	})
	return s
}

func TestContractOnPostgresAndPacks(t *testing.T) {
	t.Parallel()
	storetest.Run(t, open)
}

package tsv

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
	"waxwing/internal/store/search/follow"
	"waxwing/internal/store/search/searchtest"
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

// openBeside opens a store with its rows in PostgreSQL and its contents below dir, and an index.
func openBeside(tb testing.TB, dir string, pick follow.Pick) (*store.Store, searchtest.Index) {
	tb.Helper()
	return openWith(tb, dir, Options{Pick: pick})
}

func openWith(tb testing.TB, dir string, o Options) (*store.Store, *Index) {
	tb.Helper()
	o.DSN = cluster.Schema(tb, schemaOf(dir))
	o.Poll = 50 * time.Millisecond
	idx, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	db, err := postgres.Open(tb.Context(), postgres.Options{DSN: o.DSN, Readers: 3})
	if err != nil {
		tb.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Reserve: -1})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := store.Open(tb.Context(), store.Options{DB: db, Blobs: store.Packs(blobs), Search: idx, Purged: idx.Purged})
	if err != nil {
		tb.Fatal(err)
	}
	return s, idx
}

func TestContract(t *testing.T) { searchtest.Run(t, openBeside) }

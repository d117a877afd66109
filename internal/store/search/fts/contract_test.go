package fts_test

import (
	"path/filepath"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/search/follow"
	"waxwing/internal/store/search/fts"
	"waxwing/internal/store/search/searchtest"
	"waxwing/internal/store/sqlite"
)

// openBeside opens a store in dir with an index.
func openBeside(tb testing.TB, dir string, pick follow.Pick) (*store.Store, searchtest.Index) {
	tb.Helper()
	idx, err := fts.New(fts.Options{Path: filepath.Join(dir, "search.db"), Pick: pick})
	if err != nil {
		tb.Fatal(err)
	}
	db, err := sqlite.Open(tb.Context(), filepath.Join(dir, "mail.db"), sqlite.Options{Readers: 2})
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

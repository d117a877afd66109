// Package storetest opens stores for tests, and holds the contract test that every back-end of package store must pass.
//
// It is for test code alone. Test files inside package store itself can't import it; those of store_test can.
package storetest

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"waxwing/internal/durable"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/keyring"
	"waxwing/internal/store/sqlite"
)

// New opens an empty store in a directory of the test, and closes it at the end of the test.
func New(tb testing.TB) *store.Store {
	tb.Helper()
	return Open(tb, tb.TempDir(), nil)
}

// Open opens the store in dir, with SQLite and packs, and closes it at the end of the test. clock may be nil.
func Open(tb testing.TB, dir string, clock func() time.Time) *store.Store {
	tb.Helper()
	return open(tb, dir, clock, nil, 0)
}

// smallChunk lets a mailbox of five messages be a large one.
const smallChunk = 2

// OpenSmall is Open for a store that reads the entries of mailboxes a few at a time, as it does with a thousand of a large one.
func OpenSmall(tb testing.TB, dir string, clock func() time.Time) *store.Store {
	tb.Helper()
	return open(tb, dir, clock, nil, smallChunk)
}

// OpenEncrypted is Open with keys, which it makes at the first time.
func OpenEncrypted(tb testing.TB, dir string, clock func() time.Time) *store.Store {
	tb.Helper()
	o := keyring.Options{
		Files:  [2]string{filepath.Join(dir, "keys"), filepath.Join(dir, "blobs", "keys")},
		Source: keyring.Source{Kind: keyring.File, File: filepath.Join(dir, "master.key")},
	}
	ring, err := keyring.Open(tb.Context(), o)
	if errors.Is(err, keyring.ErrNoFile) {
		var m *keyring.Master
		if m, err = keyring.NewMaster(rand.Reader); err == nil {
			err = keyring.WriteMaster(durable.OS, o.Source.File, m, time.Now())
		}
		if err == nil {
			ring, err = keyring.Create(tb.Context(), o, true)
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	return open(tb, dir, clock, ring, 0)
}

func open(tb testing.TB, dir string, clock func() time.Time, keys blob.Keys, chunk int) *store.Store {
	tb.Helper()
	db, err := sqlite.Open(tb.Context(), filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Reserve: -1, Keys: keys})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := store.Open(tb.Context(), store.Options{DB: db, Blobs: store.Packs(blobs), Clock: clock, IndexChunk: chunk, IndexSize: indexSize(chunk)})
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

// Account makes mail state with the default mailboxes.
func Account(tb testing.TB, s *store.Store, id store.AccountID) {
	tb.Helper()
	err := s.Write(tb.Context(), func(tx *store.Tx) error {
		return s.CreateAccountState(tx, id, store.DefaultMailboxes)
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// indexSize is memory for the indexes of small chunks, so little that records are given back all the time; 0 for others.
func indexSize(chunk int) int64 { return int64(chunk) * 500 }

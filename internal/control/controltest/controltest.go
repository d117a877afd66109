// Package controltest gives tests a control service over a real store in a directory of the test. It is no part of the
// server.
package controltest

import (
	"path/filepath"
	"testing"

	"waxwing/internal/address"
	"waxwing/internal/control"
	"waxwing/internal/directory"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
)

// Bench is a service with what is behind it.
type Bench struct {
	Service   *control.Service
	Store     *store.Store
	Directory *directory.Directory
	Dir       string
}

// New opens a store with the domain example.test and closes it when the test ends.
func New(t testing.TB, server control.Server) *Bench {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "waxwing.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	packs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "packs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(packs)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	dirs, err := directory.New(t.Context(), st, directory.Options{
		OnSettings: func(now directory.Settings) { st.SetPolicy(now.Policy()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dirs.AddDomain(t.Context(), directory.Domain{Name: "example.test"}); err != nil {
		t.Fatal(err)
	}
	return &Bench{
		Service: control.New(control.Options{Store: st, Directory: dirs, Server: server, SpoolDir: dir}),
		Store:   st, Directory: dirs, Dir: dir,
	}
}

// Account makes an account without a password.
func (b *Bench) Account(t testing.TB, text string) directory.Account {
	t.Helper()
	a, err := address.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	made, err := b.Directory.AddAccount(t.Context(), directory.NewAccount{Address: a})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

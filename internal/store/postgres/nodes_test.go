package postgres_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/schema"
	"waxwing/internal/store/storetest"
)

// patience bounds what is waited for on a busy machine.
const patience = 60 * time.Second

// openShared opens the database of a directory as one node of several.
func openShared(t *testing.T, dir string) (*store.Database, error) {
	t.Helper()
	return postgres.Open(t.Context(), postgres.Options{DSN: cluster.DSN(schemaOf(dir)), Readers: 2, Shared: true})
}

func TestNodesThatStartTogetherMakeTheTablesOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cluster.Schema(t, schemaOf(dir))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			db, err := openShared(t, dir)
			if err != nil {
				t.Error(err)
				return
			}
			has, err := schema.Version(t.Context(), db.Reader)
			if err = errors.Join(err, db.Close()); err != nil || has == 0 {
				t.Errorf("schema %d, error %v", has, err)
			}
		})
	}
	wg.Wait()
}

func TestNodesAndOneWhoIsAloneKeepEachOtherOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	alone := postgres.Options{DSN: cluster.Schema(t, schemaOf(dir)), Readers: 2}
	db, err := postgres.Open(t.Context(), alone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openShared(t, dir); !errors.Is(err, postgres.ErrInUse) {
		t.Errorf("error %v for a node beside one who is alone", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = openShared(t, dir); err != nil {
		t.Fatal(err)
	}
	// Whatever connection is left of a node keeps the schema as it is.
	if err := db.Reader.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Writer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Open(t.Context(), alone); !errors.Is(err, postgres.ErrInUse) {
		t.Errorf("error %v for one who wants to be alone beside a node", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheSchemaIsNotChangedUnderNodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cluster.Schema(t, schemaOf(dir))
	db, err := openShared(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := db.Reader.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	// For a node of a newer version the database lacks a migration, as it does for this one now.
	n, err := schema.Version(t.Context(), db.Reader)
	if err == nil {
		err = cluster.Exec(t.Context(), fmt.Sprintf(`DELETE FROM %s.goose_db_version WHERE version_id = %d`, schemaOf(dir), n))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openShared(t, dir); !errors.Is(err, postgres.ErrOlder) {
		t.Errorf("error %v, want ErrOlder", err)
	}
}

// TestANodeOfAnOlderVersionStopsWhenTheSchemaWasChanged breaks all connections of a node, and changes the schema before it is back.
func TestANodeOfAnOlderVersionStopsWhenTheSchemaWasChanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cluster.Schema(t, schemaOf(dir))
	db, err := openShared(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(blobs)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // it can't take itself out of the list of nodes
	storetest.Account(t, s, 1)
	for _, q := range []string{
		`INSERT INTO %[1]s.goose_db_version (version_id, is_applied) VALUES (9999, true)`,
		`INSERT INTO %[1]s.schema_history (version, program, at) VALUES (9999, 'v99', 0)`,
		`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = (hashtext('%[1]s')::bigint & 4294967295)::oid`,
	} {
		if err := cluster.Exec(t.Context(), fmt.Sprintf(q, schemaOf(dir))); err != nil {
			t.Fatal(err)
		}
	}
	for what, try := range map[string]func() error{
		"write": func() error { _, err := deliver(t.Context(), s, "too late"); return err },
		"read": func() error {
			return s.Read(t.Context(), func(q store.Querier) error { return q.QueryRow(`SELECT 1`).Scan(new(int)) })
		},
	} {
		var newer *schema.NewerError
		for deadline := time.Now().Add(patience); ; {
			err := try()
			if errors.As(err, &newer) && newer.Made == "v99" && newer.Schema == 9999 {
				break
			}
			if err == nil || time.Now().After(deadline) { // what broke may show once more
				t.Fatalf("%s: error %v, want one that names the newer version", what, err)
			}
		}
	}
}

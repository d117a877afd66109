package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
	"waxwing/internal/store/storetest"
)

// derived are the tables that a snapshot leaves out, since they say how a back-end keeps what the others say.
var derived = []string{"blob", "damaged_content", "data_keys", "data_keys_copy", "fresh_content", "goose_db_version", "house_state", "maildrop", "node", "object_garbage", "returning_right", "schema_history", "segment", "trace_index", "uid_gap", "uid_map"}

// derivedText is the index of text, which has a file of its own beside SQLite.
var derivedText = []string{"search_state", "search_term", "search_todo"}

// TestASnapshotForgetsNoTable compares the list of tables with the schemas: whoever adds a table must say what it is.
func TestASnapshotForgetsNoTable(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		t.Helper()
		want := slices.Concat(derived, derivedText)
		names := `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
		if strings.HasSuffix(t.Name(), "sqlite") {
			names = `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`
			want = slices.Clone(derived)
		}
		for _, x := range store.Tables() {
			if x.Name != "last_id" {
				want = append(want, x.Name)
			}
		}
		slices.Sort(want)
		got := words(t, s, names)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("tables\n%v, listed are\n%v", got, want)
		}
	})
}

// words asks for one column of text.
func words(t *testing.T, s *store.Store, query string) (out []string) {
	t.Helper()
	err := s.Read(t.Context(), func(q store.Querier) error {
		rows, err := q.Query(query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var w string
			if err := rows.Scan(&w); err != nil {
				return err
			}
			out = append(out, w)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// openToLoad opens a store with SQLite and packs.
func openToLoad(t *testing.T, dir string, load bool) (*store.Store, error) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "blobs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(blobs), Load: load})
	if err != nil {
		return nil, errors.Join(err, blobs.Close(), db.Close())
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, nil
}

func mustOpenToLoad(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := openToLoad(t, dir, true)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestALoadGoesOnWhereverItWasBrokenOff(t *testing.T) {
	t.Parallel()
	from := storetest.New(t)
	storetest.Fill(t, from, 700)
	dir := t.TempDir()
	steps, stops := 0, 0
	to := storetest.Load(t, from, func(load bool) *store.Store {
		if stops > 0 && load {
			if _, err := openToLoad(t, dir, false); !errors.Is(err, store.ErrLoading) {
				t.Fatalf("a store that is half loaded was opened: %v", err)
			}
		}
		s, err := openToLoad(t, dir, load)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}, func(store.Loading) bool {
		if steps++; steps%3 == 0 {
			stops++
			return true
		}
		return false
	})
	if stops < 8 {
		t.Errorf("the load was broken off %d times", stops)
	}
	var problems []store.Problem
	if _, err := to.Verify(t.Context(), store.VerifyOptions{Found: func(p store.Problem) { problems = append(problems, p) }}); err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("problem %+v", p)
	}
	// What comes next stands behind all that was there.
	for _, s := range []*store.Store{from, to} {
		d, err := s.Deliver(t.Context(), store.Delivery{
			Content: strings.NewReader("next"), Local: []store.NewEntry{{Account: 1, Role: store.RoleInbox}},
			Queue: &store.QueueMessage{TraceID: "T", Size: 4, Recipients: []store.QueueRecipient{{To: "z@far.test", Domain: "far.test"}}},
		})
		if err != nil || d.Local[0].UID != 12 || d.Queue != 4 {
			t.Errorf("next: %+v, %v", d, err)
		}
	}
	if a, b := lastMessage(t, from), lastMessage(t, to); b < a {
		t.Errorf("message %d after %d", b, a)
	}
}

func lastMessage(t *testing.T, s *store.Store) store.MessageID {
	t.Helper()
	id, err := s.LastMessage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestALoadIsRefusedWhereSomethingIs(t *testing.T) {
	t.Parallel()
	from := storetest.New(t)
	storetest.Fill(t, from, 0)
	src, err := from.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := from.Load(t.Context(), "x"); err == nil {
		t.Error("a store that serves was taken for a load")
	}
	dir := t.TempDir()
	s := mustOpenToLoad(t, dir)
	storetest.Account(t, s, 1)
	if _, err := s.Load(t.Context(), "x"); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("a store with an account: %v", err)
	}
	s = mustOpenToLoad(t, t.TempDir())
	l, err := s.Load(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), "y"); !errors.Is(err, store.ErrOtherSource) {
		t.Errorf("another source: %v", err)
	}
	if err := l.Finish(t.Context()); !errors.Is(err, store.ErrLoading) {
		t.Errorf("finished before it is full: %v", err)
	}
	// A row that was left out, and one that is another, are found.
	tally, err := store.TallyRows(t.Context(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Fill(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(t.Context(), src, tally, nil); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{`UPDATE entry SET uid = 99 WHERE uid = 3`, `DELETE FROM setting`} {
		if err := s.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(q); return err }); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Verify(t.Context(), src, tally, nil); !errors.Is(err, store.ErrDiffers) {
			t.Errorf("after %s: %v", q, err)
		}
	}
}

// damagedSource gives another content than it has.
type damagedSource struct {
	*store.Snapshot
	bad int64
}

type octets struct{ *bytes.Reader }

func (octets) Close() error { return nil }

func (d damagedSource) Open(ctx context.Context, c store.ContentInfo) (store.Blob, error) {
	if c.ID == d.bad {
		return octets{bytes.NewReader(make([]byte, c.Size))}, nil
	}
	return d.Snapshot.Open(ctx, c)
}

func TestADamagedContentEndsALoadOrHarmsItselfAlone(t *testing.T) {
	t.Parallel()
	from := storetest.New(t)
	storetest.Account(t, from, 1)
	for i := range 3 {
		deliverText(t, from, fmt.Sprint("text ", i))
	}
	src, err := from.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	tally, err := store.TallyRows(t.Context(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := mustOpenToLoad(t, dir)
	l, err := s.Load(t.Context(), tally.String())
	if err != nil {
		t.Fatal(err)
	}
	bad := damagedSource{src, 2}
	if err := l.Fill(t.Context(), bad); !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("a damaged content was loaded: %v", err)
	}
	l.Damaged = func(store.ContentInfo, error) error { return nil }
	if err := l.Fill(t.Context(), bad); err != nil {
		t.Fatal(err)
	}
	v, err := l.Verify(t.Context(), bad, tally, nil)
	if err != nil || v.Damaged != 1 || l.At().Damaged != 1 {
		t.Fatalf("%+v, %+v, %v", v, l.At(), err)
	}
	if err := errors.Join(l.Finish(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = openToLoad(t, dir, false); err != nil {
		t.Fatal(err)
	}
	read := func(id store.MessageID, want string) {
		t.Helper()
		b, err := s.ReadBlob(t.Context(), 1, id, nil)
		if string(b) != want || want == "" && !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("message %d is %q, %v; want %q", id, b, err, want)
		}
	}
	read(1, "text 0")
	read(2, "")
	read(3, "text 2")
	deliverText(t, s, "text 1") // the same once more
	read(2, "text 1")
}

func deliverText(t *testing.T, s *store.Store, text string) {
	t.Helper()
	_, err := s.Deliver(t.Context(), store.Delivery{Content: strings.NewReader(text), Local: []store.NewEntry{{Account: 1, Role: store.RoleInbox}}})
	if err != nil {
		t.Fatal(err)
	}
}

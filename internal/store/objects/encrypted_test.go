package objects_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/keyring"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/storetest"
)

// newRingNode is newNode with its keys and, beside the store, its database.
func newRingNode(t *testing.T, address string) (*node, *keyring.Ring, *store.Database) {
	t.Helper()
	n := &node{T: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	db := openDatabase(t, n.dir)
	o := bucketOptions(t, n.dir, address)
	r := ring(t, db)
	o.Keys = r
	n.Store = openWith(t, db, func() time.Time { return n.now }, o)
	storetest.Account(t, n.Store, 1)
	return n, r, db
}

func TestFreshContentsAreSealedAndBoundToTheirPlace(t *testing.T) {
	t.Parallel()
	n, r, db := newRingNode(t, "")
	one, two := "Subject: one\r\n\r\nthe secret of one\r\n", "Subject: two\r\n\r\nthe secret of two\r\n"
	ids := []store.MessageID{n.deliver(one), n.deliver(two), n.deliver("")}
	long := strings.Repeat("a secret that shrinks\r\n", 2000) // below the bound of objects of their own
	ids = append(ids, n.deliver(long))
	var all [][]byte
	octets := 0
	key, _ := r.Current()
	rows, err := db.Side.QueryContext(t.Context(), `SELECT data, key_id FROM fresh_content ORDER BY blob_id`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var data []byte
		var id uint32
		if err := rows.Scan(&data, &id); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("secret")) || id != key {
			t.Errorf("under key %08x, current %08x: %.80q", id, key, data)
		}
		all, octets = append(all, data), octets+len(data)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(all) != 4 || octets > len(long)/2 {
		t.Fatalf("%d rows, %d octets, %v", len(all), octets, err)
	}
	for i, text := range []string{one, two, "", long} {
		n.reads(ids[i], text)
	}
	st, err := n.Stale(t.Context())
	if err != nil || st.Octets != 0 || st.Total != int64(octets) {
		t.Errorf("%+v, %v; %d octets stand there", st, err, octets)
	}
	// Whoever can write to the database exchanges two records.
	if err := cluster.Exec(t.Context(), `UPDATE `+name(n.dir)+`.fresh_content AS f SET data = g.data FROM `+name(n.dir)+`.fresh_content AS g
		WHERE f.blob_id IN (1, 2) AND g.blob_id = 3 - f.blob_id`); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[:2] {
		if b, err := n.ReadBlob(t.Context(), 1, id, nil); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("message %d after the exchange: %.40q, %v", id, b, err)
		}
	}
	n.reads(ids[3], long)
	if moved, err := n.MoveContents(t.Context()); err != nil || moved != 2 {
		t.Errorf("%d moved, %v: what is damaged stays, the rest goes", moved, err)
	}
}

// keysInUse are the keys under which something stands in the bucket or the database.
func keysInUse(t *testing.T, db *store.Database) map[uint32]int {
	t.Helper()
	out := map[uint32]int{}
	rows, err := db.Side.QueryContext(t.Context(), `SELECT key_id FROM segment WHERE live > 0 UNION ALL SELECT key_id FROM fresh_content`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var id uint32
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		out[id]++
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestObjectsAreEncryptedAnewAfterARotation breaks the work off, goes on, and has another node seal under the old key meanwhile.
func TestObjectsAreEncryptedAnewAfterARotation(t *testing.T) {
	t.Parallel()
	p := service.NewProxy(t)
	n, r, db := newRingNode(t, p.Address)
	large := strings.Repeat("a large letter\r\n", 20_000)
	texts := map[store.MessageID]string{}
	put := func(text string) { texts[n.deliver(text)] = text }
	for i := range 3 {
		put(letter(i))
		put(letter(10 + i))
		if _, err := n.MoveContents(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(large)
	put(letter(20)) // stays in the database
	old, _ := r.Current()
	if got := keysInUse(t, db); got[old] != 5 || len(got) != 1 {
		t.Fatalf("in use %v, current %08x", got, old)
	}
	other := ring(t, db) // of another node, which rotates
	id, err := other.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	put(letter(21)) // this node has not heard of it
	if got := keysInUse(t, db); got[old] != 6 {
		t.Fatalf("in use %v", got)
	}
	if info := r.Info(); info.Keys[len(info.Keys)-1].ID != id {
		t.Fatalf("%+v", info.Keys) // now it has
	}
	st, err := n.Stale(t.Context())
	if err != nil || st.Octets == 0 || st.Octets != st.Total {
		t.Fatalf("%+v, %v", st, err)
	}
	if _, swept := r.Current(); swept {
		t.Error("nothing is left to do")
	}
	// Uploads fail after the first: what was done stays done.
	p.Set(s3test.FailUploads(2))
	if err := n.Housekeep(t.Context()); err == nil {
		t.Fatal("the uploads did not fail")
	}
	p.Set(nil)
	if got := keysInUse(t, db); got[old] == 0 || got[uint32(id)] == 0 {
		t.Errorf("in use %v after it was broken off", got)
	}
	if err := n.Housekeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := keysInUse(t, db); got[old] != 0 || len(got) != 1 {
		t.Errorf("in use %v, old %08x, new %s", got, old, id)
	}
	if st, err := n.Stale(t.Context()); err != nil || st.Octets != 0 || st.Total == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if _, swept := other.Current(); !swept && other.Info().Keys[0].State != keyring.Retired {
		t.Error("the end was not told")
	}
	for id, text := range texts {
		n.reads(id, text)
	}
	n.now = n.now.Add(2 * time.Hour)
	if err := n.Housekeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := len(n.keys()), n.number(`SELECT count(*) FROM segment`); got != want {
		t.Errorf("%d objects, %d of them named", got, want)
	}
}

// TestContentsFromBeforeEncryptionAreSealedInTheBackground begins without keys.
func TestContentsFromBeforeEncryptionAreSealedInTheBackground(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := openDatabase(t, dir)
	n := &node{T: t, dir: dir, now: time.Now()}
	n.Store = openWith(t, db, nil, bucketOptions(t, dir, ""))
	storetest.Account(t, n.Store, 1)
	texts := map[store.MessageID]string{}
	for i := range 4 {
		texts[n.deliver(letter(i))] = letter(i)
		if i == 1 {
			if _, err := n.MoveContents(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	texts[n.deliver(strings.Repeat("x", 100<<10))] = strings.Repeat("x", 100<<10)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	db = openDatabase(t, dir)
	// So contents stood in the database before they were records.
	plain := letter(3)
	if err := inSide(t, db, `UPDATE fresh_content SET data = $1 WHERE blob_id = (SELECT MAX(blob_id) FROM fresh_content)`, []byte(plain)); err != nil {
		t.Fatal(err)
	}
	if err := inSide(t, db, `UPDATE blob SET stored = length WHERE blob_id = (SELECT MAX(blob_id) FROM fresh_content)`); err != nil {
		t.Fatal(err)
	}
	o := keyring.Options{Home: store.NewKeyTable(db), Source: keyring.Source{Kind: keyring.File, File: masterFile}}
	r, err := keyring.Create(t.Context(), o, false)
	if err != nil {
		t.Fatal(err)
	}
	b := bucketOptions(t, dir, "")
	b.Keys = r
	n.Store = openWith(t, db, nil, b)
	for id, text := range texts {
		n.reads(id, text)
	}
	if err := n.Housekeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	key, swept := r.Current()
	if got := keysInUse(t, db); got[key] == 0 || len(got) != 1 || !swept {
		t.Errorf("in use %v, current %08x, %v", got, key, swept)
	}
	for id, text := range texts {
		n.reads(id, text)
	}
}

func inSide(t *testing.T, db *store.Database, query string, args ...any) error {
	t.Helper()
	_, err := db.Side.ExecContext(t.Context(), query, args...)
	return err
}

// TestTheTableOfKeysIsChangedByOneAtATime writes versions against each other.
func TestTheTableOfKeysIsChangedByOneAtATime(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, t.TempDir())
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	table := store.NewKeyTable(db)
	ctx := t.Context()
	if err := table.Write(ctx, 1, 2, []byte("nothing stands there")); !errors.Is(err, keyring.ErrStale) {
		t.Error(err)
	}
	if err := table.Write(ctx, 0, 1, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(ctx, 0, 1, []byte("another first")); !errors.Is(err, keyring.ErrStale) {
		t.Error(err)
	}
	if err := table.Write(ctx, 1, 2, []byte("second")); err != nil {
		t.Error(err)
	}
	if err := table.Write(ctx, 1, 2, []byte("late")); !errors.Is(err, keyring.ErrStale) {
		t.Error(err)
	}
	for _, c := range table.Read(ctx) {
		if c.Err != nil || string(c.Text) != "second" {
			t.Errorf("%+v", c)
		}
	}
	if err := inSide(t, db, `DELETE FROM data_keys`); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(ctx, 2, 3, []byte("healed")); err != nil {
		t.Error(err)
	}
	var n int
	if err := db.Side.QueryRowContext(ctx, `SELECT count(*) FROM data_keys WHERE body = $1`, []byte("healed")).Scan(&n); err != nil || n != 1 {
		t.Error(n, err)
	}
}

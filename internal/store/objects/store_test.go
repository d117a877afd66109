package objects_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/keyring"
	"waxwing/internal/store/objects"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/storetest"
)

// name is what stands for a directory of a test: a schema, and with - for _ a bucket.
func name(dir string) string {
	h := fnv.New64a()
	h.Write([]byte(dir))
	return fmt.Sprintf("t%016x", h.Sum64())
}

// bucketOptions are small, so that tests meet both kinds of objects.
func bucketOptions(tb testing.TB, dir, address string) objects.Options {
	tb.Helper()
	o := service.Bucket(tb, name(dir), address)
	o.LargeFrom, o.Cache = 64<<10, 4<<20
	return o
}

// ring opens the data keys that stand in a database, and makes them when there are none.
func ring(tb testing.TB, db *store.Database) *keyring.Ring {
	tb.Helper()
	o := keyring.Options{Home: store.NewKeyTable(db), Source: keyring.Source{Kind: keyring.File, File: masterFile}}
	r, err := keyring.Open(tb.Context(), o)
	if errors.Is(err, keyring.ErrNoFile) {
		r, err = keyring.Create(tb.Context(), o, true)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// openOn opens a store with its data keys in the database.
func openOn(tb testing.TB, dir string, clock func() time.Time, o objects.Options) *store.Store {
	tb.Helper()
	db := openDatabase(tb, dir)
	o.Keys = ring(tb, db)
	return openWith(tb, db, clock, o)
}

func openDatabase(tb testing.TB, dir string) *store.Database {
	tb.Helper()
	db, err := postgres.Open(tb.Context(), postgres.Options{DSN: cluster.Schema(tb, name(dir)), Readers: 4, Shared: true})
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

func openWith(tb testing.TB, db *store.Database, clock func() time.Time, o objects.Options) *store.Store {
	tb.Helper()
	return openChunked(tb, db, clock, o, 0)
}

// openChunked is openWith for a store that reads so many entries of a mailbox at a time: twice as many are a large one.
func openChunked(tb testing.TB, db *store.Database, clock func() time.Time, o objects.Options, chunk int) *store.Store {
	tb.Helper()
	bucket, err := objects.Open(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := store.Open(tb.Context(), store.Options{DB: db, Blobs: store.Objects(bucket), Clock: clock, IndexChunk: chunk})
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

func TestContractOnPostgresAndS3(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(tb testing.TB, dir string, clock func() time.Time) *store.Store {
		return openOn(tb, dir, clock, bucketOptions(tb, dir, ""))
	})
}

// node is a store with one account.
type node struct {
	*testing.T
	*store.Store
	dir string
	now time.Time
}

func newNode(t *testing.T, address string) *node {
	t.Helper()
	n := &node{T: t, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	n.Store = openOn(t, n.dir, func() time.Time { return n.now }, bucketOptions(t, n.dir, address))
	storetest.Account(t, n.Store, 1)
	return n
}

func (n *node) deliver(text string) store.MessageID {
	n.Helper()
	d, err := n.Deliver(n.Context(), store.Delivery{
		Content: strings.NewReader(text),
		Local:   []store.NewEntry{{Account: 1, Role: store.RoleInbox, InternalDate: n.now}},
	})
	if err != nil {
		n.Fatal(err)
	}
	return d.Local[0].Message
}

func (n *node) reads(id store.MessageID, want string) {
	n.Helper()
	b, err := n.ReadBlob(n.Context(), 1, id, nil)
	if err != nil || string(b) != want {
		n.Fatalf("message %d: %d octets, want %d: %v", id, len(b), len(want), err)
	}
}

func (n *node) number(query string) (out int) {
	n.Helper()
	if err := n.Read(n.Context(), func(q store.Querier) error { return q.QueryRow(query).Scan(&out) }); err != nil {
		n.Fatal(err)
	}
	return out
}

func (n *node) keys() []string { return service.Keys(n, name(n.dir)) }

const countFresh = `SELECT count(*) FROM fresh_content`

func letter(i int) string {
	return fmt.Sprintf("Subject: %d\r\n\r\n", i) + strings.Repeat(fmt.Sprintf("line %d\r\n", i), 100)
}

func TestContentsMoveFromTheDatabaseToOneObject(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	var ids []store.MessageID
	for i := range 20 {
		ids = append(ids, n.deliver(letter(i)))
	}
	if got := n.number(countFresh); got != 20 || len(n.keys()) != 0 {
		t.Fatalf("%d contents in the database, objects %v", got, n.keys())
	}
	n.reads(ids[7], letter(7))
	moved, err := n.MoveContents(t.Context())
	if err != nil || moved != 20 {
		t.Fatalf("%d moved: %v", moved, err)
	}
	if got := n.number(countFresh); got != 0 || len(n.keys()) != 1 {
		t.Fatalf("%d contents in the database, objects %v", got, n.keys())
	}
	for i, id := range ids {
		n.reads(id, letter(i))
	}
	if got := n.number(`SELECT count(*) FROM object_garbage`); got != 0 {
		t.Errorf("%d objects on the list of those that may go", got)
	}
	if moved, err := n.MoveContents(t.Context()); err != nil || moved != 0 {
		t.Errorf("%d moved again: %v", moved, err)
	}
}

func TestLargeContentsAreInTheBucketBeforeTheyAreAnswered(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	text := strings.Repeat("a large letter\r\n", 20_000)
	id := n.deliver(text)
	if got := n.keys(); fmt.Sprint(got) != "[large/00000001.blob]" || n.number(countFresh) != 0 {
		t.Fatalf("objects %v", got)
	}
	n.reads(id, text)
}

// TestAServiceThatFailsCostsNothing moves contents through each fault: none is lost, and all arrive afterwards.
func TestAServiceThatFailsCostsNothing(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]s3test.Fault{
		"refuses": s3test.Refuse, "loses uploads": s3test.LoseUploads, "flips an octet": s3test.FlipReads, "loses the answer": s3test.LoseAnswers(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := service.NewProxy(t)
			n := newNode(t, p.Address)
			var ids []store.MessageID
			for i := range 5 {
				ids = append(ids, n.deliver(letter(i)))
			}
			p.Set(fault)
			_, moveErr := n.MoveContents(t.Context())
			ids = append(ids, n.deliver(letter(5))) // mail is taken whatever becomes of the bucket
			if moveErr != nil && n.number(countFresh) != 6 {
				t.Fatalf("%d contents in the database after %v", n.number(countFresh), moveErr)
			}
			p.Set(nil)
			for i, id := range ids {
				n.reads(id, letter(i))
			}
			if _, err := n.MoveContents(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, id := range ids {
				n.reads(id, letter(i))
			}
			// What the failures left in the bucket goes after its time.
			n.now = n.now.Add(2 * time.Hour)
			if err := n.Housekeep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, want := len(n.keys()), n.number(`SELECT count(*) FROM segment`); got != want {
				t.Errorf("%d objects, %d of them named", got, want)
			}
		})
	}
}

func TestALargeLetterIsRefusedForNowWhileTheBucketIsAway(t *testing.T) {
	t.Parallel()
	p := service.NewProxy(t)
	n := newNode(t, p.Address)
	p.Set(s3test.Refuse)
	_, err := n.Deliver(t.Context(), store.Delivery{
		Content: bytes.NewReader(make([]byte, 100<<10)), Local: []store.NewEntry{{Account: 1, Role: store.RoleInbox, InternalDate: n.now}},
	})
	if err == nil {
		t.Fatal("it was taken")
	}
	if box, err := n.Mailbox(t.Context(), 1, "INBOX"); err != nil || box.Messages != 0 {
		t.Fatalf("%+v, %v", box, err)
	}
}

func TestObjectsMostlyDeadAreWrittenAnewAndGo(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	var ids []store.MessageID
	for i := range 10 {
		ids = append(ids, n.deliver(letter(i)))
	}
	large := n.deliver(strings.Repeat("x", 100<<10))
	if _, err := n.MoveContents(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := n.keys()
	n.reads(large, strings.Repeat("x", 100<<10))
	box, err := n.Mailbox(t.Context(), 1, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	uids := []store.UID{1, 2, 3, 4, 5, 6, 7, 8, 11} // all but two, and the large one
	if _, err := n.Expunge(t.Context(), 1, box.ID, uids, false); err != nil {
		t.Fatal(err)
	}
	if err := n.Housekeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.keys(); len(got) != len(before)+1 {
		t.Fatalf("objects %v before, %v after: the old ones stay for those who read", before, got)
	}
	n.now = n.now.Add(2 * time.Hour)
	if err := n.Housekeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.keys(); len(got) != 1 || got[0] == before[0] || got[0] == before[1] {
		t.Fatalf("objects %v before, %v after", before, got)
	}
	n.reads(ids[8], letter(8))
	n.reads(ids[9], letter(9))
}

func TestPacksAndBucketAreNotTakenForEachOther(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	n.deliver(letter(1))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	opened := func(dir string, blobs store.BlobStore) error {
		t.Helper()
		db, err := postgres.Open(t.Context(), postgres.Options{DSN: cluster.Schema(t, name(dir)), Readers: 2})
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: blobs})
		if err != nil {
			return errors.Join(err, errors.Join(blobs.Close(), db.Close()))
		}
		storetest.Account(t, s, 1)
		if _, err := (&node{T: t, Store: s}).Deliver(t.Context(), store.Delivery{
			Content: strings.NewReader(letter(1)), Local: []store.NewEntry{{Account: 1, Role: store.RoleInbox}},
		}); err != nil {
			t.Fatal(err)
		}
		return s.Close()
	}
	packs := func(dir string) store.BlobStore {
		t.Helper()
		b, err := blob.Open(blob.Options{Dir: dir, Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		return store.Packs(b)
	}
	if err := opened(n.dir, packs(t.TempDir())); err == nil {
		t.Error("packs were opened where the contents are in a bucket")
	}
	dir := t.TempDir()
	if err := opened(dir, packs(filepath.Join(dir, "blobs"))); err != nil {
		t.Fatal(err)
	}
	bucket, err := objects.Open(t.Context(), bucketOptions(t, dir, ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := opened(dir, store.Objects(bucket)); err == nil {
		t.Error("a bucket was opened where the contents are in packs")
	}
}

// TestANodeCanBeLost opens the store again without anything that the first node had on its disk.
func TestANodeCanBeLost(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	moved := n.deliver(letter(1))
	if _, err := n.MoveContents(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := n.deliver(letter(2))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.dir)); err != nil {
		t.Fatal(err)
	}
	n.Store = openOn(t, n.dir, nil, bucketOptions(t, n.dir, ""))
	n.reads(moved, letter(1))
	n.reads(fresh, letter(2))
}

func TestSeveralNodesOnPostgresAndS3(t *testing.T) {
	t.Parallel()
	storetest.RunNodes(t, func(tb testing.TB, dir string, clock func() time.Time) *store.Store {
		db, o := openDatabase(tb, dir), bucketOptions(tb, dir, "")
		o.Keys = ring(tb, db)
		return openChunked(tb, db, clock, o, 2)
	})
}

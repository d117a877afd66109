package store_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"waxwing/internal/durable/crashfs"
	"waxwing/internal/durable/ordeal"
	"waxwing/internal/sqlitefile/crashvfs"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
	"waxwing/internal/store/storetest"
)

// openOn opens a store whose packs are on a file system in memory; small segments, so that there are many.
func openOn(t *testing.T, path string, fsys *crashfs.FS, o sqlite.Options) *store.Store {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{FS: fsys, Dir: "blobs", Reserve: -1, SegmentSize: 64 << 10, Step: 16 << 10, LargeFrom: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(blobs)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// crashDisk makes a disk for a database and its packs, which a power cut hits at once.
func crashDisk(t *testing.T, fsys *crashfs.FS) *crashvfs.Disk {
	t.Helper()
	d, err := crashvfs.New(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// openDisk opens the store on a disk.
func openDisk(t *testing.T, d *crashvfs.Disk, fsys *crashfs.FS) *store.Store {
	t.Helper()
	return openOn(t, "/mail.db", fsys, sqlite.Options{Below: d.Below(), Checkpoint: 100})
}

// TestPowerCutLosesNothingAnswered cuts the power under a load, at any moment: what was answered is there and whole on what the
// cut leaves of the database, its log and the packs.
func TestPowerCutLosesNothingAnswered(t *testing.T) {
	t.Parallel()
	powerCuts(t, ordeal.Begin(t), 0)
}

// TestSoakPowerCut is the same with other draws of what a cut leaves.
func TestSoakPowerCut(t *testing.T) {
	o := ordeal.Soak(t)
	for i := range o.Times(100) {
		powerCuts(t, o, uint64(i))
	}
}

// answers are the tags that were delivered, and not expunged since.
type answers struct {
	mu   sync.Mutex
	tags map[string]bool
}

func (a *answers) set(tag string, there bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if there {
		a.tags[tag] = true
	} else {
		delete(a.tags, tag)
	}
}

func (a *answers) now() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.tags)
}

// powerCuts cuts the power under a load and looks at what is left.
func powerCuts(t *testing.T, o *ordeal.Ordeal, stream uint64) {
	t.Helper()
	fsys := crashfs.New()
	s := openDisk(t, crashDisk(t, fsys), fsys)
	const accounts = 4
	for a := range accounts {
		storetest.Account(t, s, store.AccountID(a+1))
	}
	ctx, stop := context.WithCancel(t.Context())
	known := answers{tags: map[string]bool{}}
	var wg sync.WaitGroup
	for a := range accounts {
		wg.Go(func() { deliverUntil(ctx, t, s, store.AccountID(a+1), &known) })
	}
	chance := o.Chance(stream)
	var answered []map[string]bool
	var disks []*crashfs.FS
	for range 12 {
		for next := inboxOf(t, s, 1).UIDNext + 3; inboxOf(t, s, 1).UIDNext < next && !t.Failed(); { // some deliveries later
			runtime.Gosched()
		}
		answered = append(answered, known.now())
		disks = append(disks, fsys.Crash(chance.Uint64()))
	}
	gone := known.now() // what was expunged while the cuts were made is not missed
	stop()
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	left := crashDisk(t, nil)
	for i := range disks {
		for tag := range answered[i] {
			if !gone[tag] {
				delete(answered[i], tag)
			}
		}
		if err := left.Replace(disks[i]); err != nil {
			t.Fatal(err)
		}
		afterCut(t, o, openDisk(t, left, disks[i]), accounts, answered[i])
	}
}

// afterCut looks at a store after a power cut: it has what was answered, and it goes on.
func afterCut(t *testing.T, o *ordeal.Ordeal, s *store.Store, accounts int, answered map[string]bool) {
	t.Helper()
	o.Cut(1)
	there := map[string]bool{}
	for a := range accounts {
		maps.Copy(there, tagsIn(t, s, store.AccountID(a+1), "INBOX"))
	}
	if len(answered) == 0 {
		t.Error("nothing was answered: the test tests nothing")
	}
	for tag := range answered {
		if !there[tag] {
			o.Lost("%s", tag)
		}
	}
	for tag := range there {
		if strings.HasPrefix(tag, "torn") {
			o.Partial("%s", tag)
		}
	}
	deliverTagged(t, s, 1, "after the cut")
	if err := s.Housekeep(t.Context()); err != nil {
		t.Error(err)
	}
	if !tagsIn(t, s, 1, "INBOX")["after the cut"] {
		t.Error("delivery after the cut is missing")
	}
	if list, _ := problems(t, s, store.VerifyOptions{}); len(list) > 0 {
		t.Errorf("after the cut verify finds %v", list)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func deliverTagged(t *testing.T, s *store.Store, acct store.AccountID, tag string) {
	t.Helper()
	if _, err := s.Deliver(t.Context(), store.Delivery{Content: killContent(tag, 100), Local: []store.NewEntry{{Account: acct}}}); err != nil {
		t.Fatal(err)
	}
}

// deliverUntil delivers small contents and some large ones until ctx ends, and expunges a few. known learns what was answered.
func deliverUntil(ctx context.Context, t *testing.T, s *store.Store, acct store.AccountID, known *answers) {
	in, err := s.Mailbox(ctx, acct, "INBOX")
	if err != nil {
		t.Error(err)
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		size := 100 + n%1500
		if n%50 == 49 {
			size = 20_000
		}
		tag := fmt.Sprintf("%d-%d", acct, n)
		d, err := s.Deliver(context.WithoutCancel(ctx), store.Delivery{Content: killContent(tag, size), Local: []store.NewEntry{{Account: acct}}})
		known.set(tag, err == nil)
		if err == nil && n%4 == 3 && size < 8<<10 {
			known.set(tag, false)
			_, err = s.Expunge(context.WithoutCancel(ctx), acct, in.ID, []store.UID{d.Local[0].UID}, false)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// TestHousekeepingKeepsWhatLives compacts packs again and again under a load of deliveries, expunges and readers.
func TestHousekeepingKeepsWhatLives(t *testing.T) {
	t.Parallel()
	fsys := crashfs.New()
	s := openOn(t, filepath.Join(t.TempDir(), "mail.db"), fsys, sqlite.Options{})
	defer s.Close()
	storetest.Account(t, s, 1)
	storetest.Account(t, s, 2)
	in := inboxOf(t, s, 1)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { deliverUntil(ctx, t, s, 2, &answers{tags: map[string]bool{}}) })
	segments := int64(0)
	for round := range 30 {
		var placed []store.Placed
		for i := range 100 {
			p, err := s.Append(t.Context(), 1, in.ID, []store.NewMessage{{Content: killContent(fmt.Sprintf("%d-%d", round, i), 1000)}})
			if err != nil {
				t.Fatal(err)
			}
			placed = append(placed, p...)
		}
		var gone []store.UID
		for i, p := range placed {
			if i%10 != 0 {
				gone = append(gone, p.UID)
			}
		}
		if _, err := s.Expunge(t.Context(), 1, in.ID, gone, false); err != nil {
			t.Fatal(err)
		}
		before := fsys.Used()
		if err := s.Housekeep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if fsys.Used() < before {
			segments++
		}
		if got, want := len(tagsIn(t, s, 1, "INBOX")), 10*(round+1); got != want {
			t.Fatalf("%d messages, want %d", got, want)
		}
	}
	stop()
	wg.Wait()
	tagsIn(t, s, 2, "INBOX")
	var known int
	err := s.Read(t.Context(), func(q store.Querier) error { return q.QueryRow(`SELECT count(*) FROM segment`).Scan(&known) })
	if err != nil {
		t.Fatal(err)
	}
	packs, err := fsys.ReadDir("blobs/packs")
	if err != nil {
		t.Fatal(err)
	}
	large, err := fsys.ReadDir("blobs/large")
	if err != nil {
		t.Fatal(err)
	}
	if known > len(packs)+len(large) {
		t.Errorf("%d segments are known, %d packs and %d large files are there", known, len(packs), len(large))
	}
	if segments == 0 {
		t.Error("nothing was ever compacted: the test tests nothing")
	}
}

// TestDamagedContentHarmsItself flips bits in packs: the message with them is damaged, all others are whole, and a delivery
// of the same content heals it.
func TestDamagedContentHarmsItself(t *testing.T) {
	t.Parallel()
	fsys := crashfs.New()
	s := openOn(t, filepath.Join(t.TempDir(), "mail.db"), fsys, sqlite.Options{})
	defer s.Close()
	storetest.Account(t, s, 1)
	in := inboxOf(t, s, 1)
	contents := make([]string, 5)
	for i := range contents {
		contents[i] = fmt.Sprintf("%d %s", i, strings.Repeat("abc", 300))
		if _, err := s.Append(t.Context(), 1, in.ID, []store.NewMessage{{Content: strings.NewReader(contents[i])}}); err != nil {
			t.Fatal(err)
		}
	}
	var segment, place int64
	err := s.Read(t.Context(), func(q store.Querier) error {
		return q.QueryRow(`SELECT b.segment, b.place FROM blob AS b ORDER BY blob_id LIMIT 1 OFFSET 2`).Scan(&segment, &place)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := fsys.Flip(fmt.Sprintf("blobs/packs/%08x.blob", segment), place+300, 0x10); err != nil {
		t.Fatal(err)
	}
	whole := func() (n int) {
		v, err := s.View(t.Context(), 1, in.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
			b, err := s.ReadBlob(t.Context(), 1, e.Message, nil)
			switch {
			case err == nil && string(b) == contents[(e.UID-1)%5]:
				n++
			case e.UID != 3 || !isCorrupt(err):
				t.Errorf("UID %d: %q, %v", e.UID, b, err)
			}
			return true
		})
		return n
	}
	if n := whole(); n != 4 {
		t.Fatalf("%d whole messages, want 4", n)
	}
	for i := range contents {
		if _, err := s.Append(t.Context(), 1, in.ID, []store.NewMessage{{Content: strings.NewReader(contents[i])}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := whole(); n != 10 {
		t.Errorf("%d whole messages after they came again, want 10", n)
	}
}

// TestTheSameContentLivesOnce delivers one content again and again: of its records one alone counts as living.
func TestTheSameContentLivesOnce(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{FS: crashfs.New(), Dir: "blobs", Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(blobs)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storetest.Account(t, s, 1)
	deliverTagged(t, s, 1, "the same")
	one := blobs.Stats().Live
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			d := store.Delivery{Content: killContent("the same", 100), Local: []store.NewEntry{{Account: 1}}}
			if _, err := s.Deliver(context.Background(), d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if live := blobs.Stats().Live; live != one || one == 0 {
		t.Errorf("%d octets live, want %d", live, one)
	}
	if _, err := s.ExpungeAll(t.Context(), 1, inboxOf(t, s, 1).ID, false); err != nil {
		t.Fatal(err)
	}
	if live := blobs.Stats().Live; live != 0 {
		t.Errorf("%d octets live after all is expunged", live)
	}
}

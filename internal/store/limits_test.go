package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/durable/crashfs"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
	"waxwing/internal/store/storetest"
)

// openSmall opens a store with small bounds.
func openSmall(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	var err error
	if o.DB, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), sqlite.Options{Readers: 2}); err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(blob.Options{FS: crashfs.New(), Dir: "blobs", Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	o.Blobs = store.Packs(blobs)
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestMailboxesAndSubscriptionsAreBounded(t *testing.T) {
	t.Parallel()
	s := openSmall(t, store.Options{MaxMailboxes: 10})
	storetest.Account(t, s, 1) // six
	create := func(name string) error {
		_, err := s.CreateMailbox(t.Context(), 1, name, "")
		return err
	}
	if err := create("a/b/c/d/e"); !errors.Is(err, store.ErrLimit) {
		t.Errorf("five more than four: %v", err)
	}
	if err := create("a/b/c/d"); err != nil {
		t.Error(err)
	}
	if err := create("x"); !errors.Is(err, store.ErrLimit) {
		t.Errorf("one more: %v", err)
	}
	var err error
	n := 6
	for ; err == nil && n < 100; n++ {
		err = s.Subscribe(t.Context(), 1, fmt.Sprint("s", n), true)
	}
	if !errors.Is(err, store.ErrLimit) || n != 21 {
		t.Errorf("subscription %d: %v", n, err)
	}
}

// TestSmallCachesForgetNothing works on more accounts and mailboxes than the caches hold.
func TestSmallCachesForgetNothing(t *testing.T) {
	t.Parallel()
	s := openSmall(t, store.Options{MaxAccounts: 2, IndexSize: 1})
	const accounts = 8
	for a := range store.AccountID(accounts) {
		storetest.Account(t, s, a+1)
	}
	keep, err := s.View(t.Context(), 3, inboxOf(t, s, 3).ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	for round := range 5 {
		for a := range store.AccountID(accounts) {
			deliverTagged(t, s, a+1, fmt.Sprint(round))
			if got := tagsIn(t, s, a+1, "INBOX"); len(got) != round+1 {
				t.Fatalf("account %d in round %d: %v", a+1, round, got)
			}
		}
	}
	if u := keep.Sync(true); u.Exists != 5 {
		t.Errorf("a view that was open all the time: %+v", u)
	}
}

// TestManyReadersBesideFewConnections reads from many goroutines while all connections are wanted.
func TestManyReadersBesideFewConnections(t *testing.T) {
	t.Parallel()
	s := openSmall(t, store.Options{MaxAccounts: 1, IndexSize: 1})
	for a := range store.AccountID(20) {
		storetest.Account(t, s, a+1)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 60)
	for i := range 60 {
		go func() {
			acct := store.AccountID(i%20 + 1)
			d, err := s.Deliver(ctx, store.Delivery{Content: strings.NewReader(fmt.Sprint(i)), Local: []store.NewEntry{{Account: acct}}})
			if err == nil {
				_, err = s.ReadBlob(ctx, acct, d.Local[0].Message, nil)
			}
			if err == nil {
				var v *store.View
				if v, err = s.View(ctx, acct, d.Local[0].Mailbox, nil); err == nil {
					v.Close()
				}
			}
			done <- err
		}()
	}
	for range 60 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestShowingEntriesAllocatesNothing holds the budget of the hottest path.
func TestShowingEntriesAllocatesNothing(t *testing.T) {
	s := storetest.New(t)
	storetest.Account(t, s, 1)
	in := inboxOf(t, s, 1)
	fill(t, s, 1, in.ID, 1000)
	if _, _, err := s.StoreFlags(t.Context(), 1, in.ID, []store.UID{1, 2, 3}, store.FlagChange{Op: store.FlagsAdd, Keywords: []string{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	v, err := s.View(t.Context(), 1, in.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	n := 0
	count := func(int, *store.Entry) bool { n++; return true }
	if a := testing.AllocsPerRun(100, func() { v.Entries(1, 1000, count) }); a >= 1 {
		t.Errorf("Entries of 1,000: %v allocations", a)
	}
	if a := testing.AllocsPerRun(100, func() { v.Sync(true); v.Entry(2); v.Seq(500) }); a >= 1 {
		t.Errorf("Sync, Entry and Seq: %v allocations", a)
	}
	if n == 0 {
		t.Error("nothing was shown")
	}
}

// TestDamagedPageOfEntriesHarmsItself zeroes a page in the middle of the entries' table.
func TestDamagedPageOfEntriesHarmsItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	storetest.Account(t, s, 1)
	in := inboxOf(t, s, 1)
	fill(t, s, 1, in.ID, 3000)
	deliverTagged(t, s, 1, "the last")
	page := int64(0)
	var size int64
	err := s.Read(t.Context(), func(q store.Querier) error {
		if err := q.QueryRow(`SELECT page_size FROM pragma_page_size`).Scan(&size); err != nil {
			return err
		}
		// A leaf of the table in the middle.
		return q.QueryRow(`SELECT pageno FROM dbstat WHERE name = 'entry' AND pagetype = 'leaf' ORDER BY path LIMIT 1 OFFSET 10`).Scan(&page)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(dir, "mail.db"), (page-1)*size, make([]byte, size))
	s = storetest.Open(t, dir, nil)
	v, err := s.View(t.Context(), 1, in.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	readable := 0
	if err := v.Entries(1, v.Len(), func(int, *store.Entry) bool { readable++; return true }); err != nil {
		t.Fatal(err)
	}
	if readable < 2500 || readable >= 3001 || v.Len() != 3001 {
		t.Errorf("%d of 3001 entries are readable, %d are counted", readable, v.Len())
	}
	e, ok := v.Entry(v.Len())
	if !ok || e.UID != 3001 {
		t.Errorf("last entry %+v", e)
	}
	if b, err := s.ReadBlob(t.Context(), 1, e.Message, nil); err != nil || killTag(b) != "the last" {
		t.Errorf("%q, %v", b, err)
	}
	deliverTagged(t, s, 1, "later")
	if u := v.Sync(true); u.Exists != v.Len() {
		t.Errorf("%+v", u)
	}
}

package store_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"waxwing/internal/durable/crashfs"
	"waxwing/internal/durable/ordeal"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
	"waxwing/internal/store/storetest"
)

func isCorrupt(err error) bool { return errors.Is(err, store.ErrCorrupt) }

// TestFullDatabaseRefusesAndRecovers bounds the database's pages: writes are refused with ErrFull, reads go on, and when
// there is room again writes do too, without a restart.
func TestFullDatabaseRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	s := openOn(t, filepath.Join(t.TempDir(), "mail.db"), crashfs.New(), sqlite.Options{MaxPages: 120})
	defer s.Close()
	storetest.Account(t, s, 1)
	deliverTagged(t, s, 1, "first")
	var err error
	n := 0
	for ; err == nil && n < 10_000; n++ {
		d := store.Delivery{Content: killContent(fmt.Sprint(n), 10), Summary: store.Summary{Envelope: bytes.Repeat([]byte("e"), 900)}, Local: []store.NewEntry{{Account: 1}}}
		_, err = s.Deliver(t.Context(), d)
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("after %d deliveries: %v", n, err)
	}
	if tags := tagsIn(t, s, 1, "INBOX"); len(tags) != n || !tags["first"] {
		t.Errorf("%d messages are there, %d were answered", len(tags), n)
	}
	if _, err := s.CreateMailbox(t.Context(), 1, strings.Repeat("long name ", 20), ""); err != nil && !errors.Is(err, store.ErrFull) {
		t.Error(err)
	}
	err = s.Write(t.Context(), func(tx *store.Tx) error {
		for range 100 {
			_, _ = tx.Exec(`INSERT INTO subscription (account_id, name) VALUES (7, $1)`, rand.Text()+strings.Repeat("x", 900)) // deaf to errors
		}
		return nil
	})
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("a closure that hears no errors: %v", err)
	}
	err = s.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`PRAGMA max_page_count = 100000`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	deliverTagged(t, s, 1, "last")
	if tags := tagsIn(t, s, 1, "INBOX"); !tags["last"] {
		t.Error("the delivery after the recovery is missing")
	}
}

// TestReadOnlyDatabaseGoesOnReading lets the database refuse writes for a while.
func TestReadOnlyDatabaseGoesOnReading(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &readOnly{Dialect: db.Dialect}
	db.Dialect = d
	s := openWith(t, db)
	storetest.Account(t, s, 1)
	deliverTagged(t, s, 1, "first")
	d.on.Store(true)
	_, err = s.Deliver(t.Context(), store.Delivery{Content: killContent("x", 1), Local: []store.NewEntry{{Account: 1}}})
	if !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("deliver: %v", err)
	}
	if _, err := s.CreateMailbox(t.Context(), 1, "a", ""); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("create: %v", err)
	}
	if tags := tagsIn(t, s, 1, "INBOX"); !tags["first"] || len(tags) != 1 {
		t.Errorf("reading: %v", tags)
	}
	d.on.Store(false)
	deliverTagged(t, s, 1, "second")
}

// readOnly begins transactions that can't write, as on a file system that was mounted anew for reading.
type readOnly struct {
	store.Dialect
	on atomic.Bool
}

func (d *readOnly) Begin() string {
	if d.on.Load() {
		return `PRAGMA query_only = 1; BEGIN IMMEDIATE`
	}
	return `PRAGMA query_only = 0; BEGIN IMMEDIATE`
}

// openWith opens a store on a database, with packs in memory.
func openWith(t *testing.T, db *store.Database) *store.Store {
	t.Helper()
	blobs, err := blob.Open(blob.Options{FS: crashfs.New(), Dir: "blobs", Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(blobs)})
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

// TestFullDiskOfContents lets the packs run out of space, and gives it back.
func TestFullDiskOfContents(t *testing.T) {
	t.Parallel()
	fsys := crashfs.New()
	s := openOn(t, filepath.Join(t.TempDir(), "mail.db"), fsys, sqlite.Options{})
	defer s.Close()
	storetest.Account(t, s, 1)
	deliverTagged(t, s, 1, "first")
	fsys.SetCapacity(fsys.Used() + 100)
	var err error
	for n := 0; err == nil && n < 1000; n++ {
		_, err = s.Deliver(t.Context(), store.Delivery{Content: killContent(fmt.Sprint(n), 3000), Local: []store.NewEntry{{Account: 1}}})
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("deliver: %v", err)
	}
	tagsIn(t, s, 1, "INBOX")
	fsys.SetCapacity(-1)
	deliverTagged(t, s, 1, "last")
}

// TestFailedSyncStopsWriting lets a sync of a pack fail, and one of the database: nothing is answered after it.
func TestFailedSyncStopsWriting(t *testing.T) {
	t.Parallel()
	t.Run("pack", func(t *testing.T) {
		t.Parallel()
		fsys := crashfs.New()
		s := openOn(t, filepath.Join(t.TempDir(), "mail.db"), fsys, sqlite.Options{})
		defer s.Close()
		storetest.Account(t, s, 1)
		deliverTagged(t, s, 1, "first")
		fsys.SetHook(func(op crashfs.Op) error {
			if op.Kind == crashfs.OpSync {
				return syscall.EIO
			}
			return nil
		})
		for range 2 {
			_, err := s.Deliver(t.Context(), store.Delivery{Content: killContent("x", 1), Local: []store.NewEntry{{Account: 1}}})
			if !errors.Is(err, store.ErrReadOnly) {
				t.Errorf("deliver: %v", err)
			}
			fsys.SetHook(nil)
		}
		if tags := tagsIn(t, s, 1, "INBOX"); len(tags) != 1 {
			t.Errorf("messages %v", tags)
		}
	})
	t.Run("database", func(t *testing.T) {
		t.Parallel()
		db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "mail.db"), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		db.Dialect = syncFails{db.Dialect}
		s := openWith(t, db)
		storetest.Account(t, s, 1)
		deliverTagged(t, s, 1, "first")
		err = s.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`SELECT the_sync_fails()`)
			return err
		})
		if !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("the write itself: %v", err)
		}
		if err := s.Writable(1); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("writable: %v", err)
		}
		_, err = s.Deliver(t.Context(), store.Delivery{Content: killContent("x", 1), Local: []store.NewEntry{{Account: 1}}})
		if !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("deliver: %v", err)
		}
		if tags := tagsIn(t, s, 1, "INBOX"); len(tags) != 1 {
			t.Errorf("messages %v", tags)
		}
	})
}

func TestFaultsUnderLoad(t *testing.T) {
	t.Parallel()
	faultsUnderLoad(t, ordeal.Begin(t), 60)
}

func TestSoakFaultsUnderLoad(t *testing.T) {
	o := ordeal.Soak(t)
	faultsUnderLoad(t, o, o.Times(2000))
}

// faultsUnderLoad lets calls on the packs, the database and its log fail at random under a load, again and again on one store, and
// cuts the power when it stopped writing. What was answered is there, what was refused is not unless a sync failed, and both are whole.
func faultsUnderLoad(t *testing.T, o *ordeal.Ordeal, rounds int) {
	t.Helper()
	chance := o.Chance(0)
	fsys := crashfs.New()
	disk := crashDisk(t, fsys)
	s := openDisk(t, disk, fsys)
	storetest.Account(t, s, 1)
	answered, doubt := map[string]bool{}, map[string]bool{}
	for round := range rounds {
		kind := []crashfs.Kind{crashfs.OpWrite, crashfs.OpAllocate, crashfs.OpOpen, crashfs.OpSync, crashfs.OpSyncDir, crashfs.OpRead, crashfs.OpTruncate}[chance.IntN(7)]
		cause := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS}[chance.IntN(3)]
		var calls atomic.Int64
		calls.Store(1 + chance.Int64N(8))
		fsys.SetHook(func(op crashfs.Op) error {
			if op.Kind == kind && calls.Add(-1) == 0 {
				o.Fault(1)
				return cause
			}
			return nil
		})
		for i := range 10 {
			tag := fmt.Sprintf("%d-%d", round, i)
			_, err := s.Deliver(t.Context(), store.Delivery{Content: killContent(tag, 1<<(3+chance.IntN(12))), Local: []store.NewEntry{{Account: 1}}})
			if err == nil {
				answered[tag] = true
			} else {
				doubt[tag] = true
			}
		}
		fsys.SetHook(nil)
		if err := s.Writable(1); err != nil { // a failed sync: only a start helps, and nobody knows what is on the disk
			_ = s.Close() // it says again what failed
			clear(doubt)
			o.Cut(1)
			fsys = fsys.Crash(chance.Uint64())
			if err := disk.Replace(fsys); err != nil {
				t.Fatal(err)
			}
			s = openDisk(t, disk, fsys)
		}
	}
	defer s.Close()
	there := tagsIn(t, s, 1, "INBOX")
	for tag := range answered {
		if !there[tag] {
			o.Lost("%s", tag)
		}
	}
	for tag := range there {
		switch {
		case strings.HasPrefix(tag, "torn"):
			o.Partial("%s", tag)
		case doubt[tag]:
			t.Errorf("%s was refused and is there", tag)
		}
	}
	if list, _ := problems(t, s, store.VerifyOptions{}); len(list) > 0 {
		t.Errorf("verify finds %v", list)
	}
}

// syncFails takes a certain error for a failed sync.
type syncFails struct{ store.Dialect }

func (d syncFails) Fault(err error) store.Fault {
	if strings.Contains(err.Error(), "the_sync_fails") {
		return store.FaultFailed
	}
	return d.Dialect.Fault(err)
}

// TestWriteLeavesTheQueueWithItsContext blocks the writer and gives up.
func TestWriteLeavesTheQueueWithItsContext(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	enter, leave := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.Write(context.Background(), func(*store.Tx) error {
			close(enter)
			<-leave
			return nil
		})
	}()
	<-enter
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Write(ctx, func(*store.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Write(ctx, func(*store.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestManySessionsKeepTheirNumbers lets sessions work on one mailbox at the same time. Each follows by what Sync tells, and
// at the end all agree with the rows.
func TestManySessionsKeepTheirNumbers(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	storetest.Account(t, s, 1)
	in := inboxOf(t, s, 1)
	fill(t, s, 1, in.ID, 500)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			if err := session(t.Context(), s, in.ID, worker); err != nil {
				t.Errorf("session %d: %v", worker, err)
			}
		})
	}
	wg.Wait()
	v, err := s.View(t.Context(), 1, in.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	n := 0
	err = s.Read(t.Context(), func(q store.Querier) error {
		return q.QueryRow(`SELECT count(*) FROM entry WHERE mailbox_id = $1`, in.ID).Scan(&n)
	})
	if err != nil || n != v.Len() || n != int(inboxOf(t, s, 1).Messages) {
		t.Errorf("%d rows, %d in the view, %d counted, %v", n, v.Len(), inboxOf(t, s, 1).Messages, err)
	}
}

// session does what a busy client does.
func session(ctx context.Context, s *store.Store, box store.MailboxID, worker int) error {
	v, err := s.View(ctx, 1, box, func() {})
	if err != nil {
		return err
	}
	defer v.Close()
	var list []store.UID
	for seq := 1; seq <= v.Len(); seq++ {
		list = append(list, v.UID(seq))
	}
	for i := range 60 {
		pick := list[(i*37+worker*11)%len(list)]
		switch (i + worker) % 5 {
		case 0:
			_, err = s.Append(ctx, 1, box, []store.NewMessage{{Content: letter(i*100+worker, 200)}})
		case 1:
			_, _, err = s.StoreFlags(ctx, 1, box, []store.UID{pick}, store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen, Keywords: []string{fmt.Sprint("k", i%7)}})
		case 2:
			_, err = s.Expunge(ctx, 1, box, []store.UID{pick, pick + 1}, false)
		case 3:
			_, _, _, err = s.Copy(ctx, 1, box, []store.UID{pick}, box)
		case 4:
			v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool { return e.Size > 0 })
		}
		if err != nil {
			return err
		}
		u := v.Sync(i%3 == 0)
		for _, seq := range u.Expunged {
			list = append(list[:seq-1:seq-1], list[seq:]...)
		}
		for seq := len(list) + 1; seq <= u.Exists; seq++ {
			list = append(list, v.UID(seq))
		}
		for seq, uid := range list {
			if v.UID(seq+1) != uid {
				return fmt.Errorf("number %d is %d, was %d", seq+1, v.UID(seq+1), uid)
			}
		}
	}
	return nil
}

// TestChangesWhileAMailboxIsReadAreNotMissed opens a mailbox that is not in memory while others change it, again and again,
// and compares what the View shows afterwards with the rows.
func TestChangesWhileAMailboxIsReadAreNotMissed(t *testing.T) {
	t.Parallel()
	s := openSmall(t, store.Options{IndexSize: 1}) // an index goes as soon as no View uses it
	storetest.Account(t, s, 1)
	in := inboxOf(t, s, 1)
	fill(t, s, 1, in.ID, 3000)
	for round := range 25 {
		var wg sync.WaitGroup
		for worker := range 3 {
			wg.Go(func() {
				if err := disturb(t.Context(), s, in.ID, round*3+worker); err != nil {
					t.Error(err)
				}
			})
		}
		v, err := s.View(t.Context(), 1, in.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		v.Sync(true)
		seq := 0
		err = s.Read(t.Context(), func(q store.Querier) error {
			rows, err := q.Query(`SELECT uid, flags, modseq FROM entry WHERE account_id = 1 AND mailbox_id = $1 ORDER BY uid`, in.ID)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var want store.Entry
				if err := rows.Scan(&want.UID, &want.Flags, &want.ModSeq); err != nil {
					return err
				}
				seq++
				if e, ok := v.Entry(seq); !ok || e.UID != want.UID || e.Flags != want.Flags || e.ModSeq != want.ModSeq {
					t.Fatalf("round %d, number %d: %+v, %v; want %+v", round, seq, e, ok, want)
				}
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		if v.Len() != seq {
			t.Fatalf("round %d: %d entries, want %d", round, v.Len(), seq)
		}
		v.Close()
	}
}

// disturb changes a mailbox a little.
func disturb(ctx context.Context, s *store.Store, box store.MailboxID, n int) error {
	p, err := s.Append(ctx, 1, box, []store.NewMessage{{Content: letter(n, 100)}, {Content: letter(n, 100)}})
	if err != nil {
		return err
	}
	uids := []store.UID{store.UID(n*7%2900 + 1), p[0].UID}
	if _, _, err := s.StoreFlags(ctx, 1, box, uids, store.FlagChange{Op: store.FlagsAdd, Flags: store.Flagged}); err != nil {
		return err
	}
	_, err = s.Expunge(ctx, 1, box, []store.UID{store.UID(n*13%2900 + 1), p[1].UID}, false)
	return err
}

package store_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// TestFlagChangesInOneTransactionSeeEachOther holds the writer, lets changes of flags queue up, and compares what they
// leave behind: the counts of the mailbox must be those of its entries, in memory and in the rows.
func TestFlagChangesInOneTransactionSeeEachOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	storetest.Account(t, s, 1)
	inbox, uids := filled(t, s, 40)
	changes := []store.FlagChange{
		{Op: store.FlagsAdd, Flags: store.Seen},
		{Op: store.FlagsSet, Flags: store.Deleted, Keywords: []string{"one"}},
		{Op: store.FlagsRemove, Flags: store.Deleted | store.Seen},
		{Op: store.FlagsSet, Flags: store.Seen | store.Deleted},
	}
	v, err := s.View(t.Context(), 1, inbox.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for round := range 20 {
		held, release := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			err := s.Write(t.Context(), func(*store.Tx) error { // may run again
				select {
				case <-held:
				default:
					close(held)
				}
				<-release
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-held
		for i, ch := range changes {
			wg.Go(func() {
				if _, _, err := s.StoreFlags(t.Context(), 1, inbox.ID, uids[i*5:20+i*5], ch); err != nil {
					t.Error(err)
				}
			})
		}
		close(release)
		wg.Wait()
		v.Sync(true)
		compareCounts(t, s, v, fmt.Sprint("round ", round))
	}
}

// filled puts n messages into INBOX.
func filled(t *testing.T, s *store.Store, n int) (store.Mailbox, []store.UID) {
	t.Helper()
	inbox, err := s.Mailbox(t.Context(), 1, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	messages := make([]store.NewMessage, n)
	for i := range messages {
		messages[i] = store.NewMessage{Content: strings.NewReader(fmt.Sprintf("Subject: %d\r\n\r\n", i))}
	}
	placed, err := s.Append(t.Context(), 1, inbox.ID, messages)
	if err != nil {
		t.Fatal(err)
	}
	uids := make([]store.UID, n)
	for i := range placed {
		uids[i] = placed[i].UID
	}
	return inbox, uids
}

// compareCounts compares a mailbox's counts with the entries that a View shows and with the rows.
func compareCounts(t *testing.T, s *store.Store, v *store.View, when string) {
	t.Helper()
	var unseen, deleted uint32
	shown := map[store.UID]store.Flags{}
	v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
		shown[e.UID] = e.Flags
		if e.Flags&store.Seen == 0 {
			unseen++
		}
		if e.Flags&store.Deleted != 0 {
			deleted++
		}
		return true
	})
	m, err := s.Mailbox(t.Context(), 1, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if m.Unseen != unseen || m.Deleted != deleted {
		t.Fatalf("%s: counted %d unseen and %d deleted, there are %d and %d", when, m.Unseen, m.Deleted, unseen, deleted)
	}
	err = s.Read(t.Context(), func(q store.Querier) error {
		rows, err := q.Query(`SELECT uid, flags FROM entry WHERE account_id = 1 AND mailbox_id = $1`, m.ID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var uid store.UID
			var flags store.Flags
			if err := rows.Scan(&uid, &flags); err != nil {
				return err
			}
			if shown[uid] != flags {
				t.Errorf("%s: UID %d has flags %b in its row and %b in memory", when, uid, flags, shown[uid])
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
}

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/internal/store/storetest"
)

// ownCluster starts a server that the test may stop.
func ownCluster(t *testing.T) *pgtest.Cluster {
	t.Helper()
	c, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("end the server: %v", err)
		}
	})
	return c
}

func inboxOf(t *testing.T, s *store.Store) store.Mailbox {
	t.Helper()
	m, err := s.Mailbox(t.Context(), 1, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func deliver(ctx context.Context, s *store.Store, text string) (store.Placed, error) {
	d, err := s.Deliver(ctx, store.Delivery{
		Content: bytes.NewReader([]byte(text)),
		Local:   []store.NewEntry{{Account: 1, Role: store.RoleInbox, InternalDate: time.Unix(1_700_000_000, 0)}},
	})
	if err != nil {
		return store.Placed{}, err
	}
	return d.Local[0], nil
}

func TestASecondServerIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir, nil)
	_, err := postgres.Open(t.Context(), postgres.Options{DSN: cluster.DSN(schemaOf(dir))})
	if !errors.Is(err, postgres.ErrInUse) {
		t.Fatalf("error %v, want ErrInUse", err)
	}
}

func TestWhileTheDatabaseIsDownMailIsRefusedAndThenTakenAgain(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*pgtest.Cluster) error{"stopped": (*pgtest.Cluster).Stop, "crashed": (*pgtest.Cluster).Crash} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := ownCluster(t)
			s := openOn(t, c, t.TempDir(), nil)
			storetest.Account(t, s, 1)
			if _, err := deliver(t.Context(), s, "one"); err != nil {
				t.Fatal(err)
			}
			if err := end(c); err != nil {
				t.Fatal(err)
			}
			if _, err := deliver(t.Context(), s, "lost"); err == nil {
				t.Fatal("a delivery was taken while the database was down")
			} else if errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound) {
				t.Fatalf("an error that sounds final: %v", err)
			}
			if err := s.Read(t.Context(), func(q store.Querier) error { return q.QueryRow(`SELECT 1`).Scan(new(int)) }); err == nil {
				t.Fatal("a read worked while the database was down")
			}
			if err := c.Run(); err != nil {
				t.Fatal(err)
			}
			p, err := deliver(t.Context(), s, "two")
			if err != nil {
				t.Fatal(err)
			}
			if p.UID != 2 {
				t.Fatalf("UID %d, want 2", p.UID)
			}
			// Reading connections notice with their next use that they broke, and are then replaced.
			for range 8 {
				err = s.Read(t.Context(), func(q store.Querier) error { return q.QueryRow(`SELECT 1`).Scan(new(int)) })
				if err == nil {
					break
				}
			}
			if err != nil {
				t.Fatalf("reading after the restart: %v", err)
			}
		})
	}
}

// TestAViewFollowsWhatHappenedBehindTheConnection changes the rows as another node would while the connection is away.
func TestAViewFollowsWhatHappenedBehindTheConnection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, nil)
	storetest.Account(t, s, 1)
	var ids []store.MessageID
	for i := range 3 {
		p, err := deliver(t.Context(), s, fmt.Sprint("message ", i))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.Message)
	}
	box := inboxOf(t, s)
	told := make(chan struct{}, 1)
	v, err := s.View(t.Context(), 1, box.ID, func() { told <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	schema := schemaOf(dir)
	for _, q := range []string{
		// UID 1 becomes seen, UID 2 goes, UID 4 comes with the message of UID 3.
		`UPDATE %[1]s.entry SET flags = 1, modseq = 101 WHERE account_id = 1 AND uid = 1`,
		`DELETE FROM %[1]s.entry WHERE account_id = 1 AND uid = 2`,
		fmt.Sprintf(`INSERT INTO %%[1]s.tombstone (account_id, mailbox_id, modseq, uid, message_id) VALUES (1, %d, 102, 2, %d)`, box.ID, ids[1]),
		fmt.Sprintf(`INSERT INTO %%[1]s.entry (account_id, mailbox_id, uid, message_id, flags, keywords, modseq, size, internal_date, saved_at)
			VALUES (1, %d, 4, %d, 0, 0, 103, 9, 0, 0)`, box.ID, ids[2]),
		fmt.Sprintf(`UPDATE %%[1]s.mailbox SET uid_next = 5, modseq = 103 WHERE account_id = 1 AND mailbox_id = %d`, box.ID),
		`UPDATE %[1]s.mail_account SET modseq = 103 WHERE account_id = 1`,
		`SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
			WHERE locktype = 'advisory' AND objid = hashtext('%[1]s')::bigint & 4294967295`,
	} {
		if err := cluster.Exec(t.Context(), fmt.Sprintf(q, schema)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := deliver(t.Context(), s, "after")
	if err != nil {
		t.Fatal(err)
	}
	if p.UID != 5 {
		t.Fatalf("UID %d, want 5: what the other node used is taken", p.UID)
	}
	<-told
	u := v.Sync(true)
	if got := fmt.Sprint(u.Expunged, u.Exists, u.Changed); got != fmt.Sprint([]int{2}, 4, []int{1}) {
		t.Fatalf("update %s", got)
	}
	var uids []store.UID
	v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool { uids = append(uids, e.UID); return true })
	if fmt.Sprint(uids) != "[1 3 4 5]" {
		t.Fatalf("UIDs %v", uids)
	}
}

// TestWhatWasAnsweredIsThereWhateverBecomesOfTheConnection breaks the writing connection again and again under load.
func TestWhatWasAnsweredIsThereWhateverBecomesOfTheConnection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, nil)
	storetest.Account(t, s, 1)
	const senders, each, breaks = 4, 25, 10
	var mu sync.Mutex
	answered := map[store.UID]string{}
	var wg sync.WaitGroup
	for n := range senders {
		wg.Go(func() {
			for i := range each {
				text := fmt.Sprintf("from %d number %d", n, i)
				for {
					p, err := deliver(t.Context(), s, text)
					if err == nil {
						mu.Lock()
						answered[p.UID] = text
						mu.Unlock()
						break
					}
				}
			}
		})
	}
	kill := fmt.Sprintf(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
		AND objid = hashtext('%s')::bigint & 4294967295`, schemaOf(dir))
	for range breaks {
		if err := cluster.Exec(t.Context(), kill); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if len(answered) != senders*each {
		t.Fatalf("%d UIDs for %d answers", len(answered), senders*each)
	}
	v, err := s.View(t.Context(), 1, inboxOf(t, s).ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	there := map[store.UID]string{}
	v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
		b, err := s.ReadBlob(t.Context(), 1, e.Message, nil)
		if err != nil {
			t.Errorf("UID %d: %v", e.UID, err)
		}
		there[e.UID] = string(b)
		return true
	})
	for uid, text := range answered {
		if there[uid] != text {
			t.Errorf("UID %d: %q, want %q", uid, there[uid], text)
		}
	}
	t.Logf("%d answered, %d there", len(answered), len(there))
}

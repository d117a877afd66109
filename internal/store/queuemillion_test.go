package store_test

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// TestAMillionMessagesInTheQueue holds that a long queue costs the disk, not memory or time: one sender's million messages for
// a thousand destinations, and another one's letter, which goes first. It takes minutes: set WAXWING_SOAK.
func TestAMillionMessagesInTheQueue(t *testing.T) {
	if os.Getenv("WAXWING_SOAK") == "" {
		t.Skip("takes minutes: set WAXWING_SOAK=1")
	}
	const messages, destinations = 1_000_000, 1000
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	fillQueue(t, s, messages, destinations)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	heap := memory()
	began := time.Now()
	s = storetest.Open(t, dir, nil)
	n, err := s.QueueReclaim(t.Context(), "me", queueClock)
	if err != nil || n != 0 {
		t.Fatal(n, err)
	}
	t.Logf("opened and reclaimed in %v", time.Since(began))
	enqueue(t, s, "letter", rcpt("one@quiet.test"))
	now, found, taken := queueClock.Add(time.Hour), false, 0
	began = time.Now()
	used := processorTime(t)
	for range 200 {
		w := take(t, s, now, func(q *store.QueueTake) { q.Slots, q.Batch = 64, 5 })
		for _, u := range w.Work {
			taken += len(u.Messages)
			found = found || u.Domain == "quiet.test" && taken < 2000
		}
		finish(t, s, now, results(w, done))
	}
	t.Logf("%d messages taken and finished, %v each, %v of the processor", taken, time.Since(began)/time.Duration(taken), (processorTime(t)-used)/time.Duration(taken))
	if !found {
		t.Error("the letter waited behind the flood")
	}
	began = time.Now()
	c, err := s.QueueCounts(t.Context())
	t.Logf("counted %+v in %v, %v", c, time.Since(began), err)
	began = time.Now()
	page, _, err := s.QueueList(t.Context(), store.QueueFilter{}, 0, 100)
	t.Logf("a page of %d in %v, %v", len(page), time.Since(began), err)
	began = time.Now()
	n, _, err = s.QueueSelected(t.Context(), store.QueueFilter{SenderDomain: "bulk.test", Text: "no such words"}, 5)
	t.Logf("a selection of %d in %v, %v", n, time.Since(began), err)
	began = time.Now()
	n, err = s.QueueHold(t.Context(), store.QueueFilter{Domain: "d7.test"})
	t.Logf("%d held in %v, %v", n, time.Since(began), err)
	if grown := memory() - heap; grown > 200<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	} else {
		t.Logf("the heap grew by %d KiB", grown>>10)
	}
}

// processorTime is what this process has used.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fillQueue writes rows as enqueue would, many in a transaction.
func fillQueue(t *testing.T, s *store.Store, messages, destinations int) {
	t.Helper()
	blob := enqueue(t, s, "x", rcpt("first@d0.test"))
	m, err := s.QueueMessage(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	const step = 5000
	for at := 0; at < messages; at += step {
		err := s.Write(t.Context(), func(tx *store.Tx) error {
			for i := at; i < at+step; i++ {
				var id int64
				if err := tx.QueryRow(`INSERT INTO queue_message (account_id, trace_id, sender, body, utf8, ret, envid, prefix, size, created, expires, description, blob_id)
					VALUES (0, 'T', 'a@bulk.test', '', 0, '', '', NULL, 1, $1, $2, '', $3) RETURNING id`,
					queueClock.UnixMilli(), queueClock.Add(100*time.Hour).UnixMilli(), m.Blob).Scan(&id); err != nil {
					return err
				}
				if _, err := tx.Exec(`INSERT INTO queue_recipient (message_id, rcpt, domain, lane, notify, orcpt, state, next_attempt)
					VALUES ($1, $2, $3, 5, 0, '', 'waiting', $4)`,
					id, fmt.Sprintf("x%d@d%d.test", i, i%destinations), fmt.Sprintf("d%d.test", i%destinations), queueClock.UnixMilli()); err != nil {
					return err
				}
			}
			_, err := tx.Exec(`UPDATE blob SET refs = refs + $1 WHERE blob_id = $2`, step, m.Blob)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO queue_destination (domain, lane, due) SELECT DISTINCT domain, 5, $1 FROM queue_recipient WHERE lane = 5
			ON CONFLICT (domain, lane) DO NOTHING`, queueClock.UnixMilli())
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

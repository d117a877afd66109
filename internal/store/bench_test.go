package store_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// letter makes a content that no other has: half text, half base64-like.
func letter(n int, size int) *bytes.Reader {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := fmt.Appendf(make([]byte, 0, size), "From: a@example.test\r\nSubject: %d\r\n\r\n", n)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for len(b) < size/2 {
		b = append(b, "The quick brown fox jumps over the lazy dog, again and again.\r\n"...)
	}
	for len(b) < size {
		b = append(b, alphabet[r.IntN(64)])
	}
	return bytes.NewReader(b[:size])
}

// digest makes a Summary of the usual size.
func digest(n int) store.Summary {
	return store.Summary{
		HeaderSize: 600, SentAt: time.Unix(1_700_000_000, 0), MessageID: fmt.Sprintf("%d@example.test", n),
		Envelope:      bytes.Repeat([]byte("e"), 400),
		BodyStructure: bytes.Repeat([]byte("b"), 200),
		BaseSubject:   "quarterly figures", Preview: "The quick brown fox jumps over the lazy dog.",
	}
}

// fill appends n small messages to a mailbox.
func fill(tb testing.TB, s *store.Store, acct store.AccountID, box store.MailboxID, n int) {
	tb.Helper()
	const step = 1000
	for i := 0; i < n; i += step {
		msgs := make([]store.NewMessage, 0, step)
		body := bytes.NewReader([]byte("Subject: x\r\n\r\nthe same for all\r\n"))
		for j := i; j < min(i+step, n); j++ {
			msgs = append(msgs, store.NewMessage{Content: body, Summary: digest(j)})
		}
		if _, err := s.Append(tb.Context(), acct, box, msgs); err != nil {
			tb.Fatal(err)
		}
	}
}

func inboxOf(tb testing.TB, s *store.Store, acct store.AccountID) store.Mailbox {
	tb.Helper()
	m, err := s.Mailbox(tb.Context(), acct, "INBOX")
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// BenchmarkDeliver is the durable delivery of 10 KB with 32 in flight over 100 accounts.
func BenchmarkDeliver(b *testing.B) {
	s := storetest.New(b)
	for a := range 100 {
		storetest.Account(b, s, store.AccountID(a+1))
	}
	b.SetBytes(10 << 10)
	b.ReportAllocs()
	b.ResetTimer()
	var n atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				i := int(n.Add(1))
				if i > b.N {
					return
				}
				d := store.Delivery{Content: letter(i, 10<<10), Summary: digest(i), Local: []store.NewEntry{{Account: store.AccountID(i%100 + 1)}}}
				if _, err := s.Deliver(context.Background(), d); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

func BenchmarkView(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			s := storetest.Open(b, dir, nil)
			storetest.Account(b, s, 1)
			box := inboxOf(b, s, 1)
			fill(b, s, 1, box.ID, n)
			open := func(b *testing.B) *store.View {
				v, err := s.View(b.Context(), 1, box.ID, nil)
				if err != nil {
					b.Fatal(err)
				}
				return v
			}
			keep := open(b)
			defer keep.Close()
			b.Run("open", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					v := open(b)
					v.FirstUnseen()
					v.Close()
				}
			})
			b.Run("entries", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					keep.Entries(1, n, func(int, *store.Entry) bool { return true })
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			})
			b.Run("newest50", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					v := open(b)
					v.Entries(n-49, n, func(int, *store.Entry) bool { return true })
					v.Close()
				}
			})
			b.Run("append+expunge1", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p, err := s.Append(b.Context(), 1, box.ID, []store.NewMessage{{Content: letter(1, 100)}})
					if err != nil {
						b.Fatal(err)
					}
					if _, err := s.Expunge(b.Context(), 1, box.ID, []store.UID{p[0].UID}, false); err != nil {
						b.Fatal(err)
					}
					keep.Sync(true)
				}
			})
			b.Run("restart", func(b *testing.B) { benchmarkRestart(b, dir, n) })
		})
	}
}

// benchmarkRestart measures Open on a copy of the store, and the first View of its mailbox with the newest 50 entries.
func benchmarkRestart(b *testing.B, dir string, n int) {
	var load time.Duration
	for b.Loop() {
		b.StopTimer()
		other := b.TempDir()
		copyDir(b, dir, other)
		b.StartTimer()
		s := storetest.Open(b, other, nil)
		b.StopTimer()
		start := time.Now()
		v, err := s.View(b.Context(), 1, inboxOf(b, s, 1).ID, nil)
		if err != nil || v.Len() != n {
			b.Fatal(v, err)
		}
		if err := v.Entries(n-49, n, func(int, *store.Entry) bool { return true }); err != nil {
			b.Fatal(err)
		}
		load += time.Since(start)
		v.Close()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(load.Microseconds())/float64(b.N)/1000, "first-ms")
}

func BenchmarkTenThousand(b *testing.B) {
	const n = 10_000
	s := storetest.New(b)
	storetest.Account(b, s, 1)
	box := inboxOf(b, s, 1)
	for i := 0; i < n; i += 500 {
		msgs := make([]store.NewMessage, 500)
		for j := range msgs {
			msgs[j] = store.NewMessage{Content: letter(i+j, 4<<10), Summary: digest(i + j)}
		}
		if _, err := s.Append(b.Context(), 1, box.ID, msgs); err != nil {
			b.Fatal(err)
		}
	}
	v, err := s.View(b.Context(), 1, box.ID, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	ids := make([]store.MessageID, 0, n)
	uids := make([]store.UID, 0, n)
	v.Entries(1, n, func(_ int, e *store.Entry) bool {
		ids, uids = append(ids, e.Message), append(uids, e.UID)
		return true
	})
	b.Run("summaries", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			err := s.Summaries(b.Context(), 1, ids, func(store.MessageID, *store.Summary) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("readblob", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			s.PrefetchBlobs(b.Context(), 1, ids)
			for _, id := range ids {
				var err error
				if buf, err = s.ReadBlob(b.Context(), 1, id, buf); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	for _, readers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("fetch-by-%d", readers), func(b *testing.B) { benchmarkFetch(b, s, ids, readers) })
	}
	flip := []store.FlagOp{store.FlagsAdd, store.FlagsRemove}
	b.Run("storeflags", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			_, _, err := s.StoreFlags(b.Context(), 1, box.ID, uids, store.FlagChange{Op: flip[i%2], Flags: store.Seen})
			if err != nil {
				b.Fatal(err)
			}
			v.Sync(true)
			i++
		}
	})
	b.Run("storeflags-odd", func(b *testing.B) {
		var odd []store.UID
		for i := 0; i < n; i += 2 {
			odd = append(odd, uids[i])
		}
		i := 0
		for b.Loop() {
			if _, _, err := s.StoreFlags(b.Context(), 1, box.ID, odd, store.FlagChange{Op: flip[i%2], Flags: store.Flagged}); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
	trash, err := s.Mailbox(b.Context(), 1, "Trash")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("copy+expunge", func(b *testing.B) {
		for b.Loop() {
			if _, _, _, err := s.Copy(b.Context(), 1, box.ID, uids, trash.ID); err != nil {
				b.Fatal(err)
			}
			if _, err := s.ExpungeAll(b.Context(), 1, trash.ID, false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("move", func(b *testing.B) {
		from, to, list := box.ID, trash.ID, uids
		for b.Loop() {
			_, moved, _, err := s.Move(b.Context(), 1, from, list, to)
			if err != nil || len(moved) != n {
				b.Fatal(len(moved), err)
			}
			from, to, list = to, from, moved
		}
	})
}

// benchmarkFetch has readers fetch what is listed and the octets of 50 messages at a time, at random places: a program that looks into a
// folder. More of them should get more done on as many processors.
func benchmarkFetch(b *testing.B, s *store.Store, ids []store.MessageID, readers int) {
	const page = 50
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for r := range readers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(r)))
			var buf []byte
			for n.Add(1) <= int64(b.N) {
				from := rnd.IntN(len(ids) - page)
				err := s.Summaries(b.Context(), 1, ids[from:from+page], func(store.MessageID, *store.Summary) error { return nil })
				for _, id := range ids[from : from+page] {
					if err == nil {
						buf, err = s.ReadBlob(b.Context(), 1, id, buf)
					}
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)*page/b.Elapsed().Seconds(), "messages/s")
}

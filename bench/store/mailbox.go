package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"time"

	"waxwing/internal/store"
)

const (
	small  = 10_000 // messages of the mailbox that the large one is compared with
	newest = 50     // entries that a mail program shows first
)

// mailboxes fills a small and a large mailbox, starts the store anew, and prints how they open.
func mailboxes(ctx context.Context, out io.Writer, dir string, messages int) error {
	s, err := openStore(ctx, dir)
	if err != nil {
		return err
	}
	if err := accounts(ctx, s, 2); err != nil {
		return errors.Join(err, s.Close())
	}
	for i, n := range []int{small, messages} {
		if err := fillWithGaps(ctx, s, store.AccountID(i+1), n); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	began := time.Now()
	if s, err = openStore(ctx, dir); err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintf(out, "start with %d messages  %s\n", messages+small, time.Since(began).Round(time.Millisecond))
	for i, n := range []int{small, messages} {
		o, err := openMailbox(ctx, s, store.AccountID(i+1))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "select and newest %d of %7d  first %s, then %s; %d KB of memory\n", newest, n,
			o.first.Round(10*time.Microsecond), o.again.Round(time.Microsecond), o.memory>>10)
		fmt.Fprintf(out, "all entries of       %7d  first %s, then %s\n", n, o.all.Round(time.Millisecond), o.allAgain.Round(time.Millisecond))
	}
	cpu, err := flags(ctx, s)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "flags of %d messages  %s of processor time\n", small, cpu.Round(time.Millisecond))
	return nil
}

// gap is one in how many messages leave the mailbox again, all over it.
const gap = 50

// fillWithGaps fills a mailbox to n messages of which some between were expunged.
func fillWithGaps(ctx context.Context, s *store.Store, acct store.AccountID, n int) error {
	if err := fill(ctx, s, acct, n); err != nil {
		return err
	}
	box, err := s.Mailbox(ctx, acct, "INBOX")
	if err != nil {
		return err
	}
	var uids []store.UID
	gone := 0
	for uid := gap; uid <= n; uid += gap {
		uids = append(uids, store.UID(uid))
		if len(uids) == 1000 || uid+gap > n {
			if _, err := s.Expunge(ctx, acct, box.ID, uids, false); err != nil {
				return err
			}
			gone, uids = gone+len(uids), uids[:0]
		}
	}
	return fill(ctx, s, acct, gone)
}

// fill appends small messages, a thousand in a transaction.
func fill(ctx context.Context, s *store.Store, acct store.AccountID, n int) error {
	box, err := s.Mailbox(ctx, acct, "INBOX")
	if err != nil {
		return err
	}
	body := bytes.NewReader([]byte("Subject: x\r\n\r\nthe same for all\r\n"))
	for done := 0; done < n; {
		batch := make([]store.NewMessage, min(1000, n-done))
		for i := range batch {
			batch[i] = store.NewMessage{Content: body, Summary: summary(done + i)}
		}
		if _, err := s.Append(ctx, acct, box.ID, batch); err != nil {
			return err
		}
		done += len(batch)
	}
	return nil
}

// opening is what it takes to open a mailbox that is not in memory, to open it again, and to go through it twice.
type opening struct {
	first, again, all, allAgain time.Duration
	memory                      uint64 // octets, after the first time
}

func openMailbox(ctx context.Context, s *store.Store, acct store.AccountID) (o opening, err error) {
	box, err := s.Mailbox(ctx, acct, "INBOX")
	if err != nil {
		return o, err
	}
	before := heap()
	for _, pass := range []struct {
		took  *time.Duration
		count int
	}{{&o.first, newest}, {&o.again, newest}, {&o.all, 0}, {&o.allAgain, 0}} {
		began := time.Now()
		v, err := s.View(ctx, acct, box.ID, nil)
		if err != nil {
			return o, err
		}
		from := 1
		if pass.count > 0 {
			from = max(1, v.Len()-pass.count+1)
		}
		seen := 0
		err = v.Entries(from, v.Len(), func(int, *store.Entry) bool { seen++; return true })
		*pass.took = time.Since(began)
		if pass.took == &o.first {
			o.memory = heap() - min(before, heap())
		}
		n := v.Len()
		v.Close()
		if err != nil || seen != n-from+1 {
			return o, fmt.Errorf("%d entries from %d to %d: %w", seen, from, n, err)
		}
	}
	return o, nil
}

// heap is what lives in memory.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// flags marks all messages of the small mailbox as read, and says what processor time that takes.
func flags(ctx context.Context, s *store.Store) (time.Duration, error) {
	box, err := s.Mailbox(ctx, 1, "INBOX")
	if err != nil {
		return 0, err
	}
	uids := make([]store.UID, 0, small)
	for uid := store.UID(1); len(uids) < small; uid++ {
		if uid > small || uid%gap != 0 {
			uids = append(uids, uid)
		}
	}
	before, err := processorTime()
	if err != nil {
		return 0, err
	}
	changed, _, err := s.StoreFlags(ctx, 1, box.ID, uids, store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen})
	if err != nil {
		return 0, err
	}
	if len(changed) != small {
		return 0, fmt.Errorf("the flags of %d messages changed, of %d", len(changed), small)
	}
	after, err := processorTime()
	return after - before, err
}

func processorTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

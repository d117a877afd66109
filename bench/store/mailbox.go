package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
		if err := fill(ctx, s, store.AccountID(i+1), n); err != nil {
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
		first, again, err := openMailbox(ctx, s, store.AccountID(i+1))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "select and newest %d of %7d  first %s, then %s\n", newest, n, first.Round(10*time.Microsecond), again.Round(10*time.Microsecond))
	}
	cpu, err := flags(ctx, s)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "flags of %d messages  %s of processor time\n", small, cpu.Round(time.Millisecond))
	return nil
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

// openMailbox opens a mailbox that is not in memory, and once more while it is.
func openMailbox(ctx context.Context, s *store.Store, acct store.AccountID) (first, again time.Duration, err error) {
	box, err := s.Mailbox(ctx, acct, "INBOX")
	if err != nil {
		return 0, 0, err
	}
	for i, took := range []*time.Duration{&first, &again} {
		began := time.Now()
		v, err := s.View(ctx, acct, box.ID, nil)
		if err != nil {
			return 0, 0, err
		}
		seen := 0
		v.Entries(max(1, v.Len()-newest+1), v.Len(), func(int, *store.Entry) bool { seen++; return true })
		*took = time.Since(began)
		v.Close()
		if seen != newest {
			return 0, 0, fmt.Errorf("pass %d saw %d entries", i+1, seen)
		}
	}
	return first, again, nil
}

// flags marks all messages of the small mailbox as read, and says what processor time that takes.
func flags(ctx context.Context, s *store.Store) (time.Duration, error) {
	box, err := s.Mailbox(ctx, 1, "INBOX")
	if err != nil {
		return 0, err
	}
	uids := make([]store.UID, small)
	for i := range uids {
		uids[i] = store.UID(i + 1)
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
		return 0, fmt.Errorf("the flags of %d messages changed", len(changed))
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

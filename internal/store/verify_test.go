package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// digestOf is what the summaries of these tests are made by.
func digestOf(c store.Content) (store.Summary, error) {
	b := make([]byte, min(c.Size(), 40))
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return store.Summary{}, err
	}
	return store.Summary{BaseSubject: string(b)}, nil
}

// populated opens a store with n messages in the INBOX of account 1, two copies in Archive, and one message that is expunged.
func populated(t *testing.T, dir string, n int) *store.Store {
	t.Helper()
	s := storetest.Open(t, dir, nil)
	storetest.Account(t, s, 1)
	storetest.Account(t, s, 2)
	s.SetPolicy(store.Policy{Undelete: 1 << 50})
	in, err := s.Mailbox(t.Context(), 1, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := s.Mailbox(t.Context(), 1, "Archive")
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		c := bytes.NewReader(fmt.Appendf(nil, "Subject: message %d\r\n\r\n%s\r\n", i, bytes.Repeat([]byte{byte('a' + i%26)}, 50*(i%7))))
		m, err := digestOf(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), 1, in.ID, []store.NewMessage{{Content: c, Summary: m}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, err := s.Copy(t.Context(), 1, in.ID, []store.UID{1, 2}, archive.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Expunge(t.Context(), 1, in.ID, []store.UID{3}, false); err != nil {
		t.Fatal(err)
	}
	return s
}

func problems(t *testing.T, s *store.Store, opts store.VerifyOptions) (list []store.Problem, done store.Verified) {
	t.Helper()
	opts.Found = func(p store.Problem) { list = append(list, p) }
	done, err := s.Verify(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return list, done
}

func kinds(list []store.Problem) []store.ProblemKind {
	var out []store.ProblemKind
	for _, p := range list {
		if !slices.Contains(out, p.Kind) {
			out = append(out, p.Kind)
		}
	}
	slices.Sort(out)
	return out
}

func TestASoundStoreIsFoundSoundWhileItWorks(t *testing.T) {
	t.Parallel()
	s := populated(t, t.TempDir(), 30)
	list, done := problems(t, s, store.VerifyOptions{})
	if len(list) > 0 || done.Accounts != 2 || done.Entries != 31 || done.Messages != 30 || done.Contents != 30 || done.Octets != done.Total {
		t.Fatalf("%+v, %v", done, list)
	}
	list, done = problems(t, s, store.VerifyOptions{Account: 1})
	if len(list) > 0 || done.Accounts != 1 || done.Contents != 30 {
		t.Fatalf("one account: %+v, %v", done, list)
	}
	if _, err := s.Verify(t.Context(), store.VerifyOptions{Account: 9}); !errors.Is(err, store.ErrNotFound) {
		t.Error("an account that isn't there:", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		in, err := s.Mailbox(t.Context(), 1, "INBOX")
		for i := 0; err == nil && ctx.Err() == nil; i++ {
			c := bytes.NewReader(fmt.Appendf(nil, "Subject: load %d\r\n\r\n", i))
			var p []store.Placed
			if p, err = s.Append(t.Context(), 1, in.ID, []store.NewMessage{{Content: c}}); err == nil && i%2 == 0 {
				s.SetPolicy(store.Policy{})
				_, err = s.Expunge(t.Context(), 1, in.ID, []store.UID{p[0].UID}, false)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	for range 10 {
		if list, _ := problems(t, s, store.VerifyOptions{}); len(list) > 0 {
			t.Errorf("under load: %v", list)
		}
	}
	stop()
	load.Wait()
}

// TestRepairMendsWhatCanBeMended breaks one thing at a time behind the store's back.
func TestRepairMendsWhatCanBeMended(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		breaks string
		kinds  []store.ProblemKind
		left   int // messages in INBOX, Archive and Recovered afterwards
	}{
		{"counts of a mailbox", `UPDATE mailbox SET messages = messages + 5, unseen = 0, octets = 7 WHERE name = 'INBOX'`, []store.ProblemKind{store.ProblemCounts}, 11},
		{"the use of an account", `UPDATE mail_account SET used_octets = 1 WHERE account_id = 1`, []store.ProblemKind{store.ProblemCounts}, 11},
		{"UIDNEXT", `UPDATE mailbox SET uid_next = 2 WHERE name = 'INBOX'`, []store.ProblemKind{store.ProblemCounts}, 11},
		{"MODSEQ", `UPDATE mail_account SET modseq = 1 WHERE account_id = 1`, []store.ProblemKind{store.ProblemCounts}, 11},
		{"numbers of entries", `UPDATE shared_message SET entries = 9`, []store.ProblemKind{store.ProblemSharing}, 11},
		{"a lost entry", `DELETE FROM entry WHERE mailbox_id = 1 AND uid = 5`, []store.ProblemKind{store.ProblemCounts, store.ProblemOrphan}, 11},
		{"a lost message", `DELETE FROM message WHERE message_id = 5`, []store.ProblemKind{store.ProblemEntry, store.ProblemRefs}, 10},
		{"a damaged summary", `UPDATE message SET summary = x'0102030405' WHERE message_id = 5`, []store.ProblemKind{store.ProblemMessage}, 11},
		{"a lost row of a content", `DELETE FROM blob WHERE blob_id = 5`, []store.ProblemKind{store.ProblemMessage, store.ProblemSegment}, 11},
		{"too many references", `UPDATE blob SET refs = 3 WHERE blob_id = 5`, []store.ProblemKind{store.ProblemRefs}, 11},
		{"too few references", `UPDATE blob SET refs = 0 WHERE blob_id = 5`, []store.ProblemKind{store.ProblemRefs}, 11},
		{"the account of a segment", `UPDATE segment SET live = 5, tail = 10`, []store.ProblemKind{store.ProblemSegment}, 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := populated(t, t.TempDir(), 10)
			if err := s.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(tt.breaks); return err }); err != nil {
				t.Fatal(err)
			}
			list, _ := problems(t, s, store.VerifyOptions{})
			if got := kinds(list); !slices.Equal(got, tt.kinds) {
				t.Fatalf("found %v: %v", got, list)
			}
			dry, err := s.Repair(t.Context(), store.RepairOptions{DryRun: true, Digest: digestOf})
			if err != nil || dry.Fixed == 0 {
				t.Fatalf("dry run: %+v, %v", dry, err)
			}
			if again, _ := problems(t, s, store.VerifyOptions{}); len(again) != len(list) {
				t.Errorf("a dry run changed something: %v", again)
			}
			if _, err := s.Repair(t.Context(), store.RepairOptions{Digest: digestOf}); err != nil {
				t.Fatal(err)
			}
			if list, _ := problems(t, s, store.VerifyOptions{}); len(list) > 0 {
				t.Errorf("left: %v", list)
			}
			whole, broken := readAll(t, s)
			if whole != tt.left || broken != 0 {
				t.Errorf("%d messages can be read, %d not; want %d", whole, broken, tt.left)
			}
		})
	}
}

// readAll reads every entry of account 1 and checks that it has the octets of the message that it shows.
func readAll(t *testing.T, s *store.Store) (whole, broken int) {
	t.Helper()
	boxes, err := s.Mailboxes(t.Context(), 1)
	if err != nil {
		return 0, 1 << 20
	}
	for _, m := range boxes {
		v, err := s.View(t.Context(), 1, m.ID, nil, store.Peek())
		if err != nil {
			broken += int(m.Messages)
			continue
		}
		for i := 1; i <= v.Len(); i++ {
			e, _ := v.Entry(i)
			b, err := s.ReadBlob(t.Context(), 1, e.Message, nil)
			if err != nil {
				broken++
				continue
			}
			if int64(len(b)) != e.Size || !bytes.HasPrefix(b, []byte("Subject: message ")) {
				t.Errorf("UID %d of %s has other octets: %q", e.UID, m.Name, b)
			}
			whole++
		}
		v.Close()
	}
	return whole, broken
}

func TestRecordsWithoutRowsAreRecoveredForWhoIsNamed(t *testing.T) {
	t.Parallel()
	s := populated(t, t.TempDir(), 10)
	err := s.Write(t.Context(), func(tx *store.Tx) error {
		for _, q := range []string{`DELETE FROM blob WHERE blob_id IN (4, 5)`, `DELETE FROM message WHERE message_id IN (4, 5)`, `DELETE FROM entry WHERE message_id IN (4, 5)`} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	done, err := s.Repair(t.Context(), store.RepairOptions{Digest: digestOf, Recover: 2})
	if err != nil || done.Recovered != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	box, err := s.Mailbox(t.Context(), 2, "Recovered")
	if err != nil || box.Messages != 2 {
		t.Errorf("%+v, %v", box, err)
	}
	if list, _ := problems(t, s, store.VerifyOptions{}); len(list) > 0 {
		t.Errorf("left: %v", list)
	}
}

func flip(t *testing.T, name string, off int64, mask byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := []byte{0}
	_, err = f.ReadAt(b, off)
	if err == nil {
		_, err = f.WriteAt([]byte{b[0] ^ mask}, off)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestAFlippedByteInAPackHarmsOneMessageAtMost flips each eleventh octet of the packs, one after another, reads everything, and
// flips it back.
func TestAFlippedByteInAPackHarmsOneMessageAtMost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := populated(t, dir, 40)
	all, _ := readAll(t, s)
	files, err := filepath.Glob(filepath.Join(dir, "blobs", "packs", "*.blob"))
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	harmed, tried := 0, 0
	for _, name := range files {
		end := int64(0)
		if err := s.Read(t.Context(), func(q store.Querier) error { return q.QueryRow(`SELECT MAX(tail) FROM segment`).Scan(&end) }); err != nil {
			t.Fatal(err)
		}
		for off := int64(0); off < end; off += 11 {
			flip(t, name, off, 1<<(off%8))
			whole, broken := readAll(t, s)
			tried++
			distinct := 0
			list, _ := problems(t, s, store.VerifyOptions{Account: 1})
			seen := map[store.MessageID]bool{}
			for _, p := range list {
				if p.Kind != store.ProblemContent {
					t.Errorf("octet %d: %+v", off, p)
				}
				if !seen[p.Message] {
					seen[p.Message] = true
					distinct++
				}
			}
			if distinct > 1 || whole+broken != all || (broken > 0) != (distinct > 0 && !(whole == all)) {
				t.Errorf("octet %d: %d messages harmed, %d entries of %d can't be read", off, distinct, broken, all)
			}
			harmed += distinct
			flip(t, name, off, 1<<(off%8))
		}
	}
	if harmed == 0 || tried < 100 {
		t.Fatalf("%d flips harmed %d messages: nothing was tried", tried, harmed)
	}
	t.Logf("%d flips, %d of them harmed one message each", tried, harmed)
}

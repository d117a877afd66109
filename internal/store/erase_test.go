package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// inPacks says whether the octets stand anywhere in the pack files.
func inPacks(t *testing.T, dir string, text []byte) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*.blob"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, text) {
			return true
		}
	}
	return false
}

// TestWhatIsPurgedLeavesTheDiskInTime looks for the octets of a message in the files themselves: they stay while the message
// can be restored, and are gone when both times are over, though most of the pack is alive.
func TestWhatIsPurgedLeavesTheDiskInTime(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	var now atomic.Int64
	now.Store(1_800_000_000)
	dir := t.TempDir()
	s := storetest.Open(t, dir, func() time.Time { return time.Unix(now.Load(), 0) })
	storetest.Account(t, s, 1)
	s.SetPolicy(store.Policy{Undelete: 14 * day, Erase: 7 * day})
	in, err := s.Mailbox(t.Context(), 1, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	secret, other := []byte("Subject: x\r\n\r\nthe secret of the seal\r\n"), []byte("Subject: y\r\n\r\n"+string(bytes.Repeat([]byte("long "), 200))+"\r\n")
	if _, err := s.Append(t.Context(), 1, in.ID, []store.NewMessage{{Content: bytes.NewReader(secret)}, {Content: bytes.NewReader(other)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Expunge(t.Context(), 1, in.ID, []store.UID{1}, false); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		after time.Duration
		there bool
	}{{0, true}, {13 * day, true}, {2 * day, true}, {6 * day, true}, {2 * day, false}}
	for i, step := range steps {
		for passed := time.Duration(0); passed <= step.after; passed += day { // a clock that jumps lets nothing go
			if err := s.Housekeep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if passed < step.after {
				now.Add(int64(day / time.Second))
			}
		}
		if inPacks(t, dir, []byte("the secret of the seal")) != step.there {
			t.Errorf("step %d: the octets are there: %v", i, !step.there)
		}
	}
	v, err := s.View(t.Context(), 1, in.ID, nil, store.Peek())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	e, _ := v.Entry(1)
	if b, err := s.ReadBlob(t.Context(), 1, e.Message, nil); err != nil || !bytes.Equal(b, other) {
		t.Error("the other message is not what it was", err)
	}
	if err := s.Housekeep(t.Context()); err != nil {
		t.Error(err)
	}
}

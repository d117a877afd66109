package objects_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// flip changes one octet of an object.
func (n *node) flip(key string, off int64) {
	n.Helper()
	f, err := os.OpenFile(service.Path(name(n.dir), key), os.O_RDWR, 0)
	if err != nil {
		n.Fatal(err)
	}
	b := []byte{0}
	if _, err = f.ReadAt(b, off); err == nil {
		_, err = f.WriteAt([]byte{b[0] ^ 0x10}, off)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		n.Fatal(err)
	}
}

// append puts a letter with its digest into the INBOX.
func (n *node) append(text string) {
	n.Helper()
	box, err := n.Mailbox(n.Context(), 1, "INBOX")
	if err != nil {
		n.Fatal(err)
	}
	m, err := storetest.Digest(strings.NewReader(text))
	if err == nil {
		_, err = n.Append(n.Context(), 1, box.ID, []store.NewMessage{{Content: strings.NewReader(text), Summary: m}})
	}
	if err != nil {
		n.Fatal(err)
	}
}

// TestAFlippedByteInAnObjectHarmsOneMessageAtMost flips octets from the beginning of an object to its end, reads everything
// past the cache, and flips them back.
func TestAFlippedByteInAnObjectHarmsOneMessageAtMost(t *testing.T) {
	t.Parallel()
	n, _, _ := newRingNode(t, "")
	for i := range 12 {
		n.append(letter(i)[:150+i*40])
	}
	if moved, err := n.MoveContents(t.Context()); err != nil || moved != 12 {
		t.Fatal(moved, err)
	}
	key := n.keys()[0]
	info, err := os.Stat(service.Path(name(n.dir), key))
	if err != nil {
		t.Fatal(err)
	}
	harmed, tried := map[store.UID]bool{}, 0
	for off := int64(0); off < info.Size(); off += 1 + info.Size()/150 {
		n.flip(key, off)
		list, _ := storetest.Problems(t, n.Store, store.VerifyOptions{Account: 1})
		n.flip(key, off)
		tried++
		if len(list) > 1 {
			t.Errorf("octet %d harms %d messages: %v", off, len(list), list)
		}
		for _, p := range list {
			if p.Kind != store.ProblemContent || p.Name != "INBOX" {
				t.Errorf("octet %d: %+v", off, p)
			}
			harmed[p.UID] = true
		}
	}
	if list, _ := storetest.Problems(t, n.Store, store.VerifyOptions{}); len(list) > 0 || len(harmed) < 12 || tried < 100 {
		t.Errorf("%d flips harmed %d messages; left %v", tried, len(harmed), list)
	}
}

// TestDamageInTheBucketIsNamedAndHealed: verify and the scrub name the message, repair notes it, the same letter heals it.
func TestDamageInTheBucketIsNamedAndHealed(t *testing.T) {
	t.Parallel()
	n, _, _ := newRingNode(t, "")
	for i := range 4 {
		n.append(letter(i))
	}
	if _, err := n.MoveContents(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.reads(1, letter(0)) // now a cache has what the bucket is about to lose
	var at int64
	err := n.Read(t.Context(), func(q store.Querier) error {
		return q.QueryRow(`SELECT place + 100 FROM blob WHERE blob_id = 2`).Scan(&at)
	})
	if err != nil {
		t.Fatal(err)
	}
	n.flip(n.keys()[0], at)
	list, _ := storetest.Problems(t, n.Store, store.VerifyOptions{})
	if len(list) != 1 || list[0].Kind != store.ProblemContent || list[0].UID != 2 || list[0].Account != 1 {
		t.Fatalf("found %+v", list)
	}
	if err := n.scrub(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if _, err := n.Repair(t.Context(), store.RepairOptions{Digest: storetest.Digest}); err != nil {
		t.Fatal(err)
	}
	if box, err := n.Mailbox(t.Context(), 1, "INBOX"); err != nil || box.Messages != 4 {
		t.Errorf("%+v, %v: what is damaged keeps its place", box, err)
	}
	n.append(letter(1))
	if list, _ := storetest.Problems(t, n.Store, store.VerifyOptions{}); len(list) > 0 {
		t.Errorf("after the same letter came again: %v", list)
	}
	n.now = n.now.AddDate(0, 0, 2)
	if err := n.scrub(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// scrub goes through a round, which must find so many damaged contents.
func (n *node) scrub(ctx context.Context, want int64) error {
	for more := true; more; {
		var err error
		if more, err = n.ScrubStep(ctx, 0); err != nil {
			return err
		}
	}
	st, err := n.Scrub(ctx)
	if err == nil && st.Damaged != want {
		err = fmt.Errorf("%d contents are known to be damaged, not %d", st.Damaged, want)
	}
	return err
}

// TestWhatRowsAndBucketDontAgreeOnIsFound loses an object, rows of contents, and the memory of objects.
func TestWhatRowsAndBucketDontAgreeOnIsFound(t *testing.T) {
	t.Parallel()
	n, _, _ := newRingNode(t, "")
	for i := range 4 {
		n.append(letter(i))
		if i < 3 {
			if _, err := n.MoveContents(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	large := strings.Repeat("large\r\n", 20_000)
	n.append(large)
	breaks := func(query string) {
		t.Helper()
		if err := n.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(query); return err }); err != nil {
			t.Fatal(err)
		}
	}
	kinds := func(want ...store.ProblemKind) {
		t.Helper()
		list, _ := storetest.Problems(t, n.Store, store.VerifyOptions{})
		var got []store.ProblemKind
		for _, p := range list {
			got = append(got, p.Kind)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("found %+v, want %v", list, want)
		}
	}
	repair := func(want int64) {
		t.Helper()
		if done, err := n.Repair(t.Context(), store.RepairOptions{Digest: storetest.Digest}); err != nil || done.Recovered != want {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	kinds()
	// The rows of contents are lost, in an object, of a large one, and in the database: octets without rows give them back.
	breaks(`DELETE FROM blob WHERE blob_id IN (1, 4, 5)`)
	breaks(`DELETE FROM segment WHERE NOT EXISTS (SELECT 1 FROM blob AS b WHERE b.segment = segment.segment)`)
	kinds(store.ProblemMessage, store.ProblemMessage, store.ProblemMessage, store.ProblemStray, store.ProblemStray, store.ProblemStray)
	repair(3)
	kinds()
	for i, text := range []string{letter(0), letter(1), letter(2), letter(3), large} {
		n.reads(store.MessageID(i+1), text)
	}
	// An object that nobody knows of goes, in its time; octets in the database that nobody knows of go at once.
	breaks(`INSERT INTO fresh_content (blob_id, data, key_id) VALUES (900, (SELECT data FROM fresh_content WHERE blob_id = 4), 0)`)
	b, err := os.ReadFile(service.Path(name(n.dir), n.keys()[1]))
	if err == nil {
		err = os.WriteFile(service.Path(name(n.dir), "packs/0000abcd.blob"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	kinds(store.ProblemStray, store.ProblemStray)
	repair(0)
	kinds()
	n.now = n.now.AddDate(0, 0, 1)
	if err := n.Housekeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(n.keys(), "packs/0000abcd.blob") {
		t.Error("the object is still there")
	}
	kinds()
	// An object that rows name is lost: its messages are named, and no others.
	if err := os.Remove(service.Path(name(n.dir), "packs/00000002.blob")); err != nil {
		t.Fatal(err)
	}
	kinds(store.ProblemMissing, store.ProblemContent)
	n.append(letter(1))
	kinds()
}

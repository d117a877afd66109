package store_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// The child of TestKilledProcessLosesNothing works in this directory.
const killDirVariable = "WAXWING_TEST_KILL_DIR"

const killAccounts = 6

// TestKilledProcessLosesNothing kills a process that delivers, flags, moves and expunges, again and again on the same store.
// The process writes down each operation before it begins and when it was answered. What was answered must be there, what
// was not answered may be, whole or not at all.
//
// It does not run beside other tests: between fork and exec the child would hold the locks of their stores.
func TestKilledProcessLosesNothing(t *testing.T) {
	if dir := os.Getenv(killDirVariable); dir != "" {
		killChild(t, ordeal.Seed(t), dir)
		return
	}
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	killRounds(t, ordeal.Begin(t), rounds)
}

// TestSoakKilledProcess is the same with 300 kills.
func TestSoakKilledProcess(t *testing.T) {
	o := ordeal.Soak(t)
	killRounds(t, o, o.Times(300))
}

// killRounds kills a process a number of times, and looks at the store after each.
func killRounds(t *testing.T, o *ordeal.Ordeal, rounds int) {
	t.Helper()
	dir := t.TempDir()
	s := storetest.Open(t, dir, nil)
	for a := range killAccounts {
		storetest.Account(t, s, store.AccountID(a+1))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	journals := make([]*killJournal, killAccounts)
	for i := range journals {
		journals[i] = &killJournal{inbox: map[string]bool{}, trash: map[string]bool{}}
	}
	r := o.Chance(0)
	for round := range rounds {
		runAndKill(t, dir, r.Uint64(), 100+r.IntN(400))
		o.Kill()
		done := 0
		for i, j := range journals {
			done += j.read(t, killJournalName(dir, i+1))
		}
		t.Logf("round %d: %d operations answered", round, done)
		copied := t.TempDir()
		copyDir(t, dir, copied)
		verifyKilled(t, o, copied, journals)
		verifyKilled(t, o, dir, journals)
	}
}

// runAndKill starts the child, waits until it has answered some operations, and kills it.
func runAndKill(t *testing.T, dir string, seed uint64, operations int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcessLosesNothing$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), killDirVariable+"="+dir, fmt.Sprintf("%s=%d", ordeal.SeedVariable, seed))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	n := 0
	var last string
	for n < operations && lines.Scan() {
		last = lines.Text()
		if last == "answered" {
			n++
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	_ = cmd.Wait() // killed: an error by nature
	if n < operations {
		t.Fatalf("the child ended after %d operations: %s", n, last)
	}
}

func killJournalName(dir string, acct int) string {
	return filepath.Join(dir, fmt.Sprintf("journal-%d", acct))
}

// killChild works until it is killed.
func killChild(t *testing.T, seed uint64, dir string) {
	s := storetest.Open(t, dir, nil)
	var wg sync.WaitGroup
	var out sync.Mutex
	for a := range killAccounts {
		wg.Go(func() {
			w := killWorker{s: s, acct: store.AccountID(a + 1), r: rand.New(rand.NewPCG(seed, uint64(a)))}
			if err := w.run(killJournalName(dir, a+1), func() {
				out.Lock()
				defer out.Unlock()
				fmt.Println("answered")
			}); err != nil {
				fmt.Println("child:", err)
				os.Exit(3)
			}
		})
	}
	wg.Wait()
}

type killWorker struct {
	s    *store.Store
	acct store.AccountID
	r    *rand.Rand
}

// run does operations on INBOX and Trash. A line "begin op tag" is in the file before each, "end" after its answer.
func (w *killWorker) run(name string, answered func()) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx := context.Background()
	in, err := w.s.Mailbox(ctx, w.acct, "INBOX")
	if err != nil {
		return err
	}
	trash, err := w.s.Mailbox(ctx, w.acct, "Trash")
	if err != nil {
		return err
	}
	v, err := w.s.View(ctx, w.acct, in.ID, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for n := 0; ; n++ {
		v.Sync(true)
		op, tag := "deliver", fmt.Sprintf("%d-%d-%d", os.Getpid(), w.acct, n)
		var e store.Entry
		if v.Len() > 3 && w.r.IntN(3) == 0 {
			e, _ = v.Entry(1 + w.r.IntN(v.Len()))
			b, err := w.s.ReadBlob(ctx, w.acct, e.Message, nil)
			if err != nil {
				return err
			}
			op, tag = []string{"move", "expunge"}[w.r.IntN(2)], killTag(b)
		}
		if _, err := fmt.Fprintln(f, "begin", op, tag); err != nil {
			return err
		}
		switch op {
		case "deliver":
			_, err = w.s.Deliver(ctx, store.Delivery{Content: killContent(tag, w.r.IntN(3000)), Local: []store.NewEntry{{Account: w.acct}}})
		case "move":
			_, _, _, err = w.s.Move(ctx, w.acct, in.ID, []store.UID{e.UID}, trash.ID)
		case "expunge":
			_, err = w.s.Expunge(ctx, w.acct, in.ID, []store.UID{e.UID}, false)
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(f, "end"); err != nil {
			return err
		}
		answered()
	}
}

// killContent says at its end what its beginning says, so that a part of it is told from the whole.
func killContent(tag string, n int) *bytes.Reader {
	return bytes.NewReader([]byte(tag + "\r\n" + strings.Repeat("x", n) + "\r\n" + tag))
}

func killTag(content []byte) string {
	tag, _, _ := strings.Cut(string(content), "\r\n")
	if !strings.HasSuffix(string(content), "\r\n"+tag) {
		return "torn " + tag
	}
	return tag
}

// killJournal is what must be in an account, and the one operation of which nobody knows.
type killJournal struct {
	inbox, trash map[string]bool
	offset       int64
	op, tag      string // begun and not answered
}

func (j *killJournal) apply(op, tag string) {
	switch op {
	case "deliver":
		j.inbox[tag] = true
	case "move":
		delete(j.inbox, tag)
		j.trash[tag] = true
	case "expunge":
		delete(j.inbox, tag)
	}
}

// read takes over what was written since the last round and returns the number of operations answered.
func (j *killJournal) read(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	j.op = ""
	for line := range strings.Lines(string(b[j.offset:])) {
		var op, tag string
		switch {
		case line == "end\n":
			j.apply(j.op, j.tag)
			j.op = ""
			done++
		case strings.HasSuffix(line, "\n"):
			if _, err := fmt.Sscanf(line, "begin %s %s\n", &op, &tag); err != nil {
				t.Fatalf("journal line %q: %v", line, err)
			}
			j.op, j.tag = op, tag
		}
	}
	// A line that is not whole was not followed by its operation.
	if i := bytes.LastIndexByte(b, '\n'); i+1 < len(b) {
		if err := os.Truncate(name, int64(i+1)); err != nil {
			t.Fatal(err)
		}
		b = b[:i+1]
	}
	j.offset = int64(len(b))
	return done
}

// verifyKilled opens the store and compares; what became of the unanswered operation is taken over.
func verifyKilled(t *testing.T, o *ordeal.Ordeal, dir string, journals []*killJournal) {
	t.Helper()
	s := storetest.Open(t, dir, nil)
	for i, j := range journals {
		acct := store.AccountID(i + 1)
		inbox, trash := tagsIn(t, s, acct, "INBOX"), tagsIn(t, s, acct, "Trash")
		if maps.Equal(inbox, j.inbox) && maps.Equal(trash, j.trash) {
			continue
		}
		after := &killJournal{inbox: maps.Clone(j.inbox), trash: maps.Clone(j.trash)}
		after.apply(j.op, j.tag)
		if !maps.Equal(inbox, after.inbox) || !maps.Equal(trash, after.trash) {
			j.missing(o, inbox, trash)
			t.Fatalf("account %d: INBOX %v, Trash %v\nwant %v, %v\nor after %s %s", acct, keys(inbox), keys(trash), keys(j.inbox), keys(j.trash), j.op, j.tag)
		}
		*j = killJournal{inbox: after.inbox, trash: after.trash, offset: j.offset}
	}
	if err := s.Housekeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// missing tells of each answered message that stands nowhere, but for the one whose fate is open.
func (j *killJournal) missing(o *ordeal.Ordeal, inbox, trash map[string]bool) {
	for _, tag := range slices.Concat(keys(j.inbox), keys(j.trash)) {
		if tag != j.tag && !inbox[tag] && !trash[tag] {
			o.Lost("%s", tag)
		}
	}
}

func keys(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }

// tagsIn returns the contents of a mailbox by their tags.
func tagsIn(t *testing.T, s *store.Store, acct store.AccountID, name string) map[string]bool {
	t.Helper()
	m, err := s.Mailbox(t.Context(), acct, name)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.View(t.Context(), acct, m.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	out := map[string]bool{}
	v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
		b, err := s.ReadBlob(t.Context(), acct, e.Message, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tag := killTag(b); out[tag] {
			t.Fatalf("%s is there twice", tag)
		} else {
			out[tag] = true
		}
		return true
	})
	if len(out) != int(m.Messages) {
		t.Fatalf("%s of account %d has %d entries and counts %d", name, acct, len(out), m.Messages)
	}
	return out
}

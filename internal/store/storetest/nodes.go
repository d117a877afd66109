package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"waxwing/internal/store"
)

// RunNodes checks that two stores on one database are as one. open opens one more store each time it is called with a directory.
func RunNodes(t *testing.T, open Opener) {
	for name, fn := range map[string]func(n *nodes){
		"what one commits the other shows":                   (*nodes).showsAtOnce,
		"a view is told of what another node does":           (*nodes).tellsViews,
		"mailboxes and accounts follow":                      (*nodes).followsStructure,
		"entries that vanished long ago vanish here too":     (*nodes).forgetsOldTombstones,
		"deliveries to the same accounts give way":           (*nodes).givesWay,
		"contents that several accounts share are counted":   (*nodes).countsContents,
		"all operations at the same time leave one true sum": (*nodes).worksTogether,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &nodes{T: t, dir: t.TempDir()}
			for i := range n.s {
				n.s[i] = open(t, n.dir, nil)
			}
			Account(t, n.s[0], 1)
			fn(n)
			for i, s := range n.s {
				(&harness{T: t, s: s}).consistent(1)
				n.verified(i)
			}
		})
	}
}

// nodes are two stores on one database, with account 1.
type nodes struct {
	*testing.T
	dir string
	s   [2]*store.Store
}

// patience bounds what is waited for on a busy machine.
const patience = 60 * time.Second

func (n *nodes) ok(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

func (n *nodes) verified(i int) {
	n.Helper()
	done, err := n.s[i].Verify(context.Background(), store.VerifyOptions{Found: func(p store.Problem) { n.Errorf("node %d finds %+v", i, p) }})
	if err != nil || done.Problems > 0 {
		n.Fatalf("verify: %d problems: %v", done.Problems, err)
	}
}

// deliver hands a message to a node for some accounts, each of which may be named again.
func (n *nodes) deliver(i int, text string, accounts ...store.AccountID) ([]store.Placed, error) {
	d := store.Delivery{Content: bytes.NewReader([]byte(text)), Summary: store.Summary{MessageID: text}}
	for _, a := range accounts {
		d.Local = append(d.Local, store.NewEntry{Account: a, Role: store.RoleInbox, InternalDate: time.Unix(1_700_000_000, 0)})
	}
	out, err := n.s[i].Deliver(n.Context(), d)
	return out.Local, err
}

func (n *nodes) box(i int, acct store.AccountID, name string) store.Mailbox {
	n.Helper()
	m, err := n.s[i].Mailbox(n.Context(), acct, name)
	n.ok(err)
	return m
}

// shows returns what a node shows of a mailbox.
func (n *nodes) shows(i int, acct store.AccountID, box store.MailboxID) []store.Entry {
	n.Helper()
	v, err := n.s[i].View(n.Context(), acct, box, nil, store.Peek())
	n.ok(err)
	defer v.Close()
	return entriesOf(v)
}

func uidsOf(list []store.Entry) []store.UID {
	var out []store.UID
	for i := range list {
		out = append(out, list[i].UID)
	}
	return out
}

// showsAtOnce does one thing after the other, each through another node than the one before.
func (n *nodes) showsAtOnce() {
	inbox := n.box(0, 1, "INBOX").ID
	for turn := range 6 {
		here, there := turn%2, 1-turn%2
		p, err := n.deliver(here, fmt.Sprint("letter ", turn), 1)
		n.ok(err)
		if p[0].UID != store.UID(turn+1) {
			n.Fatalf("UID %d, want %d", p[0].UID, turn+1)
		}
		list := n.shows(there, 1, inbox)
		if len(list) != turn+1 {
			n.Fatalf("%d entries, want %d", len(list), turn+1)
		}
		b, err := n.s[there].ReadBlob(n.Context(), 1, p[0].Message, nil)
		n.ok(err)
		if string(b) != fmt.Sprint("letter ", turn) {
			n.Fatalf("content %q", b)
		}
		_, _, err = n.s[there].StoreFlags(n.Context(), 1, inbox, uidsOf(list), store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen, Keywords: []string{fmt.Sprint("k", turn)}})
		n.ok(err)
		last := n.shows(here, 1, inbox)[turn]
		if last.Flags&store.Seen == 0 || !slices.Contains(last.Keywords, fmt.Sprint("k", turn)) {
			n.Fatalf("entry %+v", last)
		}
	}
	gone, err := n.s[1].Expunge(n.Context(), 1, inbox, []store.UID{2, 4}, false)
	n.ok(err)
	if len(gone) != 2 || fmt.Sprint(uidsOf(n.shows(0, 1, inbox))) != "[1 3 5 6]" {
		n.Fatalf("expunged %v, left %v", gone, uidsOf(n.shows(0, 1, inbox)))
	}
	_, to, _, err := n.s[0].Move(n.Context(), 1, inbox, []store.UID{1, 3}, n.box(0, 1, "Archive").ID)
	n.ok(err)
	if fmt.Sprint(uidsOf(n.shows(1, 1, n.box(1, 1, "Archive").ID))) != fmt.Sprint(to) {
		n.Fatal("a move is not seen")
	}
}

// tellsViews waits for what an idle session is told.
func (n *nodes) tellsViews() {
	inbox := n.box(0, 1, "INBOX").ID
	told := make(chan struct{}, 1)
	v, err := n.s[1].View(n.Context(), 1, inbox, func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	n.ok(err)
	defer v.Close()
	until := func(what string, done func(u store.Update) bool) {
		n.Helper()
		for deadline := time.After(patience); ; {
			if done(v.Sync(true)) {
				return
			}
			select {
			case <-told:
			case <-deadline:
				n.Fatal("not told: " + what)
			}
		}
	}
	for turn := range 3 {
		_, err := n.deliver(0, fmt.Sprint("letter ", turn), 1)
		n.ok(err)
		until("a delivery", func(u store.Update) bool { return u.Exists == turn+1 })
	}
	_, _, err = n.s[0].StoreFlags(n.Context(), 1, inbox, []store.UID{2}, store.FlagChange{Op: store.FlagsAdd, Flags: store.Flagged})
	n.ok(err)
	until("flags", func(u store.Update) bool { return slices.Equal(u.Changed, []int{2}) })
	_, err = n.s[0].Expunge(n.Context(), 1, inbox, []store.UID{1}, false)
	n.ok(err)
	until("an expunge", func(u store.Update) bool { return slices.Equal(u.Expunged, []int{1}) })
}

func (n *nodes) followsStructure() {
	made, err := n.s[0].CreateMailbox(n.Context(), 1, "Work/2026", "")
	n.ok(err)
	v, err := n.s[1].View(n.Context(), 1, made.ID, nil)
	n.ok(err)
	defer v.Close()
	n.ok(n.s[1].RenameMailbox(n.Context(), 1, made.ID, "Play"))
	if m := n.box(0, 1, "Play"); m.ID != made.ID || m.UIDValidity != made.UIDValidity {
		n.Fatalf("renamed: %+v, was %+v", m, made)
	}
	n.ok(n.s[0].DeleteMailbox(n.Context(), 1, made.ID))
	if _, err := n.s[1].Mailbox(n.Context(), 1, "Play"); !errors.Is(err, store.ErrNotFound) {
		n.Fatalf("error %v for a mailbox that another node deleted", err)
	}
	if u := v.Sync(true); !u.Gone {
		n.Fatalf("update %+v of a view whose mailbox is gone", u)
	}
	again, err := n.s[1].CreateMailbox(n.Context(), 1, "Play", "")
	n.ok(err)
	if again.ID <= made.ID || again.UIDValidity <= made.UIDValidity {
		n.Fatalf("made again: %+v, was %+v", again, made)
	}
	n.ok(n.s[1].SetHold(n.Context(), 1, true, "a reason"))
	err = n.s[0].Write(n.Context(), func(tx *store.Tx) error { return n.s[0].DeleteAccountState(tx, 1) })
	if !errors.Is(err, store.ErrHeld) {
		n.Fatalf("error %v for an account that another node put under a hold", err)
	}
	n.ok(n.s[0].SetHold(n.Context(), 1, false, "no reason"))
	Account(n, n.s[0], 2)
	if len(n.shows(1, 2, n.box(1, 2, "INBOX").ID)) != 0 {
		n.Fatal("a new account has mail")
	}
	n.ok(n.s[0].Write(n.Context(), func(tx *store.Tx) error { return n.s[0].DeleteAccountState(tx, 2) }))
	if _, err := n.deliver(1, "too late", 2); !errors.Is(err, store.ErrNotFound) {
		n.Fatalf("error %v for a delivery to an account that another node deleted", err)
	}
}

// forgetsOldTombstones keeps a view on one node while the other expunges, and forgets that it did.
func (n *nodes) forgetsOldTombstones() {
	inbox := n.box(1, 1, "INBOX").ID
	for i := range 4 {
		_, err := n.deliver(0, fmt.Sprint("letter ", i), 1)
		n.ok(err)
	}
	v, err := n.s[1].View(n.Context(), 1, inbox, nil)
	n.ok(err)
	defer v.Close()
	_, err = n.s[0].Expunge(n.Context(), 1, inbox, []store.UID{2, 3}, false)
	n.ok(err)
	// The tombstones go before the other node has looked, if it has not yet: it is right either way.
	n.ok(n.s[0].Write(n.Context(), func(tx *store.Tx) error {
		for _, q := range []string{`DELETE FROM tombstone WHERE account_id = 1`, `UPDATE mail_account SET horizon = modseq WHERE account_id = 1`} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return nil
	}))
	n.box(1, 1, "INBOX") // looks
	v.Sync(true)
	if got := uidsOf(entriesOf(v)); fmt.Sprint(got) != "[1 4]" {
		n.Fatalf("the view shows %v", got)
	}
}

// givesWay delivers to all accounts at once through both nodes, which name them in opposite orders.
func (n *nodes) givesWay() {
	const accounts, senders, each = 6, 3, 8
	var order []store.AccountID
	for a := store.AccountID(1); a <= accounts; a++ {
		if a > 1 {
			Account(n, n.s[0], a)
		}
		order = append(order, a)
	}
	var wg sync.WaitGroup
	for i := range n.s {
		names := slices.Clone(order)
		if i == 1 {
			slices.Reverse(names)
		}
		for sender := range senders {
			wg.Go(func() {
				for k := range each {
					if _, err := n.deliver(i, fmt.Sprintf("%d from %d of node %d", k, sender, i), names...); err != nil {
						n.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, a := range order {
		for i := range n.s {
			list := n.shows(i, a, n.box(i, a, "INBOX").ID)
			if len(list) != len(n.s)*senders*each {
				n.Fatalf("account %d has %d letters on node %d", a, len(list), i)
			}
			n.ascend(list)
		}
	}
}

// ascend checks that UIDs and MODSEQs are what an account gives out, one after the other.
func (n *nodes) ascend(list []store.Entry) {
	n.Helper()
	for i := 1; i < len(list); i++ {
		if list[i].UID <= list[i-1].UID || list[i].ModSeq <= list[i-1].ModSeq {
			n.Fatalf("entry %+v after %+v", list[i], list[i-1])
		}
	}
}

// countsContents puts the same content into several accounts, and takes it out again, through both nodes at once.
func (n *nodes) countsContents() {
	const accounts, turns = 4, 6
	text := bytes.Repeat([]byte("the same for all\r\n"), 2000)
	for a := store.AccountID(2); a <= accounts; a++ {
		Account(n, n.s[0], a)
	}
	var wg sync.WaitGroup
	for a := store.AccountID(1); a <= accounts; a++ {
		wg.Go(func() {
			s := n.s[int(a)%len(n.s)]
			box, err := s.Mailbox(n.Context(), a, "Sent")
			if err != nil {
				n.Error(err)
				return
			}
			for range turns {
				placed, err := s.Append(n.Context(), a, box.ID, []store.NewMessage{{Content: bytes.NewReader(text)}})
				if err == nil {
					_, err = s.Expunge(n.Context(), a, box.ID, []store.UID{placed[0].UID}, false)
				}
				if err != nil {
					n.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h := &harness{T: n.T, s: n.s[0]}
	h.equal("contents that are left", h.number(`SELECT count(*) FROM blob`), 0)
}

// sums is what the workers know that an account must hold.
type sums struct {
	mu    sync.Mutex
	left  int
	given map[string]bool // mailbox and UID of everything that was ever given out
}

func (a *sums) note(n *nodes, box store.MailboxID, uids ...store.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, uid := range uids {
		key := fmt.Sprint(box, "/", uid)
		if a.given[key] {
			n.Errorf("UID %d of mailbox %d was given out twice", uid, box)
		}
		a.given[key] = true
	}
}

// worksTogether has workers on both nodes do everything with the same account.
func (n *nodes) worksTogether() {
	const workers, turns = 3, 25
	seed := rand.Uint64()
	n.Logf("seed %d", seed)
	var boxes []store.MailboxID
	for _, name := range []string{"INBOX", "Archive", "Sent"} {
		boxes = append(boxes, n.box(0, 1, name).ID)
	}
	all := &sums{given: make(map[string]bool)}
	var wg sync.WaitGroup
	for i := range n.s {
		for w := range workers {
			wg.Go(func() {
				worker := &worker{n: n, s: n.s[i], rnd: rand.New(rand.NewPCG(seed, uint64(10*i+w))), boxes: boxes, sums: all, name: fmt.Sprint(i, ".", w)}
				for k := range turns {
					if err := worker.turn(k); err != nil {
						n.Errorf("worker %s: %v", worker.name, err)
					}
				}
			})
		}
	}
	wg.Wait()
	total := 0
	for _, box := range boxes {
		here, there := n.shows(0, 1, box), n.shows(1, 1, box)
		if fmt.Sprint(here) != fmt.Sprint(there) {
			n.Fatalf("mailbox %d: the nodes show\n%v\n%v", box, here, there)
		}
		total += len(here)
	}
	if total != all.left {
		n.Fatalf("%d entries, want %d", total, all.left)
	}
}

type worker struct {
	n     *nodes
	s     *store.Store
	rnd   *rand.Rand
	boxes []store.MailboxID
	sums  *sums
	name  string
	last  store.ModSeq
}

func (w *worker) box() store.MailboxID { return w.boxes[w.rnd.IntN(len(w.boxes))] }

// some picks entries that a node shows.
func (w *worker) some(box store.MailboxID) ([]store.UID, error) {
	v, err := w.s.View(w.n.Context(), 1, box, nil, store.Peek())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if m := v.Mailbox(); m.HighestModSeq < w.last && box == w.boxes[0] {
		return nil, fmt.Errorf("HIGHESTMODSEQ went back from %d to %d", w.last, m.HighestModSeq)
	} else if box == w.boxes[0] {
		w.last = m.HighestModSeq
	}
	var out []store.UID
	for _, e := range entriesOf(v) {
		if w.rnd.IntN(3) == 0 {
			out = append(out, e.UID)
		}
	}
	return out, nil
}

func (w *worker) turn(k int) error {
	ctx := w.n.Context()
	from, to := w.box(), w.box()
	uids, err := w.some(from)
	if err != nil {
		return err
	}
	change := 0
	switch w.rnd.IntN(6) {
	case 0, 1:
		var out store.Delivered
		out, err = w.s.Deliver(ctx, store.Delivery{
			Content: bytes.NewReader(fmt.Append(nil, w.name, " ", k)),
			Local:   []store.NewEntry{{Account: 1, Mailbox: from}},
		})
		if err == nil {
			w.sums.note(w.n, from, out.Local[0].UID)
			change = 1
		}
	case 2:
		_, _, err = w.s.StoreFlags(ctx, 1, from, uids, store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen, Keywords: []string{"by" + w.name}})
	case 3:
		_, placed, _, e := w.s.Copy(ctx, 1, from, uids, to)
		w.sums.note(w.n, to, placed...)
		change, err = len(placed), e
	case 4:
		_, placed, _, e := w.s.Move(ctx, 1, from, uids, to)
		w.sums.note(w.n, to, placed...)
		err = e
	default:
		if len(uids) > 0 {
			gone, e := w.s.Expunge(ctx, 1, from, uids[:1], false)
			change, err = -len(gone), e
		}
	}
	w.sums.mu.Lock()
	w.sums.left += change
	w.sums.mu.Unlock()
	return err
}

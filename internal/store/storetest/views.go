package storetest

import (
	"sync/atomic"

	"waxwing/internal/store"
)

var viewChecks = []check{
	{"sequence numbers stand still until expunges are synced", sequenceStable},
	{"messages that come while expunges wait are appended", appendWhileStale},
	{"a message that comes and goes unseen is never told of", comeAndGo},
	{"sync tells of changed flags once", changedOnce},
	{"changes are told with the numbers after the expunges", changedAfterExpunge},
	{"entries changed since a MODSEQ are found", changedSince},
	{"UIDs and sequence numbers map to each other", mapping},
	{"only the first session is told that a message is recent", recent},
	{"the first unseen message is found", firstUnseen},
	{"views are told after commits", told},
	{"watchers are told after commits", watched},
	{"a large mailbox keeps its order through many expunges", manyExpunges},
	{"a mailbox is read again after its index was dropped", reload},
}

func sequenceStable(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 5)
	v, w := h.view(in), h.view(in)
	defer v.Close()
	defer w.Close()
	h.expunge(in, 2, 4)
	u := v.Sync(false)
	h.equal("without expunges", []any{u.Expunged, u.Exists}, []any{[]int{}, 5})
	if _, ok := v.Entry(2); ok {
		h.Error("an expunged entry is shown")
	}
	e, ok := v.Entry(3)
	h.equal("entry 3", []any{e.UID, ok, v.UID(2), v.UID(4)}, []any{3, true, 2, 4})
	var seqs []int
	h.ok(v.Entries(1, 5, func(seq int, _ *store.Entry) bool { seqs = append(seqs, seq); return true }))
	h.equal("entries", seqs, []int{1, 3, 5})
	u = v.Sync(true)
	h.equal("with expunges", []any{u.Expunged, u.Exists}, []any{[]int{4, 2}, 3})
	h.equal("UIDs", []store.UID{v.UID(1), v.UID(2), v.UID(3), v.UID(4)}, []store.UID{1, 3, 5, 0})
	u = v.Sync(true)
	h.equal("once", []any{u.Expunged, u.Exists, u.Changed}, []any{[]int{}, 3, []int{}})
	h.equal("the other view", []any{w.Len(), w.UID(2)}, []any{5, 2})
	h.expunge(in, 5)
	h.equal("the other view, later", w.Sync(true).Expunged, []int{5, 4, 2})
}

func appendWhileStale(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 3)
	v := h.view(in)
	defer v.Close()
	h.expunge(in, 2)
	h.fill(in, 2)
	h.equal("exists", v.Sync(false).Exists, 5)
	h.equal("numbers", []store.UID{v.UID(4), v.UID(5)}, []store.UID{4, 5})
	seq, ok := v.Seq(5)
	h.equal("seq", []any{seq, ok}, []any{5, true})
	h.expunge(in, 4)
	h.fill(in, 1)
	h.equal("exists", v.Sync(false).Exists, 6)
	if _, ok := v.Entry(4); ok {
		h.Error("an expunged entry is shown")
	}
	h.flags(in, []store.UID{6}, store.FlagsAdd, store.Seen)
	u := v.Sync(false)
	h.equal("changed", u.Changed, []int{6})
	u = v.Sync(true)
	h.equal("all told", []any{u.Expunged, u.Exists}, []any{[]int{4, 2}, 4})
	h.equal("UIDs", []store.UID{v.UID(1), v.UID(2), v.UID(3), v.UID(4)}, []store.UID{1, 3, 5, 6})
}

func comeAndGo(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 1)
	v := h.view(in)
	defer v.Close()
	h.fill(in, 2)
	h.expunge(in, 2, 3)
	u := v.Sync(true)
	h.equal("update", []any{u.Expunged, u.Exists}, []any{[]int{}, 1})
	h.fill(in, 1)
	h.equal("exists", v.Sync(true).Exists, 2)
}

func changedOnce(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 3)
	v := h.view(in)
	defer v.Close()
	h.equal("at first", v.Sync(true).Changed, []int{})
	h.flags(in, uids[1:], store.FlagsAdd, store.Seen)
	h.flags(in, uids[1:2], store.FlagsAdd, store.Flagged)
	h.equal("changed", v.Sync(true).Changed, []int{2, 3})
	h.equal("once", v.Sync(true).Changed, []int{})
	h.fill(in, 1)
	u := v.Sync(true)
	h.equal("a new message is not a change", []any{u.Changed, u.Exists}, []any{[]int{}, 4})
	h.equal("as of the last sync", v.Mailbox().HighestModSeq, h.box("INBOX").HighestModSeq)
	h.flags(in, uids[:1], store.FlagsAdd, store.Seen)
	if v.Mailbox().HighestModSeq >= h.box("INBOX").HighestModSeq {
		h.Error("HIGHESTMODSEQ tells of a change that the session has not seen")
	}
}

func changedAfterExpunge(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 5)
	v := h.view(in)
	defer v.Close()
	h.flags(in, []store.UID{2, 5}, store.FlagsAdd, store.Seen)
	h.expunge(in, 1, 2)
	u := v.Sync(true)
	h.equal("update", []any{u.Expunged, u.Changed, u.Exists}, []any{[]int{2, 1}, []int{3}, 3})
}

func changedSince(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 5)
	since := h.box("INBOX").HighestModSeq
	h.flags(in, []store.UID{2, 4}, store.FlagsAdd, store.Seen)
	v := h.view(in)
	defer v.Close()
	h.expunge(in, 1)
	var got []int
	h.ok(v.ChangedSince(since, func(seq int, e *store.Entry) bool {
		got = append(got, seq, int(e.UID))
		return true
	}))
	h.equal("changed", got, []int{2, 2, 4, 4})
	got = nil
	h.ok(v.ChangedSince(0, func(seq int, _ *store.Entry) bool {
		got = append(got, seq)
		return len(got) < 2
	}))
	h.equal("stopped", got, []int{2, 3})
}

func mapping(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 10)
	h.expunge(in, 1, 5, 6, 10)
	v := h.view(in)
	defer v.Close()
	for _, c := range []struct {
		lo, hi      store.UID
		first, last int
	}{{1, 10, 1, 6}, {2, 2, 1, 1}, {5, 6, 4, 3}, {4, 7, 3, 4}, {10, 4294967295, 7, 6}, {9, 4294967295, 6, 6}, {7, 4, 1, 0}} {
		first, last := v.SeqRange(c.lo, c.hi)
		h.equal("range", []any{c.lo, c.hi, first, last}, []any{c.lo, c.hi, c.first, c.last})
	}
	_, ok := v.Seq(5)
	h.equal("no such UID", ok, false)
	h.equal("no such number", []store.UID{v.UID(0), v.UID(-1), v.UID(7)}, []store.UID{0, 0, 0})
	for _, seq := range []int{0, -1, 7} {
		if _, ok := v.Entry(seq); ok {
			h.Errorf("entry %d", seq)
		}
	}
}

func recent(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 2)
	peek := h.view(in, store.Peek())
	h.equal("peek", []any{peek.RecentCount(), peek.Recent(1)}, []any{2, true})
	peek.Close()
	a := h.view(in)
	defer func() { a.Close() }()
	h.equal("first session", []any{a.RecentCount(), a.FirstRecent()}, []any{2, 1})
	b := h.view(in)
	defer func() { b.Close() }()
	h.equal("second session", []any{b.RecentCount(), b.FirstRecent()}, []any{0, 3})
	h.fill(in, 1)
	h.equal("told first", b.Sync(true).NewRecent, 1)
	h.equal("told second", a.Sync(true).NewRecent, 0)
	h.fill(in, 1)
	h.equal("told first", a.Sync(true).NewRecent, 1)
	h.equal("told second", b.Sync(true).NewRecent, 0)
	h.equal("of a", []bool{a.Recent(1), a.Recent(2), a.Recent(3), a.Recent(4)}, []bool{true, true, false, true})
	h.equal("of b", []bool{b.Recent(1), b.Recent(2), b.Recent(3), b.Recent(4)}, []bool{false, false, true, false})
	h.expunge(in, 2)
	a.Sync(true)
	h.equal("count", a.RecentCount(), 2)
	a.Close()
	b.Close()
	h.restart()
	a = h.view(in)
	b = h.view(in)
	h.equal("after restart", a.RecentCount(), 0)
}

func firstUnseen(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 4)
	v := h.view(in)
	defer v.Close()
	first := func() int {
		n, err := v.FirstUnseen()
		h.ok(err)
		return n
	}
	h.equal("none seen", first(), 1)
	h.flags(in, uids[:2], store.FlagsAdd, store.Seen)
	h.equal("two seen", first(), 3)
	h.flags(in, uids, store.FlagsAdd, store.Seen)
	h.equal("all seen", first(), 0)
	h.flags(in, uids[3:], store.FlagsRemove, store.Seen)
	h.equal("the last", first(), 4)
	h.expunge(in, 4)
	v.Sync(true)
	h.equal("gone", first(), 0)
}

func told(h *harness) {
	in := h.box("INBOX").ID
	calls := make(chan struct{}, 10)
	v, err := h.s.View(h.Context(), 1, in, func() { calls <- struct{}{} })
	h.ok(err)
	defer v.Close()
	h.fill(in, 1)
	<-calls
	h.fill(in, 1) // not told again before Sync
	h.equal("exists", v.Sync(true).Exists, 2)
	h.equal("calls waiting", len(calls), 0)
	h.flags(in, []store.UID{1}, store.FlagsAdd, store.Seen)
	<-calls
	v.Sync(true)
	h.expunge(in, 1)
	<-calls
	v.Sync(true)
	m := h.create("other")
	h.fill(m.ID, 1)
	w, err := h.s.View(h.Context(), 1, m.ID, func() { calls <- struct{}{} })
	h.ok(err)
	h.ok(h.s.DeleteMailbox(h.Context(), 1, m.ID))
	<-calls
	h.equal("gone", w.Sync(true).Gone, true)
	w.Close()
	h.equal("exists", v.Sync(true).Exists, 1)
}

func watched(h *harness) {
	h.account(2)
	calls := make(chan int, 100)
	var quiet atomic.Bool
	stop := h.s.Watch(1, func() {
		if !quiet.Load() {
			calls <- 1
		}
	})
	stopOther := h.s.Watch(2, func() { calls <- 2 })
	defer stopOther()
	told := func(what string, acct int) {
		h.Helper()
		for got := range calls { // where there are other nodes, all may be told that something may have changed
			if got == acct {
				return
			}
			if h.s.Node() != "" {
				continue
			}
			h.Fatalf("%s: account %d is told of, not %d", what, got, acct)
		}
	}
	h.fill(h.box("INBOX").ID, 1)
	told("append", 1)
	h.create("a")
	told("create", 1)
	h.ok(h.s.Subscribe(h.Context(), 1, "b", true))
	told("subscribe", 1)
	quiet.Store(true)
	stop()
	_, err := h.s.Deliver(h.Context(), store.Delivery{Content: h.message().Content, Local: []store.NewEntry{{Account: 1}, {Account: 2}}})
	h.ok(err)
	told("delivery to another", 2)
	queue := make(chan struct{}, 100)
	stopQueue := h.s.WatchQueue(func() { queue <- struct{}{} })
	h.write(func(tx *store.Tx) error {
		tx.NotifyQueue()
		return tx.ReleaseBlob(1 << 40) // something that writes
	})
	<-queue
	stopQueue()
}

func manyExpunges(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 3000)
	v := h.view(in)
	defer v.Close()
	list := h.uids(in)
	next := uint32(7)
	for range 30 {
		var gone []store.UID
		for _, u := range list {
			next = next*1664525 + 1013904223
			if next>>24 < 40 {
				gone = append(gone, u)
			}
		}
		h.expunge(in, gone...)
		h.fill(in, 10)
		u := v.Sync(true)
		list = applyExpunges(list, u)
		for seq := len(list) + 1; seq <= u.Exists; seq++ {
			list = append(list, v.UID(seq))
		}
		h.equal("length", len(list), v.Len())
		for i, uid := range list {
			if v.UID(i+1) != uid {
				h.Fatalf("number %d is %d, want %d", i+1, v.UID(i+1), uid)
			}
			if seq, ok := v.Seq(uid); !ok || seq != i+1 {
				h.Fatalf("UID %d is number %d, want %d", uid, seq, i+1)
			}
		}
	}
}

func reload(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 50)
	h.flags(in, []store.UID{3, 9}, store.FlagsAdd, store.Seen, "kw")
	before := h.entries(in)
	h.restart()
	v := h.view(in)
	defer v.Close()
	h.equal("entries", entriesOf(v), before)
	h.expunge(in, 1)
	h.flags(in, []store.UID{2}, store.FlagsAdd, 0, "other")
	h.equal("later", v.Sync(true).Expunged, []int{1})
	e, _ := v.Entry(1)
	h.equal("keywords", e.Keywords, []string{"other"})
}

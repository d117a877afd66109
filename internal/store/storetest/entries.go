package storetest

import (
	"fmt"
	"slices"
	"time"

	"waxwing/internal/store"
)

var entryChecks = []check{
	{"UIDs ascend over expunges and restarts", uidsAscend},
	{"MODSEQ ascends with each change, one for each operation", modseqAscends},
	{"flags are set, added and removed", flagsChange},
	{"keywords are compared without case and keep their first form", keywords},
	{"keywords in use are bounded, unused ones make room", keywordLimit},
	{"a conditional change leaves what changed since", conditional},
	{"a change that changes nothing writes nothing", noChange},
	{"UIDs that don't exist are left out", missingUIDs},
	{"scattered UIDs are handled as ranges are", scattered},
	{"expunge removes what is flagged deleted, or what is named", expunging},
	{"vanished UIDs are remembered", vanished},
	{"copy keeps flags, keywords and dates", copyKeeps},
	{"copy into the same mailbox makes new entries", copySelf},
	{"copy maps keywords that have other numbers", copyKeywords},
	{"a message goes with its last entry", lastEntry},
	{"move is one change for both mailboxes", moving},
	{"append is all or nothing", appendAll},
	{"imported unique ids are kept", importedUIDLs},
}

func uidsAscend(h *harness) {
	in := h.box("INBOX")
	h.equal("first", h.fill(in.ID, 3), []store.UID{1, 2, 3})
	h.expunge(in.ID, 2, 3)
	h.equal("after expunge", h.fill(in.ID, 1), []store.UID{4})
	h.expunge(in.ID, 1, 4)
	h.restart()
	h.equal("UIDNEXT", h.box("INBOX").UIDNext, 5)
	h.equal("after restart", h.fill(in.ID, 1), []store.UID{5})
	var ids []store.MessageID
	for _, e := range h.entries(in.ID) {
		ids = append(ids, e.Message)
	}
	h.expunge(in.ID, 5)
	h.restart()
	h.fill(in.ID, 1)
	if e := h.entries(in.ID)[0]; e.Message <= ids[0] {
		h.Errorf("message id %d after %d", e.Message, ids[0])
	}
}

func modseqAscends(h *harness) {
	in, trash := h.box("INBOX"), h.box("Trash")
	last := store.ModSeq(0)
	step := func(what string) {
		h.Helper()
		m := max(h.box("INBOX").HighestModSeq, h.box("Trash").HighestModSeq)
		if m <= last {
			h.Errorf("%s: HIGHESTMODSEQ %d after %d", what, m, last)
		}
		last = m
	}
	h.fill(in.ID, 4)
	step("append")
	h.flags(in.ID, []store.UID{1, 2}, store.FlagsAdd, store.Seen)
	step("flags")
	e := h.entries(in.ID)
	if e[0].ModSeq != e[1].ModSeq || e[0].ModSeq != h.box("INBOX").HighestModSeq || e[2].ModSeq >= e[0].ModSeq {
		h.Errorf("entries %+v", e)
	}
	_, _, _, err := h.s.Copy(h.Context(), 1, in.ID, []store.UID{1}, trash.ID)
	h.ok(err)
	step("copy")
	_, _, _, err = h.s.Move(h.Context(), 1, in.ID, []store.UID{2}, trash.ID)
	h.ok(err)
	step("move")
	h.equal("both mailboxes of a move", h.box("INBOX").HighestModSeq, h.box("Trash").HighestModSeq)
	h.expunge(in.ID, 1)
	step("expunge")
	h.restart()
	h.flags(in.ID, []store.UID{3}, store.FlagsAdd, store.Flagged)
	step("after restart")
}

func flagsChange(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 3)
	state := func() string {
		h.Helper()
		out := ""
		for _, e := range h.entries(in) {
			out += fmt.Sprint(e.Flags, e.Keywords, " ")
		}
		return out
	}
	h.equal("changed", h.flags(in, uids, store.FlagsSet, store.Seen|store.Draft, "a", "b"), uids)
	h.equal("set", state(), "17 [a b] 17 [a b] 17 [a b] ")
	h.equal("changed", h.flags(in, uids[:2], store.FlagsAdd, store.Flagged, "c"), uids[:2])
	h.equal("added", state(), "21 [a b c] 21 [a b c] 17 [a b] ")
	h.equal("changed", h.flags(in, uids[1:], store.FlagsRemove, store.Seen|store.Answered, "a", "unknown"), uids[1:])
	h.equal("removed", state(), "21 [a b c] 20 [b c] 16 [b] ")
	h.equal("changed", h.flags(in, uids[2:], store.FlagsSet, 0), uids[2:])
	h.equal("cleared", state(), "21 [a b c] 20 [b c] 0 [] ")
	h.equal("only system flags that exist", len(h.flags(in, uids[2:], store.FlagsSet, 0x80)), 0)
	m := h.box("INBOX")
	h.equal("unseen and deleted", []uint32{m.Unseen, m.Deleted}, []uint32{2, 0})
	h.flags(in, uids, store.FlagsAdd, store.Deleted)
	h.equal("deleted", h.box("INBOX").Deleted, 3)
}

func keywords(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 2)
	h.flags(in, uids[:1], store.FlagsAdd, 0, "$Forwarded", "发票")
	h.equal("changed by another case", len(h.flags(in, uids[:1], store.FlagsAdd, 0, "$FORWARDED")), 0)
	h.flags(in, uids[1:], store.FlagsAdd, 0, "$forwarded")
	h.equal("first form", h.entries(in)[1].Keywords, []string{"$Forwarded"})
	v := h.view(in)
	h.equal("known", v.Keywords(), []string{"$Forwarded", "发票"})
	v.Close()
	_, _, err := h.s.StoreFlags(h.Context(), 1, in, uids, store.FlagChange{Op: store.FlagsAdd, Keywords: []string{""}})
	h.is(err, store.ErrName)
	h.restart()
	h.equal("after restart", h.entries(in)[0].Keywords, []string{"$Forwarded", "发票"})
}

func keywordLimit(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 2)
	var names []string
	for i := range 64 {
		names = append(names, fmt.Sprintf("k%d", i))
	}
	h.flags(in, uids[:1], store.FlagsAdd, 0, names...)
	h.equal("all", len(h.entries(in)[0].Keywords), 64)
	_, _, err := h.s.StoreFlags(h.Context(), 1, in, uids, store.FlagChange{Op: store.FlagsAdd, Keywords: []string{"one more"}})
	h.is(err, store.ErrLimit)
	h.flags(in, uids[:1], store.FlagsRemove, 0, "k0", "k63")
	h.flags(in, uids[1:], store.FlagsAdd, 0, "one more", "another")
	h.equal("reused", h.entries(in)[1].Keywords, []string{"one more", "another"})
	h.equal("others", len(h.entries(in)[0].Keywords), 62)
	_, _, err = h.s.StoreFlags(h.Context(), 1, in, uids, store.FlagChange{Op: store.FlagsAdd, Keywords: []string{"k0"}})
	h.is(err, store.ErrLimit)
	h.restart()
	h.equal("after restart", h.entries(in)[1].Keywords, []string{"one more", "another"})
}

func conditional(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 4)
	since := h.box("INBOX").HighestModSeq
	h.flags(in, uids[1:2], store.FlagsAdd, store.Flagged)
	changed, failed, err := h.s.StoreFlags(h.Context(), 1, in, uids, store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen, Conditional: true, UnchangedSince: since})
	h.ok(err)
	h.equal("changed", changed, []store.UID{1, 3, 4})
	h.equal("failed", failed, []store.UID{2})
	h.equal("left alone", h.entries(in)[1].Flags, store.Flagged)
	changed, failed, err = h.s.StoreFlags(h.Context(), 1, in, uids, store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen, Conditional: true})
	h.ok(err)
	h.equal("since 0", []any{changed, failed}, []any{[]store.UID{}, uids})
}

func noChange(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 3)
	h.flags(in, uids[:1], store.FlagsAdd, store.Seen)
	before := h.box("INBOX")
	h.equal("changed", h.flags(in, uids[:1], store.FlagsAdd, store.Seen), []store.UID{})
	h.equal("mailbox", h.box("INBOX"), before)
	h.equal("changed", h.flags(in, uids, store.FlagsAdd, store.Seen), uids[1:])
}

func missingUIDs(h *harness) {
	in, trash := h.box("INBOX").ID, h.box("Trash").ID
	h.fill(in, 3)
	h.expunge(in, 2)
	h.equal("flags", h.flags(in, []store.UID{1, 2, 3, 7, 4294967295}, store.FlagsAdd, store.Seen), []store.UID{1, 3})
	from, to, _, err := h.s.Copy(h.Context(), 1, in, []store.UID{2, 3, 9}, trash)
	h.ok(err)
	h.equal("copy", []any{from, to}, []any{[]store.UID{3}, []store.UID{1}})
	from, _, _, err = h.s.Copy(h.Context(), 1, in, []store.UID{2, 9}, trash)
	h.ok(err)
	h.equal("copy of nothing", from, []store.UID{})
	got, err := h.s.Expunge(h.Context(), 1, in, []store.UID{2, 3, 9}, false)
	h.ok(err)
	h.equal("expunge", got, []store.UID{3})
	got, err = h.s.Expunge(h.Context(), 1, in, nil, false)
	h.ok(err)
	h.equal("expunge of an empty set", got, []store.UID{})
}

func scattered(h *harness) {
	in, trash := h.box("INBOX").ID, h.box("Trash").ID
	h.fill(in, 300)
	var odd []store.UID
	for u := store.UID(1); u <= 300; u += 2 {
		odd = append(odd, u)
	}
	h.equal("flags", h.flags(in, odd, store.FlagsAdd, store.Seen, "x"), odd)
	from, to, _, err := h.s.Copy(h.Context(), 1, in, odd, trash)
	h.ok(err)
	h.equal("copied", []any{from, len(to), to[0], to[149]}, []any{odd, 150, 1, 150})
	src, dst := h.entries(in), h.entries(trash)
	for i := range odd {
		if s, d := src[2*i], dst[i]; s.Message != d.Message || s.Flags != d.Flags || !slices.Equal(s.Keywords, d.Keywords) {
			h.Fatalf("%+v copied as %+v", s, d)
		}
	}
	h.expunge(in, odd...)
	h.equal("left", len(h.uids(in)), 150)
	even := h.uids(in)
	from, _, _, err = h.s.Move(h.Context(), 1, in, even, trash)
	h.ok(err)
	h.equal("moved", from, even)
	h.equal("left", h.uids(in), []store.UID{})
}

func expunging(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 6)
	h.flags(in, []store.UID{2, 4, 6}, store.FlagsAdd, store.Deleted)
	got, err := h.s.Expunge(h.Context(), 1, in, []store.UID{1, 2, 3}, true)
	h.ok(err)
	h.equal("deleted ones of a set", got, []store.UID{2})
	got, err = h.s.ExpungeAll(h.Context(), 1, in, true)
	h.ok(err)
	h.equal("all deleted ones", got, []store.UID{4, 6})
	h.equal("left", h.uids(in), []store.UID{1, 3, 5})
	got, err = h.s.ExpungeAll(h.Context(), 1, in, false)
	h.ok(err)
	h.equal("all", got, []store.UID{1, 3, 5})
	h.equal("contents left", h.number(`SELECT count(*) FROM blob`), 0)
}

func vanished(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 6)
	start := h.box("INBOX").HighestModSeq
	h.expunge(in, 5, 6)
	middle := h.box("INBOX").HighestModSeq
	h.expunge(in, 1, 3)
	_, _, _, err := h.s.Move(h.Context(), 1, in, []store.UID{4}, h.box("Trash").ID)
	h.ok(err)
	h.restart()
	for _, c := range []struct {
		since store.ModSeq
		want  []store.UID
	}{{0, []store.UID{1, 3, 4, 5, 6}}, {start, []store.UID{1, 3, 4, 5, 6}}, {middle, []store.UID{1, 3, 4}}, {h.box("INBOX").HighestModSeq, nil}} {
		got, err := h.s.Vanished(h.Context(), 1, in, c.since)
		h.ok(err)
		h.equal(fmt.Sprint("since ", c.since), got, c.want)
	}
}

func copyKeeps(h *harness) {
	in, arc := h.box("INBOX").ID, h.box("Archive")
	uids := h.fill(in, 3)
	h.flags(in, uids[:2], store.FlagsAdd, store.Seen|store.Flagged, "work")
	h.advance(time.Hour)
	from, to, validity, err := h.s.Copy(h.Context(), 1, in, uids, arc.ID)
	h.ok(err)
	h.equal("answer", []any{from, to, validity}, []any{uids, []store.UID{1, 2, 3}, arc.UIDValidity})
	src, dst := h.entries(in), h.entries(arc.ID)
	for i := range dst {
		s, d := src[i], dst[i]
		if s.Message != d.Message || s.Flags != d.Flags || !slices.Equal(s.Keywords, d.Keywords) || !s.InternalDate.Equal(d.InternalDate) ||
			s.Size != d.Size || d.SavedAt.Sub(s.SavedAt) != time.Hour || s.ModSeq >= d.ModSeq {
			h.Errorf("%+v copied as %+v", s, d)
		}
	}
}

func copySelf(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 3)
	for range 3 {
		from, _, _, err := h.s.Copy(h.Context(), 1, in, h.uids(in), in)
		h.ok(err)
		uids = append(uids, from...)
	}
	h.equal("entries", len(h.uids(in)), 24)
	h.equal("messages", h.number(`SELECT count(*) FROM message`), 3)
	h.equal("counted", h.number(`SELECT sum(entries) FROM shared_message`), 24)
	from, to, _, err := h.s.Move(h.Context(), 1, in, []store.UID{1, 2}, in)
	h.ok(err)
	h.equal("move", []any{from, to}, []any{[]store.UID{1, 2}, []store.UID{25, 26}})
	for len(h.uids(in)) > 0 {
		h.consistent(1)
		list := h.uids(in)
		h.expunge(in, list[:min(5, len(list))]...)
	}
	h.equal("messages left", h.number(`SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM shared_message) + (SELECT count(*) FROM blob)`), 0)
}

func copyKeywords(h *harness) {
	in, arc := h.box("INBOX").ID, h.box("Archive").ID
	a, b := h.fill(in, 20), h.fill(arc, 1)
	h.flags(in, a, store.FlagsAdd, 0, "one", "two", "three")
	h.flags(in, a[3:4], store.FlagsRemove, 0, "two")
	h.flags(in, a[4:5], store.FlagsSet, 0)
	h.flags(arc, b, store.FlagsAdd, 0, "three", "zero", "ONE")
	_, _, _, err := h.s.Copy(h.Context(), 1, in, a, arc)
	h.ok(err)
	got := h.entries(arc)[1:]
	h.equal("mapped", got[0].Keywords, []string{"three", "ONE", "two"})
	h.equal("without one", got[3].Keywords, []string{"three", "ONE"})
	h.equal("none", got[4].Keywords, []string{})
	h.restart()
	again := h.entries(arc)[1:]
	for i := range got {
		h.equal("after restart", again[i].Keywords, got[i].Keywords)
	}
}

func lastEntry(h *harness) {
	in, trash := h.box("INBOX").ID, h.box("Trash").ID
	uids := h.fill(in, 1)
	e := h.entries(in)[0]
	text := h.content(1, e.Message)
	_, _, _, err := h.s.Copy(h.Context(), 1, in, uids, trash)
	h.ok(err)
	h.expunge(in, uids...)
	h.equal("content", h.content(1, e.Message), text)
	h.expunge(trash, 1)
	h.restart()
	_, err = h.s.ReadBlob(h.Context(), 1, e.Message, nil)
	h.is(err, store.ErrNotFound)
	_, err = h.s.OpenBlob(h.Context(), 1, e.Message)
	h.is(err, store.ErrNotFound)
}

func moving(h *harness) {
	in, trash := h.box("INBOX").ID, h.box("Trash").ID
	uids := h.fill(in, 4)
	h.flags(in, uids, store.FlagsAdd, store.Seen, "x")
	before := h.entries(in)
	v, w := h.view(in), h.view(trash)
	defer v.Close()
	defer w.Close()
	from, to, validity, err := h.s.Move(h.Context(), 1, in, []store.UID{2, 3}, trash)
	h.ok(err)
	h.equal("answer", []any{from, to, validity}, []any{[]store.UID{2, 3}, []store.UID{1, 2}, h.box("Trash").UIDValidity})
	h.equal("source", v.Sync(true).Expunged, []int{3, 2})
	h.equal("target", w.Sync(true).Exists, 2)
	for i, e := range h.entries(trash) {
		if b := before[i+1]; e.Message != b.Message || e.Flags != b.Flags || !slices.Equal(e.Keywords, b.Keywords) {
			h.Errorf("%+v moved as %+v", b, e)
		}
	}
}

func appendAll(h *harness) {
	in := h.box("INBOX").ID
	bad := h.message()
	bad.Keywords = []string{""}
	_, err := h.s.Append(h.Context(), 1, in, []store.NewMessage{h.message(), bad})
	h.is(err, store.ErrName)
	h.equal("entries", h.uids(in), []store.UID{})
	h.equal("messages", h.number(`SELECT count(*) FROM message`), 0)
	m := h.message()
	m.Flags, m.Keywords = store.Seen|store.Draft, []string{"x"}
	m.InternalDate = time.Time{}
	h.equal("UIDs", h.append(in, m), []store.UID{1})
	e := h.entries(in)[0]
	h.equal("entry", []any{e.Flags, e.Keywords, e.InternalDate.Unix(), e.Size}, []any{store.Seen | store.Draft, []string{"x"}, h.clock().Unix(), m.Content.Size()})
	early := h.message()
	early.InternalDate = time.Date(1969, 7, 20, 20, 17, 0, 0, time.UTC)
	h.append(in, early)
	h.equal("an early date", h.entries(in)[1].InternalDate.Equal(early.InternalDate), true)
}

func importedUIDLs(h *harness) {
	in := h.box("INBOX").ID
	m := h.message()
	m.UIDL = "0000abcd4711"
	h.append(in, m, h.message())
	e := h.entries(in)
	got, err := h.s.UIDLs(h.Context(), 1)
	h.ok(err)
	h.equal("unique ids", got, map[store.MessageID]string{e[0].Message: "0000abcd4711"})
	if a, b := h.s.GUID(1, e[0].Message), h.s.GUID(1, e[1].Message); a == b || len(a) > 70 || a == h.s.GUID(2, e[0].Message) {
		h.Errorf("GUIDs %q, %q", a, b)
	}
}

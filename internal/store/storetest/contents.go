package storetest

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"waxwing/internal/store"
)

var contentChecks = []check{
	{"a delivery is there with all that it said", delivered},
	{"a delivery to several mailboxes of an account is one message", deliverTwice},
	{"a delivery makes a mailbox for a role that is missing", deliverRole},
	{"a delivery to nobody does nothing", deliverNobody},
	{"the same content is kept once", oneContent},
	{"a content is read through restarts and housekeeping", housekept},
	{"a content of some megabytes is kept", largeContent},
	{"summaries come in the order asked for", summaryOrder},
	{"a damaged summary harms one message", damagedSummary},
	{"replies share a thread", threads},
	{"a blob stays readable while it is open", openBlob},
	{"one session locks a maildrop", maildrop},
	{"a failing transaction harms no other", failingWrites},
	{"a closed store says so", closed},
}

func delivered(h *harness) {
	text := h.text()
	sum := store.Summary{
		HeaderSize: 55, Envelope: []byte(`("x" NIL)`), BodyStructure: []byte(`("text" "plain")`), SentAt: time.Unix(1_500_000_000, 0).UTC(),
		MessageID: "1@example.test", References: []string{"a@b", "c@d"}, BaseSubject: "发票", Preview: "Hello, 你好.", Attachments: true,
	}
	date := time.Unix(1_400_000_000, 0)
	d, err := h.s.Deliver(h.Context(), store.Delivery{
		Content: bytes.NewReader(text), Summary: sum,
		Local: []store.NewEntry{{Account: 1, Role: store.RoleJunk, Flags: store.Seen, Keywords: []string{"$Junk"}, InternalDate: date}},
	})
	h.ok(err)
	junk := h.box("Junk")
	h.equal("placed", d.Local, []store.Placed{{Mailbox: junk.ID, Message: d.Local[0].Message, UID: 1, UIDValidity: junk.UIDValidity}})
	for range 2 {
		e := h.entries(junk.ID)[0]
		h.equal("entry", []any{e.UID, e.Message, e.Flags, e.Keywords, e.Size, e.InternalDate.Unix(), e.SavedAt.Unix()},
			[]any{1, d.Local[0].Message, store.Seen, []string{"$Junk"}, len(text), date.Unix(), h.clock().Unix()})
		h.equal("content", h.content(1, e.Message), string(text))
		h.ok(h.s.Summaries(h.Context(), 1, []store.MessageID{e.Message}, func(_ store.MessageID, got *store.Summary) error {
			h.equal("summary", *got, sum)
			return nil
		}))
		h.restart()
	}
	_, err = h.s.ReadBlob(h.Context(), 2, d.Local[0].Message, nil)
	h.is(err, store.ErrNotFound) // another account's message
}

func deliverTwice(h *harness) {
	m := h.message()
	d, err := h.s.Deliver(h.Context(), store.Delivery{Content: m.Content, Summary: m.Summary, Local: []store.NewEntry{
		{Account: 1}, {Account: 1, Mailbox: h.box("Archive").ID}, {Account: 1},
	}})
	h.ok(err)
	if d.Local[0].Message != d.Local[1].Message || d.Local[0].UID != 1 || d.Local[2].UID != 2 {
		h.Errorf("%+v", d.Local)
	}
	h.expunge(h.box("INBOX").ID, 1, 2)
	h.content(1, d.Local[0].Message)
}

func deliverRole(h *harness) {
	h.ok(h.s.DeleteMailbox(h.Context(), 1, h.box("Junk").ID))
	deliver := func(role store.Role) error {
		_, err := h.s.Deliver(h.Context(), store.Delivery{Content: h.message().Content, Local: []store.NewEntry{{Account: 1, Role: role}}})
		return err
	}
	h.ok(deliver(store.RoleJunk))
	h.equal("made", []any{h.box("Junk").Role, h.box("Junk").Messages}, []any{store.RoleJunk, 1})
	h.ok(h.s.DeleteMailbox(h.Context(), 1, h.box("Junk").ID))
	h.create("Junk")
	h.ok(deliver(store.RoleJunk))
	h.equal("taken", []any{h.box("Junk").Role, h.box("Junk").Messages}, []any{store.RoleJunk, 1})
	h.ok(h.s.RenameMailbox(h.Context(), 1, h.box("Junk").ID, "Spam"))
	h.ok(deliver(store.RoleJunk))
	h.equal("renamed", h.box("Spam").Messages, 2)
	h.is(deliver("nonsense"), store.ErrNotFound)
}

func deliverNobody(h *harness) {
	d, err := h.s.Deliver(h.Context(), store.Delivery{Content: h.message().Content})
	h.ok(err)
	h.equal("delivered", d, store.Delivered{})
	h.equal("contents", h.number(`SELECT count(*) FROM blob`), 0)
}

func oneContent(h *harness) {
	h.account(2)
	text := strings.Repeat("the same\r\n", 100)
	deliver := func(accts ...store.AccountID) {
		h.Helper()
		d := store.Delivery{Content: strings.NewReader(text)}
		for _, a := range accts {
			d.Local = append(d.Local, store.NewEntry{Account: a})
		}
		_, err := h.s.Deliver(h.Context(), d)
		h.ok(err)
	}
	in := h.box("INBOX").ID
	deliver(1, 2)
	deliver(1)
	h.append(in, store.NewMessage{Content: strings.NewReader(text)}, store.NewMessage{Content: strings.NewReader(text)})
	h.equal("contents", h.number(`SELECT count(*) FROM blob`), 1)
	h.equal("references", h.number(`SELECT refs FROM blob`), 5)
	h.consistent(1)
	h.expunge(in, 1, 2, 3)
	h.equal("references", h.number(`SELECT refs FROM blob`), 2)
	h.equal("content", h.content(1, h.entries(in)[0].Message), text)
	h.expunge(in, 4)
	_, err := h.s.ExpungeAll(h.Context(), 2, 1, false)
	h.ok(err)
	h.equal("contents", h.number(`SELECT count(*) FROM blob`), 0)
	deliver(1)
	h.equal("content that came back", h.content(1, h.entries(in)[0].Message), text)
	h.restart()
	h.equal("after restart", h.content(1, h.entries(in)[0].Message), text)
}

func housekept(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 50)
	want := map[store.MessageID]string{}
	for _, e := range h.entries(in)[40:] {
		want[e.Message] = h.content(1, e.Message)
	}
	h.expunge(in, uids[:40]...)
	for range 3 {
		h.restart() // seals what was written
		h.ok(h.s.Housekeep(h.Context()))
		for id, text := range want {
			h.equal("content", h.content(1, id), text)
		}
		h.fill(in, 1)
	}
}

func largeContent(h *harness) {
	in := h.box("INBOX").ID
	text := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", 50_000)
	h.append(in, store.NewMessage{Content: strings.NewReader(text)}, h.message())
	e := h.entries(in)[0]
	if h.content(1, e.Message) != text {
		h.Error("content differs")
	}
	h.append(in, store.NewMessage{Content: strings.NewReader(text)})
	h.expunge(in, 1)
	h.restart()
	if h.content(1, h.entries(in)[1].Message) != text {
		h.Error("content differs")
	}
	h.expunge(in, 3)
	h.ok(h.s.Housekeep(h.Context()))
}

func summaryOrder(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 400)
	var ids []store.MessageID
	for _, e := range h.entries(in) {
		ids = append(ids, e.Message)
	}
	asked := append([]store.MessageID{1 << 40, ids[7], ids[3], ids[7]}, ids...)
	asked = append(asked, ids[0], 1<<41)
	var got []store.MessageID
	h.ok(h.s.Summaries(h.Context(), 1, asked, func(id store.MessageID, m *store.Summary) error {
		got = append(got, id)
		return nil
	}))
	h.equal("order", got, append(append([]store.MessageID{ids[7], ids[3], ids[7]}, ids...), ids[0]))
	h.ok(h.s.Summaries(h.Context(), 2, ids, func(store.MessageID, *store.Summary) error {
		h.Error("another account's message")
		return nil
	}))
	stop := errors.New("enough")
	n := 0
	err := h.s.Summaries(h.Context(), 1, ids, func(store.MessageID, *store.Summary) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	h.equal("stopped", []any{n, err}, []any{3, stop})
	// All were read before, and may be remembered: what is deleted is not.
	var uids []store.UID
	for _, e := range h.entries(in)[:200] {
		uids = append(uids, e.UID)
	}
	h.expunge(in, uids...)
	n = 0
	h.ok(h.s.Summaries(h.Context(), 1, ids, func(id store.MessageID, _ *store.Summary) error {
		n++
		return nil
	}))
	h.equal("after a deletion", n, 200)
}

func damagedSummary(h *harness) {
	in := h.box("INBOX").ID
	h.fill(in, 3)
	var ids []store.MessageID
	for _, e := range h.entries(in) {
		ids = append(ids, e.Message)
	}
	h.write(func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE message SET summary = $2 WHERE message_id = $1`, ids[1], []byte("\x01garbage"))
		return err
	})
	n := 0
	err := h.s.Summaries(h.Context(), 1, ids, func(store.MessageID, *store.Summary) error { n++; return nil })
	h.is(err, store.ErrCorrupt)
	h.equal("others", n, 2)
	h.content(1, ids[1])
}

func threads(h *harness) {
	in := h.box("INBOX").ID
	add := func(id string, refs ...string) {
		m := h.message()
		m.Summary.MessageID, m.Summary.References = id, refs
		h.append(in, m)
	}
	add("root@x")
	add("other@x")
	add("reply@x", "root@x")
	add("late@x", "gone@x", "missing@x")
	add("later@x", "gone@x", "elsewhere@x")
	add("answer@x", "root@x", "lost@x", "reply@x")
	add("")
	e := h.entries(in)
	thread := func(i int) int64 {
		h.Helper()
		return h.number(`SELECT thread_id FROM message WHERE message_id = $1`, e[i].Message)
	}
	h.equal("replies", []int64{thread(2), thread(5)}, []int64{thread(0), thread(0)})
	h.equal("with a common root that never came", thread(4), thread(3))
	seen := map[int64]bool{}
	for _, i := range []int{0, 1, 3, 6} {
		seen[thread(i)] = true
	}
	h.equal("threads", len(seen), 4)
}

func openBlob(h *harness) {
	in := h.box("INBOX").ID
	text := h.text()
	uids := h.append(in, store.NewMessage{Content: bytes.NewReader(text)})
	b, err := h.s.OpenBlob(h.Context(), 1, h.entries(in)[0].Message)
	h.ok(err)
	h.expunge(in, uids...)
	h.ok(h.s.Housekeep(h.Context()))
	got := make([]byte, b.Size())
	_, err = b.ReadAt(got, 0)
	h.ok(err)
	h.equal("content", string(got), string(text))
	h.ok(b.Close())
}

func maildrop(h *harness) {
	unlock := h.lockMaildrop("first", 1, true)
	h.lockMaildrop("second", 1, false)
	other := h.lockMaildrop("another", 2, true)
	other()
	unlock()
	again := h.lockMaildrop("after unlock", 1, true)
	unlock() // once more: not the other's lock
	h.lockMaildrop("still locked", 1, false)
	again()
}

// lockMaildrop asks for a maildrop, and says whether it should be given.
func (h *harness) lockMaildrop(what string, acct store.AccountID, want bool) (unlock func()) {
	h.Helper()
	unlock, ok, err := h.s.LockMaildrop(h.Context(), acct)
	h.ok(err)
	h.equal(what, ok, want)
	return unlock
}

func failingWrites(h *harness) {
	boom := errors.New("boom")
	in := h.box("INBOX").ID
	results := make(chan error, 60)
	for i := range 60 {
		go func() {
			switch i % 3 {
			case 0:
				results <- h.s.Write(h.Context(), func(tx *store.Tx) error {
					if err := tx.ReleaseBlob(1 << 40); err != nil {
						return err
					}
					return boom
				})
			case 1:
				results <- h.s.Write(h.Context(), func(*store.Tx) error { panic(boom) })
			default:
				_, err := h.s.Append(h.Context(), 1, in, []store.NewMessage{{Content: strings.NewReader(strings.Repeat("x", i+1))}})
				results <- err
			}
		}()
	}
	failed := 0
	for range 60 {
		if err := <-results; err != nil {
			failed++
		}
	}
	h.equal("failed", failed, 40)
	h.equal("appended", h.box("INBOX").Messages, 20)
}

func closed(h *harness) {
	s := h.s
	h.stop()
	err := s.Write(h.Context(), func(*store.Tx) error { return nil })
	h.is(err, store.ErrClosed)
	h.ok(s.Close())
}

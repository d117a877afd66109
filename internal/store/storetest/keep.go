package storetest

import (
	"time"

	"waxwing/internal/store"
)

var keepChecks = []check{
	{"what is expunged can be restored with all that it had", restoreEntries},
	{"a deleted mailbox can be restored with its entries", restoreMailbox},
	{"an entry goes back to a mailbox of the old name", restoreByName},
	{"what is not kept is gone at once", notKept},
	{"expunged entries are gone for good after their time", purgedInTime},
	{"a clock that jumps lets nothing go", clockJumps},
	{"expunged entries are gone for good when an administrator says so", purgedNow},
	{"expunged entries are listed in pages and by what they were", expungedPages},
	{"what was copied and expunged is restored to each place", restoreShared},
	{"a hold keeps everything", holdKeeps},
	{"a hold can't be set or ended twice", holdTwice},
	{"a deleted account leaves nothing", deletedAccount},
	{"trash and junk are emptied by age", retention},
	{"a policy of a domain empties the mailboxes of its accounts", domainRetention},
	{"tombstones are forgotten after their time, and the horizon says so", horizon},
	{"the quota of a domain binds its accounts together", domainQuota},
	{"crossing a level of the quota is told once", quotaNotices},
}

const day = 24 * time.Hour

// keep sets a policy that keeps what is expunged for two weeks.
func (h *harness) keep() { h.s.SetPolicy(store.Policy{Undelete: 14 * day}) }

func (h *harness) expunged() []store.Expunged {
	h.Helper()
	list, err := h.s.Expunged(h.Context(), 1, store.ExpungedQuery{})
	h.ok(err)
	return list
}

func (h *harness) ids(list []store.Expunged) []store.ExpungedID {
	out := make([]store.ExpungedID, len(list))
	for i := range list {
		out[i] = list[i].ExpungedID
	}
	return out
}

func (h *harness) restore(list []store.Expunged) []store.Restored {
	h.Helper()
	done, err := h.s.Restore(h.Context(), 1, h.ids(list))
	h.ok(err)
	h.equal("restored", len(done), len(list))
	return done
}

func (h *harness) housekeep() {
	h.Helper()
	h.ok(h.s.Housekeep(h.Context()))
}

func restoreEntries(h *harness) {
	h.keep()
	in := h.box("INBOX")
	uids := h.fill(in.ID, 3)
	h.flags(in.ID, uids[:1], store.FlagsAdd, store.Flagged|store.Deleted, "$Forwarded", "发票")
	before := h.entries(in.ID)
	text := h.content(1, before[0].Message)
	h.advance(time.Hour)
	_, err := h.s.Expunge(store.WithActor(h.Context(), "test"), 1, in.ID, uids[:2], false)
	h.ok(err)
	h.equal("left", h.uids(in.ID), uids[2:])
	u, err := h.s.Usage(h.Context(), 1)
	h.ok(err)
	h.equal("messages that count", u.Messages, 1)
	h.consistent(1)
	h.restart()
	h.keep()
	h.advance(13 * day)
	h.housekeep()

	list := h.expunged()
	h.equal("expunged", len(list), 2)
	e := list[0]
	h.equal("what is known", []any{e.Mailbox, e.UID, e.Name, e.Gone, e.Flags, e.Keywords, e.Size, e.Actor},
		[]any{in.ID, uids[0], "INBOX", false, store.Flagged | store.Deleted, []string{"$Forwarded", "发票"}, before[0].Size, "test"})
	v := h.view(in.ID, store.Peek())
	defer v.Close()
	done := h.restore(list)
	h.equal("a session sees them arrive", v.Sync(true).Exists, 3)
	h.equal("new UIDs", []store.UID{done[0].To.UID, done[1].To.UID}, []store.UID{4, 5})
	now := h.entries(in.ID)[1]
	h.equal("entry", []any{now.Message, now.Flags, now.Keywords, now.Size, now.InternalDate.Unix()},
		[]any{before[0].Message, store.Flagged, []string{"$Forwarded", "发票"}, before[0].Size, before[0].InternalDate.Unix()})
	h.equal("octets", h.content(1, now.Message), text)
	h.equal("left to restore", len(h.expunged()), 0)
	again, err := h.s.Restore(h.Context(), 1, h.ids(list))
	h.ok(err)
	h.equal("restored twice", len(again), 0)
}

func restoreMailbox(h *harness) {
	h.keep()
	box := h.create("Projects/Wax")
	uids := h.fill(box.ID, 3)
	h.flags(box.ID, uids[1:2], store.FlagsAdd, store.Seen, "later")
	h.ok(h.s.DeleteMailbox(h.Context(), 1, box.ID))
	h.consistent(1)
	gone, err := h.s.DeletedMailboxes(h.Context(), 1)
	h.ok(err)
	h.equal("deleted", []any{len(gone), gone[0].Name, gone[0].ID}, []any{1, "Projects/Wax", box.ID})
	list := h.expunged()
	h.equal("entries", []any{len(list), list[0].Name, list[0].Gone}, []any{3, "Projects/Wax", true})
	h.restore(list)
	back := h.box("Projects/Wax")
	if back.UIDValidity <= box.UIDValidity || back.ID == box.ID {
		h.Errorf("the mailbox came back as %+v after %+v", back, box)
	}
	entries := h.entries(back.ID)
	h.equal("back", []any{len(entries), entries[1].Flags, entries[1].Keywords}, []any{3, store.Seen, []string{"later"}})

	empty := h.create("Empty")
	h.ok(h.s.DeleteMailbox(h.Context(), 1, empty.ID))
	name, err := h.s.RestoreMailbox(h.Context(), 1, empty.ID)
	h.ok(err)
	h.equal("name", []any{name, h.box("Empty").Messages}, []any{"Empty", 0})
}

func restoreByName(h *harness) {
	h.keep()
	box := h.create("Work")
	h.fill(box.ID, 1)
	h.ok(h.s.DeleteMailbox(h.Context(), 1, box.ID))
	second := h.create("Work")
	h.fill(second.ID, 1)
	h.restore(h.expunged())
	h.equal("together", len(h.entries(second.ID)), 2)
}

func notKept(h *harness) {
	in := h.box("INBOX")
	uids := h.fill(in.ID, 2)
	id := h.entries(in.ID)[0].Message
	h.expunge(in.ID, uids[0])
	h.equal("expunged", len(h.expunged()), 0)
	_, err := h.s.ReadBlob(h.Context(), 1, id, nil)
	h.is(err, store.ErrNotFound)
}

func purgedInTime(h *harness) {
	h.keep()
	in, box := h.box("INBOX"), h.create("Gone")
	uids := h.fill(in.ID, 3)
	h.fill(box.ID, 1)
	first := h.entries(in.ID)[0].Message
	h.expunge(in.ID, uids[0])
	h.ok(h.s.DeleteMailbox(h.Context(), 1, box.ID))
	h.advance(10 * day)
	h.expunge(in.ID, uids[1])
	h.advance(5 * day)
	h.housekeep()
	list := h.expunged()
	h.equal("left", []any{len(list), list[0].UID}, []any{1, uids[1]})
	_, err := h.s.ReadBlob(h.Context(), 1, first, nil)
	h.is(err, store.ErrNotFound)
	gone, err := h.s.DeletedMailboxes(h.Context(), 1)
	h.ok(err)
	h.equal("deleted mailboxes", len(gone), 0)
	h.equal("contents", h.number(`SELECT count(*) FROM blob`), 2)
}

func purgedNow(h *harness) {
	h.keep()
	in := h.box("INBOX")
	h.expunge(in.ID, h.fill(in.ID, 3)...)
	list := h.expunged()
	n, err := h.s.PurgeExpunged(h.Context(), 1, h.ids(list)[:2])
	h.ok(err)
	h.equal("purged", n, 2)
	h.equal("left", len(h.expunged()), 1)
	h.equal("contents", h.number(`SELECT count(*) FROM blob`), 1)
	n, err = h.s.PurgeExpunged(h.Context(), 1, h.ids(list)[:2])
	h.ok(err)
	h.equal("purged again", n, 0)
}

func expungedPages(h *harness) {
	h.keep()
	in, trash := h.box("INBOX"), h.box("Trash")
	a, b := h.fill(in.ID, 5), h.fill(trash.ID, 4)
	h.expunge(in.ID, a...)
	h.advance(time.Hour)
	h.expunge(trash.ID, b...)
	var q store.ExpungedQuery
	q.Limit = 4
	var got []store.ExpungedID
	for {
		page, err := h.s.Expunged(h.Context(), 1, q)
		h.ok(err)
		if len(page) == 0 {
			break
		}
		got = append(got, h.ids(page)...)
		last := page[len(page)-1]
		q.After, q.AfterAt = last.ExpungedID, last.At
	}
	var want []store.ExpungedID
	for _, u := range a {
		want = append(want, store.ExpungedID{Mailbox: in.ID, UID: u})
	}
	for _, u := range b {
		want = append(want, store.ExpungedID{Mailbox: trash.ID, UID: u})
	}
	h.equal("pages", got, want)
	named, err := h.s.Expunged(h.Context(), 1, store.ExpungedQuery{Mailbox: "Trash"})
	h.ok(err)
	since, err := h.s.Expunged(h.Context(), 1, store.ExpungedQuery{Since: h.clock()})
	h.ok(err)
	h.equal("by name and by time", []int{len(named), len(since)}, []int{4, 4})
}

func restoreShared(h *harness) {
	h.keep()
	in, trash := h.box("INBOX"), h.box("Trash")
	uids := h.fill(in.ID, 2)
	_, _, _, err := h.s.Copy(h.Context(), 1, in.ID, uids, trash.ID)
	h.ok(err)
	h.expunge(in.ID, uids...)
	h.expunge(trash.ID, uids...)
	h.consistent(1)
	h.restore(h.expunged())
	h.equal("both places", []int{len(h.entries(in.ID)), len(h.entries(trash.ID))}, []int{2, 2})
	h.consistent(1)
	h.s.SetPolicy(store.Policy{})
	h.expunge(in.ID, h.uids(in.ID)...)
	h.equal("messages", h.number(`SELECT count(*) FROM message`), 2)
	h.expunge(trash.ID, h.uids(trash.ID)...)
	h.equal("messages", h.number(`SELECT count(*) FROM message`), 0)
}

func holdKeeps(h *harness) {
	ctx := store.WithActor(h.Context(), "auditor")
	in, box := h.box("INBOX"), h.create("Secret")
	uids := h.fill(in.ID, 2)
	h.fill(box.ID, 2)
	h.ok(h.s.SetHold(ctx, 1, true, "case 7"))
	h.restart()
	h.expunge(in.ID, uids...)
	h.ok(h.s.DeleteMailbox(h.Context(), 1, box.ID))
	h.advance(1000 * day)
	h.housekeep()
	list := h.expunged()
	h.equal("kept", len(list), 4)
	_, err := h.s.PurgeExpunged(h.Context(), 1, h.ids(list))
	h.is(err, store.ErrHeld)
	h.is(h.s.Write(h.Context(), func(tx *store.Tx) error { return h.s.DeleteAccountState(tx, 1) }), store.ErrHeld)
	holds, held, err := h.s.Holds(h.Context(), 1)
	h.ok(err)
	h.equal("hold", []any{held, len(holds), holds[0].Actor, holds[0].Reason}, []any{true, 1, "auditor", "case 7"})

	h.ok(h.s.SetHold(ctx, 1, false, "closed"))
	holds, held, err = h.s.Holds(h.Context(), 1)
	h.ok(err)
	h.equal("ended", []any{held, holds[0].EndedBy, holds[0].EndedReason, holds[0].Ended.Unix()}, []any{false, "auditor", "closed", h.clock().Unix()})
	h.housekeep()
	h.equal("left", len(h.expunged()), 0)
}

func holdTwice(h *harness) {
	h.is(h.s.SetHold(h.Context(), 1, false, "none"), store.ErrNotFound)
	h.ok(h.s.SetHold(h.Context(), 1, true, "one"))
	h.is(h.s.SetHold(h.Context(), 1, true, "two"), store.ErrExists)
	h.ok(h.s.SetHold(h.Context(), 1, false, "end"))
	h.ok(h.s.SetHold(h.Context(), 1, true, "again"))
	holds, held, err := h.s.Holds(h.Context(), 1)
	h.ok(err)
	h.equal("holds", []any{held, len(holds), holds[0].Number, holds[0].Reason}, []any{true, 2, 2, "again"})
}

func deletedAccount(h *harness) {
	h.keep()
	h.account(2)
	in, err := h.s.Mailbox(h.Context(), 2, "INBOX")
	h.ok(err)
	placed, err := h.s.Append(h.Context(), 2, in.ID, []store.NewMessage{h.message(), h.message()})
	h.ok(err)
	_, err = h.s.Expunge(h.Context(), 2, in.ID, []store.UID{placed[0].UID}, false)
	h.ok(err)
	h.write(func(tx *store.Tx) error { return h.s.DeleteAccountState(tx, 2) })
	h.housekeep()
	for _, table := range []string{"message", "blob", "entry", "expunged_entry", "deleted_mailbox", "dead_mailbox", "keyword"} {
		h.equal(table, h.number(`SELECT count(*) FROM `+table), 0)
	}
}

func retention(h *harness) {
	h.s.SetPolicy(store.Policy{Undelete: 14 * day, Trash: 30 * day, Junk: 10 * day})
	in, trash, junk := h.box("INBOX"), h.box("Trash"), h.box("Junk")
	h.fill(in.ID, 2)
	h.fill(trash.ID, 2)
	h.fill(junk.ID, 700)
	h.advance(11 * day)
	h.fill(junk.ID, 1)
	moved := h.uids(in.ID)[:1]
	_, _, _, err := h.s.Move(h.Context(), 1, in.ID, moved, trash.ID)
	h.ok(err)
	h.housekeep()
	h.equal("after 11 days", []int{len(h.uids(in.ID)), len(h.uids(trash.ID)), len(h.uids(junk.ID))}, []int{1, 3, 1})
	h.equal("by whom", h.expunged()[0].Actor, "retention")
	h.advance(20 * day)
	h.housekeep()
	h.equal("after 31 days", []int{len(h.uids(in.ID)), len(h.uids(trash.ID)), len(h.uids(junk.ID))}, []int{1, 1, 0})
}

// domain makes account 1 one of a domain, as the directory does.
func (h *harness) domain(name string, accounts ...int) {
	h.Helper()
	h.write(func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO directory_domain (name, created) VALUES ($1, 0)`, name)
		for _, id := range accounts {
			if err == nil {
				_, err = tx.Exec(`INSERT INTO directory_address (address_key, local_part, domain, account_id, created) VALUES ($1, $2, $3, $4, 0)`,
					string(rune('a'+id))+"@"+name, string(rune('a'+id)), name, id)
			}
		}
		return err
	})
	h.restart() // the domain of an account is read with it
}

func domainRetention(h *harness) {
	h.domain("example.test", 1)
	in, trash := h.box("INBOX"), h.box("Trash")
	h.s.SetPolicy(store.Policy{Trash: 100 * day})
	h.ok(h.s.SetDomainPolicy(h.Context(), store.DomainPolicy{Domain: "example.test", TrashDays: 3, JunkDays: -1, MailDays: 20}))
	h.fill(in.ID, 1)
	h.fill(trash.ID, 1)
	h.advance(4 * day)
	h.housekeep()
	h.equal("after 4 days", []int{len(h.uids(in.ID)), len(h.uids(trash.ID))}, []int{1, 0})
	h.advance(17 * day)
	h.housekeep()
	h.equal("after 21 days", len(h.uids(in.ID)), 0)
	h.ok(h.s.SetDomainPolicy(h.Context(), store.DomainPolicy{Domain: "example.test", TrashDays: -1, JunkDays: -1}))
	list, err := h.s.DomainPolicies(h.Context())
	h.ok(err)
	h.equal("policies", len(list), 0)
}

func horizon(h *harness) {
	h.s.SetPolicy(store.Policy{Tombstones: 30 * day})
	in := h.box("INBOX")
	uids := h.fill(in.ID, 4)
	h.expunge(in.ID, uids[0])
	old := h.box("INBOX").HighestModSeq
	h.housekeep() // marks what there is
	h.advance(20 * day)
	h.expunge(in.ID, uids[1])
	h.housekeep()
	vanished := func(since store.ModSeq) []store.UID {
		got, err := h.s.Vanished(h.Context(), 1, in.ID, since)
		h.ok(err)
		return got
	}
	limit := func() store.ModSeq {
		m, err := h.s.Horizon(h.Context(), 1)
		h.ok(err)
		return m
	}
	h.equal("before its time", []any{vanished(0), limit()}, []any{uids[:2], 0})
	h.advance(11 * day)
	h.housekeep()
	h.equal("after its time", []any{vanished(0), limit()}, []any{uids[1:2], old})
	h.equal("since the horizon", vanished(limit()), uids[1:2])
	h.restart()
	h.equal("after a restart", limit(), old)
}

func domainQuota(h *harness) {
	h.account(2)
	h.domain("example.test", 1, 2)
	in := h.box("INBOX")
	h.fill(in.ID, 3)
	h.ok(h.s.SetDomainPolicy(h.Context(), store.DomainPolicy{Domain: "example.test", QuotaMessages: 4, TrashDays: -1, JunkDays: -1}))
	u, err := h.s.Usage(h.Context(), 2)
	h.ok(err)
	h.equal("use", []any{u.Domain.Domain, u.Domain.Messages, u.Domain.QuotaMessages}, []any{"example.test", 3, 4})
	other, err := h.s.Mailbox(h.Context(), 2, "INBOX")
	h.ok(err)
	_, err = h.s.Append(h.Context(), 2, other.ID, []store.NewMessage{h.message(), h.message()})
	h.is(err, store.ErrOverQuota)
	_, err = h.s.Append(h.Context(), 2, other.ID, []store.NewMessage{h.message()})
	h.ok(err)
	_, err = h.s.Append(h.Context(), 1, in.ID, []store.NewMessage{h.message()})
	h.is(err, store.ErrOverQuota)
	_, _, _, err = h.s.Copy(h.Context(), 1, in.ID, h.uids(in.ID)[:1], in.ID)
	h.is(err, store.ErrOverQuota)
	h.expunge(in.ID, h.uids(in.ID)...)
	h.advance(time.Minute)
	h.fill(in.ID, 2)
}

func quotaNotices(h *harness) {
	in := h.box("INBOX")
	h.write(func(tx *store.Tx) error { return h.s.SetQuota(tx, 1, 0, 100) })
	told := func() []int64 {
		h.Helper()
		list, err := h.s.QuotaNotices(h.Context())
		h.ok(err)
		levels := []int64{}
		for _, n := range list {
			h.equal("account", n.Account, 1)
			levels = append(levels, n.Level)
			h.ok(h.s.QuotaTold(h.Context(), n))
		}
		return levels
	}
	h.fill(in.ID, 79)
	h.equal("79 %", told(), []int64{})
	h.fill(in.ID, 1)
	h.equal("80 %", told(), []int64{80})
	h.equal("told", told(), []int64{})
	h.fill(in.ID, 15)
	h.equal("95 %", told(), []int64{95})
	h.expunge(in.ID, h.uids(in.ID)[:3]...)
	h.equal("92 %, within the slack", told(), []int64{})
	h.fill(in.ID, 3)
	h.equal("95 % again, within the slack", told(), []int64{})
	h.expunge(in.ID, h.uids(in.ID)[:50]...)
	h.equal("45 %", told(), []int64{})
	h.fill(in.ID, 40)
	h.equal("85 % again", told(), []int64{80})
}

func clockJumps(h *harness) {
	h.s.SetPolicy(store.Policy{Undelete: 14 * day, Trash: 30 * day})
	in, trash := h.box("INBOX"), h.box("Trash")
	expunged := h.fill(in.ID, 4)
	h.fill(trash.ID, 2)
	h.expunge(in.ID, expunged[0])
	h.housekeep()
	left := func(what string, restorable, inTrash int) {
		h.Helper()
		h.housekeep()
		h.equal(what+": expunged and in the trash", []any{len(h.expunged()), len(h.entries(trash.ID))}, []any{restorable, inTrash})
	}
	const years = 3650 * day
	for _, by := range []time.Duration{time.Hour, -time.Hour, years} {
		h.jump(by)
		left("a jump", 1, 2)
	}
	h.restart()
	h.s.SetPolicy(store.Policy{Undelete: 14 * day, Trash: 30 * day})
	h.advance(2 * day)
	left("within the grace", 1, 2)
	h.expunge(in.ID, expunged[1]) // with a time that is years ahead
	h.jump(-years - 2*day)
	left("the clock is right again", 2, 2)
	h.jump(-years) // before there was a program
	left("a clock that was never set", 2, 2)
	h.jump(years)
	h.advance(13 * day)
	left("not yet", 2, 2)
	h.advance(2 * day)
	left("the first one's time is over", 1, 2)
	h.advance(3 * day)
	left("and the other's", 0, 2)
	h.advance(13 * day)
	left("the trash is emptied", 2, 0) // what left it can be restored
	h.jump(10 * day)
	left("the server was down", 2, 0)
	h.advance(4 * day)
	left("the grace is over", 2, 0)
	h.advance(day)
	left("their time too", 0, 0)
}

package storetest

import (
	"slices"
	"strings"
	"time"

	"waxwing/internal/store"
)

var mailboxChecks = []check{
	{"a new account has its mailboxes, subscribed and with roles", newAccount},
	{"an account exists once", accountOnce},
	{"an unknown account is not found", unknownAccount},
	{"create makes what is missing above", createParents},
	{"names are checked and normalized", namesChecked},
	{"names in Chinese are names", chineseNames},
	{"a name is taken once, a role too", createTwice},
	{"rename takes along what is below", renameChildren},
	{"rename refuses what makes no sense", renameRefused},
	{"rename of INBOX moves its messages", renameInbox},
	{"delete removes a mailbox with its messages", deleteMailbox},
	{"delete leaves messages that stand elsewhere", deleteShared},
	{"delete refuses INBOX and mailboxes with others below", deleteRefused},
	{"UIDVALIDITY ascends when a name comes back", validityAscends},
	{"subscriptions are names", subscriptions},
	{"mailboxes survive a restart", mailboxesRestart},
	{"an account can be deleted", deleteAccount},
	{"quota bounds what is added", quota},
}

func newAccount(h *harness) {
	h.equal("names", h.names(), []string{"Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"})
	list, err := h.s.Mailboxes(h.Context(), 1)
	h.ok(err)
	roles := map[string]store.Role{"Archive": store.RoleArchive, "Drafts": store.RoleDrafts, "INBOX": store.RoleInbox, "Junk": store.RoleJunk, "Sent": store.RoleSent, "Trash": store.RoleTrash}
	seen := map[uint32]bool{}
	for _, m := range list {
		if m.Role != roles[m.Name] || !m.Subscribed || m.UIDNext != 1 || m.UIDValidity == 0 || seen[m.UIDValidity] || m.HighestModSeq == 0 {
			h.Errorf("mailbox %+v", m)
		}
		seen[m.UIDValidity] = true
	}
	m, err := h.s.Mailbox(h.Context(), 1, "iNbOx")
	h.ok(err)
	h.equal("INBOX in any case", m.Name, "INBOX")
	byID, err := h.s.MailboxByID(h.Context(), 1, m.ID)
	h.ok(err)
	h.equal("by id", byID, m)
}

func accountOnce(h *harness) {
	err := h.s.Write(h.Context(), func(tx *store.Tx) error { return h.s.CreateAccountState(tx, 1, nil) })
	h.is(err, store.ErrExists)
}

func unknownAccount(h *harness) {
	_, err := h.s.Mailboxes(h.Context(), 99)
	h.is(err, store.ErrNotFound)
	_, err = h.s.View(h.Context(), 99, 1, nil)
	h.is(err, store.ErrNotFound)
	_, err = h.s.View(h.Context(), 1, 99, nil)
	h.is(err, store.ErrNotFound)
	m := h.message()
	_, err = h.s.Deliver(h.Context(), store.Delivery{Content: m.Content, Local: []store.NewEntry{{Account: 1}, {Account: 99}}})
	h.is(err, store.ErrNotFound)
	h.equal("INBOX after a delivery that failed for one", h.box("INBOX").Messages, 0)
}

func createParents(h *harness) {
	h.create("a/b/c")
	h.equal("names", h.names(), []string{"Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash", "a", "a/b", "a/b/c"})
	h.create("inbox/x")
	h.equal("below INBOX", h.box("INBOX/x").Name, "INBOX/x")
}

func namesChecked(h *harness) {
	for _, name := range []string{
		"", "/", "a/", "/a", "a//b", "a\x00b", "a\nb", "a\x7fb", "a\u0085b", "a\u2028b", "\xff\xfe",
		strings.Repeat("x", 256), strings.Repeat("a/", 20) + "a", strings.Repeat(strings.Repeat("y", 250)+"/", 4) + "y",
	} {
		_, err := h.s.CreateMailbox(h.Context(), 1, name, "")
		h.is(err, store.ErrName)
		_, err = h.s.Mailbox(h.Context(), 1, name)
		h.is(err, store.ErrNotFound)
		h.is(h.s.RenameMailbox(h.Context(), 1, h.box("Trash").ID, name), store.ErrName)
		h.is(h.s.Subscribe(h.Context(), 1, name, true), store.ErrName)
	}
	for _, name := range []string{strings.Repeat("x", 255), strings.Repeat("a/", 19) + "a", " a ", "%*", "."} {
		h.equal("name", h.create(name).Name, name)
	}
	// e with an accent in one and in two characters is the same name.
	h.create("caf\u00e9")
	h.equal("NFC", h.box("cafe\u0301").Name, "caf\u00e9")
}

func chineseNames(h *harness) {
	h.create("工作/发票")
	h.equal("role for it", h.box("工作/发票").Name, "工作/发票")
	h.ok(h.s.RenameMailbox(h.Context(), 1, h.box("工作").ID, "公司"))
	h.fill(h.box("公司/发票").ID, 2)
	h.restart()
	h.equal("messages", h.box("公司/发票").Messages, 2)
}

func createTwice(h *harness) {
	_, err := h.s.CreateMailbox(h.Context(), 1, "Trash", "")
	h.is(err, store.ErrExists)
	_, err = h.s.CreateMailbox(h.Context(), 1, "Inbox", "")
	h.is(err, store.ErrExists)
	_, err = h.s.CreateMailbox(h.Context(), 1, "Bin", store.RoleTrash)
	h.is(err, store.ErrExists)
}

func renameChildren(h *harness) {
	h.create("a/b/c")
	h.create("ab")
	uids := h.fill(h.box("a/b").ID, 3)
	before := h.box("a/b")
	h.ok(h.s.RenameMailbox(h.Context(), 1, h.box("a").ID, "x/y"))
	h.equal("names", h.names()[6:], []string{"ab", "x", "x/y", "x/y/b", "x/y/b/c"})
	after := h.box("x/y/b")
	if after.ID != before.ID || after.UIDValidity != before.UIDValidity {
		h.Errorf("%+v became %+v", before, after)
	}
	h.equal("UIDs", h.uids(after.ID), uids)
}

func renameRefused(h *harness) {
	a := h.create("a/b")
	h.is(h.s.RenameMailbox(h.Context(), 1, a.ID, "a/b"), store.ErrExists)
	h.is(h.s.RenameMailbox(h.Context(), 1, a.ID, "Sent"), store.ErrExists)
	h.is(h.s.RenameMailbox(h.Context(), 1, a.ID, "a/b/c"), store.ErrName)
	h.is(h.s.RenameMailbox(h.Context(), 1, 99, "z"), store.ErrNotFound)
	h.create("deep/" + strings.Repeat("d/", 17) + "d")
	h.is(h.s.RenameMailbox(h.Context(), 1, h.box("deep").ID, "p/q/r"), store.ErrName) // what is below would be too deep
	h.equal("nothing was made", slices.Contains(h.names(), "p"), false)
}

func renameInbox(h *harness) {
	in := h.box("INBOX")
	h.create("INBOX/below")
	h.fill(in.ID, 3)
	h.flags(in.ID, []store.UID{2}, store.FlagsAdd, store.Seen|store.Deleted, "work")
	before := h.entries(in.ID)
	h.ok(h.s.RenameMailbox(h.Context(), 1, in.ID, "old-mail"))
	h.equal("names", h.names()[2:4], []string{"INBOX", "INBOX/below"})
	h.equal("INBOX", h.uids(in.ID), []store.UID{})
	moved := h.entries(h.box("old-mail").ID)
	h.equal("moved", len(moved), 3)
	for i, e := range moved {
		b := before[i]
		if e.Message != b.Message || e.Flags != b.Flags || !slices.Equal(e.Keywords, b.Keywords) || !e.InternalDate.Equal(b.InternalDate) {
			h.Errorf("%+v became %+v", b, e)
		}
	}
	h.equal("next UID of INBOX", h.fill(in.ID, 1), []store.UID{4})
}

func deleteMailbox(h *harness) {
	m := h.create("a")
	h.fill(m.ID, 5)
	v := h.view(m.ID)
	defer v.Close()
	h.ok(h.s.DeleteMailbox(h.Context(), 1, m.ID))
	h.equal("gone", v.Sync(true).Gone, true)
	_, err := h.s.Mailbox(h.Context(), 1, "a")
	h.is(err, store.ErrNotFound)
	_, _, err = h.s.StoreFlags(h.Context(), 1, m.ID, []store.UID{1}, store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen})
	h.is(err, store.ErrNotFound)
	h.equal("rows left", h.number(`SELECT (SELECT count(*) FROM entry) + (SELECT count(*) FROM message) + (SELECT count(*) FROM blob) + (SELECT count(*) FROM dead_mailbox)`), 0)
	h.equal("tombstones", h.number(`SELECT count(*) FROM tombstone WHERE mailbox_id = $1`, m.ID), 5)
	h.equal("tombstone of the mailbox", h.number(`SELECT count(*) FROM mailbox_tombstone WHERE mailbox_id = $1`, m.ID), 1)
}

func deleteShared(h *harness) {
	m := h.create("a")
	uids := h.fill(m.ID, 2)
	_, _, _, err := h.s.Copy(h.Context(), 1, m.ID, uids, h.box("Archive").ID)
	h.ok(err)
	h.ok(h.s.DeleteMailbox(h.Context(), 1, m.ID))
	for _, e := range h.entries(h.box("Archive").ID) {
		h.content(1, e.Message)
	}
}

func deleteRefused(h *harness) {
	h.is(h.s.DeleteMailbox(h.Context(), 1, h.box("INBOX").ID), store.ErrName)
	h.create("a/b")
	h.is(h.s.DeleteMailbox(h.Context(), 1, h.box("a").ID), store.ErrChildren)
	h.is(h.s.DeleteMailbox(h.Context(), 1, 99), store.ErrNotFound)
}

func validityAscends(h *harness) {
	last := uint32(0)
	for i := range 5 {
		m := h.create("again")
		if m.UIDValidity <= last {
			h.Fatalf("UIDVALIDITY %d after %d", m.UIDValidity, last)
		}
		last = m.UIDValidity
		h.ok(h.s.DeleteMailbox(h.Context(), 1, m.ID))
		if i == 2 {
			h.advance(-24 * time.Hour) // a clock that is set back
			h.restart()
		}
	}
}

func subscriptions(h *harness) {
	h.ok(h.s.Subscribe(h.Context(), 1, "not/there", true))
	h.ok(h.s.Subscribe(h.Context(), 1, "not/there", true))
	h.ok(h.s.Subscribe(h.Context(), 1, "Junk", false))
	h.ok(h.s.Subscribe(h.Context(), 1, "Sent/never", false))
	check := func() {
		h.Helper()
		names, err := h.s.Subscriptions(h.Context(), 1)
		h.ok(err)
		h.equal("subscriptions", names, []string{"Archive", "Drafts", "INBOX", "Sent", "Trash", "not/there"})
		h.equal("Junk", h.box("Junk").Subscribed, false)
	}
	check()
	h.restart()
	check()
	h.equal("a mailbox of a subscribed name", h.create("not/there").Subscribed, true)
	h.ok(h.s.DeleteMailbox(h.Context(), 1, h.box("not/there").ID))
	check()
}

func mailboxesRestart(h *harness) {
	h.create("a/b")
	h.fill(h.box("a/b").ID, 3)
	h.flags(h.box("a/b").ID, []store.UID{1, 2}, store.FlagsAdd, store.Seen|store.Deleted, "$Forwarded")
	before, err := h.s.Mailboxes(h.Context(), 1)
	h.ok(err)
	entries := h.entries(h.box("a/b").ID)
	h.restart()
	after, err := h.s.Mailboxes(h.Context(), 1)
	h.ok(err)
	h.equal("mailboxes", after, before)
	h.equal("entries", h.entries(h.box("a/b").ID), entries)
}

func deleteAccount(h *harness) {
	h.account(2)
	h.fill(h.box("INBOX").ID, 3)
	b := h.text()
	for range 2 { // the same content in both accounts
		_, err := h.s.Deliver(h.Context(), store.Delivery{Content: h.message().Content, Local: []store.NewEntry{{Account: 1}, {Account: 2}}})
		h.ok(err)
	}
	v := h.view(h.box("INBOX").ID)
	defer v.Close()
	h.write(func(tx *store.Tx) error { return h.s.DeleteAccountState(tx, 1) })
	h.equal("view", v.Sync(true).Gone, true)
	_, err := h.s.Mailboxes(h.Context(), 1)
	h.is(err, store.ErrNotFound)
	_, err = h.s.Deliver(h.Context(), store.Delivery{Content: strings.NewReader(string(b)), Local: []store.NewEntry{{Account: 1}}})
	h.is(err, store.ErrNotFound)
	h.ok(h.s.Housekeep(h.Context()))
	h.equal("rows of the account", h.number(`SELECT (SELECT count(*) FROM entry WHERE account_id = 1) + (SELECT count(*) FROM message WHERE account_id = 1) +
		(SELECT count(*) FROM tombstone WHERE account_id = 1) + (SELECT count(*) FROM thread_ref WHERE account_id = 1) +
		(SELECT count(*) FROM keyword WHERE account_id = 1) + (SELECT count(*) FROM dead_mailbox)`), 0)
	h.consistent(2)
	h.restart()
	_, err = h.s.Mailboxes(h.Context(), 1)
	h.is(err, store.ErrNotFound)
	list, err := h.s.Mailboxes(h.Context(), 2)
	h.ok(err)
	h.equal("the other account", list[2].Messages, 2)
}

func quota(h *harness) {
	in := h.box("INBOX")
	m := h.message()
	size := m.Content.Size()
	h.write(func(tx *store.Tx) error { return h.s.SetQuota(tx, 1, 3*size, 0) })
	same := func() store.NewMessage { return m }
	h.append(in.ID, same(), same(), same())
	_, err := h.s.Append(h.Context(), 1, in.ID, []store.NewMessage{same()})
	h.is(err, store.ErrOverQuota)
	_, _, _, err = h.s.Copy(h.Context(), 1, in.ID, []store.UID{1}, h.box("Trash").ID)
	h.is(err, store.ErrOverQuota)
	_, _, _, err = h.s.Move(h.Context(), 1, in.ID, []store.UID{1}, h.box("Trash").ID)
	h.ok(err)
	d := store.Delivery{Content: m.Content, Local: []store.NewEntry{{Account: 1}}}
	_, err = h.s.Deliver(h.Context(), d)
	h.is(err, store.ErrOverQuota)
	d.Local[0].IgnoreQuota = true
	_, err = h.s.Deliver(h.Context(), d)
	h.ok(err)
	u, err := h.s.Usage(h.Context(), 1)
	h.ok(err)
	h.equal("usage", u, store.Usage{Bytes: 4 * size, Messages: 4, QuotaBytes: 3 * size})
	h.expunge(in.ID, 2, 3)
	h.append(in.ID, same())
	h.write(func(tx *store.Tx) error { return h.s.SetQuota(tx, 1, 0, 3) })
	_, err = h.s.Append(h.Context(), 1, in.ID, []store.NewMessage{same()})
	h.is(err, store.ErrOverQuota)
	h.restart()
	_, err = h.s.Append(h.Context(), 1, in.ID, []store.NewMessage{same()})
	h.is(err, store.ErrOverQuota)
}

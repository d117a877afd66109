package storetest

import (
	"crypto/sha256"
	"io"
	"time"

	"waxwing/internal/store"
)

var returningChecks = []check{
	{"a mailbox returns unseen with its UIDs", returnsUnseen},
	{"a message returns to a mailbox in use under a new UID", returnsToOneInUse},
	{"an account returns whole or not at all", returnsWhole},
	{"a return that nobody goes on with is given up", returnGivenUp},
}

const aBackup = "20260301T000000.000Z-one"

// returning makes messages of a backup, under UIDs.
func (h *harness) returning(uids ...store.UID) []store.ReturningMessage {
	h.Helper()
	out := make([]store.ReturningMessage, len(uids))
	for i, uid := range uids {
		m := h.message()
		b, err := io.ReadAll(io.NewSectionReader(m.Content, 0, m.Content.Size()))
		h.ok(err)
		m.Flags, m.Keywords = store.Seen|store.Deleted, []string{"$Label1"}
		out[i] = store.ReturningMessage{NewMessage: m, Sum: sha256.Sum256(b), UID: uid}
	}
	return out
}

// right gives the right to bring mail back into an account, the same until it is forgotten.
func (h *harness) right(acct store.AccountID) store.ReturnRight {
	h.Helper()
	if r, ok := h.rights[acct]; ok {
		return r
	}
	r, err := h.s.TakeReturn(h.Context(), acct)
	h.ok(err)
	if h.rights == nil {
		h.rights = make(map[store.AccountID]store.ReturnRight)
	}
	h.rights[acct] = r
	return r
}

func (h *harness) comeBack(acct store.AccountID, box store.MailboxID, msgs []store.ReturningMessage) (uids []store.UID) {
	h.Helper()
	placed, err := h.s.Return(h.Context(), h.right(acct), box, msgs)
	h.ok(err)
	for _, p := range placed {
		uids = append(uids, p.UID)
	}
	return uids
}

// accountsGiven says how many account ids the directory has given out: the harness makes its accounts without one.
func (h *harness) accountsGiven(n int64) {
	h.Helper()
	h.write(func(tx *store.Tx) error {
		return tx.QueryRow(`UPDATE directory_counter SET value = $1 WHERE name = 'account' RETURNING value`, n).Scan(&n)
	})
}

func (h *harness) noProblems() {
	h.Helper()
	_, err := h.s.Verify(h.Context(), store.VerifyOptions{Found: func(p store.Problem) { h.Errorf("problem: %+v", p) }})
	h.ok(err)
}

func returnsUnseen(h *harness) {
	want := store.ReturningMailbox{Name: "Projects/项目", Subscribed: true, UIDValidity: 77, UIDNext: 1_000_000, Keywords: []string{"", "$Label1"}}
	r, err := h.s.ReturnMailbox(h.Context(), h.right(1), aBackup, want)
	h.ok(err)
	msgs := h.returning(3, 9, 12)
	h.equal("returned", h.comeBack(1, r.ID, msgs[:2]), []store.UID{3, 9})
	h.restart()
	h.noProblems()
	h.consistent(1)
	h.equal("seen before the end", h.names(), []string{"Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"})
	again, err := h.s.ReturnMailbox(h.Context(), h.right(1), aBackup, want)
	h.ok(err)
	h.equal("gone on with", []any{again.ID, again.Last, again.Keywords[1]}, []any{r.ID, 9, "$Label1"})
	h.equal("returned", h.comeBack(1, r.ID, msgs), []store.UID{12})
	wrong := h.returning(20)
	wrong[0].Sum[0]++
	_, err = h.s.Return(h.Context(), h.right(1), r.ID, wrong)
	h.is(err, store.ErrCorrupt)
	_, err = h.s.Return(h.Context(), h.right(1), r.ID, h.returning(1_000_000))
	h.is(err, store.ErrLimit)
	old := h.right(1)
	delete(h.rights, 1)
	_, err = h.s.ReturnMailbox(h.Context(), h.right(1), aBackup, want) // another has begun
	h.ok(err)
	_, err = h.s.Return(h.Context(), old, r.ID, h.returning(30))
	h.is(err, store.ErrRight)
	_, err = h.s.ReturnMailbox(h.Context(), old, aBackup, want)
	h.is(err, store.ErrRight)
	_, err = h.s.FinishReturn(h.Context(), old)
	h.is(err, store.ErrRight)
	h.create("Projects/项目") // meanwhile
	done, err := h.s.FinishReturn(h.Context(), h.right(1))
	h.ok(err)
	h.equal("names", []any{len(done), done[0].Name, done[0].Was}, []any{1, "Projects/项目 (1)", "Projects/项目"})
	m := h.box("Projects/项目 (1)")
	h.equal("mailbox", []any{m.UIDValidity, m.UIDNext, m.Messages, m.Unseen, m.Deleted, m.Subscribed}, []any{77, 1_000_000, 3, 0, 3, true})
	e := h.entries(m.ID)
	h.equal("entries", []any{h.uids(m.ID), e[2].Keywords, e[2].Flags}, []any{[]store.UID{3, 9, 12}, []string{"$Label1"}, store.Seen | store.Deleted})
	horizon, err := h.s.Horizon(h.Context(), 1)
	h.ok(err)
	h.equal("the horizon", horizon >= m.HighestModSeq, true)
	h.equal("the next UID", h.fill(m.ID, 1), []store.UID{1_000_000})
	_, err = h.s.FinishReturn(h.Context(), h.right(1))
	h.is(err, store.ErrRight)
	h.noProblems()
	h.restart()
}

func returnsToOneInUse(h *harness) {
	in := h.box("INBOX")
	h.fill(in.ID, 2)
	h.write(func(tx *store.Tx) error { return h.s.SetQuota(tx, 1, 1, 1) })
	v := h.view(in.ID)
	defer v.Close()
	h.equal("returned", h.comeBack(1, in.ID, h.returning(1, 2)), []store.UID{3, 4})
	v.Sync(true)
	h.equal("a session sees them", v.Len(), 4)
	h.equal("flags", h.entries(in.ID)[3].Flags, store.Seen)
	_, err := h.s.ReturnMailbox(h.Context(), h.right(1), aBackup, store.ReturningMailbox{Name: "inbox", UIDValidity: 1, UIDNext: 9})
	h.is(err, store.ErrExists)
	list, err := h.s.Holdings(h.Context(), 1, in.ID, 2, 10)
	h.ok(err)
	h.equal("holdings", []any{len(list), list[0].UID, list[0].InternalDate}, []any{2, 3, h.entries(in.ID)[2].InternalDate.UTC()})
}

func returnsWhole(h *harness) {
	edit := func(e store.DirectoryEdit) error {
		e.Base, e.Actor, e.At = -1, "test", h.clock()
		_, _, err := h.s.EditDirectory(h.Context(), e)
		return err
	}
	h.ok(edit(store.DirectoryEdit{AddDomains: []store.DirectoryDomain{{Name: "example.test"}}}))
	h.accountsGiven(40)
	begin := store.ReturningAccount{Key: "li@example.test", Source: aBackup, ModSeq: 5000, LastValidity: 900}
	id, err := h.s.BeginReturn(h.Context(), begin)
	h.ok(err)
	r, err := h.s.ReturnMailbox(h.Context(), h.right(id), aBackup, store.ReturningMailbox{Name: "INBOX", Role: store.RoleInbox, UIDValidity: 77, UIDNext: 100})
	h.ok(err)
	h.comeBack(id, r.ID, h.returning(5))
	h.restart()
	again, err := h.s.BeginReturn(h.Context(), begin)
	h.ok(err)
	h.equal("gone on with", again, id)
	h.noProblems()
	row := store.NewDirectoryAccount{Password: "$argon2id$x", Mailboxes: store.DefaultMailboxes}
	late := h.right(id)
	delete(h.rights, id)
	row.ID, row.Key, row.Local, row.Domain, row.Language, row.QuotaBytes, row.Created = id, begin.Key, "li", "example.test", "zh", 10, h.clock()
	back := store.DirectoryReturn{NewDirectoryAccount: row, Token: h.right(id).Token, Subscriptions: []string{"Elsewhere"}, Holds: []store.Hold{{Since: h.clock(), Actor: "a", Reason: "case 7"}}}
	early := back
	early.Token = late.Token
	h.is(edit(store.DirectoryEdit{ReturnAccounts: []store.DirectoryReturn{early}}), store.ErrRight)
	h.ok(edit(store.DirectoryEdit{ReturnAccounts: []store.DirectoryReturn{back}}))
	h.is(edit(store.DirectoryEdit{ReturnAccounts: []store.DirectoryReturn{back}}), store.ErrNotFound)
	in, err := h.s.Mailbox(h.Context(), id, "INBOX")
	h.ok(err)
	h.equal("INBOX", []any{in.UIDValidity, in.UIDNext, in.Messages, in.HighestModSeq > 5000}, []any{77, 100, 1, true})
	_, held, err := h.s.Holds(h.Context(), id)
	h.ok(err)
	u, err := h.s.Usage(h.Context(), id)
	h.ok(err)
	h.equal("hold and quota", []any{held, u.QuotaBytes, u.Messages}, []any{true, 10, 1})
	h.is(h.s.Write(h.Context(), func(tx *store.Tx) error { return h.s.DeleteAccountState(tx, id) }), store.ErrHeld)
	drafts, err := h.s.Mailbox(h.Context(), id, "Drafts")
	h.ok(err)
	h.equal("UIDVALIDITY of a new one is above all", drafts.UIDValidity > 900, true)
	subs, err := h.s.Subscriptions(h.Context(), id)
	h.ok(err)
	h.equal("subscriptions", subs, []string{"Elsewhere"})
	h.noProblems()
	h.consistent(id)
}

func returnGivenUp(h *harness) {
	h.accountsGiven(40)
	id, err := h.s.BeginReturn(h.Context(), store.ReturningAccount{Key: "li@example.test", Source: aBackup})
	h.ok(err)
	for _, acct := range []store.AccountID{1, id} {
		r, err := h.s.ReturnMailbox(h.Context(), h.right(acct), aBackup, store.ReturningMailbox{Name: "Back", UIDValidity: 7, UIDNext: 100})
		h.ok(err)
		h.comeBack(acct, r.ID, h.returning(1, 2))
	}
	h.advance(store.ReturningTime - time.Hour)
	h.housekeep()
	h.equal("waiting", h.number(`SELECT count(*) FROM returning_mailbox`), 2)
	h.advance(2 * time.Hour)
	h.housekeep()
	h.housekeep()
	for _, table := range []string{"returning_mailbox", "returning_account", "returning_right", "entry", "message", "blob", "keyword", "dead_mailbox"} {
		h.equal(table, h.number(`SELECT count(*) FROM `+table), 0)
	}
	clear(h.rights)
	// Another backup takes the place of one that was begun.
	_, err = h.s.ReturnMailbox(h.Context(), h.right(1), aBackup, store.ReturningMailbox{Name: "Back", UIDValidity: 7, UIDNext: 100})
	h.ok(err)
	list, err := h.s.Returning(h.Context(), 1, "another")
	h.ok(err)
	h.equal("of another backup", []int64{int64(len(list)), h.number(`SELECT count(*) FROM returning_mailbox`)}, []int64{0, 0})
}

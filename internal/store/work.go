package store

import (
	"fmt"
	"slices"
	"strings"
)

// work is one account as the open transaction leaves it. The counters and the rows of mailboxes that its operations change
// are kept here and written once, at the end; entries and messages are written at once. So within a transaction the truth
// about counters and mailboxes stands here, and the truth about entries in SQL.
type work struct {
	id      AccountID
	acct    *account // nil when the transaction made the account
	deleted bool

	counters counters
	dirty    bool // counters must be written

	tree      *tree
	ownTree   bool // tree is a copy and may be changed
	boxes     map[MailboxID]*workBox
	removed   map[MailboxID]bool
	events    []event
	structure bool // mailboxes were made, renamed or removed

	recent map[MailboxID]UID // of an account that was read anew: what its rows say that sessions were told of
}

// workBox is one mailbox as the open transaction leaves it.
type workBox struct {
	box
	dirty bool // its row must be written

	vanished   []UID     // entries that were removed
	mapChanged bool      // what uids says must be written
	draft      *mapDraft // a map for a mailbox that has none
}

// account gives the account as this transaction leaves it.
func (tx *Tx) account(id AccountID) (*work, error) {
	if w, ok := tx.accounts[id]; ok {
		if w.deleted {
			return nil, fmt.Errorf("account %d: %w", id, ErrNotFound)
		}
		return w, nil
	}
	version, err := tx.lockAccount(id)
	if err != nil {
		return nil, err
	}
	a, err := tx.s.accounts.pinIn(tx, id)
	if err != nil {
		return nil, err
	}
	old := a.stale.Load()
	if tx.s.shared() {
		old = version != a.counters.version // no lock: only this goroutine changes an account
	}
	if old {
		if err := tx.refresh(a); err != nil {
			tx.s.accounts.unpin(a)
			return nil, err
		}
	}
	if a.gone { // only the writer sets it
		tx.s.accounts.unpin(a)
		return nil, fmt.Errorf("account %d: %w", id, ErrNotFound)
	}
	// No lock: only this goroutine changes an account.
	w := &work{id: id, acct: a, counters: a.counters, tree: a.tree, boxes: make(map[MailboxID]*workBox)}
	tx.accounts[id] = w
	return w, nil
}

// box gives a mailbox as this transaction leaves it.
func (w *work) box(id MailboxID) (*workBox, error) {
	if b, ok := w.boxes[id]; ok {
		return b, nil
	}
	if w.acct != nil && !w.removed[id] {
		if b, ok := w.acct.boxes[id]; ok {
			wb := &workBox{box: *b}
			w.boxes[id] = wb
			return wb, nil
		}
	}
	return nil, fmt.Errorf("mailbox %d of account %d: %w", id, w.id, ErrNotFound)
}

// ids returns the mailboxes of the account in ascending order.
func (w *work) ids() []MailboxID {
	ids := make([]MailboxID, 0, len(w.tree.byName))
	for _, id := range w.tree.byName {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// change gives a tree that may be changed.
func (w *work) change(tx *Tx) *tree {
	tx.wrote = true
	if !w.ownTree {
		w.tree, w.ownTree = w.tree.clone(), true
	}
	return w.tree
}

// tick gives the next modification sequence and notes it for the mailbox: what happens to b from here on carries it.
func (w *work) tick(tx *Tx, boxes ...*workBox) ModSeq {
	tx.wrote = true
	w.dirty = true
	w.counters.modseq++
	for _, b := range boxes {
		b.info.HighestModSeq = w.counters.modseq
		b.dirty = true
	}
	return w.counters.modseq
}

// count adds to the counts of a mailbox and to the use of the account.
func (w *work) count(b *workBox, d countDelta) {
	b.dirty, w.dirty = true, true
	b.info.Messages = uint32(int64(b.info.Messages) + d.messages)
	b.info.Unseen = uint32(int64(b.info.Unseen) + d.unseen)
	b.info.Deleted = uint32(int64(b.info.Deleted) + d.deleted)
	b.info.Size += d.octets
	w.counters.usedMessages += d.messages
	w.counters.usedOctets += d.octets
}

// countDelta is a change of counts.
type countDelta struct {
	messages, unseen, deleted, octets int64
}

// add counts n entries with these flags and octets in all; n is negative when they go.
func (d *countDelta) add(n int64, f Flags, octets int64) {
	d.messages += n
	d.octets += n * octets
	if f&Seen == 0 {
		d.unseen += n
	}
	if f&Deleted != 0 {
		d.deleted += n
	}
}

// room checks the quotas of the account and its domain for as many octets and messages more.
func (w *work) room(tx *Tx, octets, messages int64) error {
	c := &w.counters
	if c.quotaOctets > 0 && c.usedOctets+octets > c.quotaOctets {
		return fmt.Errorf("account %d uses %d of %d octets, %d more: %w", w.id, c.usedOctets, c.quotaOctets, octets, ErrOverQuota)
	}
	if c.quotaMessages > 0 && c.usedMessages+messages > c.quotaMessages {
		return fmt.Errorf("account %d uses %d of %d messages, %d more: %w", w.id, c.usedMessages, c.quotaMessages, messages, ErrOverQuota)
	}
	return tx.s.domains.admit(c.domain, octets, messages)
}

// flush writes the account's and the mailboxes' rows.
func (w *work) flush(tx *Tx) error {
	if w.deleted {
		return nil
	}
	if w.changed() {
		c := &w.counters
		c.version++
		if err := tx.exec(`UPDATE mail_account SET modseq = $2, next_mailbox = $3, last_validity = $4, used_octets = $5,
			used_messages = $6, quota_octets = $7, quota_messages = $8, version = $9, sieve = $10 WHERE account_id = $1`,
			w.id, c.modseq, c.nextMailbox, c.lastValidity, c.usedOctets, c.usedMessages, c.quotaOctets, c.quotaMessages, c.version, c.sieve); err != nil {
			return err
		}
	}
	for id, b := range w.boxes {
		if !b.dirty {
			continue
		}
		m := &b.info
		if err := tx.exec(`UPDATE mailbox SET uid_next = $3, modseq = $4, messages = $5, unseen = $6, deleted = $7, octets = $8
			WHERE account_id = $1 AND mailbox_id = $2`,
			w.id, id, m.UIDNext, m.HighestModSeq, m.Messages, m.Unseen, m.Deleted, m.Size); err != nil {
			return err
		}
		if err := w.flushMap(tx, b); err != nil {
			return fmt.Errorf("map of mailbox %d: %w", id, err)
		}
	}
	return nil
}

// publish makes the committed account visible: first the entries, in the order of the operations, then the counters, so that
// nobody is told of a HIGHESTMODSEQ whose changes can't be seen yet.
func (w *work) publish(s *Store) {
	a := w.acct
	if a == nil {
		// Made by this transaction: it is loaded when it is first asked for.
		return
	}
	if w.deleted {
		a.remove(s)
		return
	}
	for i := range w.events {
		if ix := a.index(w.events[i].box); ix != nil {
			ix.apply(&w.events[i])
		}
	}
	gone := a.update(s, w)
	if w.changed() {
		s.notices.accountChanged(a, append(w.touched(), gone...))
	}
}

// changed tells whether anything changed that memory holds.
func (w *work) changed() bool { return w.dirty || w.ownTree || len(w.events) > 0 }

// touched returns the indexes of the mailboxes whose entries changed.
func (w *work) touched() []*index {
	out := make([]*index, 0, len(w.events))
	for i := range w.events {
		if ix := w.acct.index(w.events[i].box); ix != nil && !slices.Contains(out, ix) {
			out = append(out, ix)
		}
	}
	return out
}

// update takes over counters, rows and tree. It returns the indexes of mailboxes that are gone.
func (a *account) update(s *Store, w *work) (gone []*index) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counters = w.counters
	for id, wb := range w.boxes {
		b, ok := a.boxes[id]
		if !ok {
			b = &box{}
			a.boxes[id] = b
			a.indexes[id] = newIndex(a, id, 1, wb.keywords)
		}
		*b = wb.box
	}
	for id := range w.removed {
		delete(a.boxes, id)
		if ix := a.indexes[id]; ix != nil {
			ix.vanish()
			s.indexes.drop(ix)
			gone = append(gone, ix)
		}
		delete(a.indexes, id)
	}
	a.tree = w.tree
	if w.structure {
		a.sortBoxes()
	}
	return gone
}

// remove ends a deleted account: its Views learn that their mailbox is gone.
func (a *account) remove(s *Store) {
	a.mu.Lock()
	a.gone = true
	indexes := a.indexes
	a.indexes, a.boxes, a.order = nil, nil, nil
	a.tree = newTree()
	a.mu.Unlock()
	gone := make([]*index, 0, len(indexes))
	for _, ix := range indexes {
		ix.vanish()
		s.indexes.drop(ix)
		gone = append(gone, ix)
	}
	s.accounts.forget(a)
	s.notices.accountChanged(a, gone)
}

// index returns the index of a mailbox, nil when there is no such mailbox.
func (a *account) index(id MailboxID) *index {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.indexes[id]
}

// maxKeywords is how many keywords may be in use in one mailbox at the same time: the width of the set in an entry.
const maxKeywords = 64

// maxKeywordLength bounds one keyword, in octets.
const maxKeywordLength = 255

// keywordSet gives the set for the keywords in mailbox b, whose numbers are assigned when they are new (prefer, when not
// nil, says which numbers to take if they are free). Keywords are compared without regard to case (RFC 3501, section 2.3.2)
// and keep the form in which the mailbox first saw them.
func (w *work) keywordSet(tx *Tx, b *workBox, names []string, prefer func(i int) int) (uint64, error) {
	var set uint64
	for i, name := range names {
		if name == "" || len(name) > maxKeywordLength {
			return 0, fmt.Errorf("keyword %.40q: %w", name, ErrName)
		}
		n := findKeyword(b.keywords, name)
		if n < 0 {
			want := -1
			if prefer != nil {
				want = prefer(i)
			}
			var err error
			if n, err = w.addKeyword(tx, b, name, want, set); err != nil {
				return 0, err
			}
		}
		set |= 1 << n
	}
	return set, nil
}

func findKeyword(keywords []string, name string) int {
	for n, k := range keywords {
		if k != "" && strings.EqualFold(k, name) {
			return n
		}
	}
	return -1
}

// addKeyword gives a new keyword a number. When all are taken, those that no entry has any more are freed, but for those in
// hold, which an entry is about to get.
func (w *work) addKeyword(tx *Tx, b *workBox, name string, want int, hold uint64) (int, error) {
	n := want
	if n < 0 || n < len(b.keywords) && b.keywords[n] != "" {
		n = slices.Index(b.keywords, "")
		if n < 0 {
			n = len(b.keywords)
		}
	}
	if n >= maxKeywords {
		freed, err := w.freeKeywords(tx, b, hold)
		if err != nil {
			return 0, err
		}
		if n = slices.Index(freed, ""); n < 0 {
			return 0, fmt.Errorf("keyword %.40q: mailbox %d has %d keywords: %w", name, b.info.ID, maxKeywords, ErrLimit)
		}
		b.keywords = freed
	}
	keywords := slices.Clone(b.keywords)
	for len(keywords) <= n {
		keywords = append(keywords, "")
	}
	keywords[n] = name
	err := tx.exec(`INSERT INTO keyword (account_id, mailbox_id, number, name) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account_id, mailbox_id, number) DO UPDATE SET name = excluded.name`, w.id, b.info.ID, n, name)
	if err != nil {
		return 0, err
	}
	b.keywords = keywords
	w.events = append(w.events, event{box: b.info.ID, modseq: w.counters.modseq, keywords: keywords})
	return n, nil
}

// freeKeywords returns the keywords without those that neither hold nor any entry of the mailbox has.
func (w *work) freeKeywords(tx *Tx, b *workBox, hold uint64) ([]string, error) {
	rows, err := tx.Query(`SELECT DISTINCT keywords FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND keywords <> 0`, w.id, b.info.ID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	used := hold
	for rows.Next() {
		var set int64
		if err := rows.Scan(&set); err != nil {
			return nil, err
		}
		used |= uint64(set)
	}
	if err := rows.Err(); err != nil {
		return nil, tx.failed(err)
	}
	keywords := slices.Clone(b.keywords)
	for n := range keywords {
		if used&(1<<n) == 0 {
			keywords[n] = ""
		}
	}
	return keywords, nil
}

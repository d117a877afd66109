package store

import (
	"context"
	"fmt"
	"slices"
)

// StoreFlags changes flags and keywords of the entries uids, which ascend, in one transaction. It returns those whose row
// changed, and, for a conditional change, those left alone because they changed after ch.UnchangedSince (RFC 7162, section
// 3.1.3). UIDs that don't exist are neither.
func (s *Store) StoreFlags(ctx context.Context, acct AccountID, mbox MailboxID, uids []UID, ch FlagChange) (changed, failed []UID, err error) {
	set := uidSetOf(uids)
	err = s.Write(ctx, func(tx *Tx) error {
		changed, failed = nil, nil
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		b, err := w.box(mbox)
		if err != nil {
			return err
		}
		changed, failed, err = w.storeFlags(tx, b, set, ch)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("store: flags in mailbox %d of account %d: %w", mbox, acct, err)
	}
	return changed, failed, nil
}

// allFlags is the set of flags that an entry can have.
const allFlags = Seen | Answered | Flagged | Deleted | Draft

func (w *work) storeFlags(tx *Tx, b *workBox, set uidSet, ch FlagChange) (changed, failed []UID, err error) {
	rows, err := w.flagRows(tx, b, set)
	if err != nil || len(rows) == 0 {
		return nil, nil, err
	}
	keywords, err := w.changeSet(tx, b, ch)
	if err != nil {
		return nil, nil, err
	}
	e := event{box: b.info.ID}
	flags := ch.Flags & allFlags
	switch ch.Op {
	case FlagsSet:
		e.setFlags, e.setKeywords = flags, keywords
	case FlagsAdd:
		e.keepFlags, e.setFlags = ^Flags(0), flags
		e.keepKeywords, e.setKeywords = ^uint64(0), keywords
	case FlagsRemove:
		e.keepFlags, e.keepKeywords = ^flags, ^keywords
	default:
		return nil, nil, fmt.Errorf("flag operation %d is not known", ch.Op)
	}
	var d countDelta
	var unread UID // the first that loses \Seen
	for i := range rows {
		r := &rows[i]
		if ch.Conditional && r.modseq > ch.UnchangedSince {
			failed = append(failed, r.uid)
			continue
		}
		after := r.flags&e.keepFlags | e.setFlags
		if after == r.flags && r.keywords&e.keepKeywords|e.setKeywords == r.keywords {
			continue
		}
		if unread == 0 && r.flags&^after&Seen != 0 {
			unread = r.uid
		}
		d.add(-1, r.flags, 0)
		d.add(1, after, 0)
		changed = append(changed, r.uid)
	}
	if len(changed) == 0 {
		return nil, failed, nil
	}
	e.modseq, e.flagged = w.tick(tx, b), changed
	err = w.onEntries(tx, b, uidSetOf(changed), `UPDATE entry SET flags = (flags & $3) | $4, keywords = (keywords & $5) | $6, modseq = $7
		WHERE account_id = $1 AND mailbox_id = $2 AND `,
		e.keepFlags, e.setFlags, int64(e.keepKeywords), int64(e.setKeywords), e.modseq)
	if err != nil {
		return nil, nil, err
	}
	w.count(b, d)
	if unread != 0 {
		b.unread(unread, e.modseq)
	}
	w.events = append(w.events, e)
	return changed, failed, nil
}

// flagRow is what a change of flags must know of an entry.
type flagRow struct {
	uid      UID
	flags    Flags
	keywords uint64
	modseq   ModSeq
}

// flagRows gives the entries of a set. When the index has them it needs no query: the writer brings it up to each commit
// before it runs anything else, so it holds what the rows hold unless this transaction has changed the mailbox already.
func (w *work) flagRows(tx *Tx, b *workBox, set uidSet) ([]flagRow, error) {
	if w.untouched(b.info.ID) {
		if ix := w.acct.index(b.info.ID); ix != nil {
			if rows, ok := ix.flagRows(set); ok {
				return rows, nil
			}
		}
	}
	rows, err := w.rows(tx, b, set, "")
	if err != nil {
		return nil, err
	}
	out := make([]flagRow, len(rows))
	for i := range rows {
		out[i] = flagRow{rows[i].uid, rows[i].flags, rows[i].keywords, rows[i].modseq}
	}
	return out, nil
}

// untouched tells whether the transaction has not changed entries of a mailbox yet.
func (w *work) untouched(id MailboxID) bool {
	return w.acct != nil && !slices.ContainsFunc(w.events, func(e event) bool { return e.box == id })
}

// flagRows reads the entries of a set from memory; not ok when some are not there.
func (ix *index) flagRows(set uidSet) (rows []flagRow, ok bool) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if ix.gen == nil {
		return nil, false
	}
	for _, r := range set {
		first, end := ix.gen.find(r.lo), ix.gen.total
		if r.hi < ^UID(0) {
			end = ix.gen.find(r.hi + 1)
		}
		rows = slices.Grow(rows, max(end-first, 0))
		for pos := first; pos < end; pos++ {
			c, j := ix.gen.place(pos)
			if !c.loaded() || c.recs[j].message == 0 {
				return nil, false
			}
			e := &c.recs[j]
			rows = append(rows, flagRow{e.uid, e.flags, e.keywords, e.modseq})
		}
	}
	return rows, true
}

// changeSet gives the keyword set of a change. To remove a keyword that the mailbox doesn't know makes none known.
func (w *work) changeSet(tx *Tx, b *workBox, ch FlagChange) (uint64, error) {
	if ch.Op != FlagsRemove {
		return w.keywordSet(tx, b, ch.Keywords, nil)
	}
	var set uint64
	for _, k := range ch.Keywords {
		if n := findKeyword(b.keywords, k); n >= 0 {
			set |= 1 << n
		}
	}
	return set, nil
}

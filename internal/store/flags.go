package store

import (
	"context"
	"fmt"
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
	rows, err := w.rows(tx, b, set, "")
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
	w.events = append(w.events, e)
	return changed, failed, nil
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

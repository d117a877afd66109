package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
)

// Copy copies the entries uids, which ascend, to mailbox dst, all or none. It returns the UIDs copied, their new UIDs in the
// same order, and the UIDVALIDITY of dst (RFC 4315, section 3). UIDs that don't exist are left out. Flags, keywords and
// INTERNALDATE are kept (RFC 3501, section 6.4.7).
func (s *Store) Copy(ctx context.Context, acct AccountID, src MailboxID, uids []UID, dst MailboxID) (from, to []UID, validity uint32, err error) {
	return s.transfer(ctx, "copy", acct, src, uids, dst, (*work).copy)
}

// Move moves the entries uids, which ascend, to mailbox dst in one transaction (RFC 6851). It returns what Copy does.
func (s *Store) Move(ctx context.Context, acct AccountID, src MailboxID, uids []UID, dst MailboxID) (from, to []UID, validity uint32, err error) {
	return s.transfer(ctx, "move", acct, src, uids, dst, (*work).move)
}

// transferred says which entries went to which UIDs.
type transferred struct {
	from  []UID
	first UID
}

func (s *Store) transfer(ctx context.Context, what string, acct AccountID, src MailboxID, uids []UID, dst MailboxID,
	do func(w *work, tx *Tx, from *workBox, set uidSet, to *workBox) (transferred, error),
) (from, to []UID, validity uint32, err error) {
	s.domains.refresh(ctx)
	set := uidSetOf(uids)
	var t transferred
	err = s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		a, err := w.box(src)
		if err != nil {
			return err
		}
		b, err := w.box(dst)
		if err != nil {
			return err
		}
		validity = b.info.UIDValidity
		t, err = do(w, tx, a, set, b)
		return err
	})
	if err != nil {
		return nil, nil, 0, fmt.Errorf("store: %s from mailbox %d to %d of account %d: %w", what, src, dst, acct, err)
	}
	to = make([]UID, len(t.from))
	for i := range to {
		to[i] = t.first + UID(i)
	}
	return t.from, to, validity, nil
}

func (w *work) copy(tx *Tx, from *workBox, set uidSet, to *workBox) (transferred, error) {
	rows, err := w.rows(tx, from, set, "")
	if err != nil || len(rows) == 0 {
		return transferred{}, err
	}
	var octets int64
	ids := make([]int64, len(rows))
	for i := range rows {
		octets += int64(rows[i].size)
		ids[i] = int64(rows[i].message)
	}
	if err := w.room(tx, octets, int64(len(rows))); err != nil {
		return transferred{}, err
	}
	first, err := w.place(tx, from, rows, to, w.tick(tx, to))
	if err != nil {
		return transferred{}, err
	}
	if err := w.share(tx, ids); err != nil {
		return transferred{}, err
	}
	return transferred{uidsOf(rows), first}, nil
}

func (w *work) move(tx *Tx, from *workBox, set uidSet, to *workBox) (transferred, error) {
	rows, err := w.rows(tx, from, set, "")
	if err != nil || len(rows) == 0 {
		return transferred{}, err
	}
	modseq := w.tick(tx, from, to)
	first, err := w.place(tx, from, rows, to, modseq)
	if err != nil {
		return transferred{}, err
	}
	if err := w.vanish(tx, from, rows, modseq); err != nil {
		return transferred{}, err
	}
	return transferred{uidsOf(rows), first}, nil
}

// Expunge removes the entries uids, which ascend; none means none. With onlyDeleted it removes those flagged \Deleted alone.
// It returns the UIDs removed.
func (s *Store) Expunge(ctx context.Context, acct AccountID, mbox MailboxID, uids []UID, onlyDeleted bool) ([]UID, error) {
	return s.expunge(ctx, acct, mbox, uidSetOf(uids), onlyDeleted)
}

// ExpungeAll removes all entries of a mailbox, or all that are flagged \Deleted (RFC 3501, section 6.4.3).
func (s *Store) ExpungeAll(ctx context.Context, acct AccountID, mbox MailboxID, onlyDeleted bool) ([]UID, error) {
	return s.expunge(ctx, acct, mbox, allUIDs, onlyDeleted)
}

// allUIDs is the set of all UIDs.
var allUIDs = uidSet{{1, ^UID(0)}}

func (s *Store) expunge(ctx context.Context, acct AccountID, mbox MailboxID, set uidSet, onlyDeleted bool) ([]UID, error) {
	only := ""
	if onlyDeleted {
		only = fmt.Sprintf(" AND flags & %d <> 0", Deleted)
	}
	actor := actorOf(ctx)
	var out []UID
	err := s.Write(ctx, func(tx *Tx) error {
		out = nil
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		b, err := w.box(mbox)
		if err != nil {
			return err
		}
		if onlyDeleted && b.info.Deleted == 0 {
			return nil
		}
		rows, err := w.rows(tx, b, set, only)
		if err != nil || len(rows) == 0 {
			return err
		}
		out = uidsOf(rows)
		return w.expunge(tx, b, rows, actor)
	})
	if err != nil {
		return nil, fmt.Errorf("store: expunge in mailbox %d of account %d: %w", mbox, acct, err)
	}
	return out, nil
}

func messagesOf(rows []entryRow) []MessageID {
	ids := make([]MessageID, len(rows))
	for i := range rows {
		ids[i] = rows[i].message
	}
	return ids
}

// Vanished returns the UIDs that left the mailbox after the given MODSEQ, ascending (RFC 7162, section 3.2.5.1).
func (s *Store) Vanished(ctx context.Context, acct AccountID, mbox MailboxID, since ModSeq) ([]UID, error) {
	var out []UID
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var u UID
		err := rows.Scan(&u)
		out = append(out, u)
		return err
	}, `SELECT uid FROM tombstone WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3 ORDER BY modseq, uid`, acct, mbox, since)
	if err != nil {
		return nil, fmt.Errorf("store: vanished of mailbox %d of account %d: %w", mbox, acct, err)
	}
	slices.Sort(out)
	return out, nil
}

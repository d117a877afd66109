package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// recoveredName is the mailbox for what has no other place to go back to.
const recoveredName = "Recovered"

// restoreStep is how many entries one transaction restores, or removes for good.
const restoreStep = 500

// ExpungedID names an expunged entry by the place that it had.
type ExpungedID struct {
	Mailbox MailboxID
	UID     UID
}

// Expunged is an entry that left its mailbox and can be restored.
type Expunged struct {
	ExpungedID
	Message      MessageID
	Name         string // of its mailbox, the last one that it had; "" when nobody knows
	Gone         bool   // the mailbox was deleted
	Flags        Flags
	Keywords     []string
	Size         int64
	InternalDate time.Time
	SavedAt      time.Time
	At           time.Time // of the expunge
	Actor        string
}

// ExpungedQuery selects expunged entries; what is given must all fit.
type ExpungedQuery struct {
	Since   time.Time  // expunged then or later
	Mailbox string     // the last name of their mailbox
	After   ExpungedID // paging: those behind this one, which was expunged at AfterAt
	AfterAt time.Time
	Limit   int // 0: 1,000
}

// Expunged lists what of an account can be restored, in the order in which it was expunged.
func (s *Store) Expunged(ctx context.Context, acct AccountID, q ExpungedQuery) ([]Expunged, error) {
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	var out []Expunged
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var e Expunged
		if err := e.scan(rows); err != nil {
			return err
		}
		out = append(out, e)
		return nil
	}, `SELECT e.mailbox_id, e.uid, e.message_id, COALESCE(m.name, d.name, ''), m.name IS NULL, e.flags, e.keywords, e.size,
		e.internal_date, e.saved_at, e.expunged_at, e.actor FROM expunged_entry AS e
		LEFT JOIN mailbox AS m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
		LEFT JOIN deleted_mailbox AS d ON d.account_id = e.account_id AND d.mailbox_id = e.mailbox_id
		WHERE e.account_id = $1 AND e.expunged_at >= $2 AND e.expunged_at >= $3
		AND (e.expunged_at > $3 OR e.mailbox_id > $4 OR (e.mailbox_id = $4 AND e.uid > $5))
		AND ($6 = '' OR COALESCE(m.name, d.name, '') = $6)
		ORDER BY e.expunged_at, e.mailbox_id, e.uid LIMIT $7`,
		acct, secondsOf(q.Since), secondsOf(q.AfterAt), q.After.Mailbox, q.After.UID, q.Mailbox, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("store: expunged entries of account %d: %w", acct, err)
	}
	return out, nil
}

func (e *Expunged) scan(rows *sql.Rows) error {
	var keywords string
	var date, saved, at int64
	if err := rows.Scan(&e.Mailbox, &e.UID, &e.Message, &e.Name, &e.Gone, &e.Flags, &keywords, &e.Size, &date, &saved, &at, &e.Actor); err != nil {
		return err
	}
	e.InternalDate, e.SavedAt, e.At = time.Unix(date, 0).UTC(), time.Unix(saved, 0).UTC(), time.Unix(at, 0).UTC()
	e.Keywords = decodeKeywords(keywords)
	return nil
}

// decodeKeywords reads the column; keywords that can't be read are lost with nothing else.
func decodeKeywords(text string) []string {
	var names []string
	if text == "" || json.Unmarshal([]byte(text), &names) != nil {
		return nil
	}
	return names
}

// DeletedMailbox is a mailbox that was deleted and can be made again.
type DeletedMailbox struct {
	ID    MailboxID
	Name  string
	Role  Role
	At    time.Time
	Actor string
}

// DeletedMailboxes lists the deleted mailboxes of an account whose names are free, the first deleted first.
func (s *Store) DeletedMailboxes(ctx context.Context, acct AccountID) ([]DeletedMailbox, error) {
	var out []DeletedMailbox
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var d DeletedMailbox
		var at int64
		err := rows.Scan(&d.ID, &d.Name, &d.Role, &at, &d.Actor)
		d.At = time.Unix(at, 0).UTC()
		out = append(out, d)
		return err
	}, `SELECT d.mailbox_id, d.name, d.role, d.deleted_at, d.actor FROM deleted_mailbox AS d WHERE d.account_id = $1
		AND NOT EXISTS (SELECT 1 FROM mailbox AS m WHERE m.account_id = d.account_id AND m.name = d.name)
		ORDER BY d.deleted_at, d.mailbox_id`, acct)
	if err != nil {
		return nil, fmt.Errorf("store: deleted mailboxes of account %d: %w", acct, err)
	}
	return out, nil
}

// Restored is an entry that is back.
type Restored struct {
	From ExpungedID
	To   Placed
}

// Restore puts expunged entries back into their mailboxes, with new UIDs and the flags, keywords and dates that they had. A
// mailbox that is gone is made again. What is not there any more is left out. Quotas don't bound it: it is an administrator's
// act. It runs in steps: after an error those that are returned are back.
func (s *Store) Restore(ctx context.Context, acct AccountID, ids []ExpungedID) ([]Restored, error) {
	var out []Restored
	for part := range slices.Chunk(ids, restoreStep) {
		var done []Restored
		err := s.Write(ctx, func(tx *Tx) error {
			w, err := tx.account(acct)
			if err != nil {
				return err
			}
			done, err = w.restore(tx, part)
			return err
		})
		if err != nil {
			return out, fmt.Errorf("store: restore in account %d: %w", acct, err)
		}
		out = append(out, done...)
	}
	return out, nil
}

// RestoreMailbox makes a deleted mailbox again, empty, and returns the name. It does nothing when the name is taken.
func (s *Store) RestoreMailbox(ctx context.Context, acct AccountID, id MailboxID) (name string, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		b, err := w.homeOf(tx, id)
		if err == nil {
			name = b.info.Name
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("store: restore mailbox %d of account %d: %w", id, acct, err)
	}
	return name, nil
}

func (w *work) restore(tx *Tx, ids []ExpungedID) ([]Restored, error) {
	byBox := make(map[MailboxID][]UID)
	var order []MailboxID
	for _, id := range ids {
		if _, ok := byBox[id.Mailbox]; !ok {
			order = append(order, id.Mailbox)
		}
		byBox[id.Mailbox] = append(byBox[id.Mailbox], id.UID)
	}
	var out []Restored
	for _, box := range order {
		slices.Sort(byBox[box])
		done, err := w.restoreBox(tx, box, slices.Compact(byBox[box]))
		if err != nil {
			return nil, err
		}
		out = append(out, done...)
	}
	return out, nil
}

func (w *work) restoreBox(tx *Tx, box MailboxID, uids []UID) ([]Restored, error) {
	set := uidSetOf(uids)
	list, err := w.expungedRows(tx, box, set)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	to, err := w.homeOf(tx, box)
	if err != nil {
		return nil, err
	}
	out := make([]Restored, 0, len(list))
	for i := range list {
		e := &list[i]
		keywords, err := w.keywordSet(tx, to, e.Keywords, nil)
		if errors.Is(err, ErrLimit) || errors.Is(err, ErrName) {
			keywords, err = 0, nil // the message matters more than its keywords
		}
		if err != nil {
			return nil, err
		}
		uid, err := w.insertEntry(tx, to, entryRow{
			message: e.Message, flags: e.Flags &^ Deleted, keywords: keywords, size: uint32(e.Size), date: e.InternalDate.Unix(),
		})
		if err != nil {
			return nil, err
		}
		out = append(out, Restored{e.ExpungedID, Placed{to.info.ID, e.Message, uid, to.info.UIDValidity}})
	}
	return out, tx.dropExpunged(w.id, box, set)
}

// expungedRows reads expunged entries of one mailbox.
func (w *work) expungedRows(tx *Tx, box MailboxID, set uidSet) ([]Expunged, error) {
	var out []Expunged
	for _, p := range set.parts(tx.s.db.Dialect, 3) {
		rows, err := tx.Query(`SELECT mailbox_id, uid, message_id, '', 0, flags, keywords, size, internal_date, saved_at, expunged_at, actor
			FROM expunged_entry WHERE account_id = $1 AND mailbox_id = $2 AND `+p.cond+` ORDER BY uid`+tx.skipLocked(), append([]any{w.id, box}, p.args...)...)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var e Expunged
			if err := e.scan(rows); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			out = append(out, e)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, tx.failed(err)
		}
	}
	return out, nil
}

// dropExpunged removes rows of expunged entries; what becomes of their messages is the caller's affair.
func (tx *Tx) dropExpunged(acct AccountID, box MailboxID, set uidSet) error {
	for _, p := range set.parts(tx.s.db.Dialect, 3) {
		err := tx.exec(`DELETE FROM expunged_entry WHERE account_id = $1 AND mailbox_id = $2 AND `+p.cond, append([]any{acct, box}, p.args...)...)
		if err != nil {
			return fmt.Errorf("expunged entries of mailbox %d: %w", box, err)
		}
	}
	return nil
}

// homeOf is the mailbox that entries of the given one go back to: itself, or one of its name, which is made again when it is
// gone, with its role if that is free.
func (w *work) homeOf(tx *Tx, box MailboxID) (*workBox, error) {
	b, err := w.box(box)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return b, err
	}
	name, role := recoveredName, Role("")
	err = tx.QueryRow(`SELECT name, role FROM deleted_mailbox WHERE account_id = $1 AND mailbox_id = $2`, w.id, box).Scan(&name, &role)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	return w.boxNamed(tx, name, role)
}

// boxNamed is the mailbox of a name, which is made when there is none.
func (w *work) boxNamed(tx *Tx, name string, role Role) (*workBox, error) {
	if id, ok := w.tree.byName[name]; ok {
		return w.box(id)
	}
	if _, taken := w.tree.byRole[role]; taken {
		role = ""
	}
	b, err := w.create(tx, name, role)
	if err != nil {
		return nil, err
	}
	return b, w.subscribe(tx, name, true)
}

// PurgeExpunged removes expunged entries of an account for good, before their time. It returns how many it removed, and is
// refused with ErrHeld under a legal hold. It runs in steps.
func (s *Store) PurgeExpunged(ctx context.Context, acct AccountID, ids []ExpungedID) (int, error) {
	n := 0
	for part := range slices.Chunk(ids, restoreStep) {
		var gone int
		err := s.Write(ctx, func(tx *Tx) (err error) {
			gone, err = tx.purge(acct, part)
			return err
		})
		if err != nil {
			return n, fmt.Errorf("store: purge in account %d: %w", acct, err)
		}
		n += gone
	}
	return n, nil
}

// purge removes expunged entries with their hold on the messages. An account that is deleted is nobody's any more.
func (tx *Tx) purge(acct AccountID, ids []ExpungedID) (int, error) {
	w, err := tx.account(acct)
	switch {
	case errors.Is(err, ErrNotFound):
		w = &work{id: acct}
	case err != nil:
		return 0, err
	case w.counters.held:
		return 0, ErrHeld
	}
	byBox := make(map[MailboxID][]UID)
	for _, id := range ids {
		byBox[id.Mailbox] = append(byBox[id.Mailbox], id.UID)
	}
	var messages []MessageID
	for box, uids := range byBox {
		set := uidSetOf(uids)
		list, err := w.expungedRows(tx, box, set)
		if err != nil {
			return 0, err
		}
		for i := range list {
			messages = append(messages, list[i].Message)
		}
		if err := tx.dropExpunged(acct, box, set); err != nil {
			return 0, err
		}
	}
	if len(messages) == 0 {
		return 0, nil
	}
	return len(messages), tx.releaseMessages(acct, messages)
}

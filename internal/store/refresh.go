package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// refresh brings an account in memory up to the rows: others changed them, or a commit whose outcome got lost. It runs in
// the writer's goroutine, before the open transaction touches the account, so what it reads is committed and may be shown
// whatever becomes of the transaction.
func (tx *Tx) refresh(a *account) error {
	a.stale.Store(false) // before it is read: what is told meanwhile marks it again
	w, err := readAnew(tx, a)
	return tx.s.follow(a, w, err)
}

// catchUp is refresh for accounts that the transaction does not change: it reads them over another connection, at one moment,
// and without their locks. It runs in the writer's goroutine, since nobody else changes what memory holds.
func (tx *Tx) catchUp(id AccountID) error {
	a := tx.s.accounts.known(id)
	if a == nil {
		return nil
	}
	defer tx.s.accounts.unpin(a)
	a.stale.Store(false) // before it is read: what is told meanwhile marks it again
	if _, ok := tx.accounts[id]; ok {
		return nil // locked by this transaction: nobody else changes it
	}
	var w *work
	err := tx.s.reads.snapshot(context.Background(), func(q *reader) (err error) {
		w, err = readAnew(q, a)
		return err
	})
	return tx.s.follow(a, w, err)
}

// follow takes over what was read anew of an account.
func (s *Store) follow(a *account, w *work, err error) error {
	if err != nil {
		if errors.Is(err, ErrNotFound) && !a.gone { // no lock: only this goroutine changes an account
			a.remove(s)
		}
		a.stale.Store(true)
		return fmt.Errorf("account %d: %w", a.id, err)
	}
	w.publish(s)
	for id, recent := range w.recent {
		if ix := a.index(id); ix != nil {
			ix.raiseRecent(recent)
		}
	}
	return nil
}

// readAnew reads what the rows have of an account that memory holds, as a change of it.
func readAnew(q Querier, a *account) (*work, error) {
	fresh := &account{id: a.id, boxes: make(map[MailboxID]*box), indexes: make(map[MailboxID]*index)}
	if err := fresh.load(q); err != nil {
		return nil, err
	}
	w := &work{
		id: a.id, acct: a, dirty: true, counters: fresh.counters, tree: fresh.tree, structure: true,
		boxes: make(map[MailboxID]*workBox, len(fresh.boxes)), removed: make(map[MailboxID]bool),
		recent: make(map[MailboxID]UID, len(fresh.boxes)),
	}
	for id, b := range fresh.boxes {
		w.boxes[id] = &workBox{box: *b}
		w.recent[id] = fresh.indexes[id].recent
	}
	for id, old := range a.boxes { // no lock: only this goroutine changes an account
		b, ok := fresh.boxes[id]
		if !ok {
			w.removed[id] = true
			continue
		}
		e, err := missed(q, fresh, old, b)
		if err != nil {
			return nil, fmt.Errorf("mailbox %d: %w", id, err)
		}
		w.events = append(w.events, e)
	}
	return w, nil
}

// missed reads what changed in a mailbox of an account since old was read.
func missed(q Querier, a *account, old, now *box) (event, error) {
	e := event{box: now.info.ID, refresh: true, modseq: now.info.HighestModSeq, keywords: now.keywords}
	if now.info.HighestModSeq == old.info.HighestModSeq {
		return e, nil
	}
	rows, err := q.Query(`SELECT uid, message_id, flags, keywords, modseq, size, internal_date, saved_at FROM entry
		WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3 ORDER BY uid`, a.id, now.info.ID, old.info.HighestModSeq)
	if err != nil {
		return e, err
	}
	if e.renewed, err = scanRecords(rows); err != nil {
		return e, err
	}
	if old.info.HighestModSeq < a.counters.horizon { // tombstones may be gone: what is there tells
		e.whole = true
		e.there, err = readUIDs(q, `SELECT uid FROM entry WHERE account_id = $1 AND mailbox_id = $2 ORDER BY uid`, a.id, now.info.ID)
		return e, err
	}
	e.removed, err = readUIDs(q, `SELECT uid FROM tombstone WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3 ORDER BY uid`,
		a.id, now.info.ID, old.info.HighestModSeq)
	return e, err
}

func readUIDs(q Querier, query string, args ...any) ([]UID, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []UID
	for rows.Next() {
		var uid UID
		if err := rows.Scan(&uid); err != nil {
			return nil, err
		}
		out = append(out, uid)
	}
	return out, rows.Err()
}

func scanRecords(rows *sql.Rows) ([]record, error) {
	defer rows.Close()
	var out []record
	for rows.Next() {
		var r record
		if err := r.scan(rows); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// scan reads the columns uid, message_id, flags, keywords, modseq, size, internal_date, saved_at.
func (r *record) scan(rows *sql.Rows) error {
	var keywords int64
	if err := rows.Scan(&r.uid, &r.message, &r.flags, &keywords, &r.modseq, &r.size, &r.date, &r.saved); err != nil {
		return err
	}
	r.keywords = uint64(keywords)
	return nil
}

// renew takes over records as the rows have them now. It does no harm to what is known already, so a load that ran
// meanwhile may have read some of them; ix.mu is held.
func (ix *index) renew(records []record, removed []UID) {
	for i := range records {
		r := &records[i]
		if r.flags&Seen == 0 {
			ix.unread(r.uid, r.modseq)
		}
		if r.uid > ix.gen.last() {
			ix.gen.append(*r)
			continue
		}
		if c, _, ok := ix.gen.lookup(r.uid); ok {
			c.renew(*r)
		}
	}
	ix.lose(removed)
}

// lose takes entries out, those that are known; ix.mu is held.
func (ix *index) lose(removed []UID) {
	known := slices.ContainsFunc(removed, func(uid UID) bool { _, _, ok := ix.gen.lookup(uid); return ok })
	if known {
		ix.gen = ix.gen.without(removed)
	}
}

// loseOthers takes out the entries whose UIDs, up to the highest one known, are not among those given, which ascend; ix.mu is
// held.
func (ix *index) loseOthers(there []UID) {
	var gone []UID
	for _, c := range ix.gen.chunks {
		for j := range c.len() {
			if _, ok := slices.BinarySearch(there, c.uid(j)); !ok {
				gone = append(gone, c.uid(j))
			}
		}
	}
	ix.lose(gone)
}

// raiseRecent notes that sessions of other nodes were told of entries.
func (ix *index) raiseRecent(from UID) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.recent = max(ix.recent, from)
}

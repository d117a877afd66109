package store

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// refresh brings an account in memory up to the rows: others changed them, or a commit whose outcome got lost. It runs in
// the writer's goroutine, before the open transaction touches the account, so what it reads is committed and may be shown
// whatever becomes of the transaction.
func (tx *Tx) refresh(a *account) error {
	fresh := &account{id: a.id, boxes: make(map[MailboxID]*box), indexes: make(map[MailboxID]*index)}
	if err := fresh.load(tx); err != nil {
		if errors.Is(err, ErrNotFound) {
			a.remove(tx.s)
		}
		return fmt.Errorf("account %d: %w", a.id, err)
	}
	w := &work{
		id: a.id, acct: a, dirty: true, counters: fresh.counters, tree: fresh.tree, structure: true,
		boxes: make(map[MailboxID]*workBox, len(fresh.boxes)), removed: make(map[MailboxID]bool),
	}
	for id, b := range fresh.boxes {
		w.boxes[id] = &workBox{box: *b}
	}
	for id, old := range a.boxes { // no lock: only this goroutine changes an account
		b, ok := fresh.boxes[id]
		if !ok {
			w.removed[id] = true
			continue
		}
		e, err := tx.missed(a.id, old, b)
		if err != nil {
			return fmt.Errorf("mailbox %d of account %d: %w", id, a.id, err)
		}
		w.events = append(w.events, e)
	}
	a.stale.Store(false)
	w.publish(tx.s)
	return nil
}

// missed reads what changed in a mailbox since old was read.
func (tx *Tx) missed(acct AccountID, old, now *box) (event, error) {
	e := event{box: now.info.ID, refresh: true, modseq: now.info.HighestModSeq, keywords: now.keywords}
	if now.info.HighestModSeq == old.info.HighestModSeq {
		return e, nil
	}
	rows, err := tx.Query(`SELECT uid, message_id, flags, keywords, modseq, size, internal_date, saved_at FROM entry
		WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3 ORDER BY uid`, acct, now.info.ID, old.info.HighestModSeq)
	if err != nil {
		return e, err
	}
	if e.renewed, err = scanRecords(rows); err != nil {
		return e, tx.failed(err)
	}
	uids, err := tx.numbers(`SELECT uid FROM tombstone WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3 ORDER BY uid`,
		acct, now.info.ID, old.info.HighestModSeq)
	if err != nil {
		return e, err
	}
	for _, uid := range uids {
		e.removed = append(e.removed, UID(uid))
	}
	return e, nil
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
		if r.uid > ix.gen.last() {
			ix.gen.append(*r)
			continue
		}
		pos := ix.gen.find(r.uid)
		if pos >= ix.gen.total {
			continue
		}
		c, j := ix.gen.place(pos)
		if c.recs[j].uid == r.uid && c.recs[j].modseq < r.modseq {
			c.replace(j, r)
		}
	}
	known := slices.ContainsFunc(removed, func(uid UID) bool { _, ok := ix.gen.lookup(uid); return ok })
	if known {
		ix.gen = ix.gen.without(removed)
	}
}

// place returns the chunk of a position and the number in it.
func (g *generation) place(pos int) (*chunk, int) {
	i, _ := slices.BinarySearchFunc(g.starts, pos, func(start, pos int) int {
		if start <= pos {
			return -1
		}
		return 1
	})
	return g.chunks[i-1], pos - g.starts[i-1]
}

// replace changes a record in place and keeps the chunk's summary.
func (c *chunk) replace(j int, r *record) {
	if c.recs[j].flags&Seen == 0 {
		c.unseen--
	}
	c.recs[j] = *r
	c.note(r)
}

package store

import (
	"fmt"
	"math"
)

// entryRow is an entry as its row has it.
type entryRow struct {
	uid      UID
	message  MessageID
	flags    Flags
	keywords uint64
	modseq   ModSeq
	size     uint32
	date     int64
}

func (r *entryRow) record(uid UID, modseq ModSeq, saved int64) record {
	return record{
		uid: uid, message: r.message, flags: r.flags, keywords: r.keywords, modseq: modseq, size: r.size, date: r.date,
		saved: clampUint32(saved),
	}
}

func clampUint32(n int64) uint32 { return uint32(max(0, min(n, math.MaxUint32))) }

// rows reads the entries of a set in ascending order; only is a further condition, "" for none.
func (w *work) rows(tx *Tx, b *workBox, set uidSet, only string) ([]entryRow, error) {
	var out []entryRow
	for _, p := range set.parts(tx.s.db.Dialect, 3) {
		var err error
		if out, err = w.appendRows(tx, out, b, p, only); err != nil {
			return nil, fmt.Errorf("entries of mailbox %d: %w", b.info.ID, err)
		}
	}
	return out, nil
}

func (w *work) appendRows(tx *Tx, out []entryRow, b *workBox, p uidPart, only string) ([]entryRow, error) {
	rows, err := tx.Query(`SELECT uid, message_id, flags, keywords, modseq, size, internal_date FROM entry
		WHERE account_id = $1 AND mailbox_id = $2 AND `+p.cond+only+` ORDER BY uid`, append([]any{w.id, b.info.ID}, p.args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var r entryRow
	var keywords int64
	for rows.Next() {
		if err := rows.Scan(&r.uid, &r.message, &r.flags, &keywords, &r.modseq, &r.size, &r.date); err != nil {
			return nil, err
		}
		r.keywords = uint64(keywords)
		out = append(out, r)
	}
	return out, tx.failed(rows.Err())
}

// onEntries runs a statement for the entries of a set: query, which uses the parameters $1 to $2 for account and mailbox
// and those after for args, ends in "AND " to take the condition.
func (w *work) onEntries(tx *Tx, b *workBox, set uidSet, query string, args ...any) error {
	args = append([]any{w.id, b.info.ID}, args...)
	for _, p := range set.parts(tx.s.db.Dialect, len(args)+1) {
		if err := tx.exec(query+p.cond, append(args[:len(args):len(args)], p.args...)...); err != nil {
			return fmt.Errorf("entries of mailbox %d: %w", b.info.ID, err)
		}
	}
	return nil
}

// nextUIDs takes n UIDs of a mailbox and returns the first.
func (b *workBox) nextUIDs(tx *Tx, n int) (UID, error) {
	first := b.info.UIDNext
	if uint64(first)+uint64(n) > math.MaxUint32 {
		return 0, fmt.Errorf("mailbox %d has no UIDs left: %w", b.info.ID, ErrLimit)
	}
	tx.wrote, b.dirty = true, true
	b.info.UIDNext += UID(n)
	return first, nil
}

// insertEntry puts a message into a mailbox.
func (w *work) insertEntry(tx *Tx, b *workBox, e entryRow) (UID, error) {
	uid, err := b.nextUIDs(tx, 1)
	if err != nil {
		return 0, err
	}
	modseq := w.tick(tx, b)
	now := tx.now.Unix()
	err = tx.exec(`INSERT INTO entry (account_id, mailbox_id, uid, message_id, flags, keywords, modseq, size, internal_date, saved_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		w.id, b.info.ID, uid, e.message, e.flags, int64(e.keywords), modseq, e.size, e.date, now)
	if err != nil {
		return 0, fmt.Errorf("entry in mailbox %d: %w", b.info.ID, err)
	}
	var d countDelta
	d.add(1, e.flags, int64(e.size))
	w.count(b, d)
	w.added(b, modseq, e.record(uid, modseq, now))
	return uid, nil
}

// added notes new entries for the index; those of one transaction for one mailbox that follow each other make one event.
func (w *work) added(b *workBox, modseq ModSeq, recs ...record) {
	if n := len(w.events); n > 0 {
		if e := &w.events[n-1]; e.box == b.info.ID && len(e.added) > 0 {
			e.added = append(e.added, recs...)
			e.modseq = modseq
			return
		}
	}
	w.events = append(w.events, event{box: b.info.ID, modseq: modseq, added: recs})
}

// uidsOf returns the UIDs of rows, which ascend.
func uidsOf(rows []entryRow) []UID {
	uids := make([]UID, len(rows))
	for i := range rows {
		uids[i] = rows[i].uid
	}
	return uids
}

// vanish removes entries, given with their set, and leaves tombstones that carry modseq. The messages stay.
func (w *work) vanish(tx *Tx, b *workBox, rows []entryRow, modseq ModSeq) error {
	uids := uidsOf(rows)
	set := uidSetOf(uids)
	err := w.onEntries(tx, b, set, `INSERT INTO tombstone (account_id, mailbox_id, modseq, uid, message_id)
		SELECT account_id, mailbox_id, $3, uid, message_id FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND `, modseq)
	if err != nil {
		return err
	}
	if err := w.onEntries(tx, b, set, `DELETE FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND `); err != nil {
		return err
	}
	var d countDelta
	for i := range rows {
		d.add(-1, rows[i].flags, int64(rows[i].size))
	}
	w.count(b, d)
	if b.uids.there {
		b.vanished = append(b.vanished, uids...)
	}
	w.events = append(w.events, event{box: b.info.ID, modseq: modseq, removed: uids})
	return nil
}

// place puts entries that were read from mailbox from, given with their set, into mailbox to, with new UIDs in the same
// order, and returns the first of these.
func (w *work) place(tx *Tx, from *workBox, rows []entryRow, to *workBox, modseq ModSeq) (UID, error) {
	first, err := to.nextUIDs(tx, len(rows))
	if err != nil {
		return 0, err
	}
	remap, err := w.carryKeywords(tx, from, rows, to)
	if err != nil {
		return 0, err
	}
	now := tx.now.Unix()
	base := first
	for _, p := range uidSetOf(uidsOf(rows)).parts(tx.s.db.Dialect, 7) {
		args := append([]any{w.id, from.info.ID, to.info.ID, base, modseq, now}, p.args...)
		err := tx.exec(`INSERT INTO entry (account_id, mailbox_id, uid, message_id, flags, keywords, modseq, size, internal_date, saved_at)
			SELECT account_id, $3, $4 + row_number() OVER (ORDER BY uid) - 1, message_id, flags, keywords, $5, size, internal_date, $6
			FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND `+p.cond, args...)
		if err != nil {
			return 0, fmt.Errorf("entries into mailbox %d: %w", to.info.ID, err)
		}
		for i := range rows {
			if rows[i].uid >= p.lo && rows[i].uid <= p.hi {
				base++
			}
		}
	}
	recs := make([]record, len(rows))
	var d countDelta
	for i := range rows {
		r := &rows[i]
		recs[i] = r.record(first+UID(i), modseq, now)
		if remap != nil {
			recs[i].keywords = remap[r.keywords]
		}
		d.add(1, r.flags, int64(r.size))
	}
	if err := w.writeRemapped(tx, to, rows, recs); err != nil {
		return 0, err
	}
	w.count(to, d)
	w.added(to, modseq, recs...)
	return first, nil
}

// carryKeywords makes the keywords of entries known in another mailbox. It returns how their sets must be written there:
// nil when they stay, which is the rule, since a free number is taken over.
func (w *work) carryKeywords(tx *Tx, from *workBox, rows []entryRow, to *workBox) (map[uint64]uint64, error) {
	if from.info.ID == to.info.ID {
		return nil, nil
	}
	var remap map[uint64]uint64
	for i := range rows {
		set := rows[i].keywords
		if set == 0 {
			continue
		}
		if _, ok := remap[set]; ok {
			continue
		}
		var names []string
		var numbers []int
		for n, k := range from.keywords {
			if set&(1<<n) != 0 && k != "" {
				names, numbers = append(names, k), append(numbers, n)
			}
		}
		there, err := w.keywordSet(tx, to, names, func(i int) int { return numbers[i] })
		if err != nil {
			return nil, err
		}
		if remap == nil {
			remap = make(map[uint64]uint64)
		}
		remap[set] = there
	}
	for from, to := range remap {
		if from != to {
			remap[0] = 0
			return remap, nil
		}
	}
	return nil, nil
}

// writeRemapped corrects the keyword sets of entries that were copied as they were.
func (w *work) writeRemapped(tx *Tx, to *workBox, rows []entryRow, recs []record) error {
	bySet := make(map[uint64][]UID)
	for i := range recs {
		if recs[i].keywords != rows[i].keywords {
			bySet[recs[i].keywords] = append(bySet[recs[i].keywords], recs[i].uid)
		}
	}
	for set, uids := range bySet {
		err := w.onEntries(tx, to, uidSetOf(uids), `UPDATE entry SET keywords = $3 WHERE account_id = $1 AND mailbox_id = $2 AND `, int64(set))
		if err != nil {
			return err
		}
	}
	return nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// mapped is what a mailbox's row in uid_map says: which of its UIDs are gone stands in uid_gap. The transaction that removes
// entries keeps both, so together they say which UIDs are taken without a look at the entries: all that were given out but
// those. Small mailboxes have no map, since they are read whole.
type mapped struct {
	there     bool
	gone      int64
	seenBelow UID
	unreadAt  ModSeq // nothing has lost \Seen since; not recorded
	refused   bool   // the counts can't be trusted to say that there are no gaps; not recorded
}

// UIDs of one row of uid_gap, and the octets of its bits.
const (
	gapPage   = 4096
	gapOctets = gapPage / 8
)

// maxGapRows bounds the rows that one transaction makes: a mailbox with more gaps is read without a map.
const maxGapRows = 4096

// whole is up to how many entries a mailbox is read whole.
func (s *Store) whole() int64 { return 2 * int64(s.opts.IndexChunk) }

// errMap says that the map of a mailbox can't be right.
var errMap = errors.New("store: the map of the UIDs is damaged")

// missing is how many UIDs were given out and have no entry.
func (m *Mailbox) missing() int64 { return int64(m.UIDNext) - 1 - int64(m.Messages) }

// readMap gives the UIDs that are taken, of all below next, as uid_gap has them.
func readMap(q Querier, acct AccountID, box MailboxID, next UID) (uidSet, error) {
	rows, err := q.Query(`SELECT page, gone FROM uid_gap WHERE account_id = $1 AND mailbox_id = $2 ORDER BY page`, acct, box)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := taken{from: 1, next: int64(next)}
	var page int64
	var gone sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&page, &gone); err != nil {
			return nil, err
		}
		if err := t.page(page, gone); err != nil {
			return nil, fmt.Errorf("page %d: %w", page, err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	t.lose(int64(next), int64(next)-1) // nothing more is gone
	return t.set, nil
}

// taken makes the set of the UIDs that are taken from those that are gone.
type taken struct {
	set        uidSet
	from, next int64 // UIDs from here on are still to be told; the first that was not given out
}

// lose notes that the UIDs from lo to hi are gone.
func (t *taken) lose(lo, hi int64) {
	if lo > t.from {
		t.set = append(t.set, uidRange{UID(t.from), UID(lo - 1)})
	}
	t.from = max(t.from, hi+1)
}

// page takes one row of uid_gap; rows come in their order.
func (t *taken) page(page int64, gone []byte) error {
	first := page * gapPage
	if page < 0 || page > int64(^UID(0))/gapPage || first >= t.next || len(gone) == 0 && first+gapPage > t.next || len(gone) > 0 && len(gone) != gapOctets {
		return errMap
	}
	if len(gone) == 0 {
		t.lose(max(first, 1), first+gapPage-1)
		return nil
	}
	for i, b := range gone {
		uid := first + int64(i)*8
		switch {
		case b == 0:
			continue
		case uid+int64(bits.Len8(b)) > t.next || uid == 0 && b&1 != 0:
			return errMap
		}
		for ; b != 0; b &= b - 1 {
			at := uid + int64(bits.TrailingZeros8(b))
			t.lose(at, at)
		}
	}
	return nil
}

// gaps are bits of one page.
type gaps [gapOctets]byte

// set notes that a UID is gone; false when that was known.
func (g *gaps) set(uid UID) bool {
	at, bit := uid%gapPage/8, byte(1)<<(uid%8)
	if g[at]&bit != 0 {
		return false
	}
	g[at] |= bit
	return true
}

// octets is how the page is recorded.
func (g *gaps) octets(page int64) []byte {
	n := 0
	for _, b := range g {
		n += bits.OnesCount8(b)
	}
	if n == gapPage || page == 0 && n == gapPage-1 {
		return []byte{}
	}
	return g[:]
}

// mapDraft is the map of a mailbox that has none. It holds as long as no entry leaves: new ones leave no gaps.
type mapDraft struct {
	pages   map[int64]*gaps
	missing int64 // UIDs that are gone
}

// draftMap makes the map of a mailbox with these UIDs; nil when they don't fit the mailbox, or have too many gaps.
func draftMap(m *Mailbox, uids uidSet) *mapDraft {
	if uids.count() != int(m.Messages) || len(uids) == 0 || uids[len(uids)-1].hi >= m.UIDNext {
		return nil
	}
	d := &mapDraft{pages: make(map[int64]*gaps), missing: m.missing()}
	from := UID(1)
	for _, r := range append(uids[:len(uids):len(uids)], uidRange{m.UIDNext, m.UIDNext}) {
		for ; from < r.lo; from++ {
			page := int64(from / gapPage)
			g := d.pages[page]
			if g == nil {
				if len(d.pages) == maxGapRows {
					return nil
				}
				g = &gaps{}
				d.pages[page] = g
			}
			g.set(from)
		}
		from = r.hi + 1
	}
	return d
}

// flushMap brings the map of a mailbox up to what the transaction did to it. It costs a delivery nothing.
func (w *work) flushMap(tx *Tx, b *workBox) error {
	m := &b.uids
	if !m.there {
		return w.beginMap(tx, b)
	}
	fits := true
	if len(b.vanished) > 0 {
		var err error
		if fits, err = w.noteGone(tx, b); err != nil {
			return err
		}
		b.mapChanged = true
	}
	switch {
	case !fits || m.gone != b.info.missing():
		tx.s.log.Error("store: the map of a mailbox's UIDs is wrong, it is made anew", "account", w.id, "mailbox", b.info.ID)
		return w.dropMap(tx, b, true)
	case int64(b.info.Messages) < tx.s.whole()/4:
		return w.dropMap(tx, b, false) // small again
	case !b.mapChanged:
		return nil
	}
	return tx.exec(`UPDATE uid_map SET gone = $3, seen_below = $4 WHERE account_id = $1 AND mailbox_id = $2`, w.id, b.info.ID, m.gone, m.seenBelow)
}

// noteGone records the UIDs whose entries the transaction removed; false when one was gone before.
func (w *work) noteGone(tx *Tx, b *workBox) (fits bool, err error) {
	slices.Sort(b.vanished)
	for uids := b.vanished; len(uids) > 0; {
		page := int64(uids[0] / gapPage)
		var g gaps
		var was []byte
		err := tx.QueryRow(`SELECT gone FROM uid_gap WHERE account_id = $1 AND mailbox_id = $2 AND page = $3`, w.id, b.info.ID, page).Scan(&was)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err
		}
		if err == nil && copy(g[:], was) != gapOctets {
			return false, nil // all of them were gone, or it is damaged
		}
		for len(uids) > 0 && int64(uids[0]/gapPage) == page {
			if !g.set(uids[0]) {
				return false, nil
			}
			uids = uids[1:]
			b.uids.gone++
		}
		if err := w.putGaps(tx, b, page, &g); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (w *work) putGaps(tx *Tx, b *workBox, page int64, g *gaps) error {
	return tx.exec(`INSERT INTO uid_gap (account_id, mailbox_id, page, gone) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account_id, mailbox_id, page) DO UPDATE SET gone = excluded.gone`, w.id, b.info.ID, page, g.octets(page))
}

// beginMap gives a mailbox that has become large a map when no UID of it is gone: there is nothing to read then. Others get
// theirs when they are opened, and by Housekeep.
func (w *work) beginMap(tx *Tx, b *workBox) error {
	switch {
	case int64(b.info.Messages) <= tx.s.whole():
		return nil
	case b.draft != nil:
		return w.makeMap(tx, b, b.draft)
	case b.info.missing() == 0 && !b.uids.refused:
		return w.makeMap(tx, b, &mapDraft{})
	}
	return nil
}

// makeMap records the map of a mailbox, unless entries left since the draft was made.
func (w *work) makeMap(tx *Tx, b *workBox, d *mapDraft) error {
	if d.missing != b.info.missing() {
		return nil
	}
	if err := tx.deleteMap(w.id, b.info.ID); err != nil {
		return err
	}
	for page, g := range d.pages {
		if err := w.putGaps(tx, b, page, g); err != nil {
			return err
		}
	}
	b.uids.there, b.uids.gone, b.uids.seenBelow = true, d.missing, 1
	return tx.exec(`INSERT INTO uid_map (account_id, mailbox_id, gone, seen_below) VALUES ($1, $2, $3, 1)`, w.id, b.info.ID, b.uids.gone)
}

// dropMap forgets the map of a mailbox; when it was wrong, what was made of it in memory goes too.
func (w *work) dropMap(tx *Tx, b *workBox, wrong bool) error {
	if wrong {
		w.events = append(w.events, event{box: b.info.ID, unmapped: true})
	}
	b.uids, b.vanished, b.mapChanged = mapped{unreadAt: b.uids.unreadAt, refused: wrong}, nil, false
	return tx.deleteMap(w.id, b.info.ID)
}

func (tx *Tx) deleteMap(acct AccountID, box MailboxID) error {
	if err := tx.exec(`DELETE FROM uid_map WHERE account_id = $1 AND mailbox_id = $2`, acct, box); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM uid_gap WHERE account_id = $1 AND mailbox_id = $2`, acct, box)
}

// later has the writer do something about a mailbox's map that nobody waits for: what is lost by a crash, or because nothing
// can be written, is found out again.
func (s *Store) later(acct AccountID, box MailboxID, fn func(tx *Tx, w *work, b *workBox) error) {
	o := &op{done: make(chan error, 1), fn: func(tx *Tx) error { return tx.onMap(acct, box, fn) }}
	if err := s.writer.enqueue(o); err != nil {
		s.log.Debug("store: map of UIDs", "account", acct, "mailbox", box, "err", err)
	}
}

func (tx *Tx) onMap(acct AccountID, box MailboxID, fn func(tx *Tx, w *work, b *workBox) error) error {
	w, err := tx.account(acct)
	if err != nil {
		return err
	}
	b, err := w.box(box)
	if err != nil {
		return err
	}
	tx.wrote, w.dirty, b.dirty = true, true, true
	return fn(tx, w, b)
}

// keepMap records the map of a mailbox that was drafted.
func keepMap(d *mapDraft) func(*Tx, *work, *workBox) error {
	return func(_ *Tx, _ *work, b *workBox) error {
		b.draft = d
		return nil
	}
}

// raiseSeen records that all entries below a UID have \Seen, as the rows had it at a MODSEQ.
func raiseSeen(below UID, at ModSeq) func(*Tx, *work, *workBox) error {
	return func(_ *Tx, _ *work, b *workBox) error {
		if b.uids.there && b.uids.seenBelow < below && b.uids.unreadAt <= at {
			b.uids.seenBelow, b.mapChanged = below, true
		}
		return nil
	}
}

// distrust forgets the map of a mailbox that differs from its entries.
func distrust(tx *Tx, w *work, b *workBox) error { return w.dropMap(tx, b, true) }

// mapMailboxes makes the maps of large mailboxes that have none: they are from before there were maps, or were loaded.
func (s *Store) mapMailboxes(ctx context.Context) error {
	type place struct {
		acct AccountID
		box  MailboxID
	}
	var list []place
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var p place
		err := rows.Scan(&p.acct, &p.box)
		list = append(list, p)
		return err
	}, `SELECT m.account_id, m.mailbox_id FROM mailbox AS m LEFT JOIN uid_map AS u ON u.account_id = m.account_id AND u.mailbox_id = m.mailbox_id
		WHERE u.gone IS NULL AND m.messages > $1 ORDER BY m.account_id, m.mailbox_id`, s.whole())
	for i := 0; i < len(list) && err == nil; i++ {
		if err = ctx.Err(); err == nil {
			err = s.mapMailbox(ctx, list[i].acct, list[i].box)
		}
	}
	return err
}

func (s *Store) mapMailbox(ctx context.Context, acct AccountID, box MailboxID) error {
	var d *mapDraft
	err := s.Read(ctx, func(q Querier) error {
		var m Mailbox
		err := q.QueryRow(`SELECT uid_next, messages FROM mailbox WHERE account_id = $1 AND mailbox_id = $2`, acct, box).Scan(&m.UIDNext, &m.Messages)
		if err != nil {
			return err
		}
		uids, err := s.scanUIDs(q, acct, box, m.UIDNext)
		if err == nil {
			d = draftMap(&m, uids)
		}
		return err
	})
	if err == nil && d != nil {
		err = s.Write(ctx, func(tx *Tx) error { return tx.onMap(acct, box, keepMap(d)) })
	}
	if errors.Is(err, sql.ErrNoRows) || errors.Is(err, ErrNotFound) {
		return nil // deleted meanwhile
	}
	return err
}

// unread notes that an entry lost \Seen.
func (b *workBox) unread(uid UID, modseq ModSeq) {
	b.uids.unreadAt = modseq
	if b.uids.there && uid < b.uids.seenBelow {
		b.uids.seenBelow, b.mapChanged = uid, true
	}
}

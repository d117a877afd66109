package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// keptReads is how many of the chunks that were read last stay in memory whatever else does.
const keptReads = 16

// read brings the records of a chunk into memory. Entries whose rows are gone meanwhile are left to the event that says so.
//
// The rows may be newer than what the index was told of, since commits come first, and then older than what it was told of
// while they were read: the former events find records with their MODSEQ and leave them alone, the latter are kept by the
// chunk and made at the end.
func (ix *index) read(s *Store, c *chunk) error {
	ix.mu.Lock()
	if c.loaded() {
		ix.mu.Unlock()
		return nil
	}
	rd, own := c.read, c.read == nil
	if own {
		rd = &chunkRead{done: make(chan struct{})}
		c.read = rd
	}
	in := uidRange{c.first(), c.last()}
	ix.mu.Unlock()
	if !own {
		<-rd.done
		return rd.err
	}
	defer close(rd.done)
	s.loads <- struct{}{}
	rows, at, err := s.readChunk(ix.acct.id, ix.box, in)
	<-s.loads
	if ix.install(c, rows, at, err) {
		s.log.Error("store: the map of a mailbox's UIDs differs from its entries, it is made anew", "account", ix.acct.id, "mailbox", ix.box,
			"from", in.lo, "to", in.hi)
		s.later(ix.acct.id, ix.box, distrust)
	}
	s.indexes.grown(ix)
	return rd.err
}

// readChunk reads the entries of a range with the MODSEQ of the snapshot: 0 when the mailbox was deleted.
func (s *Store) readChunk(acct AccountID, box MailboxID, in uidRange) (recs []record, at ModSeq, err error) {
	err = s.Read(context.Background(), func(q Querier) error {
		err := q.QueryRow(`SELECT modseq FROM mailbox WHERE account_id = $1 AND mailbox_id = $2`, acct, box).Scan(&at)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		return s.readRecords(q, acct, box, in, func(r *record) { recs = append(recs, *r) })
	})
	return recs, at, s.db.dbError(err)
}

// install ends the reading of a chunk. It tells whether rows and UIDs differ though nothing happened that could explain it:
// the index was told of all that the rows have, and no expunge has taken the chunk's place.
func (ix *index) install(c *chunk, rows []record, at ModSeq, err error) (differ bool) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	rd := c.read
	c.read = nil
	if err != nil {
		rd.err = fmt.Errorf("store: mailbox %d of account %d: %w", ix.box, ix.acct.id, err)
		return false
	}
	lost, stray := c.install(rows)
	for _, fn := range rd.missed {
		fn()
	}
	if len(ix.lately) == keptReads {
		ix.lately = slices.Delete(ix.lately, 0, 1)
	}
	ix.lately = append(ix.lately, c)
	return lost+stray > 0 && at != 0 && at <= ix.modseq && !ix.gone && ix.gen != nil && slices.Contains(ix.gen.chunks, c)
}

// shed gives back the memory of records that were read, but for the last ones: they are read again when they are needed.
func (ix *index) shed() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.gen == nil || len(ix.gen.chunks) <= keptReads {
		return
	}
	for _, c := range ix.gen.chunks[:len(ix.gen.chunks)-1] {
		if c.loaded() && !slices.Contains(ix.lately, c) {
			c.unload()
		}
	}
}

// narrow asks the rows which entries have a MODSEQ above since, so that of the chunks that are not in memory those alone are
// read that have one. It is much faster than to read them all.
func (ix *index) narrow(s *Store, since ModSeq) error {
	type guess struct {
		c      *chunk
		maxMod ModSeq
	}
	var unsure []guess
	ix.mu.RLock()
	for _, c := range ix.gen.chunks {
		if !c.loaded() && c.maxMod > since {
			unsure = append(unsure, guess{c, c.maxMod})
		}
	}
	ix.mu.RUnlock()
	if len(unsure) < 2 {
		return nil
	}
	uids, err := s.uidsWhere(ix.acct.id, ix.box, `modseq > $3`, since)
	if err != nil {
		return fmt.Errorf("store: changes in mailbox %d of account %d: %w", ix.box, ix.acct.id, err)
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for _, g := range unsure {
		// What changed since we looked has raised the chunk's mark: it stays.
		if c := g.c; !c.loaded() && c.maxMod == g.maxMod && !uids.meets(uidRange{c.first(), c.last()}) {
			c.maxMod = since
		}
	}
	return nil
}

// uidsWhere gives the UIDs of the entries that a condition holds for; its parameter is $3.
func (s *Store) uidsWhere(acct AccountID, box MailboxID, cond string, arg any) (set uidSet, err error) {
	err = s.reads.each(context.Background(), func(rows *sql.Rows) error {
		var uid UID
		if err := rows.Scan(&uid); err != nil {
			return err
		}
		set = set.add(uid)
		return nil
	}, `SELECT uid FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND `+cond+` ORDER BY uid`, acct, box, arg)
	return set, err
}

// firstUnseen returns the UID of the first entry without \Seen, 0 when there is none. Where records are not in memory it asks
// the rows, from the mark on below which all entries have \Seen, and moves the mark.
func (ix *index) firstUnseen(s *Store) (UID, error) {
	ix.mu.RLock()
	uid, from := ix.gen.firstUnseen(ix.seenBelow)
	ix.mu.RUnlock()
	if from == 0 {
		return uid, nil
	}
	b, ok := ix.acct.snapshotRow(ix.box)
	if !ok || b.info.Unseen == 0 {
		return 0, nil
	}
	var at ModSeq
	err := s.Read(context.Background(), func(q Querier) error {
		err := q.QueryRow(`SELECT modseq FROM mailbox WHERE account_id = $1 AND mailbox_id = $2`, ix.acct.id, ix.box).Scan(&at)
		if err != nil {
			return err
		}
		return q.QueryRow(`SELECT uid FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND uid >= $3 AND flags & $4 = 0 ORDER BY uid LIMIT 1`,
			ix.acct.id, ix.box, from, int64(Seen)).Scan(&uid)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("store: unseen messages of mailbox %d of account %d: %w", ix.box, ix.acct.id, s.db.dbError(err))
	}
	ix.mu.Lock()
	if at >= ix.unreadAt {
		ix.seenBelow = max(ix.seenBelow, uid)
	}
	ix.mu.Unlock()
	if b.uids.there && int64(uid) >= int64(b.uids.seenBelow)+int64(s.opts.IndexChunk) {
		s.later(ix.acct.id, ix.box, raiseSeen(uid, at))
	}
	return uid, nil
}

// deleted returns the UIDs of the entries with \Deleted, ascending.
func (ix *index) deleted(s *Store) ([]UID, error) {
	ix.mu.RLock()
	uids, unread := ix.gen.deleted()
	ix.mu.RUnlock()
	if !unread {
		return uids, nil
	}
	if b, ok := ix.acct.snapshotRow(ix.box); !ok || b.info.Deleted == 0 {
		return nil, nil
	}
	set, err := s.uidsWhere(ix.acct.id, ix.box, `flags & $3 <> 0`, int64(Deleted))
	if err != nil {
		return nil, fmt.Errorf("store: deleted messages of mailbox %d of account %d: %w", ix.box, ix.acct.id, err)
	}
	return set.list(), nil
}

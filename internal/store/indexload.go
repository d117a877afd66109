package store

import (
	"container/list"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// indexLoad is the reading of a mailbox's entries. Changes that are committed meanwhile are kept, and applied when the rows
// are there, unless the snapshot that was read has them already: MODSEQ tells.
type indexLoad struct {
	done   chan struct{}
	err    error
	missed []event // guarded by index.mu
}

// open makes sure that the entries are in memory and adds the View, so that they stay.
func (ix *index) open(ctx context.Context, s *Store, v *View) error {
	for {
		load, own, err := ix.attach(v)
		if err != nil || load == nil {
			return err
		}
		if own {
			ix.load(context.WithoutCancel(ctx), s, load)
		}
		select {
		case <-load.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if load.err != nil {
			return load.err
		}
	}
}

// attach adds the View when the entries are there; else it returns the load to wait for, or to run.
func (ix *index) attach(v *View) (load *indexLoad, own bool, err error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.gone {
		return nil, false, fmt.Errorf("mailbox %d of account %d: %w", ix.box, ix.acct.id, ErrNotFound)
	}
	if ix.suspect && len(ix.views) == 0 {
		ix.gen = nil
	}
	if ix.gen != nil {
		if ix.views == nil {
			ix.views = make(map[*View]struct{})
		}
		ix.views[v] = struct{}{}
		v.start()
		return nil, false, nil
	}
	if ix.loading != nil {
		return ix.loading, false, nil
	}
	ix.suspect = false
	ix.loading = &indexLoad{done: make(chan struct{})}
	return ix.loading, true, nil
}

// load reads what a View needs of the mailbox and ends the load.
func (ix *index) load(ctx context.Context, s *Store, load *indexLoad) {
	// A large mailbox may take a connection for long: some are kept free for others.
	s.loads <- struct{}{}
	found, err := s.readMailbox(ctx, ix.acct.id, ix.box)
	<-s.loads
	ix.finish(load, found, err)
	if found.wrong {
		s.later(ix.acct.id, ix.box, distrust)
	}
	if found.draft != nil {
		s.later(ix.acct.id, ix.box, keepMap(found.draft))
	}
}

// finish takes over what was read, and the changes that its snapshot lacks.
func (ix *index) finish(load *indexLoad, found entries, err error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	defer close(load.done)
	ix.loading = nil
	if err != nil {
		load.err = fmt.Errorf("store: mailbox %d of account %d: %w", ix.box, ix.acct.id, err)
		return
	}
	ix.gen, ix.modseq, ix.since, ix.seenBelow, ix.unreadAt = found.gen, found.modseq, found.modseq, found.seenBelow, found.modseq
	for i := range load.missed {
		if load.missed[i].modseq > ix.since {
			ix.change(&load.missed[i])
		}
	}
}

// entries is what one snapshot has of a mailbox.
type entries struct {
	gen       *generation
	modseq    ModSeq
	seenBelow UID
	draft     *mapDraft // of the map that the mailbox lacks
	wrong     bool      // the map that it has is wrong
}

// readMailbox reads the entries of a small mailbox, and which UIDs a large one has: from its map, or by a scan of them.
func (s *Store) readMailbox(ctx context.Context, acct AccountID, box MailboxID) (entries, error) {
	found := entries{seenBelow: 1}
	err := s.Read(ctx, func(q Querier) error {
		var m Mailbox
		var gone, seenBelow sql.NullInt64
		err := q.QueryRow(`SELECT m.modseq, m.uid_next, m.messages, u.gone, u.seen_below FROM mailbox AS m
			LEFT JOIN uid_map AS u ON u.account_id = m.account_id AND u.mailbox_id = m.mailbox_id
			WHERE m.account_id = $1 AND m.mailbox_id = $2`, acct, box).Scan(&m.HighestModSeq, &m.UIDNext, &m.Messages, &gone, &seenBelow)
		if err != nil {
			return err
		}
		found.modseq = m.HighestModSeq
		if int64(m.Messages) <= s.whole() {
			found.gen = &generation{size: s.opts.IndexChunk}
			return s.readRecords(q, acct, box, uidRange{1, m.UIDNext - 1}, func(r *record) { found.gen.append(*r) })
		}
		if gone.Valid && gone.Int64 == m.missing() {
			uids, err := readMap(q, acct, box, m.UIDNext)
			if err == nil && uids.count() == int(m.Messages) {
				found.gen, found.seenBelow = newGeneration(s.opts.IndexChunk, uids, m.HighestModSeq), UID(seenBelow.Int64)
				return nil
			}
			if err != nil && !errors.Is(err, errMap) && faultOf(s.db.dbError(err)) != FaultCorrupt {
				return err
			}
		}
		if gone.Valid {
			s.log.Error("store: the map of a mailbox's UIDs is wrong, it is made anew", "account", acct, "mailbox", box)
			found.wrong = true
		}
		uids, err := s.scanUIDs(q, acct, box, m.UIDNext)
		if err != nil {
			return err
		}
		found.gen = newGeneration(s.opts.IndexChunk, uids, m.HighestModSeq)
		found.draft = draftMap(&m, uids)
		return nil
	})
	if err != nil {
		return entries{}, s.db.dbError(err)
	}
	return found, nil
}

// readRecords calls fn with the entries whose UIDs are in a range, in their order.
func (s *Store) readRecords(q Querier, acct AccountID, box MailboxID, in uidRange, fn func(*record)) error {
	return s.pastDamage(acct, box, in, func(last *UID) error {
		rows, err := q.Query(`SELECT uid, message_id, flags, keywords, modseq, size, internal_date, saved_at FROM entry
			WHERE account_id = $1 AND mailbox_id = $2 AND uid > $3 AND uid <= $4 ORDER BY uid`, acct, box, *last, in.hi)
		if err != nil {
			return err
		}
		defer rows.Close()
		var r record
		for rows.Next() {
			if err := r.scan(rows); err != nil {
				return err
			}
			*last = r.uid
			fn(&r)
		}
		return rows.Err()
	})
}

// scanUIDs gives the UIDs of all entries below next.
func (s *Store) scanUIDs(q Querier, acct AccountID, box MailboxID, next UID) (set uidSet, err error) {
	err = s.pastDamage(acct, box, uidRange{1, next - 1}, func(last *UID) error {
		rows, err := q.Query(`SELECT uid FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND uid > $3 ORDER BY uid`, acct, box, *last)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := rows.Scan(last); err != nil {
				return err
			}
			set = set.add(*last)
		}
		return rows.Err()
	})
	return set, err
}

// pastDamage reads entries with UIDs in a range: read goes on behind last, and moves it. A damaged page of the database makes
// its entries unreadable and nothing else: reading goes on behind it.
func (s *Store) pastDamage(acct AccountID, box MailboxID, in uidRange, read func(last *UID) error) error {
	last := in.lo - 1
	for from, step := last, UID(1); ; {
		err := read(&last)
		if err == nil || s.db.Dialect.Fault(err) != FaultCorrupt {
			return err
		}
		if last > from {
			from, step = last, 1
		}
		if uint64(from)+uint64(step) > uint64(in.hi) {
			s.log.Error("store: damaged entries at the end of a stretch of a mailbox", "account", acct, "mailbox", box, "after", from, "err", err)
			return nil
		}
		s.log.Error("store: damaged entries in a mailbox", "account", acct, "mailbox", box, "after", from, "err", err)
		from, step = from+step, step*2
		last = from
	}
}

// indexes bounds the memory of the indexes: those that no View uses go first, then what Views have had read.
type indexes struct {
	max int64

	mu   sync.Mutex
	used int64
	lru  *list.List // of *index that no View uses, the newest in front
	in   map[*index]*list.Element
}

func newIndexes(max int64) *indexes {
	return &indexes{max: max, lru: list.New(), in: make(map[*index]*list.Element)}
}

// busy notes that a View uses an index: its memory can't be given back as a whole.
func (x *indexes) busy(ix *index) { x.grown(ix) }

// grown counts what an index that Views use takes now.
func (x *indexes) grown(ix *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(ix)
	x.register(ix, ix.octets())
	if x.evict(); x.used > x.max {
		ix.shed()
		x.register(ix, ix.octets())
	}
}

// idle adds an index that no View uses any more, and drops those longest unused when there are too many.
func (x *indexes) idle(ix *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(ix)
	n, ok := ix.idleOctets()
	x.register(ix, n)
	if ok {
		x.in[ix] = x.lru.PushFront(ix)
	}
	x.evict()
}

// evict drops the indexes longest unused while there are too many; x.mu is held.
func (x *indexes) evict() {
	for x.used > x.max && x.lru.Len() > 0 {
		old := x.lru.Back().Value.(*index)
		x.remove(old)
		x.register(old, 0)
		old.unload()
	}
}

// drop forgets an index whose mailbox is gone.
func (x *indexes) drop(ix *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(ix)
	x.register(ix, 0)
}

// dropAccount forgets the indexes of an account that leaves the cache.
func (x *indexes) dropAccount(a *account) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, ix := range a.indexes {
		x.remove(ix)
		x.register(ix, 0)
	}
}

// remove takes an index out of the list; x.mu is held.
func (x *indexes) remove(ix *index) {
	if e, ok := x.in[ix]; ok {
		x.lru.Remove(e)
		delete(x.in, ix)
	}
}

// register counts what an index takes; x.mu is held.
func (x *indexes) register(ix *index, octets int64) {
	x.used += octets - ix.registered
	ix.registered = octets
}

// octets is about what the index takes in memory.
func (ix *index) octets() int64 {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if ix.gen == nil || ix.gone {
		return 0
	}
	return ix.gen.octets()
}

// idleOctets is octets of an index without Views; false when it has some, or nothing in memory.
func (ix *index) idleOctets() (int64, bool) {
	n := ix.octets()
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	return n, n > 0 && len(ix.views) == 0
}

// unload gives the entries' memory back unless a View came meanwhile.
func (ix *index) unload() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if len(ix.views) == 0 {
		ix.gen, ix.lately = nil, nil
	}
}

package store

import (
	"container/list"
	"context"
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
	ix.loading = &indexLoad{done: make(chan struct{})}
	return ix.loading, true, nil
}

// load reads the entries and ends the load.
func (ix *index) load(ctx context.Context, s *Store, load *indexLoad) {
	// A large mailbox takes a connection for seconds: some are kept free for others.
	s.loads <- struct{}{}
	gen, modseq, err := readEntries(ctx, s, ix.acct.id, ix.box)
	<-s.loads
	ix.finish(load, gen, modseq, err)
}

// finish takes over what was read, and the changes that the snapshot of this MODSEQ lacks.
func (ix *index) finish(load *indexLoad, gen *generation, modseq ModSeq, err error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	defer close(load.done)
	ix.loading = nil
	if err != nil {
		load.err = fmt.Errorf("store: mailbox %d of account %d: %w", ix.box, ix.acct.id, err)
		return
	}
	ix.gen, ix.modseq = gen, modseq
	for i := range load.missed {
		if load.missed[i].modseq > modseq {
			ix.change(&load.missed[i])
		}
	}
}

// readEntries reads all entries of a mailbox with the MODSEQ of the snapshot.
//
// A damaged page of the database makes its entries unreadable and nothing else: reading goes on behind it.
func readEntries(ctx context.Context, s *Store, acct AccountID, box MailboxID) (*generation, ModSeq, error) {
	g := &generation{}
	var modseq ModSeq
	err := s.Read(ctx, func(q Querier) error {
		var next UID
		if err := q.QueryRow(`SELECT modseq, uid_next FROM mailbox WHERE account_id = $1 AND mailbox_id = $2`, acct, box).Scan(&modseq, &next); err != nil {
			return err
		}
		from, step := UID(0), UID(1)
		for {
			err := readEntriesFrom(q, g, acct, box, from)
			if err == nil {
				return nil
			}
			if s.db.Dialect.Fault(err) != FaultCorrupt {
				return err
			}
			if last := g.last(); last >= from {
				from, step = last, 1
			}
			if uint64(from)+uint64(step) >= uint64(next) {
				s.log.Error("store: damaged entries at the end of a mailbox", "account", acct, "mailbox", box, "after", from, "err", err)
				return nil
			}
			s.log.Error("store: damaged entries in a mailbox", "account", acct, "mailbox", box, "after", from, "err", err)
			from, step = from+step, step*2
		}
	})
	if err != nil {
		return nil, 0, s.db.dbError(err)
	}
	return g, modseq, nil
}

// readEntriesFrom appends the entries with a UID above from.
func readEntriesFrom(q Querier, g *generation, acct AccountID, box MailboxID, from UID) error {
	rows, err := q.Query(`SELECT uid, message_id, flags, keywords, modseq, size, internal_date, saved_at FROM entry
		WHERE account_id = $1 AND mailbox_id = $2 AND uid > $3 ORDER BY uid`, acct, box, from)
	if err != nil {
		return err
	}
	defer rows.Close()
	var r record
	for rows.Next() {
		if err := r.scan(rows); err != nil {
			return err
		}
		g.append(r)
	}
	return rows.Err()
}

// indexes bounds the memory of the indexes that no View uses.
type indexes struct {
	max int64

	mu   sync.Mutex
	used int64
	lru  *list.List // of *index, the newest in front
	in   map[*index]*list.Element
}

func newIndexes(max int64) *indexes {
	return &indexes{max: max, lru: list.New(), in: make(map[*index]*list.Element)}
}

// busy takes an index out of the account of memory that may be given back: a View uses it.
func (x *indexes) busy(ix *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(ix)
}

// idle adds an index that no View uses any more, and drops those longest unused when there are too many.
func (x *indexes) idle(ix *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(ix)
	n, ok := ix.idleOctets()
	if !ok {
		return
	}
	ix.registered = n
	x.used += n
	x.in[ix] = x.lru.PushFront(ix)
	for x.used > x.max && x.lru.Len() > 0 {
		old := x.lru.Back().Value.(*index)
		x.remove(old)
		old.unload()
	}
}

// drop forgets an index whose mailbox is gone.
func (x *indexes) drop(ix *index) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(ix)
}

// dropAccount forgets the indexes of an account that leaves the cache.
func (x *indexes) dropAccount(a *account) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, ix := range a.indexes {
		x.remove(ix)
	}
}

// remove takes an index out of the list; x.mu is held.
func (x *indexes) remove(ix *index) {
	if e, ok := x.in[ix]; ok {
		x.lru.Remove(e)
		delete(x.in, ix)
		x.used -= ix.registered
		ix.registered = 0
	}
}

// idleOctets returns the size of a loaded index without Views.
func (ix *index) idleOctets() (int64, bool) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	if ix.gen == nil || len(ix.views) > 0 || ix.gone {
		return 0, false
	}
	return ix.gen.octets(), true
}

// unload gives the entries' memory back unless a View came meanwhile.
func (ix *index) unload() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if len(ix.views) == 0 {
		ix.gen = nil
	}
}

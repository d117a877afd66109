package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A node says every nodeBeat that it lives. When it could not for nodeFence it holds itself for dead: it breaks off what it does
// under leases. When the others have not seen it for nodeGone they take over what it held. Between the two lies what a clock may
// be off by, and the time that breaking off takes.
const (
	nodeBeat  = 3 * time.Second
	nodeFence = 12 * time.Second
	nodeGone  = 20 * time.Second
	fenceLook = 500 * time.Millisecond
)

// tenure is something that a node has for a time: a context that ends with it. The zero tenure is not held.
type tenure struct {
	mu     sync.Mutex
	ctx    context.Context // nil: not held
	cancel context.CancelFunc
}

func (t *tenure) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == nil {
		t.ctx, t.cancel = context.WithCancel(context.Background())
	}
}

func (t *tenure) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx != nil {
		t.cancel()
		t.ctx, t.cancel = nil, nil
	}
}

func (t *tenure) held() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ctx != nil
}

// during returns a context that ends with ctx, and with the tenure. When it is not held it has ended already.
func (t *tenure) during(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == nil {
		cancel()
		return ctx, cancel
	}
	stop := context.AfterFunc(t.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// Node names this run of this node among those on the database; "" when there can't be others.
func (s *Store) Node() string {
	if s.link == nil {
		return ""
	}
	return s.link.node
}

// WhileLeased returns a context for what is done under leases: it ends with ctx, and when this node has not been seen for so
// long that others are about to take its leases.
func (s *Store) WhileLeased(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.link == nil {
		return context.WithCancel(ctx)
	}
	return s.link.alive.during(ctx)
}

// Seen tells whether this node could say lately that it lives.
func (s *Store) Seen() bool { return s.link == nil || s.link.alive.held() }

// Hears tells whether this node is told of what others do.
func (s *Store) Hears() bool { return s.link == nil || !s.link.deaf.Load() }

// Leads tells whether this node keeps house for all: one does, and another soon when that is gone.
func (s *Store) Leads() bool { return s.link == nil || s.link.leads.held() }

// WhileLeading returns a context that ends with ctx, and when this node does not lead any more. It has ended already when the
// node does not lead now.
func (s *Store) WhileLeading(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.link == nil {
		return context.WithCancel(ctx)
	}
	return s.link.leads.during(ctx)
}

// Lead takes part in who leads, until ctx ends. What a leader does is safe beside another: that there is one spares work.
func (s *Store) Lead(ctx context.Context) {
	l := s.link
	if l == nil {
		<-ctx.Done()
		return
	}
	for {
		err := s.db.Peers.Lead(ctx, func(ctx context.Context) {
			s.log.Info("store: this node leads", "node", l.node)
			l.leads.begin()
			s.fresh.stir()
			<-ctx.Done()
			l.leads.end()
		})
		if ctx.Err() == nil {
			s.log.Warn("store: this node does not lead", "node", l.node, "err", err)
		}
		if !pause(ctx, retryPause) {
			return
		}
	}
}

// live says again and again that this node lives. It doesn't wait for the writer: a long transaction is no death.
func (l *link) live(ctx context.Context) {
	for pause(ctx, nodeBeat) {
		if err := l.beat(ctx); err != nil && ctx.Err() == nil {
			l.s.log.Warn("store: this node can't say that it lives", "node", l.node, "err", err)
		}
	}
}

// inherit takes over again and again what other nodes held that don't live any more.
func (l *link) inherit(ctx context.Context) {
	for pause(ctx, nodeBeat) {
		if err := l.s.bury(ctx); err != nil && ctx.Err() == nil {
			l.s.log.Warn("store: look after other nodes", "err", err)
		}
	}
}

// beat writes that this node lives.
func (l *link) beat(ctx context.Context) error {
	l.beating.Lock() // what is written last was looked at last
	defer l.beating.Unlock()
	began := time.Now()
	err := l.s.reads.row(ctx, []any{new(int64)}, `INSERT INTO node (node, name, seen, pinned) VALUES ($1, $2, `+l.s.db.Peers.Now()+`, $3)
		ON CONFLICT (node) DO UPDATE SET seen = excluded.seen, pinned = excluded.pinned RETURNING seen`, l.node, l.s.opts.Name, boolInt(l.s.fresh.pinned()))
	if err != nil {
		return err
	}
	l.seen.Store(&began)
	l.alive.begin()
	return nil
}

// pin lets all nodes know what this one has pinned, before anything relies on it.
func (l *link) pin(ctx context.Context) error {
	if l == nil {
		return nil
	}
	return l.beat(ctx)
}

// pinnedElsewhere tells whether another node has pinned contents: no object may go.
func (tx *Tx) pinnedElsewhere() (bool, error) {
	if tx.s.link == nil {
		return false, nil
	}
	n, err := tx.numbers(`SELECT count(*) FROM node AS n WHERE n.pinned <> 0 AND n.node <> $1 AND `+tx.s.seenLately(), tx.s.link.node)
	return err == nil && n[0] > 0, err
}

// fence ends what this node has leased in time. It asks nobody: the database may not answer for minutes.
func (l *link) fence(ctx context.Context) {
	for pause(ctx, fenceLook) {
		if time.Since(*l.seen.Load()) >= nodeFence {
			l.alive.end()
		}
	}
}

// leave takes this node out of the list, so that what it held is free at once.
func (l *link) leave() {
	l.alive.end()
	ctx, cancel := context.WithTimeout(context.Background(), nodeBeat)
	defer cancel()
	err := l.s.Write(ctx, func(tx *Tx) error {
		if err := tx.exec(`DELETE FROM maildrop WHERE node = $1`, l.node); err != nil {
			return err
		}
		return tx.exec(`DELETE FROM node WHERE node = $1`, l.node)
	})
	if err != nil {
		l.s.log.Info("store: the other nodes will find out by themselves that this one has ended", "err", err)
	}
}

// seenLately is the condition for a node, in table n, that lives.
func (s *Store) seenLately() string {
	return fmt.Sprintf(`n.seen >= %s - %d`, s.db.Peers.Now(), nodeGone.Milliseconds())
}

// bury forgets nodes that have not been seen for long, and makes what they had leased wait again, due now.
func (s *Store) bury(ctx context.Context) error {
	freed := 0
	err := s.Write(ctx, func(tx *Tx) error {
		freed = 0
		rows, err := tx.Query(`SELECT id, domain, lane FROM queue_recipient AS r WHERE state = 'leased'
			AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.node = r.lease_owner AND ` + s.seenLately() + `) ORDER BY id LIMIT 1000` + tx.skipLocked())
		if err != nil {
			return err
		}
		if freed, err = requeue(tx, rows, tx.now); err != nil || freed > 0 {
			tx.NotifyQueue()
			return err
		}
		old, err := tx.numbers(`SELECT count(*) FROM node AS n WHERE NOT (` + s.seenLately() + `)`)
		if err != nil || old[0] == 0 {
			return err
		}
		return tx.exec(`DELETE FROM node AS n WHERE NOT (` + s.seenLately() + `)`)
	})
	if freed > 0 {
		s.log.Warn("store: took over what a node had begun that is gone", "recipients", freed)
	}
	if err != nil {
		return fmt.Errorf("take over from other nodes: %w", err)
	}
	return nil
}

// LockMaildrop gives one POP3 session the maildrop of an account (RFC 1939, section 4), on whatever node; ok is false while
// another has it. Calling unlock again does nothing.
func (s *Store) LockMaildrop(ctx context.Context, acct AccountID) (unlock func(), ok bool, err error) {
	if !s.claimMaildrop(acct) {
		return nil, false, nil
	}
	if s.link != nil {
		if ok, err := s.takeMaildrop(ctx, acct); err != nil || !ok {
			s.freeMaildrop(acct)
			return nil, false, err
		}
	}
	return sync.OnceFunc(func() {
		if s.link != nil {
			s.giveMaildrop(acct)
		}
		s.freeMaildrop(acct)
	}), true, nil
}

// claimMaildrop gives one session of this node a maildrop.
func (s *Store) claimMaildrop(acct AccountID) bool {
	s.maildropMu.Lock()
	defer s.maildropMu.Unlock()
	if _, taken := s.maildrops[acct]; taken {
		return false
	}
	s.maildrops[acct] = struct{}{}
	return true
}

func (s *Store) freeMaildrop(acct AccountID) {
	s.maildropMu.Lock()
	defer s.maildropMu.Unlock()
	delete(s.maildrops, acct)
}

// takeMaildrop enters that this node has a maildrop, unless a node that lives has it.
func (s *Store) takeMaildrop(ctx context.Context, acct AccountID) (ok bool, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(`INSERT INTO maildrop (account_id, node) VALUES ($1, $2)
			ON CONFLICT (account_id) DO UPDATE SET node = excluded.node WHERE maildrop.node = excluded.node
			OR NOT EXISTS (SELECT 1 FROM node AS n WHERE n.node = maildrop.node AND `+s.seenLately()+`)`, acct, s.link.node))
		ok = n > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("store: maildrop of account %d: %w", acct, err)
	}
	return ok, nil
}

// giveMaildrop takes the entry back. While the database is away the entry stays: it is this node's, so that a session here can
// have the maildrop again, and one elsewhere when this node has ended.
func (s *Store) giveMaildrop(acct AccountID) {
	ctx, cancel := context.WithTimeout(context.Background(), nodeBeat)
	defer cancel()
	err := s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`DELETE FROM maildrop WHERE account_id = $1 AND node = $2`, acct, s.link.node)
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		s.log.Warn("store: a maildrop stays this node's for now", "account", acct, "err", err)
	}
}

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// connectTime bounds how long the writer waits for a new connection: what waits behind it is refused for now.
const connectTime = 15 * time.Second

// connect opens a connection when there is none. What happened since the last one broke is unknown: the outcome of a
// commit that was under way, and what another node did meanwhile. So what memory holds is read anew.
func (w *writer) connect() error {
	if w.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	conn, err := w.s.db.Writer.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	w.conn = conn
	if !w.lost {
		return nil
	}
	if err := w.s.resume(); err != nil {
		return errors.Join(fmt.Errorf("connect: %w", err), w.disconnect())
	}
	w.lost = false
	w.s.log.Info("store: the database is there again")
	return nil
}

// drop gives a broken connection up.
func (w *writer) drop(cause error) {
	w.s.log.Warn("store: the connection to the database broke", "err", cause)
	w.inTx, w.lost = false, true
	if err := w.disconnect(); err != nil {
		w.s.log.Debug("store: close a broken connection", "err", err)
	}
}

// disconnect closes the connection and its statements.
func (w *writer) disconnect() error {
	if w.conn == nil {
		return nil
	}
	var err error
	if w.s.db.Dialect.State(w.conn) != ConnLost {
		for _, st := range w.stmts {
			err = errors.Join(err, st.Close())
		}
	}
	clear(w.stmts)
	if w.s.db.Dialect.State(w.conn) == ConnLost {
		err = nil // it broke before, and holds nothing that its end could lose
	}
	err = errors.Join(err, closeConn(w.conn))
	w.conn = nil
	return err
}

// closeConn gives a connection back to its pool; one that has broken is no error.
func closeConn(conn *sql.Conn) error {
	err := conn.Close()
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}

// broken says whether the transaction can't be committed any more, whatever its closure says: PostgreSQL ends it with the
// first statement that fails.
func (w *writer) broken(cause error) error {
	if w.s.db.Dialect.State(w.conn) == ConnSound {
		return nil
	}
	if cause == nil {
		cause = errors.New("a statement failed")
	}
	return &faultError{fault: FaultBusy, err: fmt.Errorf("store: the transaction is void: %w", cause)}
}

// resume makes memory follow the rows after the connection was lost: ids go on above all that may have been used, and
// accounts are read anew before anything is done with them.
func (s *Store) resume() error {
	if !s.shared() { // else the ranges that this node has are its own still
		// Over the new connection: those that read may have broken too, and show it only when they are used.
		ids, err := loadIDs(&Tx{w: s.writer, s: s}, false)
		if err != nil {
			return err
		}
		s.ids.raise(ids)
	}
	for _, a := range s.accounts.outdate() {
		id := a.id
		o := &op{done: make(chan error, 1), fn: func(tx *Tx) error {
			if _, err := tx.account(id); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			return nil
		}}
		if err := s.writer.enqueue(o); err != nil {
			return nil // closed: nobody will read the memory
		}
	}
	return nil
}

// outdate marks all accounts in memory as old. Those in use are returned, the others are forgotten.
func (c *accounts) outdate() []*account {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := make([]*account, 0, len(c.byID)-c.unused.Len())
	for _, a := range c.byID {
		if a.lru != nil {
			c.evict(a)
			continue
		}
		a.stale.Store(true)
		used = append(used, a)
	}
	return used
}

// raise lets the sequences go on above those of others.
func (d *ids) raise(others *ids) {
	for _, p := range [][2]*sequence{{&d.message, &others.message}, {&d.blob, &others.blob}} {
		p[0].next = max(p[0].next, p[1].next)
		p[0].mark = max(p[0].mark, p[1].mark)
	}
}

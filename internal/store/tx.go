package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing/internal/store/blob"
)

// Querier is what a closure given to Read asks.
type Querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *Row
}

// Row is the result of QueryRow: sql.Row with this package's errors.
type Row struct {
	db  *Database
	tx  *Tx // nil outside of a transaction that writes
	row *sql.Row
	err error
}

// Scan copies the columns of the row; sql.ErrNoRows when there is none.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	err := r.row.Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if r.tx != nil {
		return r.tx.failed(err)
	}
	return r.db.dbError(err)
}

// Tx is the transaction that a closure given to Write runs in. Other closures may have run in it before, and it may be
// rolled back and run again: a closure keeps nothing from one run to the next. It belongs to the writer's goroutine, so a
// closure must not call Write, nor anything that waits for a session.
type Tx struct {
	w   *writer
	s   *Store
	now time.Time

	accounts  map[AccountID]*work // accounts as this transaction leaves them
	segments  map[blob.Segment]*segmentDelta
	after     []func()                         // AfterCommit
	freed     []blob.Ref                       // contents whose last reference goes
	released  []int64                          // contents that lose a reference
	emptied   map[QueueID]struct{}             // queued messages that lost recipients
	destined  map[waitingFor][]func(*Tx) error // changes of the schedule of destinations
	queue     bool                             // NotifyQueue
	directory bool                             // the directory changed

	op        *op                 // whose closure runs now
	locked    map[AccountID]int64 // accounts whose rows are locked, with their versions, when other nodes write too
	contended error               // what the closure that runs now could not lock

	wrote bool  // the closure that runs now has changed something
	fault error // the database failed under it: the transaction is lost whatever the closure says
}

// Now is the time of the transaction, by the store's clock.
func (tx *Tx) Now() time.Time { return tx.now }

// Exec runs a statement. It is prepared once for its text: keep texts constant and values in $n.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	tx.wrote = true
	st, err := tx.w.stmt(query)
	if err != nil {
		return nil, tx.failed(err)
	}
	res, err := st.ExecContext(context.Background(), args...)
	return res, tx.failed(err)
}

// exec is Exec for those who don't need the result.
func (tx *Tx) exec(query string, args ...any) error {
	_, err := tx.Exec(query, args...)
	return err
}

// Query runs a query; the caller closes the rows before anything else is asked of the transaction's end.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	tx.wrote = tx.wrote || !isSelect(query)
	st, err := tx.w.stmt(query)
	if err != nil {
		return nil, tx.failed(err)
	}
	rows, err := st.QueryContext(context.Background(), args...)
	return rows, tx.failed(err)
}

// QueryRow runs a query for one row.
func (tx *Tx) QueryRow(query string, args ...any) *Row {
	tx.wrote = tx.wrote || !isSelect(query)
	st, err := tx.w.stmt(query)
	if err != nil {
		return &Row{db: tx.s.db, err: tx.failed(err)}
	}
	return &Row{db: tx.s.db, tx: tx, row: st.QueryRowContext(context.Background(), args...)}
}

// isSelect tells a statement that only reads: INSERT … RETURNING is a query too.
func isSelect(query string) bool {
	query = strings.TrimSpace(query)
	return len(query) >= 6 && strings.EqualFold(query[:6], "SELECT")
}

// AfterCommit has fn called by the writer's goroutine when the transaction is committed; fn must not block.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

// NotifyQueue wakes those who watch the queue when the transaction is committed.
func (tx *Tx) NotifyQueue() { tx.queue = true }

// failed notes an error that ends the transaction whatever the closure makes of it: the database may have rolled it back
// already, and what follows would be committed by itself.
func (tx *Tx) failed(err error) error {
	if err == nil {
		return nil
	}
	err = tx.s.db.dbError(err)
	switch faultOf(err) {
	case FaultFull, FaultReadOnly, FaultFailed, FaultBusy, FaultCorrupt, FaultLost, FaultRetry:
		if tx.fault == nil {
			tx.fault = tx.w.note(err)
		}
	}
	return err
}

// run calls a closure and takes back what it left behind when it failed.
func (tx *Tx) run(o *op) error {
	tx.op = o
	tx.wrote, tx.fault, tx.contended = false, nil, nil
	after := len(tx.after)
	err := tx.call(o.fn)
	if tx.fault == nil {
		tx.fault = tx.w.broken(err)
	}
	if err == nil && tx.fault != nil {
		err = tx.fault
	}
	if tx.contended != nil && faultOf(err) != FaultRetry {
		err = tx.contended // whatever the closure made of it
	}
	if err != nil {
		tx.wrote = tx.wrote || tx.fault != nil
		tx.after = tx.after[:after]
	}
	return err
}

// flush writes the counters that the closures changed: once a transaction, however many they were.
func (tx *Tx) flush() error {
	for _, w := range tx.accounts {
		if err := w.flush(tx); err != nil {
			return fmt.Errorf("store: account %d: %w", w.id, err)
		}
	}
	// What several nodes write comes last and in one order for all, so that none waits for one that waits for it.
	for _, step := range []func() error{tx.flushQueue, tx.flushReleased, tx.flushDestinations, tx.flushSegments} {
		if err := step(); err != nil {
			return err
		}
	}
	return tx.s.ids.flush(tx)
}

// publish makes a committed transaction visible in memory and tells those who watch.
func (tx *Tx) publish() {
	for _, w := range tx.accounts {
		w.publish(tx.s)
	}
	tx.s.ids.settle()
	tx.s.link.changed(tx)
	for _, ref := range tx.freed {
		tx.s.blobs.Delete(ref)
	}
	tx.release()
	if tx.queue {
		tx.s.notices.queueChanged()
	}
	for _, fn := range tx.after {
		fn()
	}
}

// drop forgets a transaction that was rolled back.
func (tx *Tx) drop() {
	tx.s.ids.forget()
	tx.release()
}

// release lets go of the accounts.
func (tx *Tx) release() {
	for _, w := range tx.accounts {
		if w.acct != nil {
			tx.s.accounts.unpin(w.acct)
		}
	}
}

// Write runs fn in a transaction, which it may share with others, and returns when that is committed. See Tx.
func (s *Store) Write(ctx context.Context, fn func(tx *Tx) error) error {
	return s.writer.do(ctx, fn)
}

// Read runs fn on a snapshot of the committed rows. fn has one of few connections: it must not wait for a peer, and not call
// Read or Write.
func (s *Store) Read(ctx context.Context, fn func(q Querier) error) error {
	return s.reads.snapshot(ctx, func(q *reader) error { return fn(q) })
}

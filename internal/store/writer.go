package store

import (
	"context"
	"database/sql"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Bounds of one group transaction: beyond them the rest of the queue waits for the next.
const (
	maxGroup     = 256
	maxGroupTime = 30 * time.Millisecond
	// maxRegroup is how often a group is tried again without the operations that failed, before each runs alone.
	maxRegroup = 4
)

// op is one closure on its way through the writer.
type op struct {
	fn    func(tx *Tx) error
	done  chan error // buffered: the writer never waits for a caller
	taken bool       // guarded by writer.mu: from here on the caller waits for the outcome

	wants []AccountID // accounts that it turned out to need; of the writer's goroutine
}

// writer owns the one connection that writes. Its goroutine takes whatever waits, runs it in one transaction, commits, and
// answers: while a commit is under way the next group gathers, so the group grows with the load and nothing waits for a timer.
type writer struct {
	s     *Store
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // of the writer's goroutine
	done  chan struct{}        // closed when the goroutine has ended

	mu     sync.Mutex
	wake   *sync.Cond
	queue  []*op
	closed bool
	failed error // set when a sync failed: nothing is written any more

	inTx bool // a transaction is open; of the writer's goroutine
	lost bool // the connection before this one broke; of the writer's goroutine
}

func newWriter(ctx context.Context, s *Store) (*writer, error) {
	conn, err := s.db.Writer.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{s: s, conn: conn, stmts: make(map[string]*sql.Stmt), done: make(chan struct{})}
	w.wake = sync.NewCond(&w.mu)
	return w, nil
}

// do hands fn to the writer and waits for the commit. A caller whose context ends before its turn leaves the queue; after
// that it waits for the outcome, which is near.
func (w *writer) do(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &op{fn: fn, done: make(chan error, 1)}
	if err := w.enqueue(o); err != nil {
		return err
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
	}
	if w.withdraw(o) {
		return ctx.Err()
	}
	return <-o.done
}

// enqueue adds an operation to the queue; its outcome goes to o.done, which nobody needs to read.
func (w *writer) enqueue(o *op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return ErrClosed
	case w.failed != nil:
		return w.failed
	}
	w.queue = append(w.queue, o)
	w.wake.Signal()
	return nil
}

// waiting is how many operations wait for their turn.
func (w *writer) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue)
}

// withdraw takes an operation out of the queue; false when its turn has come.
func (w *writer) withdraw(o *op) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.taken {
		return false
	}
	for i, q := range w.queue {
		if q == o {
			w.queue = append(w.queue[:i], w.queue[i+1:]...)
			return true
		}
	}
	return false
}

// take returns up to max waiting operations. With wait it waits for the first; nil then means that the writer is closed.
func (w *writer) take(max int, wait bool) []*op {
	w.mu.Lock()
	defer w.mu.Unlock()
	for wait && len(w.queue) == 0 && !w.closed {
		w.wake.Wait()
	}
	n := min(max, len(w.queue))
	if n == 0 {
		return nil
	}
	ops := make([]*op, n)
	copy(ops, w.queue)
	clear(w.queue[:n])
	w.queue = w.queue[n:]
	for _, o := range ops {
		o.taken = true
	}
	return ops
}

// run is the writer's goroutine: until closed, and then until the queue is empty.
func (w *writer) run() {
	defer close(w.done)
	for {
		ops := w.take(maxGroup, true)
		if ops == nil {
			return
		}
		if err := w.failure(); err != nil {
			answer(ops, err)
			continue
		}
		w.group(ops)
	}
}

// close ends the writer: what waits is still done.
func (w *writer) close() error {
	w.mu.Lock()
	w.closed = true
	w.wake.Signal()
	w.mu.Unlock()
	<-w.done
	return w.disconnect()
}

func answer(ops []*op, err error) {
	for _, o := range ops {
		o.done <- err
	}
}

func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// group runs the operations in one transaction, with those that come meanwhile. An operation that fails before it wrote
// anything is answered and left out. One that fails after it wrote spoils the transaction: it is set aside, the rest runs
// again, and those set aside run alone at last, where their failure harms nobody. What gave way to another node's transaction
// runs again with the rest, and locks first what it needs.
func (w *writer) group(ops []*op) {
	var aside []*op
	for round := 0; len(ops) > 0; round++ {
		if round == maxRegroup {
			aside = append(aside, ops...)
			break
		}
		var spoiler *op
		ops, spoiler = w.attempt(ops, round == 0)
		if spoiler != nil {
			aside = append(aside, spoiler)
		}
	}
	for _, o := range aside {
		w.alone(o)
	}
}

// attempt runs one transaction. It returns what must run again because spoiler spoiled it, or nothing when all is answered.
func (w *writer) attempt(ops []*op, grow bool) (again []*op, spoiler *op) {
	tx, err := w.begin(ops)
	if err != nil && faultOf(err) == FaultRetry {
		return ops, nil
	}
	if err != nil {
		answer(ops, err)
		return nil, nil
	}
	start := time.Now()
	var ran, later []*op
	for len(ops) > 0 {
		o := ops[0]
		ops = ops[1:]
		err := tx.run(o)
		yields := faultOf(err) == FaultRetry
		switch {
		case err == nil:
			ran = append(ran, o)
		case !tx.wrote && yields:
			later = append(later, o)
		case !tx.wrote:
			o.done <- err
		default:
			w.rollback()
			tx.drop()
			again = slices.Concat(ran, ops, later)
			if yields {
				return append(again, o), nil
			}
			return again, o
		}
		if len(ops) == 0 && grow && len(ran) < maxGroup && time.Since(start) < maxGroupTime {
			ops = w.take(maxGroup-len(ran), false)
		}
	}
	return append(later, w.finish(tx, ran)...), nil
}

// maxYields is how often an operation alone gives way to the transactions of other nodes.
const maxYields = 30

// alone runs one operation in its own transaction.
func (w *writer) alone(o *op) {
	for try := 0; ; try++ {
		err := w.tryAlone(o)
		if err == nil {
			return
		}
		if faultOf(err) != FaultRetry || try == maxYields {
			o.done <- err
			return
		}
	}
}

// tryAlone answers the operation unless it returns an error.
func (w *writer) tryAlone(o *op) error {
	tx, err := w.begin([]*op{o})
	if err != nil {
		return err
	}
	if err := tx.run(o); err != nil {
		w.rollback()
		tx.drop()
		return err
	}
	if again := w.finish(tx, []*op{o}); len(again) > 0 {
		return &faultError{fault: FaultRetry, err: errContended}
	}
	return nil
}

// finish writes the counters, commits, makes the change visible to Views and answers. It returns what must run again, since
// the database let another transaction go first.
func (w *writer) finish(tx *Tx, ran []*op) (again []*op) {
	if len(ran) == 0 {
		w.rollback()
		tx.drop()
		return nil
	}
	err := tx.flush()
	if err == nil {
		err = w.commit()
	}
	if err != nil {
		w.rollback()
		tx.drop()
		if faultOf(err) == FaultRetry {
			return ran
		}
		answer(ran, err)
		return nil
	}
	tx.publish()
	answer(ran, nil)
	return nil
}

// begin opens a transaction for operations, and locks what they needed when they ran before.
func (w *writer) begin(ops []*op) (*Tx, error) {
	tx, err := w.open()
	if err != nil {
		return nil, err
	}
	if err := tx.lockAll(wantedBy(ops)); err != nil {
		w.rollback()
		tx.drop()
		return nil, err
	}
	return tx, nil
}

func (w *writer) open() (*Tx, error) {
	if err := w.failure(); err != nil {
		return nil, err
	}
	err := w.start()
	if faultOf(err) == FaultLost {
		err = w.start() // that the connection has broken long ago shows only now
	}
	if err != nil {
		return nil, fmt.Errorf("store: begin: %w", w.note(err))
	}
	w.inTx = true
	return &Tx{w: w, s: w.s, now: w.s.clock(), accounts: make(map[AccountID]*work)}, nil
}

// start opens a transaction, over a new connection when there is none.
func (w *writer) start() error {
	if err := w.connect(); err != nil {
		return w.s.db.dbError(err)
	}
	err := w.s.ids.reserve(w.conn)
	if err == nil {
		_, err = w.conn.ExecContext(context.Background(), w.s.db.Dialect.Begin())
	}
	if err != nil && w.s.db.Dialect.State(w.conn) == ConnLost {
		w.drop(err)
	}
	return w.s.db.dbError(err)
}

func (w *writer) commit() error {
	_, err := w.conn.ExecContext(context.Background(), "COMMIT")
	if err == nil {
		w.inTx = false
		return nil
	}
	if w.s.db.Dialect.State(w.conn) == ConnLost {
		w.drop(err)
		return fmt.Errorf("store: commit: %w", &faultError{fault: FaultUnknown, err: err})
	}
	return fmt.Errorf("store: commit: %w", w.note(w.s.db.dbError(err)))
}

// rollback ends a transaction without its changes. The database may have ended it by itself, after a full disk say; then
// ROLLBACK fails, and rightly has nothing to do.
func (w *writer) rollback() {
	if !w.inTx {
		return
	}
	w.inTx = false
	if _, err := w.conn.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		w.s.log.Debug("store: rollback", "err", err)
		if w.s.db.Dialect.State(w.conn) == ConnLost {
			w.drop(err)
		}
	}
}

// note looks at an error of the database: after a failed sync nobody knows what is on disk, so nothing more is written
// until the store is opened anew and reads what is there.
func (w *writer) note(err error) error {
	if faultOf(err) != FaultFailed {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = err
		w.s.log.Error("store: a sync of the database failed, nothing is written any more until restart", "err", err)
	}
	return err
}

// call runs a closure. A panic in it is the failure of one operation, not the end of the server.
func (tx *Tx) call(fn func(tx *Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			tx.wrote = true
			err = fmt.Errorf("store: panic in a transaction: %v", p)
			tx.s.log.Error("store: panic in a transaction", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	return fn(tx)
}

// stmt returns the prepared statement for a query text.
func (w *writer) stmt(query string) (*sql.Stmt, error) {
	if st, ok := w.stmts[query]; ok {
		return st, nil
	}
	st, err := w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	w.stmts[query] = st
	return st, nil
}

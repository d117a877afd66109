package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// reads lends out the connections that read. Each has its own prepared statements: the pool of database/sql would take a
// second connection to prepare a statement for the first, and wait for ever once all are in use.
type reads struct {
	db   *Database
	idle chan *reader
	n    int
}

// reader is one connection. It is open from its first use on, and belongs to whoever has it.
type reader struct {
	db    *Database
	ctx   context.Context // of the call that has it
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

// defaultReaders is how many connections read when the pool has no bound.
const defaultReaders = 8

func newReads(db *Database) *reads {
	n := db.Reader.Stats().MaxOpenConnections
	if n <= 0 {
		n = defaultReaders
	}
	r := &reads{db: db, idle: make(chan *reader, n), n: n}
	for range n {
		r.idle <- &reader{db: db}
	}
	return r
}

// with calls fn with a connection; statements see what is committed when they run. fn must not wait for a peer, nor ask for
// another connection.
//
// Statements run to their end whatever becomes of ctx: each is short, and to watch a context costs a goroutine a statement.
func (r *reads) with(ctx context.Context, fn func(q *reader) error) error {
	c, err := r.take(ctx)
	if err != nil {
		return err
	}
	defer func() { r.idle <- c }()
	err = fn(c)
	if err != nil && c.unsound() || errors.Is(err, driver.ErrBadConn) {
		c.discard() // the next call opens another
	}
	return err
}

// take lends out a connection, open; it comes back through idle.
func (r *reads) take(ctx context.Context) (*reader, error) {
	var c *reader
	select {
	case c = <-r.idle:
	default:
		select {
		case c = <-r.idle:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if c == nil {
		r.idle <- nil
		return nil, ErrClosed
	}
	c.ctx = context.WithoutCancel(ctx)
	if c.conn == nil {
		conn, err := r.db.Reader.Conn(c.ctx)
		if err != nil {
			r.idle <- c
			return nil, fmt.Errorf("store: connection for reading: %w", r.db.dbError(err))
		}
		c.conn, c.stmts = conn, make(map[string]*sql.Stmt)
	}
	return c, nil
}

// unsound says that a failed statement left the connection good for nothing.
func (c *reader) unsound() bool { return c.conn != nil && c.db.Dialect.State(c.conn) != ConnSound }

// snapshot calls fn with a connection whose statements all see the same moment.
func (r *reads) snapshot(ctx context.Context, fn func(q *reader) error) error {
	return r.with(ctx, func(q *reader) error { return q.snapshot(func() error { return fn(q) }) })
}

func (c *reader) snapshot(fn func() error) (err error) {
	if err := c.begin(c.db.Dialect.BeginRead()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	return fn()
}

func (c *reader) begin(statement string) error {
	if _, err := c.conn.ExecContext(c.ctx, statement); err != nil {
		return fmt.Errorf("store: begin reading: %w", c.db.dbError(err))
	}
	return nil
}

// end ends a transaction. A connection that stays in its snapshot would show old rows for ever.
func (c *reader) end() error {
	if _, err := c.conn.ExecContext(c.ctx, "ROLLBACK"); err != nil {
		c.discard()
		return fmt.Errorf("store: end reading: %w", c.db.dbError(err))
	}
	return nil
}

func (c *reader) stmt(query string) (*sql.Stmt, error) {
	if st, ok := c.stmts[query]; ok {
		return st, nil
	}
	st, err := c.conn.PrepareContext(c.ctx, query)
	if err != nil {
		return nil, c.db.dbError(err)
	}
	c.stmts[query] = st
	return st, nil
}

// Query implements Querier.
func (c *reader) Query(query string, args ...any) (*sql.Rows, error) {
	st, err := c.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(c.ctx, args...)
	return rows, c.db.dbError(err)
}

// QueryRow implements Querier.
func (c *reader) QueryRow(query string, args ...any) *Row {
	st, err := c.stmt(query)
	if err != nil {
		return &Row{db: c.db, err: err}
	}
	return &Row{db: c.db, row: st.QueryRowContext(c.ctx, args...)}
}

// each calls scan for each row of a query.
func (c *reader) each(scan func(rows *sql.Rows) error, query string, args ...any) error {
	rows, err := c.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return c.db.dbError(err)
		}
	}
	return c.db.dbError(rows.Err())
}

// discard gives up a connection that broke, or whose transaction can't be ended; what closing it says is of no use.
func (c *reader) discard() {
	if c.conn == nil {
		return
	}
	_ = c.conn.Raw(func(any) error { return driver.ErrBadConn }) // out of the pool
	_ = c.conn.Close()
	c.conn, c.stmts = nil, nil
}

func (c *reader) close() error {
	if c.conn == nil {
		return nil
	}
	var err error
	if c.db.Dialect.State(c.conn) == ConnLost {
		c.discard()
		return nil
	}
	for _, st := range c.stmts {
		err = errors.Join(err, st.Close())
	}
	if c.db.Dialect.State(c.conn) == ConnLost {
		c.discard() // it broke unnoticed
		return nil
	}
	err = errors.Join(err, c.conn.Close())
	c.conn, c.stmts = nil, nil
	return err
}

// each runs one query outside of any snapshot.
func (r *reads) each(ctx context.Context, scan func(rows *sql.Rows) error, query string, args ...any) error {
	return r.with(ctx, func(q *reader) error { return q.each(scan, query, args...) })
}

// row runs one query for one row outside of any snapshot.
func (r *reads) row(ctx context.Context, dest []any, query string, args ...any) error {
	return r.with(ctx, func(q *reader) error { return q.QueryRow(query, args...).Scan(dest...) })
}

// close waits until no connection is in use and closes them. What is asked afterwards is refused.
func (r *reads) close() error {
	var err error
	for range r.n {
		c := <-r.idle
		if c != nil {
			err = errors.Join(err, c.close())
		}
	}
	r.idle <- nil // one token that says closed is enough: it is handed back each time
	return err
}

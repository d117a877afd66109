package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// reads holds the prepared statements of the reader pool, by their text.
type reads struct {
	db *Database

	mu    sync.RWMutex
	stmts map[string]*sql.Stmt
}

func newReads(db *Database) *reads {
	return &reads{db: db, stmts: make(map[string]*sql.Stmt)}
}

func (r *reads) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	r.mu.RLock()
	st, ok := r.stmts[query]
	r.mu.RUnlock()
	if ok {
		return st, nil
	}
	st, err := r.db.Reader.PrepareContext(ctx, query)
	if err != nil {
		return nil, r.db.dbError(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, ok := r.stmts[query]; ok { // another goroutine was faster
		return other, st.Close()
	}
	r.stmts[query] = st
	return st, nil
}

// query runs one query on the committed rows, outside of any snapshot.
func (r *reads) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := r.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, args...)
	return rows, r.db.dbError(err)
}

// queryRow runs one query for one row.
func (r *reads) queryRow(ctx context.Context, query string, args ...any) *Row {
	st, err := r.stmt(ctx, query)
	if err != nil {
		return &Row{db: r.db, err: err}
	}
	return &Row{db: r.db, row: st.QueryRowContext(ctx, args...)}
}

func (r *reads) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for _, st := range r.stmts {
		err = errors.Join(err, st.Close())
	}
	clear(r.stmts)
	return err
}

package fts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// maxHits is how many candidates are worth handing over, eight octets each: with more, reading is the larger part by far.
const maxHits = 1 << 18

// appendAccountTerm appends the term that all messages of an account have, and the one of those that are not completely
// indexed, which every search must take for candidates.
func appendAccountTerm(dst []byte, acct store.AccountID, incomplete bool) []byte {
	dst = append(strconv.AppendInt(append(dst, '@'), int64(acct), 10), ' ')
	if incomplete {
		dst = append(strconv.AppendInt(append(dst, "@x"...), int64(acct), 10), ' ')
	}
	return dst
}

// expression is a query of FTS5.
type expression []byte

func (e expression) term(t search.Term) expression {
	e = append(append(append(e, '"'), t.Text...), '"')
	if t.Prefix {
		e = append(e, " *"...)
	}
	return e
}

// all joins terms with AND.
func (e expression) all(terms []search.Term) expression {
	e = append(e, '(')
	for i, t := range terms {
		if i > 0 {
			e = append(e, " AND "...)
		}
		e = e.term(t)
	}
	return append(e, ')')
}

// of begins a query that is about one account: its own term lets the lists of the others be skipped to where the account's
// messages are.
func of(acct store.AccountID) expression {
	return append(strconv.AppendInt([]byte(`"@`), int64(acct), 10), `" AND (`...)
}

// Candidates implements store.Searcher.
func (x *Index) Candidates(ctx context.Context, acct store.AccountID, needle []byte, fields ...search.Field) (*search.Hits, error) {
	if _, ok := rowOf(acct, 1); !ok || len(fields) == 0 {
		return nil, nil
	}
	e := append(of(acct), `"@x`...)
	e = append(strconv.AppendInt(e, int64(acct), 10), '"')
	for _, f := range fields {
		terms := search.Grams(f, needle)
		if len(terms) == 0 {
			return nil, nil // one field that can't be narrowed is all messages
		}
		e = append(e, " OR "...).all(terms)
	}
	ids, upto, err := x.query(ctx, append(e, ')'), false, maxHits+1)
	if err != nil || upto == 0 || len(ids) > maxHits {
		return nil, err
	}
	return &search.Hits{Upto: int64(upto), IDs: ids}, nil
}

// Words implements store.Searcher.
func (x *Index) Words(ctx context.Context, acct store.AccountID, f search.Field, text string, limit int) ([]store.MessageID, store.MessageID, error) {
	terms := search.Analyzer{Stem: x.opts.Stem}.Query(f, text)
	if _, ok := rowOf(acct, 1); !ok || len(terms) == 0 || limit <= 0 {
		return nil, store.MessageID(x.upto.Load()), nil
	}
	found, upto, err := x.query(ctx, append(of(acct).all(terms[:min(len(terms), maxQueryWords)]), ')'), true, limit)
	if err != nil {
		return nil, 0, err
	}
	ids := make([]store.MessageID, len(found))
	for i, id := range found {
		ids[i] = store.MessageID(id)
	}
	return ids, upto, nil
}

// maxQueryWords bounds the work of one query: as many words say enough.
const maxQueryWords = 64

// query runs an expression in one snapshot with the mark. Without a database upto is 0.
func (x *Index) query(ctx context.Context, e expression, newestFirst bool, limit int) (ids []int64, upto store.MessageID, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.db == nil || x.damaged.Load() {
		return nil, 0, nil
	}
	ids, upto, err = x.db.match(ctx, string(e), newestFirst, limit)
	if err != nil && mustDiscard(err) {
		x.damaged.Store(true)
		x.engine.Poke()
	}
	return ids, upto, err
}

func (db *database) match(ctx context.Context, expr string, newestFirst bool, limit int) (ids []int64, mark store.MessageID, err error) {
	tx, err := db.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, fmt.Errorf("fts: begin: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreDone(tx.Rollback())) }()
	if mark, err = upto(ctx, tx); err != nil {
		return nil, 0, fmt.Errorf("fts: mark: %w", err)
	}
	order := "ASC"
	if newestFirst {
		order = "DESC"
	}
	rows, err := tx.QueryContext(ctx, `SELECT rowid FROM term WHERE term MATCH $1 ORDER BY rowid `+order+` LIMIT $2`, expr, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("fts: match: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var row int64
		if err := rows.Scan(&row); err != nil {
			return nil, 0, fmt.Errorf("fts: match: %w", err)
		}
		ids = append(ids, int64(messageOf(row)))
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("fts: match: %w", err)
	}
	return ids, mark, nil
}

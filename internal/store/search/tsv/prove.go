package tsv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/follow"
)

// errIdle says that there is no connection yet.
var errIdle = errors.New("tsv: the index has not begun, or has ended")

// strays are the messages without terms and the terms without a message, but for those that are noted.
const strays = `SELECT m.account_id, m.message_id, false FROM message AS m WHERE ($1 = 0 OR m.account_id = $1)
		AND NOT EXISTS (SELECT 1 FROM search_term AS t WHERE t.message_id = m.message_id)
		AND NOT EXISTS (SELECT 1 FROM search_todo AS d WHERE d.message_id = m.message_id)
	UNION ALL SELECT t.account_id, t.message_id, true FROM search_term AS t WHERE ($1 = 0 OR t.account_id = $1)
		AND NOT EXISTS (SELECT 1 FROM message AS m WHERE m.message_id = t.message_id AND m.account_id = t.account_id)
		AND NOT EXISTS (SELECT 1 FROM search_todo AS d WHERE d.message_id = t.message_id)`

// Prove implements store.SearchProver.
func (x *Index) Prove(ctx context.Context, acct store.AccountID, found func(store.MessageRef, string)) error {
	db, err := x.pool()
	if err != nil {
		return err
	}
	if err := proveStrays(ctx, db, acct, found); err != nil {
		return fmt.Errorf("tsv: prove: %w", err)
	}
	has := func(ctx context.Context, m store.MessageRef, d *search.Document) (bool, error) {
		return has(ctx, db, x.opts.version(), m, d)
	}
	err = follow.Proof{
		Source: x.source, Pick: x.opts.Pick, Log: x.log, Stem: x.opts.Stem, Account: acct, Has: has, Found: found,
	}.Sample(ctx)
	if err != nil {
		return fmt.Errorf("tsv: prove: %w", err)
	}
	return nil
}

// pool are the connections for reading.
func (x *Index) pool() (*sql.DB, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.readers == nil {
		return nil, errIdle
	}
	return x.readers, nil
}

func proveStrays(ctx context.Context, db *sql.DB, acct store.AccountID, found func(store.MessageRef, string)) error {
	rows, err := db.QueryContext(ctx, strays, int64(acct))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var m store.MessageRef
		var gone bool
		if err := rows.Scan(&m.Account, &m.Message, &gone); err != nil {
			return err
		}
		if gone {
			found(m, "the search index has terms of it, and it is gone")
		} else {
			found(m, "the search index does not know it")
		}
	}
	return rows.Err()
}

// lookup asks the lists, and not the row, whether a message has terms. Other rules, a note and a message that is gone excuse it.
const lookup = `WITH found AS MATERIALIZED (SELECT message_id FROM search_term WHERE terms @@ $3::tsquery)
	SELECT EXISTS (SELECT 1 FROM found WHERE message_id = $2)
		OR EXISTS (SELECT 1 FROM search_todo WHERE account_id = $1 AND message_id = $2)
		OR NOT EXISTS (SELECT 1 FROM message WHERE message_id = $2)
		OR NOT EXISTS (SELECT 1 FROM search_state WHERE version = $4)`

// lookupTerms is how many terms one lookup asks for.
const lookupTerms = 200

func has(ctx context.Context, db *sql.DB, version string, m store.MessageRef, d *search.Document) (bool, error) {
	terms, _ := termsOf(m.Account, d)
	incomplete := quoted(search.Term{Text: accountTerms(m.Account, true)[1]})
	for part := range slices.Chunk(terms, lookupTerms) {
		list := make([]search.Term, len(part))
		for i, t := range part {
			list[i].Text = t
		}
		var ok bool
		query := of(m.Account, incomplete, all(list))
		if err := db.QueryRowContext(ctx, lookup, int64(m.Account), int64(m.Message), query, version).Scan(&ok); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// Renew implements store.SearchProver: the lists are made anew from the rows at once, the rows from the messages by and by.
func (x *Index) Renew(ctx context.Context) error {
	db, err := x.pool()
	if err != nil {
		return err
	}
	for _, q := range []string{
		noteAll,
		`INSERT INTO search_todo (account_id, message_id) SELECT t.account_id, t.message_id FROM search_term AS t
			WHERE NOT EXISTS (SELECT 1 FROM message AS m WHERE m.message_id = t.message_id)`,
		`REINDEX INDEX search_term_terms`,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("tsv: make anew: %w", err)
		}
	}
	x.engine.Rebuilds.Add(1)
	x.engine.Poke()
	return nil
}

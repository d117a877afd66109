package tsv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/follow"
)

// note is a message to look at.
type note struct {
	id      int64
	message store.MessageRef
	gone    bool
}

// step does one piece of work; more tells that there may be more of it.
func (x *Index) step(ctx context.Context) (more bool, err error) {
	if err := x.connect(); err != nil {
		return false, err
	}
	leads, err := x.lead(ctx)
	if err != nil || !leads {
		x.waiting.Store(0) // the node that indexes knows
		return false, err
	}
	list, err := x.notes(ctx, follow.BatchMessages)
	switch {
	case err != nil:
		return false, err
	case len(list) == 0:
		return false, x.merge(ctx)
	}
	return true, x.index(ctx, list)
}

// merge brings the last terms into the lists, when there is nothing else to do: searches look through those that are not.
func (x *Index) merge(ctx context.Context) error {
	if !x.loose {
		return nil
	}
	if _, err := x.conn.ExecContext(ctx, `SELECT gin_clean_pending_list('search_term_terms')`); err != nil {
		return fmt.Errorf("tsv: merge: %w", err)
	}
	x.loose = false
	return nil
}

// notes are the oldest notes.
func (x *Index) notes(ctx context.Context, limit int) ([]note, error) {
	var waiting int64
	err := x.conn.QueryRowContext(ctx, `SELECT coalesce(max(todo_id) - min(todo_id) + 1, 0) FROM search_todo`).Scan(&waiting)
	if err != nil {
		return nil, fmt.Errorf("tsv: notes: %w", err)
	}
	x.waiting.Store(waiting)
	rows, err := x.conn.QueryContext(ctx, `SELECT t.todo_id, t.account_id, t.message_id, m.size FROM search_todo AS t
		LEFT JOIN message AS m ON m.message_id = t.message_id ORDER BY t.todo_id LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("tsv: notes: %w", err)
	}
	defer rows.Close()
	var list []note
	for rows.Next() {
		var n note
		var size sql.NullInt64
		if err := rows.Scan(&n.id, &n.message.Account, &n.message.Message, &size); err != nil {
			return nil, fmt.Errorf("tsv: notes: %w", err)
		}
		n.message.Size, n.gone = size.Int64, !size.Valid
		list = append(list, n)
	}
	return list, rows.Err()
}

// entry is what becomes of a message: its row, or nil.
type entry struct {
	message store.MessageRef
	terms   []string
}

// index makes the terms of messages, then writes them and removes their notes in one transaction. The text is read before it
// begins, so that it is short.
func (x *Index) index(ctx context.Context, list []note) error {
	var entries []entry
	var done, gone []int64
	end, octets := x.opts.Clock().Add(follow.BatchTime), 0
	for i, n := range list {
		if i > 0 && (octets >= follow.BatchTerms || x.opts.Clock().After(end)) {
			break
		}
		done = append(done, n.id)
		if n.gone {
			gone = append(gone, int64(n.message.Message))
			continue
		}
		err := x.reader.Read(ctx, n.message)
		if errors.Is(err, store.ErrNotFound) {
			continue // gone since, and noted again by that
		}
		if err != nil {
			return fmt.Errorf("tsv: %w", err)
		}
		terms, size := termsOf(n.message.Account, &x.reader.Doc)
		entries = append(entries, entry{n.message, terms})
		octets += size
	}
	err := x.commit(ctx, entries, gone, done)
	if refused(err) {
		err = x.oneByOne(ctx, entries, gone, done)
	}
	if err != nil {
		return err
	}
	x.engine.Indexed.Add(int64(len(entries)))
	x.opts.Progress()
	return nil
}

// oneByOne writes the terms of a batch that the database refused. What it refuses alone too goes in without its text, and is a
// candidate of every search.
func (x *Index) oneByOne(ctx context.Context, entries []entry, gone, done []int64) error {
	for _, e := range entries {
		err := x.commit(ctx, []entry{e}, nil, nil)
		if refused(err) {
			x.log.Warn("search index: the terms of a message are refused, searches will read it", "account", e.message.Account, "message", e.message.Message, "err", err)
			e.terms = accountTerms(e.message.Account, true)
			err = x.commit(ctx, []entry{e}, nil, nil)
		}
		if err != nil {
			return err
		}
	}
	return x.commit(ctx, nil, gone, done)
}

// refused tells errors that are about the values, not about the moment: SQLSTATE classes 22 (data) and 54 (limits).
func refused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "54"))
}

func (x *Index) commit(ctx context.Context, entries []entry, gone, done []int64) error {
	x.loose = x.loose || len(entries) > 0
	return x.transaction(ctx, func(tx *sql.Tx) error {
		for _, e := range entries {
			_, err := tx.ExecContext(ctx, `INSERT INTO search_term (message_id, account_id, terms) VALUES ($1, $2, array_to_tsvector($3::text[]))
				ON CONFLICT (message_id) DO UPDATE SET terms = excluded.terms`, int64(e.message.Message), int64(e.message.Account), e.terms)
			if err != nil {
				return fmt.Errorf("tsv: message %d of account %d: %w", e.message.Message, e.message.Account, err)
			}
		}
		for _, q := range []struct {
			text string
			list []int64
		}{
			{`DELETE FROM search_term WHERE message_id = ANY($1::bigint[])`, gone},
			{`DELETE FROM search_todo WHERE todo_id = ANY($1::bigint[])`, done},
		} {
			if len(q.list) == 0 {
				continue
			}
			if _, err := tx.ExecContext(ctx, q.text, q.list); err != nil {
				return fmt.Errorf("tsv: %w", err)
			}
		}
		return nil
	})
}

// Bounds of a tsvector: a term has fewer than 2,048 octets, all together fewer than 1 MiB.
const (
	maxTerm  = 2_046
	maxTerms = 1_000_000
)

// accountTerms are the term that all messages of an account have, and the one of those that are not completely indexed, which
// every search must take for candidates.
func accountTerms(acct store.AccountID, incomplete bool) []string {
	terms := []string{"@" + strconv.FormatInt(int64(acct), 10)}
	if incomplete {
		terms = append(terms, "@x"+strconv.FormatInt(int64(acct), 10))
	}
	return terms
}

// termsOf are the terms of a document, and their size. Where there are more than a tsvector takes, words are left out; and where
// grams would be, the message is incomplete.
func termsOf(acct store.AccountID, d *search.Document) (terms []string, size int) {
	incomplete := d.Incomplete()
	raw := string(d.AppendTerms(nil))
	list := strings.Fields(raw)
	if len(raw) > maxTerms { // which of them are left out must not be chance
		slices.SortFunc(list, func(a, b string) int {
			if search.IsGram(a) != search.IsGram(b) {
				return strings.Compare(b, a) // grams first: they begin with letters, words with digits
			}
			return strings.Compare(a, b)
		})
	}
	for _, term := range list {
		if len(term) > maxTerm || size+len(term) > maxTerms {
			incomplete = incomplete || search.IsGram(term)
			continue
		}
		terms = append(terms, term)
		size += len(term)
	}
	return append(terms, accountTerms(acct, incomplete)...), size
}

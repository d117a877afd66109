package tsv

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// maxHits is how many candidates are worth handing over, eight octets each: with more, reading is the larger part by far.
const maxHits = 1 << 18

// quoted is a term in a tsquery.
func quoted(t search.Term) string {
	text := "'" + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(t.Text) + "'"
	if t.Prefix {
		text += ":*"
	}
	return text
}

// all is a tsquery for all of the terms.
func all(terms []search.Term) string {
	list := make([]string, len(terms))
	for i, t := range terms {
		list[i] = quoted(t)
	}
	return "(" + strings.Join(list, " & ") + ")"
}

// of is a tsquery about one account: its own term lets the lists of the others be skipped.
func of(acct store.AccountID, any ...string) string {
	return quoted(search.Term{Text: accountTerms(acct, false)[0]}) + " & (" + strings.Join(any, " | ") + ")"
}

// Candidates implements store.Searcher.
func (x *Index) Candidates(ctx context.Context, acct store.AccountID, needle []byte, fields ...search.Field) (*search.Hits, error) {
	if len(fields) == 0 {
		return nil, nil
	}
	any := []string{quoted(search.Term{Text: accountTerms(acct, true)[1]})}
	for _, f := range fields {
		terms := search.Grams(f, needle)
		if len(terms) == 0 {
			return nil, nil // one field that can't be narrowed is all messages
		}
		any = append(any, all(terms))
	}
	a, err := x.ask(ctx, acct, of(acct, any...), maxHits+1)
	if err != nil || !a.known || len(a.noted)+len(a.found) > maxHits {
		return nil, err
	}
	ids := append(a.found, a.noted...)
	slices.Sort(ids)
	return &search.Hits{Upto: a.last, IDs: ids}, nil
}

// maxQueryWords bounds the work of one query: as many words say enough.
const maxQueryWords = 64

// Words implements store.Searcher.
func (x *Index) Words(ctx context.Context, acct store.AccountID, f search.Field, text string, limit int) ([]store.MessageID, store.MessageID, error) {
	terms := search.Analyzer{Stem: x.opts.Stem}.Query(f, text)
	if len(terms) == 0 || limit <= 0 {
		return nil, 0, nil
	}
	a, err := x.ask(ctx, acct, of(acct, all(terms[:min(len(terms), maxQueryWords)])), limit)
	if err != nil || !a.known {
		return nil, 0, err
	}
	upto := a.last
	if len(a.noted) > maxHits {
		upto = 0
	}
	for _, id := range a.noted {
		upto = min(upto, id-1)
	}
	slices.SortFunc(a.found, func(a, b int64) int { return cmp.Compare(b, a) })
	ids := make([]store.MessageID, len(a.found))
	for i, id := range a.found {
		ids[i] = store.MessageID(id)
	}
	return ids, store.MessageID(upto), nil
}

// answer is what the index says at one moment.
type answer struct {
	known bool    // the terms were made by the rules of this program
	last  int64   // no message had a higher id then
	noted []int64 // messages of the account that are not indexed yet, in no order
	found []int64 // messages of the account that match, newest first
}

// question asks all at one moment: a message that another node indexes meanwhile is noted, or has its terms, or both. The
// first row is about the index, and is missing on a standby, which may lag behind what the caller knows; those that follow are notes (1) and messages (2).
const question = `WITH found AS MATERIALIZED (SELECT message_id FROM search_term WHERE terms @@ $2::tsquery AND account_id = $1)
	SELECT 0 AS kind, (SELECT coalesce(max(message_id), 0) FROM message) AS id FROM search_state WHERE version = $4 AND NOT pg_is_in_recovery()
	UNION ALL (SELECT 1, message_id FROM search_todo WHERE account_id = $1 LIMIT $3)
	UNION ALL (SELECT 2, message_id FROM found ORDER BY message_id DESC LIMIT $5)`

func (x *Index) ask(ctx context.Context, acct store.AccountID, query string, limit int) (a answer, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.readers == nil {
		return a, nil
	}
	rows, err := x.readers.QueryContext(ctx, question, int64(acct), query, maxHits+1, x.opts.version(), limit)
	if err != nil {
		return a, fmt.Errorf("tsv: ask: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var kind, id int64
		if err := rows.Scan(&kind, &id); err != nil {
			return a, fmt.Errorf("tsv: ask: %w", err)
		}
		switch kind {
		case 0:
			a.known, a.last = true, id
		case 1:
			a.noted = append(a.noted, id)
		default:
			a.found = append(a.found, id)
		}
	}
	if err := rows.Err(); err != nil {
		return a, fmt.Errorf("tsv: ask: %w", err)
	}
	return a, nil
}

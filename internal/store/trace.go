package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// TraceRow is a part of a trace; package trace knows what it says.
type TraceRow struct {
	ID    string
	Part  int64
	Steps []byte
}

// TraceWord says that a trace is found by a word, of which only the hash is kept, in a bucket of time.
type TraceWord struct {
	Bucket, Word int64
	ID           string
}

// Compare orders words as they lie in the database.
func (w TraceWord) Compare(o TraceWord) int {
	return cmp.Or(cmp.Compare(w.Bucket, o.Bucket), cmp.Compare(w.Word, o.Word), cmp.Compare(w.ID, o.ID))
}

// Shared tells whether other nodes may write to the same database.
func (s *Store) Shared() bool { return s.shared() }

// trace writes the row that a delivery brings along.
func (tx *Tx) trace(row TraceRow) error {
	if len(row.Steps) == 0 {
		return nil
	}
	err := tx.exec(`INSERT INTO trace (trace_id, part, steps) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, row.ID, row.Part, row.Steps)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}

// TraceWrite writes rows of traces, and words that may be there already. A trace that has limit octets gets no more.
func (s *Store) TraceWrite(ctx context.Context, rows []TraceRow, words []TraceWord, limit int64) error {
	if len(rows) == 0 && len(words) == 0 {
		return nil
	}
	return s.Write(ctx, func(tx *Tx) error {
		for _, row := range rows {
			var octets int64
			err := tx.QueryRow(`SELECT COALESCE(sum(length(steps)), 0) FROM trace WHERE trace_id = $1`, row.ID).Scan(&octets)
			if err != nil {
				return fmt.Errorf("store: trace: %w", err)
			}
			if octets >= limit {
				continue
			}
			if err := tx.trace(row); err != nil {
				return fmt.Errorf("store: %w", err)
			}
		}
		return tx.traceWords(words)
	})
}

// The numbers of words that one statement writes: few texts of statements, and what is left over is filled up by its last word.
const (
	manyWords = 32
	someWords = 4
)

var (
	insertManyWords = wordsInsert(manyWords)
	insertSomeWords = wordsInsert(someWords)
)

func wordsInsert(n int) string {
	marks := make([]string, n)
	for i := range marks {
		marks[i] = fmt.Sprintf("($%d, $%d, $%d)", 3*i+1, 3*i+2, 3*i+3)
	}
	return `INSERT INTO trace_word (bucket, word, trace_id) VALUES ` + strings.Join(marks, ", ") + ` ON CONFLICT DO NOTHING`
}

func (tx *Tx) traceWords(words []TraceWord) error {
	for len(words) > 0 {
		query, n := insertManyWords, manyWords
		if len(words) <= manyWords/2 {
			query, n = insertSomeWords, someWords
		}
		args := make([]any, 0, 3*n)
		for i := range n {
			w := words[min(i, len(words)-1)]
			args = append(args, w.Bucket, w.Word, w.ID)
		}
		if err := tx.exec(query, args...); err != nil {
			return fmt.Errorf("store: words of traces: %w", err)
		}
		words = words[min(n, len(words)):]
	}
	return nil
}

// traceRows reads rows of the table trace.
func (s *Store) traceRows(ctx context.Context, query string, args ...any) ([]TraceRow, error) {
	var out []TraceRow
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var row TraceRow
		err := rows.Scan(&row.ID, &row.Part, &row.Steps)
		out = append(out, row)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: trace: %w", err)
	}
	return out, nil
}

// Trace reads the rows of a trace, the oldest first.
func (s *Store) Trace(ctx context.Context, id string) ([]TraceRow, error) {
	return s.traceRows(ctx, `SELECT trace_id, part, steps FROM trace WHERE trace_id = $1 ORDER BY part`, id)
}

// TraceAfter reads rows of the traces after an id, by their ids: those of some limit traces, all rows of each.
func (s *Store) TraceAfter(ctx context.Context, after string, limit int) ([]TraceRow, error) {
	return s.traceRows(ctx, `SELECT trace_id, part, steps FROM trace WHERE trace_id IN
		(SELECT DISTINCT trace_id FROM trace WHERE trace_id > $1 ORDER BY trace_id LIMIT $2) ORDER BY trace_id, part`, after, limit)
}

// TraceBetween reads rows by their parts, after one and before another.
func (s *Store) TraceBetween(ctx context.Context, after, before int64, limit int) ([]TraceRow, error) {
	return s.traceRows(ctx, `SELECT trace_id, part, steps FROM trace WHERE part > $1 AND part < $2 ORDER BY part LIMIT $3`, after, before, limit)
}

// TraceIDs lists traces from before down to after, the newest first.
func (s *Store) TraceIDs(ctx context.Context, after, before string, limit int) ([]string, error) {
	return s.traceIDs(ctx, `SELECT DISTINCT trace_id FROM trace WHERE trace_id > $1 AND trace_id < $2 ORDER BY trace_id DESC LIMIT $3`, after, before, limit)
}

// TraceByWord lists the traces of a bucket that a word finds, those before an id, the newest first.
func (s *Store) TraceByWord(ctx context.Context, bucket, word int64, before string, limit int) ([]string, error) {
	return s.traceIDs(ctx, `SELECT trace_id FROM trace_word WHERE bucket = $1 AND word = $2 AND trace_id < $3 ORDER BY trace_id DESC LIMIT $4`,
		bucket, word, before, limit)
}

func (s *Store) traceIDs(ctx context.Context, query string, args ...any) ([]string, error) {
	var out []string
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		out = append(out, id)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: traces: %w", err)
	}
	return out, nil
}

// TraceBuckets tells the first and the last bucket that has words; ok is false when none has.
func (s *Store) TraceBuckets(ctx context.Context) (first, last int64, ok bool, err error) {
	var a, b sql.NullInt64
	err = s.Read(ctx, func(q Querier) error {
		if err := q.QueryRow(`SELECT min(bucket) FROM trace_word`).Scan(&a); err != nil {
			return err
		}
		return q.QueryRow(`SELECT max(bucket) FROM trace_word`).Scan(&b)
	})
	if err != nil {
		return 0, 0, false, fmt.Errorf("store: traces: %w", err)
	}
	return a.Int64, b.Int64, a.Valid && b.Valid, nil
}

// TraceNewest is the newest trace, "" when there is none, and tells whether any words are there.
func (s *Store) TraceNewest(ctx context.Context) (id string, words bool, err error) {
	ids, err := s.traceIDs(ctx, `SELECT trace_id FROM trace ORDER BY trace_id DESC LIMIT 1`)
	if err != nil || len(ids) == 0 {
		return "", false, err
	}
	_, _, words, err = s.TraceBuckets(ctx)
	return ids[0], words, err
}

// traceStep is how many rows one transaction removes.
const traceStep = 1000

// TraceExpire removes the traces before an id, and the words in buckets before one.
func (s *Store) TraceExpire(ctx context.Context, before string, bucket int64) error {
	steps := []struct {
		query string
		arg   any
	}{
		{`DELETE FROM trace WHERE (trace_id, part) IN (SELECT trace_id, part FROM trace WHERE trace_id < $1 ORDER BY trace_id, part LIMIT $2)`, before},
		{`DELETE FROM trace_word WHERE (bucket, word, trace_id) IN
			(SELECT bucket, word, trace_id FROM trace_word WHERE bucket < $1 ORDER BY bucket, word, trace_id LIMIT $2)`, bucket},
	}
	for _, step := range steps {
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := s.Write(ctx, func(tx *Tx) error {
				n, err := affected(tx.Exec(step.query, step.arg, traceStep))
				more = n == traceStep
				return err
			})
			if err != nil {
				return fmt.Errorf("store: old traces: %w", err)
			}
		}
	}
	return nil
}

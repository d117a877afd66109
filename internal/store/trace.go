package store

import (
	"context"
	"database/sql"
	"fmt"
)

// TraceRow is a part of a trace; package trace knows what it says.
type TraceRow struct {
	ID    string
	Part  int64
	Steps []byte

	// Queued adds to Steps which number a delivery's row in the queue got; nil: nobody wants to know.
	Queued func(steps []byte, id QueueID) []byte
}

// TraceIndex is a row of words by which traces of one bucket of time are found; package trace knows what the words say.
type TraceIndex struct {
	Bucket, Part int64
	Traces       int
	IDs, Words   []byte
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

// TraceWrite writes rows of traces, and what they are found by. A trace that has limit octets gets no more.
func (s *Store) TraceWrite(ctx context.Context, rows []TraceRow, index []TraceIndex, limit int64) error {
	if len(rows) == 0 && len(index) == 0 {
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
		return tx.traceIndex(index)
	})
}

func (tx *Tx) traceIndex(index []TraceIndex) error {
	for _, x := range index {
		err := tx.exec(`INSERT INTO trace_index (bucket, part, traces, ids, words) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			x.Bucket, x.Part, x.Traces, x.IDs, x.Words)
		if err != nil {
			return fmt.Errorf("store: index of traces: %w", err)
		}
	}
	return nil
}

// TraceIndexReplace puts rows of the index in place of others of their bucket, unless one of those has gone meanwhile.
func (s *Store) TraceIndexReplace(ctx context.Context, old, index []TraceIndex) error {
	return s.Write(ctx, func(tx *Tx) error {
		for _, x := range old {
			n, err := affected(tx.Exec(`DELETE FROM trace_index WHERE bucket = $1 AND part = $2`, x.Bucket, x.Part))
			if err == nil && n == 0 {
				err = ErrNotFound
			}
			if err != nil {
				return fmt.Errorf("store: index of traces: %w", err)
			}
		}
		return tx.traceIndex(index)
	})
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

// TraceIndexes calls fn with the rows of the index of a bucket that have fewer traces than some number. fn must be quick.
func (s *Store) TraceIndexes(ctx context.Context, bucket int64, fewer int, fn func(TraceIndex)) error {
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		x := TraceIndex{Bucket: bucket}
		err := rows.Scan(&x.Part, &x.Traces, &x.IDs, &x.Words)
		if err == nil {
			fn(x)
		}
		return err
	}, `SELECT part, traces, ids, words FROM trace_index WHERE bucket = $1 AND traces < $2`, bucket, fewer)
	if err != nil {
		return fmt.Errorf("store: index of traces: %w", err)
	}
	return nil
}

// TraceScattered lists buckets that have more than some number of rows with fewer traces than another.
func (s *Store) TraceScattered(ctx context.Context, rows, fewer int) (buckets []int64, err error) {
	err = s.reads.each(ctx, func(r *sql.Rows) error {
		var b int64
		err := r.Scan(&b)
		buckets = append(buckets, b)
		return err
	}, `SELECT bucket FROM trace_index WHERE traces < $2 GROUP BY bucket HAVING count(*) > $1 ORDER BY bucket`, rows, fewer)
	if err != nil {
		return nil, fmt.Errorf("store: index of traces: %w", err)
	}
	return buckets, nil
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

// TraceBuckets tells the first and the last bucket of the index; ok is false when none has.
func (s *Store) TraceBuckets(ctx context.Context) (first, last int64, ok bool, err error) {
	var a, b sql.NullInt64
	err = s.Read(ctx, func(q Querier) error {
		if err := q.QueryRow(`SELECT min(bucket) FROM trace_index`).Scan(&a); err != nil {
			return err
		}
		return q.QueryRow(`SELECT max(bucket) FROM trace_index`).Scan(&b)
	})
	if err != nil {
		return 0, 0, false, fmt.Errorf("store: traces: %w", err)
	}
	return a.Int64, b.Int64, a.Valid && b.Valid, nil
}

// TraceNewest is the newest trace, "" when there is none, and tells whether there is any index.
func (s *Store) TraceNewest(ctx context.Context) (id string, indexed bool, err error) {
	ids, err := s.traceIDs(ctx, `SELECT trace_id FROM trace ORDER BY trace_id DESC LIMIT 1`)
	if err != nil || len(ids) == 0 {
		return "", false, err
	}
	_, _, indexed, err = s.TraceBuckets(ctx)
	return ids[0], indexed, err
}

// traceStep is how many rows one transaction removes.
const traceStep = 1000

// TraceExpire removes the traces before an id, and the index of buckets before one.
func (s *Store) TraceExpire(ctx context.Context, before string, bucket int64) error {
	steps := []struct {
		query string
		arg   any
	}{
		{`DELETE FROM trace WHERE (trace_id, part) IN (SELECT trace_id, part FROM trace WHERE trace_id < $1 ORDER BY trace_id, part LIMIT $2)`, before},
		{`DELETE FROM trace_index WHERE (bucket, part) IN (SELECT bucket, part FROM trace_index WHERE bucket < $1 ORDER BY bucket, part LIMIT $2)`, bucket},
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

package store

import (
	"context"
	"fmt"
	"time"
)

// GreyRow is what greylisting remembers under one key.
type GreyRow struct {
	Key    string
	First  time.Time
	Last   time.Time
	Passed time.Time // zero: not yet
}

// GreyRows returns those of the rows that are there.
func (s *Store) GreyRows(ctx context.Context, keys ...string) ([]GreyRow, error) {
	var out []GreyRow
	err := s.Read(ctx, func(q Querier) error {
		out = out[:0]
		for _, key := range keys {
			rows, err := q.Query(`SELECT first_seen, last_seen, passed FROM greylist WHERE greylist_key = $1`, key)
			if err != nil {
				return err
			}
			for rows.Next() {
				var first, last, passed int64
				if err := rows.Scan(&first, &last, &passed); err != nil {
					rows.Close()
					return err
				}
				out = append(out, GreyRow{Key: key, First: time.Unix(first, 0), Last: time.Unix(last, 0), Passed: unixOrZero(passed)})
			}
			if err := rows.Close(); err != nil {
				return err
			}
			if err := rows.Err(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: greylist: %w", err)
	}
	return out, nil
}

func unixOrZero(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

func secondsOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// SaveGreyRows writes rows. Where another node wrote one too, the earlier first time and the later others stay, unless what
// stands there began before stale and has not passed since: then it is written anew.
func (s *Store) SaveGreyRows(ctx context.Context, rows []GreyRow, stale time.Time) error {
	err := s.Write(ctx, func(tx *Tx) error {
		for _, r := range rows {
			err := tx.exec(`INSERT INTO greylist (greylist_key, first_seen, last_seen, passed) VALUES ($1, $2, $3, $4)
				ON CONFLICT (greylist_key) DO UPDATE SET
				first_seen = CASE WHEN greylist.passed = 0 AND greylist.first_seen < $5 OR excluded.first_seen < greylist.first_seen
					THEN excluded.first_seen ELSE greylist.first_seen END,
				last_seen = CASE WHEN excluded.last_seen > greylist.last_seen THEN excluded.last_seen ELSE greylist.last_seen END,
				passed = CASE WHEN excluded.passed > greylist.passed THEN excluded.passed ELSE greylist.passed END`,
				r.Key, r.First.Unix(), r.Last.Unix(), secondsOrZero(r.Passed), stale.Unix())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: greylist: %w", err)
	}
	return nil
}

// expireStep is how many rows one transaction of an expiry removes.
const expireStep = 5000

// ExpireGreyRows removes the rows that waited since before waiting and those that passed before passed, and tells how many
// are left.
func (s *Store) ExpireGreyRows(ctx context.Context, waiting, passed time.Time) (left int64, err error) {
	for _, q := range []struct {
		where  string
		before time.Time
	}{{`passed = 0 AND last_seen < $1`, waiting}, {`passed > 0 AND passed < $1`, passed}} {
		_, err := s.inSteps(ctx, `DELETE FROM greylist WHERE greylist_key IN
			(SELECT greylist_key FROM greylist WHERE `+q.where+` LIMIT $2)`, q.before.Unix())
		if err != nil {
			return 0, fmt.Errorf("store: greylist: %w", err)
		}
	}
	err = s.Read(ctx, func(q Querier) error { return q.QueryRow(`SELECT count(*) FROM greylist`).Scan(&left) })
	if err != nil {
		return 0, fmt.Errorf("store: greylist: %w", err)
	}
	return left, nil
}

// inSteps runs a deletion whose last parameter is how many rows it removes at most, until there are none left.
func (s *Store) inSteps(ctx context.Context, query string, args ...any) (removed int64, err error) {
	args = append(args, expireStep)
	for {
		var n int64
		err := s.Write(ctx, func(tx *Tx) (err error) {
			n, err = affected(tx.Exec(query, args...))
			return err
		})
		removed += n
		if err != nil || n < expireStep {
			return removed, err
		}
	}
}

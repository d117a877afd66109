package store

import (
	"context"
	"fmt"
)

// Stale is what is not encrypted with the current data key.
type Stale struct {
	Octets int64 // of records under another key, or under none; at most
	Total  int64 // of all records
}

// staleTeller is a BlobStore that knows what is under older keys.
type staleTeller interface {
	Stale() (octets, total int64)
}

// Stale returns how much is still to be encrypted anew; nothing when nothing is encrypted.
func (s *Store) Stale(ctx context.Context) (Stale, error) {
	var st Stale
	if s.fresh == nil {
		if t, ok := s.blobs.(staleTeller); ok {
			st.Octets, st.Total = t.Stale()
		}
		return st, nil
	}
	keys := s.fresh.objects.Keys()
	if keys == nil {
		return st, nil
	}
	key, _ := keys.Current()
	err := s.reads.with(ctx, func(q *reader) error {
		var fresh, staleFresh int64
		err := q.QueryRow(`SELECT COALESCE(SUM(LENGTH(data)), 0), COALESCE(SUM(CASE WHEN key_id <> $1 THEN LENGTH(data) ELSE 0 END), 0)
			FROM fresh_content`, key).Scan(&fresh, &staleFresh)
		if err != nil {
			return err
		}
		err = q.QueryRow(`SELECT COALESCE(SUM(live), 0), COALESCE(SUM(CASE WHEN key_id <> $1 THEN live ELSE 0 END), 0) FROM segment WHERE live > 0`, key).
			Scan(&st.Total, &st.Octets)
		st.Total, st.Octets = st.Total+fresh, st.Octets+staleFresh
		return err
	})
	if err != nil {
		return st, fmt.Errorf("store: what is under older keys: %w", err)
	}
	return st, nil
}

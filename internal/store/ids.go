package store

import (
	"database/sql"
	"errors"
	"fmt"
)

// idStep is how far ahead of their use ids are recorded: a row is written once for as many ids, and a crash skips at most
// as many. Ids are never handed out twice.
const idStep = 1000

// sequence hands out ascending ids. It belongs to the writer's goroutine.
type sequence struct {
	name    string
	next    int64
	mark    int64 // what is committed: ids below it may be in use
	pending int64 // what the open transaction makes the mark; 0: nothing
}

func (q *sequence) take() int64 {
	q.next++
	return q.next - 1
}

// ids are the sequences of the store.
type ids struct {
	message, blob sequence
}

func loadIDs(q Querier) (*ids, error) {
	d := &ids{message: sequence{name: "message"}, blob: sequence{name: "blob"}}
	for _, s := range []*sequence{&d.message, &d.blob} {
		err := q.QueryRow(`SELECT next FROM sequence WHERE name = $1`, s.name).Scan(&s.next)
		if errors.Is(err, sql.ErrNoRows) {
			s.next, err = 1, nil
		}
		if err != nil {
			return nil, fmt.Errorf("store: sequence %s: %w", s.name, err)
		}
		s.mark = s.next
	}
	return d, nil
}

// flush records how far the ids of the transaction went.
func (d *ids) flush(tx *Tx) error {
	for _, s := range []*sequence{&d.message, &d.blob} {
		if s.next <= s.mark {
			continue
		}
		s.pending = s.next + idStep
		err := tx.exec(`INSERT INTO sequence (name, next) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET next = excluded.next`,
			s.name, s.pending)
		if err != nil {
			return fmt.Errorf("store: sequence %s: %w", s.name, err)
		}
	}
	return nil
}

// settle is called after the commit, forget after a rollback.
func (d *ids) settle() {
	for _, s := range []*sequence{&d.message, &d.blob} {
		s.mark = max(s.mark, s.pending)
		s.pending = 0
	}
}

func (d *ids) forget() {
	d.message.pending, d.blob.pending = 0, 0
}

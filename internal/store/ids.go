package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// idStep is how far ahead of their use ids are recorded: a row is written once for as many ids, and a crash skips at most
// as many. Ids are never handed out twice.
const idStep = 1000

// Where several nodes hand out ids each takes a range for itself, before it begins a transaction and in one of its own, so that
// nobody waits for another's transaction. It takes the next one when less than idLow are left.
const (
	idRange = 8192
	idLow   = 2048
)

// sequence hands out ascending ids. It belongs to the writer's goroutine.
type sequence struct {
	name    string
	next    int64
	mark    int64 // what is committed: ids below it may be in use
	pending int64 // what the open transaction makes the mark; 0: nothing

	ranged bool  // ids from next to mark belong to this node, others to others
	need   int64 // how many ids a transaction lacked
}

// errNoIDs says that a transaction needs more ids than were taken for this node: it runs again with more.
var errNoIDs = errors.New("store: more ids are needed")

func (q *sequence) take() (int64, error) {
	if q.ranged && q.next >= q.mark {
		q.need = max(2*q.need, idRange)
		return 0, &faultError{fault: FaultRetry, err: errNoIDs}
	}
	q.next++
	return q.next - 1, nil
}

// ids are the sequences of the store.
type ids struct {
	message, blob sequence
}

// loadIDs reads where the sequences are. A node among others has none of its own before reserve.
func loadIDs(q Querier, shared bool) (*ids, error) {
	d := &ids{message: sequence{name: "message", ranged: shared}, blob: sequence{name: "blob", ranged: shared}}
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

// reserve takes ranges for this node that no other will have. No transaction is open: what it answers is committed.
func (d *ids) reserve(conn *sql.Conn) error {
	for _, s := range []*sequence{&d.message, &d.blob} {
		if !s.ranged || s.mark-s.next >= max(idLow, s.need) {
			continue
		}
		n := max(idRange, 2*s.need)
		var end int64
		err := conn.QueryRowContext(context.Background(), `INSERT INTO sequence (name, next) VALUES ($1, $2::bigint + 1)
			ON CONFLICT (name) DO UPDATE SET next = sequence.next + $2::bigint RETURNING next`, s.name, n).Scan(&end)
		if err != nil {
			return err
		}
		if s.mark != end-n { // another node had some between
			s.next = end - n
		}
		s.mark, s.need = end, 0
	}
	return nil
}

// flush records how far the ids of the transaction went.
func (d *ids) flush(tx *Tx) error {
	for _, s := range []*sequence{&d.message, &d.blob} {
		if s.ranged || s.next <= s.mark {
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

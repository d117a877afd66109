package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// shared tells whether other nodes write to the same database.
func (s *Store) shared() bool { return s.db.Peers != nil }

// forUpdate makes a query lock the rows that it gives until the transaction ends, where others could change them.
func (tx *Tx) forUpdate(query string) string {
	if !tx.s.shared() {
		return query
	}
	return query + ` FOR UPDATE`
}

// skipLocked ends a query that takes rows which several nodes may want, and leaves those that another is about to take.
func (tx *Tx) skipLocked() string {
	if !tx.s.shared() {
		return ""
	}
	return ` FOR UPDATE SKIP LOCKED`
}

// errContended says that another node's transaction has a row. Nothing is lost by it: the operation runs again, and takes the
// locks of the accounts that it turned out to need at its beginning, in the order of their ids.
var errContended = errors.New("store: the account is in use by another node")

// lockAccount locks the row of an account until the transaction ends, and returns the version that it has: whoever changes
// anything of an account holds this lock from before it looks at it until its commit.
//
// It never waits. A transaction has other rows locked already, and two that wait for each other would stand still.
func (tx *Tx) lockAccount(id AccountID) (version int64, err error) {
	if !tx.s.shared() {
		return 0, nil
	}
	if tx.op != nil && !slices.Contains(tx.op.wants, id) {
		tx.op.wants = append(tx.op.wants, id)
	}
	if version, ok := tx.locked[id]; ok {
		return version, nil
	}
	err = tx.QueryRow(`SELECT version FROM mail_account WHERE account_id = $1 FOR UPDATE SKIP LOCKED`, id).Scan(&version)
	if err == nil {
		tx.lock(id, version)
		return version, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("account %d: %w", id, err)
	}
	var there int
	if err := tx.QueryRow(`SELECT count(*) FROM mail_account WHERE account_id = $1`, id).Scan(&there); err != nil {
		return 0, fmt.Errorf("account %d: %w", id, err)
	}
	if there == 0 {
		return goneVersion, nil
	}
	tx.contended = &faultError{fault: FaultRetry, err: fmt.Errorf("account %d: %w", id, errContended)}
	return 0, tx.contended
}

// goneVersion is the version of an account that has no row.
const goneVersion = -1

func (tx *Tx) lock(id AccountID, version int64) {
	if tx.locked == nil {
		tx.locked = make(map[AccountID]int64)
	}
	tx.locked[id] = version
}

// lockAll locks accounts at the beginning of a transaction. It waits, but holds nothing that others wait for but accounts with
// lower ids.
func (tx *Tx) lockAll(ids []AccountID) error {
	if len(ids) == 0 {
		return nil
	}
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = int64(id)
	}
	slices.Sort(list)
	d := tx.s.db.Dialect
	rows, err := tx.numbers(`SELECT account_id, version FROM mail_account WHERE `+d.In("account_id", "$1")+` ORDER BY account_id FOR UPDATE`,
		d.Numbers(slices.Compact(list)))
	if err != nil {
		return fmt.Errorf("store: lock accounts: %w", err)
	}
	for i := 0; i+1 < len(rows); i += 2 {
		tx.lock(AccountID(rows[i]), rows[i+1])
	}
	return nil
}

// wantedBy returns the accounts that operations turned out to need when they ran before.
func wantedBy(ops []*op) []AccountID {
	var ids []AccountID
	for _, o := range ops {
		ids = append(ids, o.wants...)
	}
	return ids
}

// current pins an account whose memory shows at least what was committed, by whatever node, when it was asked for: a client
// that was answered by one node finds its change when it turns to another.
func (s *Store) current(ctx context.Context, id AccountID) (*account, error) {
	a, err := s.accounts.pin(ctx, id)
	if err != nil || !s.shared() {
		return a, err
	}
	var version int64
	err = s.reads.row(ctx, []any{&version}, `SELECT version FROM mail_account WHERE account_id = $1`, id)
	if errors.Is(err, sql.ErrNoRows) {
		version, err = goneVersion, nil
	}
	if err == nil && a.version() != version {
		err = s.Write(ctx, func(tx *Tx) error { return tx.catchUp(id) })
	}
	if err != nil {
		s.accounts.unpin(a)
		return nil, fmt.Errorf("account %d: %w", id, err)
	}
	return a, nil
}

func (a *account) version() int64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.counters.version
}

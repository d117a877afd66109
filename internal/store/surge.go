package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// SurgeRow is what is kept of an account to tell a mail bomb. Package surge gives it its meaning.
type SurgeRow struct {
	Account AccountID
	Action  string // the account's own choice, "" for the server's
	Usual   []byte
	Saved   time.Time
	Told    time.Time
}

// SurgeRow returns the row of an account; one without a row has nothing to say.
func (s *Store) SurgeRow(ctx context.Context, acct AccountID) (SurgeRow, error) {
	out := SurgeRow{Account: acct}
	err := s.Read(ctx, func(q Querier) error {
		var saved, told int64
		err := q.QueryRow(`SELECT action, usual, saved, told FROM surge WHERE account_id = $1`, acct).Scan(&out.Action, &out.Usual, &saved, &told)
		out.Saved, out.Told = unixOrZero(saved), unixOrZero(told)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return SurgeRow{}, fmt.Errorf("store: surge: %w", err)
	}
	return out, nil
}

// ensureSurge makes the row of an account that is there.
const ensureSurge = `INSERT INTO surge (account_id, action, usual, saved, told)
	SELECT account_id, '', $2, 0, 0 FROM directory_account WHERE account_id = $1 ON CONFLICT (account_id) DO NOTHING`

// SaveSurges writes what is usual for accounts.
func (s *Store) SaveSurges(ctx context.Context, rows []SurgeRow) error {
	return s.surge(ctx, func(tx *Tx) error {
		for _, r := range rows {
			if err := tx.exec(ensureSurge, r.Account, []byte{}); err != nil {
				return err
			}
			if err := tx.exec(`UPDATE surge SET usual = $2, saved = $3 WHERE account_id = $1`, r.Account, r.Usual, r.Saved.Unix()); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetSurgeAction sets an account's own choice of what becomes of surplus mail, "" for the server's.
func (s *Store) SetSurgeAction(ctx context.Context, acct AccountID, action string) error {
	return s.surge(ctx, func(tx *Tx) error {
		if err := tx.exec(ensureSurge, acct, []byte{}); err != nil {
			return err
		}
		return oneRow(tx.Exec(`UPDATE surge SET action = $2 WHERE account_id = $1`, acct, action))
	})
}

// SurgeTold notes when the owner of an account was told.
func (s *Store) SurgeTold(ctx context.Context, acct AccountID, at time.Time) error {
	return s.surge(ctx, func(tx *Tx) error {
		if err := tx.exec(ensureSurge, acct, []byte{}); err != nil {
			return err
		}
		return tx.exec(`UPDATE surge SET told = $2 WHERE account_id = $1`, acct, at.Unix())
	})
}

func (s *Store) surge(ctx context.Context, fn func(tx *Tx) error) error {
	if err := s.Write(ctx, fn); err != nil {
		return fmt.Errorf("store: surge: %w", err)
	}
	return nil
}

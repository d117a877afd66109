package store

import (
	"context"
	"fmt"
	"time"
)

// Contact is that an account has written to an address.
type Contact struct {
	Account AccountID
	Key     string // the address folded for comparison
	Wrote   time.Time
}

// SaveContacts notes contacts; those of accounts that are gone meanwhile are passed over.
func (s *Store) SaveContacts(ctx context.Context, list []Contact) error {
	err := s.Write(ctx, func(tx *Tx) error {
		for _, c := range list {
			err := tx.exec(`INSERT INTO contact (account_id, address_key, wrote)
				SELECT account_id, $2, $3 FROM directory_account WHERE account_id = $1
				ON CONFLICT (account_id, address_key) DO UPDATE SET wrote = excluded.wrote`, c.Account, c.Key, c.Wrote.Unix())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: contacts: %w", err)
	}
	return nil
}

// Wrote tells when an account last wrote to an address; with account 0 any account. Zero: never.
func (s *Store) Wrote(ctx context.Context, acct AccountID, key string) (time.Time, error) {
	query, args := `SELECT COALESCE(MAX(wrote), 0) FROM contact WHERE address_key = $1`, []any{key}
	if acct != 0 {
		query, args = query+` AND account_id = $2`, append(args, acct)
	}
	var at int64
	if err := s.Read(ctx, func(q Querier) error { return q.QueryRow(query, args...).Scan(&at) }); err != nil {
		return time.Time{}, fmt.Errorf("store: contacts: %w", err)
	}
	return unixOrZero(at), nil
}

// ExpireContacts forgets whom nobody has written to since a time, and what an account has over a number of contacts, the
// oldest first.
func (s *Store) ExpireContacts(ctx context.Context, before time.Time, most int) error {
	_, err := s.inSteps(ctx, `DELETE FROM contact WHERE (account_id, address_key) IN
		(SELECT account_id, address_key FROM contact WHERE wrote < $1 LIMIT $2)`, before.Unix())
	if err == nil {
		_, err = s.inSteps(ctx, `DELETE FROM contact WHERE (account_id, address_key) IN (SELECT account_id, address_key FROM
			(SELECT account_id, address_key, row_number() OVER (PARTITION BY account_id ORDER BY wrote DESC, address_key) AS place FROM contact) AS c
			WHERE place > $1 LIMIT $2)`, most)
	}
	if err != nil {
		return fmt.Errorf("store: contacts: %w", err)
	}
	return nil
}

package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// STSPolicy is the MTA-STS policy of another domain, as it was fetched.
type STSPolicy struct {
	Domain  string
	ID      string // of the record when it was fetched
	Body    string
	Fetched time.Time
	Expires time.Time
	Used    time.Time // when it was last asked for, to the day
}

const stsColumns = `domain, policy_id, body, fetched, expires, used`

func scanSTSPolicy(rows *sql.Rows) (STSPolicy, error) {
	var p STSPolicy
	var fetched, expires, used int64
	err := rows.Scan(&p.Domain, &p.ID, &p.Body, &fetched, &expires, &used)
	p.Fetched, p.Expires, p.Used = time.UnixMilli(fetched), time.UnixMilli(expires), time.UnixMilli(used)
	return p, err
}

// STSPolicy gives the policy of a domain; false when none is kept.
func (s *Store) STSPolicy(ctx context.Context, domain string) (p STSPolicy, found bool, err error) {
	err = s.reads.each(ctx, func(rows *sql.Rows) (err error) {
		found = true
		p, err = scanSTSPolicy(rows)
		return err
	}, `SELECT `+stsColumns+` FROM sts_policy WHERE domain = $1`, domain)
	if err != nil {
		return p, false, fmt.Errorf("store: MTA-STS policy of %s: %w", domain, err)
	}
	return p, found, nil
}

// SetSTSPolicy keeps a policy in place of the one that there was.
func (s *Store) SetSTSPolicy(ctx context.Context, p STSPolicy) error {
	err := s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO sts_policy (`+stsColumns+`) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (domain) DO UPDATE SET
			policy_id = excluded.policy_id, body = excluded.body, fetched = excluded.fetched, expires = excluded.expires, used = excluded.used`,
			p.Domain, p.ID, p.Body, p.Fetched.UnixMilli(), p.Expires.UnixMilli(), p.Used.UnixMilli())
	})
	if err != nil {
		return fmt.Errorf("store: MTA-STS policy of %s: %w", p.Domain, err)
	}
	return nil
}

// UsedSTSPolicies notes that policies were asked for.
func (s *Store) UsedSTSPolicies(ctx context.Context, domains []string, at time.Time) error {
	err := s.Write(ctx, func(tx *Tx) error {
		for _, d := range domains {
			if err := tx.exec(`UPDATE sts_policy SET used = $2 WHERE domain = $1 AND used < $2`, d, at.UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: MTA-STS policies: %w", err)
	}
	return nil
}

// OldSTSPolicies lists policies that were fetched before a time, the oldest first.
func (s *Store) OldSTSPolicies(ctx context.Context, before time.Time, limit int) ([]STSPolicy, error) {
	var out []STSPolicy
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		p, err := scanSTSPolicy(rows)
		out = append(out, p)
		return err
	}, `SELECT `+stsColumns+` FROM sts_policy WHERE fetched < $1 ORDER BY fetched, domain LIMIT $2`, before.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("store: MTA-STS policies: %w", err)
	}
	return out, nil
}

// DropSTSPolicies forgets policies that have expired, and those that nobody asked for since a time.
func (s *Store) DropSTSPolicies(ctx context.Context, now, unused time.Time) error {
	err := s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`DELETE FROM sts_policy WHERE expires <= $1 OR used < $2`, now.UnixMilli(), unused.UnixMilli())
	})
	if err != nil {
		return fmt.Errorf("store: MTA-STS policies: %w", err)
	}
	return nil
}

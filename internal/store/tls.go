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

// TLSOutcome counts sessions with the servers of a domain that came out alike on one day.
type TLSOutcome struct {
	Day      int64 // since 1970-01-01, UTC
	Domain   string
	Policy   string // as package tlsreport writes it
	Result   string // "" for success
	Sessions int64
}

// AddTLSOutcomes adds counts to those that there are, in one transaction.
func (s *Store) AddTLSOutcomes(ctx context.Context, list []TLSOutcome) error {
	err := s.Write(ctx, func(tx *Tx) error {
		for _, o := range list {
			if err := tx.exec(`INSERT INTO tls_outcome (day, domain, policy, result, sessions) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (day, domain, policy, result) DO UPDATE SET sessions = tls_outcome.sessions + excluded.sessions`,
				o.Day, o.Domain, o.Policy, o.Result, o.Sessions); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: outcomes of TLS: %w", err)
	}
	return nil
}

// TLSReportDomain is a domain with outcomes of a day that were not reported yet.
type TLSReportDomain struct {
	Day    int64
	Domain string
}

// TLSReportsDue lists domains with outcomes of days before a day, the oldest first.
func (s *Store) TLSReportsDue(ctx context.Context, before int64, limit int) ([]TLSReportDomain, error) {
	var out []TLSReportDomain
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var d TLSReportDomain
		err := rows.Scan(&d.Day, &d.Domain)
		out = append(out, d)
		return err
	}, `SELECT DISTINCT day, domain FROM tls_outcome WHERE day < $1 ORDER BY day, domain LIMIT $2`, before, limit)
	if err != nil {
		return nil, fmt.Errorf("store: outcomes of TLS: %w", err)
	}
	return out, nil
}

// TLSOutcomes gives the outcomes of a day with a domain, at most so many, and to whom they were reported.
func (s *Store) TLSOutcomes(ctx context.Context, d TLSReportDomain, limit int) (list []TLSOutcome, sent []string, err error) {
	err = s.reads.each(ctx, func(rows *sql.Rows) error {
		o := TLSOutcome{Day: d.Day, Domain: d.Domain}
		err := rows.Scan(&o.Policy, &o.Result, &o.Sessions)
		list = append(list, o)
		return err
	}, `SELECT policy, result, sessions FROM tls_outcome WHERE day = $1 AND domain = $2 ORDER BY policy, result LIMIT $3`, d.Day, d.Domain, limit)
	if err == nil {
		err = s.reads.each(ctx, func(rows *sql.Rows) error {
			var rua string
			err := rows.Scan(&rua)
			sent = append(sent, rua)
			return err
		}, `SELECT rua FROM tls_report_sent WHERE day = $1 AND domain = $2`, d.Day, d.Domain)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("store: outcomes of TLS with %s: %w", d.Domain, err)
	}
	return list, sent, nil
}

// TLSReportSent notes that the report of a day went to an address.
func (s *Store) TLSReportSent(ctx context.Context, d TLSReportDomain, rua string) error {
	err := s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO tls_report_sent (day, domain, rua) VALUES ($1, $2, $3) ON CONFLICT (day, domain, rua) DO NOTHING`, d.Day, d.Domain, rua)
	})
	if err != nil {
		return fmt.Errorf("store: report of TLS with %s: %w", d.Domain, err)
	}
	return nil
}

// TLSReportDone forgets the outcomes of a day with a domain, and to whom they were reported.
func (s *Store) TLSReportDone(ctx context.Context, d TLSReportDomain) error {
	err := s.Write(ctx, func(tx *Tx) error {
		if err := tx.exec(`DELETE FROM tls_outcome WHERE day = $1 AND domain = $2`, d.Day, d.Domain); err != nil {
			return err
		}
		return tx.exec(`DELETE FROM tls_report_sent WHERE day = $1 AND domain = $2`, d.Day, d.Domain)
	})
	if err != nil {
		return fmt.Errorf("store: report of TLS with %s: %w", d.Domain, err)
	}
	return nil
}

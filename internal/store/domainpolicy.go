package store

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"
)

// DomainPolicy is what holds for all accounts of a domain together, or for each of them.
type DomainPolicy struct {
	Domain        string // as the directory writes it
	QuotaOctets   int64  // of all accounts together; 0: none
	QuotaMessages int64
	TrashDays     int64 // -1: the Policy's; 0: never
	JunkDays      int64
	MailDays      int64 // in any mailbox; 0: for ever
}

// DomainUsage is what the accounts of a domain use together and may use; a quota of 0 is none.
type DomainUsage struct {
	Domain                                     string
	Bytes, Messages, QuotaBytes, QuotaMessages int64
}

// domainFresh is how old the known use of a domain may be: it is a sum over its accounts, and need not be exact.
const domainFresh = 10 * time.Second

// domains knows the quotas of domains and what they use. Between two sums it adds what was admitted.
type domains struct {
	s *Store

	loading sync.Mutex // one sum at a time

	mu     sync.Mutex // guards what follows
	at     time.Time  // of the last sum
	quotas map[string]*DomainUsage
}

// DomainPolicies returns the policies of the domains that have one, by name.
func (s *Store) DomainPolicies(ctx context.Context) ([]DomainPolicy, error) {
	var out []DomainPolicy
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var p DomainPolicy
		err := rows.Scan(&p.Domain, &p.QuotaOctets, &p.QuotaMessages, &p.TrashDays, &p.JunkDays, &p.MailDays)
		out = append(out, p)
		return err
	}, `SELECT domain, quota_octets, quota_messages, trash_days, junk_days, mail_days FROM domain_policy ORDER BY domain`)
	if err != nil {
		return nil, fmt.Errorf("store: policies of domains: %w", err)
	}
	return out, nil
}

// SetDomainPolicy sets the policy of a domain. One that says nothing is forgotten.
func (s *Store) SetDomainPolicy(ctx context.Context, p DomainPolicy) error {
	err := s.Write(ctx, func(tx *Tx) error {
		if (p == DomainPolicy{Domain: p.Domain, TrashDays: -1, JunkDays: -1}) {
			return tx.exec(`DELETE FROM domain_policy WHERE domain = $1`, p.Domain)
		}
		return tx.exec(`INSERT INTO domain_policy (domain, quota_octets, quota_messages, trash_days, junk_days, mail_days, quota_told)
			VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT (domain) DO UPDATE SET quota_octets = excluded.quota_octets,
			quota_messages = excluded.quota_messages, trash_days = excluded.trash_days, junk_days = excluded.junk_days,
			mail_days = excluded.mail_days`, p.Domain, p.QuotaOctets, p.QuotaMessages, p.TrashDays, p.JunkDays, p.MailDays)
	})
	if err == nil {
		err = s.domains.sum(ctx)
	}
	if err != nil {
		return fmt.Errorf("store: policy of domain %s: %w", p.Domain, err)
	}
	return nil
}

// refresh sums anew what is too old. An error leaves the last sums: a quota is no reason to refuse mail that the store takes.
func (d *domains) refresh(ctx context.Context) {
	now := d.s.clock()
	d.mu.Lock()
	old := now.Sub(d.at) >= domainFresh || now.Before(d.at)
	d.mu.Unlock()
	if !old || !d.loading.TryLock() {
		return
	}
	defer d.loading.Unlock()
	if err := d.load(ctx, now); err != nil && ctx.Err() == nil {
		d.s.log.Warn("store: use of domains is not known", "err", err)
	}
}

// sum brings the sums up to now.
func (d *domains) sum(ctx context.Context) error {
	d.loading.Lock()
	defer d.loading.Unlock()
	return d.load(ctx, d.s.clock())
}

func (d *domains) load(ctx context.Context, now time.Time) error {
	quotas := make(map[string]*DomainUsage)
	err := d.s.reads.each(ctx, func(rows *sql.Rows) error {
		var u DomainUsage
		err := rows.Scan(&u.Domain, &u.QuotaBytes, &u.QuotaMessages, &u.Bytes, &u.Messages)
		quotas[u.Domain] = &u
		return err
	}, `SELECT p.domain, p.quota_octets, p.quota_messages, COALESCE(SUM(m.used_octets), 0), COALESCE(SUM(m.used_messages), 0)
		FROM domain_policy AS p LEFT JOIN directory_address AS a ON a.domain = p.domain AND a.account_id IS NOT NULL
		LEFT JOIN mail_account AS m ON m.account_id = a.account_id
		WHERE p.quota_octets > 0 OR p.quota_messages > 0 GROUP BY p.domain, p.quota_octets, p.quota_messages`)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.quotas = now, quotas
	return nil
}

// admit checks the quota of a domain for as many octets and messages more, and counts them until the next sum.
func (d *domains) admit(domain string, octets, messages int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := d.quotas[domain]
	if u == nil {
		return nil
	}
	if u.QuotaBytes > 0 && u.Bytes+octets > u.QuotaBytes {
		return fmt.Errorf("domain %s uses %d of %d octets, %d more: %w", domain, u.Bytes, u.QuotaBytes, octets, ErrOverQuota)
	}
	if u.QuotaMessages > 0 && u.Messages+messages > u.QuotaMessages {
		return fmt.Errorf("domain %s uses %d of %d messages, %d more: %w", domain, u.Messages, u.QuotaMessages, messages, ErrOverQuota)
	}
	u.Bytes, u.Messages = u.Bytes+octets, u.Messages+messages
	return nil
}

// usage returns what is known of a domain; the zero value for one without a quota.
func (d *domains) usage(domain string) DomainUsage {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.quotas[domain]; u != nil {
		return *u
	}
	return DomainUsage{}
}

// warnLevels are the per cents of a quota at which people are told, the highest first; warnSlack is how many per cent the
// use must fall below one before reaching it again is news.
var warnLevels = []int64{95, 80}

const warnSlack = 5

// warnLevel gives the level that a use has reached, when told is what was told last: the level falls only with some slack.
func warnLevel(used, quota, told int64) int64 {
	if quota <= 0 {
		return 0
	}
	for _, level := range warnLevels {
		need := level
		if told >= level {
			need -= warnSlack
		}
		if float64(used)*100 >= float64(quota)*float64(need) {
			return level
		}
	}
	return 0
}

// QuotaNotice says that an account or a domain has used more of its quota than it was told of.
type QuotaNotice struct {
	Account AccountID // 0: a domain
	Domain  string    // "" for an account
	Level   int64     // per cent
	Usage   Usage
}

// QuotaNotices lists who crossed a level of their quota since they were told, and forgets crossings that went back. Call
// QuotaTold for those who were told.
func (s *Store) QuotaNotices(ctx context.Context) ([]QuotaNotice, error) {
	var list []QuotaNotice
	var fell []QuotaNotice
	take := func(n QuotaNotice, told int64) {
		u := &n.Usage
		n.Level = max(warnLevel(u.Bytes, u.QuotaBytes, told), warnLevel(u.Messages, u.QuotaMessages, told))
		switch {
		case n.Level > told:
			list = append(list, n)
		case n.Level < told:
			fell = append(fell, n)
		}
	}
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var n QuotaNotice
		var told int64
		u := &n.Usage
		err := rows.Scan(&n.Account, &u.Bytes, &u.Messages, &u.QuotaBytes, &u.QuotaMessages, &told)
		take(n, told)
		return err
	}, `SELECT account_id, used_octets, used_messages, quota_octets, quota_messages, quota_told FROM mail_account
		WHERE quota_told > 0 OR (quota_octets > 0 AND used_octets >= quota_octets / 100 * 80)
		OR (quota_messages > 0 AND used_messages * 100 >= quota_messages * 80)`)
	if err == nil {
		err = s.domainNotices(ctx, take)
	}
	for _, n := range fell {
		if err == nil {
			err = s.QuotaTold(ctx, n)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("store: quota notices: %w", err)
	}
	return list, nil
}

func (s *Store) domainNotices(ctx context.Context, take func(QuotaNotice, int64)) error {
	if err := s.domains.sum(ctx); err != nil {
		return err
	}
	return s.reads.each(ctx, func(rows *sql.Rows) error {
		var n QuotaNotice
		var told int64
		if err := rows.Scan(&n.Domain, &told); err != nil {
			return err
		}
		d := s.domains.usage(n.Domain)
		n.Usage = Usage{Bytes: d.Bytes, Messages: d.Messages, QuotaBytes: d.QuotaBytes, QuotaMessages: d.QuotaMessages}
		take(n, told)
		return nil
	}, `SELECT domain, quota_told FROM domain_policy`)
}

// QuotaTold records that the people were told of a level, or that the use fell to it.
func (s *Store) QuotaTold(ctx context.Context, n QuotaNotice) error {
	return s.Write(ctx, func(tx *Tx) error {
		if n.Domain != "" {
			return tx.exec(`UPDATE domain_policy SET quota_told = $2 WHERE domain = $1`, n.Domain, n.Level)
		}
		if _, err := tx.lockAccount(n.Account); err != nil {
			return err
		}
		return tx.exec(`UPDATE mail_account SET quota_told = $2 WHERE account_id = $1`, n.Account, n.Level)
	})
}

// DomainUse sums what the accounts of a domain use now, whether it has a quota or not.
func (s *Store) DomainUse(ctx context.Context, domain string) (DomainUsage, error) {
	u := DomainUsage{Domain: domain}
	err := s.reads.row(ctx, []any{&u.Bytes, &u.Messages}, `SELECT COALESCE(SUM(m.used_octets), 0), COALESCE(SUM(m.used_messages), 0)
		FROM directory_address AS a JOIN mail_account AS m ON m.account_id = a.account_id WHERE a.domain = $1`, domain)
	if err != nil {
		return u, fmt.Errorf("store: use of domain %s: %w", domain, err)
	}
	return u, nil
}

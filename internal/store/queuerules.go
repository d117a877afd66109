package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// QueueRule is a decision of an administrator about outgoing mail. Package queue knows the kinds and reads the values.
type QueueRule struct {
	Kind, Name string
	Value      string // JSON
}

// maxQueueRules bounds the rules of one kind.
const maxQueueRules = 10_000

// QueueRulesVersion counts the changes of the rules.
func (s *Store) QueueRulesVersion(ctx context.Context) (version string, err error) {
	err = s.reads.row(ctx, []any{&version}, `SELECT value FROM queue_rule WHERE kind = 'version' AND name = ''`)
	if errors.Is(err, sql.ErrNoRows) { // a store that was brought back from before there were rules
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("store: version of the queue's rules: %w", err)
	}
	return version, nil
}

// QueueRules returns the rules by kind and name, with the version that they have.
func (s *Store) QueueRules(ctx context.Context) (rules []QueueRule, version string, err error) {
	err = s.reads.each(ctx, func(rows *sql.Rows) error {
		var r QueueRule
		err := rows.Scan(&r.Kind, &r.Name, &r.Value)
		if r.Kind == "version" {
			version = r.Value
		} else {
			rules = append(rules, r)
		}
		return err
	}, `SELECT kind, name, value FROM queue_rule ORDER BY kind, name`)
	if err != nil {
		return nil, "", fmt.Errorf("store: rules of the queue: %w", err)
	}
	return rules, version, nil
}

// SetQueueRule makes or replaces a rule.
func (s *Store) SetQueueRule(ctx context.Context, r QueueRule) error {
	return s.changeRules(ctx, r, func(tx *Tx) error {
		var n int
		if err := tx.QueryRow(`SELECT count(*) FROM queue_rule WHERE kind = $1`, r.Kind).Scan(&n); err != nil {
			return err
		}
		if n >= maxQueueRules {
			return fmt.Errorf("more than %d: %w", maxQueueRules, ErrLimit)
		}
		return tx.exec(`INSERT INTO queue_rule (kind, name, value) VALUES ($1, $2, $3)
			ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value`, r.Kind, r.Name, r.Value)
	})
}

// RemoveQueueRule removes a rule; ErrNotFound when there is none.
func (s *Store) RemoveQueueRule(ctx context.Context, kind, name string) error {
	return s.changeRules(ctx, QueueRule{Kind: kind, Name: name}, func(tx *Tx) error {
		n, err := affected(tx.Exec(`DELETE FROM queue_rule WHERE kind = $1 AND name = $2`, kind, name))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
}

func (s *Store) changeRules(ctx context.Context, r QueueRule, fn func(tx *Tx) error) error {
	err := s.Write(ctx, func(tx *Tx) error {
		if err := tx.exec(`INSERT INTO queue_rule (kind, name, value) VALUES ('version', '', '1')
			ON CONFLICT (kind, name) DO UPDATE SET value = CAST(CAST(queue_rule.value AS BIGINT) + 1 AS TEXT)`); err != nil {
			return err
		}
		tx.AfterCommit(func() { s.rulesChanged.Add(1) })
		tx.NotifyQueue()
		return fn(tx)
	})
	if err != nil {
		return fmt.Errorf("store: %s %q of the queue: %w", r.Kind, r.Name, err)
	}
	return nil
}

// QueueRulesChanged rises whenever this node changed a rule: who keeps them reads them anew then, and now and then for what other
// nodes changed.
func (s *Store) QueueRulesChanged() int64 { return s.rulesChanged.Load() }

// Suppression is an address that nothing is sent to any more, because mail to it failed for good again and again or because an
// administrator said so.
type Suppression struct {
	Address  string    // lower case
	Sender   string    // domain whose mail it is about, "" for all
	Failures int       // that led to it
	Since    time.Time // zero: failures are only counted so far
	Expires  time.Time
	Reason   string
}

// QueueFailure is a failure for good that says that an address is dead.
type QueueFailure struct {
	Sender string // domain
	Reason string
	After  int           // as many failures
	Within time.Duration // within this time
	For    time.Duration // suppress it for this long
}

// recordFailure counts a failure for good of an address, and suppresses it when there were enough.
func recordFailure(tx *Tx, now time.Time, address string, f *QueueFailure) error {
	address = strings.ToLower(address)
	var failures int
	err := tx.QueryRow(`INSERT INTO queue_suppressed (address, sender_domain, failures, since, expires, reason) VALUES ($1, $2, 1, 0, $3, $4)
		ON CONFLICT (address, sender_domain) DO UPDATE SET
			failures = CASE WHEN queue_suppressed.expires <= $5 THEN 1 ELSE queue_suppressed.failures + 1 END,
			since = CASE WHEN queue_suppressed.expires <= $5 THEN 0 ELSE queue_suppressed.since END,
			expires = CASE WHEN queue_suppressed.expires <= $5 THEN excluded.expires ELSE queue_suppressed.expires END,
			reason = excluded.reason RETURNING failures`,
		address, f.Sender, now.Add(f.Within).UnixMilli(), bound(f.Reason), now.UnixMilli()).Scan(&failures)
	if err == nil && failures >= f.After {
		err = tx.exec(`UPDATE queue_suppressed SET since = $3, expires = $4 WHERE address = $1 AND sender_domain = $2 AND since = 0`,
			address, f.Sender, now.UnixMilli(), now.Add(f.For).UnixMilli())
	}
	if err != nil {
		return fmt.Errorf("store: count a failure of %s: %w", address, err)
	}
	tx.AfterCommit(func() { tx.s.suppressing.Store(true) })
	return nil
}

// QueueSuppressed tells whether nothing is sent to an address for a sender's domain, and why. It costs a query only while there
// are such addresses.
func (s *Store) QueueSuppressed(ctx context.Context, address, sender string, now time.Time) (found Suppression, ok bool, err error) {
	if !s.suppressing.Load() {
		return found, false, nil
	}
	err = s.reads.each(ctx, func(rows *sql.Rows) error {
		ok = true
		found, err = scanSuppression(rows)
		return err
	}, `SELECT `+suppressionColumns+` FROM queue_suppressed WHERE address = $1 AND sender_domain IN ('', $2) AND since > 0 AND expires > $3
		ORDER BY sender_domain LIMIT 1`, strings.ToLower(address), strings.ToLower(sender), now.UnixMilli())
	if err != nil {
		return found, false, fmt.Errorf("store: look for %s among the suppressed: %w", address, err)
	}
	return found, ok, nil
}

const suppressionColumns = `address, sender_domain, failures, since, expires, reason`

func scanSuppression(rows *sql.Rows) (Suppression, error) {
	var x Suppression
	var since, expires int64
	err := rows.Scan(&x.Address, &x.Sender, &x.Failures, &since, &expires, &x.Reason)
	x.Since, x.Expires = moment(since), moment(expires)
	return x, err
}

// Suppressions lists suppressed addresses after a given one, in order; with counted those too whose failures are only counted.
func (s *Store) Suppressions(ctx context.Context, after Suppression, counted bool, limit int) (list []Suppression, err error) {
	err = s.reads.each(ctx, func(rows *sql.Rows) error {
		x, err := scanSuppression(rows)
		list = append(list, x)
		return err
	}, `SELECT `+suppressionColumns+` FROM queue_suppressed WHERE (address, sender_domain) > ($1, $2) AND (since > 0 OR $3 = 1)
		ORDER BY address, sender_domain LIMIT $4`, after.Address, after.Sender, boolInt(counted), min(max(limit, 1), maxQueuePage))
	if err != nil {
		return nil, fmt.Errorf("store: suppressed addresses: %w", err)
	}
	return list, nil
}

// Suppress adds addresses, or replaces them, in one transaction.
func (s *Store) Suppress(ctx context.Context, list []Suppression) error {
	err := s.Write(ctx, func(tx *Tx) error {
		for _, x := range list {
			if err := tx.exec(`INSERT INTO queue_suppressed (`+suppressionColumns+`) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (address, sender_domain) DO UPDATE SET since = excluded.since, expires = excluded.expires, reason = excluded.reason`,
				strings.ToLower(x.Address), strings.ToLower(x.Sender), x.Failures, x.Since.UnixMilli(), x.Expires.UnixMilli(), bound(x.Reason)); err != nil {
				return err
			}
		}
		tx.AfterCommit(func() { s.suppressing.Store(true) })
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: suppress addresses: %w", err)
	}
	return nil
}

// Unsuppress forgets an address, with its failures; ErrNotFound when it isn't there.
func (s *Store) Unsuppress(ctx context.Context, address, sender string) error {
	err := s.Write(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(`DELETE FROM queue_suppressed WHERE address = $1 AND sender_domain = $2`, strings.ToLower(address), strings.ToLower(sender)))
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("store: suppressed address %s: %w", address, err)
	}
	return nil
}

// QueueTidy forgets what is over: suppressed addresses whose time has come, and what was sent before yesterday. It also looks
// whether other nodes have suppressed any.
func (s *Store) QueueTidy(ctx context.Context, now time.Time) error {
	var some, old int
	err := s.reads.row(ctx, []any{&some, &old}, `SELECT (SELECT count(*) FROM (SELECT 1 FROM queue_suppressed LIMIT 1) AS x),
		(SELECT count(*) FROM (SELECT 1 FROM queue_suppressed WHERE expires <= $1 LIMIT 1) AS x)
		+ (SELECT count(*) FROM (SELECT 1 FROM queue_sent WHERE day < $2 LIMIT 1) AS x)`, now.UnixMilli(), QueueDay(now)-1)
	if err == nil {
		s.suppressing.Store(some > 0)
	}
	if err == nil && old > 0 {
		err = s.Write(ctx, func(tx *Tx) error {
			if err := tx.exec(`DELETE FROM queue_sent WHERE day < $1`, QueueDay(now)-1); err != nil {
				return err
			}
			return tx.exec(`DELETE FROM queue_suppressed WHERE (address, sender_domain) IN
				(SELECT address, sender_domain FROM queue_suppressed WHERE expires <= $1 ORDER BY expires LIMIT $2)`, now.UnixMilli(), maxQueuePage)
		})
	}
	if err != nil {
		return fmt.Errorf("store: tidy the queue: %w", err)
	}
	return nil
}

// QueueDay numbers the days of warm-up plans, UTC.
func QueueDay(t time.Time) int64 { return t.Unix() / 86400 }

// QueueSource is how many messages a source address has sent to a provider on a day.
type QueueSource struct {
	Address, Provider string
	Messages          int64
}

// QueueSent returns what source addresses have sent on a day.
func (s *Store) QueueSent(ctx context.Context, day int64) (list []QueueSource, err error) {
	err = s.reads.each(ctx, func(rows *sql.Rows) error {
		var x QueueSource
		err := rows.Scan(&x.Address, &x.Provider, &x.Messages)
		list = append(list, x)
		return err
	}, `SELECT source, provider, messages FROM queue_sent WHERE day = $1 ORDER BY source, provider`, day)
	if err != nil {
		return nil, fmt.Errorf("store: what was sent: %w", err)
	}
	return list, nil
}

// QueueCountSent adds to what source addresses have sent on a day.
func (s *Store) QueueCountSent(ctx context.Context, day int64, list []QueueSource) error {
	err := s.Write(ctx, func(tx *Tx) error {
		for _, x := range list {
			if err := tx.exec(`INSERT INTO queue_sent (source, provider, day, messages) VALUES ($1, $2, $3, $4)
				ON CONFLICT (source, provider, day) DO UPDATE SET messages = queue_sent.messages + excluded.messages`,
				x.Address, x.Provider, day, x.Messages); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: count what was sent: %w", err)
	}
	return nil
}

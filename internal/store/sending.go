package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// SendingCount is what an account, or all of a domain, has sent lately.
type SendingCount struct {
	Subject string
	// Full is when each allowance is whole again: messages of the hour and the day, recipients of the hour and the day.
	Full    [4]time.Time
	Usual   int64 // recipients of an hour in which anything is sent, thousandths
	Touched time.Time
}

// SendingSpent is what was used since the last time, each as the time that it takes to come back.
type SendingSpent struct {
	Subject string
	Spent   [4]time.Duration
	Usual   int64
}

// sendingKept is how long counts are kept that nothing is added to: what is usual is known for so long.
const sendingKept = 60 * 24 * time.Hour

// sendingStep is how many counts one transaction takes.
const sendingStep = 200

// SendingCounts lists all counts.
func (s *Store) SendingCounts(ctx context.Context) ([]SendingCount, error) {
	var out []SendingCount
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		c, err := scanSending(rows.Scan)
		out = append(out, c)
		return err
	}, `SELECT `+sendingColumns+` FROM sending_count`)
	if err != nil {
		return nil, fmt.Errorf("store: what was sent: %w", err)
	}
	return out, nil
}

// SendingCount is the count of one account, zero when it has none.
func (s *Store) SendingCount(ctx context.Context, acct AccountID) (c SendingCount, err error) {
	err = s.Read(ctx, func(q Querier) error {
		c, err = scanSending(q.QueryRow(`SELECT `+sendingColumns+` FROM sending_count WHERE subject = $1`, fmt.Sprintf("account:%d", acct)).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			c, err = SendingCount{}, nil
		}
		return err
	})
	if err != nil {
		return c, fmt.Errorf("store: what account %d has sent: %w", acct, err)
	}
	return c, nil
}

const sendingColumns = `subject, messages_hour, messages_day, recipients_hour, recipients_day, usual, touched`

func scanSending(scan func(...any) error) (c SendingCount, err error) {
	var full [4]int64
	var touched int64
	if err := scan(&c.Subject, &full[0], &full[1], &full[2], &full[3], &c.Usual, &touched); err != nil {
		return c, err
	}
	for i, ms := range full {
		c.Full[i] = time.UnixMilli(ms)
	}
	c.Touched = time.UnixMilli(touched)
	return c, nil
}

// AddSending adds what was used on this node, and gives the counts of all nodes together.
func (s *Store) AddSending(ctx context.Context, spent []SendingSpent) ([]SendingCount, error) {
	var out []SendingCount
	for len(spent) > 0 {
		step := spent[:min(len(spent), sendingStep)]
		spent = spent[len(step):]
		var part []SendingCount
		err := s.Write(ctx, func(tx *Tx) error {
			part = part[:0]
			for _, c := range step {
				now := tx.Now().UnixMilli()
				sum, err := scanSending(tx.QueryRow(`INSERT INTO sending_count AS c (`+sendingColumns+`)
					VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (subject) DO UPDATE SET
					messages_hour = CASE WHEN c.messages_hour > excluded.touched THEN c.messages_hour ELSE excluded.touched END + excluded.messages_hour - excluded.touched,
					messages_day = CASE WHEN c.messages_day > excluded.touched THEN c.messages_day ELSE excluded.touched END + excluded.messages_day - excluded.touched,
					recipients_hour = CASE WHEN c.recipients_hour > excluded.touched THEN c.recipients_hour ELSE excluded.touched END + excluded.recipients_hour - excluded.touched,
					recipients_day = CASE WHEN c.recipients_day > excluded.touched THEN c.recipients_day ELSE excluded.touched END + excluded.recipients_day - excluded.touched,
					usual = excluded.usual, touched = excluded.touched RETURNING `+sendingColumns,
					c.Subject, now+c.Spent[0].Milliseconds(), now+c.Spent[1].Milliseconds(), now+c.Spent[2].Milliseconds(),
					now+c.Spent[3].Milliseconds(), c.Usual, now).Scan)
				if err != nil {
					return err
				}
				part = append(part, sum)
			}
			return tx.exec(`DELETE FROM sending_count WHERE touched < $1`, tx.Now().Add(-sendingKept).UnixMilli())
		})
		if err != nil {
			return out, fmt.Errorf("store: what was sent: %w", err)
		}
		out = append(out, part...)
	}
	return out, nil
}

// SendingHold says that an account's mail is kept in the queue.
type SendingHold struct {
	Account AccountID
	Reason  string
	Since   time.Time
}

// HoldSending puts the further mail of an account on hold. It tells whether it wasn't already.
func (s *Store) HoldSending(ctx context.Context, acct AccountID, reason string) (fresh bool, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(`INSERT INTO sending_hold (account_id, reason, since) VALUES ($1, $2, $3) ON CONFLICT (account_id) DO NOTHING`,
			acct, bound(reason), tx.Now().UnixMilli()))
		fresh = n > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("store: hold the mail of account %d: %w", acct, err)
	}
	return fresh, nil
}

// ReleaseSending ends the hold of an account; ErrNotFound when there is none.
func (s *Store) ReleaseSending(ctx context.Context, acct AccountID) error {
	err := s.Write(ctx, func(tx *Tx) error {
		return oneRow(tx.Exec(`DELETE FROM sending_hold WHERE account_id = $1`, acct))
	})
	if err != nil {
		return fmt.Errorf("store: release the mail of account %d: %w", acct, err)
	}
	return nil
}

// SendingHolds lists the accounts on hold.
func (s *Store) SendingHolds(ctx context.Context) ([]SendingHold, error) {
	var out []SendingHold
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var h SendingHold
		var since int64
		err := rows.Scan(&h.Account, &h.Reason, &since)
		h.Since = time.UnixMilli(since)
		out = append(out, h)
		return err
	}, `SELECT account_id, reason, since FROM sending_hold ORDER BY account_id`)
	if err != nil {
		return nil, fmt.Errorf("store: accounts on hold: %w", err)
	}
	return out, nil
}

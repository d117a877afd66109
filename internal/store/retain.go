package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Retained says what one pass of retention did.
type Retained struct {
	Expired    int   // entries that left Trash, Junk or a mailbox of a domain because of their age
	Purged     int   // expunged entries that are gone for good
	Tombstones int64 // of entries and mailboxes
}

// retain carries out the Policy: what is old leaves its mailbox, what was expunged long enough ago goes for good, and so do
// old tombstones. Every step is a small transaction. After the clock jumped nothing goes: see MayExpire.
func (s *Store) retain(ctx context.Context) (Retained, error) {
	var out Retained
	if may, err := s.MayExpire(ctx); err != nil || !may {
		return out, err
	}
	steps := []func(context.Context, *Retained) error{s.expireAll, s.purgeAll, s.forgetMailboxes, s.forgetTombstones}
	for _, step := range steps {
		if err := step(ctx, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// days is a number of days of a policy of a domain.
func days(n int64) time.Duration { return time.Duration(n) * 24 * time.Hour }

// aged is a mailbox whose entries leave it by age.
type aged struct {
	acct AccountID
	box  MailboxID
	age  time.Duration
}

// expireAll expunges what is older than its mailbox keeps. Age counts from when a message came into the mailbox, so that mail
// that was moved to Trash today stays its time there, however old it is.
func (s *Store) expireAll(ctx context.Context, out *Retained) error {
	list, err := s.agedMailboxes(ctx)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	ctx = WithActor(ctx, "retention")
	for _, a := range list {
		n, err := s.expire(ctx, a)
		out.Expired += n
		if err != nil && !errors.Is(err, ErrNotFound) { // the mailbox may have gone meanwhile
			return fmt.Errorf("retention in mailbox %d of account %d: %w", a.box, a.acct, err)
		}
	}
	return nil
}

// agedMailboxes lists the mailboxes that hold entries and keep them for a bounded time only.
func (s *Store) agedMailboxes(ctx context.Context) ([]aged, error) {
	policies, err := s.DomainPolicies(ctx)
	if err != nil {
		return nil, err
	}
	byDomain := make(map[string]DomainPolicy, len(policies))
	all := false
	for _, p := range policies {
		byDomain[p.Domain] = p
		all = all || p.MailDays > 0 || p.TrashDays > 0 || p.JunkDays > 0
	}
	policy := s.Policy()
	if !all && policy.Trash <= 0 && policy.Junk <= 0 {
		return nil, nil
	}
	var out []aged
	err = s.reads.each(ctx, func(rows *sql.Rows) error {
		var a aged
		var role Role
		var domain string
		if err := rows.Scan(&a.acct, &a.box, &role, &domain); err != nil {
			return err
		}
		p, ok := byDomain[domain]
		if !ok {
			p = DomainPolicy{TrashDays: -1, JunkDays: -1}
		}
		if a.age = policy.ageOf(role, p); a.age > 0 {
			out = append(out, a)
		}
		return nil
	}, `SELECT m.account_id, m.mailbox_id, m.role, COALESCE(d.domain, '') FROM mailbox AS m
		LEFT JOIN directory_address AS d ON d.account_id = m.account_id WHERE m.messages > 0`)
	return out, err
}

// ageOf is how long a mailbox of a role keeps its entries in a domain; 0 is for ever.
func (p Policy) ageOf(role Role, d DomainPolicy) time.Duration {
	age := days(max(d.MailDays, 0))
	special, own := time.Duration(0), int64(-1)
	switch role {
	case RoleTrash:
		special, own = p.Trash, d.TrashDays
	case RoleJunk:
		special, own = p.Junk, d.JunkDays
	}
	if own >= 0 {
		special = days(own)
	}
	if special > 0 && (age == 0 || special < age) {
		return special
	}
	return age
}

// expire expunges the entries at the beginning of a mailbox that are too old. Later UIDs came later, so it ends where some
// are young enough.
func (s *Store) expire(ctx context.Context, a aged) (int, error) {
	done := 0
	for {
		before := s.clock().Add(-a.age).Unix()
		var old []UID
		err := s.reads.each(ctx, func(rows *sql.Rows) error {
			var uid UID
			var saved int64
			err := rows.Scan(&uid, &saved)
			if saved < before {
				old = append(old, uid)
			}
			return err
		}, `SELECT uid, saved_at FROM entry WHERE account_id = $1 AND mailbox_id = $2 ORDER BY uid LIMIT $3`, a.acct, a.box, restoreStep)
		if err != nil || len(old) == 0 {
			return done, err
		}
		gone, err := s.Expunge(ctx, a.acct, a.box, old, false)
		done += len(gone)
		if err != nil || len(old) < restoreStep {
			return done, err
		}
	}
}

// purgeAll removes what was expunged long enough ago, but for accounts under a legal hold, and all that deleted accounts left.
func (s *Store) purgeAll(ctx context.Context, out *Retained) error {
	for acct := AccountID(0); ; {
		var alive, held int
		err := s.reads.with(ctx, func(q *reader) error {
			var next sql.NullInt64
			if err := q.QueryRow(`SELECT MIN(account_id) FROM expunged_entry WHERE account_id > $1`, acct).Scan(&next); err != nil {
				return err
			}
			if acct = AccountID(next.Int64); !next.Valid {
				return nil
			}
			return q.QueryRow(`SELECT (SELECT count(*) FROM mail_account WHERE account_id = $1),
				(SELECT count(*) FROM mail_hold WHERE account_id = $1 AND ended = 0)`, acct).Scan(&alive, &held)
		})
		if err != nil || acct == 0 {
			return err
		}
		if alive > 0 && held > 0 {
			continue
		}
		before := s.clock().Add(-s.Policy().Undelete).Unix()
		if alive == 0 {
			before = s.clock().Unix() + 1
		}
		n, err := s.purgeBefore(ctx, acct, before)
		out.Purged += n
		if err != nil {
			return fmt.Errorf("purge in account %d: %w", acct, err)
		}
	}
}

// purgeBefore removes what an account expunged before a time, in steps.
func (s *Store) purgeBefore(ctx context.Context, acct AccountID, before int64) (int, error) {
	done := 0
	for {
		var ids []ExpungedID
		err := s.reads.each(ctx, func(rows *sql.Rows) error {
			var id ExpungedID
			err := rows.Scan(&id.Mailbox, &id.UID)
			ids = append(ids, id)
			return err
		}, `SELECT mailbox_id, uid FROM expunged_entry WHERE account_id = $1 AND expunged_at < $2 ORDER BY expunged_at LIMIT $3`,
			acct, before, restoreStep)
		if err != nil || len(ids) == 0 {
			return done, err
		}
		n, err := s.PurgeExpunged(ctx, acct, ids)
		done += n
		if err != nil || n == 0 {
			return done, err
		}
	}
}

// forgetMailboxes forgets deleted mailboxes whose time is over and which nothing would go back to.
func (s *Store) forgetMailboxes(ctx context.Context, _ *Retained) error {
	before := s.clock().Add(-s.Policy().Undelete).Unix()
	return s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`DELETE FROM deleted_mailbox WHERE deleted_at < $1
			AND NOT EXISTS (SELECT 1 FROM mail_hold AS h WHERE h.account_id = deleted_mailbox.account_id AND h.ended = 0)
			AND NOT EXISTS (SELECT 1 FROM dead_mailbox AS r WHERE r.account_id = deleted_mailbox.account_id AND r.mailbox_id = deleted_mailbox.mailbox_id)
			AND NOT EXISTS (SELECT 1 FROM expunged_entry AS e WHERE e.account_id = deleted_mailbox.account_id AND e.mailbox_id = deleted_mailbox.mailbox_id)`, before)
	})
}

// A mark says which MODSEQ an account had at a moment. One a day lets tombstones stay a day longer at most than they must, and
// bounds the marks to as many rows an account as tombstones have days.
const markEvery = 24 * time.Hour

// markStep is how many accounts one transaction marks.
const markStep = 2000

// forgetTombstones marks the day, and removes tombstones that are older than the policy keeps them.
func (s *Store) forgetTombstones(ctx context.Context, out *Retained) error {
	keep := s.Policy().Tombstones
	if keep <= 0 {
		return nil
	}
	now := s.clock()
	if err := s.markAccounts(ctx, now); err != nil {
		return fmt.Errorf("mark the MODSEQ of accounts: %w", err)
	}
	type old struct {
		acct   AccountID
		modseq ModSeq
	}
	var list []old
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var o old
		err := rows.Scan(&o.acct, &o.modseq)
		list = append(list, o)
		return err
	}, `SELECT account_id, MAX(modseq) FROM modseq_mark WHERE at < $1 GROUP BY account_id`, now.Add(-keep).Unix())
	if err != nil {
		return fmt.Errorf("tombstones: %w", err)
	}
	for _, o := range list {
		n, err := s.forgetUpTo(ctx, o.acct, o.modseq, now.Add(-keep).Unix())
		out.Tombstones += n
		if err != nil {
			return fmt.Errorf("tombstones of account %d: %w", o.acct, err)
		}
	}
	return nil
}

// markAccounts notes the MODSEQ of each account that changed since its last mark, once a day.
func (s *Store) markAccounts(ctx context.Context, now time.Time) error {
	for from := AccountID(0); ; {
		var last AccountID
		err := s.Write(ctx, func(tx *Tx) error {
			ids, err := tx.numbers(`SELECT account_id FROM mail_account WHERE account_id > $1 ORDER BY account_id LIMIT $2`, from, markStep)
			if err != nil || len(ids) == 0 {
				last = 0
				return err
			}
			last = AccountID(ids[len(ids)-1])
			return tx.exec(`INSERT INTO modseq_mark (account_id, at, modseq) SELECT a.account_id, $3, a.modseq FROM mail_account AS a
				WHERE a.account_id > $1 AND a.account_id <= $2 AND a.modseq > a.horizon
				AND NOT EXISTS (SELECT 1 FROM modseq_mark AS m WHERE m.account_id = a.account_id AND (m.at > $4 OR m.modseq = a.modseq))`,
				from, last, now.Unix(), now.Add(-markEvery).Unix())
		})
		if err != nil || last == 0 {
			return err
		}
		from = last
	}
}

// forgetUpTo removes the tombstones of an account up to a MODSEQ, in steps; the horizon goes first, so that nobody relies on
// what is being removed.
func (s *Store) forgetUpTo(ctx context.Context, acct AccountID, modseq ModSeq, before int64) (int64, error) {
	err := s.Write(ctx, func(tx *Tx) error {
		if _, err := tx.lockAccount(acct); err != nil {
			return err
		}
		return tx.exec(`UPDATE mail_account SET horizon = $2 WHERE account_id = $1 AND horizon < $2`, acct, modseq)
	})
	var total int64
	for err == nil {
		var n int64
		err = s.Write(ctx, func(tx *Tx) error {
			n = 0
			for _, query := range []string{
				`DELETE FROM tombstone WHERE account_id = $1 AND (account_id, mailbox_id, modseq, uid) IN
					(SELECT account_id, mailbox_id, modseq, uid FROM tombstone WHERE account_id = $1 AND modseq <= $2 LIMIT $3)`,
				`DELETE FROM mailbox_tombstone WHERE account_id = $1 AND (account_id, modseq, mailbox_id) IN
					(SELECT account_id, modseq, mailbox_id FROM mailbox_tombstone WHERE account_id = $1 AND modseq <= $2 LIMIT $3)`,
			} {
				gone, err := affected(tx.Exec(query, acct, modseq, reapStep))
				if err != nil {
					return err
				}
				n += gone
			}
			return nil
		})
		total += n
		if n == 0 {
			break
		}
	}
	if err != nil {
		return total, err
	}
	return total, s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`DELETE FROM modseq_mark WHERE account_id = $1 AND at < $2`, acct, before)
	})
}

// Horizon is the MODSEQ up to which tombstones of the account may have been removed: Vanished is complete for a since at or
// above it. A client with an older one must compare all UIDs (RFC 7162, section 3.2.5.2).
func (s *Store) Horizon(ctx context.Context, acct AccountID) (ModSeq, error) {
	var m ModSeq
	err := s.reads.row(ctx, []any{&m}, `SELECT horizon FROM mail_account WHERE account_id = $1`, acct)
	if err != nil {
		return 0, fmt.Errorf("store: horizon of account %d: %w", acct, err)
	}
	return m, nil
}

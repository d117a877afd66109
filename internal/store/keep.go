package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// Policy says how long what leaves the mailboxes is kept, and what leaves them by itself. The zero Policy keeps nothing
// and removes nothing.
type Policy struct {
	Undelete   time.Duration // expunged entries can be restored as long; 0: they go at once
	Erase      time.Duration // dead octets are on the disk at most this much longer; 0: until space is worth it
	Tombstones time.Duration // what vanished is remembered as long; 0: for ever
	Trash      time.Duration // entries leave mailboxes of this role after; 0: never
	Junk       time.Duration
}

// SetPolicy sets the policy for all that happens from now on.
func (s *Store) SetPolicy(p Policy) { s.policy.Store(&p) }

// Policy returns the policy in force.
func (s *Store) Policy() Policy {
	if p := s.policy.Load(); p != nil {
		return *p
	}
	return Policy{}
}

// ErrHeld means that an account is under a legal hold: nothing of it may go.
var ErrHeld = errors.New("store: account is under a legal hold")

// actorKey is the key of the context value that names who acts.
type actorKey struct{}

// WithActor names who acts with the context, for what records it. Without it the owner of the account does.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// owner stands where nobody was named: a session of the account itself.
const owner = "owner"

func actorOf(ctx context.Context) string {
	if a, ok := ctx.Value(actorKey{}).(string); ok && a != "" {
		return a
	}
	return owner
}

// keeps says whether what the account expunges now can be restored.
func (w *work) keeps(tx *Tx) bool { return w.counters.held || tx.s.Policy().Undelete > 0 }

// expunge removes entries, given with their set: to where they can be restored from, or for good.
func (w *work) expunge(tx *Tx, b *workBox, rows []entryRow, actor string) error {
	keep := w.keeps(tx)
	if keep {
		if err := w.keepRows(tx, b.info.ID, b.keywords, rows, actor, tx.now.Unix()); err != nil {
			return err
		}
	}
	if err := w.vanish(tx, b, rows, w.tick(tx, b)); err != nil || keep {
		return err
	}
	return tx.releaseMessages(w.id, messagesOf(rows))
}

// keepRows copies entries, which are still in their mailbox, to those that can be restored.
func (w *work) keepRows(tx *Tx, box MailboxID, keywords []string, rows []entryRow, actor string, at int64) error {
	onRows := func(uids []UID, query string, args ...any) error {
		args = append([]any{w.id, box}, args...)
		for _, p := range uidSetOf(uids).parts(tx.s.db.Dialect, len(args)+1) {
			if err := tx.exec(query+p.cond, append(args[:len(args):len(args)], p.args...)...); err != nil {
				return fmt.Errorf("keep entries of mailbox %d: %w", box, err)
			}
		}
		return nil
	}
	err := onRows(uidsOf(rows), `INSERT INTO expunged_entry
		(account_id, mailbox_id, uid, message_id, flags, keywords, size, internal_date, saved_at, expunged_at, actor)
		SELECT account_id, mailbox_id, uid, message_id, flags, '', size, internal_date, saved_at, $3, $4 FROM entry
		WHERE account_id = $1 AND mailbox_id = $2 AND `, at, actor)
	if err != nil {
		return err
	}
	bySet := make(map[uint64][]UID)
	for i := range rows {
		if set := rows[i].keywords; set != 0 {
			bySet[set] = append(bySet[set], rows[i].uid)
		}
	}
	for set, uids := range bySet {
		names, err := json.Marshal(keywordNames(keywords, set))
		if err != nil {
			return fmt.Errorf("keep keywords of mailbox %d: %w", box, err)
		}
		err = onRows(uids, `UPDATE expunged_entry SET keywords = $3 WHERE account_id = $1 AND mailbox_id = $2 AND `, string(names))
		if err != nil {
			return err
		}
	}
	return nil
}

// keywordNames gives the names of a set.
func keywordNames(keywords []string, set uint64) []string {
	var names []string
	for n, k := range keywords {
		if set&(1<<n) != 0 && k != "" {
			names = append(names, k)
		}
	}
	return names
}

// keepMailbox notes a mailbox that is being deleted, so that it can be made again and its entries find their way back.
func (w *work) keepMailbox(tx *Tx, b *workBox, actor string) error {
	err := tx.exec(`INSERT INTO deleted_mailbox (account_id, mailbox_id, name, role, uid_validity, deleted_at, actor)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		w.id, b.info.ID, b.info.Name, b.info.Role, b.info.UIDValidity, tx.now.Unix(), actor)
	if err != nil {
		return fmt.Errorf("keep mailbox %d: %w", b.info.ID, err)
	}
	return nil
}

// keptBox is what reap needs to know of a deleted mailbox whose entries are kept.
type keptBox struct {
	actor    string
	at       int64
	keywords []string
}

// keptBox looks whether the entries of a deleted mailbox are kept; nil when they aren't.
func (w *work) keptBox(tx *Tx, box MailboxID) (*keptBox, error) {
	k := &keptBox{}
	err := tx.QueryRow(`SELECT deleted_at, actor FROM deleted_mailbox WHERE account_id = $1 AND mailbox_id = $2`, w.id, box).Scan(&k.at, &k.actor)
	if errors.Is(err, sql.ErrNoRows) {
		k, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if k == nil && w.counters.held { // the hold came between the deletion and its last step
		k = &keptBox{at: tx.now.Unix(), actor: owner}
	}
	if k == nil {
		return nil, nil
	}
	k.keywords, err = tx.keywordsOf(w.id, box)
	return k, err
}

// keywordsOf reads the keywords of a mailbox by number.
func (tx *Tx) keywordsOf(acct AccountID, box MailboxID) ([]string, error) {
	rows, err := tx.Query(`SELECT number, name FROM keyword WHERE account_id = $1 AND mailbox_id = $2`, acct, box)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]string, maxKeywords)
	for rows.Next() {
		var n int
		var name string
		if err := rows.Scan(&n, &name); err != nil {
			return nil, err
		}
		if n >= 0 && n < maxKeywords {
			out[n] = name
		}
	}
	return out, tx.failed(rows.Err())
}

// Hold is one legal hold of an account.
type Hold struct {
	Number      int64
	Since       time.Time
	Actor       string
	Reason      string
	Ended       time.Time // zero while it is in force
	EndedBy     string
	EndedReason string
}

// SetHold puts an account under a legal hold, or ends it; the actor of the context is recorded with the reason. A hold on a
// held account is ErrExists, the end of none ErrNotFound.
func (s *Store) SetHold(ctx context.Context, acct AccountID, on bool, reason string) error {
	actor := actorOf(ctx)
	err := s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		switch {
		case on && w.counters.held:
			return fmt.Errorf("hold: %w", ErrExists)
		case !on && !w.counters.held:
			return fmt.Errorf("hold: %w", ErrNotFound)
		}
		tx.wrote, w.dirty = true, true
		w.counters.held = on
		if !on {
			return tx.exec(`UPDATE mail_hold SET ended = $2, ended_by = $3, ended_reason = $4 WHERE account_id = $1 AND ended = 0`,
				acct, tx.now.Unix(), actor, reason)
		}
		return tx.exec(`INSERT INTO mail_hold (account_id, number, since, actor, reason, ended, ended_by, ended_reason)
			SELECT $1, COALESCE(MAX(number), 0) + 1, $2, $3, $4, 0, '', '' FROM mail_hold WHERE account_id = $1`,
			acct, tx.now.Unix(), actor, reason)
	})
	if err != nil {
		return fmt.Errorf("store: hold of account %d: %w", acct, err)
	}
	return nil
}

// Holds returns the legal holds of an account, the newest first. held tells whether the first is in force.
func (s *Store) Holds(ctx context.Context, acct AccountID) (list []Hold, held bool, err error) {
	err = s.reads.with(ctx, func(q *reader) error {
		rows, err := q.Query(`SELECT number, since, actor, reason, ended, ended_by, ended_reason FROM mail_hold
			WHERE account_id = $1 ORDER BY number DESC`, acct)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var h Hold
			var since, ended int64
			if err := rows.Scan(&h.Number, &since, &h.Actor, &h.Reason, &ended, &h.EndedBy, &h.EndedReason); err != nil {
				return err
			}
			h.Since, h.Ended = timeOf(since), timeOf(ended)
			list = append(list, h)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, false, fmt.Errorf("store: holds of account %d: %w", acct, s.db.dbError(err))
	}
	return list, len(list) > 0 && list[0].Ended.IsZero(), nil
}

// timeOf is the time of a column; 0 is none.
func timeOf(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

// secondsOf is the column of a time; the zero time lies before all others.
func secondsOf(t time.Time) int64 {
	if t.IsZero() {
		return math.MinInt64
	}
	return t.Unix()
}

// loadStanding reads whether the account is held, and the domain whose quota it shares.
func (a *account) loadStanding(q Querier) error {
	var n int
	err := q.QueryRow(`SELECT (SELECT count(*) FROM mail_hold WHERE account_id = $1 AND ended = 0),
		COALESCE((SELECT domain FROM directory_address WHERE account_id = $1), '')`, a.id).Scan(&n, &a.counters.domain)
	a.counters.held = n > 0
	return err
}

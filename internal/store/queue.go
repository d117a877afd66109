package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// queueLifetime is how long a message that says nothing itself is tried (RFC 5321, section 4.5.4.1: 4 to 5 days).
const queueLifetime = 5 * 24 * time.Hour

// maxQueueText bounds what is kept of a remote server's words.
const maxQueueText = 2000

// enqueue writes the rows of a message whose blob already stands and whose reference to it the caller counted.
func enqueue(tx *Tx, m *QueueMessage, blobID int64) (QueueID, error) {
	if len(m.Recipients) == 0 {
		return 0, errors.New("store: enqueue: no recipients")
	}
	created := m.Created
	if created.IsZero() {
		created = tx.Now()
	}
	first := created // when it may be tried
	if m.HoldUntil.After(first) {
		first = m.HoldUntil
	}
	expires := m.Expires
	if expires.IsZero() {
		expires = first.Add(queueLifetime)
	}
	var id QueueID
	err := tx.QueryRow(`INSERT INTO queue_message
		(account_id, trace_id, sender, body, utf8, ret, envid, prefix, size, created, expires, description, blob_id, priority,
			hold_until, deliver_by, by_mode, tls)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) RETURNING id`,
		m.Account, m.TraceID, m.From, m.Body, boolInt(m.UTF8), m.Ret, m.EnvID, m.Prefix, m.Size,
		created.UnixMilli(), expires.UnixMilli(), m.Description, blobID, m.Priority,
		millis(m.HoldUntil), millis(m.DeliverBy), m.ByMode, m.TLS).Scan(&id)
	if err != nil {
		return 0, fmt.Errorf("store: enqueue message: %w", err)
	}
	due := make(map[waitingFor]int64, 1)
	sender := senderOf(m)
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.Domain == "" || r.To == "" {
			return 0, fmt.Errorf("store: enqueue: recipient %q without a destination", r.To)
		}
		next := first
		if r.NextAttempt.After(first) {
			next = r.NextAttempt
		}
		to := waitingFor{r.Domain, laneOf(m.Priority, tx.s.volumes.add(sender, tx.Now()))}
		state := QueueWaiting
		if r.State == QueueHeld {
			state = QueueHeld
		} else if d, ok := due[to]; !ok || next.UnixMilli() < d {
			due[to] = next.UnixMilli()
		}
		if _, err := tx.Exec(`INSERT INTO queue_recipient
			(message_id, rcpt, domain, lane, notify, orcpt, state, next_attempt, held_for, valid_since)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			id, r.To, r.Domain, to.lane, r.Notify, r.ORcpt, string(state), next.UnixMilli(), r.HeldFor, r.ValidSince); err != nil {
			return 0, fmt.Errorf("store: enqueue recipient: %w", err)
		}
	}
	for to, at := range due {
		tx.destination(to, func(tx *Tx) error { return hasten(tx, to, at) })
	}
	tx.NotifyQueue()
	return id, nil
}

// waitingFor is what recipients wait in line for: a destination, in a lane of it.
type waitingFor struct {
	domain string
	lane   int
}

func (w waitingFor) compare(o waitingFor) int {
	return cmp.Or(cmp.Compare(w.domain, o.domain), cmp.Compare(w.lane, o.lane))
}

// hasten makes a destination due at a time if it would be later, but no earlier than its rest ends.
func hasten(tx *Tx, w waitingFor, at int64) error {
	_, err := tx.Exec(`INSERT INTO queue_destination (domain, lane, due, not_before)
		SELECT CAST($1 AS TEXT), CAST($2 AS BIGINT), CASE WHEN x.rest > $3 THEN x.rest ELSE $3 END, x.rest
		FROM (SELECT COALESCE(max(not_before), 0) AS rest FROM queue_destination WHERE domain = $1) AS x WHERE true
		ON CONFLICT (domain, lane) DO UPDATE SET due = CASE
			WHEN excluded.due < queue_destination.due THEN excluded.due ELSE queue_destination.due END`, w.domain, w.lane, at)
	if err != nil {
		return fmt.Errorf("store: schedule %s: %w", w.domain, err)
	}
	return nil
}

// reschedule makes a destination due when its next waiting recipient is, but not before floor, so that destinations
// with much to do take turns. Without waiting recipients it is forgotten.
func reschedule(tx *Tx, w waitingFor, floor int64) error {
	if err := lockDestination(tx, w); err != nil {
		return err
	}
	var next sql.NullInt64
	if err := tx.QueryRow(`SELECT min(next_attempt) FROM queue_recipient WHERE domain = $1 AND lane = $2 AND state = 'waiting'`,
		w.domain, w.lane).Scan(&next); err != nil {
		return fmt.Errorf("store: schedule %s: %w", w.domain, err)
	}
	var err error
	if !next.Valid {
		_, err = tx.Exec(`DELETE FROM queue_destination WHERE domain = $1 AND lane = $2`, w.domain, w.lane)
	} else {
		_, err = tx.Exec(`INSERT INTO queue_destination (domain, lane, due) VALUES ($1, $2, $3)
			ON CONFLICT (domain, lane) DO UPDATE SET due = CASE
				WHEN excluded.due > queue_destination.not_before THEN excluded.due
				ELSE queue_destination.not_before END`, w.domain, w.lane, max(next.Int64, floor))
	}
	if err != nil {
		return fmt.Errorf("store: schedule %s: %w", w.domain, err)
	}
	return nil
}

// lockDestination makes sure that nobody adds recipients between the look at them and what is written of it. A row that isn't
// there is made, since only a row can be locked.
func lockDestination(tx *Tx, w waitingFor) error {
	if !tx.s.shared() {
		return nil
	}
	_, err := tx.Exec(`INSERT INTO queue_destination (domain, lane, due) VALUES ($1, $2, $3)
		ON CONFLICT (domain, lane) DO UPDATE SET due = queue_destination.due`, w.domain, w.lane, math.MaxInt64)
	if err != nil {
		return fmt.Errorf("store: schedule %s: %w", w.domain, err)
	}
	return nil
}

// destination has fn change the row of a destination at the end of the transaction: many messages go to the same ones, and
// whoever locks them would keep all others from these for as long as the transaction lasts.
func (tx *Tx) destination(w waitingFor, fn func(tx *Tx) error) {
	tx.wrote = true
	if tx.destined == nil {
		tx.destined = make(map[waitingFor][]func(*Tx) error)
	}
	tx.destined[w] = append(tx.destined[w], fn)
}

// reschedule is the function of this name, at the end of the transaction.
func (tx *Tx) reschedule(w waitingFor, floor int64) {
	tx.destination(w, func(tx *Tx) error { return reschedule(tx, w, floor) })
}

func (tx *Tx) flushDestinations() error {
	for _, w := range slices.SortedFunc(maps.Keys(tx.destined), waitingFor.compare) {
		for _, fn := range tx.destined[w] {
			if err := fn(tx); err != nil {
				return fmt.Errorf("store: schedule %s: %w", w.domain, err)
			}
		}
	}
	tx.destined = nil
	return nil
}

// emptiedQueue has a queued message go at the end of the transaction if it has no recipients then.
func (tx *Tx) emptiedQueue(id QueueID) {
	tx.wrote = true
	if tx.emptied == nil {
		tx.emptied = make(map[QueueID]struct{})
	}
	tx.emptied[id] = struct{}{}
}

// flushQueue removes messages without recipients and gives their blobs back.
func (tx *Tx) flushQueue() error {
	if len(tx.emptied) == 0 {
		return nil
	}
	ids := make([]int64, 0, len(tx.emptied))
	for id := range tx.emptied {
		ids = append(ids, int64(id))
	}
	slices.Sort(ids)
	tx.emptied = nil
	d := tx.s.db.Dialect
	if tx.s.shared() { // whoever takes the last recipient but one, at the same time, is waited for
		if _, err := tx.numbers(`SELECT id FROM queue_message WHERE `+d.In("id", "$1")+` ORDER BY id FOR UPDATE`, d.Numbers(ids)); err != nil {
			return fmt.Errorf("store: release %d queued messages: %w", len(ids), err)
		}
	}
	// A row that isn't there was damaged or is gone already.
	blobs, err := tx.numbers(`DELETE FROM queue_message WHERE `+d.In("id", "$1")+`
		AND NOT EXISTS (SELECT 1 FROM queue_recipient WHERE message_id = queue_message.id) RETURNING blob_id`, d.Numbers(ids))
	if err != nil {
		return fmt.Errorf("store: release %d queued messages: %w", len(ids), err)
	}
	return tx.releaseBlobs(blobs)
}

// QueueRest lets a destination that does not answer rest: nothing for it is taken before until. It rests not when an
// administrator wanted it tried since the attempt that did not reach it.
func (s *Store) QueueRest(ctx context.Context, domain string, until time.Time) error {
	return s.Write(ctx, func(tx *Tx) error {
		tx.destination(waitingFor{domain, laneAll}, func(tx *Tx) error {
			return tx.exec(`UPDATE queue_destination SET not_before = $2,
				due = CASE WHEN due < $2 THEN $2 ELSE due END WHERE domain = $1 AND not_before <> $3`, domain, until.UnixMilli(), forced)
		})
		return nil
	})
}

// QueueResult is what became of one leased recipient.
type QueueResult struct {
	Message QueueID
	ID      RecipientID
	Domain  string
	Lane    int
	Lease   int64 // the token as the lease was given: an attempt that lost its lease to another one changes nothing

	Done        bool         // delivered or reported: the row goes, and with the last one the message
	Unattempted bool         // given back: it does not count as an attempt
	Outcome     QueueOutcome // decided, to be reported at NextAttempt
	NextAttempt time.Time
	LastError   string
	LastStatus  string
	LastHost    string
	Category    string // what the failure was about, see package bounce
	Provider    string // who runs the server that spoke last
	Pool        string // of source addresses that it was tried from
	DelayWarned bool
	HoldFor     string        // hold it for this reason, with Unattempted
	Failure     *QueueFailure // what it says about the address
	To          string        // with Failure: the address
}

// QueueFinish ends leases in one transaction. It returns how many had been lost: those rows are as others made them.
func (s *Store) QueueFinish(ctx context.Context, now time.Time, results []QueueResult) (lost int, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		lines := map[waitingFor]bool{}
		done := map[int64][]int64{} // recipients whose rows go, by the token of their lease
		lost = 0
		for i := range results {
			r := &results[i]
			if r.Done && r.Failure == nil {
				done[r.Lease] = append(done[r.Lease], int64(r.ID))
				tx.emptiedQueue(r.Message)
				continue
			}
			n, err := finishOne(tx, now, r)
			if err != nil {
				return err
			}
			if n == 0 {
				lost++
			} else if r.Failure != nil {
				if err := recordFailure(tx, now, r.To, r.Failure); err != nil {
					return err
				}
			}
			if r.Done {
				tx.emptiedQueue(r.Message)
			} else {
				lines[waitingFor{r.Domain, r.Lane}] = true
			}
		}
		d := tx.s.db.Dialect
		for token, ids := range done { // held in the meantime or not: what is delivered must not be sent again
			n, err := affected(tx.Exec(`DELETE FROM queue_recipient WHERE `+d.In("id", "$1")+` AND lease_token = $2`, d.Numbers(ids), token))
			if err != nil {
				return fmt.Errorf("store: finish %d recipients: %w", len(ids), err)
			}
			lost += len(ids) - int(n)
		}
		for w := range lines {
			tx.reschedule(w, 0)
		}
		if len(lines) > 0 {
			tx.NotifyQueue()
		}
		return nil
	})
	return lost, err
}

func finishOne(tx *Tx, now time.Time, r *QueueResult) (int64, error) {
	var res sql.Result
	var err error
	switch {
	case r.Done:
		res, err = tx.Exec(`DELETE FROM queue_recipient WHERE id = $1 AND lease_token = $2`, r.ID, r.Lease)
	case r.Unattempted && r.HoldFor != "":
		res, err = tx.Exec(`UPDATE queue_recipient SET state = 'held', held_for = $3, attempts = attempts - 1, lease_until = 0, lease_owner = ''
			WHERE id = $1 AND lease_token = $2 AND state = 'leased'`, r.ID, r.Lease, r.HoldFor)
	case r.Unattempted:
		res, err = tx.Exec(`UPDATE queue_recipient SET state = 'waiting', attempts = attempts - 1, next_attempt = $3,
			lease_until = 0, lease_owner = '' WHERE id = $1 AND lease_token = $2 AND state = 'leased'`,
			r.ID, r.Lease, r.NextAttempt.UnixMilli())
	default:
		res, err = tx.Exec(`UPDATE queue_recipient SET
			state = CASE WHEN state = 'leased' THEN 'waiting' ELSE state END,
			next_attempt = $3, lease_until = 0, lease_owner = '', outcome = $4,
			last_error = $5, last_status = $6, last_host = $7, last_attempt = $8,
			first_attempt = CASE WHEN first_attempt = 0 THEN $8 ELSE first_attempt END, delay_warned = $9,
			category = $10, provider = $11, pool = $12
			WHERE id = $1 AND lease_token = $2 AND state <> 'waiting'`,
			r.ID, r.Lease, r.NextAttempt.UnixMilli(), string(r.Outcome), bound(r.LastError), r.LastStatus,
			bound(r.LastHost), now.UnixMilli(), boolInt(r.DelayWarned), r.Category, r.Provider, r.Pool)
	}
	if err != nil {
		return 0, fmt.Errorf("store: finish recipient %d: %w", r.ID, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("store: finish recipient %d: %w", r.ID, err)
	}
	return n, nil
}

// QueueExtend prolongs the leases of recipients while an attempt goes on. It returns how many had been lost.
func (s *Store) QueueExtend(ctx context.Context, leased []QueueRecipient, until time.Time) (lost int, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		lost = 0
		for i := range leased {
			r := &leased[i]
			n, err := affected(tx.Exec(`UPDATE queue_recipient SET lease_until = $3 WHERE id = $1 AND lease_token = $2 AND state = 'leased'`,
				r.ID, r.Lease, until.UnixMilli()))
			if err != nil {
				return fmt.Errorf("store: extend lease of recipient %d: %w", r.ID, err)
			}
			if n == 0 {
				lost++
			}
		}
		return nil
	})
	return lost, err
}

// QueueReclaim makes all recipients that an owner has leased wait again, due now: it is called when the owner starts,
// for what it had leased before it ended.
func (s *Store) QueueReclaim(ctx context.Context, owner string, now time.Time) (int, error) {
	n := 0
	err := s.Write(ctx, func(tx *Tx) error {
		rows, err := tx.Query(`SELECT id, domain, lane FROM queue_recipient WHERE state = 'leased' AND lease_owner = $1`, owner)
		if err != nil {
			return fmt.Errorf("store: reclaim leases: %w", err)
		}
		n, err = requeue(tx, rows, now)
		return err
	})
	return n, err
}

// QueueExpireLeases makes recipients wait again, due now, whose lease another owner let run out: its node is gone. An
// owner's own leases are never taken from it, however long an attempt seems to last, nor are those of a node that lives: a clock
// may have jumped.
func (s *Store) QueueExpireLeases(ctx context.Context, owner string, now time.Time) (int, error) {
	n := 0
	ended := ""
	if s.link != nil {
		ended = `AND NOT EXISTS (SELECT 1 FROM node AS n WHERE n.node = r.lease_owner AND ` + s.seenLately() + `) `
	}
	err := s.Write(ctx, func(tx *Tx) error {
		rows, err := tx.Query(`SELECT id, domain, lane FROM queue_recipient AS r WHERE state = 'leased' AND lease_until <= $1 AND lease_owner <> $2 `+ended+
			`ORDER BY lease_until, id LIMIT 1000`+tx.skipLocked(), now.UnixMilli(), owner)
		if err != nil {
			return fmt.Errorf("store: find expired leases: %w", err)
		}
		n, err = requeue(tx, rows, now)
		if n > 0 {
			tx.NotifyQueue()
		}
		return err
	})
	return n, err
}

// requeue makes the recipients (id, domain, lane) of rows wait, due now.
func requeue(tx *Tx, rows *sql.Rows, now time.Time) (int, error) {
	defer rows.Close()
	var ids []int64
	lines := map[waitingFor]bool{}
	for rows.Next() {
		var id int64
		var w waitingFor
		if err := rows.Scan(&id, &w.domain, &w.lane); err != nil {
			return 0, fmt.Errorf("store: requeue recipients: %w", err)
		}
		ids, lines[w] = append(ids, id), true
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(ids) == 0 {
		return 0, err
	}
	d := tx.s.db.Dialect
	if err := tx.exec(`UPDATE queue_recipient SET state = 'waiting', next_attempt = $2, lease_until = 0, lease_owner = ''
		WHERE `+d.In("id", "$1"), d.Numbers(ids), now.UnixMilli()); err != nil {
		return 0, fmt.Errorf("store: requeue recipients: %w", err)
	}
	for w := range lines {
		tx.destination(w, func(tx *Tx) error { return hasten(tx, w, now.UnixMilli()) })
	}
	return len(ids), nil
}

// QueueSetAside marks recipients as damaged, with the reason: they wait for an administrator and the rest flows.
func (s *Store) QueueSetAside(ctx context.Context, ids []RecipientID, reason string) error {
	return s.Write(ctx, func(tx *Tx) error {
		for _, id := range ids {
			if err := setAside(tx, id, reason); err != nil {
				return err
			}
		}
		return nil
	})
}

func setAside(tx *Tx, id RecipientID, reason string) error {
	_, err := tx.Exec(`UPDATE queue_recipient SET state = 'damaged', lease_until = 0, lease_owner = '', last_error = $2 WHERE id = $1`, id, bound(reason))
	if err != nil {
		return fmt.Errorf("store: set recipient %d aside: %w", id, err)
	}
	return nil
}

// QueueClock tells when the scheduler last looked at the clock (zero: never) and until when it then lets nothing expire,
// and notes that it looks now.
func (s *Store) QueueClock(ctx context.Context, now time.Time) (last, grace time.Time, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		last, grace = time.Time{}, time.Time{}
		var seen, until int64
		err := tx.QueryRow(`SELECT seen, grace FROM queue_clock WHERE id = 1`).Scan(&seen, &until)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("store: queue clock: %w", err)
		}
		last, grace = moment(seen), moment(until)
		if _, err := tx.Exec(`INSERT INTO queue_clock (id, seen, grace) VALUES (1, $1, 0)
			ON CONFLICT (id) DO UPDATE SET seen = excluded.seen`, now.UnixMilli()); err != nil {
			return fmt.Errorf("store: queue clock: %w", err)
		}
		return nil
	})
	return last, grace, err
}

// QueueGrace notes until when nothing expires; QueueClock gives it back after a restart.
func (s *Store) QueueGrace(ctx context.Context, until time.Time) error {
	return s.Write(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(`UPDATE queue_clock SET grace = $1 WHERE id = 1`, until.UnixMilli()); err != nil {
			return fmt.Errorf("store: queue grace: %w", err)
		}
		return nil
	})
}

// QueueRebase repairs the schedule after the clock was set back: whatever would be due after limit is due at limit, but
// for messages whose senders want them held until later.
func (s *Store) QueueRebase(ctx context.Context, limit time.Time) error {
	return s.Write(ctx, func(tx *Tx) error {
		for _, query := range []string{
			`UPDATE queue_recipient SET next_attempt = $1 WHERE state = 'waiting' AND next_attempt > $1
				AND NOT EXISTS (SELECT 1 FROM queue_message m WHERE m.id = message_id AND m.hold_until > $1)`,
			`UPDATE queue_recipient SET lease_until = $1 WHERE state = 'leased' AND lease_until > $1`,
			`UPDATE queue_destination SET not_before = $1 WHERE not_before > $1`,
			`UPDATE queue_destination SET due = $1 WHERE due > $1`,
		} {
			if _, err := tx.Exec(query, limit.UnixMilli()); err != nil {
				return fmt.Errorf("store: rebase queue: %w", err)
			}
		}
		return nil
	})
}

// millis is a moment as a column has it, 0 for none.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// bound cuts a text that others wrote to what a row may hold.
func bound(s string) string {
	if len(s) <= maxQueueText {
		return s
	}
	cut := maxQueueText
	for cut > 0 && s[cut]&0xC0 == 0x80 { // not inside a UTF-8 sequence
		cut--
	}
	return s[:cut]
}

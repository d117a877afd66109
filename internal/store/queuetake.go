package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// QueueTake says what work a scheduler wants.
type QueueTake struct {
	Now   time.Time
	Owner string        // who leases
	Lease time.Duration // how long
	Slots int           // how many units of work at most
	Batch int           // how many recipients a unit at most
	// Allow tells the next hop of a destination, and how many units all destinations with that next hop may have now, 0
	// for none. With forced an administrator wants it tried at once, whatever is known of it. It is called while the
	// store works: it must be quick and must not call the store.
	Allow func(domain string, forced bool) (hop string, units int)
}

// QueueWork is one unit of work: messages for one destination, each with the recipients that were leased.
type QueueWork struct {
	Domain   string
	Messages []QueueMessage
}

// QueueTaken is what QueueTake found.
type QueueTaken struct {
	Work    []QueueWork
	NextDue time.Time     // when to look again, zero when nothing waits; destinations not allowed now are left out
	Damaged []RecipientID // rows that can't be read and were set aside
}

// queueLookahead bounds how many destinations are looked at for one take.
const queueLookahead = 1000

// QueueTakeWork leases due recipients, the destination that has waited longest first, in one transaction. The cost
// depends on what is taken, not on the length of the queue.
func (s *Store) QueueTakeWork(ctx context.Context, q QueueTake) (QueueTaken, error) {
	var out QueueTaken
	idle := false
	err := s.Read(ctx, func(r Querier) error { // an idle queue costs no transaction of the writer
		picks, next, err := pickDestinations(r.Query, q)
		if err != nil {
			return err
		}
		idle = len(picks) == 0
		out.NextDue = moment(next)
		return nil
	})
	if err != nil || idle {
		return out, err
	}
	err = s.Write(ctx, func(tx *Tx) error {
		out = QueueTaken{}
		return takeWork(tx, q, &out)
	})
	if err != nil {
		return QueueTaken{}, err
	}
	return out, nil
}

// errNotSeen says that others would take the leases of this node at once.
var errNotSeen = errors.New("this node could not say for a while that it lives")

func takeWork(tx *Tx, q QueueTake, out *QueueTaken) error {
	if l := tx.s.link; l != nil && !l.alive.held() {
		return fmt.Errorf("store: take work: %w", errNotSeen)
	}
	picks, next, err := pickDestinations(tx.Query, q)
	if err != nil {
		return err
	}
	slots := q.Slots
	used := map[string]int{}
	for i, p := range picks {
		fair := max(1, slots/(len(picks)-i)) // what is over when few destinations are due is shared among them
		hop, free := q.Allow(p.domain, p.forced)
		units := min(fair, free-used[hop], slots)
		if units <= 0 {
			continue
		}
		if p.forced {
			tx.destination(p.domain, func(tx *Tx) error {
				return tx.exec(`UPDATE queue_destination SET not_before = 0 WHERE domain = $1`, p.domain)
			})
		}
		work, err := takeDestination(tx, q, p.domain, units, out)
		if err != nil {
			return err
		}
		slots -= len(work)
		used[hop] += len(work)
		out.Work = append(out.Work, work...)
	}
	out.NextDue = moment(next)
	return nil
}

// pick is a destination that is due.
type pick struct {
	domain string
	forced bool
}

// forced is the not_before of a destination that an administrator wants tried at once.
const forced = -1

// pickDestinations lists due destinations that are allowed, longest due first, and when the next one is due.
func pickDestinations(query func(string, ...any) (*sql.Rows, error), q QueueTake) (picks []pick, next int64, err error) {
	rows, err := query(`SELECT domain, due, not_before FROM queue_destination ORDER BY due, domain LIMIT $1`, queueLookahead)
	if err != nil {
		return nil, 0, fmt.Errorf("store: find due destinations: %w", err)
	}
	defer rows.Close()
	picked := map[string]int{}
	for rows.Next() {
		var domain string
		var due, notBefore int64
		if err := rows.Scan(&domain, &due, &notBefore); err != nil {
			return nil, 0, fmt.Errorf("store: find due destinations: %w", err)
		}
		if due > q.Now.UnixMilli() {
			next = due
			break
		}
		p := pick{domain, notBefore == forced}
		if hop, units := q.Allow(p.domain, p.forced); picked[hop] < units {
			picked[hop]++
			if picks = append(picks, p); len(picks) == q.Slots {
				break
			}
		}
	}
	return picks, next, rows.Err()
}

// takeDestination leases what is due for one destination and divides it among units.
func takeDestination(tx *Tx, q QueueTake, domain string, units int, out *QueueTaken) ([]QueueWork, error) {
	rows, err := tx.Query(`SELECT `+recipientColumns+` FROM queue_recipient
		WHERE domain = $1 AND state = 'waiting' AND next_attempt <= $2 ORDER BY next_attempt, id LIMIT $3`+tx.skipLocked(),
		domain, q.Now.UnixMilli(), units*q.Batch)
	if err != nil {
		return nil, fmt.Errorf("store: take for %s: %w", domain, err)
	}
	leased, damaged, err := scanRecipients(rows)
	if err != nil {
		return nil, fmt.Errorf("store: take for %s: %w", domain, err)
	}
	for _, id := range damaged {
		if err := setAside(tx, id, "the row can't be read"); err != nil {
			return nil, err
		}
	}
	out.Damaged = append(out.Damaged, damaged...)
	messages, err := withMessages(tx, leased, out)
	if err != nil {
		return nil, err
	}
	until := q.Now.Add(q.Lease)
	token, err := newLease()
	if err != nil {
		return nil, err
	}
	for i := range messages {
		for j := range messages[i].Recipients {
			r := &messages[i].Recipients[j]
			if _, err := tx.Exec(`UPDATE queue_recipient SET state = 'leased', attempts = attempts + 1, lease_until = $2, lease_owner = $3,
				lease_token = $4 WHERE id = $1`, r.ID, until.UnixMilli(), q.Owner, token); err != nil {
				return nil, fmt.Errorf("store: lease recipient %d: %w", r.ID, err)
			}
			r.State, r.LeaseUntil, r.Lease = QueueLeased, until, token
			r.Attempts++
		}
	}
	tx.reschedule(domain, q.Now.UnixMilli())
	return divide(domain, messages, units), nil
}

// newLease makes a token that no other lease has.
func newLease() (int64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("store: token of a lease: %w", err)
	}
	return int64(binary.BigEndian.Uint64(b[:]) >> 1), nil
}

// divide deals messages out to at most n units, evenly and in order.
func divide(domain string, messages []QueueMessage, n int) []QueueWork {
	n = min(n, len(messages))
	work := make([]QueueWork, 0, n)
	for i := range n {
		lo, hi := i*len(messages)/n, (i+1)*len(messages)/n
		work = append(work, QueueWork{Domain: domain, Messages: messages[lo:hi:hi]})
	}
	return work
}

// leasedRecipient is a recipient's row with the message that it belongs to.
type leasedRecipient struct {
	message QueueID
	QueueRecipient
}

// withMessages reads the messages of recipients, in the order of the first recipient of each. Recipients whose message
// is missing or can't be read are set aside.
func withMessages(tx *Tx, recipients []leasedRecipient, out *QueueTaken) ([]QueueMessage, error) {
	var messages []QueueMessage
	index := map[QueueID]int{}
	for _, r := range recipients {
		at, seen := index[r.message]
		if !seen {
			m, err := scanMessage(tx.QueryRow(`SELECT `+messageColumns+` FROM queue_message WHERE id = $1`, r.message))
			switch {
			case err == nil:
				at = len(messages)
				messages = append(messages, m)
			case errors.Is(err, ErrCorrupt):
				at = -1
			default:
				return nil, fmt.Errorf("store: read queued message %d: %w", r.message, err)
			}
			index[r.message] = at
		}
		if at < 0 {
			if err := setAside(tx, r.ID, "the message's row is missing or can't be read"); err != nil {
				return nil, err
			}
			out.Damaged = append(out.Damaged, r.ID)
			continue
		}
		messages[at].Recipients = append(messages[at].Recipients, r.QueueRecipient)
	}
	return messages, nil
}

const messageColumns = `account_id, id, trace_id, sender, body, utf8, ret, envid, prefix, size, created, expires, description, blob_id`

// scanMessage reads one row; ErrCorrupt when it is missing or holds values that no writer of ours wrote.
func scanMessage(row interface{ Scan(...any) error }) (QueueMessage, error) {
	var m QueueMessage
	var utf8 int
	var created, expires int64
	err := row.Scan(&m.Account, &m.ID, &m.TraceID, &m.From, &m.Body, &utf8, &m.Ret, &m.EnvID, &m.Prefix, &m.Size,
		&created, &expires, &m.Description, &m.Blob)
	if err != nil {
		return m, rowError(err)
	}
	m.UTF8 = utf8 != 0
	m.Created, m.Expires = time.UnixMilli(created), time.UnixMilli(expires)
	return m, nil
}

const recipientColumns = `id, message_id, rcpt, domain, notify, orcpt, state, attempts, next_attempt, lease_until, outcome,
	last_error, last_status, last_host, last_attempt, first_attempt, delay_warned, lease_token`

// scanRecipients reads rows of recipients. Those that can't be read are told apart by their ids; the rest stands.
func scanRecipients(rows *sql.Rows) (good []leasedRecipient, damaged []RecipientID, err error) {
	defer rows.Close()
	for rows.Next() {
		var r leasedRecipient
		var next, lease, last, first int64
		var warned int
		err := rows.Scan(&r.ID, &r.message, &r.To, &r.Domain, &r.Notify, &r.ORcpt, &r.State, &r.Attempts, &next, &lease,
			&r.Outcome, &r.LastError, &r.LastStatus, &r.LastHost, &last, &first, &warned, &r.Lease)
		if err != nil {
			var skip [17]any
			dest := []any{&r.ID}
			for i := range skip {
				dest = append(dest, &skip[i])
			}
			if err := rows.Scan(dest...); err != nil {
				return nil, nil, err
			}
			damaged = append(damaged, r.ID)
			continue
		}
		r.NextAttempt, r.LeaseUntil = moment(next), moment(lease)
		r.LastAttempt, r.FirstAttempt = moment(last), moment(first)
		r.DelayWarned = warned != 0
		good = append(good, r)
	}
	return good, damaged, rows.Err()
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// rowError tells a row that can't be read from a database that can't.
func rowError(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: no row", ErrCorrupt)
	}
	if strings.Contains(err.Error(), "sql: Scan error") { // database/sql has no value to compare with
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

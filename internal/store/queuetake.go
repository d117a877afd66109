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

	"waxwing/internal/store/blob"
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
	Most  func(domain string) int // how many recipients a destination may have now, 0 for any number; may be nil
}

// QueueWork is one unit of work: messages for one destination, each with the recipients that were leased.
type QueueWork struct {
	Domain   string
	Lane     int // that the recipients wait in, for QueueResult
	Messages []QueueMessage
}

// QueueTaken is what QueueTake found.
type QueueTaken struct {
	Work    []QueueWork
	NextDue time.Time     // when to look again, zero when nothing waits; destinations not allowed now are left out
	Damaged []RecipientID // rows that can't be read and were set aside
}

// queueLookahead bounds how many destinations of one lane are looked at for one take. Those that may have nothing now are
// few: each of them has a connection under way, or rests.
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
		idle = picks.count() == 0
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
	turns := &tx.s.turns
	turns.mu.Lock()
	defer turns.mu.Unlock()
	slots := q.Slots
	used := map[string]int{}
	for left := picks.count(); left > 0 && slots > 0; left-- {
		fair := max(1, slots/left) // what is over when few destinations are due is shared among them
		p := picks.take(turns)
		hop, free := q.Allow(p.domain, p.forced)
		units := min(fair, free-used[hop], slots)
		if units <= 0 {
			continue
		}
		if p.forced {
			tx.destination(waitingFor{p.domain, laneAll}, func(tx *Tx) error {
				return tx.exec(`UPDATE queue_destination SET not_before = 0 WHERE domain = $1`, p.domain)
			})
		}
		work, n, err := takeDestination(tx, q, p.waitingFor, units, out)
		if err != nil {
			return err
		}
		turns.served(p, n)
		slots -= len(work)
		used[hop] += len(work)
		out.Work = append(out.Work, work...)
	}
	out.NextDue = moment(next)
	return nil
}

// pick is a lane of a destination that is due.
type pick struct {
	waitingFor
	forced bool
}

// forced is the not_before of a destination that an administrator wants tried at once.
const forced = -1

// pickDestinations lists due destinations that are allowed, longest due first, and when the next one is due. Where more are due
// than can be served each lane is looked at by itself.
func pickDestinations(query func(string, ...any) (*sql.Rows, error), q QueueTake) (picks candidates, next int64, err error) {
	limit := q.Slots + 1
	seen, next, err := pickFrom(query, q, &picks, 0, `SELECT domain, lane, due, not_before FROM queue_destination ORDER BY due, domain LIMIT $1`, limit)
	if err != nil || seen < limit {
		return picks, next, err
	}
	picks, next = candidates{}, 0
	for lane := range laneCount {
		_, at, err := pickFrom(query, q, &picks, q.Slots,
			`SELECT domain, lane, due, not_before FROM queue_destination WHERE lane = $2 ORDER BY due, domain LIMIT $1`, queueLookahead, lane)
		if err != nil {
			return picks, 0, err
		}
		if at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	return picks, next, nil
}

// pickFrom reads destinations until one is not due, or there are enough (0: never). It returns how many were due, and when the
// next one is.
func pickFrom(query func(string, ...any) (*sql.Rows, error), q QueueTake, picks *candidates, enough int, text string, args ...any) (seen int, next int64, err error) {
	rows, err := query(text, args...)
	if err != nil {
		return 0, 0, fmt.Errorf("store: find due destinations: %w", err)
	}
	defer rows.Close()
	picked := map[string]int{}
	found := 0
	for rows.Next() {
		var p pick
		var due, notBefore int64
		if err := rows.Scan(&p.domain, &p.lane, &due, &notBefore); err != nil {
			return 0, 0, fmt.Errorf("store: find due destinations: %w", err)
		}
		if due > q.Now.UnixMilli() {
			return seen, due, rows.Err()
		}
		seen++
		p.forced = notBefore == forced
		p.lane = min(max(p.lane, 0), laneCount-1)
		if hop, units := q.Allow(p.domain, p.forced); picked[hop] < units {
			picked[hop]++
			picks[p.lane] = append(picks[p.lane], p)
			if found++; found == enough {
				break
			}
		}
	}
	return seen, 0, rows.Err()
}

// takeDestination leases what is due for one destination and divides it among units. It returns how many recipients that is.
func takeDestination(tx *Tx, q QueueTake, w waitingFor, units int, out *QueueTaken) ([]QueueWork, int, error) {
	limit := units * q.Batch
	if q.Most != nil {
		if most := q.Most(w.domain); most > 0 {
			limit = min(limit, most)
		}
	}
	rows, err := tx.Query(`SELECT `+recipientColumns+` FROM queue_recipient
		WHERE domain = $1 AND lane = $2 AND state = 'waiting' AND next_attempt <= $3 ORDER BY next_attempt, id LIMIT $4`+tx.skipLocked(),
		w.domain, w.lane, q.Now.UnixMilli(), limit)
	if err != nil {
		return nil, 0, fmt.Errorf("store: take for %s: %w", w.domain, err)
	}
	found, damaged, err := scanRecipients(rows)
	if err != nil {
		return nil, 0, fmt.Errorf("store: take for %s: %w", w.domain, err)
	}
	for _, id := range damaged {
		if err := setAside(tx, id, "the row can't be read"); err != nil {
			return nil, 0, err
		}
	}
	out.Damaged = append(out.Damaged, damaged...)
	messages, err := withMessages(tx, found, out)
	if err != nil {
		return nil, 0, err
	}
	n, err := lease(tx, q, messages)
	if err != nil {
		return nil, 0, err
	}
	tx.reschedule(w, q.Now.UnixMilli())
	return divide(w, messages, units), n, nil
}

// lease leases the recipients of messages, and returns how many they are.
func lease(tx *Tx, q QueueTake, messages []QueueMessage) (int, error) {
	until := q.Now.Add(q.Lease)
	token, err := newLease()
	if err != nil {
		return 0, err
	}
	var ids []int64
	for i := range messages {
		for j := range messages[i].Recipients {
			r := &messages[i].Recipients[j]
			r.State, r.LeaseUntil, r.Lease = QueueLeased, until, token
			r.Attempts++
			ids = append(ids, int64(r.ID))
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	d := tx.s.db.Dialect
	if err := tx.exec(`UPDATE queue_recipient SET state = 'leased', attempts = attempts + 1, lease_until = $2, lease_owner = $3,
		lease_token = $4 WHERE `+d.In("id", "$1"), d.Numbers(ids), until.UnixMilli(), q.Owner, token); err != nil {
		return 0, fmt.Errorf("store: lease %d recipients: %w", len(ids), err)
	}
	return len(ids), nil
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
func divide(w waitingFor, messages []QueueMessage, n int) []QueueWork {
	n = min(n, len(messages))
	work := make([]QueueWork, 0, n)
	for i := range n {
		lo, hi := i*len(messages)/n, (i+1)*len(messages)/n
		work = append(work, QueueWork{Domain: w.domain, Lane: w.lane, Messages: messages[lo:hi:hi]})
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
	messages, index, err := queuedFor(tx, recipients)
	if err != nil {
		return nil, err
	}
	for _, r := range recipients {
		at, ok := index[r.message]
		if !ok {
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

// queuedFor reads the messages of recipients with the places of their contents: all at once, or one by one when a row of them
// can't be read.
func queuedFor(tx *Tx, recipients []leasedRecipient) ([]QueueMessage, map[QueueID]int, error) {
	index := make(map[QueueID]int, len(recipients))
	var ids []int64
	for _, r := range recipients {
		if _, seen := index[r.message]; !seen {
			index[r.message] = len(ids)
			ids = append(ids, int64(r.message))
		}
	}
	if len(ids) == 0 {
		return nil, index, nil
	}
	messages := make([]QueueMessage, len(ids))
	found, err := readMessages(tx, ids, func(m QueueMessage) { messages[index[m.ID]] = m })
	if err == nil && found == len(ids) {
		return messages, index, nil
	}
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return nil, nil, err
	}
	messages = messages[:0]
	clear(index)
	for _, id := range ids {
		m, err := scanMessage(tx.QueryRow(`SELECT `+messageColumns+` FROM queue_message WHERE id = $1`, id))
		if errors.Is(err, ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("store: read queued message %d: %w", id, err)
		}
		index[m.ID] = len(messages)
		messages = append(messages, m)
	}
	return messages, index, nil
}

// readMessages reads messages with the places of their contents, and returns how many there are.
func readMessages(tx *Tx, ids []int64, add func(QueueMessage)) (found int, err error) {
	d := tx.s.db.Dialect
	rows, err := tx.Query(`SELECT `+messageColumns+`, blob.segment, blob.place, blob.stored, blob.length, blob.hash_key
		FROM queue_message JOIN blob USING (blob_id) WHERE `+d.In("id", "$1"), d.Numbers(ids))
	if err != nil {
		return 0, fmt.Errorf("store: read queued messages: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var ref blob.Ref
		m, err := scanMessage(rows, scanRef(&ref)...)
		if err != nil {
			return 0, err
		}
		m.place = &ref
		add(m)
		found++
	}
	return found, rows.Err()
}

// OpenQueued opens the content of a message that QueueTakeWork gave. Where it was then is looked at first.
func (s *Store) OpenQueued(ctx context.Context, m *QueueMessage) (Blob, error) {
	if m.place != nil {
		if b, err := s.blobs.Open(*m.place); err == nil {
			return checkedBlob{b}, nil
		}
	}
	return s.OpenBlobID(ctx, m.Blob) // it was moved, or is damaged
}

const messageColumns = `account_id, id, trace_id, sender, body, utf8, ret, envid, prefix, size, created, expires, description, blob_id, priority,
	hold_until, deliver_by, by_mode, tls`

// scanMessage reads one row; ErrCorrupt when it is missing or holds values that no writer of ours wrote.
func scanMessage(row interface{ Scan(...any) error }, more ...any) (QueueMessage, error) {
	var m QueueMessage
	var utf8 int
	var created, expires, hold, by int64
	err := row.Scan(append([]any{
		&m.Account, &m.ID, &m.TraceID, &m.From, &m.Body, &utf8, &m.Ret, &m.EnvID, &m.Prefix, &m.Size,
		&created, &expires, &m.Description, &m.Blob, &m.Priority, &hold, &by, &m.ByMode, &m.TLS,
	}, more...)...)
	if err != nil {
		return m, rowError(err)
	}
	m.UTF8 = utf8 != 0
	m.Created, m.Expires = time.UnixMilli(created), time.UnixMilli(expires)
	m.HoldUntil, m.DeliverBy = moment(hold), moment(by)
	return m, nil
}

const recipientColumns = `id, message_id, rcpt, domain, notify, orcpt, state, attempts, next_attempt, lease_until, outcome,
	last_error, last_status, last_host, last_attempt, first_attempt, delay_warned, lease_token,
	lane, category, provider, pool, held_for, valid_since`

// scanRecipients reads rows of recipients. Those that can't be read are told apart by their ids; the rest stands.
func scanRecipients(rows *sql.Rows) (good []leasedRecipient, damaged []RecipientID, err error) {
	defer rows.Close()
	for rows.Next() {
		var r leasedRecipient
		var next, lease, last, first int64
		var warned int
		err := rows.Scan(&r.ID, &r.message, &r.To, &r.Domain, &r.Notify, &r.ORcpt, &r.State, &r.Attempts, &next, &lease,
			&r.Outcome, &r.LastError, &r.LastStatus, &r.LastHost, &last, &first, &warned, &r.Lease,
			&r.Lane, &r.Category, &r.Provider, &r.Pool, &r.HeldFor, &r.ValidSince)
		if err != nil {
			var skip [23]any
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

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"waxwing/internal/address"
)

// ErrSelection refuses to change the whole queue by an empty selection.
var ErrSelection = errors.New("store: the selection is empty")

// queueStep is how many recipients one transaction of a change by an administrator takes.
const queueStep = 500

// maxQueuePage bounds a page of QueueList.
const maxQueuePage = 1000

// QueueList returns messages that have a recipient that f fits, oldest first, after a given id, each with all its
// recipients. next is the id to go on after, 0 at the end. A message whose row can't be read comes with its id and a
// Description that says so.
func (s *Store) QueueList(ctx context.Context, f QueueFilter, after QueueID, limit int) (page []QueueMessage, next QueueID, err error) {
	if limit <= 0 || limit > maxQueuePage {
		limit = maxQueuePage
	}
	if len(f.IDs) > queueStep || len(f.Recipients) > queueStep {
		return nil, 0, fmt.Errorf("store: list queue: more than %d ids", queueStep)
	}
	err = s.Read(ctx, func(q Querier) error {
		page, next = nil, 0
		cond, args := f.where([]any{after, limit})
		rows, err := q.Query(`SELECT r.message_id FROM queue_recipient r LEFT JOIN queue_message m ON m.id = r.message_id
			WHERE r.message_id > $1 AND `+cond+` GROUP BY r.message_id ORDER BY r.message_id LIMIT $2`, args...)
		if err != nil {
			return fmt.Errorf("store: list queue: %w", err)
		}
		var ids []QueueID
		for rows.Next() {
			var id QueueID
			if err := rows.Scan(&id); err != nil {
				rows.Close()
				return fmt.Errorf("store: list queue: %w", err)
			}
			ids = append(ids, id)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return fmt.Errorf("store: list queue: %w", err)
		}
		for _, id := range ids {
			m, err := readQueued(q, id)
			if err != nil {
				return err
			}
			page = append(page, m)
		}
		if len(ids) == limit {
			next = ids[limit-1]
		}
		return nil
	})
	return page, next, err
}

// QueueMessage returns one message with all its recipients; ErrNotFound when there is none.
func (s *Store) QueueMessage(ctx context.Context, id QueueID) (m QueueMessage, err error) {
	err = s.Read(ctx, func(q Querier) error {
		m, err = readQueued(q, id)
		return err
	})
	return m, err
}

func readQueued(q Querier, id QueueID) (QueueMessage, error) {
	m, err := scanMessage(q.QueryRow(`SELECT `+messageColumns+` FROM queue_message WHERE id = $1`, id))
	missing := errors.Is(err, ErrCorrupt)
	if err != nil && !missing {
		return m, fmt.Errorf("store: read queued message %d: %w", id, err)
	}
	rows, err := q.Query(`SELECT `+recipientColumns+` FROM queue_recipient WHERE message_id = $1 ORDER BY id`, id)
	if err != nil {
		return m, fmt.Errorf("store: read recipients of queued message %d: %w", id, err)
	}
	good, damaged, err := scanRecipients(rows)
	if err != nil {
		return m, fmt.Errorf("store: read recipients of queued message %d: %w", id, err)
	}
	if missing && len(good)+len(damaged) == 0 {
		return m, fmt.Errorf("store: queued message %d: %w", id, ErrNotFound)
	}
	if missing {
		m = QueueMessage{ID: id, Description: "(the message's row is missing or can't be read)"}
	}
	for _, r := range good {
		m.Recipients = append(m.Recipients, r.QueueRecipient)
	}
	for _, id := range damaged {
		m.Recipients = append(m.Recipients, QueueRecipient{ID: id, State: QueueDamaged, LastError: "the row can't be read"})
	}
	return m, nil
}

// QueueHold stops attempts for the selected recipients until QueueRelease. An attempt under way goes to its end.
func (s *Store) QueueHold(ctx context.Context, sel QueueFilter) (int, error) {
	return s.queueChange(ctx, sel, func(tx *Tx, r selected) (bool, error) {
		if r.state != QueueWaiting && r.state != QueueLeased {
			return false, nil
		}
		_, err := tx.Exec(`UPDATE queue_recipient SET state = 'held', held_for = '', lease_until = 0, lease_owner = '' WHERE id = $1`, r.id)
		return true, err
	})
}

// QueueRelease makes held and damaged recipients wait again, due now.
func (s *Store) QueueRelease(ctx context.Context, sel QueueFilter) (int, error) {
	return s.queueChange(ctx, sel, func(tx *Tx, r selected) (bool, error) {
		if r.state == QueueWaiting || r.state == QueueLeased {
			return false, nil
		}
		_, err := tx.Exec(`UPDATE queue_recipient SET state = 'waiting', held_for = '', next_attempt = $2 WHERE id = $1`, r.id, tx.Now().UnixMilli())
		return true, err
	})
}

// force ends the rest of a destination.
func (tx *Tx) force(domain string) {
	tx.destination(waitingFor{domain, laneAll}, func(tx *Tx) error {
		return tx.exec(`UPDATE queue_destination SET not_before = $2 WHERE domain = $1`, domain, forced)
	})
}

// QueueRetry makes waiting recipients due now, and ends the rest of their destinations.
func (s *Store) QueueRetry(ctx context.Context, sel QueueFilter) (int, error) {
	return s.queueChange(ctx, sel, func(tx *Tx, r selected) (bool, error) {
		if r.state != QueueWaiting {
			return false, nil
		}
		tx.force(r.domain)
		_, err := tx.Exec(`UPDATE queue_recipient SET next_attempt = $2 WHERE id = $1`, r.id, tx.Now().UnixMilli())
		return true, err
	})
}

// QueueDrop removes the selected recipients. With report their senders are told, as of a failure with the reason; those
// rows remain until that is done. An attempt under way may still deliver.
func (s *Store) QueueDrop(ctx context.Context, sel QueueFilter, report bool, reason string) (int, error) {
	return s.queueChange(ctx, sel, func(tx *Tx, r selected) (bool, error) {
		if report && r.state != QueueDamaged {
			// The report does not wait for a destination that rests.
			tx.force(r.domain)
			_, err := tx.Exec(`UPDATE queue_recipient SET state = 'waiting', outcome = 'failed', next_attempt = $2, lease_until = 0,
				lease_owner = '', last_error = $3, last_status = '5.7.1', last_host = '' WHERE id = $1`,
				r.id, tx.Now().UnixMilli(), bound(reason))
			return true, err
		}
		if _, err := tx.Exec(`DELETE FROM queue_recipient WHERE id = $1`, r.id); err != nil {
			return false, err
		}
		tx.emptiedQueue(r.message)
		return true, nil
	})
}

// QueueWakeDestination ends the rest of a destination.
func (s *Store) QueueWakeDestination(ctx context.Context, domain string) error {
	err := s.Write(ctx, func(tx *Tx) error {
		tx.destination(waitingFor{domain, laneAll}, func(tx *Tx) error {
			return tx.exec(`UPDATE queue_destination SET not_before = $2, due = $3 WHERE domain = $1`, domain, forced, tx.Now().UnixMilli())
		})
		tx.NotifyQueue()
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: wake destination %s: %w", domain, err)
	}
	return nil
}

// QueueReroute has the selected recipients go by another destination: a domain whose servers are looked up, or a way that package
// transport knows by its name; "" is the one that their address names. They are due at once. An attempt under way goes to its end.
func (s *Store) QueueReroute(ctx context.Context, sel QueueFilter, destination string) (int, error) {
	return s.queueChange(ctx, sel, func(tx *Tx, r selected) (bool, error) {
		to := waitingFor{destination, r.lane}
		if to.domain == "" {
			addr, err := address.Parse(r.to)
			if err != nil {
				return false, nil
			}
			to.domain = addr.Domain
		}
		if r.state == QueueLeased || r.state == QueueDamaged || to.domain == r.domain {
			return false, nil
		}
		at := tx.Now().UnixMilli()
		if r.state == QueueWaiting {
			tx.destination(to, func(tx *Tx) error { return hasten(tx, to, at) })
		}
		return true, tx.exec(`UPDATE queue_recipient SET domain = $2, next_attempt = $3 WHERE id = $1`, r.id, to.domain, at)
	})
}

// selected is what a change knows of a recipient's row.
type selected struct {
	id      RecipientID
	message QueueID
	waitingFor
	state QueueState
	to    string
}

// queueChange applies fn to all selected recipients, some hundreds a transaction, so that mail flows meanwhile. They are looked
// for outside of the transactions, which may take long.
func (s *Store) queueChange(ctx context.Context, sel QueueFilter, fn func(*Tx, selected) (bool, error)) (int, error) {
	if sel.Empty() {
		return 0, ErrSelection
	}
	total := 0
	err := s.queueScan(ctx, sel, func(found []selected) error {
		sel := sel
		sel.IDs = nil // a recipient stays with its message; all else may have changed
		sel.Recipients = make([]RecipientID, len(found))
		for i, r := range found {
			sel.Recipients[i] = r.id
		}
		n := 0
		err := s.Write(ctx, func(tx *Tx) (err error) {
			n, err = changeStep(tx, sel, fn)
			return err
		})
		total += n
		return err
	})
	if err != nil {
		return total, fmt.Errorf("store: change queue: %w", err)
	}
	return total, nil
}

// queueStretch is how many rows one query looks at for those that are selected: a reader must not hold its snapshot for long.
const queueStretch = 20_000

// queueScan calls fn with the selected recipients, some hundreds at a time, by id.
func (s *Store) queueScan(ctx context.Context, sel QueueFilter, fn func([]selected) error) error {
	return sel.steps(func(sel QueueFilter) error {
		narrow := len(sel.IDs)+len(sel.Recipients) > 0
		for last, end := RecipientID(0), RecipientID(0); ; {
			var found []selected
			err := s.Read(ctx, func(q Querier) (err error) {
				if last >= end && !narrow { // the next stretch
					var top sql.NullInt64
					if err := q.QueryRow(`SELECT max(id) FROM (SELECT id FROM queue_recipient WHERE id > $1 ORDER BY id LIMIT $2) AS x`,
						last, queueStretch).Scan(&top); err != nil {
						return err
					}
					end = RecipientID(top.Int64)
				}
				if narrow {
					end = math.MaxInt64
				}
				found, err = findSelected(q.Query, sel, last, end)
				return err
			})
			if err != nil || end == 0 || end <= last {
				return err
			}
			if len(found) > 0 {
				if err := fn(found); err != nil {
					return err
				}
			}
			switch {
			case len(found) == queueStep:
				last = found[len(found)-1].id
			case narrow:
				return nil
			default:
				last = end
			}
		}
	})
}

// findSelected reads selected recipients whose ids are above after and not above end.
func findSelected(query func(string, ...any) (*sql.Rows, error), sel QueueFilter, after, end RecipientID) ([]selected, error) {
	cond, args := sel.where([]any{after, end, queueStep})
	rows, err := query(`SELECT r.id, r.message_id, r.domain, r.lane, r.state, r.rcpt FROM queue_recipient r
		LEFT JOIN queue_message m ON m.id = r.message_id WHERE r.id > $1 AND r.id <= $2 AND `+cond+` ORDER BY r.id LIMIT $3`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []selected
	for rows.Next() {
		var r selected
		if err := rows.Scan(&r.id, &r.message, &r.domain, &r.lane, &r.state, &r.to); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, errors.Join(rows.Err(), rows.Close())
}

// changeStep changes those of a list of recipients that are still selected.
func changeStep(tx *Tx, sel QueueFilter, fn func(*Tx, selected) (bool, error)) (n int, err error) {
	list, err := findSelected(tx.Query, sel, 0, math.MaxInt64)
	if err != nil {
		return 0, err
	}
	lines := map[waitingFor]bool{}
	for _, r := range list {
		changed, err := fn(tx, r)
		if err != nil {
			return 0, err
		}
		if changed {
			n++
			lines[r.waitingFor] = true
		}
	}
	for w := range lines {
		tx.reschedule(w, 0)
	}
	if n > 0 {
		tx.NotifyQueue()
	}
	return n, nil
}

// QueueSelected counts what a selection fits, and returns the first few messages of it.
func (s *Store) QueueSelected(ctx context.Context, sel QueueFilter, sample int) (recipients int, messages []QueueMessage, err error) {
	var ids []QueueID
	err = s.queueScan(ctx, sel, func(found []selected) error {
		recipients += len(found)
		for _, r := range found {
			if len(ids) < sample && !slices.Contains(ids, r.message) {
				ids = append(ids, r.message)
			}
		}
		return nil
	})
	for _, id := range ids {
		if err != nil {
			break
		}
		var m QueueMessage
		if m, err = s.QueueMessage(ctx, id); errors.Is(err, ErrNotFound) { // sent meanwhile
			err = nil
			continue
		}
		messages = append(messages, m)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("store: look at a selection of the queue: %w", err)
	}
	return recipients, messages, nil
}

// QueueCounts describes the queue.
type QueueCounts struct {
	Messages                       int
	Waiting, Leased, Held, Damaged int       // recipients
	Destinations                   int       // with waiting recipients
	Oldest                         time.Time // when the oldest message came, zero without one
}

// QueueCounts counts; its cost grows with the queue, so ask it seldom.
func (s *Store) QueueCounts(ctx context.Context) (c QueueCounts, err error) {
	err = s.Read(ctx, func(q Querier) error {
		c = QueueCounts{}
		var oldest int64
		if err := q.QueryRow(`SELECT (SELECT count(*) FROM queue_message), (SELECT count(DISTINCT domain) FROM queue_destination),
			coalesce((SELECT created FROM queue_message ORDER BY id LIMIT 1), 0)`).Scan(&c.Messages, &c.Destinations, &oldest); err != nil {
			return fmt.Errorf("store: count queue: %w", err)
		}
		c.Oldest = moment(oldest)
		rows, err := q.Query(`SELECT state, count(*) FROM queue_recipient GROUP BY state`)
		if err != nil {
			return fmt.Errorf("store: count queue: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var state QueueState
			var n int
			if err := rows.Scan(&state, &n); err != nil {
				return fmt.Errorf("store: count queue: %w", err)
			}
			switch state {
			case QueueWaiting:
				c.Waiting = n
			case QueueLeased:
				c.Leased = n
			case QueueHeld:
				c.Held = n
			default:
				c.Damaged += n
			}
		}
		return rows.Err()
	})
	return c, err
}

package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// QueueFilter selects recipients of queued messages; fields that are set must all fit. The zero value fits all.
type QueueFilter struct {
	IDs        []QueueID
	Recipients []RecipientID
	Domain     string     // destination
	From       string     // reverse-path, "<>" for null
	To         string     // forward-path
	State      QueueState // e.g. QueueDamaged
	Account    AccountID
}

// Empty tells that f fits everything.
func (f QueueFilter) Empty() bool {
	return len(f.IDs) == 0 && len(f.Recipients) == 0 && f.Domain == "" && f.From == "" && f.To == "" && f.State == "" && f.Account == 0
}

// ErrSelection refuses to change the whole queue by an empty selection.
var ErrSelection = errors.New("store: the selection is empty")

// queueStep is how many recipients one transaction of a change by an administrator takes.
const queueStep = 500

// maxQueuePage bounds a page of QueueList.
const maxQueuePage = 1000

// where writes the condition of f over r (queue_recipient) and m (queue_message), with its arguments behind args.
func (f QueueFilter) where(args []any) (string, []any) {
	var b strings.Builder
	b.WriteString("1 = 1")
	add := func(cond string, v any) {
		args = append(args, v)
		fmt.Fprintf(&b, " AND %s = $%d", cond, len(args))
	}
	in := func(cond string, n int, v func(int) any) {
		fmt.Fprintf(&b, " AND %s IN (", cond)
		for i := range padded(n) {
			args = append(args, v(min(i, n-1)))
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "$%d", len(args))
		}
		b.WriteByte(')')
	}
	if len(f.IDs) > 0 {
		in("r.message_id", len(f.IDs), func(i int) any { return f.IDs[i] })
	}
	if len(f.Recipients) > 0 {
		in("r.id", len(f.Recipients), func(i int) any { return f.Recipients[i] })
	}
	if f.Domain != "" {
		add("r.domain", strings.ToLower(f.Domain))
	}
	if f.From != "" {
		add("m.sender", strings.TrimSuffix(strings.TrimPrefix(f.From, "<"), ">"))
	}
	if f.To != "" {
		add("r.rcpt", f.To)
	}
	if f.State != "" {
		add("r.state", string(f.State))
	}
	if f.Account != 0 {
		add("m.account_id", f.Account)
	}
	return b.String(), args
}

// padded rounds the length of a list up to one of a few, so that there are few texts of statements to prepare.
func padded(n int) int {
	for _, size := range []int{1, 20} {
		if n <= size {
			return size
		}
	}
	return queueStep
}

// steps calls fn with parts of f whose lists are short enough for one statement.
func (f QueueFilter) steps(fn func(QueueFilter) error) error {
	if len(f.IDs) > queueStep {
		head, tail := f, f
		head.IDs, tail.IDs = f.IDs[:queueStep], f.IDs[queueStep:]
		return errors.Join(head.steps(fn), tail.steps(fn))
	}
	if len(f.Recipients) > queueStep {
		head, tail := f, f
		head.Recipients, tail.Recipients = f.Recipients[:queueStep], f.Recipients[queueStep:]
		return errors.Join(head.steps(fn), tail.steps(fn))
	}
	return fn(f)
}

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

// selected is what a change knows of a recipient's row.
type selected struct {
	id      RecipientID
	message QueueID
	waitingFor
	state QueueState
}

// queueChange applies fn to all selected recipients, some hundreds a transaction, so that mail flows meanwhile.
func (s *Store) queueChange(ctx context.Context, sel QueueFilter, fn func(*Tx, selected) (bool, error)) (int, error) {
	if sel.Empty() {
		return 0, ErrSelection
	}
	total := 0
	err := sel.steps(func(sel QueueFilter) error {
		for last := RecipientID(0); ; {
			var n, seen int
			var end RecipientID
			err := s.Write(ctx, func(tx *Tx) (err error) {
				n, seen, end, err = changeStep(tx, sel, last, fn)
				return err
			})
			if err != nil {
				return fmt.Errorf("store: change queue: %w", err)
			}
			total += n
			if seen < queueStep {
				return nil
			}
			last = end
		}
	})
	return total, err
}

func changeStep(tx *Tx, sel QueueFilter, after RecipientID, fn func(*Tx, selected) (bool, error)) (n, seen int, last RecipientID, err error) {
	cond, args := sel.where([]any{after, queueStep})
	rows, err := tx.Query(`SELECT r.id, r.message_id, r.domain, r.lane, r.state FROM queue_recipient r
		LEFT JOIN queue_message m ON m.id = r.message_id WHERE r.id > $1 AND `+cond+` ORDER BY r.id LIMIT $2`, args...)
	if err != nil {
		return 0, 0, 0, err
	}
	var list []selected
	for rows.Next() {
		var r selected
		if err := rows.Scan(&r.id, &r.message, &r.domain, &r.lane, &r.state); err != nil {
			rows.Close()
			return 0, 0, 0, err
		}
		list = append(list, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, 0, 0, err
	}
	lines := map[waitingFor]bool{}
	for _, r := range list {
		changed, err := fn(tx, r)
		if err != nil {
			return 0, 0, 0, err
		}
		if changed {
			n++
			lines[r.waitingFor] = true
		}
		last = r.id
	}
	for w := range lines {
		tx.reschedule(w, 0)
	}
	if n > 0 {
		tx.NotifyQueue()
	}
	return n, len(list), last, nil
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

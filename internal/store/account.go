package store

import (
	"cmp"
	"container/list"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// counters are the account's own row.
type counters struct {
	modseq        ModSeq
	nextMailbox   MailboxID
	lastValidity  uint32
	usedOctets    int64
	usedMessages  int64
	quotaOctets   int64
	quotaMessages int64
	held          bool // under a legal hold
	domain        string
	version       int64  // raised by each transaction that changes anything of the account
	horizon       ModSeq // tombstones up to here may have been removed
	sieve         int64  // of the scripts that deliveries run; 0: none
}

// tree is the set of mailboxes of an account under their names, with the subscriptions. It is never changed once it is
// visible: a transaction that changes it makes a copy.
type tree struct {
	byName map[string]MailboxID
	byRole map[Role]MailboxID
	subs   map[string]struct{}
}

func newTree() *tree {
	return &tree{byName: make(map[string]MailboxID), byRole: make(map[Role]MailboxID), subs: make(map[string]struct{})}
}

func (t *tree) clone() *tree {
	return &tree{byName: maps.Clone(t.byName), byRole: maps.Clone(t.byRole), subs: maps.Clone(t.subs)}
}

// box is a mailbox's row with its keywords.
type box struct {
	info     Mailbox  // Subscribed is not kept here but in the tree
	keywords []string // by number, "" where the number is free; never changed in place
	uids     mapped
}

// account is the committed state of one account in memory: what a reader sees, and what a transaction starts from. Only the
// writer's goroutine changes it, after a commit.
type account struct {
	id AccountID

	ready chan struct{} // closed when it is loaded, or err is set
	err   error
	stale atomic.Bool // the rows may have changed since: the writer reads them before it does anything with the account
	await atomic.Bool // the writer has it in its queue to read them

	// Guarded by accounts.mu.
	pins int
	lru  *list.Element

	mu       sync.RWMutex // guards what follows
	gone     bool         // the account was deleted
	counters counters
	tree     *tree
	boxes    map[MailboxID]*box
	order    []*box // by name
	indexes  map[MailboxID]*index
}

// snapshotBox returns a mailbox as it is committed.
func (a *account) snapshotBox(id MailboxID) (Mailbox, bool) {
	b, ok := a.snapshotRow(id)
	return b.info, ok
}

// snapshotRow returns a copy of what is held of a mailbox's row.
func (a *account) snapshotRow(id MailboxID) (box, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	b, ok := a.boxes[id]
	if !ok {
		return box{}, false
	}
	out := *b
	out.info = a.tree.decorate(b.info)
	return out, true
}

// decorate adds what the tree knows.
func (t *tree) decorate(m Mailbox) Mailbox {
	_, m.Subscribed = t.subs[m.Name]
	return m
}

// sortBoxes renews the order by name; a.mu is held.
func (a *account) sortBoxes() {
	a.order = a.order[:0:0]
	for _, b := range a.boxes {
		a.order = append(a.order, b)
	}
	slices.SortFunc(a.order, func(x, y *box) int { return cmp.Compare(x.info.Name, y.info.Name) })
}

// accounts caches the accounts in use. An account that a View or a transaction holds is pinned; the others go, the one
// longest unused first, when there are more than max.
type accounts struct {
	s   *Store
	max int

	mu     sync.Mutex
	byID   map[AccountID]*account
	unused *list.List // accounts without pins, the newest in front
}

func newAccounts(s *Store, max int) *accounts {
	return &accounts{s: s, max: max, byID: make(map[AccountID]*account), unused: list.New()}
}

// pin returns the account, loaded, and keeps it in memory until unpin. Whoever comes first loads it, the others wait.
//
// A load can't miss a commit: a transaction pins each account that it changes before it changes it, so while an account is
// being loaded no transaction that touches it is under way, and once loaded it stays until that transaction is published.
func (c *accounts) pin(ctx context.Context, id AccountID) (*account, error) {
	if a := c.known(id); a != nil {
		return a, nil
	}
	var a *account
	// The connection comes first: who loads an account, and makes the writer wait, waits for nothing itself.
	err := c.s.reads.with(ctx, func(q *reader) (err error) {
		a, err = c.load(ctx, id, func(a *account) error { return q.snapshot(func() error { return a.load(q) }) })
		return err
	})
	return a, err
}

// pinIn is pin for the writer, which reads with its own connection.
func (c *accounts) pinIn(tx *Tx, id AccountID) (*account, error) {
	if a := c.known(id); a != nil {
		return a, nil
	}
	return c.load(context.Background(), id, func(a *account) error { return a.load(tx) })
}

// known pins an account that is loaded.
func (c *accounts) known(id AccountID) *account {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.byID[id]
	if !ok {
		return nil
	}
	select {
	case <-a.ready:
	default:
		return nil
	}
	if a.err != nil {
		return nil
	}
	c.keep(a)
	return a
}

// load pins an account, and loads it unless another does.
func (c *accounts) load(ctx context.Context, id AccountID, load func(a *account) error) (*account, error) {
	a, first := c.hold(id)
	if first {
		if err := load(a); err != nil {
			a.err = fmt.Errorf("store: account %d: %w", id, err)
		}
		close(a.ready)
	}
	select {
	case <-a.ready:
	case <-ctx.Done():
		c.unpin(a)
		return nil, ctx.Err()
	}
	if a.err != nil {
		c.forget(a)
		return nil, a.err
	}
	return a, nil
}

func (c *accounts) hold(id AccountID) (a *account, load bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.byID[id]
	if !ok {
		a = &account{id: id, ready: make(chan struct{}), boxes: make(map[MailboxID]*box), indexes: make(map[MailboxID]*index)}
		c.byID[id] = a
	}
	c.keep(a)
	return a, !ok
}

// keep pins an account; c.mu is held.
func (c *accounts) keep(a *account) {
	a.pins++
	if a.lru != nil {
		c.unused.Remove(a.lru)
		a.lru = nil
	}
}

func (c *accounts) unpin(a *account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.pins--
	if a.pins > 0 || c.byID[a.id] != a {
		return
	}
	a.lru = c.unused.PushFront(a)
	for c.unused.Len() > c.max {
		c.evict(c.unused.Back().Value.(*account))
	}
}

// evict takes an account that nobody uses out of memory; c.mu is held.
func (c *accounts) evict(a *account) {
	c.unused.Remove(a.lru)
	a.lru = nil
	delete(c.byID, a.id)
	c.s.indexes.dropAccount(a)
}

// forget takes an account out of the cache: it could not be loaded, or it was deleted.
func (c *accounts) forget(a *account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[a.id] == a {
		delete(c.byID, a.id)
	}
	if a.lru != nil {
		c.unused.Remove(a.lru)
		a.lru = nil
	}
}

// with calls fn with the account's committed state under its read lock.
func (s *Store) with(ctx context.Context, id AccountID, fn func(a *account) error) error {
	a, err := s.current(ctx, id)
	if err != nil {
		return err
	}
	defer s.accounts.unpin(a)
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.gone {
		return fmt.Errorf("account %d: %w", id, ErrNotFound)
	}
	return fn(a)
}

// load reads the account's rows from one snapshot.
func (a *account) load(q Querier) error {
	c := &a.counters
	err := q.QueryRow(`SELECT modseq, next_mailbox, last_validity, used_octets, used_messages, quota_octets, quota_messages, version, horizon, sieve
		FROM mail_account WHERE account_id = $1`, a.id).Scan(&c.modseq, &c.nextMailbox, &c.lastValidity,
		&c.usedOctets, &c.usedMessages, &c.quotaOctets, &c.quotaMessages, &c.version, &c.horizon, &c.sieve)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	a.tree = newTree()
	if err := a.loadStanding(q); err != nil {
		return err
	}
	if err := a.loadBoxes(q); err != nil {
		return err
	}
	if err := a.loadKeywords(q); err != nil {
		return err
	}
	if err := a.loadSubscriptions(q); err != nil {
		return err
	}
	a.sortBoxes()
	return nil
}

func (a *account) loadBoxes(q Querier) error {
	rows, err := q.Query(`SELECT m.mailbox_id, m.name, m.role, m.uid_validity, m.uid_next, m.first_recent, m.modseq, m.messages, m.unseen, m.deleted,
		m.octets, u.gone, u.seen_below FROM mailbox AS m LEFT JOIN uid_map AS u ON u.account_id = m.account_id AND u.mailbox_id = m.mailbox_id
		WHERE m.account_id = $1`, a.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		b := &box{}
		var recent UID
		var gone, seenBelow sql.NullInt64
		m := &b.info
		if err := rows.Scan(&m.ID, &m.Name, &m.Role, &m.UIDValidity, &m.UIDNext, &recent, &m.HighestModSeq,
			&m.Messages, &m.Unseen, &m.Deleted, &m.Size, &gone, &seenBelow); err != nil {
			return err
		}
		b.uids = mapped{there: gone.Valid, gone: gone.Int64, seenBelow: UID(seenBelow.Int64), unreadAt: m.HighestModSeq}
		a.boxes[m.ID] = b
		a.indexes[m.ID] = newIndex(a, m.ID, recent, nil)
		a.tree.byName[m.Name] = m.ID
		if m.Role != "" {
			a.tree.byRole[m.Role] = m.ID
		}
	}
	return rows.Err()
}

func (a *account) loadKeywords(q Querier) error {
	rows, err := q.Query(`SELECT mailbox_id, number, name FROM keyword WHERE account_id = $1`, a.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id MailboxID
		var number int
		var name string
		if err := rows.Scan(&id, &number, &name); err != nil {
			return err
		}
		b, ok := a.boxes[id]
		if !ok || number < 0 || number >= maxKeywords {
			continue // a row that belongs to nothing harms nothing
		}
		for len(b.keywords) <= number {
			b.keywords = append(b.keywords, "")
		}
		b.keywords[number] = name
		a.indexes[id].keywords = b.keywords
	}
	return rows.Err()
}

func (a *account) loadSubscriptions(q Querier) error {
	rows, err := q.Query(`SELECT name FROM subscription WHERE account_id = $1`, a.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		a.tree.subs[name] = struct{}{}
	}
	return rows.Err()
}

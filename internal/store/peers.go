package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The rhythm of the nodes.
const (
	lookEvery  = 10 * time.Second // a node looks for changes of which it was not told
	lookDeaf   = time.Second      // and as often while it can't be told
	tellPause  = 5 * time.Millisecond
	retryPause = time.Second
	maxTold    = 7000 // octets of one text: PostgreSQL takes 8,000
)

// link keeps the memory of this node in step with the other nodes on the database: it tells them after commits what changed, and
// marks as old what they tell of. Nothing that is right hangs on it: a transaction looks at the version of each account that it
// touches. It is what makes a session see soon what another node did. A nil *link is that of a store alone.
type link struct {
	s      *Store
	node   string // names this run of this node
	cancel context.CancelFunc
	done   sync.WaitGroup
	deaf   atomic.Bool
	alive  tenure // others leave what this node has leased
	seen   atomic.Pointer[time.Time]
	leads  tenure

	beating sync.Mutex // held while the node says that it lives

	wake chan struct{} // there is something to tell
	mu   sync.Mutex    // guards what follows
	news news

	directory int64 // the state of the directory when it was last looked at; of the goroutine that looks
}

// news is what changed.
type news struct {
	accounts   map[AccountID]struct{}
	queue      bool
	directory  bool
	everything bool // more than can be told
}

func newLink(s *Store) *link {
	if !s.shared() {
		return nil
	}
	return &link{s: s, node: strings.ToLower(rand.Text()), wake: make(chan struct{}, 1)}
}

// start enters the node into the list of those that live, and begins to tell, to hear and to look, until stop.
func (l *link) start(ctx context.Context) error {
	if l == nil {
		return nil
	}
	if err := l.beat(ctx); err != nil {
		return fmt.Errorf("enter the node: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.deaf.Store(true)
	l.done.Go(func() { l.tell(ctx) })
	l.done.Go(func() { l.hear(ctx) })
	l.done.Go(func() { l.watch(ctx) })
	l.done.Go(func() { l.live(ctx) })
	l.done.Go(func() { l.inherit(ctx) })
	l.done.Go(func() { l.fence(ctx) })
	return nil
}

func (l *link) stop() {
	if l == nil || l.cancel == nil {
		return
	}
	l.cancel()
	l.done.Wait()
	l.leave()
}

// changed notes what a committed transaction changed. It never waits.
func (l *link) changed(tx *Tx) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, w := range tx.accounts {
		if w.acct != nil && (w.deleted || w.changed()) {
			l.news.add(id)
		}
	}
	l.news.queue = l.news.queue || tx.queue
	l.news.directory = l.news.directory || tx.directory
	if l.news.any() {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (n *news) any() bool { return len(n.accounts) > 0 || n.queue || n.directory || n.everything }

func (n *news) add(id AccountID) {
	if n.accounts == nil {
		n.accounts = make(map[AccountID]struct{})
	}
	n.accounts[id] = struct{}{}
}

// tell sends what changed, all that came while the last text was sent in one.
func (l *link) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		if !pause(ctx, tellPause) { // what commits together is told together
			return
		}
		l.mu.Lock()
		n := l.news
		l.news = news{}
		l.mu.Unlock()
		for n.any() {
			err := l.s.db.Peers.Tell(ctx, n.text(l.node))
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				l.s.log.Warn("store: other nodes can't be told of changes for now", "err", err)
			}
			if !pause(ctx, retryPause) {
				return
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// text is what is sent: the name of the node, and a word for each change.
func (n *news) text(node string) string {
	words := make([]string, 0, len(n.accounts)+2)
	if n.queue {
		words = append(words, "queue")
	}
	if n.directory {
		words = append(words, "directory")
	}
	size := 0
	for id := range n.accounts {
		w := strconv.FormatInt(int64(id), 10)
		if size += len(w) + 1; size > maxTold {
			n.everything = true
			break
		}
		words = append(words, w)
	}
	if n.everything {
		words = []string{"everything"}
	}
	return node + " " + strings.Join(words, " ")
}

// parseNews reads a text of another node; ok is false for one's own. What can't be read may be anything.
func parseNews(text, own string) (n news, ok bool) {
	node, rest, _ := strings.Cut(text, " ")
	if node == own {
		return n, false
	}
	for w := range strings.FieldsSeq(rest) {
		switch w {
		case "queue":
			n.queue = true
		case "directory":
			n.directory = true
		default:
			id, err := strconv.ParseInt(w, 10, 64)
			if err != nil || len(n.accounts) > maxTold {
				return news{everything: true}, true
			}
			n.add(AccountID(id))
		}
	}
	return n, true
}

// hear listens to the others. Whenever it begins it looks at everything once, since something may have been said before.
func (l *link) hear(ctx context.Context) {
	for {
		err := l.s.db.Peers.Hear(ctx, func() {
			l.deaf.Store(false)
			l.look(ctx)
		}, func(text string) {
			if n, ok := parseNews(text, l.node); ok {
				l.take(ctx, n)
			}
		})
		l.deaf.Store(true)
		if ctx.Err() == nil {
			l.s.log.Warn("store: other nodes can't be heard for now: changes are looked for", "err", err)
		}
		if !pause(ctx, retryPause) {
			return
		}
	}
}

// take follows what another node told.
func (l *link) take(ctx context.Context, n news) {
	if n.everything {
		l.look(ctx)
		return
	}
	ids := make([]AccountID, 0, len(n.accounts))
	for id := range n.accounts {
		ids = append(ids, id)
	}
	l.s.outdated(ids)
	l.s.notices.heard(ids)
	if n.queue {
		l.s.notices.queueChanged()
	}
	if n.directory {
		l.s.notices.directoryChanged()
	}
}

// watch looks for changes from time to time, since what others tell may get lost.
func (l *link) watch(ctx context.Context) {
	last := time.Now()
	for pause(ctx, lookDeaf) {
		if l.deaf.Load() || time.Since(last) >= lookEvery {
			last = time.Now()
			l.look(ctx)
		}
	}
}

// lookStep is how many accounts one query looks at.
const lookStep = 1000

// look compares the accounts that sessions use with their rows, and wakes whoever watches anything else.
func (l *link) look(ctx context.Context) {
	used := l.s.accounts.used()
	for part := range slices.Chunk(used, lookStep) {
		old, err := l.s.olderThanRows(ctx, part)
		if err != nil {
			if ctx.Err() == nil {
				l.s.log.Debug("store: look for changes of other nodes", "err", err)
			}
			return
		}
		l.s.outdated(old)
	}
	l.s.notices.heard(nil)
	l.s.notices.queueChanged()
	l.lookAtDirectory(ctx)
}

func (l *link) lookAtDirectory(ctx context.Context) {
	var state int64
	err := l.s.reads.row(ctx, []any{&state}, `SELECT COALESCE(SUM(value), 0) FROM directory_counter`)
	if err != nil {
		return
	}
	l.mu.Lock()
	changed := state != l.directory
	l.directory = state
	l.mu.Unlock()
	if changed {
		l.s.notices.directoryChanged()
	}
}

// olderThanRows returns those of the accounts whose rows have another version than memory.
func (s *Store) olderThanRows(ctx context.Context, list []*account) ([]AccountID, error) {
	versions := make(map[AccountID]int64, len(list))
	ids := make([]int64, len(list))
	for i, a := range list {
		ids[i] = int64(a.id)
		versions[a.id] = a.version()
	}
	d := s.db.Dialect
	old := make([]AccountID, 0)
	err := s.reads.with(ctx, func(q *reader) error {
		rows, err := q.Query(`SELECT account_id, version FROM mail_account WHERE `+d.In("account_id", "$1"), d.Numbers(ids))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id AccountID
			var version int64
			if err := rows.Scan(&id, &version); err != nil {
				return err
			}
			if versions[id] != version {
				old = append(old, id)
			}
			delete(versions, id)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("store: versions of accounts: %w", s.db.dbError(err))
	}
	for id := range versions { // deleted
		old = append(old, id)
	}
	return old, nil
}

// outdated makes memory follow the rows of accounts that another node changed: those in use are read anew by the writer's
// goroutine, the others are forgotten.
func (s *Store) outdated(ids []AccountID) {
	for _, id := range ids {
		a := s.accounts.forgetUnused(id)
		if a == nil {
			continue
		}
		a.stale.Store(true)
		if a.await.Swap(true) { // it is about to be read anew
			continue
		}
		o := &op{done: make(chan error, 1), fn: func(tx *Tx) error {
			a.await.Store(false) // before it is read: should that fail, the next who is told tries again
			if err := tx.catchUp(id); err != nil {
				s.log.Debug("store: follow another node", "account", id, "err", err)
			}
			return nil
		}}
		if s.writer.enqueue(o) != nil {
			return // closed: nobody will read the memory
		}
	}
}

// used returns the accounts that are loaded and in use.
func (c *accounts) used() []*account {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*account, 0, len(c.byID)-c.unused.Len())
	for _, a := range c.byID {
		select {
		case <-a.ready:
		default:
			continue
		}
		if a.lru == nil && a.err == nil {
			list = append(list, a)
		}
	}
	return list
}

// forgetUnused forgets an account that nobody uses; it returns one that is in use.
func (c *accounts) forgetUnused(id AccountID) *account {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.byID[id]
	if a == nil || a.lru == nil {
		return a
	}
	c.evict(a)
	return nil
}

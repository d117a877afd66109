package store

import (
	"sync"
	"sync/atomic"
)

// notice is one watcher's callback. Between two calls of arm it is called at most once.
type notice struct {
	fn     func()
	queued atomic.Bool
	ended  atomic.Bool
}

func newNotice(fn func()) *notice { return &notice{fn: fn} }

// arm makes the next change call again.
func (n *notice) arm() { n.queued.Store(false) }

func (n *notice) stop() { n.ended.Store(true) }

// notices calls those who watch, after commits and from a goroutine of its own, so that a slow callback delays other
// callbacks at worst, and no commit.
type notices struct {
	done chan struct{} // closed when the goroutine has ended

	mu        sync.Mutex
	wake      *sync.Cond
	pending   []*notice
	closed    bool
	accounts  map[AccountID]map[*notice]struct{}
	all       map[*notice]struct{} // of any account
	queue     map[*notice]struct{}
	directory map[*notice]struct{}
}

func newNotices() *notices {
	n := &notices{
		done:      make(chan struct{}),
		accounts:  make(map[AccountID]map[*notice]struct{}),
		all:       make(map[*notice]struct{}),
		queue:     make(map[*notice]struct{}),
		directory: make(map[*notice]struct{}),
	}
	n.wake = sync.NewCond(&n.mu)
	return n
}

// run is the goroutine.
func (n *notices) run() {
	defer close(n.done)
	for {
		list := n.take()
		if list == nil {
			return
		}
		for _, w := range list {
			if !w.ended.Load() {
				w.fn()
			}
		}
	}
}

func (n *notices) take() []*notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.pending) == 0 && !n.closed {
		n.wake.Wait()
	}
	list := n.pending
	n.pending = nil
	return list
}

func (n *notices) close() {
	n.mu.Lock()
	n.closed = true
	n.wake.Signal()
	n.mu.Unlock()
	<-n.done
}

// add queues a callback unless it waits already; n.mu is held.
func (n *notices) add(w *notice) {
	if w.fn == nil || w.ended.Load() || w.queued.Swap(true) {
		return
	}
	n.pending = append(n.pending, w)
	n.wake.Signal()
}

// accountChanged tells those who watch the account, and the Views of the indexes that changed.
func (n *notices) accountChanged(a *account, changed []*index) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for nt := range n.accounts[a.id] {
		n.add(nt)
	}
	for nt := range n.all {
		n.add(nt)
	}
	for _, ix := range changed {
		n.addViews(ix)
	}
}

// addViews queues the callbacks of a mailbox's Views; n.mu is held.
func (n *notices) addViews(ix *index) {
	ix.mu.RLock()
	defer ix.mu.RUnlock()
	for v := range ix.views {
		n.add(v.notice)
	}
}

func (n *notices) queueChanged() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for nt := range n.queue {
		n.add(nt)
	}
}

// directoryChanged tells those who watch the directory.
func (n *notices) directoryChanged() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for nt := range n.directory {
		n.add(nt)
	}
}

// heard tells those who watch that another node changed accounts; none means that it may have been any. Views are told when
// memory has followed.
func (n *notices) heard(ids []AccountID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		for nt := range n.accounts[id] {
			n.add(nt)
		}
	}
	for nt := range n.all {
		n.add(nt)
	}
	if len(ids) > 0 {
		return
	}
	for _, set := range n.accounts {
		for nt := range set {
			n.add(nt)
		}
	}
}

// Watch has notify called after each commit that changes anything of the account, its mailboxes, entries, subscriptions or
// quota. Calls are coalesced: one call may stand for many commits. notify must not block; one call may be under way while
// stop returns.
func (s *Store) Watch(acct AccountID, notify func()) (stop func()) {
	n, w := s.notices, newNotice(nil)
	w.fn = func() {
		w.arm()
		notify()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.accounts[acct] == nil {
		n.accounts[acct] = make(map[*notice]struct{})
	}
	n.accounts[acct][w] = struct{}{}
	return func() {
		w.stop()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.accounts[acct], w)
		if len(n.accounts[acct]) == 0 {
			delete(n.accounts, acct)
		}
	}
}

// WatchMessages has notify called after each commit that changes anything of any account, as Watch does for one.
func (s *Store) WatchMessages(notify func()) (stop func()) {
	return s.notices.watch(s.notices.all, notify)
}

// WatchQueue has notify called after each commit that puts something into the queue or makes something in it due. It is
// called as Watch's is.
func (s *Store) WatchQueue(notify func()) (stop func()) {
	return s.notices.watch(s.notices.queue, notify)
}

// WatchDirectory has notify called when another node may have changed domains, accounts, aliases or settings. It is called as
// Watch's is; a store alone never calls it.
func (s *Store) WatchDirectory(notify func()) (stop func()) {
	return s.notices.watch(s.notices.directory, notify)
}

// watch adds a callback to a set of the notices.
func (n *notices) watch(set map[*notice]struct{}, notify func()) (stop func()) {
	w := newNotice(nil)
	w.fn = func() {
		w.arm()
		notify()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	set[w] = struct{}{}
	return func() {
		w.stop()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(set, w)
	}
}

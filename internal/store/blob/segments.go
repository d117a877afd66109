package blob

import (
	"container/list"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"

	"waxwing/internal/durable"
)

// segmentInfo is what is known of one pack.
type segmentInfo struct {
	shard    uint32
	end      int64  // after the last whole record
	live     int64  // octets of records that are still named, as far as Settle and Delete told
	inflight int    // Puts that are not settled yet
	sealed   bool   // nothing is written to it any more
	sweptFor uint32 // the key that all its records were found under; while it is the current one, they stay so
	stuck    bool   // holds a damaged record that can't be moved: not compacted again before a restart
}

// segmentTable holds the packs. Large files need no entry: each is alive until it is deleted.
type segmentTable struct {
	mu      sync.Mutex
	packs   map[Segment]*segmentInfo
	orphans []Segment // large files that no row named at Recover
}

func newSegmentTable() *segmentTable { return &segmentTable{packs: map[Segment]*segmentInfo{}} }

func (t *segmentTable) add(g Segment, info segmentInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.packs[g] = &info
}

// update changes the entry of a pack, if there is one.
func (t *segmentTable) update(g Segment, fn func(*segmentInfo)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if info := t.packs[g]; info != nil {
		fn(info)
	}
}

func (t *segmentTable) get(g Segment) (segmentInfo, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if info := t.packs[g]; info != nil {
		return *info, true
	}
	return segmentInfo{}, false
}

func (t *segmentTable) drop(g Segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.packs, g)
}

// sorted returns the packs in ascending order.
func (t *segmentTable) sorted() []Segment {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Segment, 0, len(t.packs))
	for g := range t.packs {
		all = append(all, g)
	}
	slices.Sort(all)
	return all
}

// handle is an open descriptor of a segment, shared by its readers.
type handle struct {
	g       Segment
	ready   chan struct{} // closed when file and err are set
	file    durable.File
	err     error
	refs    int
	retired func() // set when the segment is to vanish: called when the last reader has gone
	place   *list.Element
}

// fileCache keeps descriptors of segments open for reading: at most limit of them without a reader.
type fileCache struct {
	open  func(Segment) (durable.File, error)
	limit int

	mu     sync.Mutex
	m      map[Segment]*handle
	lru    *list.List // of *handle, last used first
	closed bool
}

func newFileCache(open func(Segment) (durable.File, error), limit int) *fileCache {
	return &fileCache{open: open, limit: limit, m: map[Segment]*handle{}, lru: list.New()}
}

// openSegment opens a segment for reading. Its header is not looked at: a read by Ref does not need it, and a damaged
// header is no reason to lose the records.
func (s *Store) openSegment(g Segment) (durable.File, error) {
	f, err := s.opt.FS.OpenFile(s.path(g), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(ErrGone, err)
	}
	return f, err
}

// acquire returns the open segment; the caller must release it.
func (c *fileCache) acquire(g Segment) (*handle, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	h := c.m[g]
	if h != nil && h.retired != nil {
		c.mu.Unlock()
		return nil, ErrGone
	}
	if h != nil {
		h.refs++
		c.lru.MoveToFront(h.place)
		c.mu.Unlock()
		<-h.ready
	} else {
		h = &handle{g: g, ready: make(chan struct{}), refs: 1}
		h.place = c.lru.PushFront(h)
		c.m[g] = h
		c.mu.Unlock()
		h.file, h.err = c.open(g)
		close(h.ready)
	}
	if h.err != nil {
		err := h.err // the handle is not to be touched after release
		c.release(h)
		return nil, err
	}
	return h, nil
}

// release gives a handle back.
func (c *fileCache) release(h *handle) {
	c.mu.Lock()
	h.refs--
	if h.refs == 0 && (h.retired != nil || h.err != nil || c.closed) {
		c.forget(h)
		c.mu.Unlock()
		h.end()
		return
	}
	var old []*handle
	for e := c.lru.Back(); e != nil && len(c.m) > c.limit; {
		prev := e.Prev()
		if o := e.Value.(*handle); o.refs == 0 { //nolint:forcetypeassert // only handles are put in
			c.forget(o)
			old = append(old, o)
		}
		e = prev
	}
	c.mu.Unlock()
	for _, o := range old {
		o.end()
	}
}

// forget takes a handle out; the caller holds the lock.
func (c *fileCache) forget(h *handle) {
	if c.m[h.g] == h {
		delete(c.m, h.g)
	}
	c.lru.Remove(h.place)
}

// end closes the descriptor of a forgotten handle.
func (h *handle) end() {
	if h.file != nil {
		_ = h.file.Close() // it was only read
	}
	if h.retired != nil {
		h.retired()
	}
}

// retire refuses new readers of a segment and calls then when the last one has gone, at once when there is none.
func (c *fileCache) retire(g Segment, then func()) {
	c.mu.Lock()
	h := c.m[g]
	if h == nil {
		c.mu.Unlock()
		then()
		return
	}
	if h.retired != nil { // twice: the first one does it
		c.mu.Unlock()
		return
	}
	h.retired = then
	idle := h.refs == 0
	if idle {
		c.forget(h)
	}
	c.mu.Unlock()
	if idle {
		h.end()
	}
}

// close closes what nobody reads; the rest follows as it is released.
func (c *fileCache) close() {
	c.mu.Lock()
	c.closed = true
	var idle []*handle
	for _, h := range c.m {
		if h.refs == 0 {
			idle = append(idle, h)
		}
	}
	for _, h := range idle {
		c.forget(h)
	}
	c.mu.Unlock()
	for _, h := range idle {
		h.end()
	}
}

// remove deletes the file of a segment when nobody reads it any more. It need not be durable: a file that comes back
// after a crash is named by no row, and Compact finds it. What is pinned goes later.
func (s *Store) remove(g Segment) {
	if s.pins.keep(g) {
		return
	}
	s.files.retire(g, func() {
		if err := s.opt.FS.Remove(s.path(g)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.opt.Logger.Warn("blob: dead segment can't be removed", "segment", g.String(), "err", err)
		}
	})
}

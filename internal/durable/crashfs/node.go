package crashfs

import (
	"io"
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	sectorSize = 512
	pageSize   = 4096
)

// page is never changed once it stands in a map: writes replace it, so that clones share pages.
type page = *[pageSize]byte

// node is a file or a directory, with its state as programs see it and its state on stable storage.
type node struct {
	dir bool

	// Of a directory.
	now, durable map[string]*node
	names        []nameOp // changes of now since the last SyncDir

	// Of a file. Pages that are missing are zeros.
	size, durableSize   int64
	pages, durablePages map[int64]page
	writes              []writeOp // changes since the last Sync
	lost                bool      // a Sync failed: what was written before it is not durable
}

// nameOp is one change of a directory: the name from vanishes, then the name to stands for node.
type nameOp struct {
	from, to string
	node     *node
}

// writeOp is one change of a file: octets written, or the size set when data is nil.
type writeOp struct {
	off  int64
	data []byte
	size int64 // after it
	cut  bool  // it made the file shorter
}

func newDir() *node { return &node{dir: true, now: map[string]*node{}, durable: map[string]*node{}} }

// set lets a name stand for n, or for nothing.
func (d *node) set(name string, n *node) {
	if n == nil {
		delete(d.now, name)
		d.names = append(d.names, nameOp{from: name})
		return
	}
	d.now[name] = n
	d.names = append(d.names, nameOp{to: name, node: n})
}

func (d *node) rename(from, to string, n *node) {
	delete(d.now, from)
	d.now[to] = n
	d.names = append(d.names, nameOp{from: from, to: to, node: n})
}

func (d *node) syncNames() {
	d.durable = maps.Clone(d.now)
	d.names = nil
}

// used is the sum of the sizes below d.
func (d *node) used() int64 {
	if !d.dir {
		return d.size
	}
	var sum int64
	for _, n := range d.now {
		sum += n.used()
	}
	return sum
}

// put writes octets into a page map.
func put(pages map[int64]page, off int64, data []byte) map[int64]page {
	if pages == nil {
		pages = map[int64]page{}
	}
	for len(data) > 0 {
		i, at := off/pageSize, int(off%pageSize)
		fresh := new([pageSize]byte)
		if old := pages[i]; old != nil {
			*fresh = *old
		}
		n := copy(fresh[at:], data)
		pages[i] = fresh
		data, off = data[n:], off+int64(n)
	}
	return pages
}

// cut drops what lies past size, so that it reads as zeros when the file grows again.
func cut(pages map[int64]page, size int64) {
	for i := range pages {
		if i*pageSize >= size {
			delete(pages, i)
		}
	}
	if at := size % pageSize; at != 0 {
		if old := pages[size/pageSize]; old != nil {
			fresh := new([pageSize]byte)
			copy(fresh[:at], old[:at])
			pages[size/pageSize] = fresh
		}
	}
}

func (n *node) write(off int64, data []byte) {
	n.pages = put(n.pages, off, data)
	n.size = max(n.size, off+int64(len(data)))
	n.writes = append(n.writes, writeOp{off: off, data: append([]byte(nil), data...), size: n.size})
}

func (n *node) truncate(size int64) {
	shorter := size < n.size
	if shorter {
		cut(n.pages, size)
	}
	n.size = size
	n.writes = append(n.writes, writeOp{size: size, cut: shorter})
}

func (n *node) read(p []byte, off int64) (int, error) {
	if off >= n.size {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), n.size-off)]
	for done := 0; done < len(p); {
		i, at := (off+int64(done))/pageSize, int((off+int64(done))%pageSize)
		k := min(pageSize-at, len(p)-done)
		if pg := n.pages[i]; pg != nil {
			copy(p[done:done+k], pg[at:])
		} else {
			clear(p[done : done+k])
		}
		done += k
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// sync makes the file durable as it is. Pages that a failed sync left behind stay out unless they were written again.
func (n *node) sync() {
	if !n.lost {
		n.durablePages, n.durableSize = maps.Clone(n.pages), n.size
		n.writes = nil
		return
	}
	for _, op := range n.writes {
		if op.cut {
			cut(n.durablePages, op.size)
		}
		for i := op.off / pageSize; op.data != nil && i*pageSize < op.off+int64(len(op.data)); i++ {
			if n.durablePages == nil {
				n.durablePages = map[int64]page{}
			}
			if pg := n.pages[i]; pg != nil {
				n.durablePages[i] = pg
			}
		}
	}
	n.durableSize = n.size
	n.writes = nil
}

// failSync marks what is written as clean without making it durable, as Linux does after an error of the disk.
func (n *node) failSync() {
	n.lost = true
	n.writes = nil
}

func (n *node) flip(off int64, mask byte) {
	for _, pages := range []map[int64]page{n.pages, n.durablePages} {
		i, at := off/pageSize, off%pageSize
		fresh := new([pageSize]byte)
		if old := pages[i]; old != nil {
			*fresh = *old
		}
		fresh[at] ^= mask
		if pages != nil {
			pages[i] = fresh
		}
	}
}

// Crash returns the disk after a power cut at this moment: all that is durable, and of the rest a part that the seed
// chooses. The original goes on as if nothing had happened.
func (f *FS) Crash(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &crash{rnd: rand.New(rand.NewPCG(seed, 0x5eed)), done: map[*node]*node{}}
	// Mostly some of it survives; often nothing or all of it does, which are cases of their own.
	switch c.rnd.IntN(4) {
	case 0:
		c.share = 0
	case 1:
		c.share = 1
	default:
		c.share = c.rnd.Float64()
	}
	out := New()
	out.root = c.node(f.root)
	return out
}

// crash is one power cut.
type crash struct {
	rnd   *rand.Rand
	share float64
	done  map[*node]*node
}

func (c *crash) survives() bool { return c.share > 0 && c.rnd.Float64() < c.share }

func (c *crash) node(n *node) *node {
	if m, ok := c.done[n]; ok {
		return m
	}
	m := &node{dir: n.dir}
	c.done[n] = m
	if n.dir {
		c.names(n, m)
	} else {
		c.content(n, m)
	}
	return m
}

// names decides which changes of a directory survive.
func (c *crash) names(n, m *node) {
	entries := maps.Clone(n.durable)
	for _, op := range n.names {
		if !c.survives() {
			continue
		}
		if op.from != "" {
			delete(entries, op.from)
		}
		if op.to != "" {
			entries[op.to] = op.node
		}
	}
	m.now = map[string]*node{}
	for _, name := range slices.Sorted(maps.Keys(entries)) { // in order, so that a seed means the same each time
		m.now[name] = c.node(entries[name])
	}
	m.durable = maps.Clone(m.now)
}

// content decides which sectors and sizes of a file survive.
func (c *crash) content(n, m *node) {
	m.pages, m.size = maps.Clone(n.durablePages), n.durableSize
	for _, op := range n.writes {
		if op.data == nil {
			if c.survives() {
				if op.size < m.size {
					cut(m.pages, op.size)
				}
				m.size = op.size
			}
			continue
		}
		for at := int64(0); at < int64(len(op.data)); {
			k := min(sectorSize-(op.off+at)%sectorSize, int64(len(op.data))-at)
			if c.survives() {
				m.pages = put(m.pages, op.off+at, op.data[at:at+k])
			}
			at += k
		}
		if op.size > m.size && c.survives() {
			m.size = op.size
		}
	}
	cut(m.pages, m.size)
	m.durablePages, m.durableSize = maps.Clone(m.pages), m.size
}

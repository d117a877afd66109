package blob

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"waxwing/internal/durable"
)

// writeSize is what a writer gathers for one write call.
const writeSize = 512 << 10

// writer appends to one pack at a time. All requests that arrive while a sync is under way share the next one: the
// group commit needs no timer. Everything below mu belongs to the goroutine of run.
type writer struct {
	s     *Store
	shard uint32
	wake  chan struct{}

	mu      sync.Mutex
	queue   []*request
	adopted *pack // from Recover, until run takes it
	stopped bool
	ending  []ending // packs to be sealed before anything else is written

	pack  *pack // nil: none is open
	group []*request
	buf   []byte
}

// pack is the segment that a writer appends to.
type pack struct {
	g         Segment
	file      durable.File
	marker    marker
	end       int64 // everything before it is on stable storage
	next      int64 // where the next record of the group goes
	allocated int64 // size of the file
}

func newWriter(s *Store, shard uint32) *writer {
	return &writer{s: s, shard: shard, wake: make(chan struct{}, 1)}
}

// submit queues a request.
func (w *writer) submit(r *request) error {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return ErrClosed
	}
	w.queue = append(w.queue, r)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

// ending asks for a pack to be sealed.
type ending struct {
	g    Segment
	done chan struct{} // closed when the pack is not written any more
}

// endPack has the pack sealed if it is still the one being written, and waits for it.
func (w *writer) endPack(g Segment) {
	e := ending{g, make(chan struct{})}
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return
	}
	w.ending = append(w.ending, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	<-e.done
}

// run serves requests until the store is closed.
func (w *writer) run() {
	var batch []*request
	for {
		select {
		case <-w.wake:
		case <-w.s.ctx.Done():
			w.stop()
			return
		}
		batch = w.take(batch[:0], false)
		w.commit(batch)
		clear(batch)
	}
}

// take returns what is queued and leaves spare in its place; stop refuses more.
func (w *writer) take(spare []*request, stop bool) []*request {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch := w.queue
	w.queue = spare
	w.stopped = w.stopped || stop
	if w.adopted != nil {
		w.pack, w.adopted = w.adopted, nil
	}
	for _, e := range w.ending {
		if w.pack != nil && w.pack.g == e.g {
			w.seal()
		}
		close(e.done)
	}
	w.ending = nil
	return batch
}

// stop commits what is queued, takes no more, and trims the pack.
func (w *writer) stop() {
	w.commit(w.take(nil, true))
	if w.pack != nil && w.s.failure() != nil {
		w.abandon()
	}
	w.seal()
}

// commit stores a batch of records and answers each.
func (w *writer) commit(batch []*request) {
	var full error // the pack can't grow: only what fits in what it has
	for _, r := range batch {
		if r.turn != 0 {
			w.flush()
			if w.pack != nil && w.pack.g == r.turn {
				w.seal()
			}
			r.done <- struct{}{}
			continue
		}
		if r.state.Load() == abandoned {
			w.s.finish(r, Ref{}, ErrClosed) // nobody hears it
			continue
		}
		size := r.e.size()
		if full != nil && (w.pack == nil || w.pack.next+size > w.pack.allocated) {
			w.s.finish(r, Ref{}, full)
			continue
		}
		if err := w.makeRoom(size); err != nil {
			full = err
			w.s.finish(r, Ref{}, err)
			continue
		}
		r.ref = r.e.seal(w.pack.marker, w.pack.g, w.pack.next)
		w.pack.next += size
		w.group = append(w.group, r)
	}
	w.flush()
}

// makeRoom sees to a pack with n octets allocated at its end.
func (w *writer) makeRoom(n int64) error {
	if p := w.pack; p != nil && p.next+n > w.s.opt.SegmentSize {
		w.flush()
		w.seal()
	}
	if err := w.s.failure(); err != nil {
		return err
	}
	if w.pack == nil {
		p, err := w.s.createPack(w.shard)
		if err != nil {
			return classify(err)
		}
		w.pack = p
	}
	p := w.pack
	if p.next+n <= p.allocated {
		return nil
	}
	grow := max(w.s.opt.Step, alignUp(p.next+n-p.allocated))
	if err := w.s.room(grow); err != nil {
		return err
	}
	if err := p.file.Allocate(p.allocated, grow); err != nil {
		return classify(err)
	}
	p.allocated += grow
	return nil
}

// flush writes the group, syncs once, and answers.
func (w *writer) flush() {
	if len(w.group) == 0 {
		return
	}
	p := w.pack
	err := w.writeGroup()
	if err != nil {
		err = classify(err)
		w.rollBack(err)
	} else if err = w.s.sync(p.file); err != nil {
		// What is on the disk is unknown, and stays unknown. Recover will look, after a restart.
		w.abandon()
	} else {
		p.end = p.next
		w.s.table.update(p.g, func(info *segmentInfo) { info.end = p.end })
	}
	for i, r := range w.group {
		w.s.finish(r, r.ref, err)
		w.group[i] = nil
	}
	w.group = w.group[:0]
}

// writeGroup writes the records of the group one after the other with few calls.
func (w *writer) writeGroup() error {
	p := w.pack
	if w.buf == nil {
		w.buf = make([]byte, 0, writeSize)
	}
	at := p.end
	write := func(b []byte) error {
		n, err := p.file.WriteAt(b, at)
		at += int64(n)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		return err
	}
	for _, r := range w.group {
		b := *r.e.buf
		if len(w.buf) > 0 && len(w.buf)+len(b) > cap(w.buf) {
			if err := write(w.buf); err != nil {
				w.buf = w.buf[:0]
				return err
			}
			w.buf = w.buf[:0]
		}
		if len(b) >= cap(w.buf) {
			if err := write(b); err != nil {
				return err
			}
			continue
		}
		w.buf = append(w.buf, b...)
	}
	err := write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// rollBack cuts a pack back to its last good end after a failed write, so that it can go on when the cause is gone.
// When even that fails, the pack is left as it is; scans stop at the torn record.
func (w *writer) rollBack(cause error) {
	p := w.pack
	w.s.opt.Logger.Warn("blob: write failed", "segment", p.g.String(), "err", cause)
	if err := p.file.Truncate(p.end); err != nil {
		w.abandon()
		return
	}
	p.next, p.allocated = p.end, p.end
}

// abandon closes a pack that can't be written any more.
func (w *writer) abandon() {
	p := w.pack
	w.pack = nil
	w.s.table.update(p.g, func(info *segmentInfo) { info.sealed = true })
	if err := p.file.Close(); err != nil {
		w.s.opt.Logger.Warn("blob: close", "segment", p.g.String(), "err", err)
	}
}

// seal ends a pack: what was allocated and not used is given back. That needs no sync, since a longer file with zeros
// at its end means the same.
func (w *writer) seal() {
	if w.pack == nil {
		return
	}
	if err := w.pack.file.Truncate(w.pack.end); err != nil {
		w.s.opt.Logger.Warn("blob: trim", "segment", w.pack.g.String(), "err", err)
	}
	w.abandon()
}

// createPack makes a new pack, with its header and its name on stable storage.
func (s *Store) createPack(shard uint32) (*pack, error) {
	if err := s.room(s.opt.Step); err != nil {
		return nil, err
	}
	g, err := s.numbers.take(0)
	if err != nil {
		return nil, err
	}
	p := &pack{g: g, end: segmentHeaderSize, next: segmentHeaderSize, allocated: s.opt.Step}
	if _, err := io.ReadFull(s.opt.Rand, p.marker[:]); err != nil {
		return nil, fmt.Errorf("marker: %w", err)
	}
	p.file, err = s.createSegment(s.path(g), p.marker, g, shard, s.opt.Step)
	if err != nil {
		return nil, err
	}
	if err := s.sync(p.file); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	if err := s.syncDir(s.dir(g)); err != nil {
		return nil, errors.Join(err, p.file.Close())
	}
	s.table.add(g, segmentInfo{shard: shard, end: segmentHeaderSize})
	return p, nil
}

// createSegment makes a file with size octets allocated and a segment header, not yet synced.
func (s *Store) createSegment(name string, m marker, g Segment, shard uint32, size int64) (durable.File, error) {
	f, err := s.opt.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	h := segmentHeader{segment: g, shard: shard, marker: m, created: s.opt.Clock().Unix()}
	err = f.Allocate(0, size)
	if err == nil {
		_, err = f.WriteAt(h.encode(), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), s.opt.FS.Remove(name))
	}
	return f, nil
}

// adopt gives the writer a pack from before the restart. Recover calls it before the first request can come.
func (w *writer) adopt(p *pack) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.adopted = p
}

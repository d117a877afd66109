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

// writer appends to one pack at a time. All records that get a place while a sync is under way share the next one: the
// group commit needs no timer.
type writer struct {
	s     *Store
	shard uint32
	wake  chan struct{}

	mu      sync.Mutex // guards what follows, but for what pack says of itself
	group   []*request // have a place, and are to be written
	queue   []*request // have none: the pack has to be made, to grow, or to be ended first
	ending  []ending   // packs to be sealed before anything else is written
	busy    bool       // run sees to the queue: whoever comes joins it
	stopped bool
	pack    *pack // nil: none is open; changed by run alone

	spare []*request // of run, as is buf
	buf   []byte
}

// pack is the segment that a writer appends to.
type pack struct {
	g         Segment
	file      durable.File
	marker    marker
	end       int64 // everything before it is on stable storage; of run
	next      int64 // where the next record goes; guarded by writer.mu
	allocated int64 // size of the file; changed by run alone, guarded by writer.mu
}

func newWriter(s *Store, shard uint32) *writer {
	return &writer{s: s, shard: shard, wake: make(chan struct{}, 1)}
}

// submit gives a record its place at once where the pack has room, and queues it where not.
func (w *writer) submit(r *request) error {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return ErrClosed
	}
	if w.busy || r.turn != 0 || !w.give(r) {
		w.queue = append(w.queue, r)
	}
	w.mu.Unlock()
	w.rouse()
	return nil
}

// rouse has run look at what there is to do.
func (w *writer) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// give gives a record the next place, if the pack has room. The caller has mu.
func (w *writer) give(r *request) bool {
	p, size := w.pack, r.e.size()
	if p == nil || p.next+size > p.allocated {
		return false
	}
	r.place = r.e.seal(p.marker, p.g, p.next)
	p.next += size
	w.group = append(w.group, r)
	close(r.placed)
	return true
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
	w.rouse()
	<-e.done
}

// run serves requests until the store is closed.
func (w *writer) run() {
	for {
		select {
		case <-w.wake:
			w.serve(false)
		case <-w.s.ctx.Done():
			w.serve(true)
			w.detach()
			return
		}
	}
}

// serve commits what has a place, and sees to the queue until it is empty; stop refuses more.
func (w *writer) serve(stop bool) {
	for {
		w.flush()
		w.mu.Lock()
		queue, endings := w.queue, w.ending
		w.queue, w.ending = nil, nil
		w.busy = len(queue) > 0 || len(endings) > 0
		w.stopped = w.stopped || stop
		done := !w.busy && len(w.group) == 0
		w.mu.Unlock()
		if done {
			return
		}
		for _, e := range endings {
			w.end(e.g)
			close(e.done)
		}
		w.place(queue)
	}
}

// end seals the pack if it is still the one being written.
func (w *writer) end(g Segment) {
	if w.pack != nil && w.pack.g == g {
		w.detach()
	}
}

// place gives the records of a queue their places, for which it makes room.
func (w *writer) place(queue []*request) {
	var full error // the pack can't grow: only what fits in what it has
	for _, r := range queue {
		if r.turn != 0 {
			w.end(r.turn)
			r.done <- struct{}{}
			continue
		}
		if r.state.Load() == abandoned {
			w.s.finish(r, Ref{}, ErrClosed) // nobody hears it
			continue
		}
		for !w.tryGive(r) {
			if full == nil {
				full = w.makeRoom(r.e.size())
			}
			if full != nil {
				w.s.finish(r, Ref{}, full)
				break
			}
		}
	}
}

func (w *writer) tryGive(r *request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.give(r)
}

// makeRoom sees to a pack with n octets allocated at its end.
func (w *writer) makeRoom(n int64) error {
	next := w.next()
	if w.pack != nil && next+n > w.s.opt.SegmentSize {
		w.detach()
	}
	if err := w.s.failure(); err != nil {
		return err
	}
	if w.pack == nil {
		p, err := w.s.createPack(w.shard)
		if err != nil {
			return classify(err)
		}
		w.take(p)
		return nil
	}
	p := w.pack
	grow := max(w.s.opt.Step, alignUp(next+n-p.allocated))
	if err := w.s.room(grow); err != nil {
		return err
	}
	if err := p.file.Allocate(p.allocated, grow); err != nil {
		return classify(err)
	}
	w.mu.Lock()
	p.allocated += grow
	w.mu.Unlock()
	return nil
}

// next is where the pack's next record goes.
func (w *writer) next() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pack == nil {
		return 0
	}
	return w.pack.next
}

// take makes p the pack to be written; nil: none.
func (w *writer) take(p *pack) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pack = p
}

// flush writes what has a place, syncs once, and answers.
func (w *writer) flush() {
	w.mu.Lock()
	group := w.group
	w.group = w.spare[:0]
	w.mu.Unlock()
	if len(group) > 0 {
		err := w.commit(group)
		for i, r := range group {
			w.s.finish(r, r.place, err)
			group[i] = nil
		}
	}
	w.spare = group
}

// commit brings a group to stable storage. When it fails, so do the records behind it, whose places are no more.
func (w *writer) commit(group []*request) error {
	p := w.pack
	end := group[len(group)-1].place.End()
	err := w.writeGroup(group)
	if err != nil {
		err = classify(err)
		w.rollBack(err)
		return err
	}
	if err = w.s.sync(p.file); err != nil {
		// What is on the disk is unknown, and stays unknown. Recover will look, after a restart.
		w.abandon()
		w.refuse(err)
		return err
	}
	p.end = end
	w.s.table.update(p.g, func(info *segmentInfo) { info.end = end })
	return nil
}

// writeGroup writes the records of the group one after the other with few calls.
func (w *writer) writeGroup(group []*request) error {
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
	for _, r := range group {
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
	w.mu.Lock()
	p.allocated = 0 // nobody gets a place meanwhile
	w.mu.Unlock()
	w.refuse(cause)
	if err := p.file.Truncate(p.end); err != nil {
		w.abandon()
		return
	}
	w.mu.Lock()
	p.next, p.allocated = p.end, p.end
	w.mu.Unlock()
}

// refuse answers those with an error whose places are no more.
func (w *writer) refuse(err error) {
	w.mu.Lock()
	lost := w.group
	w.group = nil
	w.mu.Unlock()
	for _, r := range lost {
		w.s.finish(r, Ref{}, err)
	}
}

// abandon closes a pack that can't be written any more.
func (w *writer) abandon() {
	p := w.pack
	w.take(nil)
	w.s.table.update(p.g, func(info *segmentInfo) { info.sealed = true })
	if err := p.file.Close(); err != nil {
		w.s.opt.Logger.Warn("blob: close", "segment", p.g.String(), "err", err)
	}
}

// detach commits what has a place in the pack, and ends it: what was allocated and not used is given back. That needs no sync,
// since a longer file with zeros at its end means the same. The caller keeps others from getting places.
func (w *writer) detach() {
	w.flush()
	p := w.pack
	if p == nil {
		return
	}
	if w.s.failure() == nil {
		if err := p.file.Truncate(p.end); err != nil {
			w.s.opt.Logger.Warn("blob: trim", "segment", p.g.String(), "err", err)
		}
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
func (w *writer) adopt(p *pack) { w.take(p) }

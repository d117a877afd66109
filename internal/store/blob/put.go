package blob

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
)

// Put stores a content and returns when it is on stable storage. shard chooses the pack that is written: take the same
// for one account. sum is the SHA-256 of the content, which Put believes (Check compares).
//
// Each successful Put must be followed by exactly one Settle.
//
// Errors: ErrFull, ErrFailed, ErrClosed, ErrNotRecovered, an error of the content, or a passing one of the file
// system. When ctx ends while the content waits for its sync, Put returns its error and what was written counts as dead.
func (s *Store) Put(ctx context.Context, shard uint32, c Content, sum ID) (Ref, error) {
	if err := s.usable(); err != nil {
		return Ref{}, err
	}
	size := c.Size()
	if size < 0 || size > maxContent {
		return Ref{}, fmt.Errorf("blob: content of %d octets", size)
	}
	if size > s.opt.LargeFrom {
		return s.putLarge(ctx, c, size, sum)
	}
	weight := maxRecordSize(size)
	if err := s.pending.Acquire(ctx, weight); err != nil {
		return Ref{}, err
	}
	e, err := s.encode(c, size, sum)
	if err != nil {
		s.pending.Release(weight)
		return Ref{}, err
	}
	r := &request{e: e, weight: weight, done: make(chan struct{}, 1)}
	if err := s.writer(shard).submit(r); err != nil {
		s.finish(r, Ref{}, err)
	}
	return r.wait(ctx)
}

// encode makes the record of a content, sealed with the current key.
func (s *Store) encode(c Content, size int64, sum ID) (*encoded, error) {
	x, err := s.takeSeal(sum, size)
	if err != nil {
		return nil, err
	}
	e, err := s.codec.encode(c, size, sum, x)
	s.codec.giveBack(x)
	if err != nil {
		if x != nil {
			s.doneSealing(x.id)
		}
		return nil, err
	}
	e.counted = x != nil
	return e, nil
}

// drop gives up a record that no writer was given.
func (s *Store) drop(e *encoded) {
	s.codec.recycle(e.buf)
	if e.counted {
		s.doneSealing(e.keyID)
	}
}

func (s *Store) writer(shard uint32) *writer { return s.writers[shard%uint32(len(s.writers))] }

// request is one record on its way through a writer.
type request struct {
	e      *encoded
	turn   Segment       // in place of a record: end this pack
	weight int64         // taken from Store.pending
	done   chan struct{} // gets one value when ref and err are set
	state  atomic.Int32
	ref    Ref
	err    error
}

// States of a request: whoever leaves waiting first decides.
const (
	waiting int32 = iota
	answered
	abandoned
)

// wait returns what became of the request, or gives it up when ctx ends.
func (r *request) wait(ctx context.Context) (Ref, error) {
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, abandoned) {
			return Ref{}, fmt.Errorf("blob: put: %w", ctx.Err())
		}
		<-r.done
	}
	return r.ref, r.err
}

// finish answers a request and gives back what it held. A record whose caller has gone is dead.
func (s *Store) finish(r *request, ref Ref, err error) {
	e := r.e
	r.e = nil
	s.pending.Release(r.weight)
	if err == nil {
		s.table.update(ref.Segment, func(info *segmentInfo) {
			info.live += ref.StoredLen
			info.inflight++
		})
	}
	s.drop(e) // the pack counts it now
	r.ref, r.err = ref, err
	if r.state.CompareAndSwap(waiting, answered) {
		r.done <- struct{}{}
		return
	}
	if err == nil {
		s.Settle(ref, false)
	}
}

// Settle ends a Put: kept says whether a committed row names ref now. Until then its segment is not compacted.
func (s *Store) Settle(ref Ref, kept bool) {
	if ref.Segment.Large() {
		if !kept {
			s.remove(ref.Segment)
		}
		s.settleSealing(ref.Segment)
		return
	}
	s.table.update(ref.Segment, func(info *segmentInfo) {
		info.inflight--
		if !kept {
			info.live -= ref.StoredLen
		}
	})
}

// Delete says that the last row that named ref is gone, after the commit that did it. The octets count as dead, and
// the file of a large content is removed.
func (s *Store) Delete(ref Ref) {
	if ref.Segment.Large() {
		s.remove(ref.Segment)
		return
	}
	s.table.update(ref.Segment, func(info *segmentInfo) { info.live -= ref.StoredLen })
}

// classify adds ErrFull to what a full disk or an exhausted quota answers.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrFull) || errors.Is(err, ErrFailed) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("blob: %w", err)
}

package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"waxwing/internal/durable"
)

// syncEvery bounds the unwritten octets of a large file, so that its last sync is short and does not hold up others.
const syncEvery = 16 << 20

// putLarge streams a content into a file of its own, block by block, in the caller's goroutine. The file gets its name
// when it is whole and synced, so that one with the right name never is a torso.
func (s *Store) putLarge(ctx context.Context, c Content, size int64, id ID) (Ref, error) {
	if err := s.large.Acquire(ctx, 1); err != nil {
		return Ref{}, err
	}
	defer s.large.Release(1)
	if err := s.beginCall(); err != nil {
		return Ref{}, err
	}
	defer s.calls.Done()
	compress, err := s.codec.worthIt(c, size)
	if err != nil {
		return Ref{}, err
	}
	x, err := s.takeSeal(id, size)
	if err != nil {
		return Ref{}, err
	}
	var keyID uint32
	if x != nil {
		keyID = x.id
		defer s.codec.giveBack(x)
	}
	ref, err := s.putLargeSealed(ctx, c, size, id, compress, x)
	if err != nil {
		s.doneSealing(keyID)
		return Ref{}, err
	}
	s.keepSealing(ref.Segment, keyID)
	return ref, nil
}

// putLargeSealed makes the file.
func (s *Store) putLargeSealed(ctx context.Context, c Content, size int64, id ID, compress bool, x *seal) (Ref, error) {
	space := segmentHeaderSize + maxRecordSize(size)
	if err := s.room(space); err != nil {
		return Ref{}, err
	}
	g, err := s.numbers.take(largeBit)
	if err != nil {
		return Ref{}, classify(err)
	}
	var m marker
	if _, err := io.ReadFull(s.opt.Rand, m[:]); err != nil {
		return Ref{}, fmt.Errorf("blob: marker: %w", err)
	}
	temp := s.path(g) + durable.TempSuffix
	f, err := s.createSegment(temp, m, g, 0, space)
	if err != nil {
		return Ref{}, classify(err)
	}
	ref, err := s.writeLarge(ctx, f, c, Ref{Segment: g, Offset: segmentHeaderSize, Len: size, Sum: id.prefix()}, id, m, compress, x)
	if err == nil {
		err = s.sync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = s.opt.FS.Rename(temp, s.path(g))
	}
	if err != nil {
		if rerr := s.opt.FS.Remove(temp); rerr != nil {
			s.opt.Logger.Warn("blob: unfinished file can't be removed", "file", temp, "err", rerr)
		}
		return Ref{}, classify(err)
	}
	if err := s.syncDir(s.dir(g)); err != nil {
		return Ref{}, err
	}
	return ref, nil
}

// beginCall makes Close wait for this call.
func (s *Store) beginCall() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.failed != nil {
		return s.failed
	}
	s.calls.Add(1)
	return nil
}

// writeLarge writes the record of a large content: blocks, table, tail, and then the header, when the lengths are known.
func (s *Store) writeLarge(
	ctx context.Context, f durable.File, c Content, ref Ref, id ID, m marker, compress bool, x *seal,
) (Ref, error) {
	h := recordHeader{id: id, len: ref.Len}
	if x != nil {
		if err := x.draw(s.codec.rand); err != nil {
			return Ref{}, err
		}
		h.flags, h.keyID = flagEncrypted, x.id
	}
	buf := s.codec.block()
	defer s.codec.blocks.Put(buf)
	n := blocks(ref.Len)
	end := make([]byte, 0, n*entrySize+align+tailSize)
	at := ref.Offset + recordHeaderSize
	begin, synced := at, at
	for i := range n {
		if err := errors.Join(ctx.Err(), s.ctx.Err()); err != nil {
			return Ref{}, fmt.Errorf("blob: put: %w", err)
		}
		b, crc, err := s.codec.encodeBlock((*buf)[:0], c, ref.Len, i, compress, x)
		if err != nil {
			return Ref{}, err
		}
		if err := writeFull(f, b, at); err != nil {
			return Ref{}, err
		}
		end = end[:len(end)+entrySize]
		putEntry(end[len(end)-entrySize:], len(b), crc)
		at += int64(len(b))
		if at-synced >= syncEvery {
			if err := s.sync(f); err != nil {
				return Ref{}, err
			}
			synced = at
		}
	}
	stored := at - begin
	ref.StoredLen = recordSize(ref.Len, stored)
	h.stored = ref.StoredLen
	full := ref.Len
	if x != nil {
		full += sealOverhead(ref.Len)
	}
	if compress && stored < full {
		h.flags |= flagCompressed
	}
	header := make([]byte, recordHeaderSize)
	crc := h.encode(header, m, ref.Segment, ref.Offset)
	end = end[:len(end)+tailSize]
	sealBodyEnd(end, ref, h.flags, h.keyID, crc)
	if err := f.Truncate(ref.End()); err != nil {
		return Ref{}, err
	}
	if err := writeFull(f, end, ref.End()-int64(len(end))); err != nil {
		return Ref{}, err
	}
	return ref, writeFull(f, header, ref.Offset)
}

func writeFull(f durable.File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

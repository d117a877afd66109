package blob

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"waxwing/internal/durable"
)

// grow returns a slice of n octets, buf's own memory when that suffices.
func grow(buf []byte, n int64) []byte {
	if int64(cap(buf)) >= n {
		return buf[:n]
	}
	return make([]byte, n)
}

// readStored reads octets that must be there; a file that ends before is damage.
func readStored(f durable.File, p []byte, off int64, ref Ref) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s: the file ends before", ErrCorrupt, ref)
	}
	return fmt.Errorf("blob: read %s: %w", ref, err)
}

func damaged(ref Ref, block int64, err error) error {
	return fmt.Errorf("%w: %s: block %d: %w", ErrCorrupt, ref, block, err)
}

// ReadInto returns a whole content, checked. It takes one read call, and no allocation when cap(buf) is at least
// ref.BufferSize(); what buf held is lost. Errors: ErrCorrupt, ErrGone, ErrEncrypted, or one of the file system.
func (s *Store) ReadInto(ref Ref, buf []byte) ([]byte, error) {
	if err := ref.check(); err != nil {
		return nil, err
	}
	b, err := s.readInto(ref, buf)
	if s.doubtful(ref, err) {
		return s.readInto(ref, buf)
	}
	return b, err
}

// doubtful tells that what looks damaged should be read once more.
func (s *Store) doubtful(ref Ref, err error) bool {
	return err != nil && errors.Is(err, ErrCorrupt) && s.opt.Doubt != nil && s.opt.Doubt(ref.Segment)
}

func (s *Store) readInto(ref Ref, buf []byte) ([]byte, error) {
	h, err := s.files.acquire(ref.Segment)
	if err != nil {
		return nil, fmt.Errorf("blob: read %s: %w", ref, err)
	}
	defer s.files.release(h)
	n := ref.StoredLen - recordHeaderSize
	if ref.StoredLen == recordSize(ref.Len, ref.Len) {
		return s.readRaw(h.file, ref, grow(buf, n))
	}
	stored := s.codec.record(n)
	defer s.codec.recycle(stored)
	if err := readStored(h.file, *stored, ref.Offset+recordHeaderSize, ref); err != nil {
		return nil, err
	}
	return s.decode(ref, *stored, buf)
}

// readRaw reads a record whose length says that its blocks are stored as they are: they make the content in place.
func (s *Store) readRaw(f durable.File, ref Ref, src []byte) ([]byte, error) {
	if err := readStored(f, src, ref.Offset+recordHeaderSize, ref); err != nil {
		return nil, err
	}
	end, err := openBodyEnd(src[int64(len(src))-bodyEndSize(ref.Len):], ref)
	if err != nil {
		return nil, err
	}
	if end.flags != 0 { // it saved less than the padding, or than encryption took: rare, but allowed
		return s.decode(ref, append([]byte(nil), src...), src)
	}
	for i := range blocks(ref.Len) {
		_, crc := end.entry(i)
		b := src[i*blockSize:]
		if crc32.Checksum(b[:blockLen(ref.Len, i)], castagnoli) != crc {
			return nil, damaged(ref, i, errChecksum)
		}
	}
	return src[:ref.Len], nil
}

// decode makes the content of all that is stored after the record's header.
func (s *Store) decode(ref Ref, stored, buf []byte) ([]byte, error) {
	end, err := openBodyEnd(stored[int64(len(stored))-bodyEndSize(ref.Len):], ref)
	if err != nil {
		return nil, err
	}
	x, err := s.opener(ref, end, stored[:min(nonceSize, len(stored))])
	if err != nil {
		return nil, err
	}
	defer s.codec.giveBack(x)
	dst := grow(buf, ref.Len)
	at := 0
	for i := range blocks(ref.Len) {
		n, crc := end.entry(i)
		if err := s.codec.decodeBlock(dst[i*blockSize:], stored[at:at+n], blockLen(ref.Len, i), crc, x, i); err != nil {
			return nil, damaged(ref, i, err)
		}
		at += n
	}
	return dst, nil
}

// Head returns the first n octets of a content, or all of it when it is shorter, checked, in buf when that suffices.
// Only the blocks that hold them are read.
func (s *Store) Head(ref Ref, n int64, buf []byte) ([]byte, error) {
	n = max(0, min(n, ref.Len))
	if ref.Len <= blockSize {
		b, err := s.ReadInto(ref, buf)
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
	r, err := s.Open(ref)
	if err != nil {
		return nil, err
	}
	buf = grow(buf, n)
	_, err = r.ReadAt(buf, 0)
	if err = errors.Join(err, r.Close()); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf, nil
}

// Reader is an open content. Its methods may be called at the same time.
type Reader struct {
	s   *Store
	h   *handle
	ref Ref
	end bodyEnd
	at  []int64 // offset of each block in the segment; nil when they are stored as they are
	// seal opens the blocks of an encrypted record; guarded by mu as a block is opened at a time
	seal *seal

	mu     sync.Mutex
	cached int64 // number of the block in block, -1 for none
	block  *[]byte
	closed bool
}

// Open opens a content for reading in parts; Close the Reader. It stays readable whatever happens to the content. Each
// block of 128 KiB is checked when it is read: damage shows in ReadAt of the damaged part alone.
func (s *Store) Open(ref Ref) (*Reader, error) {
	if err := ref.check(); err != nil {
		return nil, err
	}
	h, err := s.files.acquire(ref.Segment)
	if err != nil {
		return nil, fmt.Errorf("blob: open %s: %w", ref, err)
	}
	r := &Reader{s: s, h: h, ref: ref, cached: -1}
	err = r.init()
	if s.doubtful(ref, err) {
		err = r.init()
	}
	if err != nil {
		s.files.release(h)
		return nil, err
	}
	return r, nil
}

// init reads the table.
func (r *Reader) init() error {
	b := make([]byte, bodyEndSize(r.ref.Len))
	if err := readStored(r.h.file, b, r.ref.End()-int64(len(b)), r.ref); err != nil {
		return err
	}
	var err error
	if r.end, err = openBodyEnd(b, r.ref); err != nil || r.end.flags == 0 {
		return err
	}
	if r.end.encrypted() && r.ref.Len > 0 {
		var nonce [nonceSize]byte
		if err := readStored(r.h.file, nonce[:], r.ref.Offset+recordHeaderSize, r.ref); err != nil {
			return err
		}
		if r.seal, err = r.s.opener(r.ref, r.end, nonce[:]); err != nil {
			return err
		}
	}
	r.at = make([]int64, blocks(r.ref.Len))
	at := r.ref.Offset + recordHeaderSize
	for i := range r.at {
		r.at[i] = at
		n, _ := r.end.entry(int64(i))
		at += int64(n)
	}
	return nil
}

// Size is the octets of the content.
func (r *Reader) Size() int64 { return r.ref.Len }

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("blob: read %s: negative offset", r.ref)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, fmt.Errorf("blob: read %s: %w", r.ref, ErrClosed)
	}
	done := 0
	for done < len(p) && off < r.ref.Len {
		i, within := off/blockSize, int(off%blockSize)
		size := blockLen(r.ref.Len, i)
		var n int
		if within == 0 && len(p)-done >= size && i != r.cached {
			if err := r.readBlock(p[done:done+size], i); err != nil {
				return done, err
			}
			n = size
		} else {
			if err := r.load(i, size); err != nil {
				return done, err
			}
			n = copy(p[done:], (*r.block)[within:size])
		}
		done += n
		off += int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// load reads block i into the cache.
func (r *Reader) load(i int64, size int) error {
	if r.cached == i {
		return nil
	}
	if r.block == nil {
		r.block = r.s.codec.block()
	}
	r.cached = -1
	if err := r.readBlock((*r.block)[:size], i); err != nil {
		return err
	}
	r.cached = i
	return nil
}

// readBlock reads and checks block i into dst, which has its length.
func (r *Reader) readBlock(dst []byte, i int64) error {
	err := r.readOnce(dst, i)
	if r.s.doubtful(r.ref, err) {
		return r.readOnce(dst, i)
	}
	return err
}

func (r *Reader) readOnce(dst []byte, i int64) error {
	n, crc := r.end.entry(i)
	at := r.ref.Offset + recordHeaderSize + i*blockSize
	stored := dst
	if r.at != nil {
		at = r.at[i]
	}
	if n != len(dst) || r.seal != nil {
		b := r.s.codec.block()
		defer r.s.codec.blocks.Put(b)
		stored = (*b)[:n]
	}
	if err := readStored(r.h.file, stored, at, r.ref); err != nil {
		return err
	}
	if err := r.s.codec.decodeBlock(dst, stored, len(dst), crc, r.seal, i); err != nil {
		return damaged(r.ref, i, err)
	}
	return nil
}

// Close gives the descriptor back. A second Close does nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.block != nil {
		r.s.codec.blocks.Put(r.block)
		r.block = nil
	}
	r.s.codec.giveBack(r.seal)
	r.seal = nil
	r.s.files.release(r.h)
	return nil
}

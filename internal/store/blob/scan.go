package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// searchWindow is what a scan reads at a time when it looks for the next record after damage.
const searchWindow = 256 << 10

// scanner walks the records of a segment by their headers. Where there is none it looks for the next place that has
// the segment's marker and a header with a right checksum, so that damage harms only what it hits. Its work is linear
// in the size of the file.
type scanner struct {
	r      io.ReaderAt
	size   int64
	g      Segment
	marker marker
	off    int64
	header [recordHeaderSize]byte
	window []byte
}

// record is what a scan found.
type record struct {
	id  ID
	ref Ref
}

// newScanner begins a scan at off. It needs the segment header for the marker; when that is damaged, it answers
// ErrCorrupt, but with a scanner if the marker can be taken from the first record, whose checksum tells that it is one.
func newScanner(r io.ReaderAt, size int64, g Segment, off int64) (*scanner, segmentHeader, error) {
	b := make([]byte, segmentHeaderSize+recordHeaderSize)
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, segmentHeader{}, fmt.Errorf("blob: scan %s: %w", g, err)
	}
	b = b[:n]
	h, err := decodeSegmentHeader(b, g)
	if err != nil {
		if len(b) < segmentHeaderSize+recordHeaderSize || errors.Is(err, ErrNewer) {
			return nil, h, err
		}
		first := b[segmentHeaderSize:]
		h.marker = marker(first[:8])
		if _, ok := decodeRecordHeader(first, h.marker, g, segmentHeaderSize); !ok {
			return nil, h, err
		}
	}
	off = alignUp(max(off, segmentHeaderSize))
	return &scanner{r: r, size: size, g: g, marker: h.marker, off: off}, h, err
}

// next returns the next record with a whole header and the octets that were skipped before it; io.EOF after the last,
// with the octets at the end that hold no record. The blocks of the record are not looked at.
func (s *scanner) next() (rec record, skipped int64, err error) {
	from := s.off
	for s.off+recordHeaderSize <= s.size {
		if n, err := s.r.ReadAt(s.header[:], s.off); n < recordHeaderSize {
			return record{}, 0, fmt.Errorf("blob: scan %s: %w", s.g, err)
		}
		if h, ok := decodeRecordHeader(s.header[:], s.marker, s.g, s.off); ok {
			rec = record{id: h.id, ref: Ref{Segment: s.g, Offset: s.off, StoredLen: h.stored, Len: h.len, Sum: h.id.prefix()}}
			skipped = s.off - from
			s.off += h.stored
			return rec, skipped, nil
		}
		if err := s.search(s.off + align); err != nil {
			return record{}, 0, err
		}
	}
	skipped = max(0, s.size-from)
	s.off = max(s.off, s.size)
	return record{}, skipped, io.EOF
}

// search sets off to the next place at or after from, a multiple of 8, where the marker stands; to the size without one.
func (s *scanner) search(from int64) error {
	if s.window == nil {
		s.window = make([]byte, searchWindow)
	}
	for from < s.size {
		n, err := s.r.ReadAt(s.window[:min(searchWindow, s.size-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("blob: scan %s: %w", s.g, err)
		}
		b := s.window[:n]
		for at := 0; ; {
			i := bytes.Index(b[at:], s.marker[:])
			if i < 0 {
				break
			}
			if at += i; at%align == 0 {
				s.off = from + int64(at)
				return nil
			}
			at++
		}
		if n < len(s.marker) || from+int64(n) >= s.size {
			break
		}
		// A marker at a multiple of 8 never lies across the end of a window, which is a multiple of 8 too.
		from += int64(n) &^ (align - 1)
	}
	s.off = s.size
	return nil
}

// Check reads one content whole and compares it with its id. Without the key of an encrypted one it compares the
// checksums of what is stored, and answers ErrEncrypted when they are right.
func (s *Store) Check(ref Ref, id ID) error {
	r, err := s.Open(ref)
	if errors.Is(err, ErrEncrypted) {
		if damage := s.checkStored(ref); damage != nil {
			return damage
		}
	}
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(r, 0, r.Size()))
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if ID(h.Sum(nil)) != id {
		return fmt.Errorf("%w: %s: SHA-256 differs", ErrCorrupt, ref)
	}
	return nil
}

// checkStored compares what is stored of a record with its checksums, for which no key is needed.
func (s *Store) checkStored(ref Ref) error {
	if err := ref.check(); err != nil {
		return err
	}
	h, err := s.files.acquire(ref.Segment)
	if err != nil {
		return fmt.Errorf("blob: check %s: %w", ref, err)
	}
	defer s.files.release(h)
	b := make([]byte, bodyEndSize(ref.Len))
	if err := readStored(h.file, b, ref.End()-int64(len(b)), ref); err != nil {
		return err
	}
	end, err := openBodyEnd(b, ref)
	if err != nil {
		return err
	}
	block := s.codec.block()
	defer s.codec.blocks.Put(block)
	at := ref.Offset + recordHeaderSize
	for i := range blocks(ref.Len) {
		n, crc := end.entry(i)
		stored := (*block)[:n]
		if err := readStored(h.file, stored, at, ref); err != nil {
			return err
		}
		if crc32.Checksum(stored, castagnoli) != crc {
			return damaged(ref, i, errChecksum)
		}
		at += int64(n)
	}
	return nil
}

// Verify reads every record of the store and calls fn with what Check says. Octets of a pack that hold no record are
// reported with a zero id and an error; the Ref then says where they are. An error of fn ends the walk.
func (s *Store) Verify(ctx context.Context, fn func(Ref, ID, error) error) error {
	large, err := s.list(largeBit)
	if err != nil {
		return fmt.Errorf("blob: verify: %w", err)
	}
	for _, g := range append(s.table.sorted(), large...) {
		if err := s.VerifySegment(ctx, g, fn); err != nil && !errors.Is(err, ErrGone) {
			return err
		}
	}
	return nil
}

// VerifySegment is Verify for one segment; ErrGone when it vanishes before it begins.
func (s *Store) VerifySegment(ctx context.Context, g Segment, fn func(Ref, ID, error) error) error {
	h, err := s.files.acquire(g)
	if err != nil {
		return err
	}
	defer s.files.release(h)
	size, err := h.file.Size()
	if err != nil {
		return err
	}
	if info, ok := s.table.get(g); ok {
		size = min(size, info.end) // what a writer has beyond is not there yet
	}
	sc, _, err := newScanner(h.file, size, g, 0)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			return err
		}
		if err := fn(Ref{Segment: g, StoredLen: size}, ID{}, err); err != nil || sc == nil {
			return err
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := sc.off
		rec, skipped, err := sc.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if skipped > 0 {
			gap := Ref{Segment: g, Offset: at, StoredLen: skipped}
			if err := fn(gap, ID{}, fmt.Errorf("%w: %s: no record", ErrCorrupt, gap)); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
		if err := fn(rec.ref, rec.id, s.Check(rec.ref, rec.id)); err != nil {
			return err
		}
	}
}

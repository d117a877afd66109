package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Known is what the rows say of one segment.
type Known struct {
	End  int64 // the greatest Ref.End of its rows
	Live int64 // the sum of StoredLen over its rows
}

// Recovered says what Recover saw.
type Recovered struct {
	Segments int   // packs
	Scanned  int64 // octets looked through: what lies past the known ends
	Found    int   // whole records there, which no row named
	Torn     int64 // octets past the last whole record, dropped or left
	Missing  []Segment
	Damaged  []Segment
}

// errMissing is logged: rows name octets that are not there.
var errMissing = errors.New("blob: rows name records past the end of the segment")

// Recover makes the store ready for Put. For each pack it scans what lies past the last octet that a row names (known;
// a pack without an entry is scanned whole) and tells fn of each whole record there: it is on stable storage, but the
// transaction that would have named it did not commit. fn says whether it lives on; a nil fn means no. A record that
// is not whole was never answered by Put, and ends the pack. Large files without an entry in known are told to fn too.
//
// Nothing that holds a whole record is deleted here, whatever known says: a database restored from an old copy must
// not cost the newer mail. Compact removes what is dead.
//
// Recovered.Missing names segments that are shorter than the rows say, Recovered.Damaged those that can't be scanned.
func (s *Store) Recover(
	ctx context.Context, known map[Segment]Known, fn func(Ref, ID) (live bool, err error),
) (Recovered, error) {
	s.mu.Lock()
	if s.recovered || s.closed {
		s.mu.Unlock()
		return Recovered{}, errors.New("blob: recover: only once, on an open store")
	}
	s.mu.Unlock()
	if fn == nil {
		fn = func(Ref, ID) (bool, error) { return false, nil }
	}
	var out Recovered
	for g := range known {
		s.numbers.raise(g)
	}
	newest := map[uint32]tail{}
	for _, g := range s.table.sorted() {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		out.Segments++
		t, err := s.recoverPack(ctx, g, known, fn, &out)
		if err != nil {
			return out, fmt.Errorf("blob: recover %s: %w", g, err)
		}
		if t.end > 0 {
			newest[t.shard] = t // the last one wins, sound or not: older packs are sealed
		}
	}
	if err := s.recoverLarge(ctx, known, fn, &out); err != nil {
		return out, err
	}
	for g, k := range known {
		if _, ok := s.table.get(g); !ok && !g.Large() && k.End > 0 {
			out.Missing = append(out.Missing, g)
			s.opt.Logger.Error("blob: pack is missing", "segment", g.String())
		}
	}
	for shard, t := range newest {
		if !t.sound {
			continue
		}
		if err := s.resume(shard, t); err != nil {
			return out, fmt.Errorf("blob: resume %s: %w", t.g, err)
		}
	}
	s.mu.Lock()
	s.recovered = true
	s.mu.Unlock()
	return out, nil
}

// tail is where a pack could be written on.
type tail struct {
	g      Segment
	shard  uint32
	marker marker
	end    int64
	sound  bool
}

// recoverPack scans the tail of one pack.
func (s *Store) recoverPack(
	ctx context.Context, g Segment, known map[Segment]Known, fn func(Ref, ID) (bool, error), out *Recovered,
) (tail, error) {
	k := known[g]
	f, err := s.opt.FS.OpenFile(s.path(g), os.O_RDONLY, 0)
	if err != nil {
		return tail{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	size, err := f.Size()
	if err != nil {
		return tail{}, err
	}
	end := max(k.End, segmentHeaderSize)
	sc, header, err := newScanner(f, size, g, end)
	t := tail{g: g, shard: header.shard, marker: header.marker, sound: err == nil}
	if errors.Is(err, ErrNewer) && k.End == 0 {
		// No row names it: after a way back to an older version and its rows it waits for the newer one.
		s.opt.Logger.Warn("blob: segment is left alone", "segment", g.String(), "err", err)
		s.table.drop(g)
		return tail{}, nil
	}
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			return tail{}, err
		}
		// A crash just after the file was made leaves no header: nothing was ever put there. Otherwise it is damage.
		if sc == nil && k.End == 0 && s.blank(f, size) {
			s.remove(g)
			s.table.drop(g)
			return tail{}, nil
		}
		out.Damaged = append(out.Damaged, g)
		s.opt.Logger.Error("blob: damaged segment header", "segment", g.String(), "err", err)
	}
	live := k.Live
	if sc != nil && size > end {
		// What a killed process wrote but did not sync may be whole, and yet not on stable storage.
		if err := s.sync(f); err != nil {
			return tail{}, err
		}
		last, found, err := s.scanTail(ctx, sc, size, fn, out)
		if err != nil {
			return tail{}, err
		}
		live += found
		end = max(end, last)
	}
	if size < k.End {
		t.sound = false
		out.Missing = append(out.Missing, g)
		s.opt.Logger.Error("blob: records are missing", "segment", g.String(), "err", errMissing, "size", size, "end", k.End)
	}
	t.end = end
	s.table.update(g, func(info *segmentInfo) {
		*info = segmentInfo{shard: header.shard, end: end, live: live, sealed: true}
	})
	return t, nil
}

// blank says whether a file holds nothing but zeros, or is shorter than a header.
func (s *Store) blank(r io.ReaderAt, size int64) bool {
	if size < segmentHeaderSize {
		return true
	}
	b := make([]byte, min(size, 4096))
	if n, err := r.ReadAt(b, 0); n < len(b) && !errors.Is(err, io.EOF) {
		return false
	}
	// Only the first page is looked at: records are written after the header and the name were synced.
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// scanTail tells fn of the whole records that a scan finds, and returns the end of the last one and the octets of those
// that live on.
func (s *Store) scanTail(
	ctx context.Context, sc *scanner, size int64, fn func(Ref, ID) (bool, error), out *Recovered,
) (end, live int64, err error) {
	end = sc.off
	out.Scanned += size - sc.off
	for {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		rec, _, err := sc.next()
		if errors.Is(err, io.EOF) {
			out.Torn += size - end
			return end, live, nil
		}
		if err != nil {
			return 0, 0, err
		}
		if rec.ref.End() > size || !s.whole(rec.ref) {
			continue
		}
		end = rec.ref.End()
		out.Found++
		ok, err := fn(rec.ref, rec.id)
		if err != nil {
			return 0, 0, err
		}
		if ok {
			live += rec.ref.StoredLen
		}
	}
}

// whole reads the blocks of a record and says whether all are right. Of one that can't be decrypted the checksums say it.
func (s *Store) whole(ref Ref) bool {
	r, err := s.Open(ref)
	if errors.Is(err, ErrEncrypted) {
		return s.checkStored(ref) == nil
	}
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, io.NewSectionReader(r, 0, r.Size()))
	return errors.Join(err, r.Close()) == nil
}

// resume opens the newest pack of a shard for writing, without the rubbish at its end. Where that can't be done, on a
// read-only file system say, reading works, and writing begins with a new pack as soon as it can.
func (s *Store) resume(shard uint32, t tail) error {
	if shard >= uint32(len(s.writers)) || t.end+s.opt.Step/2 > s.opt.SegmentSize {
		return nil
	}
	f, err := s.opt.FS.OpenFile(s.path(t.g), os.O_RDWR, 0)
	if err != nil {
		s.opt.Logger.Warn("blob: pack can't be written on", "segment", t.g.String(), "err", err)
		return nil
	}
	if err := f.Truncate(t.end); err != nil {
		s.opt.Logger.Warn("blob: pack can't be written on", "segment", t.g.String(), "err", err)
		return f.Close()
	}
	if err := s.sync(f); err != nil {
		return errors.Join(err, f.Close())
	}
	s.table.update(t.g, func(info *segmentInfo) { info.sealed = false })
	s.writers[shard].adopt(&pack{g: t.g, file: f, marker: t.marker, end: t.end, next: t.end, allocated: t.end})
	return nil
}

// recoverLarge tells fn of the large files that no row names.
func (s *Store) recoverLarge(
	ctx context.Context, known map[Segment]Known, fn func(Ref, ID) (bool, error), out *Recovered,
) error {
	files, err := s.list(largeBit)
	if err != nil {
		return fmt.Errorf("blob: recover: %w", err)
	}
	for _, g := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, ok := known[g]; ok {
			continue
		}
		live, err := s.recoverLargeFile(g, fn, out)
		if err != nil {
			return fmt.Errorf("blob: recover %s: %w", g, err)
		}
		if !live {
			s.table.orphans = append(s.table.orphans, g)
		}
	}
	return nil
}

// recoverLargeFile looks at one file. Its name says that it was synced whole, so only its header is read.
func (s *Store) recoverLargeFile(g Segment, fn func(Ref, ID) (bool, error), out *Recovered) (live bool, err error) {
	f, err := s.opt.FS.OpenFile(s.path(g), os.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // only read
	size, err := f.Size()
	if err != nil {
		return false, err
	}
	sc, _, err := newScanner(f, size, g, 0)
	if errors.Is(err, ErrNewer) {
		s.opt.Logger.Warn("blob: segment is left alone", "segment", g.String(), "err", err)
		return true, nil
	}
	if errors.Is(err, ErrCorrupt) && sc == nil {
		out.Damaged = append(out.Damaged, g)
		return true, nil // not to be removed by us
	}
	if sc == nil {
		return false, err
	}
	rec, _, err := sc.next()
	if errors.Is(err, io.EOF) || (err == nil && rec.ref.End() > size) {
		out.Damaged = append(out.Damaged, g)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	out.Found++
	return fn(rec.ref, rec.id)
}

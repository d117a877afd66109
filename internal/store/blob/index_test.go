package blob

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
)

// rows stands for the rows in SQL: which content is where, durable at once.
type rows struct {
	mu   sync.Mutex
	refs map[ID]Ref
	data map[ID][]byte
	fail error // of the next Move
}

func newRows() *rows { return &rows{refs: map[ID]Ref{}, data: map[ID][]byte{}} }

func (x *rows) Rows(_ context.Context, g Segment, from int64, limit int) ([]Located, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []Located
	for id, ref := range x.refs {
		if ref.Segment == g && ref.Offset >= from {
			out = append(out, Located{id, ref})
		}
	}
	slices.SortFunc(out, func(a, b Located) int { return cmp.Compare(a.Ref.Offset, b.Ref.Offset) })
	return out[:min(limit, len(out))], nil
}

func (x *rows) Move(_ context.Context, moves []Move, moved []bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.fail; err != nil {
		x.fail = nil
		return err
	}
	for i, m := range moves {
		if x.refs[m.ID] == m.From {
			x.refs[m.ID] = m.To
			moved[i] = true
		}
	}
	return nil
}

// put stores a content and its row.
func (x *rows) put(s *Store, shard uint32, b []byte) error {
	id := ID(sha256.Sum256(b))
	ref, err := s.Put(context.Background(), shard, bytes.NewReader(b), id)
	if err != nil {
		return err
	}
	x.mu.Lock()
	_, twice := x.refs[id]
	if !twice {
		x.refs[id], x.data[id] = ref, b
	}
	x.mu.Unlock()
	s.Settle(ref, !twice)
	return nil
}

// delete drops a row, then the content.
func (x *rows) delete(s *Store, id ID) {
	x.mu.Lock()
	ref, ok := x.refs[id]
	delete(x.refs, id)
	x.mu.Unlock()
	if ok {
		s.Delete(ref)
	}
}

// read reads a content as package store does: once more with a fresh Ref when the first was overtaken by Compact.
func (x *rows) read(s *Store, id ID, buf []byte) ([]byte, error) {
	for try := 0; ; try++ {
		x.mu.Lock()
		ref, ok := x.refs[id]
		x.mu.Unlock()
		if !ok {
			return nil, nil
		}
		b, err := s.ReadInto(ref, buf)
		if errors.Is(err, ErrGone) && try < 3 {
			continue
		}
		return b, err
	}
}

// snapshot copies the rows while at runs, so that what at does belongs to the same moment.
func (x *rows) snapshot(at func()) map[ID]Ref {
	x.mu.Lock()
	defer x.mu.Unlock()
	at()
	return maps.Clone(x.refs)
}

// known is what SQL would say to Recover.
func known(refs map[ID]Ref) map[Segment]Known {
	out := map[Segment]Known{}
	for _, ref := range refs {
		k := out[ref.Segment]
		k.End, k.Live = max(k.End, ref.End()), k.Live+ref.StoredLen
		out[ref.Segment] = k
	}
	return out
}

// verifyAll reads every row's content.
func (x *rows) verifyAll(s *Store, refs map[ID]Ref) error {
	for id, ref := range refs {
		b, err := s.ReadInto(ref, nil)
		if err != nil {
			return err
		}
		if ID(sha256.Sum256(b)) != id {
			return fmt.Errorf("%s holds another content", ref)
		}
	}
	return nil
}

func TestCompactKeepsTheLiveAndFreesTheRest(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		ctx := context.Background()
		o := small(t, m, newDisk(t))
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		x := newRows()
		for i := range 400 {
			make := random
			if i%3 == 0 {
				make = words // some records are compressed, and move as they are
			}
			if err := x.put(s, uint32(i), make(uint64(i), 1000+i*50)); err != nil {
				t.Fatal(err)
			}
		}
		for i, id := range slices.SortedFunc(maps.Keys(x.refs), func(a, b ID) int { return bytes.Compare(a[:], b[:]) }) {
			if i%5 != 0 {
				x.delete(s, id)
			}
		}
		before := s.Stats()
		held, err := s.Open(Ref{}) // a bad Ref holds nothing
		if err == nil {
			t.Fatal(held)
		}
		var old Ref
		var oldID ID
		for oldID, old = range x.refs {
			if old.Segment == 1 {
				break
			}
		}
		reader, err := s.Open(old)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Compact(ctx, x)
		if err != nil || out.Segments < 10 || out.Moved == 0 || len(out.Damaged) > 0 {
			t.Fatalf("%+v, %v", out, err)
		}
		after := s.Stats()
		headers := int64(after.Packs-before.Packs+out.Segments) * segmentHeaderSize // of the packs that the copies needed
		if before.Octets-after.Octets != out.Freed-headers || after.Live != before.Live {
			t.Errorf("before %+v, after %+v, result %+v", before, after, out)
		}
		if err := x.verifyAll(s, x.refs); err != nil {
			t.Error(err)
		}
		// The reader that was open keeps its bytes; a new one by the old Ref is told to look again.
		if err := readerHolds(reader, x.data[oldID]); err != nil {
			t.Error(err)
		}
		if _, err := s.ReadInto(old, nil); !errors.Is(err, ErrGone) {
			t.Errorf("read by an old Ref: %v", err)
		}
		if _, err := s.opt.FS.Stat(s.path(old.Segment)); err != nil {
			t.Errorf("the file went while it was read: %v", err)
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.opt.FS.Stat(s.path(old.Segment)); err == nil {
			t.Error("the file stays though nobody reads it")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err = Open(o)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := s.Recover(ctx, known(x.refs), nil)
		if err != nil || len(rec.Missing)+len(rec.Damaged) > 0 {
			t.Errorf("%+v, %v", rec, err)
		}
		if st := s.Stats(); st.Live != after.Live {
			t.Errorf("live %d after a restart, %d before", st.Live, after.Live)
		}
		if err := errors.Join(x.verifyAll(s, x.refs), s.Close()); err != nil {
			t.Error(err)
		}
	})
}

func readerHolds(r *Reader, want []byte) error {
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil {
		return err
	}
	if !bytes.Equal(b, want) {
		return errors.New("reader: other bytes")
	}
	return nil
}

func TestCompactLeavesWhatItMayNotTouch(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		ctx := context.Background()
		fsys := newDisk(t)
		s := open(t, small(t, m, fsys))
		x := newRows()
		fill := func(n int) {
			for i := range n {
				if err := x.put(s, 0, random(uint64(len(x.data)*1000+i), 20<<10)); err != nil {
					t.Fatal(err)
				}
			}
		}
		unsettled := random(77, 1000)
		id := ID(sha256.Sum256(unsettled))
		ref, err := s.Put(ctx, 0, bytes.NewReader(unsettled), id)
		if err != nil {
			t.Fatal(err)
		}
		fill(15) // the pack of the unsettled record is sealed now
		for id := range maps.Clone(x.refs) {
			x.delete(s, id)
		}
		if out, err := s.Compact(ctx, x); err != nil || out.Segments != 0 {
			t.Fatalf("with a Put not settled: %+v, %v", out, err)
		}
		x.refs[id], x.data[id] = ref, unsettled
		s.Settle(ref, true)

		boom := errors.New("transaction failed")
		x.fail = boom
		if _, err := s.Compact(ctx, x); !errors.Is(err, boom) {
			t.Fatalf("Move failed: %v", err)
		}
		if b, err := x.read(s, id, nil); err != nil || !bytes.Equal(b, unsettled) {
			t.Fatalf("after the failed Move: %v", err)
		}
		// A damaged record stays where it is, with its pack, and is reported.
		if err := fsys.Flip(s.path(ref.Segment), ref.Offset+recordHeaderSize+3, 1); err != nil {
			t.Fatal(err)
		}
		out, err := s.Compact(ctx, x)
		if err != nil || len(out.Damaged) != 1 || out.Damaged[0].Ref != ref {
			t.Fatalf("damaged: %+v, %v", out, err)
		}
		if out, err := s.Compact(ctx, x); err != nil || len(out.Damaged) != 0 {
			t.Fatalf("damaged, again: %+v, %v", out, err)
		}
		// A damaged header hides a record from scans, but rows decide, and so it moves.
		if err := fsys.Flip(s.path(ref.Segment), ref.Offset+recordHeaderSize+3, 1); err != nil {
			t.Fatal(err)
		}
		if err := fsys.Flip(s.path(ref.Segment), ref.Offset+20, 1); err != nil {
			t.Fatal(err)
		}
		s.table.update(ref.Segment, func(i *segmentInfo) { i.stuck = false })
		if out, err := s.Compact(ctx, x); err != nil || out.Moved != 1 {
			t.Fatalf("damaged header: %+v, %v", out, err)
		}
		if b, err := x.read(s, id, nil); err != nil || !bytes.Equal(b, unsettled) {
			t.Errorf("moved: %v", err)
		}
	})
}

// TestReadersAndWritersDuringCompaction lets all go on at once; the race detector looks on.
func TestReadersAndWritersDuringCompaction(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		s := open(t, m.with(t, Options{Dir: t.TempDir(), Reserve: -1, SegmentSize: 256 << 10, Step: 64 << 10, LargeFrom: 40 << 10, OpenFiles: 3}))
		x := newRows()
		var work, background sync.WaitGroup
		stop := make(chan struct{})
		for g := range 4 {
			work.Go(func() {
				for i := range 80 {
					b := random(uint64(g*1000+i), 500+(i%40)*1000)
					if err := x.put(s, uint32(g), b); err != nil {
						t.Error(err)
						return
					}
					if i%4 != 0 {
						x.delete(s, sha256.Sum256(b))
					}
				}
			})
			background.Go(func() {
				var buf []byte
				for {
					select {
					case <-stop:
						return
					default:
					}
					for id := range x.snapshot(func() {}) {
						b, err := x.read(s, id, buf)
						if err != nil {
							t.Errorf("read: %v", err)
							return
						}
						if b == nil {
							continue // deleted meanwhile
						}
						if ID(sha256.Sum256(b)) != id {
							t.Error("read other bytes")
							return
						}
						buf = b
					}
				}
			})
		}
		moved := 0
		background.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				out, err := s.Compact(context.Background(), x)
				if err != nil {
					t.Errorf("compact: %v", err)
					return
				}
				moved += out.Moved
			}
		})
		work.Wait()
		close(stop)
		background.Wait()
		out, err := s.Compact(context.Background(), x)
		if err != nil || moved+out.Moved == 0 {
			t.Errorf("moved %d, %v", moved+out.Moved, err)
		}
		if err := x.verifyAll(s, x.refs); err != nil {
			t.Error(err)
		}
	})
}

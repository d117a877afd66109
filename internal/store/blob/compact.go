package blob

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
)

// Index is what knows which records are alive: the rows in SQL.
type Index interface {
	// Rows returns the rows that name segment g at offset from or later, in ascending order of offset, at most limit.
	Rows(ctx context.Context, g Segment, from int64, limit int) ([]Located, error)
	// Move lets the rows that name moves[i].From name moves[i].To, all in one transaction, and sets moved[i] where
	// there was such a row. After an error nothing was moved.
	Move(ctx context.Context, moves []Move, moved []bool) error
}

// Deadline is what an Index may know besides: packs that hold dead octets which have to go, however much of the pack is alive.
type Deadline interface {
	Due(ctx context.Context) ([]Segment, error)
}

// Located is one row: a content and where it is.
type Located struct {
	ID  ID
	Ref Ref
}

// Move is one record that got a new place.
type Move struct {
	ID       ID
	From, To Ref
}

// Compacted says what Compact did.
type Compacted struct {
	Segments int   // removed
	Moved    int   // records
	Freed    int64 // octets of removed segments, less what was written anew
	Damaged  []Located
}

// compactRows is how many records move in one transaction.
const compactRows = 512

// Compact rewrites the sealed packs of which less than half is alive, and those that are due (Deadline; one that is being
// written is sealed first): it copies their live records to the packs being
// written, lets the index name the copies, and removes a pack when no row names it and no reader holds it. The rows
// decide, never the counts. A damaged record is reported and stays, with its pack. It may be stopped at any point by
// ctx, or by a crash: what was moved is moved, and what is left is found again. After a change of keys it rewrites all that
// is under another key than the current one, or under none.
func (s *Store) Compact(ctx context.Context, ix Index) (Compacted, error) {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	var out Compacted
	if err := s.usable(); err != nil {
		return out, err
	}
	if err := s.removeOrphans(ctx, ix, &out); err != nil {
		return out, fmt.Errorf("blob: compact: %w", err)
	}
	due := map[Segment]bool{}
	if d, ok := ix.(Deadline); ok {
		list, err := d.Due(ctx)
		if err != nil {
			return out, fmt.Errorf("blob: compact: %w", err)
		}
		for _, g := range list {
			due[g] = true
		}
	}
	for _, g := range s.table.sorted() {
		info, ok := s.table.get(g)
		if ok && due[g] && !info.sealed {
			s.writer(info.shard).endPack(g)
			info, ok = s.table.get(g)
		}
		if !ok || !info.sealed || info.stuck || info.inflight > 0 || info.live*2 >= info.end && !due[g] {
			continue
		}
		if err := s.compactPack(ctx, ix, g, info, &out); err != nil {
			return out, fmt.Errorf("blob: compact %s: %w", g, err)
		}
	}
	if err := s.sweep(ctx, ix, &out); err != nil {
		return out, fmt.Errorf("blob: encrypt anew: %w", err)
	}
	return out, nil
}

// removeOrphans removes the large files that Recover found without a row, if there still is none.
func (s *Store) removeOrphans(ctx context.Context, ix Index, out *Compacted) error {
	for len(s.table.orphans) > 0 {
		g := s.table.orphans[0]
		rows, err := ix.Rows(ctx, g, 0, 1)
		if err != nil {
			return err
		}
		s.table.orphans = s.table.orphans[1:]
		if len(rows) > 0 {
			continue
		}
		if info, err := s.opt.FS.Stat(s.path(g)); err == nil {
			out.Freed += info.Size()
		}
		s.remove(g)
		out.Segments++
	}
	return nil
}

// compactPack moves what is alive in one pack and removes it.
func (s *Store) compactPack(ctx context.Context, ix Index, g Segment, info segmentInfo, out *Compacted) error {
	h, err := s.files.acquire(g)
	if err != nil {
		return err
	}
	damage := len(out.Damaged)
	err = s.moveRows(ctx, ix, h, info.shard, out)
	s.files.release(h)
	if err != nil {
		return err
	}
	if len(out.Damaged) > damage {
		s.table.update(g, func(i *segmentInfo) { i.stuck = true })
		return nil
	}
	// Nothing can name the pack any more: it is sealed, all its Puts are settled. Ask once more all the same.
	rows, err := ix.Rows(ctx, g, 0, 1)
	if err != nil {
		return err
	}
	if len(rows) > 0 {
		return nil
	}
	s.table.drop(g)
	s.remove(g)
	out.Segments++
	out.Freed += info.end
	return nil
}

// moveRows moves the records that rows name, a transaction at a time.
func (s *Store) moveRows(ctx context.Context, ix Index, h *handle, shard uint32, out *Compacted) error {
	for from := int64(0); ; {
		rows, err := ix.Rows(ctx, h.g, from, compactRows)
		if err != nil || len(rows) == 0 {
			return err
		}
		from = rows[len(rows)-1].Ref.Offset + 1
		moves, err := s.copyRecords(ctx, h, shard, rows, out)
		if err == nil && len(moves) > 0 {
			err = s.move(ctx, ix, moves, out)
		} else {
			s.settleAll(moves, nil)
		}
		if err != nil {
			return err
		}
	}
}

// copyRecords writes the records of some rows anew. When it fails, what it wrote is returned to be settled.
func (s *Store) copyRecords(
	ctx context.Context, h *handle, shard uint32, rows []Located, out *Compacted,
) ([]Move, error) {
	var moves []Move
	var waiting []*request
	var held int64
	// The moves take part of the room for pending octets, never so much that deliveries wait for them.
	limit := s.opt.Pending / 4
	collect := func() error {
		var first error
		for i, r := range waiting {
			ref, err := r.wait(context.Background()) // the writer answers each, also when the store is closed
			if err != nil {
				first = errors.Join(first, err)
				continue
			}
			moves[len(moves)-len(waiting)+i].To = ref
		}
		waiting, held = waiting[:0], 0
		return first
	}
	for _, row := range rows {
		e, err := s.takeRecord(h, row)
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrEncrypted) {
			s.opt.Logger.Error("blob: record can't be moved", "record", row.Ref.String(), "err", err)
			out.Damaged = append(out.Damaged, row)
			continue
		}
		if err != nil {
			return moves, errors.Join(err, collect())
		}
		weight := min(e.size(), s.opt.Pending)
		if held > 0 && held+weight > limit {
			if err := collect(); err != nil {
				s.drop(e)
				return moves, err
			}
		}
		if err := s.pending.Acquire(ctx, weight); err != nil {
			s.drop(e)
			return moves, errors.Join(err, collect())
		}
		held += weight
		r := &request{e: e, weight: weight, done: make(chan struct{}, 1)}
		if err := s.writer(shard).submit(r); err != nil {
			s.finish(r, Ref{}, err)
		}
		waiting = append(waiting, r)
		moves = append(moves, Move{ID: row.ID, From: row.Ref})
	}
	return moves, collect()
}

// takeRecord reads a record as it is stored and checks it. One that is not under the current key is encrypted anew.
func (s *Store) takeRecord(h *handle, row Located) (*encoded, error) {
	ref := row.Ref
	if err := ref.check(); err != nil {
		return nil, err
	}
	if ref.StoredLen > s.opt.SegmentSize-segmentHeaderSize {
		return nil, fmt.Errorf("%w: %s: longer than a segment", ErrCorrupt, ref)
	}
	e := &encoded{buf: s.codec.record(ref.StoredLen), id: row.ID, len: ref.Len}
	end, err := s.readRecord(h, ref, *e.buf)
	if err != nil {
		s.codec.recycle(e.buf)
		return nil, err
	}
	e.flags, e.keyID = end.flags, end.keyID
	if s.opt.Keys == nil {
		return e, nil
	}
	if key, _ := s.opt.Keys.Current(); under(end, ref, key) {
		return e, nil
	}
	defer s.codec.recycle(e.buf)
	return s.renew(row, *e.buf)
}

func (s *Store) readRecord(h *handle, ref Ref, b []byte) (bodyEnd, error) {
	if err := readStored(h.file, b, ref.Offset, ref); err != nil {
		return bodyEnd{}, err
	}
	end, err := openBodyEnd(b[int64(len(b))-bodyEndSize(ref.Len):], ref)
	if err != nil {
		return bodyEnd{}, err
	}
	at := recordHeaderSize
	for i := range blocks(ref.Len) {
		n, crc := end.entry(i)
		if crc32.Checksum(b[at:at+n], castagnoli) != crc {
			return bodyEnd{}, damaged(ref, i, errChecksum)
		}
		at += n
	}
	return end, nil
}

// move lets the index name the new places and settles both sides.
func (s *Store) move(ctx context.Context, ix Index, moves []Move, out *Compacted) error {
	if err := s.usable(); err != nil {
		s.settleAll(moves, nil)
		return err
	}
	moved := make([]bool, len(moves))
	if err := ix.Move(ctx, moves, moved); err != nil {
		s.settleAll(moves, nil)
		return err
	}
	s.settleAll(moves, moved)
	for i, m := range moves {
		if moved[i] {
			s.Delete(m.From)
			out.Moved++
			out.Freed -= m.To.StoredLen
		}
	}
	return nil
}

// settleAll settles the copies; nil means that none is named.
func (s *Store) settleAll(moves []Move, moved []bool) {
	for i, m := range moves {
		if m.To != (Ref{}) {
			s.Settle(m.To, moved != nil && moved[i])
		}
	}
}

// Stats are figures for people and metrics.
type Stats struct {
	Packs  int
	Octets int64 // in packs
	Live   int64 // of these
	Syncs  int64 // since Open
	Failed bool
}

// Stats returns the figures of now.
func (s *Store) Stats() Stats {
	out := Stats{Syncs: s.syncs.Load(), Failed: s.failure() != nil}
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	for _, info := range s.table.packs {
		out.Packs++
		out.Octets += info.end
		out.Live += info.live
	}
	return out
}

package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
)

// sweep encrypts anew what is not under the current key: it rewrites the packs that hold such records, and large files. It
// is over when one walk has seen everything under the current key and nothing under another on its way; then the keys are
// told. Broken off, the next walk goes on with the packs that are left.
func (s *Store) sweep(ctx context.Context, ix Index, out *Compacted) error {
	if s.opt.Keys == nil {
		return nil
	}
	key, swept := s.opt.Keys.Current()
	if swept {
		return nil
	}
	clean := s.sealingOnly(key) // from here on new records are under this key, or a newer one
	for _, g := range s.table.sorted() {
		ok, err := s.sweepPack(ctx, ix, g, key, out)
		if err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
		clean = clean && ok
	}
	files, err := s.list(largeBit)
	if err != nil {
		return err
	}
	for _, g := range files {
		if err := s.sweepLarge(ctx, ix, g, key, out); err != nil && !errors.Is(err, ErrGone) {
			return fmt.Errorf("%s: %w", g, err)
		}
	}
	if now, _ := s.opt.Keys.Current(); !clean || now != key {
		return nil
	}
	return s.opt.Keys.Swept(key)
}

// Stale returns the octets in packs that may hold records under another key than the current one, and those in all packs.
func (s *Store) Stale() (octets, total int64) {
	if s.opt.Keys == nil {
		return 0, 0
	}
	key, swept := s.opt.Keys.Current()
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	for _, info := range s.table.packs {
		total += info.live
		if !swept && info.sweptFor != key {
			octets += info.live
		}
	}
	return octets, total
}

// sweepPack rewrites a pack with a record that is not under key; ok means that there is none any more.
func (s *Store) sweepPack(ctx context.Context, ix Index, g Segment, key uint32, out *Compacted) (ok bool, err error) {
	info, there := s.table.get(g)
	if !there || info.sweptFor == key {
		return true, nil
	}
	if info.inflight > 0 { // a record that no row names yet
		return false, nil
	}
	if !s.sealingOnly(key) {
		return false, nil
	}
	stale, err := s.stale(ctx, ix, g, key)
	if err != nil {
		return false, err
	}
	if stale && !info.sealed {
		if err := s.turn(ctx, info.shard, g); err != nil {
			return false, err
		}
		if info, there = s.table.get(g); !there || !info.sealed || info.inflight > 0 {
			return false, nil
		}
	}
	if stale && !info.stuck {
		if err := s.compactPack(ctx, ix, g, info, out); err != nil {
			return false, err
		}
	}
	s.table.update(g, func(i *segmentInfo) { i.sweptFor = key })
	return true, nil
}

// stale tells whether rows name a record of a segment that is not under key.
func (s *Store) stale(ctx context.Context, ix Index, g Segment, key uint32) (bool, error) {
	h, err := s.files.acquire(g)
	if err != nil {
		return false, err
	}
	defer s.files.release(h)
	var buf []byte
	for from := int64(0); ; {
		rows, err := ix.Rows(ctx, g, from, compactRows)
		if err != nil || len(rows) == 0 {
			return false, err
		}
		from = rows[len(rows)-1].Ref.Offset + 1
		for _, row := range rows {
			if row.Ref.check() != nil || row.Ref.Len == 0 {
				continue
			}
			buf = grow(buf, bodyEndSize(row.Ref.Len))
			if readStored(h.file, buf, row.Ref.End()-int64(len(buf)), row.Ref) != nil {
				continue // damage is for Verify to tell
			}
			if end, err := openBodyEnd(buf, row.Ref); err == nil && !under(end, row.Ref, key) {
				return true, nil
			}
		}
	}
}

// under tells whether a record is encrypted with key. An empty content has nothing to encrypt.
func under(end bodyEnd, ref Ref, key uint32) bool {
	return ref.Len == 0 || (end.encrypted() && end.keyID == key)
}

// turn has the writer of a shard end its pack, if that still is g.
func (s *Store) turn(ctx context.Context, shard uint32, g Segment) error {
	r := &request{turn: g, done: make(chan struct{}, 1)}
	if err := s.writer(shard).submit(r); err != nil {
		return err
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sweepLarge writes a large content anew under the current key.
func (s *Store) sweepLarge(ctx context.Context, ix Index, g Segment, key uint32, out *Compacted) error {
	rows, err := ix.Rows(ctx, g, 0, 1)
	if err != nil || len(rows) == 0 {
		return err
	}
	if stale, err := s.stale(ctx, ix, g, key); err != nil || !stale {
		return err
	}
	row := rows[0]
	if err := s.Check(row.Ref, row.ID); err != nil {
		if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrEncrypted) {
			s.opt.Logger.Error("blob: record can't be encrypted anew", "record", row.Ref.String(), "err", err)
			out.Damaged = append(out.Damaged, row)
			return nil
		}
		return err
	}
	r, err := s.Open(row.Ref)
	if err != nil {
		return err
	}
	to, err := s.putLarge(ctx, r, row.Ref.Len, row.ID)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	return s.move(ctx, ix, []Move{{ID: row.ID, From: row.Ref, To: to}}, out)
}

// renew makes of a record as it is stored one under the current key, and checks what it holds.
func (s *Store) renew(row Located, stored []byte) (*encoded, error) {
	content := s.codec.record(max(row.Ref.Len, 1))
	defer s.codec.recycle(content)
	b, err := s.decode(row.Ref, stored[recordHeaderSize:], (*content)[:0])
	if err != nil {
		return nil, err
	}
	if ID(sha256.Sum256(b)) != row.ID {
		return nil, fmt.Errorf("%w: %s: SHA-256 differs", ErrCorrupt, row.Ref)
	}
	return s.encode(bytes.NewReader(b), row.Ref.Len, row.ID)
}

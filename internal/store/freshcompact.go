package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"waxwing/internal/store/blob"
)

// Compact implements BlobStore: it moves what is fresh, copies what lives in objects that are mostly dead to new ones,
// encrypts anew what is under another key than the current one, and removes objects that no row has named for a while.
func (f *fresh) Compact(ctx context.Context, ix blob.Index) (blob.Compacted, error) {
	var out blob.Compacted
	if _, err := f.s.MoveContents(ctx); err != nil {
		return out, err
	}
	f.moving.Lock()
	defer f.moving.Unlock()
	list, err := f.mostlyDead(ctx, ix)
	if err != nil {
		return out, err
	}
	for _, g := range list {
		if err := f.rewrite(ctx, ix, g, &out); err != nil {
			return out, fmt.Errorf("compact %s: %w", g, err)
		}
	}
	if err := f.renew(ctx, ix, &out); err != nil {
		return out, fmt.Errorf("encrypt anew: %w", err)
	}
	return out, f.sweep(ctx, &out)
}

// staleSegments are the objects with something alive under another key than one, or under none. The rows tell, so a walk that
// was broken off goes on where it was, and what another node still wrote under an older key is found by the next.
const staleSegments = `FROM segment WHERE live > 0 AND key_id <> $1`

// renew encrypts anew what is under another key than the current one, or under none. The keys are told when nothing is left.
// What can't be read stays, and so does its key.
func (f *fresh) renew(ctx context.Context, ix blob.Index, out *blob.Compacted) error {
	keys := f.objects.Keys()
	if keys == nil {
		return nil
	}
	key, swept := keys.Current()
	stale, err := f.segments(ctx, `SELECT segment `+staleSegments+` ORDER BY segment`, key)
	if err != nil {
		return err
	}
	for _, g := range stale {
		again := f.rewrite
		if g.Large() {
			again = f.rewriteLarge
		}
		if err := again(ctx, ix, g, out); err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
	}
	if swept && len(stale) == 0 {
		return nil
	}
	left, err := f.s.Stale(ctx)
	if err != nil || left.Octets > 0 {
		return err
	}
	return keys.Swept(key)
}

// segments runs a query for numbers of segments.
func (f *fresh) segments(ctx context.Context, query string, args ...any) ([]blob.Segment, error) {
	var out []blob.Segment
	err := f.s.reads.each(ctx, func(rows *sql.Rows) error {
		var g blob.Segment
		err := rows.Scan(&g)
		out = append(out, g)
		return err
	}, query, args...)
	return out, err
}

// rewriteLarge writes a large content anew under the current key.
func (f *fresh) rewriteLarge(ctx context.Context, ix blob.Index, g blob.Segment, out *blob.Compacted) error {
	rows, err := ix.Rows(ctx, g, 0, 1)
	if err != nil || len(rows) == 0 {
		return err
	}
	row := rows[0]
	err = hashContent(f.Open, stored{sum: row.ID, ref: row.Ref})
	if lastingDamage(err) {
		out.Damaged = append(out.Damaged, row)
		return nil
	}
	if err != nil {
		return err
	}
	r, err := f.objects.Open(row.Ref)
	if err != nil {
		return err
	}
	to, key, err := f.putLarge(ctx, r, row.ID)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	moved := make([]bool, 1)
	if err := (compaction{f.s}).move(ctx, []blob.Move{{ID: row.ID, From: row.Ref, To: to}}, moved, key); err != nil {
		return err
	}
	if moved[0] {
		out.Moved++
	}
	return nil
}

// lastingDamage tells errors of a content that come again from those that pass.
func lastingDamage(err error) bool {
	return errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrEncrypted) || errors.Is(err, blob.ErrGone)
}

// mostlyDead lists the packs of which less than half is alive, and those whose dead octets are due to go.
func (f *fresh) mostlyDead(ctx context.Context, ix blob.Index) ([]blob.Segment, error) {
	out, err := f.segments(ctx, `SELECT segment FROM segment WHERE segment < $1 AND live > 0 AND live * 2 < tail ORDER BY segment`, int64(largeSegments))
	if err != nil {
		return nil, err
	}
	if d, ok := ix.(blob.Deadline); ok {
		due, err := d.Due(ctx)
		if err != nil {
			return nil, err
		}
		for _, g := range due {
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out, nil
}

// rewrite copies what lives in a pack to new ones. A damaged record stays, and its pack with it.
func (f *fresh) rewrite(ctx context.Context, ix blob.Index, g blob.Segment, out *blob.Compacted) error {
	from := int64(0)
	for {
		rows, err := ix.Rows(ctx, g, from, gatherRows)
		if err != nil || len(rows) == 0 {
			return err
		}
		b := &cargo{}
		for _, l := range rows {
			if b.full() {
				break
			}
			from = l.Ref.Offset + 1
			data, err := f.objects.ReadInto(l.Ref, nil)
			if err == nil && blob.ID(sha256.Sum256(data)) != l.ID { // never made to look sound
				err = blob.ErrCorrupt
			}
			if lastingDamage(err) {
				f.s.log.Error("store: a content can't be written anew", "place", l.Ref.String(), "err", err)
				out.Damaged = append(out.Damaged, l)
				continue
			}
			if err != nil {
				return err
			}
			b.add(data, l.ID, l.Ref)
		}
		n, err := f.pack(ctx, b)
		if err != nil {
			return err
		}
		out.Moved += n
	}
}

// sweep puts objects that no row names on the list of those that may go, and removes those that stand there long enough. While
// something is pinned none goes: one that a snapshot names has been on the list for less than it takes, or is claimed after
// the pin.
func (f *fresh) sweep(ctx context.Context, out *blob.Compacted) error {
	var old []blob.Segment
	err := f.s.Write(ctx, func(tx *Tx) error {
		old = nil
		err := tx.exec(`INSERT INTO object_garbage (segment, since) SELECT segment, $1 FROM segment WHERE live <= 0
			ON CONFLICT (segment) DO NOTHING`, tx.now.Unix())
		if err != nil || f.pinned() {
			return err
		}
		if pinned, err := tx.pinnedElsewhere(); err != nil || pinned {
			return err
		}
		// From here on no transaction can name them any more.
		list, err := tx.numbers(`UPDATE object_garbage SET since = -1 WHERE since <= $1
			AND NOT EXISTS (SELECT 1 FROM blob AS b WHERE b.segment = object_garbage.segment) RETURNING segment`, tx.now.Add(-objectGrace).Unix())
		for _, g := range list {
			old = append(old, blob.Segment(g))
		}
		return err
	})
	for _, g := range old {
		if err != nil {
			return err
		}
		if err = f.objects.Remove(ctx, g); err == nil {
			out.Segments++
			err = f.s.Write(ctx, func(tx *Tx) error { return tx.exec(`DELETE FROM object_garbage WHERE segment = $1`, g) })
		}
	}
	return err
}

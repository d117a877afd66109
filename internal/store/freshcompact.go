package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"waxwing/internal/store/blob"
)

// Compact implements BlobStore: it moves what is fresh, copies what lives in objects that are mostly dead to new ones, and
// removes objects that no row has named for a while.
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
	return out, f.sweep(ctx, &out)
}

// mostlyDead lists the packs of which less than half is alive, and those whose dead octets are due to go.
func (f *fresh) mostlyDead(ctx context.Context, ix blob.Index) ([]blob.Segment, error) {
	seen := make(map[blob.Segment]bool)
	var out []blob.Segment
	add := func(g blob.Segment) {
		if !seen[g] {
			seen[g] = true
			out = append(out, g)
		}
	}
	err := f.s.reads.each(ctx, func(rows *sql.Rows) error {
		var g blob.Segment
		if err := rows.Scan(&g); err != nil {
			return err
		}
		add(g)
		return nil
	}, `SELECT segment FROM segment WHERE segment < $1 AND live > 0 AND live * 2 < tail ORDER BY segment`, int64(largeSegments))
	if err != nil {
		return nil, err
	}
	if d, ok := ix.(blob.Deadline); ok {
		due, err := d.Due(ctx)
		if err != nil {
			return nil, err
		}
		for _, g := range due {
			add(g)
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
			if errors.Is(err, blob.ErrCorrupt) {
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

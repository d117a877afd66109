package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"waxwing/internal/store/blob"
)

// ErrDiffers says that a loaded store is not what it was loaded from.
var ErrDiffers = errors.New("store: what was loaded differs from its source")

// Compared is how far a verification of a load is.
type Compared struct {
	Rows     int64 `json:"rows"`
	Contents int64 `json:"contents"`
	Octets   int64 `json:"octets"`
	Damaged  int64 `json:"damaged"` // contents that the source could not give
}

// Verify reads back all that was loaded, and compares the rows with the tally of the source, and the contents with its list:
// each is read whole, and its SHA-256 compared. progress may be nil; it is not called by two at the same time.
func (l *Loader) Verify(ctx context.Context, src Source, want Tally, progress func(Compared)) (v Compared, err error) {
	if progress == nil {
		progress = func(Compared) {}
	}
	n, err := l.s.Snapshot(ctx)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	got, err := TallyRows(ctx, n, func(rows int64) {
		v.Rows = rows
		progress(v)
	})
	if err != nil {
		return v, err
	}
	v.Rows = got.Rows()
	if d := want.Difference(got); len(d) > 0 {
		k := d[0]
		return v, fmt.Errorf("%w: %d times, first in table %s, account %d: %d rows, not %d", ErrDiffers, len(d), k.Table, k.Account, got[k].Rows, want[k].Rows)
	}
	err = l.verifyContents(ctx, src, n, &v, progress)
	return v, err
}

// verifyContents walks over both lists at the same time.
func (l *Loader) verifyContents(ctx context.Context, src Source, n *Snapshot, v *Compared, progress func(Compared)) (err error) {
	next, stop := iter.Pull2(n.Contents(ctx))
	defer stop()
	g, reading := errgroup.WithContext(ctx)
	g.SetLimit(loadPuts)
	var octets atomic.Int64
	defer func() {
		err = errors.Join(err, g.Wait())
		v.Octets = octets.Load()
	}()
	for want, err := range src.Contents(ctx) {
		if err != nil {
			return err
		}
		got, err, ok := next()
		if err != nil {
			return err
		}
		if !ok || got.ID != want.ID || got.Sum != want.Sum || got.Size != want.Size || got.Refs != want.Refs {
			return fmt.Errorf("%w: content %d", ErrDiffers, want.ID)
		}
		if reading.Err() != nil {
			return nil // Wait says why
		}
		v.Contents++
		if got.lost() {
			v.Damaged++
			continue
		}
		g.Go(func() error {
			if err := hashWhole(reading, n, got); err != nil {
				return err
			}
			octets.Add(got.Size)
			return nil
		})
		v.Octets = octets.Load()
		progress(*v)
	}
	if extra, err, ok := next(); ok || err != nil {
		return errors.Join(fmt.Errorf("%w: content %d is in it alone", ErrDiffers, extra.ID), err)
	}
	return nil
}

func hashWhole(ctx context.Context, n *Snapshot, c ContentInfo) error {
	b, err := n.Open(ctx, c)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(b, 0, b.Size()))
	if err = errors.Join(err, b.Close()); err != nil {
		return fmt.Errorf("content %d: %w", c.ID, err)
	}
	if blob.ID(h.Sum(nil)) != c.Sum {
		return fmt.Errorf("%w: content %d is read back as another one", ErrDiffers, c.ID)
	}
	return nil
}

package backup

import (
	"cmp"
	"slices"
)

// Repacking, without reading a bundle: nobody here can. What is worth writing anew goes from the index after a backup, so
// that the next one sends what it needs of it, from the store, in bundles of its own; the old one goes with the last backup
// that needs it. A crash costs time at most, as the index does.
const (
	sparseShare = 4  // a bundle of which less than one part in so many is needed is sparse
	smallShare  = 16 // a bundle below one part in so many of the usual length is small
	manySmall   = 32 // so many small ones are worth joining
	repackMost  = 8  // octets of a run that are sent again are at most so many bundles
)

// need is how much of a bundle a backup needs.
type need struct {
	bundle int
	octets int64 // of contents and rows, as they are
	of     int64
}

// repack forgets bundles of the index that are worth writing anew, and tells how many.
func (r *run) repack() (int, error) {
	var sparse, small []need
	for i := range r.index.bundles {
		k := &r.index.bundles[i]
		n := need{bundle: i, octets: r.needs[i]}
		for _, p := range k.pieces {
			n.of += p.length
		}
		switch {
		case n.octets == 0 || k.For != r.digest:
		case n.octets < n.of/sparseShare:
			sparse = append(sparse, n)
		case n.of < r.opts.BundleSize/smallShare:
			small = append(small, n)
		}
	}
	if len(small) < manySmall {
		small = nil
	}
	slices.SortFunc(sparse, func(a, b need) int {
		return cmp.Compare(float64(a.octets)/float64(a.of), float64(b.octets)/float64(b.of))
	})
	anew := make(map[string]bool)
	room := repackMost * r.opts.BundleSize
	for _, n := range append(sparse, small...) {
		if room -= n.octets; room < 0 {
			break
		}
		anew[r.index.bundles[n.bundle].Name] = true
	}
	if len(anew) == 0 {
		return 0, nil
	}
	return len(anew), r.index.keep(func(k known) bool { return !anew[k.Name] })
}

package storetest

import (
	"context"
	"testing"

	"waxwing/internal/store"
)

// Load loads a snapshot of from into the empty store that open opens, verifies it, and opens it for use. open is called again
// whenever interrupt, which may be nil, says that the load is to end there.
func Load(t *testing.T, from *store.Store, open func(load bool) *store.Store, interrupt func(at store.Loading) bool) *store.Store {
	t.Helper()
	h := &harness{T: t}
	src, err := from.Snapshot(t.Context())
	h.ok(err)
	defer func() { h.ok(src.Close()) }()
	tally, err := store.TallyRows(t.Context(), src, nil)
	h.ok(err)
	for done := false; !done; {
		s := open(true)
		done = h.loadSome(s, src, tally, interrupt)
		h.ok(s.Close())
	}
	return open(false)
}

// loadSome goes on with a load; it is false when the load was interrupted.
func (h *harness) loadSome(s *store.Store, src store.Source, tally store.Tally, interrupt func(at store.Loading) bool) bool {
	h.Helper()
	l, err := s.Load(h.Context(), tally.String())
	h.ok(err)
	ctx, stop := context.WithCancel(h.Context())
	defer stop()
	stopped := false
	l.Progress = func(at store.Loading) {
		if interrupt != nil && interrupt(at) {
			stopped = true
			stop()
		}
	}
	if err := l.Fill(ctx, src); stopped {
		return false
	} else if err != nil {
		h.Fatal(err)
	}
	v, err := l.Verify(h.Context(), src, tally, nil)
	h.ok(err)
	if v.Rows != tally.Rows() || v.Contents != l.At().Contents || v.Octets != l.At().Octets || v.Damaged != 0 {
		h.Errorf("verified %+v of %+v", v, l.At())
	}
	h.ok(l.Finish(h.Context()))
	return true
}

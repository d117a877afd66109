package blob

import (
	"bytes"
	"errors"
	"testing"

	"waxwing/internal/durable/crashfs"
)

// files counts the files of segments.
func files(t *testing.T, s *Store) int {
	t.Helper()
	packs, err := s.list(0)
	if err != nil {
		t.Fatal(err)
	}
	large, err := s.list(largeBit)
	if err != nil {
		t.Fatal(err)
	}
	return len(packs) + len(large)
}

func TestWhatIsPinnedStaysReadableUntilTheLastRelease(t *testing.T) {
	t.Parallel()
	s := open(t, small(t, mode{}, crashfs.New()))
	x := newRows()
	for i := range 100 {
		if err := x.put(s, 0, random(uint64(i), 10<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.put(s, 0, random(100, 100<<10)); err != nil {
		t.Fatal(err)
	}
	old, data := map[ID]Ref{}, x.data
	for id, ref := range x.refs {
		old[id] = ref
	}
	first, second := s.Pin(), s.Pin()
	n := 0
	for id, ref := range old { // large, and most of each pack
		if n++; n%10 != 0 || ref.Segment.Large() {
			x.delete(s, id)
		}
	}
	before := files(t, s)
	done, err := s.Compact(t.Context(), x)
	if err != nil || done.Segments == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	all := func() {
		t.Helper()
		for id, ref := range old {
			if b, err := s.ReadInto(ref, nil); err != nil || !bytes.Equal(b, data[id]) {
				t.Fatalf("%s: %v", ref, err)
			}
		}
	}
	all()
	first()
	first()
	all()
	if now := files(t, s); now < before {
		t.Errorf("%d files, then %d", before, now)
	}
	second()
	if now := files(t, s); now > before-done.Segments {
		t.Errorf("%d files of %d are left after %d segments went", now, before, done.Segments)
	}
	gone := 0
	for _, ref := range old {
		if _, err := s.ReadInto(ref, nil); errors.Is(err, ErrGone) {
			gone++
		}
	}
	if gone < 50 {
		t.Errorf("%d records are gone", gone)
	}
}

func TestAReleaseAfterCloseTouchesNothing(t *testing.T) {
	t.Parallel()
	fsys := crashfs.New()
	s := open(t, small(t, mode{}, fsys))
	x := newRows()
	if err := x.put(s, 0, random(1, 100<<10)); err != nil {
		t.Fatal(err)
	}
	release := s.Pin()
	for id := range x.data {
		x.delete(s, id)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	release()
	again, err := Open(small(t, mode{}, fsys))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if n := files(t, again); n != 1 {
		t.Fatalf("%d files", n)
	}
	if _, err := again.Recover(t.Context(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if done, err := again.Compact(t.Context(), x); err != nil || done.Segments != 1 {
		t.Errorf("%+v, %v", done, err)
	}
}

package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"syscall"
	"testing"

	"waxwing/internal/durable/crashfs"
)

func stage(tb testing.TB, s *Store, b []byte) *Staged {
	tb.Helper()
	staged, err := s.Stage(context.Background(), 0, bytes.NewReader(b), sha256.Sum256(b))
	if err != nil {
		tb.Fatal(err)
	}
	return staged
}

// holdOne holds the first call of a kind until release is called with what it is to answer; held is closed when it has come.
func holdOne(fsys *crashfs.FS, kind crashfs.Kind) (held <-chan struct{}, release func(error)) {
	come, answer := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	fsys.SetHook(func(op crashfs.Op) (err error) {
		if op.Kind == kind {
			once.Do(func() {
				close(come)
				err = <-answer
			})
		}
		return err
	})
	return come, func(err error) { answer <- err }
}

func TestPlacesAreKnownBeforeTheSync(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		fsys := crashfs.New()
		s := open(t, small(t, m, fsys))
		put(t, s, 0, []byte("the pack exists"))
		held, release := holdOne(fsys, crashfs.OpSync)
		contents := [][]byte{random(1, 500), random(2, 3000), nil, random(3, 70)}
		staged := []*Staged{stage(t, s, contents[0])}
		<-held
		for _, b := range contents[1:] {
			staged = append(staged, stage(t, s, b))
		}
		for i, st := range staged {
			if st.Durable() {
				t.Errorf("record %d is said to be durable, nothing is", i)
			}
			if i > 0 && st.Ref().Offset != staged[i-1].Ref().End() {
				t.Errorf("record %d at %s follows %s", i, st.Ref(), staged[i-1].Ref())
			}
		}
		before := fsys.Syncs()
		release(nil)
		for i, st := range staged {
			if err := st.Wait(); err != nil || !st.Durable() {
				t.Fatal(i, err)
			}
			s.Settle(st.Ref(), true)
			if got, err := s.ReadInto(st.Ref(), nil); err != nil || !bytes.Equal(got, contents[i]) {
				t.Errorf("record %d: %v", i, err)
			}
		}
		if n := fsys.Syncs() - before; n != 2 {
			t.Errorf("%d syncs", n)
		}
	})
}

// TestPlacesBehindAFailureAreNoMore: a write that fails takes those with it that were given places behind it.
func TestPlacesBehindAFailureAreNoMore(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		for _, kind := range []crashfs.Kind{crashfs.OpWrite, crashfs.OpSync} {
			fsys := crashfs.New()
			s := open(t, small(t, m, fsys))
			sound := put(t, s, 0, []byte("answered before"))
			held, release := holdOne(fsys, kind)
			staged := []*Staged{stage(t, s, random(1, 100))}
			<-held
			staged = append(staged, stage(t, s, random(2, 100)), stage(t, s, random(3, 100)))
			release(syscall.EIO)
			for i, st := range staged {
				if err := st.Wait(); !errors.Is(err, syscall.EIO) || errors.Is(err, ErrFailed) != (kind == crashfs.OpSync) {
					t.Errorf("%s: record %d: %v", kind, i, err)
				}
			}
			if kind == crashfs.OpWrite {
				again := stage(t, s, random(4, 100))
				if err := again.Wait(); err != nil || again.Ref() != (Ref{
					Segment: sound.Segment, Offset: sound.End(), StoredLen: again.Ref().StoredLen, Len: 100, Sum: again.Ref().Sum,
				}) {
					t.Errorf("afterwards: %s, %v", again.Ref(), err)
				}
				s.Settle(again.Ref(), true)
			}
			if err := s.Check(sound, sha256.Sum256([]byte("answered before"))); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	})
}

func TestWhatIsStagedIsAnsweredByClose(t *testing.T) {
	t.Parallel()
	fsys := crashfs.New()
	s := open(t, small(t, mode{}, fsys))
	var staged []*Staged
	for i := range uint64(20) {
		staged = append(staged, stage(t, s, random(i, 2000)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i, st := range staged {
		if err := st.Wait(); err != nil {
			t.Errorf("record %d: %v", i, err)
		}
		s.Settle(st.Ref(), true)
	}
	if _, err := s.Stage(t.Context(), 0, bytes.NewReader(nil), ID{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"waxwing/internal/durable"
	"waxwing/internal/durable/crashfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small are options that let tests see many segments and blocks with little data.
func small(tb testing.TB, m mode, fsys durable.FS) Options {
	tb.Helper()
	return m.with(tb, Options{FS: fsys, Dir: "/blobs", Reserve: -1, SegmentSize: 256 << 10, Step: 16 << 10, LargeFrom: 40 << 10})
}

// open opens a store and recovers it; the test closes it.
func open(tb testing.TB, o Options) *Store {
	tb.Helper()
	s, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil && s.failure() == nil {
			tb.Error(err)
		}
	})
	if _, err := s.Recover(context.Background(), nil, nil); err != nil {
		tb.Fatal(err)
	}
	return s
}

// random returns n octets that don't compress, words that do.
func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func words(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, "waxwing %x letter sealed ", r.Uint32N(1000))
	}
	return b[:n]
}

func put(tb testing.TB, s *Store, shard uint32, b []byte) Ref {
	tb.Helper()
	ref, err := s.Put(context.Background(), shard, bytes.NewReader(b), sha256.Sum256(b))
	if err != nil {
		tb.Fatal(err)
	}
	s.Settle(ref, true)
	return ref
}

func TestWhatIsPutIsRead(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		s := open(t, m.with(t, Options{Dir: t.TempDir(), LargeFrom: 600 << 10, Reserve: -1}))
		sizes := []int{
			0, 1, 7, 8, 100, 10_000, compressFrom - 1, compressFrom, 60_000, blockSize - 1, blockSize, blockSize + 1,
			3*blockSize + 17, 600 << 10, 600<<10 + 1, 2_000_000,
		}
		type kind struct {
			name string
			make func(uint64, int) []byte
		}
		for _, k := range []kind{{"random", random}, {"words", words}} {
			for _, n := range sizes {
				t.Run(fmt.Sprint(k.name, n), func(t *testing.T) {
					t.Parallel()
					b := k.make(uint64(n), n)
					ref := put(t, s, uint32(n), b)
					if ref.Len != int64(n) || ref.Segment.Large() != (n > 600<<10) {
						t.Errorf("ref %+v", ref)
					}
					if k.name == "words" && n >= compressFrom && ref.StoredLen > int64(n)*4/5 {
						t.Errorf("not compressed: %d octets for %d", ref.StoredLen, n)
					}
					readAllWays(t, s, ref, b)
				})
			}
		}
	})
}

// readAllWays compares a content through each way of reading.
func readAllWays(t *testing.T, s *Store, ref Ref, want []byte) {
	t.Helper()
	got, err := s.ReadInto(ref, nil)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("ReadInto: %d octets, %v", len(got), err)
	}
	for _, n := range []int64{-1, 0, 1, 512, blockSize + 5, ref.Len, ref.Len + 10} {
		head, err := s.Head(ref, n, got)
		if err != nil || !bytes.Equal(head, want[:max(0, min(n, ref.Len))]) {
			t.Errorf("Head %d: %d octets, %v", n, len(head), err)
		}
	}
	if err := s.Check(ref, sha256.Sum256(want)); err != nil {
		t.Errorf("Check: %v", err)
	}
	if err := s.Check(ref, ID{1}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Check with another id: %v", err)
	}
	r, err := s.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size())); err != nil || !bytes.Equal(all, want) {
		t.Errorf("Reader: %d octets, %v", len(all), err)
	}
	rnd := rand.New(rand.NewPCG(1, uint64(ref.Len)))
	for range 20 {
		off := rnd.Int64N(ref.Len + 1)
		p := make([]byte, rnd.Int64N(ref.Len-off+1))
		if n, err := r.ReadAt(p, off); n != len(p) || err != nil || !bytes.Equal(p, want[off:off+int64(n)]) {
			t.Errorf("ReadAt %d+%d: %d, %v", off, len(p), n, err)
		}
	}
	if n, err := r.ReadAt(make([]byte, 10), ref.Len-min(ref.Len, 4)); n != int(min(ref.Len, 4)) || err != io.EOF {
		t.Errorf("ReadAt past the end: %d, %v", n, err)
	}
	if _, err := r.ReadAt(nil, -1); err == nil {
		t.Error("ReadAt at a negative offset")
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("ReadAt after Close: %v", err)
	}
}

func TestStoreIsOpenedOnceAndUsedInOrder(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		ctx := context.Background()
		o := small(t, m, crashfs.New())
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(o); !errors.Is(err, durable.ErrLocked) {
			t.Errorf("second Open: %v", err)
		}
		if _, err := s.Put(ctx, 0, bytes.NewReader(nil), ID{}); !errors.Is(err, ErrNotRecovered) {
			t.Errorf("Put before Recover: %v", err)
		}
		if _, err := s.Recover(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(ctx, nil, nil); err == nil {
			t.Error("second Recover")
		}
		ref := put(t, s, 0, []byte("x"))
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		if _, err := s.Put(ctx, 0, bytes.NewReader(nil), ID{}); !errors.Is(err, ErrClosed) {
			t.Errorf("Put after Close: %v", err)
		}
		if _, err := s.ReadInto(ref, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("ReadInto after Close: %v", err)
		}
		again := open(t, o)
		if b, err := again.ReadInto(ref, nil); err != nil || string(b) != "x" {
			t.Errorf("after reopening: %q, %v", b, err)
		}
	})
}

// shortContent ends before its size.
type shortContent struct{ *bytes.Reader }

func (shortContent) Size() int64 { return 50_000 }

func TestContentShorterThanItSaysIsRefused(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		s := open(t, small(t, m, crashfs.New()))
		for _, large := range []int64{1 << 10, 100 << 10} {
			s.opt.LargeFrom = large
			_, err := s.Put(context.Background(), 0, shortContent{bytes.NewReader(random(1, 30_000))}, ID{})
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("large from %d: %v", large, err)
			}
		}
		ref := put(t, s, 0, []byte("the store goes on"))
		if err := s.Check(ref, sha256.Sum256([]byte("the store goes on"))); err != nil {
			t.Error(err)
		}
	})
}

func TestImpossibleRefsAreErrors(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		s := open(t, small(t, m, crashfs.New()))
		good := put(t, s, 0, random(1, 1000))
		put(t, s, 0, random(2, 5000))
		bad := map[string]Ref{
			"zero":           {},
			"negative":       {good.Segment, good.Offset, good.StoredLen, -1, good.Sum},
			"huge":           {good.Segment, good.Offset, 1 << 62, 1 << 62, good.Sum},
			"stored short":   {good.Segment, good.Offset, 8, good.Len, good.Sum},
			"other offset":   {good.Segment, good.Offset + 8, good.StoredLen, good.Len, good.Sum},
			"other length":   {good.Segment, good.Offset, good.StoredLen, good.Len - 1, good.Sum},
			"past the end":   {good.Segment, 1 << 40, good.StoredLen, good.Len, good.Sum},
			"before records": {good.Segment, 0, good.StoredLen, good.Len, good.Sum},
		}
		for name, ref := range bad {
			if b, err := s.ReadInto(ref, nil); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: ReadInto: %d octets, %v", name, len(b), err)
			}
			if _, err := s.Open(ref); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: Open: %v", name, err)
			}
		}
		for _, g := range []Segment{99, 99 | largeBit} {
			if _, err := s.ReadInto(Ref{g, good.Offset, good.StoredLen, good.Len, good.Sum}, nil); !errors.Is(err, ErrGone) {
				t.Errorf("%s: %v", g, err)
			}
		}
	})
}

// TestFlippedBitHarmsOneContent flips a bit in each octet of one record (and in the segment's header): that content
// is reported or right, all others are right, by Ref and in a scan.
func TestFlippedBitHarmsOneContent(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		ctx := context.Background()
		fsys := crashfs.New()
		s := open(t, small(t, m, fsys))
		var contents [][]byte
		var refs []Ref
		for i := range 6 {
			b := words(uint64(i), 200+i*40)
			if i == 3 {
				b = words(3, compressFrom)
			}
			contents, refs = append(contents, b), append(refs, put(t, s, 0, b))
		}
		name := s.path(refs[0].Segment)
		check := func(off int64, victim int) {
			mask := byte(1) << (off % 8)
			if err := fsys.Flip(name, off, mask); err != nil {
				t.Fatal(err)
			}
			for i, ref := range refs {
				b, err := s.ReadInto(ref, nil)
				if !bytes.Equal(b, contents[i]) && (i != victim || !errors.Is(err, ErrCorrupt)) {
					t.Fatalf("flip at %d: content %d: %d octets, %v", off, i, len(b), err)
				}
			}
			good := 0
			err := s.Verify(ctx, func(ref Ref, id ID, err error) error {
				if i := slices.Index(refs, ref); i >= 0 && err == nil {
					if id != sha256.Sum256(contents[i]) {
						t.Errorf("flip at %d: id of %s", off, ref)
					}
					good++
				}
				return nil
			})
			want := len(refs)
			if victim >= 0 {
				want-- // padding is covered by nothing, and the header by the scan alone
			}
			if err != nil || good < want {
				t.Fatalf("flip at %d: %d good records in the scan, want %d; %v", off, good, want, err)
			}
			if err := fsys.Flip(name, off, mask); err != nil {
				t.Fatal(err)
			}
		}
		for off := range int64(segmentHeaderSize) {
			check(off, -1)
		}
		for _, victim := range []int{2, 3} {
			for off := refs[victim].Offset; off < refs[victim].End(); off++ {
				check(off, victim)
			}
		}
	})
}

// TestManyWritersShareSyncs: the group commit needs far fewer syncs than contents.
func TestManyWritersShareSyncs(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		fsys := crashfs.New()
		o := small(t, m, fsys)
		o.SegmentSize = 8 << 20
		s := open(t, o)
		put(t, s, 0, []byte("the pack exists"))
		// The first sync waits until all others are queued behind it.
		const n = 200
		held, hold := make(chan struct{}), make(chan struct{})
		once := sync.OnceFunc(func() { close(held); <-hold })
		fsys.SetHook(func(op crashfs.Op) error {
			if op.Kind == crashfs.OpSync {
				once()
			}
			return nil
		})
		before := fsys.Syncs()
		var wg sync.WaitGroup
		one := func(i int) {
			b := random(uint64(i), 500)
			ref, err := s.Put(context.Background(), 0, bytes.NewReader(b), sha256.Sum256(b))
			if err != nil {
				t.Error(err)
				return
			}
			s.Settle(ref, true)
			if got, err := s.ReadInto(ref, nil); err != nil || !bytes.Equal(got, b) {
				t.Error(i, err)
			}
		}
		wg.Go(func() { one(n) })
		<-held
		for i := range n {
			wg.Go(func() { one(i) })
		}
		w := s.writer(0)
		for queued := 0; queued < n; runtime.Gosched() {
			w.mu.Lock()
			queued = len(w.queue)
			w.mu.Unlock()
		}
		close(hold)
		wg.Wait()
		if syncs := fsys.Syncs() - before; syncs > 5 {
			t.Errorf("%d syncs for %d contents", syncs, n)
		}
	})
}

func TestPutGivesUpWithItsContext(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		fsys := crashfs.New()
		s := open(t, small(t, m, fsys))
		put(t, s, 0, []byte("the pack exists"))
		hold, held := make(chan struct{}), make(chan struct{})
		var once sync.Once
		fsys.SetHook(func(op crashfs.Op) error {
			if op.Kind == crashfs.OpSync {
				once.Do(func() { close(held); <-hold })
			}
			return nil
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			_, err := s.Put(ctx, 0, bytes.NewReader([]byte("too slow")), ID{})
			done <- err
		}()
		<-held
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Put: %v", err)
		}
		live := s.Stats().Live
		close(hold)
		ref := put(t, s, 0, []byte("next")) // after it the abandoned one was finished
		if got := s.Stats().Live - live; got != ref.StoredLen {
			t.Errorf("live grew by %d, the abandoned record counts", got)
		}
	})
}

func TestSegmentNumbersAreNeverUsedAgain(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		fsys := crashfs.New()
		o := small(t, m, fsys)
		var last Segment
		for round := range 5 {
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recover(context.Background(), nil, nil); err != nil {
				t.Fatal(err)
			}
			ref := put(t, s, 0, random(1, 50<<10))
			if ref.Segment <= last {
				t.Errorf("round %d: %s after %s", round, ref.Segment, last)
			}
			last = ref.Segment
			s.Delete(ref)
			if _, err := s.ReadInto(ref, nil); !errors.Is(err, ErrGone) {
				t.Errorf("deleted large content: %v", err)
			}
			if round%2 == 0 { // half of the rounds end without Close
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			fsys = fsys.Crash(uint64(round))
			o.FS = fsys
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := durable.WriteFile(fsys, filepath.Join(o.Dir, "next"), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(o)
		if err != nil {
			t.Fatalf("a damaged numbers file stops the store: %v", err)
		}
		if _, err := s.Recover(context.Background(), map[Segment]Known{last + 100: {}}, nil); err != nil {
			t.Fatal(err)
		}
		if ref := put(t, s, 0, random(1, 50<<10)); ref.Segment <= last+100 {
			t.Errorf("%s is not past what the rows know", ref.Segment)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDescriptorsAreBounded(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		o := small(t, m, crashfs.New())
		o.OpenFiles = 4
		s := open(t, o)
		var refs []Ref
		for i := range 20 {
			refs = append(refs, put(t, s, 0, random(uint64(i), 50<<10)))
		}
		var readers []*Reader
		for i, ref := range refs {
			if i%2 == 0 {
				r, err := s.Open(ref)
				if err != nil {
					t.Fatal(err)
				}
				readers = append(readers, r)
				continue
			}
			if _, err := s.ReadInto(ref, nil); err != nil {
				t.Fatal(err)
			}
		}
		for i, r := range readers { // more are open than the bound: none was closed under its reader
			b := make([]byte, 100)
			if _, err := r.ReadAt(b, 0); err != nil || !bytes.Equal(b, random(uint64(2*i), 50<<10)[:100]) {
				t.Errorf("reader %d: %v", i, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		s.files.mu.Lock()
		defer s.files.mu.Unlock()
		if n := len(s.files.m); n > 4 {
			t.Errorf("%d descriptors stay open", n)
		}
	})
}

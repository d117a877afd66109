package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"waxwing/internal/durable/crashfs"
	"waxwing/internal/durable/ordeal"
	"waxwing/internal/store/keyring"
)

func newDisk(t *testing.T) *crashfs.FS {
	t.Helper()
	return crashfs.New()
}

// cutPoint is the disk after a power cut, and the rows of that moment.
type cutPoint struct {
	seed uint64
	disk *crashfs.FS
	refs map[ID]Ref
}

// TestNothingAnsweredIsLostByPowerCuts cuts the power at every sync, before and after it, while contents of all sizes
// are put, deleted and compacted. After each cut, everything that had been answered is there and whole, everything that
// Recover finds is whole, and the store goes on, through a second cut too.
func TestNothingAnsweredIsLostByPowerCuts(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		for round := range uint64(4) {
			t.Run(fmt.Sprint(round), func(t *testing.T) {
				t.Parallel()
				cutAndSurvive(t, m, round)
			})
		}
	})
}

// TestSoakPowerCuts is the same with other draws, again and again.
func TestSoakPowerCuts(t *testing.T) {
	o := ordeal.Soak(t)
	chance := o.Chance(0)
	for range o.Times(100) {
		for _, encrypted := range []bool{false, true} {
			o.Cut(cutAndSurvive(t, mode{encrypted}, uint64(chance.Uint32())))
		}
	}
}

// cutAndSurvive cuts the power while a load runs, and looks at what each cut left. It returns how many there were.
func cutAndSurvive(t *testing.T, m mode, round uint64) int {
	t.Helper()
	x := newRows()
	cuts := cutsUnderLoad(t, m, round, x)
	if len(cuts) < 100 {
		t.Errorf("only %d cuts", len(cuts))
	}
	for _, c := range cuts {
		if err := survive(t, m, c, x); err != nil {
			t.Fatalf("round %d, cut with seed %d: %v", round, c.seed, err)
		}
	}
	return len(cuts)
}

// cutsUnderLoad runs a load and collects cuts.
func cutsUnderLoad(t *testing.T, m mode, round uint64, x *rows) []cutPoint {
	t.Helper()
	fsys := newDisk(t)
	o := small(t, m, fsys)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recover(context.Background(), nil, nil); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var cuts []cutPoint
	cut := func() {
		mu.Lock()
		defer mu.Unlock()
		c := cutPoint{seed: round*1_000_000 + uint64(len(cuts))}
		c.refs = x.snapshot(func() { c.disk = fsys.Crash(c.seed) })
		cuts = append(cuts, c)
	}
	isSync := func(op crashfs.Op) bool { return op.Kind == crashfs.OpSync || op.Kind == crashfs.OpSyncDir }
	fsys.SetHook(func(op crashfs.Op) error {
		if isSync(op) || op.Kind == crashfs.OpRename || op.Kind == crashfs.OpTruncate {
			cut()
		}
		return nil
	})
	fsys.SetObserver(func(op crashfs.Op, _ error) {
		if isSync(op) {
			cut()
		}
	})
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(round, g))
			for i := range uint64(15) {
				n := 1 + rnd.IntN(12_000)
				switch rnd.IntN(8) {
				case 0:
					n = 41<<10 + rnd.IntN(100_000) // a file of its own
				case 1:
					n = rnd.IntN(30)
				}
				b := random(round*1000+g*100+i, n)
				if rnd.IntN(2) == 0 {
					b = words(round*1000+g*100+i, n)
				}
				if err := x.put(s, uint32(g), b); err != nil {
					t.Error(err)
				}
				if rnd.IntN(3) > 0 {
					x.delete(s, sha256.Sum256(b))
				}
			}
		})
	}
	wg.Wait()
	if ring, ok := o.Keys.(*keyring.Ring); ok { // and all of it is encrypted anew
		if _, err := ring.Rotate(); err != nil {
			t.Error(err)
		}
	}
	for _, p := range s.table.sorted() { // let Compact take all but the packs being written
		s.table.update(p, func(i *segmentInfo) { i.live = 0 })
	}
	if _, err := s.Compact(context.Background(), x); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	cut()
	return cuts
}

// survive opens what a cut left behind, twice: as with rows that know all segments, and as with none.
func survive(t *testing.T, m mode, c cutPoint, x *rows) error {
	t.Helper()
	ctx := context.Background()
	for _, withRows := range []bool{true, false} {
		disk := c.disk.Crash(c.seed + 1) // a copy: all of it is durable
		k := map[Segment]Known(nil)
		if withRows {
			k = known(c.refs)
		}
		s, err := Open(small(t, m, disk))
		if err != nil {
			return err
		}
		seen := map[ID]bool{}
		rec, err := s.Recover(ctx, k, func(ref Ref, id ID) (bool, error) {
			seen[id] = true
			return true, s.Check(ref, id) // nothing partial
		})
		if err != nil {
			return errors.Join(err, s.Close())
		}
		if len(rec.Missing)+len(rec.Damaged) > 0 {
			return fmt.Errorf("recovered %+v", rec)
		}
		if !withRows {
			for id, ref := range c.refs {
				if !seen[id] {
					return fmt.Errorf("%s was answered and is not found", ref)
				}
			}
		}
		if err := x.verifyAll(s, c.refs); err != nil {
			return err
		}
		if err := goOn(t, m, s, disk, c); err != nil {
			return fmt.Errorf("after the restart: %w", err)
		}
	}
	return nil
}

// goOn puts more into a recovered store and cuts the power again.
func goOn(t *testing.T, m mode, s *Store, disk *crashfs.FS, c cutPoint) error {
	t.Helper()
	refs := maps.Clone(c.refs)
	for i := range uint64(3) {
		b := random(c.seed+i, 3000)
		ref, err := s.Put(context.Background(), uint32(i), bytes.NewReader(b), sha256.Sum256(b))
		if err != nil {
			return err
		}
		s.Settle(ref, true)
		refs[sha256.Sum256(b)] = ref
	}
	again := disk.Crash(c.seed + 2)
	if err := s.Close(); err != nil {
		return err
	}
	s, err := Open(small(t, m, again))
	if err != nil {
		return err
	}
	_, err = s.Recover(context.Background(), known(refs), nil)
	return errors.Join(err, newRows().verifyAll(s, refs), s.Close())
}

// TestRecoverTellsOfLostRecords: a disk that lied about a sync is reported, and the rest works.
func TestRecoverTellsOfLostRecords(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		ctx := context.Background()
		disk := newDisk(t)
		s, err := Open(small(t, m, disk))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		first, second := put(t, s, 0, random(1, 1000)), put(t, s, 0, random(2, 1000))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := disk.OpenFile(s.path(second.Segment), 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(second.Offset+100), f.Close()); err != nil {
			t.Fatal(err)
		}
		s, err = Open(small(t, m, disk))
		if err != nil {
			t.Fatal(err)
		}
		rec, err := s.Recover(ctx, map[Segment]Known{first.Segment: {End: second.End()}, 77: {End: 100}}, nil)
		if err != nil || len(rec.Missing) != 2 {
			t.Errorf("%+v, %v", rec, err)
		}
		if _, err := s.ReadInto(second, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("lost record: %v", err)
		}
		if err := s.Check(first, sha256.Sum256(random(1, 1000))); err != nil {
			t.Error(err)
		}
		if third := put(t, s, 0, random(3, 1000)); third.Segment == first.Segment {
			t.Error("a pack that lost records is written on")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRecoverKeepsWhatNoRowNames(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		ctx := context.Background()
		disk := newDisk(t)
		s, err := Open(small(t, m, disk))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		ref, large := put(t, s, 0, random(1, 1000)), put(t, s, 0, random(2, 90_000))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		x := newRows()
		s = open(t, small(t, m, disk)) // no rows at all
		for _, r := range []Ref{ref, large} {
			if _, err := s.ReadInto(r, nil); err != nil {
				t.Errorf("%s: %v", r, err)
			}
		}
		x.refs[sha256.Sum256(random(2, 90_000))] = large
		if out, err := s.Compact(ctx, x); err != nil || out.Segments != 0 {
			t.Errorf("%+v, %v", out, err) // the large one got a row since, the pack is being written
		}
		if _, err := s.ReadInto(large, nil); err != nil {
			t.Errorf("large: %v", err)
		}
	})
}

// TestOrphansGoWithCompact: a large file that no row ever named is removed, not at Recover, but by Compact.
func TestOrphansGoWithCompact(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		disk := newDisk(t)
		s, err := Open(small(t, m, disk))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(context.Background(), nil, nil); err != nil {
			t.Fatal(err)
		}
		large := put(t, s, 0, random(2, 90_000))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, small(t, m, disk))
		if out, err := s.Compact(context.Background(), newRows()); err != nil || out.Segments != 1 || out.Freed < 90_000 {
			t.Errorf("%+v, %v", out, err)
		}
		if _, err := disk.Stat(s.path(large.Segment)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("orphan: %v", err)
		}
	})
}

// TestFailedCallsHarmNoAnsweredContent fails each call of each kind in turn, with each error that a disk may give. The
// Put that hits it fails with the right error; what was answered before stays; when the cause is gone, Put works again,
// without a restart, unless a sync failed: then never.
func TestFailedCallsHarmNoAnsweredContent(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		sizes := []int{100, 20_000, 39_000, 50_000, 90_000, 39_000, 39_000, 39_000, 39_000, 39_000, 39_000, 10}
		for _, kind := range failingKinds {
			for _, cause := range failures {
				t.Run(fmt.Sprint(kind, "/", cause.Error()), func(t *testing.T) {
					t.Parallel()
					for failing := 1; failOne(t, m, kind, cause, failing, sizes); failing++ {
						if failing > 300 {
							t.Fatal("no end")
						}
					}
				})
			}
		}
	})
}

// TestSoakFailedCalls fails one call at random of loads at random.
func TestSoakFailedCalls(t *testing.T) {
	o := ordeal.Soak(t)
	chance := o.Chance(0)
	for range o.Times(5000) {
		sizes := make([]int, 5+chance.IntN(10))
		for i := range sizes {
			sizes[i] = 1 + chance.IntN(1<<(7+chance.IntN(10)))
		}
		m := mode{chance.IntN(2) == 0}
		if failOne(t, m, failingKinds[chance.IntN(len(failingKinds))], failures[chance.IntN(len(failures))], 1+chance.IntN(30), sizes) {
			o.Fault(1)
		}
	}
}

// What calls fail, and with what.
var (
	failingKinds = []crashfs.Kind{
		crashfs.OpWrite, crashfs.OpAllocate, crashfs.OpOpen, crashfs.OpSync, crashfs.OpSyncDir, crashfs.OpRename, crashfs.OpTruncate,
	}
	failures = []syscall.Errno{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.EDQUOT}
)

// failOne puts contents of the given sizes while one call fails, and all later ones of its kind for a while; false when the
// load has no such call.
func failOne(t *testing.T, m mode, kind crashfs.Kind, cause syscall.Errno, failing int, sizes []int) bool {
	t.Helper()
	disk := newDisk(t)
	s, err := Open(small(t, m, disk))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recover(context.Background(), nil, nil); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	calls, broken, torn := 0, true, failing%2 == 0
	disk.SetHook(func(op crashfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind != kind || !broken {
			return nil
		}
		if calls++; calls < failing {
			return nil
		}
		if kind == crashfs.OpWrite && torn {
			return &crashfs.Partial{N: int(op.Len / 2), Err: cause}
		}
		return cause
	})
	x := newRows()
	var refused []error
	for i, n := range sizes {
		if err := x.put(s, 0, random(uint64(i), n)); err != nil {
			refused = append(refused, err)
		}
	}
	mu.Lock()
	hit := calls >= failing
	broken = false
	mu.Unlock()
	if err := x.verifyAll(s, x.refs); err != nil {
		t.Errorf("call %d: answered before: %v", failing, err)
	}
	isSync := kind == crashfs.OpSync || kind == crashfs.OpSyncDir
	full := cause == syscall.ENOSPC || cause == syscall.EDQUOT
	for _, err := range refused {
		switch {
		case errors.Is(err, ErrFailed) && !isSync:
			t.Errorf("call %d: %v", failing, err)
		case !isSync && errors.Is(err, ErrFull) != full:
			t.Errorf("call %d: %v", failing, err)
		case !errors.Is(err, cause):
			t.Errorf("call %d: the cause is lost: %v", failing, err)
		}
	}
	err = x.put(s, 0, []byte("the cause is gone"))
	stopped := s.failure() != nil
	if stopped != errors.Is(err, ErrFailed) || (!stopped && err != nil) || (stopped && !isSync) {
		t.Errorf("call %d: afterwards: %v", failing, err)
	}
	refs := x.snapshot(func() {})
	after := disk.Crash(uint64(failing))
	if err := s.Close(); err != nil && !stopped {
		t.Errorf("call %d: close: %v", failing, err)
	}
	s, err = Open(small(t, m, after))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recover(context.Background(), known(refs), nil)
	if err := errors.Join(err, x.verifyAll(s, refs), s.Close()); err != nil {
		t.Errorf("call %d: after a crash: %v", failing, err)
	}
	return hit
}

// TestSyncErrorStopsWriting: no Put succeeds after it, of either writer, also when later syncs would; reads go on.
func TestSyncErrorStopsWriting(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		disk := newDisk(t)
		s := open(t, small(t, m, disk))
		ref := put(t, s, 0, random(1, 1000))
		put(t, s, 1, random(2, 1000))
		disk.SetHook(func(op crashfs.Op) error {
			if op.Kind == crashfs.OpSync {
				return syscall.EIO
			}
			return nil
		})
		_, err := s.Put(context.Background(), 0, bytes.NewReader([]byte("x")), ID{})
		if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Errorf("Put: %v", err)
		}
		disk.SetHook(nil)
		for shard := range uint32(2) {
			for _, n := range []int{10, 60_000} {
				if _, err := s.Put(context.Background(), shard, bytes.NewReader(random(9, n)), ID{}); !errors.Is(err, ErrFailed) {
					t.Errorf("shard %d, %d octets: %v", shard, n, err)
				}
			}
		}
		if err := s.Writable(1); !errors.Is(err, ErrFailed) || !s.Stats().Failed {
			t.Errorf("Writable: %v", err)
		}
		if _, err := s.Compact(context.Background(), newRows()); !errors.Is(err, ErrFailed) {
			t.Errorf("Compact: %v", err)
		}
		if err := s.Check(ref, sha256.Sum256(random(1, 1000))); err != nil {
			t.Errorf("read: %v", err)
		}
	})
}

// TestFullDiskPasses fills disks of many sizes: ErrFull before the reserve is touched, all that was answered is there,
// and with new space Put works at once.
func TestFullDiskPasses(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		for capacity := int64(20 << 10); capacity < 400<<10; capacity += 13_000 {
			disk := newDisk(t)
			disk.SetCapacity(capacity)
			o := small(t, m, disk)
			o.Reserve = 5000
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recover(context.Background(), nil, nil); err != nil {
				t.Fatal(err)
			}
			x := newRows()
			for i := 0; ; i++ {
				err := x.put(s, uint32(i), random(uint64(i), 3000+i%3*20_000))
				if err == nil {
					continue
				}
				if !errors.Is(err, ErrFull) {
					t.Fatalf("capacity %d: %v", capacity, err)
				}
				break
			}
			if free, _ := disk.Free("/"); free < o.Reserve {
				t.Errorf("capacity %d: %d octets left, the reserve is used", capacity, free)
			}
			if err := s.Writable(100 << 10); !errors.Is(err, ErrFull) {
				t.Errorf("capacity %d: Writable: %v", capacity, err)
			}
			disk.SetCapacity(capacity + 1<<20)
			if err := x.put(s, 0, random(999, 30_000)); err != nil {
				t.Errorf("capacity %d: with new space: %v", capacity, err)
			}
			if err := errors.Join(x.verifyAll(s, x.refs), s.Close()); err != nil {
				t.Errorf("capacity %d: %v", capacity, err)
			}
		}
	})
}

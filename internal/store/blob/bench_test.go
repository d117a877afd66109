package blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"waxwing/internal/durable"
)

// TestReadIntoDoesNotAllocate is the budget of the hot path of FETCH and RETR.
func TestReadIntoDoesNotAllocate(t *testing.T) {
	for _, m := range []mode{{false}, {true}} {
		readIntoDoesNotAllocate(t, m)
	}
}

func readIntoDoesNotAllocate(t *testing.T, m mode) {
	t.Helper()
	s := open(t, m.with(t, Options{Dir: t.TempDir(), Reserve: -1}))
	for name, content := range map[string][]byte{"raw": random(1, 10_000), "compressed": words(1, 40_000)} {
		ref := put(t, s, 0, content)
		buf := make([]byte, ref.BufferSize())
		n := testing.AllocsPerRun(100, func() {
			b, err := s.ReadInto(ref, buf)
			if err != nil || len(b) != len(content) {
				t.Fatal(err)
			}
		})
		if n > 0 && !raceEnabled {
			t.Errorf("%s, %+v: %v allocations", name, m, n)
		}
	}
}

// endless is a large content that is held nowhere.
type endless struct{ size int64 }

func (e endless) Size() int64 { return e.size }

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = byte((off+int64(i))*2654435761>>13) ^ byte(off+int64(i))
	}
	return len(p), nil
}

// TestLargeContentIsNotHeldInMemory puts and checks 48 MiB with little allocation in all.
func TestLargeContentIsNotHeldInMemory(t *testing.T) {
	s := open(t, mode{true}.with(t, Options{Dir: t.TempDir(), Reserve: -1}))
	var before, after runtime.MemStats
	c := endless{48 << 20}
	runtime.ReadMemStats(&before)
	ref, err := s.Put(context.Background(), 0, c, ID{})
	if err != nil {
		t.Fatal(err)
	}
	s.Settle(ref, true)
	r, err := s.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < c.size; off += 1 << 20 {
		if _, err := r.ReadAt(got, off); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadAt(want, off); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("octets at %d differ", off)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 && !raceEnabled {
		t.Errorf("%d MiB allocated for 48", n>>20)
	}
}

// inFlight runs put from 32 goroutines until b.N are done.
func inFlight(b *testing.B, put func(i int64) error) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(10_000)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 32 {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				if err := put(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkPut stores 10 KB contents from 32 goroutines, each durable before the next of its goroutine.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 2} {
		b.Run(fmt.Sprint("plain/writers", writers), func(b *testing.B) { benchmarkPut(b, mode{false}, writers) })
		b.Run(fmt.Sprint("encrypted/writers", writers), func(b *testing.B) { benchmarkPut(b, mode{true}, writers) })
	}
}

func benchmarkPut(b *testing.B, m mode, writers int) {
	b.Helper()
	s := open(b, m.with(b, Options{Dir: b.TempDir(), Writers: writers}))
	content := random(1, 10_000)
	sum := sha256.Sum256(content)
	inFlight(b, func(i int64) error {
		ref, err := s.Put(context.Background(), uint32(i), bytes.NewReader(content), sum)
		if err == nil {
			s.Settle(ref, true)
		}
		return err
	})
	b.ReportMetric(float64(s.Stats().Syncs)/float64(b.N), "syncs/op")
}

// BenchmarkBareAppend is what Put is measured against: the octets alone, appended to one file with a group commit.
func BenchmarkBareAppend(b *testing.B) {
	f, err := durable.OS.OpenFile(filepath.Join(b.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	type job struct{ done chan error }
	var mu sync.Mutex
	var queue []job
	wake := make(chan struct{}, 1)
	stop := make(chan struct{})
	var loop sync.WaitGroup
	syncs, off, allocated := 0, int64(0), int64(0)
	content := random(1, 10_000)
	loop.Go(func() {
		var buf []byte
		for {
			select {
			case <-wake:
			case <-stop:
				return
			}
			mu.Lock()
			batch := queue
			queue = nil
			mu.Unlock()
			buf = buf[:0]
			for range batch {
				buf = append(buf, content...)
			}
			var err error
			if off+int64(len(buf)) > allocated {
				err = f.Allocate(allocated, 16<<20)
				allocated += 16 << 20
			}
			if err == nil {
				_, err = f.WriteAt(buf, off)
			}
			if err == nil {
				err = f.Sync()
			}
			syncs++
			off += int64(len(buf))
			for _, j := range batch {
				j.done <- err
			}
		}
	})
	inFlight(b, func(int64) error {
		j := job{make(chan error, 1)}
		mu.Lock()
		queue = append(queue, j)
		mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
		return <-j.done
	})
	close(stop)
	loop.Wait()
	b.ReportMetric(float64(syncs)/float64(b.N), "syncs/op")
}

func BenchmarkReadInto(b *testing.B) {
	b.Run("plain", func(b *testing.B) { benchmarkReadInto(b, mode{false}) })
	b.Run("encrypted", func(b *testing.B) { benchmarkReadInto(b, mode{true}) })
}

func benchmarkReadInto(b *testing.B, m mode) {
	b.Helper()
	s := open(b, m.with(b, Options{Dir: b.TempDir()}))
	for name, content := range map[string][]byte{"raw10KB": random(1, 10_000), "compressed40KB": words(1, 40_000)} {
		b.Run(name, func(b *testing.B) {
			ref := put(b, s, 0, content)
			b.ReportAllocs()
			b.SetBytes(ref.Len)
			b.RunParallel(func(pb *testing.PB) {
				buf := make([]byte, ref.BufferSize())
				for pb.Next() {
					if _, err := s.ReadInto(ref, buf); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	c, err := newCodec(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for name, content := range map[string][]byte{"raw10KB": random(1, 10_000), "words100KB": words(1, 100_000), "random100KB": random(2, 100_000)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(content)))
			r := bytes.NewReader(content)
			for b.Loop() {
				e, err := c.encode(r, int64(len(content)), ID{}, nil)
				if err != nil {
					b.Fatal(err)
				}
				c.recycle(e.buf)
			}
		})
	}
}

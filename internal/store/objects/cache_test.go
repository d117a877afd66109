package objects

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

func TestTheCacheStaysWithinItsBound(t *testing.T) {
	t.Parallel()
	const size, bound = 1000, 10_000
	c := newCache(bound, func(k chunkKey) ([]byte, error) { return make([]byte, size), nil })
	for i := range int64(50) {
		if _, err := c.get(chunkKey{"o", i}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.get(chunkKey{"o", 0}); err != nil { // used again and again: it stays
			t.Fatal(err)
		}
		if c.used > bound || len(c.in) != c.lru.Len() || c.used != int64(len(c.in))*size {
			t.Fatalf("%d octets in %d chunks of %d", c.used, len(c.in), c.lru.Len())
		}
	}
	if _, ok := c.known(chunkKey{"o", 0}); !ok {
		t.Error("the chunk that is used most has gone")
	}
	if _, ok := c.known(chunkKey{"o", 1}); ok {
		t.Error("the chunk longest unused is still there")
	}
}

func TestOneFetchServesAllWhoWait(t *testing.T) {
	t.Parallel()
	var fetches atomic.Int64
	release := make(chan struct{})
	c := newCache(1<<20, func(k chunkKey) ([]byte, error) {
		fetches.Add(1)
		<-release
		return []byte(fmt.Sprint(k.n)), nil
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if b, err := c.get(chunkKey{"o", 3}); err != nil || string(b) != "3" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestAFailedFetchIsTriedAgain(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	fail := true
	c := newCache(1<<20, func(chunkKey) ([]byte, error) {
		if fail {
			return nil, broken
		}
		return []byte("there"), nil
	})
	if _, err := c.get(chunkKey{"o", 0}); !errors.Is(err, broken) {
		t.Fatalf("error %v", err)
	}
	fail = false
	if b, err := c.get(chunkKey{"o", 0}); err != nil || string(b) != "there" {
		t.Fatalf("%q, %v", b, err)
	}
}

package cache

import (
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestWhatIsUsedStaysAndTheRestGoes(t *testing.T) {
	t.Parallel()
	c := New[int, string](100)
	for i := range 1000 {
		c.Put(i, "value", 10)
		if v, ok := c.Get(0); !ok || v != "value" {
			t.Fatalf("after %d others the value in use is gone", i)
		}
	}
	held := 0
	for i := range 1000 {
		if _, ok := c.Get(i); ok {
			held++
		}
	}
	if held > 10 {
		t.Errorf("%d values of 10 octets in 100", held)
	}
	if _, ok := c.Get(1); ok {
		t.Error("a value that nobody asked for stayed")
	}
}

func TestAValueTooLargeIsNotKept(t *testing.T) {
	t.Parallel()
	c := New[string, int](100)
	c.Put("a", 1, 10)
	c.Put("a", 2, 51)
	if v, ok := c.Get("a"); ok {
		t.Errorf("kept %d", v)
	}
}

// TestTheCacheHoldsNothingWrong compares with a map that forgets nothing, and counts.
func TestTheCacheHoldsNothingWrong(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := New[int, int](200)
		all := map[int]int{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			key := rapid.IntRange(0, 30).Draw(t, "key")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1, 2:
				all[key] = rapid.Int().Draw(t, "value")
				c.Put(key, all[key], int64(rapid.IntRange(1, 120).Draw(t, "octets")))
			case 3:
				delete(all, key)
				c.Drop(key)
			default:
				if v, ok := c.Get(key); ok && v != all[key] {
					t.Fatalf("%d is %d, not %d", key, v, all[key])
				}
			}
			var young, old int64
			for _, e := range c.young {
				young += e.octets
			}
			for _, e := range c.old {
				old += e.octets
			}
			if young != c.octets || young+old > 200 {
				t.Fatalf("young %d (counted %d) and old %d octets in 200", young, c.octets, old)
			}
		}
	})
}

func TestTheCacheMayBeUsedAtOnce(t *testing.T) {
	t.Parallel()
	c := New[int, int](1000)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				c.Put(i%50, i, 10)
				c.Get((i + g) % 50)
				c.Drop(i % 7)
			}
		})
	}
	wg.Wait()
}

func BenchmarkGet(b *testing.B) {
	c := New[int, *int](1 << 20)
	for i := range 1000 {
		c.Put(i, &i, 100)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Get(i % 1000)
	}
}

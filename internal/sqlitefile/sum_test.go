package sqlitefile

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func randomPage(r *rand.Rand) []byte {
	p := make([]byte, pageSize)
	for i := range numberAt {
		p[i] = byte(r.Uint32())
	}
	seal(p, number, 0)
	return p
}

const number = 77 // of the pages of tests

// TestEveryWrongOctetOfAPageIsPutRight tries each octet with each wrong value.
func TestEveryWrongOctetOfAPageIsPutRight(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	page := randomPage(r)
	if check(page, number) != sound {
		t.Fatal("a page is not sound after it was sealed")
	}
	got := bytes.Clone(page)
	for i := range sizeAt {
		step := 1
		if testing.Short() || i%256 > 2 {
			step = 67 // each value at some places, some values at each
		}
		for e := 1; e < 256; e += step {
			got[i] ^= byte(e)
			if s := check(got, number); s != mended || !bytes.Equal(got, page) {
				t.Fatalf("octet %d wrong by %#x: %d", i, e, s)
			}
		}
	}
	for i := sizeAt; i < pageSize; i++ {
		got[i] ^= 0x55
		if s := check(got, number); s != sound {
			t.Errorf("octet %d: %d", i, s)
		}
		got[i] ^= 0x55
	}
}

// TestNoTwoWrongOctetsLookAlike holds that each error of one octet leaves other differences than each other one: so one wrong
// octet is never taken for another.
func TestNoTwoWrongOctetsLookAlike(t *testing.T) {
	t.Parallel()
	seen := make([]uint64, 0, crcAt*255)
	a, b := make([]uint32, 256), make([]uint32, 256)
	for e := 1; e < 256; e++ {
		a[e], b[e] = uint32(e), uint32(e)
	}
	for range crcAt {
		for e := 1; e < 256; e++ {
			a[e] = castagnoli.table[byte(a[e])] ^ a[e]>>8
			b[e] = ieee.table[byte(b[e])] ^ b[e]>>8
			seen = append(seen, uint64(a[e])<<32|uint64(b[e]))
		}
	}
	slices.Sort(seen)
	if seen = slices.Compact(seen); len(seen) != crcAt*255 {
		t.Errorf("%d errors leave %d differences", crcAt*255, len(seen))
	}
}

func TestLargerDamageIsNeverPutRightWrongly(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 1000 {
		page := randomPage(r)
		bad := bytes.Clone(page)
		switch i % 3 {
		case 0: // two octets
			x := r.IntN(sizeAt)
			y := (x + 1 + r.IntN(sizeAt-1)) % sizeAt
			bad[x] ^= byte(1 + r.IntN(255))
			bad[y] ^= byte(1 + r.IntN(255))
		case 1: // a sector of another page
			at := 512 * r.IntN(8)
			copy(bad[at:at+512], randomPage(r)[at:])
		case 2: // a sector of zeros
			clear(bad[512*(i%8) : 512*(i%8)+512])
		}
		kept := bytes.Clone(bad)
		if s := check(bad, number); s != broken {
			t.Fatalf("damage %d is %d", i, s)
		}
		if !bytes.Equal(bad, kept) {
			t.Fatalf("damage %d was changed", i)
		}
	}
}

func TestAPageInAnothersPlaceIsDamaged(t *testing.T) {
	t.Parallel()
	page := randomPage(rand.New(rand.NewPCG(17, 18)))
	if s := check(page, number+1); s != broken {
		t.Error("a page in another's place is", s)
	}
	if s := check(page, anyNumber); s != sound {
		t.Error("a page of the log is", s)
	}
	page[numberAt+3]++ // two errors: the place, and the octet that says so
	if s := check(page, number+1); s != broken {
		t.Error("a page in another's place that names it is", s)
	}
}

func TestPagesNeverWrittenAreSound(t *testing.T) {
	t.Parallel()
	p := make([]byte, pageSize)
	if s := check(p, number); s != sound {
		t.Error("a page of zeros is", s)
	}
	for _, at := range []int{0, 100, crcAt, undoAt, pageSize - 1} {
		p[at] = 9
		if s := check(p, number); s != mended || p[at] != 0 {
			t.Errorf("a page of zeros with octet %d wrong is %d", at, s)
		}
	}
	seal(p, number, 0)
	if s := check(p, number); s != sound {
		t.Error("a page of zeros that was written is", s)
	}
}

// TestSealingLeavesTheSumsOfTheLog holds what other programs need to read the log.
func TestSealingLeavesTheSumsOfTheLog(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		page := randomPage(r)
		bare(page)
		page[writersAt] = 2
		s := logSum{r.Uint32(), r.Uint32()}
		without := s.add(page, native)
		n := 1 + r.Uint32N(3)
		seal(page, n, r.Uint32())
		if with := s.add(page, native); with != without {
			t.Fatalf("page %d: %x with sums, %x without", n, with, without)
		}
		if bare(page); page[writersAt] != 2 || anyOf(page[numberAt:]) || s.add(page, native) != without {
			t.Fatalf("page %d is not what it was", n)
		}
	}
}

func TestSumsAllocateNothing(t *testing.T) {
	page := randomPage(rand.New(rand.NewPCG(7, 8)))
	if n := testing.AllocsPerRun(100, func() { seal(page, number, 0); check(page, number) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSeal(b *testing.B) {
	page := randomPage(rand.New(rand.NewPCG(9, 10)))
	b.SetBytes(pageSize)
	for b.Loop() {
		seal(page, number, 0)
	}
}

func BenchmarkCheck(b *testing.B) {
	page := randomPage(rand.New(rand.NewPCG(9, 10)))
	b.SetBytes(pageSize)
	for b.Loop() {
		check(page, number)
	}
}

func BenchmarkCheckWrongOctet(b *testing.B) {
	page := randomPage(rand.New(rand.NewPCG(9, 10)))
	for b.Loop() {
		page[1] ^= 4
		if check(page, number) != mended {
			b.Fatal("not mended")
		}
	}
}

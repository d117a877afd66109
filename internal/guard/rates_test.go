package guard

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// hand is a clock that is set by hand.
type hand struct{ at atomic.Int64 }

func (h *hand) now() time.Time          { return time.Unix(0, h.at.Load()) }
func (h *hand) forward(d time.Duration) { h.at.Add(int64(d)) }

func TestRatesNeverAdmitMoreThanTheyMay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		clock := &hand{}
		clock.at.Store(1_700_000_000e9)
		rates := NewRates(1000, clock.now)
		rate := Rate{Amount: rapid.Int64Range(1, 5000).Draw(t, "amount"), Per: rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per")}
		var passed time.Duration
		got := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			d := time.Duration(rapid.Int64Range(0, int64(rate.Per)/3).Draw(t, "wait"))
			clock.forward(d)
			passed += d
			n := rapid.Int64Range(1, rate.Amount).Draw(t, "n")
			if rates.Take(1, []byte("a"), rate, n) {
				got += n
			}
			most := float64(rate.Amount)*(1+passed.Seconds()/rate.Per.Seconds()) + 1
			if float64(got) > most {
				t.Fatalf("%d admitted in %s, at most %.1f may be", got, passed, most)
			}
		}
	})
}

func TestRatesAdmitTheWholeAmountToWhoIsNew(t *testing.T) {
	t.Parallel()
	for _, amount := range []int64{1, 2, 3, 7, 60, 1000, 65_537} {
		clock := &hand{}
		rates := NewRates(1000, clock.now)
		rate := Rate{amount, time.Minute}
		for i := range amount {
			if !rates.Take(1, []byte("a"), rate, 1) {
				t.Fatalf("%d of %d is refused", i+1, amount)
			}
		}
		if rates.Take(1, []byte("a"), rate, 1) || rates.Left(1, []byte("a"), rate) {
			t.Errorf("%d: one more is admitted", amount)
		}
		if !rates.Take(1, []byte("b"), rate, 1) || !rates.Take(2, []byte("a"), rate, 1) {
			t.Errorf("%d: another subject, or another kind, is refused", amount)
		}
		clock.forward(time.Minute/time.Duration(amount) + time.Duration(amount))
		if !rates.Take(1, []byte("a"), rate, 1) {
			t.Errorf("%d: nothing comes back", amount)
		}
	}
}

func TestClockJumpsKeepNobodyOutForLong(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		clock := &hand{}
		clock.at.Store(1_700_000_000e9)
		rates := NewRates(1000, clock.now)
		rate := Rate{10, time.Minute}
		rates.Spend(1, []byte("a"), rate, rapid.Int64Range(1, 1000).Draw(t, "spent"))
		clock.forward(time.Duration(rapid.Int64Range(-1e18, 1e18).Draw(t, "jump")))
		got := 0
		for rates.Take(1, []byte("a"), rate, 1) {
			got++
		}
		if got > 10 {
			t.Fatalf("a jump of the clock admits %d", got)
		}
		clock.forward(time.Minute)
		if !rates.Take(1, []byte("a"), rate, 10) {
			t.Fatal("after a whole minute there is still nothing left")
		}
	})
}

func TestRatesAreBounded(t *testing.T) {
	t.Parallel()
	clock := &hand{}
	rates := NewRates(10_000, clock.now)
	rate := Rate{5, time.Hour}
	busy := []byte("busy")
	for i := range 200_000 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(i))
		rates.Take(1, b[:], rate, 1)
		if i%50 == 0 {
			rates.Spend(1, busy, rate, 5) // whoever goes on is not forgotten
		}
	}
	if n := rates.Len(); n > 10_000 {
		t.Errorf("%d subjects are remembered", n)
	}
	if rates.Left(1, busy, rate) {
		t.Error("a subject that was heard of all the time is forgotten")
	}
}

func TestRatesUnderARace(t *testing.T) {
	t.Parallel()
	clock := &hand{}
	rates := NewRates(1000, clock.now)
	rate := Rate{1000, time.Hour}
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if rates.Take(1, []byte("a"), rate, 1) {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != 1000 {
		t.Errorf("%d admitted, want 1000", got.Load())
	}
}

func BenchmarkTake(b *testing.B) {
	rates := NewRates(rateSubjects, time.Now)
	rate := Rate{1 << 40, time.Hour}
	subject := []byte("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		rates.Take(1, subject, rate, 1)
	}
}

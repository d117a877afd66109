// Package ordeal is for tests that put what is stored through kills, power cuts and failing calls. It gives them their
// seed, counts what they did and what they found, and adds it to the ledger from which `make soak` prints its line. It is
// no part of the server.
//
//	o := ordeal.Soak(t)            // skips unless WAXWING_SOAK is set
//	chance := o.Chance(0)          // random numbers from the seed
//	for range o.Times(1000) { ...; o.Kill() }
//	o.Lost("%s was answered and is gone", tag)
//
// A seed fixes what a test draws, not how the machine interleaves its goroutines: it brings most failures back, not all.
package ordeal

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Environment variables.
const (
	SoakVariable   = "WAXWING_SOAK"   // a factor: 1 for the whole soak, 0.1 for a tenth of its rounds
	SeedVariable   = "WAXWING_SEED"   // the seed of all tests; by default each draws its own
	LedgerVariable = "WAXWING_LEDGER" // file that outcomes are added to
)

// Outcome is what one test did and found.
type Outcome struct {
	Test       string
	Seed       uint64
	Kills      int  // of the process
	Cuts       int  // of the power
	Faults     int  // calls that failed
	Lost       int  // what was answered and is gone
	Partial    int  // what is there and not whole
	Duplicates int  // what is there more often than it came
	Failed     bool `json:",omitempty"` // for these or other reasons
}

// Ordeal counts for one test. Its methods may be called by several goroutines.
type Ordeal struct {
	t      testing.TB
	factor float64
	mu     sync.Mutex
	out    Outcome
}

// Begin makes the ordeal of a test of any length. Its outcome is written down when the test ends.
func Begin(t testing.TB) *Ordeal {
	t.Helper()
	o := &Ordeal{t: t, factor: 1, out: Outcome{Test: t.Name(), Seed: Seed(t)}}
	t.Logf("%s=%d", SeedVariable, o.out.Seed)
	t.Cleanup(o.end)
	return o
}

// Soak is Begin for a test that takes minutes or hours: it is skipped unless the environment asks for it.
func Soak(t testing.TB) *Ordeal {
	t.Helper()
	text := os.Getenv(SoakVariable)
	if text == "" {
		t.Skip("this takes long: make soak")
	}
	factor, err := strconv.ParseFloat(text, 64)
	if err != nil || factor <= 0 {
		t.Fatalf("%s=%q is no factor above 0", SoakVariable, text)
	}
	o := Begin(t)
	o.factor = factor
	return o
}

// Seed is the seed that the environment gives, or else the clock's. It is for a process that a test starts.
func Seed(t testing.TB) uint64 {
	t.Helper()
	text := os.Getenv(SeedVariable)
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v", SeedVariable, text, err)
	}
	return n
}

// Seed is what all chance of the test comes from.
func (o *Ordeal) Seed() uint64 { return o.out.Seed }

// Chance gives random numbers that hang on the seed and a number of the caller's. It is for one goroutine.
func (o *Ordeal) Chance(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(o.out.Seed, stream)) }

// Times scales a count of rounds to the length of the soak; it is 1 at least.
func (o *Ordeal) Times(n int) int { return max(1, int(float64(n)*o.factor)) }

// Kill counts a kill of the process.
func (o *Ordeal) Kill() { o.add(func(c *Outcome) { c.Kills++ }) }

// Cut counts n cuts of the power.
func (o *Ordeal) Cut(n int) { o.add(func(c *Outcome) { c.Cuts += n }) }

// Fault counts n calls that failed.
func (o *Ordeal) Fault(n int) { o.add(func(c *Outcome) { c.Faults += n }) }

// Lost says that something answered is gone. The test has failed and goes on.
func (o *Ordeal) Lost(format string, args ...any) {
	o.t.Helper()
	o.add(func(c *Outcome) { c.Lost++ })
	o.t.Errorf("lost: "+format, args...)
}

// Partial says that something is there in part or damaged. The test has failed and goes on.
func (o *Ordeal) Partial(format string, args ...any) {
	o.t.Helper()
	o.add(func(c *Outcome) { c.Partial++ })
	o.t.Errorf("partial: "+format, args...)
}

// Duplicate counts n that are there once more than they came. At-least-once delivery allows it in the window of a crash;
// a test that doesn't says so itself.
func (o *Ordeal) Duplicate(n int) { o.add(func(c *Outcome) { c.Duplicates += n }) }

// SoFar is the outcome until now.
func (o *Ordeal) SoFar() Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out
}

func (o *Ordeal) add(change func(*Outcome)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(&o.out)
}

// end adds the outcome to the ledger, in one write, since several processes share it.
func (o *Ordeal) end() {
	out := o.SoFar()
	out.Failed = o.t.Failed()
	o.t.Logf("%s (%s=%d)", Sum([]Outcome{out}), SeedVariable, out.Seed)
	name := os.Getenv(LedgerVariable)
	if name == "" {
		return
	}
	line, err := json.Marshal(out)
	if err != nil {
		o.t.Errorf("ledger: %v", err)
		return
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		o.t.Errorf("ledger: %v", err)
		return
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		o.t.Errorf("ledger: %v", err)
	}
	if err := f.Close(); err != nil {
		o.t.Errorf("ledger: %v", err)
	}
}

// Sum is the line that outcomes come to.
func Sum(all []Outcome) string {
	var s Outcome
	for _, o := range all {
		s.Kills += o.Kills
		s.Cuts += o.Cuts
		s.Faults += o.Faults
		s.Lost += o.Lost
		s.Partial += o.Partial
		s.Duplicates += o.Duplicates
	}
	return fmt.Sprintf("%d kills, %d power cuts, %d faults: %d lost, %d partial, %d duplicates",
		s.Kills, s.Cuts, s.Faults, s.Lost, s.Partial, s.Duplicates)
}

package ordeal_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxwing/internal/durable/ordeal"
)

// told is a test that is only told what happens, so that an ordeal in it may fail.
type told struct {
	testing.TB
	errors  []string
	skipped bool
	cleanup []func()
}

func (f *told) Errorf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *told) Failed() bool      { return len(f.errors) > 0 }
func (f *told) Skip(...any)       { f.skipped = true; panic(f) }
func (f *told) Cleanup(fn func()) { f.cleanup = append(f.cleanup, fn) }

func TestOutcomesReachTheLedger(t *testing.T) {
	ledger := filepath.Join(t.TempDir(), "ledger")
	t.Setenv(ordeal.LedgerVariable, ledger)
	t.Setenv(ordeal.SeedVariable, "77")
	t.Setenv(ordeal.SoakVariable, "0.01")
	var all []ordeal.Outcome
	for i := range 2 {
		f := &told{TB: t}
		o := ordeal.Soak(f)
		if o.Seed() != 77 || o.Times(1000) != 10 || o.Times(3) != 1 {
			t.Errorf("seed %d, %d times, %d times", o.Seed(), o.Times(1000), o.Times(3))
		}
		if a, b := o.Chance(1).Uint64(), o.Chance(1).Uint64(); a != b || a == o.Chance(2).Uint64() {
			t.Error("chance does not hang on seed and stream alone")
		}
		o.Kill()
		o.Cut(3)
		o.Fault(5)
		o.Duplicate(2)
		if i == 1 {
			o.Lost("letter %d", 1)
			o.Partial("letter %d", 2)
		}
		for _, fn := range f.cleanup {
			fn()
		}
		if len(f.errors) != 2*i {
			t.Errorf("errors %q", f.errors)
		}
		all = append(all, o.SoFar())
	}
	const want = "2 kills, 6 power cuts, 10 faults: 1 lost, 1 partial, 4 duplicates"
	if got := ordeal.Sum(all); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	var read []ordeal.Outcome
	for line := range strings.Lines(string(b)) {
		var o ordeal.Outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		read = append(read, o)
	}
	if len(read) != 2 || read[0].Failed || !read[1].Failed || read[1].Seed != 77 || ordeal.Sum(read) != want {
		t.Errorf("the ledger holds %+v", read)
	}
}

func TestASoakWaitsToBeAskedFor(t *testing.T) {
	t.Setenv(ordeal.SoakVariable, "")
	f := &told{TB: t}
	defer func() {
		if recover() != f || !f.skipped {
			t.Error("not skipped")
		}
	}()
	ordeal.Soak(f)
}

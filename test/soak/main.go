// Command soak runs the long tests of durability and prints what they come to in one line, with the seeds: kills of the
// real binary, power cuts, failing calls. `make soak` runs it. It fails when a test fails, when one that began wrote no
// outcome, and when nothing was done at all.
//
//	go run ./test/soak               hours
//	go run ./test/soak -factor 0.01  minutes
//	go run ./test/soak -seed 42      the same draws again
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"waxwing/internal/durable/ordeal"
)

func main() {
	factor := flag.Float64("factor", 1, "how long: 1 for 1,000 kills and all that goes with it")
	seed := flag.String("seed", os.Getenv(ordeal.SeedVariable), "seed of all tests; by default each draws its own")
	pattern := flag.String("run", "Soak", "tests to run")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, *factor, *seed, *pattern, packages)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// run runs the tests and prints the line; the error says what makes it worthless or bad.
func run(ctx context.Context, out io.Writer, factor float64, seed, pattern string, packages []string) error {
	if factor <= 0 {
		return errors.New("-factor must be above 0")
	}
	dir, err := os.MkdirTemp("", "waxwing-soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ledger := filepath.Join(dir, "ledger")
	test := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1", "-timeout=12h", "-v", "-run", pattern}, packages...)...)
	test.Env = append(os.Environ(), ordeal.SoakVariable+"="+strconv.FormatFloat(factor, 'g', -1, 64), ordeal.LedgerVariable+"="+ledger)
	if seed != "" {
		test.Env = append(test.Env, ordeal.SeedVariable+"="+seed)
	}
	test.Stdout, test.Stderr = out, os.Stderr
	test.Cancel = func() error { return test.Process.Signal(os.Interrupt) }
	failed := test.Run()
	all, err := read(ledger)
	if err != nil {
		return errors.Join(err, failed)
	}
	for _, line := range report(all) {
		fmt.Fprintln(out, line)
	}
	if failed != nil {
		return fmt.Errorf("go test: %w", failed)
	}
	return verdict(all)
}

// read reads the ledger; without one nothing was done.
func read(name string) ([]ordeal.Outcome, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []ordeal.Outcome
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var o ordeal.Outcome
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		all = append(all, o)
	}
	return all, lines.Err()
}

// report says the sum, and under it the seed and the sum of each test.
func report(all []ordeal.Outcome) []string {
	slices.SortFunc(all, func(a, b ordeal.Outcome) int { return strings.Compare(a.Test, b.Test) })
	seeds := make([]string, len(all))
	lines := make([]string, 1, len(all)+1)
	for i, o := range all {
		seeds[i] = strconv.FormatUint(o.Seed, 10)
		state := "ok    "
		if o.Failed {
			state = "FAILED"
		}
		lines = append(lines, fmt.Sprintf("  %s %s, seed %d: %s", state, o.Test, o.Seed, ordeal.Sum(all[i:i+1])))
	}
	slices.Sort(seeds)
	lines[0] = fmt.Sprintf("%s; seeds %s", ordeal.Sum(all), strings.Join(slices.Compact(seeds), " "))
	return lines
}

// verdict is an error when the outcomes prove nothing or something bad. go test says what failed besides.
func verdict(all []ordeal.Outcome) error {
	done := 0
	for _, o := range all {
		if o.Failed || o.Lost > 0 || o.Partial > 0 {
			return fmt.Errorf("%s failed", o.Test)
		}
		done += o.Kills + o.Cuts + o.Faults
	}
	if done == 0 {
		return errors.New("nothing was killed, cut or made to fail")
	}
	return nil
}

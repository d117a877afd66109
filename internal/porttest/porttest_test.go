package porttest

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestMain lets the test run itself as the other processes that ask for ports.
func TestMain(m *testing.M) {
	if os.Getenv("WAXWING_TEST_PORTS") == "" {
		os.Exit(m.Run())
	}
	ports, err := Reserve(block + 10) // more than one block has
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(strings.Trim(fmt.Sprint(ports), "[]"))
	_, _ = os.Stdin.Read(make([]byte, 1)) // held until the test says so
}

// TestProcessesGetDifferentPorts asks in several processes at once, and in goroutines of this one.
func TestProcessesGetDifferentPorts(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]bool{}
	note := func(ports []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range ports {
			if seen[p] {
				t.Errorf("port %s was given twice", p)
			}
			seen[p] = true
		}
	}
	for range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WAXWING_TEST_PORTS=1")
		cmd.Stderr = os.Stderr
		hold, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = hold.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
		ports := make([]string, block+10)
		for i := range ports {
			if _, err := fmt.Fscan(out, &ports[i]); err != nil {
				t.Fatal(err)
			}
		}
		note(ports)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ports, err := Reserve(20)
			if err != nil {
				t.Error(err)
			}
			note(strings.Fields(strings.Trim(fmt.Sprint(ports), "[]")))
		})
	}
	wg.Wait()
}

// TestWhatOthersListenOnIsLeftOut has a program that knows nothing of blocks sit on the port that comes next.
func TestWhatOthersListenOnIsLeftOut(t *testing.T) {
	next := func() int {
		held.Lock()
		defer held.Unlock()
		if held.next == held.end {
			return 0 // in the next block
		}
		return held.next
	}
	for range 2 { // the second time at the latest there are ports left in the block
		if _, err := Reserve(1); err != nil {
			t.Fatal(err)
		}
		if next() != 0 {
			break
		}
	}
	taken := next()
	l, err := listen(taken)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ports, err := Reserve(2)
	if err != nil || slices.Contains(ports, taken) {
		t.Errorf("%v, %v: %d is taken", ports, err, taken)
	}
	for _, p := range ports {
		free, err := listen(p)
		if err != nil {
			t.Error(err)
			continue
		}
		_ = free.Close()
	}
}

package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"waxwing/internal/durable"
)

// numbersStep is how many numbers are taken at a time, so that the file is not written for each segment.
const numbersStep = 256

var errNumbers = errors.New("blob: numbers file")

// numbers gives out segment numbers that were never used, also not by segments that were deleted before a restart: a
// file holds a bound below which all may have been used.
type numbers struct {
	fs   durable.FS
	name string

	mu    sync.Mutex
	next  [2]Segment // packs, large
	bound [2]Segment // what the file says
}

func kindOf(kind Segment) int {
	if kind.Large() {
		return 1
	}
	return 0
}

// loadNumbers reads the file; with errNumbers the numbers are usable but come from the segments alone.
func loadNumbers(fsys durable.FS, name string, lastPack, lastLarge Segment) (*numbers, error) {
	n := &numbers{fs: fsys, name: name, next: [2]Segment{lastPack + 1, lastLarge + 1}}
	data, err := durable.ReadFile(fsys, name, 100)
	if errors.Is(err, fs.ErrNotExist) {
		n.bound = n.next
		return n, nil
	}
	if err != nil && !errors.Is(err, durable.ErrTooLarge) {
		return nil, err
	}
	var pack, large uint32
	if _, err := fmt.Sscanf(string(data), "packs %d\nlarge %d\n", &pack, &large); err != nil {
		n.bound = n.next
		return n, fmt.Errorf("%w: %w", errNumbers, err)
	}
	n.next[0] = max(n.next[0], Segment(pack))
	n.next[1] = max(n.next[1], Segment(large))
	n.bound = n.next
	return n, nil
}

// raise makes sure that a number which somebody knows is not given out again.
func (n *numbers) raise(used Segment) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := kindOf(used)
	n.next[k] = max(n.next[k], used&^largeBit+1)
}

// take returns a new number of a kind.
func (n *numbers) take(kind Segment) (Segment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := kindOf(kind)
	g := n.next[k]
	if g.Large() {
		return 0, errors.New("blob: segment numbers are used up")
	}
	if g >= n.bound[k] {
		bound := n.bound
		bound[k] = g + numbersStep
		if err := n.write(bound); err != nil {
			return 0, err
		}
	}
	n.next[k]++
	return g | kind&largeBit, nil
}

// settle writes the exact numbers at the end, so that a restart skips none.
func (n *numbers) settle() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bound == n.next {
		return nil
	}
	return n.write(n.next)
}

func (n *numbers) write(bound [2]Segment) error {
	data := fmt.Appendf(nil, "packs %d\nlarge %d\n", uint32(bound[0]), uint32(bound[1]))
	if err := durable.WriteFile(n.fs, n.name, data, 0o600); err != nil {
		return fmt.Errorf("blob: segment numbers: %w", err)
	}
	n.bound = bound
	return nil
}

package blob

import (
	"sync"
)

// pins keeps segments that are to go while somebody reads an older state of the rows.
type pins struct {
	mu   sync.Mutex
	n    int
	kept []Segment // to be removed with the end of the last pin
}

// keep notes a segment that is to go; false when nothing is pinned.
func (p *pins) keep(g Segment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n > 0 {
		p.kept = append(p.kept, g)
	}
	return p.n > 0
}

// Pin keeps every record readable by its Ref, whatever is deleted or compacted, until release is called: no file of a segment
// is removed before. What goes meanwhile costs its space on the disk; after a crash the next Compact finds it.
func (s *Store) Pin() (release func()) {
	s.pins.mu.Lock()
	defer s.pins.mu.Unlock()
	s.pins.n++
	return sync.OnceFunc(s.unpin)
}

func (s *Store) unpin() {
	s.pins.mu.Lock()
	s.pins.n--
	var kept []Segment
	if s.pins.n == 0 {
		kept, s.pins.kept = s.pins.kept, nil
	}
	s.pins.mu.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed { // the directory may belong to another process by now
		return
	}
	for _, g := range kept {
		s.remove(g)
	}
}

package blob

import "context"

// Staged is a Put in two steps: Stage gives the record its place, and Wait says when it is on stable storage. Between them there
// is time for other work, such as the rows that name the place.
//
// Wait must be called, and after a successful one Settle, exactly once. A Staged belongs to one goroutine at a time.
type Staged struct {
	r   *request // nil when it has ended
	ref Ref
	err error
}

// Stage makes the record of a content, gives it a place, and leaves it to be written. A content that gets a file of its own is
// written before Stage returns. Errors are those of Put.
func (s *Store) Stage(ctx context.Context, shard uint32, c Content, sum ID) (*Staged, error) {
	size := c.Size()
	if err := s.takes(size); err != nil {
		return nil, err
	}
	if size > s.opt.LargeFrom {
		ref, err := s.putLarge(ctx, c, size, sum)
		if err != nil {
			return nil, err
		}
		return &Staged{ref: ref}, nil
	}
	r, err := s.prepare(ctx, c, size, sum)
	if err != nil {
		return nil, err
	}
	s.submit(shard, r)
	select {
	case <-r.placed:
		return &Staged{r: r, ref: r.place}, nil
	case <-r.done:
		if r.err != nil {
			return nil, r.err
		}
		return &Staged{ref: r.ref}, nil
	}
}

// Ref is where the record will be, or is. It holds nothing until Wait says so.
func (t *Staged) Ref() Ref { return t.ref }

// Durable tells whether Wait would return at once.
func (t *Staged) Durable() bool { return t.r == nil || len(t.r.done) > 0 }

// Wait returns when the record is on stable storage, or will never be.
func (t *Staged) Wait() error {
	if t.r != nil {
		<-t.r.done
		t.err, t.r = t.r.err, nil
	}
	return t.err
}

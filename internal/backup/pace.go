package backup

import (
	"context"
	"io"
	"sync"
	"time"
)

// pace bounds octets a second. All methods may be called at the same time.
type pace struct {
	rate int64

	mu   sync.Mutex
	free time.Time // when the next octets may go
}

// spend waits until the octets before are through, and counts n more.
func (p *pace) spend(ctx context.Context, n int) error {
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	wait := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// paced reads below a rate.
type paced struct {
	pace
	ctx context.Context
	at  io.ReaderAt
	r   io.Reader
}

// newPaced bounds the reading of r to rate octets a second; 0 is no bound.
func newPaced(ctx context.Context, r io.ReaderAt, rate int64) io.ReaderAt {
	if rate <= 0 {
		return r
	}
	return &paced{pace: pace{rate: rate}, ctx: ctx, at: r}
}

// newPacedReader does the same for a stream.
func newPacedReader(ctx context.Context, r io.Reader, rate int64) io.Reader {
	if rate <= 0 {
		return r
	}
	return &paced{pace: pace{rate: rate}, ctx: ctx, r: r}
}

// ReadAt implements io.ReaderAt.
func (p *paced) ReadAt(b []byte, off int64) (int, error) {
	if err := p.spend(p.ctx, len(b)); err != nil {
		return 0, err
	}
	return p.at.ReadAt(b, off)
}

// Read implements io.Reader.
func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if werr := p.spend(p.ctx, n); werr != nil {
		return n, werr
	}
	return n, err
}

package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"
)

// progress shows on standard error how far a long command is: on a terminal as one line that is rewritten, otherwise a
// line now and then.
type progress struct {
	s        *session
	what     string
	total    int64
	terminal bool
	every    time.Duration

	mu   sync.Mutex
	last time.Time
	done int64
	said bool
}

func (s *session) progress(what string, total int64) *progress {
	p := &progress{s: s, what: what, total: total, every: 5 * time.Second, last: time.Now()}
	if f, ok := s.talk.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode()&os.ModeCharDevice != 0 {
			p.terminal, p.every = true, 200*time.Millisecond
		}
	}
	return p
}

// follow looks every second how far something is that the server does, until the function that it returns is called.
func (s *session) follow(what string, look func(ctx context.Context, p *progress)) (end func()) {
	ctx, stop := context.WithCancel(s.ctx)
	var ended sync.WaitGroup
	ended.Go(func() {
		p := s.progress(what, 0)
		defer p.end()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				look(ctx, p)
			}
		}
	})
	return func() {
		stop()
		ended.Wait()
	}
}

// set tells how much is done; it may be called from many goroutines.
func (p *progress) set(done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = max(p.done, done)
	if p.s.json || time.Since(p.last) < p.every {
		return
	}
	p.last, p.said = time.Now(), true
	p.write()
}

// about changes what the line says.
func (p *progress) about(what string, done, total int64) {
	p.mu.Lock()
	p.what, p.done, p.total = what, done, total
	p.mu.Unlock()
	p.set(done)
}

func (p *progress) write() {
	text := fmt.Sprintf("%s: %d", plain(p.what), p.done)
	if p.total > 0 {
		text += fmt.Sprintf(" of %d", p.total)
	}
	if p.terminal {
		fmt.Fprintf(p.s.talk, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(p.s.talk, text)
}

// interrupt makes room for another line.
func (p *progress) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said && p.terminal {
		fmt.Fprint(p.s.talk, "\r\x1b[K")
	}
}

// end leaves the last state on the screen.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said {
		p.write()
		if p.terminal {
			fmt.Fprintln(p.s.talk)
		}
	}
}

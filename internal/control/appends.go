package control

import (
	"context"
	"sync"

	"waxwing/internal/store"
)

// appends knows which mailboxes have a MessageAppend under way. A command that is killed leaves one behind that may still
// be committed; who goes on in its place waits for its end before he looks at what is there.
type appends struct {
	mu  sync.Mutex
	now map[appendTarget]*appending
}

type appendTarget struct {
	account store.AccountID
	mailbox store.MailboxID
}

type appending struct {
	n    int
	none chan struct{} // closed when n is 0 again
}

// begin notes one; the function that it returns ends it.
func (a *appends) begin(t appendTarget) (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now == nil {
		a.now = map[appendTarget]*appending{}
	}
	p := a.now[t]
	if p == nil {
		p = &appending{none: make(chan struct{})}
		a.now[t] = p
	}
	p.n++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.n--; p.n == 0 {
			delete(a.now, t)
			close(p.none)
		}
	}
}

// wait waits until none is under way.
func (a *appends) wait(ctx context.Context, t appendTarget) error {
	a.mu.Lock()
	p := a.now[t]
	a.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case <-p.none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

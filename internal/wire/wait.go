package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

var longAgo = time.Unix(1, 0)

// Wait sends what is pending and blocks until input can be read (false) or Wake was called (true). It holds no buffer
// while it waits, and at most for Limits.Idle. Input that came together with a Wake is kept: the next Wait tells it.
func (c *Conn) Wait() (woken bool, err error) {
	if c.rerr != nil {
		return false, c.rerr
	}
	if err := c.Flush(); err != nil {
		return false, err
	}
	if c.r < c.w || c.open != openNone {
		return c.tookWake(), nil
	}
	c.dropInput()
	now := time.Now()
	until := time.Time{}
	if c.lim.Idle > 0 {
		until = now.Add(c.lim.Idle)
	}
	for {
		if armed, err := c.beginWait(now, until); err != nil {
			return false, c.failRead("wait", err)
		} else if !armed {
			return true, nil
		}
		n, err := c.nc.Read(c.small[:])
		now = time.Now()
		woken := c.endWait()
		switch {
		case n > 0:
			c.buf, c.w = c.small[:], n
			return woken, nil
		case err == nil:
			if woken {
				return true, nil
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if !errors.Is(err, io.EOF) {
				return false, c.failRead("wait", err)
			}
			return false, c.failRead("wait", io.EOF)
		case woken:
			return true, nil
		case until.IsZero() || now.Before(until):
			c.rdl = time.Time{} // an earlier deadline than this wait's
		default:
			return false, c.failRead("wait", err)
		}
	}
}

// Early listens for at most d whether the peer talks before it was greeted. What it said is kept. An error is fatal; that
// nothing came is none.
func (c *Conn) Early(d time.Duration) (bool, error) {
	if c.rerr != nil {
		return false, c.rerr
	}
	c.dropInput()
	n, _, err := c.readInto(c.small[:], d)
	switch {
	case err == nil:
		c.buf, c.w = c.small[:], n
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, c.lineError(err, false, io.EOF)
}

// Rest sends what is pending and holds no buffer that is empty, for a session that lets its peer wait.
func (c *Conn) Rest() error {
	if err := c.Flush(); err != nil {
		return err
	}
	if c.r == c.w && c.open == openNone {
		c.dropInput()
	}
	return nil
}

// beginWait arms the deadline, unless Wake was called already.
func (c *Conn) beginWait(now, until time.Time) (armed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.woken {
		c.woken = false
		return false, nil
	}
	if until.IsZero() {
		c.rdl = time.Time{}
		err = c.setReadDeadline(time.Time{})
	} else {
		err = c.armRead(now, until)
	}
	c.waiting = true
	return true, err
}

func (c *Conn) endWait() (woken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
	if c.woken {
		c.woken = false
		c.rdl = time.Time{} // Wake has moved it
		return true
	}
	return false
}

func (c *Conn) tookWake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	woken := c.woken
	c.woken = false
	return woken
}

// Wake interrupts Wait, now or the next time it is called. It may be called from any goroutine and never blocks: the
// read deadline is moved into the past, which leaves a TLS connection whole.
func (c *Conn) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.woken {
		return
	}
	c.woken = true
	if c.waiting {
		_ = c.raw.SetReadDeadline(longAgo) // fails only on a closed socket, and then Wait ends anyway
	}
}

const peerPeriod = 250 * time.Millisecond

// watch is the peer watch of one command at a time.
type watch struct {
	mu     sync.Mutex
	timer  *time.Timer
	cancel context.CancelCauseFunc // nil while no command runs
	until  time.Time               // the command's own deadline, zero for none
	secure bool
}

// WatchPeer returns a context that is cancelled, with cause ErrPeerGone, when the peer has closed the connection while
// a command runs. A timer looks at the socket every 250 ms without reading from it, so that no goroutine is held and
// what the peer pipelined stays where it is. There is one watch at a time: call the returned function at the end of
// the command.
func (c *Conn) WatchPeer(parent context.Context) (context.Context, context.CancelFunc) {
	return c.WatchPeerFor(parent, 0)
}

// WatchPeerFor is WatchPeer with a bound on the command's time, 0 for none: the context is cancelled, with cause
// context.DeadlineExceeded, up to 250 ms after d has passed. It costs less than a deadline of its own.
func (c *Conn) WatchPeerFor(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	w := &c.watch
	w.mu.Lock()
	w.cancel = cancel
	w.secure = c.tls != nil
	w.until = time.Time{}
	if d > 0 {
		w.until = time.Now().Add(d)
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(peerPeriod, c.lookAtPeer)
	} else {
		w.timer.Reset(peerPeriod)
	}
	w.mu.Unlock()
	return ctx, func() {
		c.stopWatch()
		cancel(nil)
	}
}

func (c *Conn) stopWatch() {
	w := &c.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel = nil
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (c *Conn) lookAtPeer() {
	w := &c.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel == nil {
		return
	}
	switch {
	case peerGone(c.raw, w.secure):
		w.cancel(ErrPeerGone)
		w.cancel = nil
		return
	case !w.until.IsZero() && !time.Now().Before(w.until):
		w.cancel(context.DeadlineExceeded)
		w.cancel = nil
		return
	}
	w.timer.Reset(peerPeriod)
}

package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// bulk is the account of one literal or body: only the time spent waiting for the peer counts, so that a slow disk on
// this side is never held against it.
type bulk struct {
	waited time.Duration
	got    int64
}

// fillBulk reads once into p under the limits for literals and bodies.
func (c *Conn) fillBulk(op string, p []byte) (int, error) {
	allow, slow := c.bulkAllow()
	if allow <= 0 {
		return 0, c.failRead(op, ErrTooSlow)
	}
	n, took, err := c.readInto(p, allow)
	c.bulk.waited += took
	c.bulk.got += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		return n, c.failRead(op, io.ErrUnexpectedEOF)
	case slow && errors.Is(err, os.ErrDeadlineExceeded):
		return n, c.failRead(op, ErrTooSlow)
	default:
		return n, c.failRead(op, err)
	}
}

// bulkAllow returns how long the next read may wait, and whether the whole, not the single read, is what bounds it.
func (c *Conn) bulkAllow() (allow time.Duration, slow bool) {
	allow = forever
	if c.lim.Read > 0 {
		allow = c.lim.Read
	}
	if c.lim.Bulk > 0 {
		if left := c.lim.Bulk - c.bulk.waited; left < allow {
			allow, slow = left, true
		}
	}
	if c.lim.MinRate > 0 {
		rate := int64(c.lim.MinRate)
		earned := time.Duration(min(c.bulk.got/rate, 1<<30))*time.Second +
			time.Duration(c.bulk.got%rate)*time.Second/time.Duration(rate)
		if left := c.lim.Grace + earned - c.bulk.waited; left < allow {
			allow, slow = left, true
		}
	}
	return allow, slow
}

// fillWindow reads more into the input buffer.
func (c *Conn) fillWindow(op string) error {
	c.room(bufSize)
	n, err := c.fillBulk(op, c.buf[c.w:])
	c.w += n
	return err
}

// LiteralReader reads exactly the octets of one literal or BDAT chunk.
type LiteralReader struct {
	c    *Conn
	left int64
}

// Literal returns a reader of the next n octets. It must be read to its end, or given to Drain or Discard, before the
// next ReadLine; there is one at a time, and it costs no allocation. A negative n is a fatal error.
func (c *Conn) Literal(n int64) *LiteralReader {
	if c.open != openNone {
		_ = c.failRead("read literal", errUnread)
	}
	if n < 0 {
		_ = c.failRead("read literal", fmt.Errorf("negative size %d", n))
	}
	c.bulk = bulk{}
	c.lit = LiteralReader{c: c, left: n}
	if n > 0 {
		c.open = openLiteral
	}
	return &c.lit
}

// Remaining returns the octets not yet read.
func (l *LiteralReader) Remaining() int64 { return l.left }

// Read fills p with octets of the literal; io.EOF behind the last one, io.ErrUnexpectedEOF when the peer leaves.
func (l *LiteralReader) Read(p []byte) (int, error) {
	c := l.c
	if c.rerr != nil {
		return 0, c.rerr
	}
	if l.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	if c.r == c.w {
		if len(p) >= bufSize/4 { // straight into the caller's memory
			n, err := c.fillBulk("read literal", p)
			l.took(n)
			return n, err
		}
		if err := c.fillWindow("read literal"); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	l.took(n)
	return n, nil
}

func (l *LiteralReader) took(n int) {
	l.left -= int64(n)
	if l.left == 0 {
		l.c.open = openNone
	}
}

// WriteTo hands the rest of the literal to w without copying it first. After an error of w the rest is still unread.
func (l *LiteralReader) WriteTo(w io.Writer) (int64, error) {
	c := l.c
	var sum int64
	for l.left > 0 {
		if c.rerr != nil {
			return sum, c.rerr
		}
		if c.r == c.w {
			if err := c.fillWindow("read literal"); err != nil {
				return sum, err
			}
		}
		p := c.buf[c.r:c.w]
		if int64(len(p)) > l.left {
			p = p[:l.left]
		}
		n, err := w.Write(p)
		c.r += n
		l.took(n)
		sum += int64(n)
		if err != nil {
			return sum, err
		}
		if n < len(p) {
			return sum, io.ErrShortWrite
		}
	}
	return sum, c.rerr
}

// Discard reads the rest and forgets it; ErrTooLarge, fatal, at once when more than limit is left.
func (l *LiteralReader) Discard(limit int64) error { return l.c.Drain(l.left, limit) }

// Drain discards the next n octets: those of a refused literal or chunk, or the rest of an open one. More than limit
// is not read at all: the error is then fatal, since what follows could only be misread.
func (c *Conn) Drain(n, limit int64) error {
	if c.rerr != nil {
		return c.rerr
	}
	if c.open == openDot || c.open == openLiteral && n != c.lit.left {
		return c.failRead("drain", errUnread)
	}
	if n < 0 || n > limit {
		return c.failRead("drain", ErrTooLarge)
	}
	l := &c.lit
	if c.open == openNone {
		l = c.Literal(n)
	}
	_, err := l.WriteTo(io.Discard)
	return err
}

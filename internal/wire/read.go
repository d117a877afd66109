package wire

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"
)

const forever = time.Duration(1<<63 - 1)

// armRead sets the read deadline when the armed one would let the peer wait longer than until, or when less than half
// of the time is left on it. An earlier deadline that fires too soon is armed again by the reader: so a session that
// reads many short lines costs a timer operation every few minutes instead of one a read.
func (c *Conn) armRead(now, until time.Time) error {
	if !c.rdl.IsZero() && !c.rdl.After(until) && c.rdl.Sub(now) >= until.Sub(now)/2 {
		return nil
	}
	if err := c.setReadDeadline(until); err != nil {
		return err
	}
	c.rdl = until
	return nil
}

// setReadDeadline passes over the error of a net.Pipe whose other end is closed: reading tells that as io.EOF.
func (c *Conn) setReadDeadline(t time.Time) error {
	if err := c.raw.SetReadDeadline(t); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	return nil
}

// readInto reads once into p, waiting for at most allow, and tells how long it waited.
func (c *Conn) readInto(p []byte, allow time.Duration) (int, time.Duration, error) {
	if c.wn > 0 {
		if err := c.Flush(); err != nil {
			return 0, 0, err
		}
	}
	start := time.Now()
	until := time.Time{}
	if allow != forever {
		until = start.Add(allow)
	}
	now := start
	for empty := 0; ; {
		if until.IsZero() {
			c.rdl = time.Time{}
			if err := c.setReadDeadline(time.Time{}); err != nil {
				return 0, 0, err
			}
		} else if err := c.armRead(now, until); err != nil {
			return 0, 0, err
		}
		n, err := c.nc.Read(p)
		now = time.Now()
		switch {
		case n > 0:
			return n, now.Sub(start), nil // an error beside data comes again
		case err == nil:
			if empty++; empty > 100 {
				return 0, now.Sub(start), io.ErrNoProgress
			}
		case errors.Is(err, os.ErrDeadlineExceeded) && !until.IsZero() && now.Before(until):
			c.rdl = time.Time{}
		default:
			return 0, now.Sub(start), err
		}
	}
}

// dropInput gives the input buffer back and forgets what is in it.
func (c *Conn) dropInput() {
	if c.pooled != nil {
		buffers.Put(c.pooled)
		c.pooled = nil
	}
	c.buf, c.r, c.w = nil, 0, 0
}

// room makes free space behind buf[w], for a window of up to size octets.
func (c *Conn) room(size int) {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if c.pooled == nil && len(c.buf) <= smallSize {
		c.pooled = buffers.Get().(*[bufSize]byte)
		c.w = copy(c.pooled[:], c.buf[c.r:c.w])
		c.r = 0
		c.buf = c.pooled[:]
	}
	if c.w < len(c.buf) {
		return
	}
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
		return
	}
	grown := make([]byte, min(2*len(c.buf), max(size, len(c.buf)+smallSize)))
	c.w = copy(grown, c.buf)
	c.buf = grown
	if c.pooled != nil {
		buffers.Put(c.pooled)
		c.pooled = nil
	}
}

// what scan found.
type found uint8

const (
	foundNothing found = iota // pos: where to resume
	foundLine                 // pos: behind the CRLF
	foundBare                 // pos: behind the bare CR or LF
)

// scan looks for the first CR or LF in b[from:].
func scan(b []byte, from int) (pos int, what found) {
	seg := b[from:]
	lf := bytes.IndexByte(seg, '\n')
	if lf >= 0 {
		seg = seg[:lf+1]
	}
	cr := bytes.IndexByte(seg, '\r')
	switch {
	case cr < 0 && lf < 0:
		return len(b), foundNothing
	case cr < 0:
		return from + lf + 1, foundBare
	case cr+1 == len(seg):
		return from + cr, foundNothing
	case seg[cr+1] == '\n':
		return from + cr + 2, foundLine
	default:
		return from + cr + 1, foundBare
	}
}

// ReadLine returns the next line without its CRLF; it stays valid until the next read. Pending output is sent before
// it waits, and the input buffer is given back.
//
// A line over Limits.Line is discarded to its end: ErrLineTooLong. A CR or LF outside of CRLF never ends a line
// (RFC 5321, section 2.3.8): each gives ErrBareNewline at once, and all up to the next CRLF is discarded, so that
// nothing behind it is taken for a command, however the octets were cut into packets. io.EOF means that the peer left
// between lines, io.ErrUnexpectedEOF that it left inside one.
func (c *Conn) ReadLine() ([]byte, error) {
	if c.rerr != nil {
		return nil, c.rerr
	}
	if c.open != openNone {
		return nil, c.failRead("read line", errUnread)
	}
	var waited time.Duration
	for from := 0; ; {
		pos, what := scan(c.buf[c.r:c.w], from)
		if c.skipping {
			if done, err := c.skip(pos, what); done {
				return nil, err
			} else if what == foundLine {
				from, waited = 0, 0
				continue
			}
			pos = c.w - c.r // at most a CR is left: it is looked at again
		}
		switch {
		case what == foundLine && pos <= c.lim.Line:
			line := c.buf[c.r : c.r+pos-2]
			c.r += pos
			return line, nil
		case what == foundBare && pos <= c.lim.Line:
			c.r += pos
			c.skipping, c.skipped = true, 0
			return nil, ErrBareNewline
		case what != foundNothing || pos >= c.lim.Line:
			return nil, c.drainLine(waited)
		}
		from = pos
		if c.skipping {
			from = 0
		}
		if err := c.fillLine(&waited); err != nil {
			return nil, err
		}
	}
}

// skip consumes octets of a line that has been refused. It is done when there is something to report.
func (c *Conn) skip(pos int, what found) (done bool, err error) {
	c.r += pos
	c.skipped += int64(pos)
	switch {
	case what == foundLine:
		c.skipping = false
		return false, nil
	case what == foundBare:
		return true, ErrBareNewline
	case c.skipped > lineDrainCap:
		return true, c.failRead("read line", ErrBareNewline)
	default:
		return false, nil
	}
}

// fillLine reads more of a line; waited adds up the time that the peer took for it.
func (c *Conn) fillLine(waited *time.Duration) error {
	if c.r == c.w && !c.skipping {
		return c.fillIdle()
	}
	allow, slow := forever, false
	if c.lim.Read > 0 {
		allow = c.lim.Read
	}
	if c.lim.LineTime > 0 && c.lim.LineTime-*waited < allow {
		allow, slow = c.lim.LineTime-*waited, true
	}
	if allow <= 0 {
		return c.failRead("read line", ErrTooSlow)
	}
	c.room(c.lim.Line + 1)
	n, took, err := c.readInto(c.buf[c.w:], allow)
	*waited += took
	c.w += n
	return c.lineError(err, slow, io.ErrUnexpectedEOF)
}

// fillIdle waits for the first octets of a line without holding a buffer.
func (c *Conn) fillIdle() error {
	c.dropInput()
	allow := forever
	if c.lim.Idle > 0 {
		allow = c.lim.Idle
	}
	n, _, err := c.readInto(c.small[:], allow)
	c.buf, c.w = c.small[:], n
	return c.lineError(err, false, io.EOF)
}

func (c *Conn) lineError(err error, slow bool, eof error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return c.failRead("read line", eof)
	case slow && errors.Is(err, os.ErrDeadlineExceeded):
		return c.failRead("read line", ErrTooSlow)
	default:
		return c.failRead("read line", err)
	}
}

// drainLine discards the line that is too long, up to its CRLF.
func (c *Conn) drainLine(waited time.Duration) error {
	for drained := int64(0); ; {
		pos, what := scan(c.buf[c.r:c.w], 0)
		c.r += pos
		drained += int64(pos)
		if drained > lineDrainCap {
			return c.failRead("read line", ErrLineTooLong)
		}
		switch what {
		case foundLine:
			return ErrLineTooLong
		case foundBare:
			continue
		}
		if c.r == c.w { // keep the room of the buffer, fillLine must not take this for idle
			c.r, c.w = 0, 0
		}
		if err := c.fillDrain(&waited); err != nil {
			return err
		}
	}
}

func (c *Conn) fillDrain(waited *time.Duration) error {
	skipping := c.skipping
	c.skipping = true
	err := c.fillLine(waited)
	c.skipping = skipping
	return err
}

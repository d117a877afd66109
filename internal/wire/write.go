package wire

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Write buffers p; what does not fit goes out at once. Errors are sticky.
func (c *Conn) Write(p []byte) (int, error) {
	if c.werr != nil {
		return 0, c.werr
	}
	if len(p) >= bufSize {
		if err := c.Flush(); err != nil {
			return 0, err
		}
		return c.send(p)
	}
	sum := 0
	for len(p) > 0 {
		n := copy(c.space(), p)
		c.wn += n
		sum += n
		if p = p[n:]; len(p) > 0 {
			if err := c.sendBuffer(); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

// WriteString is Write for a string.
func (c *Conn) WriteString(s string) (int, error) {
	if c.werr != nil {
		return 0, c.werr
	}
	sum := 0
	for len(s) > 0 {
		n := copy(c.space(), s)
		c.wn += n
		sum += n
		if s = s[n:]; len(s) > 0 {
			if err := c.sendBuffer(); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

// WriteByte is Write for one octet.
func (c *Conn) WriteByte(b byte) error {
	if c.werr != nil {
		return c.werr
	}
	if len(c.space()) == 0 {
		if err := c.sendBuffer(); err != nil {
			return err
		}
	}
	c.wbuf[c.wn] = b
	c.wn++
	return nil
}

// ReadFrom copies r to the connection through the output buffer, without holding more than that.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	var sum int64
	for empty := 0; ; {
		if c.werr != nil {
			return sum, c.werr
		}
		if len(c.space()) == 0 {
			if err := c.sendBuffer(); err != nil {
				return sum, err
			}
		}
		n, err := r.Read(c.space())
		c.wn += n
		sum += int64(n)
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
		if n > 0 {
			empty = 0
		} else if empty++; empty > 100 {
			return sum, io.ErrNoProgress
		}
	}
}

// Pending returns the octets that wait to be sent.
func (c *Conn) Pending() int { return c.wn }

// Flush sends what is buffered and gives the buffer back.
func (c *Conn) Flush() error {
	if c.werr != nil {
		return c.werr
	}
	if c.wn > 0 {
		if err := c.sendBuffer(); err != nil {
			return err
		}
	}
	c.dropOutput()
	return nil
}

// space is the free part of the output buffer.
func (c *Conn) space() []byte {
	if c.wbuf == nil {
		c.wbuf = buffers.Get().(*[bufSize]byte)
	}
	return c.wbuf[c.wn:]
}

func (c *Conn) dropOutput() {
	if c.wbuf != nil {
		buffers.Put(c.wbuf)
		c.wbuf = nil
	}
	c.wn = 0
}

func (c *Conn) sendBuffer() error {
	_, err := c.send(c.wbuf[:c.wn])
	c.wn = 0
	return err
}

// send writes p under a deadline. The deadline is armed a quarter too far, so that it can stand for the writes that
// follow soon: unlike a read, a write that was cut by a deadline can't be taken up again.
func (c *Conn) send(p []byte) (int, error) {
	if c.lim.Write > 0 {
		now := time.Now()
		if c.wdl.Sub(now) < c.lim.Write || c.wdl.Sub(now) > 2*c.lim.Write {
			c.wdl = now.Add(c.lim.Write + c.lim.Write/4)
			if err := c.raw.SetWriteDeadline(c.wdl); err != nil {
				return 0, c.failWrite(err)
			}
		}
	} else if !c.wdl.IsZero() {
		c.wdl = time.Time{}
		if err := c.raw.SetWriteDeadline(c.wdl); err != nil {
			return 0, c.failWrite(err)
		}
	}
	n, err := c.nc.Write(p)
	if err != nil {
		return n, c.failWrite(err)
	}
	return n, nil
}

func (c *Conn) failWrite(err error) error {
	if c.werr == nil {
		c.werr = fatalError{fmt.Errorf("wire: write: %w", err)}
	}
	c.dropOutput()
	return c.werr
}

// DotWriter writes one dot-stuffed body.
type DotWriter struct {
	c     *Conn
	start bool // at the start of a line
	cr    bool // a CR is held back until its LF is seen
	err   error
}

var errDotClosed = errors.New("wire: body already ended")

// DotWriter returns a writer that dot-stuffs a body and ends it on Close with CRLF.CRLF, adding the CRLF only when the
// body did not end with one. It refuses a bare CR or LF with ErrBareNewline and never sends one: the message is then
// cut, and the connection must be closed without ending it. There is one at a time; it costs no allocation.
func (c *Conn) DotWriter() *DotWriter {
	c.dotw = DotWriter{c: c, start: true}
	return &c.dotw
}

var (
	dotByte  = []byte{'.'}
	crlf     = []byte("\r\n")
	dotEnd   = []byte(".\r\n")
	crlfDots = []byte("\r\n.\r\n")
)

// Write sends p, which may be cut anywhere.
func (w *DotWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	sum := 0
	if w.cr && len(p) > 0 {
		if p[0] != '\n' {
			return 0, w.fail(ErrBareNewline)
		}
		if _, err := w.c.Write(crlf); err != nil {
			return 0, w.fail(err)
		}
		w.cr, w.start = false, true
		p, sum = p[1:], 1
	}
	for len(p) > 0 {
		if w.start && p[0] == '.' {
			if _, err := w.c.Write(dotByte); err != nil {
				return sum, w.fail(err)
			}
		}
		n, held, ok := w.run(p)
		if !ok {
			return sum, w.fail(ErrBareNewline)
		}
		if _, err := w.c.Write(p[:n]); err != nil {
			return sum, w.fail(err)
		}
		sum += n
		p = p[n:]
		if held {
			w.cr = true
			w.start = false
			return sum + 1, nil
		}
	}
	return sum, nil
}

// run returns how many octets of p can go out as they are: up to a line that begins with a dot, or to a CR at the end,
// which is held back.
func (w *DotWriter) run(p []byte) (n int, held, ok bool) {
	for n < len(p) {
		pos, what := scan(p, n)
		switch what {
		case foundBare:
			return 0, false, false
		case foundNothing:
			held = pos < len(p)
			if pos > n {
				w.start = false
			}
			return pos, held, true
		}
		n = pos
		w.start = true
		if n < len(p) && p[n] == '.' {
			return n, false, true
		}
	}
	return n, false, true
}

func (w *DotWriter) fail(err error) error {
	w.err = err
	return err
}

// ReadFrom copies a body from r through a pooled buffer.
func (w *DotWriter) ReadFrom(r io.Reader) (int64, error) {
	b := buffers.Get().(*[bufSize]byte)
	defer buffers.Put(b)
	var sum int64
	for empty := 0; ; {
		n, err := r.Read(b[:])
		sum += int64(n)
		if n > 0 {
			empty = 0
			if _, werr := w.Write(b[:n]); werr != nil {
				return sum, werr
			}
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, w.fail(err)
		}
		if n == 0 {
			if empty++; empty > 100 {
				return sum, w.fail(io.ErrNoProgress)
			}
		}
	}
}

// Close ends the body. After any error it sends nothing, so that a cut body is never taken for a whole one.
func (w *DotWriter) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.cr {
		return w.fail(ErrBareNewline)
	}
	end := dotEnd
	if !w.start {
		end = crlfDots
	}
	if _, err := w.c.Write(end); err != nil {
		return w.fail(err)
	}
	w.err = errDotClosed
	return nil
}

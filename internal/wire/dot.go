package wire

import (
	"bytes"
	"io"
)

// DotReader reads one dot-stuffed body, RFC 5321, section 4.5.2.
type DotReader struct {
	c    *Conn
	max  int64
	size int64  // octets of the body so far, unstuffed
	seg  []byte // clean octets, already taken from the window, that the caller has not yet got
	at   place
	last byte // the octet before the window
	crcr bool // the last line ended in CR CR LF
	bare bool
	err  error // set at the end
}

// place is where in the body the window begins.
type place uint8

const (
	atLineStart place = iota
	inLine
	atEnd
)

// Dot returns a reader of a body that ends with CRLF.CRLF, or with "." CRLF when it is empty: the dot line is not part
// of the body, the CRLF before it is. Only that sequence ends it (RFC 5321, section 4.1.1.4).
//
// A bare CR or LF (ErrBareNewline) and a body over max octets (ErrTooLarge) are reported only after the body was read
// to its true end, so that the session stays in step; past max+Limits.Drain the error is fatal. Once a body is bad
// nothing more of it is handed out. A negative max is no bound. There is one reader at a time; it costs no allocation.
func (c *Conn) Dot(max int64) *DotReader {
	if c.open != openNone {
		_ = c.failRead("read body", errUnread)
	}
	c.bulk = bulk{}
	c.dot = DotReader{c: c, max: max}
	c.open = openDot
	return &c.dot
}

// Size returns the octets of the body read so far, with those that were discarded.
func (d *DotReader) Size() int64 { return d.size }

// Ambiguous tells, once the body was refused with ErrBareNewline, whether a CR stood before the very CRLF that ends it:
// CR CR LF dot CR LF. By the standard the body has ended, but the server before this one may have seen it differently,
// and what follows may be of the body's author: don't read on.
func (d *DotReader) Ambiguous() bool { return d.bare && d.crcr }

// Read hands out the body.
func (d *DotReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(d.seg) == 0 {
		if err := d.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.seg)
	d.seg = d.seg[n:]
	return n, nil
}

// WriteTo hands the body to w in windows, without copying it first. After an error of w the rest of the body is still
// unread: call Discard.
func (d *DotReader) WriteTo(w io.Writer) (int64, error) {
	var sum int64
	for {
		if len(d.seg) == 0 {
			if err := d.next(); err == io.EOF {
				return sum, nil
			} else if err != nil {
				return sum, err
			}
		}
		n, err := w.Write(d.seg)
		sum += int64(n)
		d.seg = d.seg[n:]
		if err != nil {
			return sum, err
		}
		if len(d.seg) > 0 {
			return sum, io.ErrShortWrite
		}
	}
}

// Discard reads to the end of the body and returns what was wrong with it, nil for a good one.
func (d *DotReader) Discard() error {
	for {
		d.seg = nil
		if err := d.next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// next takes clean octets from the window into seg; it returns an error only when there is none.
func (d *DotReader) next() error {
	c := d.c
	for {
		if d.at == atEnd {
			return d.err
		}
		if c.rerr != nil {
			return c.rerr
		}
		win := c.buf[c.r:c.w]
		if d.at == atLineStart && len(win) > 0 && win[0] == '.' {
			if !d.dotLine(win) {
				continue
			}
		} else if n := d.lines(win); n > 0 {
			if err := d.take(n); err != nil {
				return err
			}
			if len(d.seg) > 0 {
				return nil
			}
			continue
		}
		if err := c.fillWindow("read body"); err != nil {
			return err
		}
	}
}

// dotLine looks at a line that begins with a dot: the end of the body, or a stuffed line whose dot is dropped. It is
// true when more input is needed to tell.
func (d *DotReader) dotLine(win []byte) (more bool) {
	switch {
	case len(win) == 1, len(win) == 2 && win[1] == '\r':
		return true
	case win[1] == '\r' && win[2] == '\n':
		d.c.r += 3
		d.c.open = openNone
		d.at = atEnd
		switch {
		case d.bare:
			d.err = ErrBareNewline
		case d.over(0):
			d.err = ErrTooLarge
		default:
			d.err = io.EOF
		}
	default:
		d.c.r++
		d.at, d.last = inLine, '.'
	}
	return false
}

// lines returns how many octets of win are of the body for sure: as many lines as there are, up to one that begins with
// a dot. A CR at the end of the window is left there. One search a line for LF and one count of CR over the whole find
// every bare newline: each LF has its own CR before it, so that a surplus CR is a bare one.
func (d *DotReader) lines(win []byte) int {
	n, ends := 0, 0
	for n < len(win) {
		lf := bytes.IndexByte(win[n:], '\n')
		if lf < 0 {
			n = len(win)
			if win[n-1] == '\r' {
				n--
			}
			if n > 0 && win[n-1] != '\n' {
				d.at = inLine
			}
			break
		}
		at := n + lf
		n = at + 1
		if at == 0 || win[at-1] != '\r' {
			d.bare = true // no line ends here
			d.at = inLine
			continue
		}
		ends++
		d.at = atLineStart
		d.crcr = at > 1 && win[at-2] == '\r' || at == 1 && d.last == '\r'
		if n < len(win) && win[n] == '.' {
			break
		}
	}
	if n > 0 {
		d.last = win[n-1]
	}
	if !d.bare && bytes.Count(win[:n], crByte) != ends {
		d.bare = true
	}
	return n
}

var crByte = []byte{'\r'}

func (d *DotReader) over(extra int64) bool { return d.max >= 0 && d.size-d.max > extra }

// take moves n octets of the window to seg, or drops them when the body is bad.
func (d *DotReader) take(n int) error {
	c := d.c
	seg := c.buf[c.r : c.r+n]
	c.r += n
	d.size += int64(n)
	if d.over(c.lim.Drain) {
		return c.failRead("read body", ErrTooLarge)
	}
	if !d.bare && !d.over(0) {
		d.seg = seg
	}
	return nil
}

package mailfile

import (
	"bytes"
	"io"
)

var crlf = []byte("\r\n")

// crlfWriter writes CRLF for each LF, CR or CRLF. A CR at the end of a piece is held until it is known what follows.
type crlfWriter struct {
	w    io.Writer
	held bool
}

func (c *crlfWriter) write(p []byte) error {
	if c.held && len(p) > 0 {
		c.held = false
		if p[0] != '\n' {
			if _, err := c.w.Write(crlf); err != nil {
				return err
			}
		}
	}
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			_, err := c.w.Write(p)
			return err
		}
		if p[i] == '\r' && i+1 == len(p) {
			c.held = true
			_, err := c.w.Write(p[:i])
			return err
		}
		next := i + 1
		if p[i] == '\r' && p[next] == '\n' {
			next++
		}
		if _, err := c.w.Write(p[:i]); err != nil {
			return err
		}
		if _, err := c.w.Write(crlf); err != nil {
			return err
		}
		p = p[next:]
	}
	return nil
}

// end writes what is held.
func (c *crlfWriter) end() error {
	if !c.held {
		return nil
	}
	c.held = false
	_, err := c.w.Write(crlf)
	return err
}

// lfWriter writes LF for each CRLF.
type lfWriter struct {
	w     io.Writer
	fresh bool // at the beginning of a line
	held  bool // a CR whose next octet isn't known
}

func (l *lfWriter) write(p []byte) error {
	for len(p) > 0 {
		if l.held && p[0] != '\n' {
			if _, err := l.w.Write([]byte{'\r'}); err != nil {
				return err
			}
		}
		l.held = false
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			l.fresh = p[len(p)-1] == '\n'
			_, err := l.w.Write(p)
			return err
		}
		if i > 0 {
			l.fresh = p[i-1] == '\n'
		}
		if _, err := l.w.Write(p[:i]); err != nil {
			return err
		}
		l.held = true
		p = p[i+1:]
	}
	return nil
}

// flush writes a CR that nothing followed.
func (l *lfWriter) flush() error {
	if !l.held {
		return nil
	}
	l.held = false
	_, err := l.w.Write([]byte{'\r'})
	return err
}

// end ends the last line and writes the blank line that closes a message of an mbox.
func (l *lfWriter) end() error {
	tail := "\n"
	if l.held {
		tail = "\r\n\n"
	} else if !l.fresh {
		tail = "\n\n"
	}
	_, err := io.WriteString(l.w, tail)
	return err
}

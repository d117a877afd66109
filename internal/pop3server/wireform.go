package pop3server

import (
	"bytes"
	"errors"
	"io"
)

// errEnough ends a wireForm that has sent all lines that were asked for.
var errEnough = errors.New("pop3server: enough lines")

// unlimited is a number of lines that no message has.
const unlimited = int64(1) << 62

// wireForm writes a message as POP3 sends it, before dot-stuffing: the package comment lists the repairs. It counts what
// it writes; with a nil destination it only counts.
type wireForm struct {
	dst  io.Writer
	left int64 // lines of the body still wanted

	n        int64 // octets written
	repaired bool  // they are not the stored octets
	body     bool  // the end of the header was seen
	inLine   bool  // the present line has octets
	cr       bool  // a CR at the end of the last Write, not written yet
}

var (
	lineEnd = []byte("\r\n")
	noNUL   = []byte{0x80}
)

func (w *wireForm) emit(p []byte) error {
	w.n += int64(len(p))
	if w.dst == nil || len(p) == 0 {
		return nil
	}
	_, err := w.dst.Write(p)
	return err
}

// Write takes any piece of the message. errEnough says that nothing more is wanted.
func (w *wireForm) Write(p []byte) (int, error) {
	size := len(p)
	if w.cr && len(p) > 0 {
		w.cr = false
		if p[0] == '\n' {
			p = p[1:]
		} else {
			w.repaired = true
		}
		if err := w.endLine(true); err != nil {
			return 0, err
		}
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		line := p
		if i >= 0 {
			line = p[:i]
		}
		rest, ended, err := w.line(line, i >= 0)
		if err != nil {
			return 0, err
		}
		if i < 0 {
			w.cr = rest
			break
		}
		if err := w.endLine(!ended); err != nil {
			return 0, err
		}
		p = p[i+1:]
	}
	return size, nil
}

// line writes what stands before an LF, or before the end of a piece. cr says that a piece ended in a CR that may belong
// to the next; ended, that the line's CRLF was written with it.
func (w *wireForm) line(b []byte, lf bool) (cr, ended bool, err error) {
	clean := b
	if n := len(b); n > 0 && b[n-1] == '\r' {
		clean = b[:n-1]
		cr = true
	}
	plain := bytes.IndexByte(clean, '\r') < 0 && bytes.IndexByte(clean, 0) < 0
	if plain && cr && lf {
		w.inLine = w.inLine || len(clean) > 0
		return false, true, w.emit(b[:len(b)+1]) // with the LF behind it, as it is
	}
	if lf && !cr {
		w.repaired = true // LF alone
	}
	if plain {
		w.inLine = w.inLine || len(clean) > 0
		return cr, false, w.emit(clean)
	}
	w.repaired = true
	return cr, false, w.repair(clean)
}

// repair writes a piece of a line in which CRs end lines and NULs are replaced.
func (w *wireForm) repair(b []byte) error {
	for len(b) > 0 {
		i := bytes.IndexAny(b, "\r\x00")
		if i < 0 {
			w.inLine = true
			return w.emit(b)
		}
		w.inLine = w.inLine || i > 0
		if err := w.emit(b[:i]); err != nil {
			return err
		}
		if b[i] == '\r' {
			if err := w.endLine(true); err != nil {
				return err
			}
		} else {
			w.inLine = true
			if err := w.emit(noNUL); err != nil {
				return err
			}
		}
		b = b[i+1:]
	}
	return nil
}

// endLine ends a line, writing its CRLF if that is still to be done, and counts the lines of the body.
func (w *wireForm) endLine(write bool) error {
	if write {
		if err := w.emit(lineEnd); err != nil {
			return err
		}
	}
	empty := !w.inLine
	w.inLine = false
	switch {
	case w.body:
		w.left--
	case empty:
		w.body = true
	}
	if w.body && w.left <= 0 {
		return errEnough
	}
	return nil
}

// finish writes what the message lacks at its end.
func (w *wireForm) finish() error {
	if w.cr {
		w.cr, w.repaired = false, true
		if err := w.endLine(true); err != nil {
			return err
		}
	}
	if w.inLine {
		w.repaired = true
		if err := w.endLine(true); err != nil {
			return err
		}
	}
	if !w.body {
		w.repaired = true
		return w.endLine(true)
	}
	return nil
}

// copy takes a whole message from r; enough lines are no error.
func (w *wireForm) copy(r io.Reader, buf []byte) error {
	_, err := io.CopyBuffer(onlyWriter{w}, r, buf)
	return w.end(err)
}

// end turns the error of writing the last piece into that of the message.
func (w *wireForm) end(err error) error {
	if err == nil {
		err = w.finish()
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// onlyWriter hides other methods, so that io.CopyBuffer uses the buffer.
type onlyWriter struct{ io.Writer }

package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// smallContent is the size up to which a message is read into memory once, for all looks at it.
const smallContent = 256 << 10

var (
	smallBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	windows      = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
)

// content is the octets of one delivery, with what was seen in them.
type content struct {
	r     io.ReaderAt
	size  int64
	buf   *bytes.Buffer // pooled, holds a small message
	facts facts
}

// facts decide what a server must be able to take.
type facts struct {
	eightHeader bool // octets over 127 in the header of the message
	eightBody   bool // and in its body
	bare        bool // CR or LF outside of CRLF
	nul         bool
	long        bool // a line of more than 998 octets: RFC 5322, section 2.1.1
	crlf        bool // the last line is ended
}

// errContent marks a failure to read the stored message: no fault of any server.
type errContent struct{ error }

func (e errContent) Unwrap() error { return e.error }

// openContent reads the message once, to know what it needs.
func openContent(m *Message) (*content, *failure) {
	c := &content{r: m.Content, size: m.Content.Size()}
	if c.size <= smallContent {
		c.buf = smallBuffers.Get().(*bytes.Buffer)
		c.buf.Reset()
		if _, err := c.buf.ReadFrom(c.reader()); err != nil {
			return c, contentFailure(err)
		}
		if int64(c.buf.Len()) != c.size {
			return c, contentFailure(io.ErrUnexpectedEOF)
		}
		c.r = bytes.NewReader(c.buf.Bytes())
	}
	var s scanner
	if err := c.each(s.scan); err != nil {
		return c, contentFailure(err)
	}
	c.facts = s.result()
	return c, nil
}

func contentFailure(err error) *failure {
	f := temporarily("read message", 3, 0, "the stored message can't be read: %v", err)
	f.local = errContent{err}
	return f
}

// release gives the memory back; c must not be used after it.
func (c *content) release() {
	if c.buf != nil {
		smallBuffers.Put(c.buf)
		c.buf = nil
	}
}

// reader reads the content from the start.
func (c *content) reader() io.Reader { return io.NewSectionReader(c.r, 0, c.size) }

// each calls fn with the content, a window at a time.
func (c *content) each(fn func([]byte)) error {
	if c.buf != nil {
		fn(c.buf.Bytes())
		return nil
	}
	bufp := windows.Get().(*[]byte)
	defer windows.Put(bufp)
	for off := int64(0); off < c.size; {
		n, err := c.r.ReadAt((*bufp)[:min(int64(len(*bufp)), c.size-off)], off)
		fn((*bufp)[:n])
		off += int64(n)
		if err != nil && (!errors.Is(err, io.EOF) || off < c.size) {
			return fmt.Errorf("at octet %d of %d: %w", off, c.size, err)
		}
		if n == 0 && err == nil {
			return io.ErrNoProgress
		}
	}
	return nil
}

// scanner finds the facts of a message that comes in windows.
type scanner struct {
	f    facts
	body bool
	line int // octets in the line so far
	cr   bool
	any  bool
}

func (s *scanner) scan(b []byte) {
	for i := 0; i < len(b); {
		if !s.cr { // the inside of a line goes fast
			n := bytes.IndexByte(b[i:], '\n')
			seg := b[i:]
			if n >= 0 {
				seg = seg[:n]
			}
			if len(seg) > 1 && bytes.IndexByte(seg[:len(seg)-1], '\r') < 0 {
				s.octets(seg[:len(seg)-1])
				i += len(seg) - 1
			}
		}
		s.octet(b[i])
		i++
	}
}

// octets takes in a run without CR and LF.
func (s *scanner) octets(b []byte) {
	var or byte
	for _, c := range b {
		or |= c
	}
	if or >= 0x80 {
		s.eight()
	}
	if !s.f.nul && bytes.IndexByte(b, 0) >= 0 {
		s.f.nul = true
	}
	s.line += len(b)
	s.any = true
	if s.line > 998 {
		s.f.long = true
	}
}

func (s *scanner) eight() {
	if s.body {
		s.f.eightBody = true
	} else {
		s.f.eightHeader = true
	}
}

func (s *scanner) octet(c byte) {
	s.any = true
	if s.cr {
		s.cr = false
		if c == '\n' {
			if s.line == 0 {
				s.body = true
			}
			s.line = 0
			s.f.crlf = true
			return
		}
		s.f.bare = true
	}
	s.f.crlf = false
	switch {
	case c == '\r':
		s.cr = true
		return
	case c == '\n':
		s.f.bare = true
	case c == 0:
		s.f.nul = true
	case c >= 0x80:
		s.eight()
	}
	if s.line++; s.line > 998 {
		s.f.long = true
	}
}

func (s *scanner) result() facts {
	if s.cr {
		s.f.bare = true
	}
	if !s.any {
		s.f.crlf = true
	}
	return s.f
}

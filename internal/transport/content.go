package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"waxwing/internal/message"
	"waxwing/internal/message/convert"
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
	facts convert.Facts

	encoded   *convert.Edited // for servers that need it
	encodedTo convert.Target
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
	var s convert.Scanner
	if err := c.each(func(b []byte) { _, _ = s.Write(b) }); err != nil { // a Scanner never fails
		return c, contentFailure(err)
	}
	c.facts = s.Facts()
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

// signed tells a header that has a DKIM signature: it covers the body as it is.
func (c *content) signed() bool {
	head := make([]byte, min(c.size, signedLook))
	n, _ := c.r.ReadAt(head, 0) // what can't be read fails where it is sent
	header, _ := message.ParseHeader(head[:n])
	return header.Has("DKIM-Signature")
}

// signedLook is how much of a header is looked through for signatures, which stand at its beginning.
const signedLook = 64 << 10

package imapserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"waxwing/internal/message"
	"waxwing/internal/store"
)

// maxHeld is the size up to which a message is read as a whole; a larger one is streamed.
const maxHeld = 1 << 20

// maxHeaderHeld bounds the header that is held to pick fields from it.
const maxHeaderHeld = 4 << 20

// bodyReader gives the sections of one message after the other, reading and parsing each message at most once.
type bodyReader struct {
	s   *session
	ctx context.Context

	id     store.MessageID
	size   int64
	raw    []byte // the whole message, when it is held
	held   bool
	blob   store.Blob // when it is streamed
	root   *message.Part
	header int64 // octets of the header, 0 when not known yet

	buf    *[]byte // room for raw, from bodyPool
	fields []byte  // room for the fields that are remembered
	picked []byte  // room for the fields that a section asks for
}

var bodyPool = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}

func (r *bodyReader) open(s *session, ctx context.Context) {
	r.s, r.ctx = s, ctx
	r.buf = bodyPool.Get().(*[]byte)
}

// reset turns to another message; nothing is read yet.
func (r *bodyReader) reset(id store.MessageID, size int64) {
	r.closeBlob()
	r.id, r.size = id, size
	r.raw, r.held, r.root, r.header = nil, false, nil, 0
}

func (r *bodyReader) closeBlob() {
	if r.blob != nil {
		_ = r.blob.Close() // it was only read
		r.blob = nil
	}
}

func (r *bodyReader) close() {
	r.closeBlob()
	if r.buf != nil {
		bodyPool.Put(r.buf)
		r.buf = nil
	}
}

// load makes the octets reachable: held for a small message, as an open blob for a large one.
func (r *bodyReader) load() error {
	if r.held || r.blob != nil {
		return nil
	}
	if r.size > maxHeld {
		blob, err := r.s.srv.opt.Store.OpenBlob(r.ctx, r.s.acct, r.id)
		if err != nil {
			return err
		}
		r.blob, r.size = blob, blob.Size()
		return nil
	}
	raw, err := r.s.srv.opt.Store.ReadBlob(r.ctx, r.s.acct, r.id, (*r.buf)[:0])
	if err != nil {
		return err
	}
	if cap(raw) > cap(*r.buf) {
		*r.buf = raw[:0]
	}
	r.raw, r.held, r.size = raw, true, int64(len(raw))
	return nil
}

// parse makes the tree of parts.
func (r *bodyReader) parse() (*message.Part, error) {
	if r.root != nil {
		return r.root, nil
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	if r.held {
		r.root = message.ParseBytes(r.raw)
		return r.root, nil
	}
	root, err := message.Parse(r.blob, r.size, message.DefaultLimits)
	if err != nil {
		return nil, err
	}
	r.root = root
	return root, nil
}

// headerSize is the end of the message's own header. Nearly all headers are plain enough to see it without parsing.
func (r *bodyReader) headerSize() (int64, error) {
	if r.header > 0 {
		return r.header, nil
	}
	if err := r.load(); err != nil {
		return 0, err
	}
	if r.held {
		if n, plain := plainHeader(r.raw); plain {
			r.header = int64(n)
			return r.header, nil
		}
	}
	root, err := r.parse()
	if err != nil {
		return 0, err
	}
	r.header = root.BodyOffset
	return r.header, nil
}

// plainHeader finds the end of a header in which every line is a field or the continuation of one and ends in CRLF.
// What is not so is left to the parser of messages, so that both never disagree.
func plainHeader(raw []byte) (n int, plain bool) {
	for n < len(raw) {
		i := bytes.IndexByte(raw[n:], '\n')
		if i < 1 || raw[n+i-1] != '\r' {
			return 0, false
		}
		line := raw[n : n+i-1]
		if len(line) == 0 {
			return n + 2, n > 0
		}
		if line[0] != ' ' && line[0] != '\t' {
			colon := bytes.IndexByte(line, ':')
			if colon < 1 {
				return 0, false
			}
			for _, c := range line[:colon] {
				if c <= ' ' || c >= 0x7f {
					return 0, false
				}
			}
		} else if n == 0 {
			return 0, false
		}
		n += i + 1
	}
	return 0, false
}

// content is what a section comes to: nothing (NIL), text in memory, or a range of the open blob.
type content struct {
	none     bool
	text     []byte // not nil when in memory
	from, to int64
}

func (c *content) size() int64 {
	if c.text != nil {
		return int64(len(c.text))
	}
	return c.to - c.from
}

// section finds the octets of a section.
func (r *bodyReader) section(sec *section) (content, error) {
	if sec.listed && !r.inMemory() {
		header, err := r.listHeader()
		if err != nil {
			return content{none: true}, err
		}
		return r.pick(sec, header), nil
	}
	from, to, exists, err := r.bounds(sec)
	if err != nil || !exists {
		return content{none: true}, err
	}
	if sec.kind == sectionFields || sec.kind == sectionFieldsNot {
		header, err := r.headerBetween(from, to)
		if err != nil {
			return content{none: true}, err
		}
		return r.pick(sec, header), nil
	}
	from, to = sec.cut(from, to)
	if !r.held {
		return content{from: from, to: to}, nil
	}
	return content{text: r.raw[from:to:to]}, nil
}

// bounds finds where the octets lie of which a section is made.
func (r *bodyReader) bounds(sec *section) (from, to int64, exists bool, err error) {
	if len(sec.path) > 0 {
		return r.partBounds(sec)
	}
	if sec.kind == sectionWhole {
		err = r.load()
		return 0, r.size, err == nil, err
	}
	header, err := r.headerSize()
	if err != nil {
		return 0, 0, false, err
	}
	header = min(header, r.size)
	if sec.kind == sectionText {
		return header, r.size, true, nil
	}
	return 0, header, true, nil
}

// partBounds is bounds for a section with part numbers. HEADER and TEXT are of the message inside the part; a part
// that holds none has neither (RFC 3501, section 6.4.5).
func (r *bodyReader) partBounds(sec *section) (from, to int64, exists bool, err error) {
	root, err := r.parse()
	if err != nil {
		return 0, 0, false, err
	}
	part := root.Section(sec.path...)
	if part == nil {
		return 0, 0, false, nil
	}
	switch sec.kind {
	case sectionWhole:
		from, to = part.BodyOffset, part.End
	case sectionMIME:
		from, to = part.Offset, part.BodyOffset
	default:
		if part.Message == nil {
			return 0, 0, false, nil
		}
		from, to = part.Message.Offset, part.Message.BodyOffset
		if sec.kind == sectionText {
			from, to = part.Message.BodyOffset, part.Message.End
		}
	}
	if from > to || to > r.size {
		return 0, 0, false, fmt.Errorf("imapserver: section of message %d: %w", r.id, store.ErrCorrupt)
	}
	return from, to, true, nil
}

// headerBetween gives the octets of a header, as many as are held to pick fields from.
func (r *bodyReader) headerBetween(from, to int64) ([]byte, error) {
	if r.held {
		return r.raw[from:to:to], nil
	}
	header := make([]byte, min(to-from, maxHeaderHeld))
	if _, err := r.blob.ReadAt(header, from); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return header, nil
}

// wholeHeader gives the message's own header.
func (r *bodyReader) wholeHeader() ([]byte, error) {
	n, err := r.headerSize()
	if err != nil {
		return nil, err
	}
	return r.headerBetween(0, min(n, r.size))
}

// pick takes the fields of a header that a section asks for, and the blank line.
func (r *bodyReader) pick(sec *section, header []byte) content {
	r.picked = appendFields(r.picked[:0], header, sec.fields, sec.kind == sectionFieldsNot)
	lo, hi := sec.cut(0, int64(len(r.picked)))
	return content{text: r.picked[lo:hi:hi]}
}

// appendFields copies the fields whose names are listed (or are not, with others), as they stand, and a blank line.
// The names are in lower case.
func appendFields(b, header []byte, names []string, others bool) []byte {
	for len(header) > 0 {
		end := fieldEnd(header)
		field := header[:end]
		header = header[end:]
		if field[0] == '\r' || field[0] == '\n' {
			break
		}
		name := field
		if i := bytes.IndexByte(field, ':'); i >= 0 {
			name = bytes.TrimRight(field[:i], " \t")
		}
		if listedName(names, name) != others {
			b = append(b, field...)
		}
	}
	return append(b, '\r', '\n')
}

// fieldEnd finds the end of a field with its folded lines.
func fieldEnd(header []byte) int {
	for n := 0; ; {
		i := bytes.IndexByte(header[n:], '\n')
		if i < 0 {
			return len(header)
		}
		n += i + 1
		if n >= len(header) || header[n] != ' ' && header[n] != '\t' {
			return n
		}
	}
}

func listedName(names []string, name []byte) bool {
	for _, n := range names {
		if len(n) == len(name) && equalFold(name, n) {
			return true
		}
	}
	return false
}

// equalFold compares ASCII without case; lower is in lower case and of the same length.
func equalFold(b []byte, lower string) bool {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// appendStructure writes BODY, the structure without extension data. BODYSTRUCTURE is kept, BODY is made anew: hardly
// a client asks for it.
func (r *bodyReader) appendStructure(b []byte) ([]byte, error) {
	root, err := r.parse()
	if err != nil {
		return b, err
	}
	return message.AppendBodyStructure(b, root, false), nil
}

// stream copies octets of the open blob to the peer.
func (r *bodyReader) stream(w io.ReaderFrom, from, to int64) error {
	n, err := w.ReadFrom(io.NewSectionReader(r.blob, from, to-from))
	if err == nil && n != to-from {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("imapserver: stream message %d: %w", r.id, err)
	}
	return nil
}

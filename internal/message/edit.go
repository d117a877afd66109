package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// RemoveFields returns a header block without the fields of these names, and with every other octet as it was. The block
// may end with its blank line or without.
func RemoveFields(header []byte, names ...string) []byte {
	fields, _ := ParseHeader(header)
	out := make([]byte, 0, len(header))
	from := 0
	for i := range fields {
		f := &fields[i]
		if !isOneOf(f, names) {
			continue
		}
		at := int(f.Offset)
		out = append(out, header[from:at]...)
		from = at + len(f.Raw)
	}
	return append(out, header[from:]...)
}

func isOneOf(f *Field, names []string) bool {
	for _, n := range names {
		if f.Is(n) {
			return true
		}
	}
	return false
}

// Spliced is a message in two pieces: a header in memory, and the body where it was before. It satisfies store.Content.
type Spliced struct {
	head []byte
	r    io.ReaderAt
	from int64 // offset in r of what follows head
	size int64
}

// Splice puts head in place of the first from octets of r, which has size octets.
func Splice(head []byte, r io.ReaderAt, from, size int64) *Spliced {
	return &Spliced{head: head, r: r, from: from, size: int64(len(head)) + size - from}
}

// Size is the length of the whole in octets.
func (s *Spliced) Size() int64 { return s.size }

// ReadAt implements io.ReaderAt.
func (s *Spliced) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read spliced message at %d: negative offset", off)
	}
	if off >= s.size {
		return 0, io.EOF
	}
	end := false
	if int64(len(b)) > s.size-off {
		b, end = b[:s.size-off], true
	}
	n := 0
	if off < int64(len(s.head)) {
		n = copy(b, s.head[off:])
	}
	if n < len(b) {
		m, err := s.r.ReadAt(b[n:], off+int64(n)-int64(len(s.head))+s.from)
		n += m
		if n < len(b) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	if end {
		return n, io.EOF
	}
	return n, nil
}

// MaxRewrite is the longest header that Rewrite takes into memory.
const MaxRewrite = 16 << 20

// Rewrite edits the header of the message that was parsed from r: fields of the names in remove go, and prepend, which
// is whole fields with CRLF, comes in front. A header that ran into its body without a blank line gets one. The part is
// changed in place, so that it describes the result without being parsed again. Content fields can't be removed, because
// they say how the body is read.
func (p *Part) Rewrite(r io.ReaderAt, size int64, prepend []byte, remove ...string) (*Spliced, error) {
	if p.Offset != 0 {
		return nil, errors.New("rewrite header: not the outermost message")
	}
	if p.BodyOffset > MaxRewrite {
		return nil, fmt.Errorf("rewrite header: %d octets are too many", p.BodyOffset)
	}
	for _, n := range remove {
		if len(n) >= 8 && equalFold(n[:8], "Content-") {
			return nil, fmt.Errorf("rewrite header: %s describes the body", n)
		}
	}
	added, n := ParseHeader(prepend)
	if n != len(prepend) || len(prepend) > 0 && (hasBlank(prepend) || !bytes.HasSuffix(prepend, []byte("\r\n"))) {
		return nil, errors.New("rewrite header: what is prepended is not whole fields")
	}
	for i := range added {
		if added[i].Name == "" {
			return nil, errors.New("rewrite header: what is prepended has a line that is no field")
		}
	}
	old := make([]byte, p.BodyOffset)
	if n, err := r.ReadAt(old, 0); n < len(old) {
		return nil, fmt.Errorf("rewrite header: read %d octets: %w", len(old), err)
	}
	fields, end := ParseHeader(old)
	if end < len(old) {
		return nil, errors.New("rewrite header: the message is not the one that was parsed")
	}
	head := make([]byte, 0, len(prepend)+len(old)+2)
	head = append(head, prepend...)
	head = append(head, withoutJunkFront(fields, RemoveFields(old, remove...))...)
	head = endWithBlank(head)
	kept, _ := ParseHeader(head)
	p.shift(int64(len(head))-p.BodyOffset, true)
	p.Header = kept
	return Splice(head, r, int64(len(old)), size), nil
}

// withoutJunkFront drops an mbox "From " line: below other fields it would be junk inside the header.
func withoutJunkFront(fields Header, block []byte) []byte {
	if len(fields) > 0 && fields[0].Name == "" && bytes.HasPrefix(block, fields[0].Raw) {
		return block[len(fields[0].Raw):]
	}
	return block
}

// endWithBlank completes a header that has no blank line.
func endWithBlank(head []byte) []byte {
	switch {
	case len(head) == 0:
		return append(head, "\r\n"...)
	case head[len(head)-1] != '\n':
		return append(head, "\r\n\r\n"...)
	}
	if _, n := ParseHeader(head); n == len(head) && !hasBlank(head) {
		head = append(head, "\r\n"...)
	}
	return head
}

// hasBlank tells whether a header block ends with a blank line, or is one.
func hasBlank(head []byte) bool {
	b := chomp(head)
	return len(b) == 0 || (b[len(b)-1] == '\n')
}

// shift moves the offsets of everything behind the header that was edited.
func (p *Part) shift(delta int64, edited bool) {
	if !edited {
		p.Offset += delta
		for i := range p.Header {
			p.Header[i].Offset += delta
		}
	}
	p.BodyOffset += delta
	p.End += delta
	for _, c := range p.Parts {
		c.shift(delta, false)
	}
	if p.Message != nil {
		p.Message.shift(delta, false)
	}
}

package message

import (
	"bytes"
	"unicode/utf8"
)

// Field is one header field as it stands in the message.
type Field struct {
	Name   string // as written, without white space before the colon; empty for a line that is no field
	Raw    []byte // the whole field with its continuation lines and line ends
	Value  []byte // what follows the colon, folded as it is, without the last line end
	Offset int64  // of the first octet of Raw in the message
}

// Unfolded is the value on one line and without the space around it (RFC 5322, section 2.2.3).
func (f Field) Unfolded() []byte { return unfold(f.Value) }

// Is compares the field's name without regard to case.
func (f Field) Is(name string) bool { return equalFold(f.Name, name) }

// Header is the fields of a message or part in their order.
type Header []Field

// Find returns the first field of that name.
func (h Header) Find(name string) (Field, bool) {
	for i := range h {
		if equalFold(h[i].Name, name) {
			return h[i], true
		}
	}
	return Field{}, false
}

// Has tells whether there is a field of that name.
func (h Header) Has(name string) bool {
	_, ok := h.Find(name)
	return ok
}

// Get is the unfolded raw value of the first field of that name: nil when there is none, empty when it is empty.
func (h Header) Get(name string) []byte {
	f, ok := h.Find(name)
	if !ok {
		return nil
	}
	if v := f.Unfolded(); v != nil {
		return v
	}
	return []byte{}
}

// Values are the unfolded raw values of all fields of that name.
func (h Header) Values(name string) [][]byte {
	var out [][]byte
	for i := range h {
		if equalFold(h[i].Name, name) {
			out = append(out, h[i].Unfolded())
		}
	}
	return out
}

// Text is the first value of that name, decoded to UTF-8 (see DecodeHeader).
func (h Header) Text(name string) string {
	f, ok := h.Find(name)
	if !ok {
		return ""
	}
	return DecodeHeader(f.Value)
}

// equalFold compares ASCII field names; most differ in length, so that it is the first thing to look at.
func equalFold(a, b string) bool {
	if len(a) != len(b) || a == "" {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func isWSP(c byte) bool { return c == ' ' || c == '\t' }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// unfold drops line ends and the space around the value; it copies only when the value is folded.
func unfold(v []byte) []byte {
	v = trimSpace(v)
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return v
	}
	out := make([]byte, 0, len(v))
	for _, c := range v {
		if c != '\r' && c != '\n' {
			out = append(out, c)
		}
	}
	return out
}

// lineKind is what a line means inside a header.
type lineKind uint8

const (
	lineField lineKind = iota
	lineFold           // continues the field before it
	lineBlank          // ends the header
	lineJunk           // none of these
)

// classify looks at one line, with or without its line end, and gives the colon's index for a field. White space
// before the colon is allowed as RFC 5322, section 4.5.8 has it.
func classify(line []byte) (lineKind, int) {
	if len(line) == 0 || line[0] == '\n' || (line[0] == '\r' && len(line) > 1 && line[1] == '\n') {
		return lineBlank, 0
	}
	if isWSP(line[0]) {
		return lineFold, 0
	}
	for i, c := range line {
		switch {
		case c == ':':
			if i == 0 {
				return lineJunk, 0
			}
			return lineField, i
		case isWSP(c):
			j := i
			for j < len(line) && isWSP(line[j]) {
				j++
			}
			if j < len(line) && line[j] == ':' {
				return lineField, j
			}
			return lineJunk, 0
		case c <= ' ' || c >= 0x7f:
			return lineJunk, 0
		}
	}
	return lineJunk, 0
}

// isMboxFrom recognises the separator of an mbox file, also escaped, where a message should begin.
func isMboxFrom(line []byte) bool {
	return bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From "))
}

// mark is where a field begins in a header block, and its colon: -1 for junk.
type mark struct{ start, colon int }

// fieldsOf cuts a block of header lines, without the blank line, at the marks.
func fieldsOf(block []byte, marks []mark, offset int64) Header {
	if len(marks) == 0 {
		return nil
	}
	h := make(Header, len(marks))
	for i, m := range marks {
		end := len(block)
		if i+1 < len(marks) {
			end = marks[i+1].start
		}
		f := &h[i]
		f.Raw = block[m.start:end:end]
		f.Offset = offset + int64(m.start)
		val := f.Raw
		if m.colon >= 0 {
			f.Name = fieldName(block[m.start:m.colon])
			val = block[m.colon+1 : end : end]
		}
		f.Value = chomp(val)
	}
	return h
}

func fieldName(b []byte) string {
	for len(b) > 0 && isWSP(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return intern(b)
}

func chomp(v []byte) []byte {
	if n := len(v); n > 0 && v[n-1] == '\n' {
		v = v[:n-1]
		if n > 1 && v[n-2] == '\r' {
			v = v[:n-2]
		}
	}
	return v
}

// blockDefects looks for what is wrong with the octets of a header.
func blockDefects(block []byte) Defects {
	var d Defects
	if bytes.IndexByte(block, 0) >= 0 {
		d |= DefectNULInHeader
	}
	if !utf8.Valid(block) {
		d |= Defect8BitHeader
	}
	if bytes.Count(block, []byte{'\n'}) != bytes.Count(block, []byte("\r\n")) {
		d |= DefectBareLF
	}
	return d
}

// ParseHeader reads a header block, with or without the blank line that ends it, and returns its fields and the length
// of the header with the blank line. Fields alias raw. Junk lines become fields without a name.
func ParseHeader(raw []byte) (Header, int) {
	var marks []mark
	pos := 0
	for pos < len(raw) {
		end := len(raw)
		if i := bytes.IndexByte(raw[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		kind, colon := classify(raw[pos:end])
		switch kind {
		case lineBlank:
			return fieldsOf(raw[:pos], marks, 0), end
		case lineField:
			marks = append(marks, mark{pos, pos + colon})
		case lineJunk:
			marks = append(marks, mark{pos, -1})
		case lineFold:
			if len(marks) == 0 {
				marks = append(marks, mark{pos, -1})
			}
		}
		pos = end
	}
	return fieldsOf(raw, marks, 0), len(raw)
}

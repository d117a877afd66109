package convert

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"
)

// edit replaces the octets [from, to) of a message.
type edit struct {
	from, to int64
	text     string // what stands there instead, when encode is empty
	encode   string // or those octets in this transfer encoding
}

// Edited is a message with changes that are made as it is read: the message itself stays as it is.
type Edited struct {
	r     io.ReaderAt
	size  int64
	edits []edit
	facts Facts
	out   int64
}

// Size is how many octets Reader gives, Facts what they are like.
func (e *Edited) Size() int64  { return e.out }
func (e *Edited) Facts() Facts { return e.facts }

// Changed tells that anything is different.
func (e *Edited) Changed() bool { return len(e.edits) > 0 }

// newEdited puts the edits in order and reads the result once, which proves that they fit each other.
func newEdited(r io.ReaderAt, size int64, edits []edit) (*Edited, error) {
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	at := int64(0)
	for _, e := range edits {
		if e.from < at || e.to < e.from || e.to > size {
			return nil, fmt.Errorf("%w: its parts overlap", ErrForm)
		}
		at = e.to
	}
	out := &Edited{r: r, size: size, edits: edits}
	var s Scanner
	n, err := io.Copy(&s, out.Reader())
	if err != nil {
		return nil, err
	}
	out.facts, out.out = s.Facts(), n
	return out, nil
}

// Reader reads the message with the edits made.
func (e *Edited) Reader() io.Reader {
	rs := make([]io.Reader, 0, 2*len(e.edits)+1)
	at := int64(0)
	for _, d := range e.edits {
		rs = append(rs, io.NewSectionReader(e.r, at, d.from-at))
		if d.encode == "" {
			rs = append(rs, strings.NewReader(d.text))
		} else {
			rs = append(rs, encoded(d.encode, io.NewSectionReader(e.r, d.from, d.to-d.from)))
		}
		at = d.to
	}
	return io.MultiReader(append(rs, whole{io.NewSectionReader(e.r, at, e.size-at)})...)
}

// whole makes the end of a message that comes too soon an error: a part is never taken for the whole.
type whole struct{ r *io.SectionReader }

func (w whole) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if at, serr := w.r.Seek(0, io.SeekCurrent); errors.Is(err, io.EOF) && serr == nil && at < w.r.Size() {
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// The transfer encodings that this package writes.
const (
	quotedPrintable = "quoted-printable"
	base64Encoding  = "base64"
)

// encoded reads r in a transfer encoding. The last line is not ended: the line end after a part is its boundary's.
func encoded(encoding string, r *io.SectionReader) io.Reader {
	e := &encoder{src: bufio.NewReaderSize(r, 4<<10), left: r.Size()}
	if encoding == quotedPrintable {
		e.qp = quotedprintable.NewWriter(&e.out)
	}
	return e
}

// encoder pulls octets from src, encodes them a piece at a time and hands them out.
type encoder struct {
	src  *bufio.Reader
	left int64
	out  bytes.Buffer
	qp   *quotedprintable.Writer // nil: base64
	done bool
	line bool // base64: a line stands before
}

func (e *encoder) Read(p []byte) (int, error) {
	for e.out.Len() == 0 {
		if e.done {
			return 0, io.EOF
		}
		if err := e.fill(); err != nil {
			return 0, err
		}
	}
	return e.out.Read(p)
}

func (e *encoder) fill() error {
	var raw [57]byte // one line of base64
	n, err := io.ReadFull(e.src, raw[:])
	e.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if err != nil && e.left > 0 {
		return io.ErrUnexpectedEOF
	}
	e.done = err != nil
	if e.qp != nil {
		if _, err := e.qp.Write(raw[:n]); err != nil {
			return err
		}
		if e.done {
			return e.qp.Close()
		}
		return nil
	}
	if n > 0 {
		if e.line {
			e.out.WriteString("\r\n")
		}
		e.line = true
		e.out.Write(base64.StdEncoding.AppendEncode(e.out.AvailableBuffer(), raw[:n]))
	}
	return nil
}

package message

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// window is how much of a message is in memory at a time. It is longer than any boundary line.
const window = 64 << 10

// windows holds *[]byte of window octets for Parse.
var windows = sync.Pool{New: func() any {
	b := make([]byte, window)
	return &b
}}

// Parse reads a message of size octets in one pass through a pooled window; what it keeps is bounded by the limits. The
// only errors are those of r, and io.ErrUnexpectedEOF when r ends before size.
func Parse(r io.ReaderAt, size int64, lim Limits) (*Part, error) {
	buf := windows.Get().(*[]byte)
	defer windows.Put(buf)
	p := newParser(lim)
	p.r, p.size, p.buf = r, size, (*buf)[:0]
	if err := p.run(); err != nil {
		return nil, fmt.Errorf("parse message: read at %d of %d: %w", p.base+int64(len(p.buf)), size, err)
	}
	return p.root, nil
}

// ParseBytes parses a message in memory with the default limits. The result does not alias raw.
func ParseBytes(raw []byte) *Part {
	p := newParser(DefaultLimits)
	p.size, p.buf = int64(len(raw)), raw
	// Without a reader nothing can fail: the whole message is the window.
	_ = p.run()
	return p.root
}

// frame is a part whose end has not been seen yet.
type frame struct {
	part     *Part
	lines    int64 // line ends before the part's body
	boundary bool  // a multipart whose boundary is open
	inHeader bool
	message  bool // a whole message, not a part of a multipart
	digest   bool // a child of multipart/digest: message/rfc822 by default
	full     bool // no further children are taken
}

// parser walks through a message line by line. Its state is the stack of parts that are open, from the message itself
// to the innermost one, which the lines belong to.
type parser struct {
	r    io.ReaderAt
	size int64
	lim  Limits

	buf   []byte // the window
	pos   int    // start of the current line in buf
	base  int64  // offset of buf[0] in the message
	lines int64  // line ends before pos

	root   *Part
	stack  []frame
	bounds boundaries
	parts  int

	// The header that is being read: its lines without the blank one, and where its fields begin.
	block       []byte
	marks       []mark
	cut         bool // the limit was met: nothing more is kept of this header
	junk        junkLine
	fields      int   // fields kept of all headers
	headerBytes int64 // octets kept of all headers
	arena       []byte
}

// junkLine remembers a line that is no field, until the next line shows whether it is junk inside the header or the
// body that begins without a blank line.
type junkLine struct {
	pending bool
	block   int // len(block) and len(marks) before it
	marks   int
	offset  int64
	lines   int64
}

func newParser(lim Limits) *parser {
	p := &parser{lim: lim, parts: 1, root: &Part{}}
	p.stack = append(make([]frame, 0, 8), frame{part: p.root, inHeader: true, message: true})
	return p
}

func (p *parser) top() *frame { return &p.stack[len(p.stack)-1] }

// run feeds the lines of the message to the innermost open part.
func (p *parser) run() error {
	begins := true // the window's position is at the beginning of a line
	for {
		line, complete, err := p.next()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		start := p.base + int64(p.pos)
		switch {
		case begins && p.isDelimiter(line, start):
		case p.top().inHeader:
			p.headerLine(line, start, begins)
		}
		p.pos += len(line)
		if complete {
			p.lines++
		}
		begins = complete
		if !p.top().inHeader {
			if begins, err = p.skimBody(begins); err != nil {
				return err
			}
		}
	}
	p.closeTo(0, p.size, p.size)
	return nil
}

// next returns the line at pos with its line end, or the whole window when the line is longer than that (complete is
// false then, as it is for a last line without line end), or nothing at the end of the message.
func (p *parser) next() (line []byte, complete bool, err error) {
	for {
		rest := p.buf[p.pos:]
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			return rest[:i+1], true, nil
		}
		more, err := p.fill()
		if err != nil {
			return nil, false, err
		}
		if !more {
			return p.buf[p.pos:], false, nil
		}
	}
}

// fill moves what is unread to the front of the window, with the two octets before it (they tell how the last line
// ended), and reads on. It returns false when the window is full or the message at its end.
func (p *parser) fill() (bool, error) {
	if p.r == nil || p.base+int64(len(p.buf)) >= p.size {
		return false, nil
	}
	keep := min(p.pos, 2)
	from := p.pos - keep
	if from == 0 && len(p.buf) == cap(p.buf) {
		return false, nil
	}
	n := copy(p.buf[:cap(p.buf)], p.buf[from:])
	p.base += int64(from)
	p.pos = keep
	p.buf = p.buf[:n]
	want := min(int64(cap(p.buf)-n), p.size-p.base-int64(n))
	got, err := p.r.ReadAt(p.buf[n:n+int(want)], p.base+int64(n))
	p.buf = p.buf[:n+got]
	if int64(got) == want {
		return true, nil // io.EOF may come with the last octets
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return false, err
}

// skimBody passes over body lines, where only the number of lines and lines with a boundary matter. It stops before a
// line that begins with "--" while a boundary is open, and at the end.
func (p *parser) skimBody(begins bool) (bool, error) {
	for {
		if len(p.bounds.open) == 0 {
			p.lines += int64(bytes.Count(p.buf[p.pos:], []byte{'\n'}))
			p.pos = len(p.buf)
		}
		for p.pos < len(p.buf) {
			rest := p.buf[p.pos:]
			if begins && rest[0] == '-' && (len(rest) == 1 || rest[1] == '-') {
				return true, nil
			}
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				p.pos = len(p.buf)
				begins = false
				break
			}
			p.pos += i + 1
			p.lines++
			begins = true
		}
		more, err := p.fill()
		if err != nil || !more {
			return begins, err
		}
	}
}

// isDelimiter handles a line that begins with an open boundary.
func (p *parser) isDelimiter(line []byte, start int64) bool {
	if len(p.bounds.open) == 0 || len(line) < 3 || line[0] != '-' || line[1] != '-' {
		return false
	}
	index, closing, junk := p.bounds.match(line)
	if index < 0 {
		return false
	}
	level := p.bounds.open[index].frame
	p.closeTo(level+1, start-int64(p.lineEndBefore()), start)
	f := p.top()
	if junk {
		f.part.Defects |= DefectBoundaryJunk
	}
	if closing {
		// What follows is the epilogue, up to a boundary further out.
		f.boundary = false
		p.bounds.pop()
		return true
	}
	if f.full {
		return true
	}
	if p.parts >= p.lim.Parts {
		f.full = true
		f.part.Defects |= DefectPartLimit
		return true
	}
	p.parts++
	child := &Part{Offset: start + int64(len(line))}
	f.part.Parts = append(f.part.Parts, child)
	digest := f.part.Subtype == "digest"
	p.stack = append(p.stack, frame{part: child, inHeader: true, digest: digest})
	return true
}

// lineEndBefore is the length of the line end before the current line.
func (p *parser) lineEndBefore() int {
	switch {
	case p.pos == 0 || p.buf[p.pos-1] != '\n':
		return 0
	case p.pos > 1 && p.buf[p.pos-2] == '\r':
		return 2
	}
	return 1
}

// closeTo ends the open parts from the innermost one down to index level. Their bodies end at end, before the line end
// that belongs to the boundary on the line at start; but a body never ends before it begins or before what is in it.
func (p *parser) closeTo(level int, end, start int64) {
	for len(p.stack) > level {
		if p.top().inHeader {
			p.breakHeader(start) // may open an embedded message, which is closed first
			continue
		}
		f := p.top()
		part := f.part
		part.End = max(end, part.BodyOffset)
		if n := len(part.Parts); n > 0 {
			part.End = max(part.End, part.Parts[n-1].End)
		}
		if part.Message != nil {
			part.End = max(part.End, part.Message.End)
		}
		part.Lines = p.lines - f.lines
		if part.End < start && part.Lines > 0 {
			part.Lines--
		}
		if f.boundary {
			part.Defects |= DefectUnclosed
			p.bounds.pop()
		}
		p.fillComposite(part)
		p.stack = p.stack[:len(p.stack)-1]
	}
}

// fillComposite gives a multipart without parts, or a message part that was not looked into, one opaque child that
// holds the whole body, so that all who read the structure find something to show and to scan.
func (p *parser) fillComposite(part *Part) {
	multi := part.Type == "multipart"
	if !(multi && len(part.Parts) == 0) && !(part.isMessage() && part.Message == nil) {
		return
	}
	child := &Part{
		Offset: part.BodyOffset, BodyOffset: part.BodyOffset, End: part.End, Lines: part.Lines,
		Type: "text", Subtype: "plain", Encoding: part.Encoding,
	}
	if part.Defects&(DefectDepthLimit|DefectPartLimit) != 0 {
		child.Type, child.Subtype = "application", "octet-stream"
	}
	if multi {
		if part.Defects&(DefectDepthLimit|DefectPartLimit|DefectNoBoundary) == 0 {
			part.Defects |= DefectBoundaryUnseen
		}
		part.Parts = []*Part{child}
		return
	}
	part.Message = child
}

func (p *Part) isMessage() bool {
	return p.Type == "message" && (p.Subtype == "rfc822" || p.Subtype == "global")
}

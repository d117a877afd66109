// Package convert changes the form of a message and nothing that it says: parts get the transfer encoding that the next
// server can take, line ends are put right, and attachments of old forms become MIME (RFC 2045, 2046, 6152; RFC 3030 for
// binary parts). What is signed is never touched: then there is an error, and whoever calls decides.
//
// It is pure functions over bytes. A conversion costs one pass to plan and one that proves that nothing was missed;
// a message that needs none costs the one pass of a Scanner, and no memory.
//
//	var s convert.Scanner
//	_, err := io.Copy(&s, body)
//	if s.Facts().EightBody {
//		edited, err := convert.Encode(r, size, convert.Target{Line: convert.MaxLine})
//		_, err = io.Copy(dst, edited.Reader())
//	}
package convert

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"waxwing/internal/message"
)

// Why a message can't be converted.
var (
	ErrSigned = errors.New("a signed or encrypted part can't be converted")
	ErrHeader = errors.New("a header field is not ASCII")
	ErrForm   = errors.New("the form of the message does not allow a conversion")
)

// Target is what a message may hold when it is converted. CR, LF and NUL outside of their place never may.
type Target struct {
	EightBit bool  // octets over 127
	Line     int64 // the longest line. One that can't be shortened stays: check Facts where that matters
}

// takes tells whether octets may stay as they are, the length of their lines aside.
func (t Target) takes(f Facts) bool {
	return !f.Bare && !f.NUL && (t.EightBit || !f.Eight())
}

// Encode plans how a message becomes one that fits the target (RFC 6152, section 3): leaf parts get a transfer encoding,
// labels say what is true, and nothing else changes.
func Encode(r io.ReaderAt, size int64, to Target) (*Edited, error) {
	root, err := message.Parse(r, size, message.DefaultLimits)
	if err != nil {
		return nil, err
	}
	p := planner{r: r, size: size, to: to}
	if err := p.part(root, true); err != nil {
		return nil, err
	}
	e, err := newEdited(r, size, p.edits)
	if err != nil {
		return nil, err
	}
	if !to.takes(e.facts) { // preambles, parts beyond the parser's limits, wrong declarations
		return nil, fmt.Errorf("%w: it holds octets outside of its parts that must not be there", ErrForm)
	}
	return e, nil
}

type planner struct {
	r     io.ReaderAt
	size  int64
	to    Target
	edits []edit
}

// look finds the facts of a range; all of it counts as body.
func (p *planner) look(from, to int64) (Facts, error) {
	s := BodyScanner()
	if _, err := io.Copy(&s, io.NewSectionReader(p.r, from, to-from)); err != nil {
		return Facts{}, err
	}
	return s.Facts(), nil
}

// part plans the edits of one part and of those inside it.
func (p *planner) part(part *message.Part, top bool) error {
	if part.Type == "multipart" && (part.Subtype == "signed" || part.Subtype == "encrypted") {
		f, err := p.look(part.Offset, part.End)
		if err == nil && !p.to.takes(f) {
			err = ErrSigned
		}
		return err // a wrong label inside what is signed stays: changing it would break the signature
	}
	header, err := p.look(part.Offset, part.BodyOffset)
	if err != nil {
		return err
	}
	if !p.to.EightBit && header.Eight() {
		return ErrHeader
	}
	if part.IsMultipart() || part.Message != nil {
		p.label(part, p.plain(part), top)
		for _, c := range part.Parts {
			if err := p.part(c, false); err != nil {
				return err
			}
		}
		if part.Message != nil {
			return p.part(part.Message, false)
		}
		return nil
	}
	return p.leaf(part, top)
}

// plain is the label of a part that needs no encoding: its own where that is true.
func (p *planner) plain(part *message.Part) string {
	switch {
	case part.Encoding == "binary" && p.to.EightBit:
		return "8bit"
	case part.Encoding == "binary", part.Encoding == "8bit" && !p.to.EightBit:
		return "7bit"
	}
	return part.Encoding
}

func (p *planner) leaf(part *message.Part, top bool) error {
	f, err := p.look(part.BodyOffset, part.End)
	if err != nil {
		return err
	}
	fits := p.to.takes(f)
	if fits && f.Longest <= p.to.Line {
		p.label(part, p.plain(part), top)
		return nil
	}
	raw := part.Encoding == "7bit" || part.Encoding == "8bit" || part.Encoding == "binary"
	// RFC 2046, section 5.2: parts of type message have no encoding, but for those of RFC 6532 and 6533.
	if !raw || part.Type == "message" && !strings.HasPrefix(part.Subtype, "global") {
		if fits { // only long
			p.label(part, p.plain(part), top)
			return nil
		}
		return fmt.Errorf("%w: a part of type %s says that it is %s and is not", ErrForm, part.MediaType(), part.Encoding)
	}
	encoding := base64Encoding
	// Text of which most is ASCII stays legible.
	if part.Type == "text" && !f.Bare && !f.NUL && f.Eights*4 < max(part.Size(), 40) {
		encoding = quotedPrintable
	}
	if err := p.charset(part, top, f); err != nil {
		return err
	}
	p.label(part, encoding, top)
	p.edits = append(p.edits, edit{from: part.BodyOffset, to: part.End, encode: encoding})
	if encoding == base64Encoding && part.End == p.size { // no boundary follows that would end the last line
		p.edits = append(p.edits, edit{from: part.End, to: part.End, text: "\r\n"})
	}
	return nil
}

// label sets the Content-Transfer-Encoding of a part where it is another, and the version of MIME with which it means
// anything.
func (p *planner) label(part *message.Part, encoding string, top bool) {
	if encoding == part.Encoding {
		return
	}
	field := "Content-Transfer-Encoding: " + encoding + "\r\n"
	for i := range part.Header {
		f := &part.Header[i]
		if f.Is("Content-Transfer-Encoding") {
			p.edits = append(p.edits, edit{from: f.Offset, to: f.Offset + int64(len(f.Raw)), text: field})
			field = "" // further fields of that name go
		}
	}
	if field != "" {
		p.insert(part, field)
	}
	if top && !part.Header.Has("MIME-Version") {
		p.insert(part, "MIME-Version: 1.0\r\n")
	}
}

// insert puts fields in front of a header: where it ends is less sure in a broken message.
func (p *planner) insert(part *message.Part, fields string) {
	p.edits = append(p.edits, edit{from: part.Offset, to: part.Offset, text: fields})
}

// charset names the charset of text over 127 that says nothing about itself: UTF-8 where it is, and else the one that says
// that nobody knows (RFC 1428).
func (p *planner) charset(part *message.Part, top bool, f Facts) error {
	if part.Header.Has("Content-Type") || !f.Eight() && !top {
		return nil
	}
	charset := "us-ascii"
	if f.Eight() {
		valid, err := isUTF8(io.NewSectionReader(p.r, part.BodyOffset, part.Size()))
		if err != nil {
			return err
		}
		if charset = "unknown-8bit"; valid {
			charset = "utf-8"
		}
	}
	p.insert(part, "Content-Type: text/plain; charset="+charset+"\r\n")
	return nil
}

// isUTF8 tells whether all octets of r are UTF-8.
func isUTF8(r io.Reader) (bool, error) {
	buf := make([]byte, 32<<10)
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		b := buf[:kept+n]
		for len(b) > 0 && (utf8.FullRune(b) || errors.Is(err, io.EOF)) {
			c, size := utf8.DecodeRune(b)
			if c == utf8.RuneError && size <= 1 {
				return false, nil
			}
			b = b[size:]
		}
		kept = copy(buf, b)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

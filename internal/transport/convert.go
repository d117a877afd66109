package transport

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"slices"
	"strings"

	"waxwing/internal/message"
)

// errConvert says why a message can't be made 7-bit.
var errConvert = errors.New("the message can't be converted to 7 bits")

// edit replaces the octets [from, to) of a message.
type edit struct {
	from, to int64
	text     string // what stands there instead, when encode is empty
	encode   string // or those octets in this transfer encoding
}

// downgrade plans how a message with 8-bit or binary parts becomes one that any server takes (RFC 6152, section 3): leaf
// parts get a transfer encoding, and nothing else changes. What is signed or encrypted as a whole is not touched, for
// its meaning would be lost; nor are 8-bit headers, which no transfer encoding helps.
func downgrade(c *content) (func() io.Reader, error) {
	if c.facts.eightHeader {
		return nil, fmt.Errorf("%w: its header is not ASCII", errConvert)
	}
	root, err := message.Parse(c.r, c.size, message.DefaultLimits)
	if err != nil {
		return nil, errContent{err}
	}
	var d downgrader
	d.c = c
	if err := d.part(root, true); err != nil {
		return nil, err
	}
	slices.SortStableFunc(d.edits, func(a, b edit) int { return int(max(-1, min(1, a.from-b.from))) })
	open := func() io.Reader { return d.reader() }
	// A dry run proves that nothing was missed: preambles, parts beyond the parser's limits, wrong declarations.
	var s scanner
	w := writerFunc(s.scan)
	if _, err := io.Copy(w, open()); err != nil {
		return nil, err
	}
	f := s.result()
	if f.eightHeader || f.eightBody || f.bare || f.nul {
		return nil, fmt.Errorf("%w: it holds such octets outside of its parts", errConvert)
	}
	return open, nil
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

type downgrader struct {
	c     *content
	edits []edit
}

// part plans the edits of one part and those inside it.
func (d *downgrader) part(p *message.Part, top bool) error {
	f, err := d.look(p.Offset, p.End)
	if err != nil {
		return err
	}
	declared := p.Encoding == "8bit" || p.Encoding == "binary"
	clean := !f.eightHeader && !f.eightBody && !f.bare && !f.nul
	if clean && !declared {
		return nil
	}
	switch {
	case p.Type == "multipart" && (p.Subtype == "signed" || p.Subtype == "encrypted"):
		if clean {
			return nil // a wrong label inside what is signed stays: changing it would break the signature
		}
		return fmt.Errorf("%w: it is signed or encrypted", errConvert)
	case p.IsMultipart(), p.Message != nil:
		if declared {
			d.relabel(p, "7bit", top)
		}
		for _, c := range p.Parts {
			if err := d.part(c, false); err != nil {
				return err
			}
		}
		if p.Message != nil {
			return d.part(p.Message, false)
		}
		return nil
	}
	if f, err = d.look(p.BodyOffset, p.End); err != nil {
		return err
	}
	if !f.eightHeader && !f.eightBody && !f.bare && !f.nul && !f.long {
		d.relabel(p, "7bit", top)
		return nil
	}
	if !declared && p.Encoding != "7bit" {
		return fmt.Errorf("%w: a part says that it is %s and is not", errConvert, p.Encoding)
	}
	encoding := "base64"
	if p.Type == "text" && !f.bare && !f.nul {
		encoding = "quoted-printable"
	}
	d.relabel(p, encoding, top)
	d.edits = append(d.edits, edit{from: p.BodyOffset, to: p.End, encode: encoding})
	return nil
}

// look finds the facts of a range; all of it counts as body.
func (d *downgrader) look(from, to int64) (facts, error) {
	s := scanner{body: true}
	if _, err := io.Copy(writerFunc(s.scan), io.NewSectionReader(d.c.r, from, to-from)); err != nil {
		return facts{}, errContent{err}
	}
	return s.result(), nil
}

// relabel sets the Content-Transfer-Encoding of a part, and the fields without which it would mean nothing.
func (d *downgrader) relabel(p *message.Part, encoding string, top bool) {
	field := "Content-Transfer-Encoding: " + encoding + "\r\n"
	if f, ok := p.Header.Find("Content-Transfer-Encoding"); ok {
		d.edits = append(d.edits, edit{from: f.Offset, to: f.Offset + int64(len(f.Raw)), text: field})
		return
	}
	var b strings.Builder
	if top && !p.Header.Has("MIME-Version") {
		b.WriteString("MIME-Version: 1.0\r\n")
	}
	if !p.Header.Has("Content-Type") { // 8-bit text that says nothing about itself: RFC 1428
		b.WriteString("Content-Type: text/plain; charset=unknown-8bit\r\n")
	}
	b.WriteString(field)
	at := p.Offset // in front of the header: where it ends is less sure in a broken message
	d.edits = append(d.edits, edit{from: at, to: at, text: b.String()})
}

// reader reads the message with the edits made.
func (d *downgrader) reader() io.Reader {
	var rs []io.Reader
	at := int64(0)
	for _, e := range d.edits {
		rs = append(rs, io.NewSectionReader(d.c.r, at, e.from-at))
		if e.encode == "" {
			rs = append(rs, strings.NewReader(e.text))
		} else {
			rs = append(rs, encoded(e.encode, io.NewSectionReader(d.c.r, e.from, e.to-e.from)))
		}
		at = e.to
	}
	return io.MultiReader(append(rs, io.NewSectionReader(d.c.r, at, d.c.size-at))...)
}

// encoded reads r in a transfer encoding. The last line is not ended: the line end after a part is its boundary's.
func encoded(encoding string, r *io.SectionReader) io.Reader {
	e := &encoder{src: bufio.NewReaderSize(r, 4<<10), left: r.Size()}
	if encoding == "quoted-printable" {
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
		return errContent{err}
	}
	if err != nil && e.left > 0 {
		return errContent{io.ErrUnexpectedEOF}
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
		e.out.WriteString(base64.StdEncoding.EncodeToString(raw[:n]))
	}
	return nil
}

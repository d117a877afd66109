package message

import "bytes"

// headerLine takes one line, or with begins false the rest of a line that is longer than the window, of the header
// that is being read.
func (p *parser) headerLine(line []byte, start int64, begins bool) {
	if !begins {
		p.keep(line)
		return
	}
	f := p.top()
	kind, colon := classify(line)
	if kind == lineFold && len(p.block) == 0 && !p.cut {
		kind = lineJunk
	}
	switch kind {
	case lineBlank:
		p.endHeader(start+int64(len(line)), p.lines+1)
	case lineField:
		p.junk.pending = false
		p.begin(line, colon)
	case lineFold:
		p.keep(line)
	case lineJunk:
		p.junkLine(f, line, start)
	}
}

// junkLine decides what a line is that is no field. A part of a multipart has no header then. In a message two such
// lines, or one at its end, are a body whose blank line is missing; one alone is junk inside the header, as the mbox
// separator is.
func (p *parser) junkLine(f *frame, line []byte, start int64) {
	first := len(p.marks) == 0 && !p.cut
	now := junkLine{pending: true, block: len(p.block), marks: len(p.marks), offset: start, lines: p.lines}
	switch {
	case p.junk.pending:
		p.bodyWithoutBlank()
		p.isDelimiter(line, start)
	case bytes.HasPrefix(line, []byte("--")), first && !f.message:
		// Of a multipart whose header this was, it can be the first boundary.
		p.junk = now
		p.bodyWithoutBlank()
		p.isDelimiter(line, start)
	case first && f.message && isMboxFrom(line):
		f.part.Defects |= DefectMboxFrom
		p.begin(line, -1)
	default:
		p.junk = now
		p.begin(line, -1)
	}
}

// begin starts a field, or junk with colon -1.
func (p *parser) begin(line []byte, colon int) {
	if p.fields+len(p.marks) >= p.lim.Fields {
		p.cut = true
	}
	if p.cut {
		return
	}
	at := len(p.block)
	if colon >= 0 {
		colon += at
	}
	if p.keep(line) {
		p.marks = append(p.marks, mark{at, colon})
	}
}

// keep adds octets to the header block within the limits. A field that does not fit is left out as a whole, unless it
// is a continuation or the rest of a long line.
func (p *parser) keep(b []byte) bool {
	if p.cut {
		return false
	}
	room := min(p.lim.HeaderBytes, p.lim.TotalHeaderBytes-p.headerBytes) - int64(len(p.block))
	if int64(len(b)) > room {
		p.cut = true
		return false
	}
	p.block = append(p.block, b...)
	return true
}

// bodyWithoutBlank ends the header before the junk line that is pending.
func (p *parser) bodyWithoutBlank() {
	f := p.top()
	f.part.Defects |= DefectMissingBlankLine
	j := p.junk
	p.block, p.marks = p.block[:j.block], p.marks[:j.marks]
	p.junk.pending = false
	p.endHeader(j.offset, j.lines)
	// An embedded message begins with the very line that is not a field: it has no header either.
	for p.top().inHeader {
		p.endHeader(j.offset, j.lines)
	}
}

// breakHeader ends a header that a boundary or the end of the message at offset start cut off.
func (p *parser) breakHeader(start int64) {
	f := p.top()
	if p.junk.pending {
		p.bodyWithoutBlank()
		return
	}
	if len(p.block) > 0 || p.cut {
		f.part.Defects |= DefectMissingBlankLine
	}
	p.endHeader(start, p.lines)
}

// endHeader makes the fields of the header that was read, and opens what the part says it holds. The body begins at
// offset, after lines line ends.
func (p *parser) endHeader(offset int64, lines int64) {
	f := p.top()
	part := f.part
	f.inHeader = false
	f.lines = lines
	part.BodyOffset = offset
	lost := p.takeHeader(part)
	part.readContent(f.digest)
	if lost {
		part.Type, part.Subtype = "application", "octet-stream"
	}
	switch {
	case part.Type == "multipart":
		p.openMultipart(f)
	case part.isMessage():
		p.openMessage(f)
	}
}

// takeHeader moves the block to memory that the part keeps. It reports a header of which nothing could be kept.
func (p *parser) takeHeader(part *Part) (lost bool) {
	p.junk.pending = false
	if p.cut {
		part.Defects |= DefectHeaderLimit
		lost = len(p.marks) == 0
	}
	if len(p.block) > 0 {
		block := p.store(p.block)
		part.Header = fieldsOf(block, p.marks, part.Offset)
		part.Defects |= blockDefects(block)
		for _, m := range p.marks {
			if m.colon < 0 && !isMboxFrom(block[m.start:]) {
				part.Defects |= DefectJunkInHeader
				break
			}
		}
		p.fields += len(p.marks)
		p.headerBytes += int64(len(block))
	}
	p.block, p.marks, p.cut = p.block[:0], p.marks[:0], false
	return lost
}

// store copies a block into memory shared by the headers of one message.
func (p *parser) store(b []byte) []byte {
	if cap(p.arena)-len(p.arena) < len(b) {
		if len(b) > 2048 || len(p.stack) == 1 {
			return bytes.Clone(b)
		}
		p.arena = make([]byte, 0, 4096)
	}
	at := len(p.arena)
	p.arena = append(p.arena, b...)
	return p.arena[at:len(p.arena):len(p.arena)]
}

func (p *parser) openMultipart(f *frame) {
	part := f.part
	if part.Encoding == "base64" || part.Encoding == "quoted-printable" {
		part.Defects |= DefectEncodedComposite
	}
	if len(p.stack) >= p.lim.Depth {
		part.Defects |= DefectDepthLimit
		return
	}
	b := part.Params.raw("boundary")
	if b == "" || len(b) > maxBoundary {
		part.Defects |= DefectNoBoundary
		return
	}
	f.boundary = true
	p.bounds.push(b, len(p.stack)-1)
}

func (p *parser) openMessage(f *frame) {
	part := f.part
	if part.Encoding == "base64" || part.Encoding == "quoted-printable" {
		part.Defects |= DefectEncodedComposite
	}
	switch {
	case len(p.stack) >= p.lim.Depth:
		part.Defects |= DefectDepthLimit
		return
	case p.parts >= p.lim.Parts:
		part.Defects |= DefectPartLimit
		return
	}
	p.parts++
	part.Message = &Part{Offset: part.BodyOffset}
	p.stack = append(p.stack, frame{part: part.Message, inHeader: true, message: true})
}

// readContent fills in what the content fields say (RFC 2045, section 5.2 for the defaults).
func (p *Part) readContent(digest bool) {
	p.Type, p.Subtype, p.Encoding = "text", "plain", "7bit"
	if digest {
		p.Type, p.Subtype = "message", "rfc822"
	}
	var hasType, hasEncoding, hasDisposition bool
	for i := range p.Header {
		f := &p.Header[i]
		if len(f.Name) < len("Content-Type") || f.Name[7] != '-' {
			continue
		}
		switch {
		case equalFold(f.Name, "Content-Type"):
			if p.firstOf(&hasType) {
				p.readContentType(f.Unfolded())
			}
		case equalFold(f.Name, "Content-Transfer-Encoding"):
			if p.firstOf(&hasEncoding) {
				p.readEncoding(f.Unfolded())
			}
		case equalFold(f.Name, "Content-Disposition"):
			if p.firstOf(&hasDisposition) {
				var d Defects
				p.Disposition, p.DispositionParams, d = parseDisposition(f.Unfolded())
				p.Defects |= d
			}
		}
	}
}

func (p *Part) firstOf(seen *bool) bool {
	if *seen {
		p.Defects |= DefectDuplicateField
		return false
	}
	*seen = true
	return true
}

func (p *Part) readContentType(v []byte) {
	typ, sub, params, d := parseMediaType(v)
	p.Defects |= d
	p.Params = params
	if typ != "" {
		p.Type, p.Subtype = typ, sub
	}
}

func (p *Part) readEncoding(v []byte) {
	v = skipComments(v)
	end := 0
	for end < len(v) && isToken(v[end]) {
		end++
	}
	switch enc := internLower(v[:end]); enc {
	case "7bit", "8bit", "binary", "base64", "quoted-printable":
		p.Encoding = enc
	case "":
		p.Defects |= DefectEncoding
	default:
		p.Encoding = enc
		p.Defects |= DefectEncoding
	}
}

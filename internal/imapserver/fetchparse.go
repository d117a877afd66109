package imapserver

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"waxwing/internal/store"
)

// fetchItems are the items of FETCH that take no argument.
type fetchItems uint16

const (
	fetchUID fetchItems = 1 << iota
	fetchFlags
	fetchModSeq
	fetchInternalDate
	fetchSize
	fetchEnvelope
	fetchBodyStructure
	fetchBody
)

// fetchSummary are the items that are kept beside the message.
const fetchSummary = fetchEnvelope | fetchBodyStructure

var fetchNames = map[string]fetchItems{
	"UID":           fetchUID,
	"FLAGS":         fetchFlags,
	"MODSEQ":        fetchModSeq,
	"INTERNALDATE":  fetchInternalDate,
	"RFC822.SIZE":   fetchSize,
	"ENVELOPE":      fetchEnvelope,
	"BODYSTRUCTURE": fetchBodyStructure,
	"BODY":          fetchBody,
	"FAST":          fetchFlags | fetchInternalDate | fetchSize,
	"ALL":           fetchFlags | fetchInternalDate | fetchSize | fetchEnvelope,
	"FULL":          fetchFlags | fetchInternalDate | fetchSize | fetchEnvelope | fetchBody,
}

// sectionKind is the last word of a section.
type sectionKind uint8

const (
	sectionWhole sectionKind = iota
	sectionHeader
	sectionFields
	sectionFieldsNot
	sectionText
	sectionMIME
)

// section is one BODY[...] of a FETCH (RFC 3501, section 6.4.5).
type section struct {
	path    []int // part numbers
	kind    sectionKind
	fields  []string // lower case
	peek    bool
	partial bool
	offset  int64
	count   int64
	listed  bool   // only fields that are remembered
	label   []byte // how the answer names it, ready to be written, with the space behind it
}

// Bounds of one FETCH.
const (
	maxSections  = 64
	maxFields    = 128
	maxFieldName = 128
	maxPartDepth = 100
)

// legacySections are the sections of RFC 822 times; RFC822.PEEK is of no standard, but Outlook asks for it.
var legacySections = map[string]section{
	"RFC822":             {kind: sectionWhole, label: []byte("RFC822 ")},
	"RFC822.PEEK":        {kind: sectionWhole, peek: true, label: []byte("RFC822 ")},
	"RFC822.HEADER":      {kind: sectionHeader, peek: true, label: []byte("RFC822.HEADER ")},
	"RFC822.HEADER.PEEK": {kind: sectionHeader, peek: true, label: []byte("RFC822.HEADER ")},
	"RFC822.TEXT":        {kind: sectionText, label: []byte("RFC822.TEXT ")},
	"RFC822.TEXT.PEEK":   {kind: sectionText, peek: true, label: []byte("RFC822.TEXT ")},
}

// fetchRequest is FETCH, RFC 3501, section 6.4.5, with CHANGEDSINCE (RFC 7162, section 3.1.4).
type fetchRequest struct {
	uid          bool
	set          numSet
	items        fetchItems
	sections     []section
	conditional  bool
	changedSince store.ModSeq
}

func (r *fetchRequest) parse(p *parser) {
	p.space()
	r.set = p.numSet()
	p.space()
	if p.peek() == '(' {
		p.list(maxSections, func() { r.item(p) })
	} else {
		r.item(p)
	}
	if p.ok() && p.pos < len(p.line) && p.take(' ') && p.peek() != 0 {
		p.list(4, func() {
			if p.word("a FETCH modifier") != "CHANGEDSINCE" {
				p.fail("unknown FETCH modifier before this")
			}
			p.space()
			r.changedSince, r.conditional = store.ModSeq(p.modSeq()), true
		})
	}
	p.end()
	if r.uid {
		r.items |= fetchUID
	}
	if r.conditional {
		r.items |= fetchModSeq
	}
	if p.ok() && r.items == 0 && len(r.sections) == 0 {
		p.fail("expected an item")
	}
}

// item reads one item, or a macro.
func (r *fetchRequest) item(p *parser) {
	start := p.pos
	for p.pos < len(p.line) && classes[p.line[p.pos]]&classAtom != 0 && p.line[p.pos] != '[' {
		p.pos++
	}
	name := upper(p.line[start:p.pos])
	if (name == "BODY" || name == "BODY.PEEK") && p.peek() == '[' {
		s := section{peek: name == "BODY.PEEK"}
		s.parse(p)
		r.sections = append(r.sections, s)
		return
	}
	if s, legacy := legacySections[name]; legacy {
		r.sections = append(r.sections, s)
		return
	}
	item, known := fetchNames[name]
	if !known {
		p.pos = start
		p.fail("expected an item that can be fetched")
		return
	}
	r.items |= item
}

// parse reads "[" section "]" and the range behind it.
func (s *section) parse(p *parser) {
	p.need('[')
	for p.ok() && p.peek() >= '0' && p.peek() <= '9' {
		n := p.number32()
		switch {
		case n == 0:
			p.fail("part numbers begin at 1, before this")
		case len(s.path) == maxPartDepth:
			p.fail("too many levels")
		}
		s.path = append(s.path, int(n))
		if !p.take('.') {
			break
		}
		if c := p.peek(); c == ']' {
			p.fail("expected a part number or a word")
		}
	}
	afterDot := len(s.path) == 0 || p.ok() && p.pos > 0 && p.line[p.pos-1] == '.'
	if p.peek() != ']' && afterDot {
		s.words(p)
	}
	p.need(']')
	if p.take('<') {
		s.partial = true
		s.offset = int64(p.number32())
		p.need('.')
		s.count = int64(p.number32())
		if p.ok() && s.count == 0 {
			p.fail("an empty range, before this")
		}
		p.need('>')
	}
	s.makeLabel()
}

// words reads the last word of a section.
func (s *section) words(p *parser) {
	start := p.pos
	for p.pos < len(p.line) && classes[p.line[p.pos]]&classAtom != 0 {
		p.pos++
	}
	switch upper(p.line[start:p.pos]) {
	case "HEADER":
		s.kind = sectionHeader
	case "TEXT":
		s.kind = sectionText
	case "MIME":
		s.kind = sectionMIME
		if len(s.path) == 0 {
			p.fail("MIME needs a part number, before this")
		}
	case "HEADER.FIELDS":
		s.kind = sectionFields
		s.fieldNames(p)
	case "HEADER.FIELDS.NOT":
		s.kind = sectionFieldsNot
		s.fieldNames(p)
	default:
		p.pos = start
		p.fail("expected HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, MIME or TEXT")
	}
}

func (s *section) fieldNames(p *parser) {
	p.space()
	p.list(maxFields, func() {
		name := p.astring(maxFieldName)
		if strings.ContainsAny(name, "\r\n:") {
			p.fail("no name of a header field, before this")
		}
		s.fields = append(s.fields, strings.ToLower(name))
	})
	if p.ok() && len(s.fields) == 0 {
		p.fail("expected a header field")
	}
}

var sectionWords = [...]string{
	sectionWhole: "", sectionHeader: "HEADER", sectionFields: "HEADER.FIELDS", sectionFieldsNot: "HEADER.FIELDS.NOT",
	sectionText: "TEXT", sectionMIME: "MIME",
}

func (s *section) makeLabel() {
	s.listed = len(s.path) == 0 && s.kind == sectionFields &&
		!slices.ContainsFunc(s.fields, func(name string) bool { return !isListField(name) })
	b := append(s.label, "BODY["...)
	for i, n := range s.path {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	if s.kind != sectionWhole && len(s.path) > 0 {
		b = append(b, '.')
	}
	b = append(b, sectionWords[s.kind]...)
	if len(s.fields) > 0 {
		b = append(b, " ("...)
		for i, f := range s.fields {
			if i > 0 {
				b = append(b, ' ')
			}
			b = appendAstring(b, strings.ToUpper(f))
		}
		b = append(b, ')')
	}
	b = append(b, ']')
	if s.partial {
		b = append(b, '<')
		b = strconv.AppendInt(b, s.offset, 10)
		b = append(b, '>')
	}
	s.label = append(b, ' ')
}

// cut gives the part of [from, to) that the section's range asks for.
func (s *section) cut(from, to int64) (int64, int64) {
	if !s.partial {
		return from, to
	}
	from = min(from+s.offset, to)
	if s.count < to-from && s.count < math.MaxInt64-from {
		to = from + s.count
	}
	return from, to
}

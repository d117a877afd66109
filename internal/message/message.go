// Package message reads and writes Internet messages as they are, not as they should be: a lenient MIME parser with
// byte offsets and limits, addresses, dates, encoded words, RFC 2231 parameters, charsets, the ENVELOPE and
// BODYSTRUCTURE of IMAP, text extraction, a builder, and edits of header fields that touch no other octet. It never
// fails on mail: what is wrong is reported as defects beside the result (RFC 5322, 2045 to 2047, 2231, 6532; RFC 3501,
// section 7.4.2).
//
// It is not a judge: it refuses nothing, and it opens no connection or file. Envelope addresses, which are strict,
// belong to package address.
//
//	p, err := message.Parse(r, size, message.DefaultLimits)
//	subject := p.Header.Text("Subject")
//	text, err := io.ReadAll(p.Section(1).Text(r))
package message

import "slices"

// Limits bound what Parse keeps and how deep it looks. What lies beyond stays in the message as an opaque part, with
// a defect on the part where the limit was met.
type Limits struct {
	Depth            int   // parts and messages inside each other, the message itself included
	Parts            int   // parts in all
	Fields           int   // header fields in all
	HeaderBytes      int64 // octets of one part's header that are kept
	TotalHeaderBytes int64 // octets of all headers that are kept
}

// DefaultLimits are far beyond honest mail: the deepest chains of forwards seen are below 30 levels.
var DefaultLimits = Limits{Depth: 100, Parts: 10_000, Fields: 100_000, HeaderBytes: 1 << 20, TotalHeaderBytes: 4 << 20}

// Part is a message or a part of one. All offsets are octets from the start of the stored message.
type Part struct {
	Header     Header
	Offset     int64 // first octet of the header
	BodyOffset int64 // first octet of the body, after the blank line
	End        int64 // first octet after the body; the line end before a boundary belongs to the boundary
	Lines      int64 // line ends in the body: IMAP's count of lines

	Type, Subtype     string // lower case; text/plain by default
	Params            Params
	Encoding          string // Content-Transfer-Encoding in lower case, "7bit" by default
	Disposition       string // lower case, empty without a Content-Disposition
	DispositionParams Params

	Parts   []*Part // of a multipart: always at least one
	Message *Part   // inside message/rfc822 and message/global: never nil there

	Defects Defects // of this part alone; AllDefects joins those of a tree
}

// Size is the number of octets of the body, as it is encoded.
func (p *Part) Size() int64 { return p.End - p.BodyOffset }

// IsMultipart tells whether the part has children.
func (p *Part) IsMultipart() bool { return len(p.Parts) > 0 }

// MediaType is "type/subtype" in lower case.
func (p *Part) MediaType() string { return p.Type + "/" + p.Subtype }

// Walk calls fn for the part and everything inside it in the order of the message, embedded messages included, until fn
// returns false; then the rest is left out.
func (p *Part) Walk(fn func(*Part) bool) { p.walk(fn) }

func (p *Part) walk(fn func(*Part) bool) bool {
	if !fn(p) {
		return false
	}
	for _, c := range p.Parts {
		if !c.walk(fn) {
			return false
		}
	}
	return p.Message == nil || p.Message.walk(fn)
}

// AllDefects joins the defects of the part and of everything inside it.
func (p *Part) AllDefects() Defects {
	var d Defects
	p.Walk(func(c *Part) bool {
		d |= c.Defects
		return true
	})
	return d
}

// Section finds a part by IMAP's section numbers (RFC 3501, section 6.4.5): without numbers the message itself, nil
// when there is no such part. Part 1 of a message that is no multipart is that message's own body, so BODY[n] is always
// [BodyOffset, End) of the result, and BODY[n.MIME] its header.
func (p *Part) Section(path ...int) *Part {
	cur := p
	holder := p // where the next number is looked up; nil when nothing is inside
	for _, n := range path {
		switch {
		case holder == nil || n < 1:
			return nil
		case holder.IsMultipart():
			if n > len(holder.Parts) {
				return nil
			}
			cur = holder.Parts[n-1]
		case n == 1:
			cur = holder
		default:
			return nil
		}
		switch {
		case cur.Message != nil:
			holder = cur.Message
		case cur.IsMultipart():
			holder = cur
		default:
			holder = nil
		}
	}
	return cur
}

// FileName is the name the sender gave the part, from Content-Disposition or else Content-Type, decoded. It may hold
// path separators and anything else: clean it before it names a file.
func (p *Part) FileName() string {
	if v := p.DispositionParams.Get("filename"); v != "" {
		return v
	}
	return p.Params.Get("name")
}

// FileNames are all the names that one reader or another may show for the part: FileName first, then those of the other
// field, of duplicates, and of the other notation. A filter looks at each.
func (p *Part) FileNames() []string {
	var out []string
	add := func(v string) {
		if v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	lists := [2]struct {
		params Params
		name   string
	}{{p.DispositionParams, "filename"}, {p.Params, "name"}}
	for _, l := range lists {
		add(l.params.Get(l.name))
	}
	for _, l := range lists {
		for i := range l.params {
			if l.params[i].Name != l.name {
				continue
			}
			for _, v := range l.params[i].others {
				add(v)
			}
		}
	}
	return out
}

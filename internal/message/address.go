package message

import (
	"bytes"
	"strings"
)

// Address is one mailbox in a header field, read leniently and decoded. It need not be one that mail can be sent to:
// package address says that.
type Address struct {
	Name   string // display name, decoded
	Local  string // local part, unquoted
	Domain string // as written, empty when there is none
	Group  string // name of the group that it stands in, decoded (RFC 5322, section 3.4)
}

// Addr is local@domain, the local part quoted where it must be.
func (a Address) Addr() string {
	local := a.Local
	if !isDotAtom(local) {
		local = quoteString(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

// rawAddress is an address as octets of the field: what ENVELOPE shows.
type rawAddress struct {
	kind                       addressKind
	name, route, local, domain []byte
	hasName                    bool
}

type addressKind uint8

const (
	kindMailbox addressKind = iota
	kindGroup               // name is the group's
	kindGroupEnd
)

// ParseAddressList reads the value of a From, To or like field, at most limit addresses. Groups are opened up: their
// members carry the group's name, and an empty group leaves nothing. What is no address is passed over.
func ParseAddressList(raw []byte, limit int) []Address {
	var out []Address
	group := ""
	scanAddresses(raw, func(a *rawAddress) bool {
		switch a.kind {
		case kindGroup:
			group = DecodeHeader(a.name)
		case kindGroupEnd:
			group = ""
		default:
			if len(out) >= limit {
				return false
			}
			out = append(out, Address{
				Name: DecodeHeader(a.name), Local: cleanText(guessHeader(a.local, "")),
				Domain: cleanText(guessHeader(a.domain, "")), Group: group,
			})
		}
		return len(out) < limit
	})
	return out
}

// word is a piece of a phrase or an address: an atom with whatever is glued to it, or a quoted string.
type word struct {
	text   []byte
	quoted bool
	space  bool // white space or a comment stood before it
}

// addressScanner walks once over a list. Quotes, comments, brackets and angles that never close are found out by
// running to the end once, and from then on their opening stands for itself: so the walk is linear.
type addressScanner struct {
	s       []byte
	pos     int
	words   []word
	comment []byte // the last comment: a display name in the old style "a@b (Name)"
	angle   bool   // an <...> was read
	at      bool   // a word holds an "@"
	addr    rawAddress
	inGroup bool
	space   bool

	noQuote, noComment, noLiteral bool
}

// scanAddresses calls fn for each address, group start and group end until it returns false.
func scanAddresses(raw []byte, fn func(*rawAddress) bool) {
	p := addressScanner{s: unfold(raw)}
	for p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case isWSP(c) || c == 0:
			p.space = true
			p.pos++
		case c == ',':
			p.pos++
			if !p.emit(fn) {
				return
			}
		case c == ';':
			p.pos++
			if !p.emit(fn) || !p.endGroup(fn) {
				return
			}
		case c == ':' && !p.angle && !p.inGroup && !p.at:
			p.pos++
			if !p.startGroup(fn) {
				return
			}
		case c == '<':
			p.readAngle()
		case c == '(' && p.readComment():
		case c == '"' && p.readQuoted():
		default:
			p.readAtom()
		}
	}
	if p.emit(fn) {
		p.endGroup(fn)
	}
}

func (p *addressScanner) startGroup(fn func(*rawAddress) bool) bool {
	a := rawAddress{kind: kindGroup, name: joinWords(p.words), hasName: true}
	p.reset()
	p.inGroup = true
	return fn(&a)
}

func (p *addressScanner) endGroup(fn func(*rawAddress) bool) bool {
	if !p.inGroup {
		return true
	}
	p.inGroup = false
	return fn(&rawAddress{kind: kindGroupEnd})
}

func (p *addressScanner) reset() {
	p.words = p.words[:0]
	p.comment, p.angle, p.at, p.space, p.addr = nil, false, false, false, rawAddress{}
}

// emit hands out the address that ends here, if there is one.
func (p *addressScanner) emit(fn func(*rawAddress) bool) bool {
	defer p.reset()
	a := &p.addr
	switch {
	case p.angle:
		if len(p.words) > 0 {
			a.name, a.hasName = joinWords(p.words), true
		}
	case len(p.words) == 0:
		return true
	default:
		p.bareAddress(a)
	}
	if !a.hasName && len(p.comment) > 0 {
		a.name, a.hasName = p.comment, true
	}
	if len(a.local) == 0 && len(a.domain) == 0 && len(a.name) == 0 {
		return true
	}
	return fn(a)
}

// bareAddress reads words without angles: "user@host", with white space around "." and "@" as RFC 5322, section 4.4
// has it, or a lone local part. With more words around it, the one with the "@" is the address and the rest its name.
func (p *addressScanner) bareAddress(a *rawAddress) {
	at, glued := -1, true
	for i, w := range p.words {
		if !w.quoted && bytes.IndexByte(w.text, '@') >= 0 {
			at = i
		}
		if i > 0 && w.space && !bindsLeft(p.words[i-1]) && !bindsRight(w) {
			glued = false
		}
	}
	switch {
	case glued:
		splitAddress(a, p.words)
	case at >= 0:
		lo, hi := at, at+1
		for lo > 0 && (!p.words[lo].space || bindsRight(p.words[lo]) || bindsLeft(p.words[lo-1])) {
			lo--
		}
		for hi < len(p.words) && (!p.words[hi].space || bindsRight(p.words[hi]) || bindsLeft(p.words[hi-1])) {
			hi++
		}
		splitAddress(a, p.words[lo:hi])
		rest := append(append([]word(nil), p.words[:lo]...), p.words[hi:]...)
		if len(rest) > 0 {
			a.name, a.hasName = joinWords(rest), true
		}
	default:
		a.name, a.hasName = joinWords(p.words), true
	}
}

func bindsLeft(w word) bool {
	return !w.quoted && len(w.text) > 0 && (w.text[len(w.text)-1] == '@' || w.text[len(w.text)-1] == '.')
}

func bindsRight(w word) bool {
	return !w.quoted && len(w.text) > 0 && (w.text[0] == '@' || w.text[0] == '.')
}

// splitAddress cuts the words of an addr-spec at the last "@" outside quotes.
func splitAddress(a *rawAddress, words []word) {
	var buf []byte
	at := -1
	for _, w := range words {
		if !w.quoted {
			if i := bytes.LastIndexByte(w.text, '@'); i >= 0 {
				at = len(buf) + i
			}
		}
		buf = append(buf, w.text...)
	}
	if at < 0 {
		a.local = buf
		return
	}
	a.local, a.domain = buf[:at:at], buf[at+1:]
}

// joinWords makes a phrase, with one space where there was white space.
func joinWords(words []word) []byte {
	if len(words) == 1 {
		return words[0].text
	}
	var out []byte
	for i, w := range words {
		if i > 0 && (w.space || w.quoted || words[i-1].quoted) {
			out = append(out, ' ')
		}
		out = append(out, w.text...)
	}
	return out
}

// maxWords bounds the words of one address: what is more is no name that anyone reads.
const maxWords = 1000

func (p *addressScanner) push(text []byte, quoted bool) {
	if len(p.words) >= maxWords {
		return
	}
	p.words = append(p.words, word{text: text, quoted: quoted, space: p.space})
	p.space = false
	p.at = p.at || !quoted && bytes.IndexByte(text, '@') >= 0
}

// readAtom takes octets up to the next special one, or an encoded word; an opening that never closes is taken as text.
func (p *addressScanner) readAtom() {
	start := p.pos
	p.pos++
	switch p.s[start] {
	case '[':
		p.skipLiteral(start)
	case '=':
		// Commas and colons stand in encoded words, against RFC 2047, section 5.
		if bytes.HasPrefix(p.s[start:], []byte("=?")) {
			if _, n, ok := cutEncodedWord(p.s[start:]); ok {
				p.pos = start + n
			}
		}
	}
	for p.pos < len(p.s) {
		switch c := p.s[p.pos]; c {
		case ' ', '\t', ',', ';', '<', '(', '"', ':', 0:
			p.push(p.s[start:p.pos], false)
			return
		case '[':
			p.pos++
			p.skipLiteral(p.pos - 1)
		default:
			p.pos++
		}
	}
	p.push(p.s[start:], false)
}

// skipLiteral passes a domain literal, in which ":" and "," mean nothing.
func (p *addressScanner) skipLiteral(open int) {
	if p.noLiteral {
		return
	}
	i := bytes.IndexByte(p.s[open:], ']')
	if i < 0 {
		p.noLiteral = true
		return
	}
	if i < 256 {
		p.pos = open + i + 1
	}
}

func (p *addressScanner) readQuoted() bool {
	if p.noQuote {
		return false
	}
	text, end := unquote(p.s, p.pos)
	if end < 0 {
		p.noQuote = true
		return false
	}
	p.pos = end
	p.push(text, true)
	return true
}

// unquote reads the quoted string at open; end is -1 when it never closes.
func unquote(s []byte, open int) (text []byte, end int) {
	escaped := false
	for i := open + 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			return unescape(s[open+1:i], escaped), i + 1
		}
	}
	return nil, -1
}

func (p *addressScanner) readComment() bool {
	if p.noComment {
		return false
	}
	n := commentLen(p.s[p.pos:])
	if n == 0 {
		p.noComment = true
		return false
	}
	inner := p.s[p.pos+1 : p.pos+n-1]
	p.comment = trimSpace(unescape(inner, bytes.IndexByte(inner, '\\') >= 0))
	p.pos += n
	p.space = true
	return true
}

// readAngle reads <route:local@domain>. Where the closing angle is missing, the address ends at the next separator.
func (p *addressScanner) readAngle() {
	p.pos++
	start := p.pos
	end, route := p.angleEnd()
	body := p.s[start:end]
	if p.angle {
		return // a second <...> in one address: the first counts
	}
	p.angle = true
	a := &p.addr
	if route > 0 {
		a.route = trimSpace(body[:route])
		body = body[route+1:]
	}
	in := addressScanner{s: body, noComment: p.noComment, noQuote: p.noQuote}
	for in.pos < len(in.s) {
		switch c := in.s[in.pos]; {
		case isWSP(c) || c == 0:
			in.space = true
			in.pos++
		case c == '(' && in.readComment():
		case c == '"' && in.readQuoted():
		default:
			in.readAtom()
		}
	}
	splitAddress(a, in.words)
}

// angleEnd moves behind an <...> and gives the end of its content and the colon of a source route in it.
func (p *addressScanner) angleEnd() (end, route int) {
	start := p.pos
	isRoute := start < len(p.s) && p.s[start] == '@'
	for p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case c == '>':
			p.pos++
			return p.pos - 1, route
		case c == '"' && !p.noQuote:
			if _, e := unquote(p.s, p.pos); e >= 0 {
				p.pos = e
				continue
			}
			p.noQuote = true
		case c == '<', c == ';', c == ',' && !(isRoute && route == 0):
			return p.pos, route
		case c == ':' && isRoute && route == 0:
			route = p.pos - start
		}
		p.pos++
	}
	return p.pos, route
}

// isDotAtom tells a local part that needs no quotes (RFC 5322, section 3.2.3; RFC 6532 for UTF-8).
func isDotAtom(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		if s[i] != '.' && !isAtext(s[i]) {
			return false
		}
	}
	return true
}

func isAtext(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		return true
	}
	return c != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func quoteString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

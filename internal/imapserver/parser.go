package imapserver

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// lineSource gives a parser what follows the first line of a command.
type lineSource interface {
	// literal reads the n octets of an announced literal; sync tells that the peer waits for a continuation first.
	// The result is valid until the next call.
	literal(n int64, sync bool) ([]byte, error)
	// line reads the line that follows a literal.
	line() ([]byte, error)
}

// syntaxError is a breach of the grammar: the answer is BAD with the place.
type syntaxError struct {
	column int // octets of the command before the place
	want   string
}

func (e *syntaxError) Error() string {
	return fmt.Sprintf("%s at octet %d", e.want, e.column+1)
}

// parser reads one command. Its methods keep the first error and do nothing after it, so that a grammar rule is
// written as a plain sequence and checked once, at its end.
type parser struct {
	src    lineSource
	line   []byte // the current line without CRLF
	pos    int
	done   int // octets of the command before the current line
	err    error
	named  string // the command's tag
	budget int    // octets that the literals of this command may still have together
}

// reset makes the parser read a new command that begins with line.
func (p *parser) reset(src lineSource, line []byte, budget int) {
	*p = parser{src: src, line: line, budget: budget}
}

func (p *parser) ok() bool { return p.err == nil }

func (p *parser) fail(want string) {
	if p.err == nil {
		p.err = &syntaxError{column: p.done + p.pos, want: want}
	}
}

// refuse ends parsing with an error of another kind, such as a refused literal.
func (p *parser) refuse(err error) {
	if p.err == nil {
		p.err = err
	}
}

// peek gives the next octet, 0 at the end of the line. NUL never occurs in a valid line.
func (p *parser) peek() byte {
	if p.err != nil || p.pos >= len(p.line) {
		return 0
	}
	return p.line[p.pos]
}

func (p *parser) take(c byte) bool {
	if p.peek() != c || c == 0 {
		return false
	}
	p.pos++
	return true
}

func (p *parser) need(c byte) {
	if !p.take(c) {
		p.fail(fmt.Sprintf("expected %q", c))
	}
}

func (p *parser) space() {
	if !p.take(' ') {
		p.fail("expected a space")
	}
}

// end requires that the command is over. Trailing spaces are forgiven: several clients send one.
func (p *parser) end() {
	for p.take(' ') {
	}
	if p.err == nil && p.pos < len(p.line) {
		p.fail("unexpected text")
	}
}

// Character classes of RFC 3501, section 9.
const (
	classAtom  = 1 << iota // ATOM-CHAR
	classAstr              // ASTRING-CHAR: ATOM-CHAR and "]"
	classTag               // ASTRING-CHAR without "+"
	classList              // list-char: ATOM-CHAR, wildcards and "]"
	classQuote             // QUOTED-CHAR without escapes; 8-bit octets are let through and checked as UTF-8
)

var classes = func() (t [256]uint8) {
	for c := 1; c < 256; c++ {
		b := byte(c)
		if b == '\r' || b == '\n' {
			continue
		}
		if b != '"' && b != '\\' {
			t[b] |= classQuote
		}
		if b <= ' ' || b >= 0x7f {
			continue
		}
		switch b {
		case '(', ')', '{', '"', '\\':
			continue
		case '%', '*':
			t[b] |= classList
			continue
		case ']':
			t[b] |= classAstr | classTag | classList
			continue
		}
		t[b] |= classAtom | classAstr | classList
		if b != '+' {
			t[b] |= classTag
		}
	}
	return t
}()

// span takes the longest run of octets of a class; it may be empty.
func (p *parser) span(class uint8) []byte {
	if p.err != nil {
		return nil
	}
	start := p.pos
	for p.pos < len(p.line) && classes[p.line[p.pos]]&class != 0 {
		p.pos++
	}
	return p.line[start:p.pos]
}

// tag reads the command's tag, at most 128 octets.
func (p *parser) tag() string {
	t := p.span(classTag)
	if len(t) == 0 {
		p.fail("expected a tag")
	}
	if len(t) > 128 {
		p.fail("tag too long")
	}
	p.named = string(t)
	return p.named
}

// word reads an atom in upper case: a command, a keyword, an item name.
func (p *parser) word(what string) string {
	a := p.span(classAtom)
	if len(a) == 0 {
		p.fail("expected " + what)
		return ""
	}
	return upper(a)
}

// upper gives ASCII upper case; the common words of the protocol are not allocated.
func upper(b []byte) string {
	var buf [32]byte
	if len(b) > len(buf) {
		return strings.ToUpper(string(b))
	}
	u := buf[:len(b)]
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		u[i] = c
	}
	if s, ok := knownWords[string(u)]; ok {
		return s
	}
	return string(u)
}

// atom reads an atom as it is written.
func (p *parser) atom(what string) string {
	a := p.span(classAtom)
	if len(a) == 0 {
		p.fail("expected " + what)
	}
	return string(a)
}

// number reads an unsigned number up to max.
func (p *parser) number(max uint64) uint64 {
	start := p.pos
	var n uint64
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		d := uint64(c - '0')
		if n > (max-d)/10 {
			p.fail("number too large")
			return 0
		}
		n = n*10 + d
		p.pos++
	}
	if p.pos == start {
		p.fail("expected a number")
	}
	return n
}

func (p *parser) number32() uint32 { return uint32(p.number(math.MaxUint32)) }

// modSeq reads a mod-sequence-value; 0 is let through, since Apple Mail sends CHANGEDSINCE 0.
func (p *parser) modSeq() uint64 { return p.number(math.MaxInt64) }

// errLiteralSize refuses a literal that is larger than its place allows.
var errLiteralSize = errors.New("literal too large")

// astring reads an atom, a quoted string or a literal of at most max octets.
func (p *parser) astring(max int) string {
	if c := p.peek(); c == '"' || c == '{' {
		return p.str(max)
	}
	a := p.span(classAstr)
	if len(a) == 0 {
		p.fail("expected a string")
	}
	if len(a) > max {
		p.fail("string too long")
	}
	return string(a)
}

// nstring reads NIL or a string; isNil tells which.
func (p *parser) nstring(max int) (s string, isNil bool) {
	if c := p.peek(); c == '"' || c == '{' {
		return p.str(max), false
	}
	if upper(p.span(classAtom)) != "NIL" {
		p.fail("expected NIL or a string")
	}
	return "", true
}

// str reads a quoted string or a literal.
func (p *parser) str(max int) string {
	switch p.peek() {
	case '"':
		return p.quoted(max)
	case '{':
		n, sync := p.literalHeader()
		if p.err != nil {
			return ""
		}
		if n > int64(max) || n > int64(p.budget) {
			p.pos = len(p.line)
			p.refuse(errLiteralSize)
			return ""
		}
		return p.literal(n, sync)
	}
	p.fail("expected a quoted string or a literal")
	return ""
}

func (p *parser) quoted(max int) string {
	p.pos++
	start := p.pos
	plain := p.span(classQuote)
	if p.take('"') {
		return p.checkString(plain, max)
	}
	text := append([]byte(nil), plain...)
	for p.err == nil {
		switch c := p.peek(); {
		case c == '"':
			p.pos++
			return p.checkString(text, max)
		case c == '\\' && p.pos+1 < len(p.line) && (p.line[p.pos+1] == '"' || p.line[p.pos+1] == '\\'):
			text = append(text, p.line[p.pos+1])
			p.pos += 2
		case classes[c]&classQuote != 0:
			text = append(text, p.span(classQuote)...)
		default:
			if p.pos >= len(p.line) {
				p.pos = start - 1
				p.fail("unclosed quoted string")
			}
			p.fail("octet not allowed in a quoted string")
		}
	}
	return ""
}

// checkString bounds a string and refuses octets that are neither ASCII nor UTF-8: they would have no meaning as a
// mailbox name or a search string.
func (p *parser) checkString(b []byte, max int) string {
	if len(b) > max {
		p.fail("string too long")
		return ""
	}
	if !utf8.Valid(b) {
		p.fail("string is not UTF-8 before this")
		return ""
	}
	return string(b)
}

// literalHeader reads "{n}" or "{n+}" at the end of the line (RFC 3501, section 4.3; RFC 7888).
func (p *parser) literalHeader() (n int64, sync bool) {
	p.need('{')
	n = int64(p.number(math.MaxInt64 / 2))
	sync = !p.take('+')
	p.need('}')
	if p.err == nil && p.pos != len(p.line) {
		p.fail("literal not at the end of the line")
	}
	return n, sync
}

// literal reads an accepted literal and moves to the line after it. Octets of any kind may stand in it except NUL
// (RFC 3501, section 9: CHAR8); a charset is the business of the caller.
func (p *parser) literal(n int64, sync bool) string {
	p.budget -= int(n)
	b, err := p.src.literal(n, sync)
	if err != nil {
		p.refuse(err)
		return ""
	}
	s := string(b)
	p.nextLine(n)
	if strings.IndexByte(s, 0) >= 0 {
		p.fail("NUL in the literal before this")
		return ""
	}
	return s
}

// nextLine moves to the line after a literal of n octets.
func (p *parser) nextLine(n int64) {
	next, err := p.src.line()
	if err != nil {
		p.refuse(err)
		return
	}
	p.done += len(p.line) + 2 + int(n)
	p.line, p.pos = next, 0
}

// list reads "(" item *(SP item) ")", at most max items; item must move on or fail.
func (p *parser) list(max int, item func()) {
	p.need('(')
	if p.take(')') {
		return
	}
	for n := 0; p.err == nil; n++ {
		if n == max {
			p.fail("too many items")
			return
		}
		item()
		if p.take(')') {
			return
		}
		p.space()
	}
}

// trailingLiteral tells whether a line ends in a literal header, and how large the literal is. A command that is given
// up before its end uses it to find out what the peer is going to send (RFC 7888, section 4).
func trailingLiteral(line []byte) (n int64, sync, found bool) {
	i := len(line) - 1
	if i < 2 || line[i] != '}' {
		return 0, false, false
	}
	i--
	sync = true
	if line[i] == '+' {
		sync = false
		i--
	}
	last := i
	for i >= 0 && line[i] >= '0' && line[i] <= '9' {
		i--
	}
	if i == last || i < 0 || line[i] != '{' {
		return 0, false, false
	}
	for _, c := range line[i+1 : last+1] {
		if n > (math.MaxInt64/2-9)/10 {
			return math.MaxInt64 / 2, sync, true
		}
		n = n*10 + int64(c-'0')
	}
	return n, sync, true
}

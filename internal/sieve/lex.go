package sieve

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// kind is the kind of a token, and of an argument.
type kind uint8

const (
	kindNone   kind = iota
	kindNumber      // 10K
	kindString      // "x", or text: of several lines
	kindList        // ["x", "y"]; where a list is wanted a string is one too
	kindTag         // :is
	kindWord        // an identifier
	kindPunct       // one of [](){},;
	kindEnd
)

// token is one piece of a script.
type token struct {
	kind   kind
	pos    int // octets from the start
	text   string
	number int64
}

// shown is a token as messages name it.
func (t token) shown() string {
	switch t.kind {
	case kindEnd:
		return "the end of the script"
	case kindTag:
		return "\":" + t.text + "\""
	case kindString:
		return "a string"
	case kindNumber:
		return "a number"
	}
	return "\"" + t.text + "\""
}

// lexer cuts a script into tokens (RFC 5228, section 8.1). Line ends may be LF alone: scripts are written with editors.
type lexer struct {
	src []byte
	at  int
}

// fault is a mistake at an offset of the text; Compile turns it into an Error.
type fault struct {
	pos  int
	text string
}

func (f *fault) Error() string { return f.text }

func faultAt(pos int, text ...string) error { return &fault{pos, strings.Join(text, "")} }

// place counts lines and columns up to an offset.
func place(src []byte, pos int) (line, column int) {
	before := src[:min(max(pos, 0), len(src))]
	line = 1 + bytes.Count(before, []byte("\n"))
	last := bytes.LastIndexByte(before, '\n')
	return line, 1 + utf8.RuneCount(before[last+1:])
}

// check refuses what no script has: octets that are no UTF-8, and NUL.
func checkText(src []byte, most int) error {
	if len(src) > most {
		return faultAt(0, "the script is too large")
	}
	if i := bytes.IndexByte(src, 0); i >= 0 {
		return faultAt(i, "a NUL octet")
	}
	for i := 0; i < len(src); {
		if src[i] < utf8.RuneSelf {
			i++
			continue
		}
		_, n := utf8.DecodeRune(src[i:])
		if n == 1 {
			return faultAt(i, "an octet that is not UTF-8")
		}
		i += n
	}
	return nil
}

// space passes over white space and comments.
func (l *lexer) space() error {
	for l.at < len(l.src) {
		switch c := l.src[l.at]; {
		case c == ' ', c == '\t', c == '\r', c == '\n':
			l.at++
		case c == '#':
			end := bytes.IndexByte(l.src[l.at:], '\n')
			if end < 0 {
				l.at = len(l.src)
				return nil
			}
			l.at += end + 1
		case c == '/' && l.at+1 < len(l.src) && l.src[l.at+1] == '*':
			end := bytes.Index(l.src[l.at+2:], []byte("*/"))
			if end < 0 {
				return faultAt(l.at, "a comment that has no end: expected \"*/\"")
			}
			l.at += end + 4
		default:
			return nil
		}
	}
	return nil
}

func (l *lexer) next() (token, error) {
	if err := l.space(); err != nil {
		return token{}, err
	}
	if l.at >= len(l.src) {
		return token{kind: kindEnd, pos: l.at}, nil
	}
	start, c := l.at, l.src[l.at]
	switch {
	case strings.IndexByte("[](){},;", c) >= 0:
		l.at++
		return token{kind: kindPunct, pos: start, text: string(c)}, nil
	case c == '"':
		return l.quoted()
	case isDigit(c):
		return l.numeral()
	case c == ':':
		l.at++
		word := l.word()
		if word == "" {
			return token{}, faultAt(start, "expected the name of a tag after \":\"")
		}
		return token{kind: kindTag, pos: start, text: word}, nil
	}
	word := l.word()
	if word == "" {
		r, _ := utf8.DecodeRune(l.src[start:])
		return token{}, faultAt(start, "a character that can't stand here: ", quoteRune(r))
	}
	if word == "text" && l.at < len(l.src) && l.src[l.at] == ':' {
		return l.multiline(start)
	}
	return token{kind: kindWord, pos: start, text: word}, nil
}

// word reads an identifier in lower case.
func (l *lexer) word() string {
	start := l.at
	for l.at < len(l.src) && (isLetter(l.src[l.at]) || l.at > start && isDigit(l.src[l.at])) {
		l.at++
	}
	return strings.ToLower(string(l.src[start:l.at]))
}

// maxNumber is the largest number that a script may have.
const maxNumber = 1<<53 - 1

func (l *lexer) numeral() (token, error) {
	start := l.at
	var n int64
	for ; l.at < len(l.src) && isDigit(l.src[l.at]); l.at++ {
		if n = n*10 + int64(l.src[l.at]-'0'); n > maxNumber {
			return token{}, faultAt(start, "the number is too large")
		}
	}
	if l.at < len(l.src) {
		shift := map[byte]uint{'K': 10, 'k': 10, 'M': 20, 'm': 20, 'G': 30, 'g': 30}[l.src[l.at]]
		if shift > 0 {
			if n > maxNumber>>shift {
				return token{}, faultAt(start, "the number is too large")
			}
			n <<= shift
			l.at++
		}
	}
	if l.at < len(l.src) && (isLetter(l.src[l.at]) || isDigit(l.src[l.at])) {
		return token{}, faultAt(l.at, "expected K, M, G or the end of the number")
	}
	return token{kind: kindNumber, pos: start, number: n}, nil
}

func (l *lexer) quoted() (token, error) {
	start := l.at
	var b strings.Builder
	for l.at++; l.at < len(l.src); l.at++ {
		switch c := l.src[l.at]; {
		case c == '"':
			l.at++
			return token{kind: kindString, pos: start, text: b.String()}, nil
		case c == '\\' && l.at+1 < len(l.src):
			l.at++
			b.WriteByte(l.src[l.at])
		case c == '\n' && (l.at == 0 || l.src[l.at-1] != '\r'):
			b.WriteString("\r\n")
		default:
			b.WriteByte(c)
		}
	}
	return token{}, faultAt(start, "a string that has no end: expected '\"'")
}

// multiline reads a text of several lines, which ends with a dot alone on its line.
func (l *lexer) multiline(start int) (token, error) {
	l.at++ // the colon
	for l.at < len(l.src) && (l.src[l.at] == ' ' || l.src[l.at] == '\t') {
		l.at++
	}
	head, rest, found := bytes.Cut(l.src[l.at:], []byte("\n"))
	if head = bytes.TrimSuffix(head, []byte("\r")); len(head) > 0 && head[0] != '#' {
		return token{}, faultAt(l.at, "expected a line end after \"text:\"")
	}
	var b strings.Builder
	for found {
		var line []byte
		line, rest, found = bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 1 && line[0] == '.' {
			l.at = len(l.src) - len(rest)
			return token{kind: kindString, pos: start, text: b.String()}, nil
		}
		b.Write(bytes.TrimPrefix(line, []byte("."))) // a dot at the start is there twice
		b.WriteString("\r\n")
	}
	return token{}, faultAt(start, "a text that has no end: expected a line with \".\" alone")
}

func quoteRune(r rune) string { return "'" + string(r) + "'" }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' }

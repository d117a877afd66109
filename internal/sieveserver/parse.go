package sieveserver

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxArguments bounds the arguments of a command: no command has more than two.
const maxArguments = 4

// read reads one command with its literals. An error that is no inputError leaves the session at the start of the next one.
func (s *session) read() (*command, []string, error) {
	line, err := s.line()
	if err != nil {
		return nil, nil, err
	}
	word, rest, _ := bytes.Cut(line, []byte(" "))
	c := lookup(string(word))
	var args []string
	var fault error
	if c == nil {
		fault = refuse("Unknown command")
	}
	for {
		var p argument
		args, p = appendArguments(args, string(rest))
		switch {
		case p.literal:
			text, err := s.literal(p.size, s.room(c))
			if err != nil {
				if fault == nil {
					fault = err
				}
				if errors.As(err, new(*inputError)) {
					return c, nil, err
				}
			}
			if len(args) < maxArguments {
				args = append(args, text)
			}
			if rest, err = s.line(); err != nil {
				return c, nil, err
			}
			continue
		case p.bad && fault == nil:
			fault = errSyntax
		}
		break
	}
	if fault == nil && (len(args) < c.least || len(args) > c.most) {
		fault = refuse("Wrong number of arguments")
	}
	return c, args, fault
}

// room is how many octets a literal of a command may have: a script, or a line of an exchange.
func (s *session) room(c *command) int64 {
	switch {
	case c == nil:
		return 0
	case c.script && s.state == user:
		return int64(s.srv.opt.Settings().SieveScriptSize)
	}
	return int64(s.srv.opt.Limits.Line)
}

// literal reads a literal, or reads over it when it is too large.
func (s *session) literal(size, most int64) (string, error) {
	if err := s.count(int(size)); err != nil {
		return "", err
	}
	if size > most {
		if err := s.conn.Drain(size, s.srv.opt.Limits.Drain); err != nil {
			return "", &inputError{err}
		}
		return "", refuseFair("(QUOTA/MAXSIZE) ", "Too large: at most "+strconv.FormatInt(most, 10)+" octets")
	}
	text, err := io.ReadAll(s.conn.Literal(size))
	if err != nil {
		return "", &inputError{err}
	}
	return string(text), nil
}

// argument is how a piece of a line ends.
type argument struct {
	literal bool // in a literal of this size
	size    int64
	bad     bool // in what is no argument
}

// appendArguments reads the arguments on a line (RFC 5804, section 4): strings, numbers and words, a space between.
func appendArguments(args []string, s string) ([]string, argument) {
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		if len(args) >= maxArguments {
			return args, argument{bad: true}
		}
		switch s[0] {
		case '"':
			text, n := unquote(s)
			if n == 0 {
				return args, argument{bad: true}
			}
			args, s = append(args, text), s[n:]
		case '{':
			digits, ok := strings.CutSuffix(s[1:], "}")
			size, err := strconv.ParseUint(strings.TrimSuffix(digits, "+"), 10, 31)
			if !ok || err != nil || digits == "" || digits[0] == '+' {
				return args, argument{bad: true}
			}
			return args, argument{literal: true, size: int64(size)}
		default:
			word, _, _ := strings.Cut(s, " ")
			args, s = append(args, word), s[len(word):]
			if strings.ContainsAny(word, `"{}()\`) {
				return args, argument{bad: true}
			}
		}
		if s != "" && s[0] != ' ' {
			return args, argument{bad: true}
		}
	}
	return args, argument{}
}

// unquote reads a quoted string and tells how many octets it takes; 0 when it is none.
func unquote(s string) (string, int) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			if !utf8.ValidString(b.String()) {
				return "", 0
			}
			return b.String(), i + 1
		case '\\':
			if i++; i >= len(s) || s[i] != '"' && s[i] != '\\' {
				return "", 0
			}
			b.WriteByte(s[i])
		case 0:
			return "", 0
		default:
			b.WriteByte(c)
		}
	}
	return "", 0
}

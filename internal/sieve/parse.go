package sieve

import "strconv"

// node is a command or a test as it was written.
type node struct {
	name  string
	pos   int
	args  []arg
	tests []*node
	paren bool // the tests stood in parentheses
	block []*node
	braces,
	test bool
}

// arg is an argument as it was written.
type arg struct {
	kind    kind
	pos     int
	text    string // of a string or tag
	number  int64
	strings []token // of a list, or the string itself
}

// parser builds nodes (RFC 5228, section 8.2): the form alone, not what names mean.
type parser struct {
	lex     lexer
	tok     token
	nesting int
	depth   int
}

func (p *parser) advance() (err error) {
	p.tok, err = p.lex.next()
	return err
}

func (p *parser) is(punct string) bool { return p.tok.kind == kindPunct && p.tok.text == punct }

// expected refuses the present token.
func (p *parser) expected(what string) error {
	return faultAt(p.tok.pos, "expected ", what, ", found ", p.tok.shown())
}

// enter counts how deep blocks and tests are.
func (p *parser) enter() error {
	if p.depth++; p.depth > p.nesting {
		return faultAt(p.tok.pos, "nested deeper than ", strconv.Itoa(p.nesting), " levels")
	}
	return nil
}

// parse reads a whole script.
func parse(src []byte, nesting int) ([]*node, error) {
	p := &parser{lex: lexer{src: src}, nesting: nesting}
	if err := p.advance(); err != nil {
		return nil, err
	}
	list, err := p.commands()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != kindEnd {
		return nil, p.expected("a command")
	}
	return list, nil
}

func (p *parser) commands() ([]*node, error) {
	var list []*node
	for p.tok.kind == kindWord {
		n, err := p.command()
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// command reads a command to its ";" or the end of its block.
func (p *parser) command() (*node, error) {
	n := &node{name: p.tok.text, pos: p.tok.pos}
	if err := p.rest(n); err != nil {
		return nil, err
	}
	switch {
	case p.is(";"):
		return n, p.advance()
	case !p.is("{"):
		return nil, p.expected("\";\" or \"{\"")
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	n.braces = true
	if err := p.advance(); err != nil {
		return nil, err
	}
	var err error
	if n.block, err = p.commands(); err != nil {
		return nil, err
	}
	if !p.is("}") {
		return nil, p.expected("a command or \"}\"")
	}
	p.depth--
	return n, p.advance()
}

// rest reads the arguments and tests behind a name.
func (p *parser) rest(n *node) error {
	if err := p.advance(); err != nil {
		return err
	}
	for {
		a := arg{kind: p.tok.kind, pos: p.tok.pos, text: p.tok.text, number: p.tok.number}
		switch {
		case p.tok.kind == kindTag, p.tok.kind == kindNumber:
		case p.tok.kind == kindString:
			a.strings = []token{p.tok}
		case p.is("["):
			a.kind = kindList
			list, err := p.list()
			if err != nil {
				return err
			}
			a.strings = list
		default:
			return p.testsOf(n)
		}
		n.args = append(n.args, a)
		if err := p.advance(); err != nil {
			return err
		}
	}
}

// list reads a list of strings up to its bracket.
func (p *parser) list() ([]token, error) {
	var list []token
	for {
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.tok.kind != kindString {
			return nil, p.expected("a string")
		}
		list = append(list, p.tok)
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.is("]") {
			return list, nil
		}
		if !p.is(",") {
			return nil, p.expected("\",\" or \"]\"")
		}
	}
}

// testsOf reads the test, or the tests in parentheses, of a command or test.
func (p *parser) testsOf(n *node) error {
	if p.tok.kind == kindWord {
		t, err := p.oneTest()
		n.tests = []*node{t}
		return err
	}
	if !p.is("(") {
		return nil
	}
	n.paren = true
	for {
		if err := p.advance(); err != nil {
			return err
		}
		if p.tok.kind != kindWord {
			return p.expected("a test")
		}
		t, err := p.oneTest()
		if err != nil {
			return err
		}
		n.tests = append(n.tests, t)
		if p.is(")") {
			return p.advance()
		}
		if !p.is(",") {
			return p.expected("\",\" or \")\"")
		}
	}
}

func (p *parser) oneTest() (*node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	n := &node{name: p.tok.text, pos: p.tok.pos, test: true}
	err := p.rest(n)
	p.depth--
	return n, err
}

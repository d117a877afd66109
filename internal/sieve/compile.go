package sieve

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// stmt is a compiled command; test a compiled test. What a test can't find out it says by run.fail, which ends the run.
type (
	stmt func(r *run) error
	test func(r *run) bool
)

// spec says how a command or a test is written and what it is compiled to. Exactly one of action and test is set.
type spec struct {
	ext    string // the extension that it needs; "" for none
	tags   []tag
	args   []kind // positional; a list also takes a string
	spare  int    // how many of the first of them may be left out; -1: the last one
	tests  int    // 0, 1, or many
	block  bool
	action func(c *compiler, k *call) (stmt, error)
	test   func(c *compiler, k *call) (test, error)
}

const many = 2

// tag is a tagged argument. Of those with the same group only one may be given.
type tag struct {
	name  string
	ext   string
	group string
	kind  kind // of the value behind it; kindNone for none
}

// call is a command or test with its arguments in their places.
type call struct {
	*node
	spec *spec
	tags map[string]*arg
	pos  []*arg // as spec.args; nil for those left out
}

func (k *call) has(tag string) bool { return k.tags[tag] != nil }

// unit is a script that was compiled, itself or as part of another.
type unit struct {
	program []stmt
	enabled map[string]bool
}

// compiler turns the nodes of one script into statements.
type compiler struct {
	opt       *Options
	enabled   map[string]bool
	begun     bool     // a command other than require was there
	loops     []string // names of the loops around
	including []string // scripts around, by include
	globals   map[string]bool
	library   *library
}

func newCompiler(opt *Options, including []string) *compiler {
	return &compiler{opt: opt, including: including, enabled: map[string]bool{}, globals: map[string]bool{}, library: &library{map[string]*unit{}, map[string]error{}}}
}

// script compiles a text. The error is an *Error.
func (c *compiler) script(src []byte) (*unit, error) {
	program, err := c.compile(src)
	var f *fault
	if errors.As(err, &f) {
		line, column := place(src, f.pos)
		return nil, &Error{Line: line, Column: column, Text: f.text}
	}
	return &unit{program: program, enabled: c.enabled}, err
}

func (c *compiler) compile(src []byte) ([]stmt, error) {
	if err := checkText(src, c.opt.Limits.ScriptBytes); err != nil {
		return nil, err
	}
	nodes, err := parse(src, c.opt.Limits.Nesting)
	if err != nil {
		return nil, err
	}
	return c.block(nodes)
}

// block compiles commands that follow each other.
func (c *compiler) block(nodes []*node) ([]stmt, error) {
	var out []stmt
	for i := 0; i < len(nodes); {
		n := nodes[i]
		if n.name == "if" {
			end := i + 1
			for end < len(nodes) && nodes[end-1].name != "else" && (nodes[end].name == "elsif" || nodes[end].name == "else") {
				end++
			}
			s, err := c.conditional(nodes[i:end])
			if err != nil {
				return nil, err
			}
			out = append(out, s)
			i = end
			continue
		}
		i++
		s, err := c.command(n)
		if err != nil {
			return nil, err
		}
		if s != nil {
			out = append(out, s)
		}
	}
	return out, nil
}

// conditional compiles an if with all that belongs to it (RFC 5228, section 3.1).
func (c *compiler) conditional(nodes []*node) (stmt, error) {
	c.begun = true
	type branch struct {
		when test
		then []stmt
	}
	branches := make([]branch, len(nodes))
	for i, n := range nodes {
		shape := &spec{tests: 1, block: true}
		if n.name == "else" {
			shape.tests = 0
		}
		k, err := c.bind(n, shape)
		if err != nil {
			return nil, err
		}
		if shape.tests > 0 {
			if branches[i].when, err = c.test(k.node.tests[0]); err != nil {
				return nil, err
			}
		}
		if branches[i].then, err = c.block(n.block); err != nil {
			return nil, err
		}
	}
	return func(r *run) error {
		for _, b := range branches {
			if b.when == nil || b.when(r) {
				return r.all(b.then)
			}
			if r.err != nil {
				return r.err
			}
		}
		return nil
	}, nil
}

// later turns a mistake into one of the run when the script asks with ihave what it may use (RFC 5463, section 4): the
// command may stand where it is never reached.
func (c *compiler) later(err error) (error, bool) {
	var f *unknown
	if errors.As(err, &f) && c.enabled["ihave"] {
		return errors.New(f.text), true
	}
	return err, false
}

// unknown is a mistake that a better implementation would not see as one.
type unknown struct{ fault }

func (u *unknown) Unwrap() error { return &u.fault }

func unknownAt(pos int, text ...string) error { return &unknown{fault{pos, strings.Join(text, "")}} }

func (c *compiler) command(n *node) (stmt, error) {
	if n.name != "require" {
		c.begun = true
	}
	s, err := c.compileCommand(n)
	if late, ok := c.later(err); ok {
		return func(*run) error { return late }, nil
	}
	return s, err
}

func (c *compiler) compileCommand(n *node) (stmt, error) {
	sp := commands[n.name]
	switch {
	case n.name == "elsif" || n.name == "else":
		return nil, faultAt(n.pos, "\"", n.name, "\" without an \"if\" before it")
	case sp == nil && tests[n.name] != nil:
		return nil, faultAt(n.pos, "\"", n.name, "\" is a test: expected a command")
	case sp == nil:
		return nil, unknownAt(n.pos, "unknown command \"", n.name, "\"")
	}
	k, err := c.bind(n, sp)
	if err != nil {
		return nil, err
	}
	return sp.action(c, k)
}

func (c *compiler) test(n *node) (test, error) {
	t, err := c.compileTest(n)
	if late, ok := c.later(err); ok {
		return func(r *run) bool { r.fail(late); return false }, nil
	}
	return t, err
}

func (c *compiler) compileTest(n *node) (test, error) {
	sp := tests[n.name]
	switch {
	case sp == nil && commands[n.name] != nil:
		return nil, faultAt(n.pos, "\"", n.name, "\" is a command: expected a test")
	case sp == nil:
		return nil, unknownAt(n.pos, "unknown test \"", n.name, "\"")
	}
	k, err := c.bind(n, sp)
	if err != nil {
		return nil, err
	}
	return sp.test(c, k)
}

// needs refuses what an extension gives that the script did not ask for.
func (c *compiler) needs(ext, what string, pos int) error {
	if ext == "" || c.enabled[ext] {
		return nil
	}
	return unknownAt(pos, what, " needs: require \"", ext, "\"")
}

// bind puts the arguments of a node in their places.
func (c *compiler) bind(n *node, sp *spec) (*call, error) {
	if err := c.needs(sp.ext, "\""+n.name+"\"", n.pos); err != nil {
		return nil, err
	}
	k := &call{node: n, spec: sp, tags: map[string]*arg{}}
	var plain []*arg
	for i := 0; i < len(n.args); i++ {
		a := &n.args[i]
		if a.kind != kindTag {
			plain = append(plain, a)
			continue
		}
		used, err := c.bindTag(k, i)
		if err != nil {
			return nil, err
		}
		i += used
	}
	if err := k.bindPlain(plain); err != nil {
		return nil, err
	}
	return k, k.bindTests()
}

// bindTag takes the tag at an index and the value behind it; it returns how many arguments the value takes.
func (c *compiler) bindTag(k *call, i int) (int, error) {
	a := &k.args[i]
	at := slices.IndexFunc(k.spec.tags, func(t tag) bool { return t.name == a.text })
	if at < 0 {
		return 0, unknownAt(a.pos, "\"", k.name, "\" knows no \":", a.text, "\"")
	}
	t := &k.spec.tags[at]
	if err := c.needs(t.ext, "\":"+t.name+"\"", a.pos); err != nil {
		return 0, err
	}
	for _, other := range k.spec.tags {
		if k.tags[other.name] == nil || other.name != t.name && (t.group == "" || other.group != t.group) {
			continue
		}
		if other.name == t.name {
			return 0, faultAt(a.pos, "\":", t.name, "\" is given twice")
		}
		return 0, faultAt(a.pos, "\":", t.name, "\" can't stand with \":", other.name, "\"")
	}
	if t.kind == kindNone {
		k.tags[t.name] = a
		return 0, nil
	}
	if i+1 >= len(k.args) || !fits(&k.args[i+1], t.kind) {
		return 0, faultAt(a.pos, "expected ", kindName(t.kind), " after \":", t.name, "\"")
	}
	k.tags[t.name] = &k.args[i+1]
	return 1, nil
}

func fits(a *arg, want kind) bool {
	return a.kind == want || want == kindList && a.kind == kindString
}

func kindName(k kind) string {
	switch k {
	case kindNumber:
		return "a number"
	case kindString:
		return "a string"
	case kindList:
		return "a string or a list of strings"
	}
	return "nothing"
}

func (k *call) bindPlain(plain []*arg) error {
	missing := len(k.spec.args) - len(plain)
	switch {
	case missing < 0:
		return faultAt(plain[len(k.spec.args)].pos, "\"", k.name, "\" takes no more than ", strconv.Itoa(len(k.spec.args)), " arguments beside tags")
	case missing > max(k.spec.spare, -k.spec.spare):
		return faultAt(k.node.pos, "\"", k.name, "\" lacks an argument: expected ", kindName(k.spec.args[len(plain)]))
	}
	if k.spec.spare < 0 {
		k.pos = append(plain, make([]*arg, missing)...)
	} else {
		k.pos = append(make([]*arg, missing), plain...)
	}
	for i, a := range k.pos {
		if a != nil && !fits(a, k.spec.args[i]) {
			return faultAt(a.pos, "expected ", kindName(k.spec.args[i]), " as argument ", strconv.Itoa(slices.Index(plain, a)+1), " of \"", k.name, "\"")
		}
	}
	return nil
}

func (k *call) bindTests() error {
	n := k.node
	switch {
	case k.spec.tests == 0 && len(n.tests) > 0:
		return faultAt(n.tests[0].pos, "\"", n.name, "\" takes no test")
	case k.spec.tests == 1 && (len(n.tests) != 1 || n.paren):
		return faultAt(n.pos, "\"", n.name, "\" needs one test")
	case k.spec.tests == many && !n.paren:
		return faultAt(n.pos, "\"", n.name, "\" needs tests in parentheses")
	case k.spec.block && !n.braces:
		return faultAt(n.pos, "\"", n.name, "\" needs a block in braces")
	case !k.spec.block && n.braces:
		return faultAt(n.pos, "\"", n.name, "\" takes no block: expected \";\"")
	}
	return nil
}

// Package sieve reads and runs the filter scripts of users: a parser that names the place of each mistake, a compiler that
// checks a script once, and an interpreter that turns a message into a list of actions (RFC 5228 and its extensions; the
// table in extensions.go lists them).
//
// It does nothing to the world: it opens no connection or file and delivers nothing. What it asks (which mailboxes are
// there, what was seen before) goes through Host, and what is to be done comes back as actions. A run is bounded in octets
// looked at, variables, actions and redirects, and whatever goes wrong in it, the message is kept.
//
//	script, err := sieve.Compile(text, sieve.Options{})
//	result := sieve.Run(ctx, []*sieve.Script{script}, input)
package sieve

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits bound scripts and runs; zero values stand for the defaults.
type Limits struct {
	ScriptBytes int   // octets of one script; 256 KiB
	Nesting     int   // blocks and tests inside each other; 32
	Includes    int   // scripts inside each other; 10
	Variables   int   // of one run; 256
	ValueBytes  int   // octets of a variable; 16 KiB
	Work        int64 // octets that one run may look at, comparisons counted each; 64 Mi
	BodyBytes   int64 // octets of text that body tests take out of one message; 2 MiB
	Actions     int   // of one run; 64
	Redirects   int   // of one run; 4, NoRedirects for none
	Notices     int   // notifications of one run; 3
	Edits       int   // header fields added or removed in one run; 100
}

// NoRedirects is the limit of redirects that allows none.
const NoRedirects = -1

// CheckName tells whether a script may have a name (RFC 5804, section 1.6): "" or what is wrong.
func CheckName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > 512:
		return "the name is longer than 512 octets"
	case !utf8.ValidString(name):
		return "the name is not UTF-8"
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 }):
		return "the name has control characters"
	}
	return ""
}

func (l Limits) withDefaults() Limits {
	for p, d := range map[*int]int{
		&l.ScriptBytes: 256 << 10, &l.Nesting: 32, &l.Includes: 10, &l.Variables: 256, &l.ValueBytes: 16 << 10,
		&l.Actions: 64, &l.Redirects: 4, &l.Notices: 3, &l.Edits: 100,
	} {
		if *p == 0 {
			*p = d
		}
	}
	for p, d := range map[*int64]int64{&l.Work: 64 << 20, &l.BodyBytes: 2 << 20} {
		if *p <= 0 {
			*p = d
		}
	}
	return l
}

// Options of Compile.
type Options struct {
	Limits Limits
	// Without names extensions that this script may not use.
	Without []string
	// Load gives the text of an included script (RFC 6609); nil or an error: it is missing, which is an error of the run
	// and not of the script.
	Load func(global bool, name string) ([]byte, error)
}

// Error is a mistake in a script and its place, from 1. Columns count characters.
type Error struct {
	Line, Column int
	Text         string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Text)
}

// Script is a compiled script. It is never changed, and may be run many times at once.
type Script struct {
	limits  Limits
	program []stmt
	asks    []string
}

// Requires lists the extensions that the script uses, in order.
func (s *Script) Requires() []string { return slices.Clone(s.asks) }

// Compile checks a script. The error is an *Error.
func Compile(text []byte, opt Options) (*Script, error) {
	opt.Limits = opt.Limits.withDefaults()
	unit, err := newCompiler(&opt, nil).script(text)
	if err != nil {
		return nil, err
	}
	return &Script{limits: opt.Limits, program: unit.program, asks: slices.Sorted(maps.Keys(unit.enabled))}, nil
}

package sieve

import (
	"slices"
	"strings"
)

// Bounds of what flags a script sets.
const (
	maxFlags = 64
	maxFlag  = 100
)

// systemFlags are those that a script may set (RFC 5232, section 2).
var systemFlags = []string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`}

// splitFlags cuts strings at spaces into flags, each once; what is no flag that can be set is left out.
func splitFlags(list []string) []string {
	var out []string
	for _, s := range list {
		for _, f := range strings.Fields(s) {
			f, ok := flag(f)
			if ok && len(out) < maxFlags && !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, f) }) {
				out = append(out, f)
			}
		}
	}
	return out
}

// flag gives a flag its form.
func flag(f string) (string, bool) {
	if strings.HasPrefix(f, `\`) {
		i := slices.IndexFunc(systemFlags, func(s string) bool { return strings.EqualFold(s, f) })
		if i < 0 {
			return "", false
		}
		return systemFlags[i], true
	}
	for i := range len(f) {
		if f[i] <= ' ' || f[i] >= 127 || strings.IndexByte(`(){%*"\]`, f[i]) >= 0 {
			return "", false
		}
	}
	return f, f != "" && len(f) <= maxFlag
}

func setFlags(_, list []string) []string { return list }

func addFlags(have, list []string) []string { return splitFlags(slices.Concat(have, list)) }

func removeFlags(have, list []string) []string {
	return slices.DeleteFunc(slices.Clone(have), func(f string) bool {
		return slices.ContainsFunc(list, func(o string) bool { return strings.EqualFold(o, f) })
	})
}

// flagVariable is the variable that holds flags: the internal one when none is named.
func (c *compiler) flagVariable(t *token) (get func(*run) []string, set func(*run, []string) error, err error) {
	if t == nil {
		return func(r *run) []string { return r.flags }, func(r *run, list []string) error { r.flags = list; return nil }, nil
	}
	if err := c.needs("variables", "a variable of flags", t.pos); err != nil {
		return nil, nil, err
	}
	name, global, err := c.variable(&arg{pos: t.pos, strings: []token{*t}})
	get = func(r *run) []string {
		if global {
			return splitFlags([]string{r.globals[name]})
		}
		return splitFlags([]string{r.frame.vars[name]})
	}
	set = func(r *run, list []string) error { return r.setVariable(name, global, strings.Join(list, " ")) }
	return get, set, err
}

func flagCommand(change func(have, list []string) []string) func(*compiler, *call) (stmt, error) {
	return func(c *compiler, k *call) (stmt, error) {
		var name *token
		if k.pos[0] != nil {
			name = &k.pos[0].strings[0]
		}
		get, set, err := c.flagVariable(name)
		if err != nil {
			return nil, err
		}
		list, err := c.texts(k.pos[1])
		return func(r *run) error { return set(r, change(get(r), splitFlags(values(r, list)))) }, err
	}
}

func compileHasFlag(c *compiler, k *call) (test, error) {
	names := []*token{nil}
	if a := k.pos[0]; a != nil {
		names = nil
		for i := range a.strings {
			names = append(names, &a.strings[i])
		}
	}
	var gets []func(*run) []string
	for _, n := range names {
		get, _, err := c.flagVariable(n)
		if err != nil {
			return nil, err
		}
		gets = append(gets, get)
	}
	m, err := c.matcher(k, k.pos[1])
	return func(r *run) bool {
		var list []string
		for _, get := range gets {
			list = append(list, get(r)...)
		}
		return m.any(r, list)
	}, err
}

package sieve

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// variable reads the name of a variable that is set.
func (c *compiler) variable(a *arg) (name string, global bool, err error) {
	name = strings.ToLower(a.strings[0].text)
	if bare, ok := strings.CutPrefix(name, "global."); ok && c.enabled["include"] {
		name, global = bare, true
	}
	if !isName(name) {
		return "", false, faultAt(a.pos, "\"", a.strings[0].text, "\" is no name of a variable")
	}
	return name, global || c.globals[name], nil
}

// setVariable gives a variable its value, which is cut to what one may have (RFC 5229, section 6).
func (r *run) setVariable(name string, global bool, value string) error {
	vars := r.frame.vars
	if global {
		vars = r.globals
	}
	if _, there := vars[name]; !there && len(vars) >= r.lim.Variables {
		return fmt.Errorf("more than %d variables", r.lim.Variables)
	}
	vars[name] = cut(value, r.lim.ValueBytes)
	return nil
}

func compileSet(c *compiler, k *call) (stmt, error) {
	name, global, err := c.variable(k.pos[0])
	if err != nil {
		return nil, err
	}
	value, err := c.one(k.pos[1])
	modify := modifier(k)
	return func(r *run) error { return r.setVariable(name, global, modify(r, value.value(r))) }, err
}

// modifier is what the tags of set do to a value, those of higher precedence first (RFC 5229, section 4.1).
func modifier(k *call) func(r *run, s string) string {
	steps := []struct {
		tag string
		do  func(string) string
	}{
		{"lower", strings.ToLower},
		{"upper", strings.ToUpper},
		{"lowerfirst", func(s string) string { return first(s, unicode.ToLower) }},
		{"upperfirst", func(s string) string { return first(s, unicode.ToUpper) }},
		{"quotewildcard", strings.NewReplacer("*", `\*`, "?", `\?`, `\`, `\\`).Replace},
		{"quoteregex", regexp.QuoteMeta},
		{"encodeurl", encodeURL},
		{"length", func(s string) string { return strconv.Itoa(utf8.RuneCountInString(s)) }},
	}
	var chosen []func(string) string
	for _, st := range steps {
		if k.has(st.tag) {
			chosen = append(chosen, st.do)
		}
	}
	return func(r *run, s string) string {
		for _, do := range chosen {
			r.spend(len(s))
			s = cut(do(s), r.lim.ValueBytes)
		}
		return s
	}
}

func first(s string, to func(rune) rune) string {
	c, n := utf8.DecodeRuneInString(s)
	if n == 0 || c == utf8.RuneError {
		return s
	}
	return string(to(c)) + s[n:]
}

// encodeURL writes what has a meaning in URIs by its octets (RFC 5435, section 6).
func encodeURL(s string) string {
	const hexadecimal = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if isLetter(c) || isDigit(c) || c == '-' || c == '.' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexadecimal[c>>4])
		b.WriteByte(hexadecimal[c&15])
	}
	return b.String()
}

func compileString(c *compiler, k *call) (test, error) {
	source, err := c.texts(k.pos[0])
	if err != nil {
		return nil, err
	}
	m, err := c.matcher(k, k.pos[1])
	return func(r *run) bool {
		list := values(r, source)
		if m.how == matchCount { // RFC 5229, section 5: empty strings don't count
			n := 0
			for _, s := range list {
				if s != "" {
					list[n] = s
					n++
				}
			}
			list = list[:n]
		}
		return m.any(r, list)
	}, err
}

package sieve

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// text is a string of a script, with what stands in it for variables (RFC 5229, section 3).
type text struct {
	lit   string
	parts []part // nil: lit is all
}

// part is a piece of a text: as it is, a variable, or what a wildcard matched.
type part struct {
	lit    string
	name   string
	global bool
	match  int // -1: none
}

// text compiles a string.
func (c *compiler) text(t *token) (*text, error) {
	s := t.text
	if c.enabled["encoded-character"] {
		var err error
		if s, err = decodeCharacters(s, t.pos); err != nil {
			return nil, err
		}
	}
	out := &text{lit: s}
	if !c.enabled["variables"] || !strings.Contains(s, "${") {
		return out, nil
	}
	last := 0
	for i := 0; i < len(s); {
		p, n := c.reference(s[i:])
		if n == 0 {
			i++
			continue
		}
		if i > last {
			out.parts = append(out.parts, part{lit: s[last:i], match: -1})
		}
		out.parts = append(out.parts, p)
		i += n
		last = i
	}
	if out.parts != nil && last < len(s) {
		out.parts = append(out.parts, part{lit: s[last:], match: -1})
	}
	return out, nil
}

// reference reads "${name}"; what has another form stands for itself.
func (c *compiler) reference(s string) (part, int) {
	if !strings.HasPrefix(s, "${") {
		return part{}, 0
	}
	end := strings.IndexByte(s, '}')
	if end < 3 || end > 200 {
		return part{}, 0
	}
	name := strings.ToLower(s[2:end])
	if digits := strings.Trim(name, "0123456789") == ""; digits {
		n, err := strconv.Atoi(name)
		if err != nil || n >= maxMatches {
			n = maxMatches // matches nothing, ever
		}
		return part{match: n}, end + 1
	}
	p := part{name: name, match: -1}
	if bare, ok := strings.CutPrefix(name, "global."); ok && c.enabled["include"] {
		p.name, p.global = bare, true
	}
	if !isName(p.name) {
		return part{}, 0
	}
	p.global = p.global || c.globals[p.name]
	return p, end + 1
}

func isName(s string) bool {
	for i := range len(s) {
		if !isLetter(s[i]) && (i == 0 || !isDigit(s[i])) {
			return false
		}
	}
	return s != ""
}

// texts compiles the strings of an argument.
func (c *compiler) texts(a *arg) ([]*text, error) {
	if a == nil {
		return nil, nil
	}
	out := make([]*text, len(a.strings))
	for i := range a.strings {
		var err error
		if out[i], err = c.text(&a.strings[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// one compiles an argument that is a single string; nil for none.
func (c *compiler) one(a *arg) (*text, error) {
	if a == nil {
		return nil, nil
	}
	return c.text(&a.strings[0])
}

// constant is an argument that may hold no variable.
func (c *compiler) constant(a *arg, what string) (string, error) {
	t, err := c.text(&a.strings[0])
	if err != nil {
		return "", err
	}
	if t.parts != nil {
		return "", faultAt(a.pos, what, " can't hold a variable")
	}
	return t.lit, nil
}

// value is the text as it is now.
func (t *text) value(r *run) string {
	if t == nil {
		return ""
	}
	if t.parts == nil {
		return t.lit
	}
	var b strings.Builder
	most := len(t.lit) + r.lim.ValueBytes
	for i := range t.parts {
		v := t.parts[i].value(r)
		r.spend(len(v) + 16)
		if b.Len()+len(v) > most {
			b.WriteString(cut(v, most-b.Len()))
			break
		}
		b.WriteString(v)
	}
	return b.String()
}

func (p *part) value(r *run) string {
	switch {
	case p.match >= 0 && p.match < len(r.frame.match):
		return r.frame.match[p.match]
	case p.match >= 0:
		return ""
	case p.name == "":
		return p.lit
	case p.global:
		return r.globals[p.name]
	}
	return r.frame.vars[p.name]
}

// values are texts as they are now.
func values(r *run, list []*text) []string {
	out := make([]string, len(list))
	for i, t := range list {
		out[i] = t.value(r)
	}
	return out
}

// cut shortens a string to so many octets, between characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// decodeCharacters replaces "${hex: 24}" and "${unicode: 40}" (RFC 5228, section 2.4.2.4).
func decodeCharacters(s string, pos int) (string, error) {
	if !strings.Contains(s, "${") {
		return s, nil
	}
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:i])
		s = s[i:]
		decoded, n, err := oneEncoded(s, pos)
		if err != nil {
			return "", err
		}
		if n == 0 {
			b.WriteString(s[:2])
			n = 2
		} else {
			b.WriteString(decoded)
		}
		s = s[n:]
	}
}

func oneEncoded(s string, pos int) (string, int, error) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return "", 0, nil
	}
	form, list, found := strings.Cut(s[2:end], ":")
	form = strings.ToLower(form)
	if !found || form != "hex" && form != "unicode" {
		return "", 0, nil
	}
	var b strings.Builder
	words := strings.Fields(list)
	for _, w := range words {
		n, err := strconv.ParseUint(w, 16, 32)
		if err != nil || form == "hex" && len(w) > 2 {
			return "", 0, nil
		}
		if form == "hex" {
			b.WriteByte(byte(n))
			continue
		}
		if !utf8.ValidRune(rune(n)) || n > utf8.MaxRune {
			return "", 0, faultAt(pos, "\"", w, "\" is no character of Unicode")
		}
		b.WriteRune(rune(n))
	}
	if len(words) == 0 {
		return "", 0, nil
	}
	return b.String(), end + 1, nil
}

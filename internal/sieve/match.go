package sieve

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// matching is how values are compared with keys.
type matching uint8

const (
	matchIs matching = iota
	matchContains
	matchMatches
	matchRegex
	matchValue
	matchCount
)

// comparator is one of the collations (RFC 4790, section 9).
type comparator uint8

const (
	casemap comparator = iota
	octet
	numeric
)

var comparators = map[string]comparator{"i;ascii-casemap": casemap, "i;octet": octet, "i;ascii-numeric": numeric}

// maxMatches is how many of ${0}, ${1} and so on are kept.
const maxMatches = 64

// maxPattern bounds regular expressions, in octets.
const maxPattern = 2048

// matchTags are the tags of tests that compare. A test with them has a call of compiler.matcher.
var matchTags = []tag{
	{name: "is", group: "match"},
	{name: "contains", group: "match"},
	{name: "matches", group: "match"},
	{name: "regex", ext: "regex", group: "match"},
	{name: "value", ext: "relational", group: "match", kind: kindString},
	{name: "count", ext: "relational", group: "match", kind: kindString},
	{name: "comparator", kind: kindString},
}

// relations are those of RFC 5231, section 4.
var relations = map[string]func(int) bool{
	"gt": func(c int) bool { return c > 0 },
	"ge": func(c int) bool { return c >= 0 },
	"lt": func(c int) bool { return c < 0 },
	"le": func(c int) bool { return c <= 0 },
	"eq": func(c int) bool { return c == 0 },
	"ne": func(c int) bool { return c != 0 },
}

// matcher compares values with the keys of a test.
type matcher struct {
	how   matching
	by    comparator
	holds func(int) bool
	keys  []*text
	ready []*key // of keys without variables; nil for others
	quiet bool   // sets no match variables
}

// key is a key made ready.
type key struct {
	s    string // folded when the comparator folds
	glob []segment
	re   *regexp.Regexp
}

// matcher reads the tags of a test, and its keys.
func (c *compiler) matcher(k *call, keys *arg) (*matcher, error) {
	m := &matcher{}
	if a := k.tags["comparator"]; a != nil {
		name, err := c.constant(a, "the comparator")
		if err != nil {
			return nil, err
		}
		by, ok := comparators[name]
		if !ok {
			return nil, unknownAt(a.pos, "unknown comparator \"", name, "\"")
		}
		if by == numeric && !c.enabled["comparator-i;ascii-numeric"] {
			return nil, unknownAt(a.pos, "the comparator needs: require \"comparator-i;ascii-numeric\"")
		}
		m.by = by
	}
	for how, name := range []string{"is", "contains", "matches", "regex", "value", "count"} {
		a := k.tags[name]
		if a == nil {
			continue
		}
		m.how = matching(how)
		if m.how >= matchValue {
			word, err := c.constant(a, "the relation")
			if err != nil {
				return nil, err
			}
			if m.holds = relations[strings.ToLower(word)]; m.holds == nil {
				return nil, faultAt(a.pos, "expected \"gt\", \"ge\", \"lt\", \"le\", \"eq\" or \"ne\" after \":", name, "\"")
			}
		} else if m.by == numeric && m.how != matchIs { // RFC 4790, section 9.1.1
			return nil, faultAt(a.pos, "the comparator \"i;ascii-numeric\" can't do \":", name, "\"")
		}
	}
	var err error
	if m.keys, err = c.texts(keys); err != nil {
		return nil, err
	}
	m.ready = make([]*key, len(m.keys))
	for i, t := range m.keys {
		if t.parts != nil {
			continue
		}
		if m.ready[i], err = m.prepare(t.lit); err != nil {
			return nil, faultAt(keys.strings[i].pos, err.Error())
		}
	}
	return m, nil
}

// prepare makes a key ready; it fails for regular expressions alone.
func (m *matcher) prepare(s string) (*key, error) {
	k := &key{s: s}
	if m.how == matchRegex {
		re, err := compileRegex(s, m.by == casemap)
		k.re = re
		return k, err
	}
	if m.by == casemap {
		k.s = fold(s)
	}
	if m.how == matchMatches {
		k.glob = parseGlob(k.s)
	}
	return k, nil
}

type patternError struct{ text string }

func (e *patternError) Error() string { return "regular expression: " + e.text }

func compileRegex(s string, ignoreCase bool) (*regexp.Regexp, error) {
	if len(s) > maxPattern {
		return nil, &patternError{"longer than " + strconv.Itoa(maxPattern) + " octets"}
	}
	flags := "(?s)"
	if ignoreCase {
		flags = "(?si)"
	}
	re, err := regexp.Compile(flags + s)
	if err != nil {
		return nil, &patternError{strings.TrimPrefix(err.Error(), "error parsing regexp: ")}
	}
	return re, nil
}

// prepared gives the keys as they are now.
func (m *matcher) prepared(r *run) []*key {
	out := m.ready
	for i, t := range m.keys {
		if m.ready[i] != nil {
			continue
		}
		if &out[0] == &m.ready[0] {
			out = append([]*key(nil), m.ready...)
		}
		s := t.value(r)
		r.spend(len(s) + 16)
		if m.how == matchRegex {
			r.spend(200 * len(s))
		}
		k, err := m.prepare(s)
		if err != nil {
			r.fail(err)
			return nil
		}
		out[i] = k
	}
	return out
}

// any tells whether some value matches some key, in this order: which of them does decides the match variables.
func (m *matcher) any(r *run, list []string) bool {
	keys := m.prepared(r)
	if m.how == matchCount {
		return m.count(r, keys, len(list))
	}
	for _, v := range list {
		folded := v
		if m.by == casemap && m.how != matchRegex {
			folded = fold(v)
		}
		for _, k := range keys {
			if r.err != nil {
				return false
			}
			if m.one(r, v, folded, k) {
				return true
			}
		}
	}
	return false
}

// count compares the number of values, always as numbers (RFC 5231, section 4.2).
func (m *matcher) count(r *run, keys []*key, n int) bool {
	for _, k := range keys {
		r.spend(len(k.s))
		if m.holds(compareNumeric(strconv.Itoa(n), k.s)) {
			return true
		}
	}
	return false
}

func (m *matcher) one(r *run, v, folded string, k *key) bool {
	r.spend(len(v) + len(k.s)/4 + 16)
	switch m.how {
	case matchIs:
		if m.by == numeric {
			return compareNumeric(v, k.s) == 0
		}
		return folded == k.s
	case matchContains:
		return strings.Contains(folded, k.s)
	case matchMatches:
		spans, ok := matchGlob(r, folded, k.glob)
		if ok {
			m.remember(r, v, spans)
		}
		return ok
	case matchRegex:
		r.spend(len(v) * (4 + len(k.re.String())/2))
		if r.err != nil {
			return false
		}
		spans := k.re.FindStringSubmatchIndex(v)
		if spans != nil {
			m.remember(r, v, spans)
		}
		return spans != nil
	}
	if m.by == numeric {
		return m.holds(compareNumeric(v, k.s))
	}
	return m.holds(strings.Compare(folded, k.s))
}

// remember sets the match variables: pairs of offsets, the whole first (RFC 5229, section 3.2).
func (m *matcher) remember(r *run, v string, spans []int) {
	if m.quiet {
		return
	}
	match := make([]string, 0, min(len(spans)/2, maxMatches))
	for i := 0; i+1 < len(spans) && len(match) < maxMatches; i += 2 {
		s := ""
		if spans[i] >= 0 {
			s = cut(v[spans[i]:spans[i+1]], r.lim.ValueBytes)
		}
		match = append(match, s)
	}
	r.frame.match = match
}

// fold is the form in which i;ascii-casemap compares: of the same length.
func fold(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// compareNumeric compares by the digits that strings begin with; one that begins with none is greater than all numbers
// (RFC 4790, section 9.1.1).
func compareNumeric(a, b string) int {
	x, xOK := digits(a)
	y, yOK := digits(b)
	switch {
	case !xOK && !yOK:
		return 0
	case !xOK:
		return 1
	case !yOK:
		return -1
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
}

func digits(s string) (string, bool) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return strings.TrimLeft(s[:n], "0"), n > 0
}

// segment is what stands between two stars of a pattern; a wild octet is any one.
type segment struct {
	lit  string
	wild []bool // nil: none
}

// parseGlob cuts a pattern at its stars (RFC 5228, section 2.7.1). Comparators for octets make a character one octet.
func parseGlob(s string) []segment {
	var out []segment
	var lit []byte
	var wild []bool
	some := false
	flush := func() {
		seg := segment{lit: string(lit)}
		if some {
			seg.wild = wild
		}
		out = append(out, seg)
		lit, wild, some = nil, nil, false
	}
	for i := 0; i < len(s); i++ {
		c, any := s[i], false
		switch {
		case c == '*':
			flush()
			continue
		case c == '?':
			any, some = true, true
		case c == '\\' && i+1 < len(s):
			i++
			c = s[i]
		}
		lit, wild = append(lit, c), append(wild, any)
	}
	flush()
	return out
}

// matchGlob matches a whole string, each star with as little as it can. It never goes back: between the first and the last
// segment, which are anchored, the leftmost place of each segment leaves most for the others.
func matchGlob(r *run, s string, glob []segment) ([]int, bool) {
	spans := []int{0, len(s)}
	first, last := &glob[0], &glob[len(glob)-1]
	if len(s) < len(first.lit) || !first.at(s, 0) {
		return nil, false
	}
	spans = first.appendWild(spans, 0)
	at := len(first.lit)
	if len(glob) == 1 {
		return spans, at == len(s)
	}
	end := len(s) - len(last.lit)
	for i := 1; i < len(glob)-1; i++ {
		g := &glob[i]
		found := g.find(r, s[:max(end, 0)], at)
		if found < 0 {
			return nil, false
		}
		spans = g.appendWild(append(spans, at, found), found)
		at = found + len(g.lit)
	}
	if end < at || !last.at(s, end) {
		return nil, false
	}
	return last.appendWild(append(spans, at, end), end), true
}

// at tells whether the segment stands at an offset, where there is room for it.
func (g *segment) at(s string, at int) bool {
	if g.wild == nil {
		return s[at:at+len(g.lit)] == g.lit
	}
	for i := range len(g.lit) {
		if !g.wild[i] && s[at+i] != g.lit[i] {
			return false
		}
	}
	return true
}

func (g *segment) find(r *run, s string, from int) int {
	if from > len(s) {
		return -1
	}
	if g.wild == nil {
		if i := strings.Index(s[from:], g.lit); i >= 0 {
			return from + i
		}
		return -1
	}
	for ; from+len(g.lit) <= len(s) && r.err == nil; from++ {
		if g.at(s, from) {
			return from
		}
		r.spend(1 + len(g.lit))
	}
	return -1
}

// appendWild adds the octets that question marks matched.
func (g *segment) appendWild(spans []int, at int) []int {
	for i, w := range g.wild {
		if w {
			spans = append(spans, at+i, at+i+1)
		}
	}
	return spans
}

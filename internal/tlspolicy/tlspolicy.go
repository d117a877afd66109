// Package tlspolicy reads the administrator's table of how connections to other servers must be protected, by the domain
// of the recipient. Pure functions over text: package transport holds to what the table says.
//
//	t, err := tlspolicy.Parse("bank.example dane-only; partner.example secure match=.partner.net; * encrypt")
//	e, ok := t.For("bank.example")
package tlspolicy

import (
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/address"
)

// Level is how a connection must be protected.
type Level string

// The levels, from what the receiving domain publishes to what the administrator demands.
const (
	Auto     Level = "auto"      // DANE, or else MTA-STS, or else as may: what a domain without an entry gets
	None     Level = "none"      // no TLS
	May      Level = "may"       // TLS where it works; nothing that the domain publishes is looked at
	Encrypt  Level = "encrypt"   // TLS, with any certificate
	Verify   Level = "verify"    // TLS, with a valid certificate for the name of the server
	Secure   Level = "secure"    // TLS, with a valid certificate for the domain itself or a name below it
	DANE     Level = "dane"      // DANE where the domain has it, or else as may
	DANEOnly Level = "dane-only" // DANE, or nothing is sent
)

// Levels lists all levels.
func Levels() []Level {
	return []Level{Auto, None, May, Encrypt, Verify, Secure, DANE, DANEOnly}
}

// Entry is one line of the table.
type Entry struct {
	Domain string // "example.org", ".example.org" for all below it, "*" for all others
	Level  Level
	Match  []string // with verify and secure: names that the certificate may be for instead, ".example.org" for all below
}

// String is the entry as Parse reads it.
func (e Entry) String() string {
	s := e.Domain + " " + string(e.Level)
	if len(e.Match) > 0 {
		s += " match=" + strings.Join(e.Match, ",")
	}
	return s
}

// Bounds of a table.
const (
	MaxEntries = 1000
	MaxText    = 64 << 10
	maxMatch   = 16
)

// Table is all entries. The zero value has none.
type Table struct {
	entries map[string]Entry
}

// Parse reads a table: entries separated by ";", each a domain, a level and what else belongs to it.
func Parse(text string) (*Table, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("more than %d octets", MaxText)
	}
	t := &Table{entries: map[string]Entry{}}
	for part := range strings.SplitSeq(text, ";") {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		e, err := parseEntry(words)
		if err != nil {
			return nil, err
		}
		if _, twice := t.entries[e.Domain]; twice {
			return nil, fmt.Errorf("%s stands in it twice", e.Domain)
		}
		if t.entries[e.Domain] = e; len(t.entries) > MaxEntries {
			return nil, fmt.Errorf("more than %d entries", MaxEntries)
		}
	}
	return t, nil
}

func parseEntry(words []string) (Entry, error) {
	var e Entry
	if len(words) < 2 {
		return e, fmt.Errorf("%.80q: a domain and a level belong together", words[0])
	}
	e = Entry{Domain: words[0], Level: Level(words[1])}
	for _, w := range words[2:] {
		list, ok := strings.CutPrefix(w, "match=")
		if !ok || e.Match != nil {
			return e, fmt.Errorf("%s: %.80q is not known", e.Domain, w)
		}
		e.Match = strings.Split(list, ",")
	}
	return New(e.Domain, e.Level, e.Match)
}

// New makes an entry of its parts, and checks them.
func New(domain string, level Level, match []string) (Entry, error) {
	e := Entry{Level: level}
	var err error
	if e.Domain, err = scope(domain); err != nil {
		return e, err
	}
	if !slices.Contains(Levels(), level) {
		return e, fmt.Errorf("%s: level %.40q is not one of auto, none, may, encrypt, verify, secure, dane and dane-only", domain, level)
	}
	if len(match) > 0 && level != Verify && level != Secure {
		return e, fmt.Errorf("%s: names to match belong to the levels verify and secure", domain)
	}
	if len(match) > maxMatch {
		return e, fmt.Errorf("%s: more than %d names to match", domain, maxMatch)
	}
	for _, m := range match {
		if m == "*" {
			return e, fmt.Errorf("%s: a certificate for just any name says nothing: use the level encrypt", domain)
		}
		name, err := scope(m)
		if err != nil {
			return e, err
		}
		e.Match = append(e.Match, name)
	}
	return e, nil
}

// scope normalises "example.org", ".example.org" and "*".
func scope(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	name, below := strings.CutPrefix(s, ".")
	d, err := address.ParseDomain(name)
	if err != nil || strings.HasPrefix(d, "[") {
		return "", fmt.Errorf("%.80q is not a domain", s)
	}
	if below {
		d = "." + d
	}
	return d, nil
}

// For finds the entry of a domain in A-labels: its own, the nearest above it that begins with a dot, or that of "*".
func (t *Table) For(domain string) (Entry, bool) {
	if t == nil || len(t.entries) == 0 {
		return Entry{}, false
	}
	if e, ok := t.entries[domain]; ok {
		return e, true
	}
	for rest := domain; ; {
		_, parent, more := strings.Cut(rest, ".")
		if !more {
			break
		}
		if e, ok := t.entries["."+parent]; ok {
			return e, true
		}
		rest = parent
	}
	e, ok := t.entries["*"]
	return e, ok
}

// Entries lists the entries by domain.
func (t *Table) Entries() []Entry {
	list := make([]Entry, 0, len(t.entries))
	for _, e := range t.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Domain, b.Domain) })
	return list
}

// Set adds an entry or replaces the one of the same domain.
func (t *Table) Set(e Entry) { t.entries[e.Domain] = e }

// Remove takes the entry of a domain away; false when there is none.
func (t *Table) Remove(domain string) bool {
	d, err := scope(domain)
	_, ok := t.entries[d]
	delete(t.entries, d)
	return ok && err == nil
}

// String is the table as Parse reads it.
func (t *Table) String() string {
	list := t.Entries()
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.String()
	}
	return strings.Join(out, "; ")
}

// Below tells whether a name of a certificate is one below a domain that is written with a dot before it.
func Below(domain, name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return len(name) > len(domain) && strings.HasSuffix(name, domain)
}

// Package mailrule is the rules that an administrator gives about the way of mail and that belong to no one address: the
// domains that mail is relayed for (backup MX), routes, and journals. It holds their form, checks them, and finds the one
// that fits an envelope. It is pure: package directory keeps the rules, routing, transport and intake act on them.
//
// A pattern is an address, a domain, ".domain" for its subdomains, or "*". The more a pattern says the sooner it counts.
//
//	set := mailrule.Compile(relays, routes, journals)
//	route := set.Route(from, to) // nil: the plain way
package mailrule

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"waxwing/internal/address"
)

// Limits of what follows.
const (
	MaxRules      = 5_000  // of one kind
	MaxHosts      = 10     // of one rule
	MaxRecipients = 10_000 // listed for one relay domain
	maxText       = 200    // octets of a refusal
)

// FieldError says which field of a rule isn't allowed, and what is.
type FieldError struct{ Field, Value, Want string }

func (e *FieldError) Error() string { return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Want) }

// pattern ranks: the lower the more it says.
const (
	rankAddress = iota
	rankDomain
	rankSub // one more for each label that is left open
	rankAny = 300
)

// cleanPattern checks a pattern and gives its normal form.
func cleanPattern(field, text string) (string, error) {
	if text == "*" {
		return text, nil
	}
	if a, err := address.Parse(text); err == nil && !a.IsLiteral() {
		return a.Key(), nil
	}
	sub := strings.HasPrefix(text, ".")
	if d, err := address.ParseDomain(strings.TrimPrefix(text, ".")); err == nil {
		if sub {
			return "." + d, nil
		}
		return d, nil
	}
	return "", &FieldError{field, text, "an address, a domain, .domain for its subdomains, or *"}
}

// keys are the patterns that an address fits, those that say most first. The null sender fits none but "*".
func keys(a address.Address) []string {
	if a.IsNull() {
		return []string{"*"}
	}
	list := []string{a.Key(), a.Domain}
	for rest := a.Domain; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			break
		}
		list = append(list, rest[i:])
		rest = rest[i+1:]
	}
	return append(list, "*")
}

// fits tells whether an address fits a pattern in its normal form, and how much that says.
func fits(pattern string, a address.Address) (rank int, ok bool) {
	for i, k := range keys(a) {
		if k == pattern {
			if k == "*" {
				return rankAny, true
			}
			return i, true
		}
	}
	return 0, false
}

// Host is a server with its port; 0 is the standard one.
type Host struct {
	Name string
	Port int
}

// ParseHost reads "name", "name:port", "192.0.2.1", "[2001:db8::1]:25".
func ParseHost(text string) (Host, error) {
	bad := &FieldError{"hosts", text, "a host name or address, with :port where it isn't the standard one"}
	h := Host{Name: text}
	if i := strings.LastIndexByte(text, ':'); i >= 0 && (strings.Count(text, ":") == 1 || strings.HasPrefix(text, "[") && text[i-1] == ']') {
		port, err := strconv.ParseUint(text[i+1:], 10, 16)
		if err != nil || port == 0 {
			return h, bad
		}
		h = Host{text[:i], int(port)}
	}
	h.Name = strings.TrimSuffix(strings.TrimPrefix(h.Name, "["), "]")
	if ip, err := netip.ParseAddr(h.Name); err == nil && ip.Zone() == "" {
		return h, nil
	}
	name, err := address.ParseDomain(h.Name)
	if err != nil {
		return h, bad
	}
	h.Name = name
	return h, nil
}

func checkHosts(list []string) error {
	if len(list) > MaxHosts {
		return &FieldError{"hosts", strconv.Itoa(len(list)), fmt.Sprintf("at most %d", MaxHosts)}
	}
	seen := map[Host]bool{}
	for _, text := range list {
		h, err := ParseHost(text)
		if err != nil {
			return err
		}
		if seen[h] {
			return &FieldError{"hosts", text, "each host once"}
		}
		seen[h] = true
	}
	return nil
}

// checkName holds what rules may be called.
func checkName(name string) error {
	ok := name != "" && len(name) <= 64 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
	if !ok {
		return &FieldError{"name", name, "1 to 64 of a-z, 0-9, - _ and ."}
	}
	return nil
}

// The TLS modes of a next hop, as package transport has them.
const (
	TLSRequired      = "starttls"      // verified, or nothing is sent
	TLSImplicit      = "implicit"      // from the first octet, verified
	TLSOpportunistic = "opportunistic" // as with any other server
)

func checkTLS(mode string, login bool) error {
	switch mode {
	case "", TLSRequired, TLSImplicit:
		return nil
	case TLSOpportunistic:
		if login {
			return &FieldError{"tls", mode, "starttls or implicit: a password goes over verified TLS only"}
		}
		return nil
	}
	return &FieldError{"tls", mode, "starttls, implicit or opportunistic"}
}

// Set is all rules in force. It is never changed.
type Set struct {
	relays   map[string]*Relay
	routes   []*Route
	byTo     map[string][]*Route
	byName   map[string]*Route
	journals []*Journal
}

// Compile makes a Set of rules that were checked.
func Compile(relays []Relay, routes []Route, journals []Journal) *Set {
	s := &Set{relays: map[string]*Relay{}, byTo: map[string][]*Route{}, byName: map[string]*Route{}}
	for _, r := range relays {
		r.known = make(map[string]bool, len(r.Recipients))
		for _, text := range r.Recipients {
			if a, err := address.Parse(text); err == nil {
				r.known[a.Key()] = true
			}
		}
		s.relays[r.Domain] = &r
	}
	for _, r := range routes {
		s.routes = append(s.routes, &r)
		s.byName[r.Name] = &r
		s.byTo[r.To] = append(s.byTo[r.To], &r)
	}
	for _, j := range journals {
		j.to, _ = address.Parse(j.To) // checked when it was written
		s.journals = append(s.journals, &j)
	}
	slices.SortFunc(s.journals, func(a, b *Journal) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// Relay is the rule of a domain that mail is relayed for; nil when there is none.
func (s *Set) Relay(domain string) *Relay { return s.relays[domain] }

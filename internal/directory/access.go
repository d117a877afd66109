package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"waxwing/internal/address"
)

// AccessAction is what an AccessRule says of those that it is about.
type AccessAction string

// The actions.
const (
	Allow AccessAction = "allow" // not denied by a wider rule
	Deny  AccessAction = "deny"
	Trust AccessAction = "trust" // allowed, and exempt from what the guard checks; never from signing in or relaying
)

// AccessRule allows or denies connections, host names and senders. Where several fit, the one with the narrowest subject
// counts, then the one that names a listener.
type AccessRule struct {
	// Subject is whom it is about: "192.0.2.0/24", "2001:db8::/32", an address, "all", "sender:spam.example",
	// "sender:li@spam.example" or "helo:mail.spam.example". A domain stands for its subdomains too.
	Subject  string       `json:"subject"`
	Action   AccessAction `json:"action"`
	Listener string       `json:"listener,omitempty"` // mx, submission, submissions, imap or pop3; "": all
	// For is "" (the server), a domain of ours (mail to it) or an account's address (signing in to it). When an account has
	// rules that allow, it can be signed in to from nowhere else.
	For  string `json:"for,omitempty"`
	Note string `json:"note,omitempty"`
}

// The prefixes of subjects that are no networks.
const (
	SenderSubject = "sender:"
	HeloSubject   = "helo:"
	AllSubject    = "all"
)

// AccessListeners are what a rule may name as its listener.
var AccessListeners = []string{"imap", "mx", "pop3", "submission", "submissions"}

const (
	maxAccessRules = 100_000
	maxNote        = 200
)

// key names a rule: there is one for each subject, listener and scope.
func (r AccessRule) key() string { return r.Subject + " " + r.Listener + " " + r.For }

// normal checks a rule and gives it in the form in which rules are compared.
func (r AccessRule) normal() (AccessRule, error) {
	var err error
	if r.Subject, err = normalSubject(r.Subject); err != nil {
		return r, err
	}
	switch {
	case r.Action != Allow && r.Action != Deny && r.Action != Trust:
		return r, &FieldError{Field: "action", Value: string(r.Action), Want: "allow, deny or trust"}
	case r.Listener != "" && !slices.Contains(AccessListeners, r.Listener):
		return r, &FieldError{Field: "listener", Value: r.Listener, Want: "one of " + strings.Join(AccessListeners, ", ") + ", or nothing for all"}
	case len(r.Note) > maxNote || !utf8.ValidString(r.Note) || strings.ContainsFunc(r.Note, unicode.IsControl):
		return r, &FieldError{Field: "note", Want: fmt.Sprintf("at most %d octets of text on one line", maxNote)}
	}
	if r.For, err = normalScope("for", r.For); err != nil {
		return r, err
	}
	network := !strings.HasPrefix(r.Subject, SenderSubject) && !strings.HasPrefix(r.Subject, HeloSubject)
	switch {
	case r.Action == Trust && (r.For != "" || !network):
		return r, &FieldError{Field: "action", Value: string(r.Action), Want: "allow or deny: only addresses and networks can be trusted, for the whole server"}
	case strings.Contains(r.For, "@") && !network:
		return r, &FieldError{Field: "subject", Value: r.Subject, Want: "an address or a network: an account's rules say from where it signs in"}
	}
	return r, nil
}

func normalSubject(text string) (string, error) {
	bad := &FieldError{Field: "subject", Value: text, Want: `an address, a network such as 192.0.2.0/24, "all", "sender:" or "helo:" with a domain, or "sender:" with an address`}
	for _, prefix := range []string{SenderSubject, HeloSubject} {
		rest, ok := strings.CutPrefix(text, prefix)
		if !ok {
			continue
		}
		if prefix == SenderSubject && strings.Contains(rest, "@") {
			a, err := address.Parse(rest)
			if err != nil {
				return "", bad
			}
			return prefix + a.Key(), nil
		}
		domain, err := address.ParseDomain(rest)
		if err != nil {
			return "", bad
		}
		return prefix + domain, nil
	}
	if text == AllSubject {
		return text, nil
	}
	p, err := ParseNetwork(text)
	if err != nil {
		return "", bad
	}
	return p.String(), nil
}

// normalScope reads what a rule or limit is for: a domain, or the address of an account.
func normalScope(field, text string) (string, error) {
	bad := &FieldError{Field: field, Value: text, Want: "a domain or the address of an account"}
	switch {
	case text == "":
		return "", nil
	case strings.Contains(text, "@"):
		a, err := address.Parse(text)
		if err != nil || a.Domain == "" || a.Domain[0] == '[' {
			return "", bad
		}
		return a.Key(), nil
	}
	d, err := address.ParseDomain(text)
	if err != nil || d[0] == '[' {
		return "", bad
	}
	return d, nil
}

// ParseNetwork reads a network, or an address as a network of one. IPv4 in IPv6 becomes IPv4; bits behind the prefix must
// be zero.
func ParseNetwork(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no network", text)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%q is no network", text)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its prefix: %s", text, p.Masked())
	}
	return p, nil
}

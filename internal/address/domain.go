package address

import (
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// profile maps and checks domains by UTS 46, non-transitional, as resolvers do. Length limits are checked afterwards.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(true))

const maxLabel = 63

// ParseDomain normalises a domain: lower case, A-labels, no trailing dot, DNS length limits. Underscores are let
// through, as they stand in host names of real mail. A name whose last label is a number is refused: it would be an
// address without its brackets.
func ParseDomain(s string) (string, error) {
	if len(s) > 4*MaxDomain {
		return "", fmt.Errorf("domain of %d octets: %w", len(s), ErrTooLong)
	}
	d := strings.TrimSuffix(s, ".")
	if !isASCII(d) {
		mapped, err := profile.ToASCII(d)
		if err != nil {
			return "", fmt.Errorf("domain %q: %w", s, ErrDomain)
		}
		d = strings.TrimSuffix(mapped, ".")
	}
	d = strings.ToLower(d)
	if len(d) > MaxDomain {
		return "", fmt.Errorf("domain %q: %w", s, ErrTooLong)
	}
	if !isHostName(d) {
		return "", fmt.Errorf("domain %q: %w", s, ErrDomain)
	}
	return d, nil
}

// isHostName checks lower-case ASCII labels; those in Punycode must be what their U-labels encode to.
func isHostName(d string) bool {
	label := ""
	for rest := d; ; {
		var more bool
		label, rest, more = strings.Cut(rest, ".")
		if !isLabel(label) {
			return false
		}
		if !more {
			break
		}
	}
	return strings.Trim(label, "0123456789") != ""
}

func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		b := s[i]
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' && b != '_' {
			return false
		}
	}
	if strings.HasPrefix(s, "xn--") {
		u, err := profile.ToUnicode(s)
		if err != nil {
			return false
		}
		back, err := profile.ToASCII(u)
		return err == nil && back == s
	}
	return true
}

// DomainUnicode writes a normalised domain with U-labels; what can't be shown stays as it is.
func DomainUnicode(d string) string {
	if !strings.Contains(d, "xn--") {
		return d
	}
	u, err := profile.ToUnicode(d)
	if err != nil {
		return d
	}
	return u
}

// parseHost reads what stands behind the @: a domain or an address literal.
func parseHost(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		literal, _, err := ParseLiteral(s)
		return literal, err
	}
	if strings.HasSuffix(s, ".") {
		return "", ErrDomain // RFC 5321 has no trailing dot in a path
	}
	return ParseDomain(s)
}

// Package address is the mail address of an envelope or an account: a local part and a domain, parsed strictly
// (RFC 5321, section 4.1.2; RFC 6531 for UTF-8) and compared the same way everywhere. Header addresses with display
// names, groups and comments belong to package message.
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Limits of RFC 5321, section 4.5.3.1, in octets.
const (
	MaxLocal  = 64
	MaxDomain = 253 // as text without the trailing dot; RFC 1035 counts 255 on the wire
	MaxTotal  = 254 // a path of 256 octets without its angle brackets
)

// What is wrong with an address; Parse wraps them with the address.
var (
	ErrSyntax  = errors.New("malformed address")
	ErrLocal   = errors.New("malformed local part")
	ErrDomain  = errors.New("malformed domain")
	ErrTooLong = errors.New("address too long")
)

// Address is one mailbox address. The zero value is the null reverse-path "<>".
type Address struct {
	Local  string // as written, unquoted; NFC when it holds non-ASCII
	Domain string // lower case, A-labels ("xn--..."); an address literal keeps its brackets
}

// Parse reads "local@domain" without angle brackets. The local part may be a quoted string.
func Parse(s string) (Address, error) {
	if len(s) > 4*MaxTotal { // U-labels may be longer than their A-labels, but not by that much
		return Address{}, ErrTooLong
	}
	local, rest, err := parseLocal(s)
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	if rest == "" || rest[0] != '@' {
		return Address{}, fmt.Errorf("address %q: %w", s, ErrSyntax)
	}
	domain, err := parseHost(rest[1:])
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	a := Address{Local: local, Domain: domain}
	if len(local) > MaxLocal || len(local)+1+len(domain) > MaxTotal {
		return Address{}, fmt.Errorf("address %q: %w", s, ErrTooLong)
	}
	return a, nil
}

// ParseLocal reads a local part alone, as in "<postmaster>", quoted or not.
func ParseLocal(s string) (string, error) {
	local, rest, err := parseLocal(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("local part %q: %w", s, err)
	case rest != "":
		return "", fmt.Errorf("local part %q: %w", s, ErrLocal)
	case len(local) > MaxLocal:
		return "", fmt.Errorf("local part %q: %w", s, ErrTooLong)
	}
	return local, nil
}

// parseLocal returns the local part, unquoted, and what stands behind it.
func parseLocal(s string) (local, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		local, rest, err = parseQuoted(s)
	} else {
		end := strings.IndexByte(s, '@')
		if end < 0 {
			end = len(s)
		}
		local, rest = s[:end], s[end:]
		if !isDotString(local) {
			err = ErrLocal
		}
	}
	if err != nil {
		return "", "", err
	}
	if !isASCII(local) {
		local = norm.NFC.String(local)
	}
	return local, rest, nil
}

// parseQuoted reads a Quoted-string, RFC 5321, section 4.1.2, with the UTF-8 of RFC 6531, section 3.3.
func parseQuoted(s string) (local, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"':
			return b.String(), s[i+1:], nil
		case r == '\\':
			if i+1 == len(s) || s[i+1] < ' ' || s[i+1] > '~' {
				return "", "", ErrLocal
			}
			b.WriteByte(s[i+1])
			n = 2
		case !quotable(r, n):
			return "", "", ErrLocal
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return "", "", ErrLocal
}

// quotable tells whether a character of n octets may stand in a quoted string. Controls, also those of Latin-1 and the
// line separators, never may.
func quotable(r rune, n int) bool {
	return (r != utf8.RuneError || n > 1) && !unicode.IsControl(r) && r != '\u2028' && r != '\u2029'
}

// isDotString tells the Dot-string of RFC 5321, with UTF-8 as in RFC 6531.
func isDotString(s string) bool {
	dot := true // an empty atom so far
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b == '.' {
				if dot {
					return false
				}
				dot = true
			} else if !isAtext(b) {
				return false
			} else {
				dot = false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if !quotable(r, n) || unicode.IsSpace(r) {
			return false
		}
		dot = false
		i += n
	}
	return !dot
}

func isAtext(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", b) >= 0
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// IsNull tells the null reverse-path.
func (a Address) IsNull() bool { return a == Address{} }

// String writes the address as SMTP does: the local part quoted where it must be, the domain in A-labels. The null
// address is "".
func (a Address) String() string { return a.with(a.Domain) }

// Unicode writes the address with U-labels, for people.
func (a Address) Unicode() string { return a.with(DomainUnicode(a.Domain)) }

func (a Address) with(domain string) string {
	if a.IsNull() {
		return ""
	}
	local := a.Local
	if !isDotString(local) {
		local = quote(local)
	}
	if domain == "" { // "<postmaster>"
		return local
	}
	return local + "@" + domain
}

func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 4)
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// ASCII tells whether the address can be sent to a server without SMTPUTF8.
func (a Address) ASCII() bool { return isASCII(a.Local) && isASCII(a.Domain) }

// Key is the form under which accounts and aliases are looked up: local part case-folded, domain normalised.
func (a Address) Key() string {
	if a.IsNull() {
		return ""
	}
	return FoldLocal(a.Local) + "@" + a.Domain
}

// FoldLocal is the form in which local parts are compared.
func FoldLocal(local string) string {
	if isASCII(local) {
		return strings.ToLower(local)
	}
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(local)))
}

// SplitDetail cuts a sub-address: "user+tag" gives "user" and "tag" (RFC 5233). A detail without a user is none.
func (a Address) SplitDetail(sep string) (base Address, detail string, found bool) {
	if sep == "" {
		return a, "", false
	}
	local, detail, found := strings.Cut(a.Local, sep)
	if !found || local == "" {
		return a, "", false
	}
	return Address{Local: local, Domain: a.Domain}, detail, true
}

// IsLiteral tells whether the domain is an address literal.
func (a Address) IsLiteral() bool { return strings.HasPrefix(a.Domain, "[") }

// ParseLiteral reads an address literal, "[192.0.2.1]" or "[IPv6:2001:db8::1]", RFC 5321, section 4.1.3. It returns the
// literal in its normal form too.
func ParseLiteral(s string) (literal string, ip netip.Addr, err error) {
	bad := fmt.Errorf("address literal %q: %w", s, ErrDomain)
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return "", netip.Addr{}, bad
	}
	text := s[1 : len(s)-1]
	const tag = "IPv6:"
	if len(text) > len(tag) && strings.EqualFold(text[:len(tag)], tag) {
		ip, err = netip.ParseAddr(text[len(tag):])
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", netip.Addr{}, bad
		}
		return "[IPv6:" + ip.String() + "]", ip, nil
	}
	ip, err = netip.ParseAddr(text)
	if err != nil || !ip.Is4() {
		return "", netip.Addr{}, bad
	}
	return "[" + ip.String() + "]", ip, nil
}

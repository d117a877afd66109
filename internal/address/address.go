// Package address is the mail address of an envelope or an account: a local part and a domain, parsed strictly
// (RFC 5321, section 4.1.2; RFC 6531 for UTF-8) and compared the same way everywhere. Header addresses with display
// names, groups and comments belong to package message.
package address

// Address is one mailbox address. The zero value is the null reverse-path "<>".
type Address struct {
	Local  string // as written, unquoted; NFC when it holds non-ASCII
	Domain string // lower case, A-labels ("xn--..."); an address literal keeps its brackets
}

// Parse reads "local@domain" without angle brackets. The local part may be a quoted string.
func Parse(s string) (Address, error) { panic("contract") }

// ParseDomain normalises a domain: lower case, A-labels, no trailing dot, DNS length limits.
func ParseDomain(s string) (string, error) { panic("contract") }

// IsNull tells the null reverse-path.
func (a Address) IsNull() bool { return a == Address{} }

// String writes the address as SMTP does: the local part quoted where it must be, the domain in A-labels.
func (a Address) String() string { panic("contract") }

// Unicode writes the address with U-labels, for people.
func (a Address) Unicode() string { panic("contract") }

// ASCII tells whether the address can be sent to a server without SMTPUTF8.
func (a Address) ASCII() bool { panic("contract") }

// Key is the form under which accounts and aliases are looked up: local part case-folded, domain normalised.
func (a Address) Key() string { panic("contract") }

// SplitDetail cuts a sub-address: "user+tag" gives "user" and "tag".
func (a Address) SplitDetail(sep string) (base Address, detail string, found bool) { panic("contract") }

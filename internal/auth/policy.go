package auth

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"waxwing/internal/address"
)

// MinPassword is the least number of characters of a new password (OWASP ASVS 5.0, V6.2.1). There is no rule of
// composition and no upper limit below maxField octets.
const MinPassword = 8

// PolicyError says what a new password must be.
type PolicyError struct{ Want string }

func (e *PolicyError) Error() string { return "auth: " + e.Want }

// CheckPassword tells whether a new password may be set for an account.
func CheckPassword(owner address.Address, password []byte) error {
	switch {
	case len(password) > maxField:
		return &PolicyError{Want: fmt.Sprintf("a password has at most %d octets", maxField)}
	case !utf8.Valid(password) || bytes.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return &PolicyError{Want: "a password is UTF-8 without control characters"}
	case utf8.RuneCount(password) < MinPassword:
		return &PolicyError{Want: fmt.Sprintf("a password has at least %d characters", MinPassword)}
	}
	for _, known := range []string{owner.Local, owner.Domain, owner.String()} {
		if known != "" && strings.EqualFold(known, string(password)) {
			return &PolicyError{Want: "a password isn't the address it is for"}
		}
	}
	first, _ := utf8.DecodeRune(password)
	if bytes.Count(password, []byte(string(first))) == utf8.RuneCount(password) {
		return &PolicyError{Want: "a password isn't one character over and over"}
	}
	return nil
}

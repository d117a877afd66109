package store

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds of mailbox names, in octets and levels.
const (
	maxName       = 1000
	maxLevel      = 255
	maxLevels     = 20
	inbox         = "INBOX"
	nameSeparator = "/"
)

// CleanName gives a mailbox name the one form in which it is stored: UTF-8 in NFC (RFC 5198), with INBOX in capitals
// whatever case it came in (RFC 3501, section 5.1). Names that can't be stored are ErrName.
func CleanName(name string) (string, error) {
	if len(name) > maxName || !utf8.ValidString(name) {
		return "", fmt.Errorf("mailbox name %.60q: %w", name, ErrName)
	}
	name = norm.NFC.String(name)
	levels := strings.Split(name, nameSeparator)
	if len(name) > maxName || len(levels) > maxLevels {
		return "", fmt.Errorf("mailbox name %.60q is too long: %w", name, ErrName)
	}
	for _, l := range levels {
		if l == "" || len(l) > maxLevel || strings.ContainsFunc(l, notInName) {
			return "", fmt.Errorf("mailbox name %.60q: level %.60q: %w", name, l, ErrName)
		}
	}
	if strings.EqualFold(levels[0], inbox) {
		name = inbox + name[len(inbox):]
	}
	return name, nil
}

// notInName tells characters that no name may hold: controls, and line and paragraph separators (RFC 5198, section 2).
func notInName(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

// parentOf returns the name above, "" at the top.
func parentOf(name string) string {
	i := strings.LastIndex(name, nameSeparator)
	if i < 0 {
		return ""
	}
	return name[:i]
}

// below reports whether name stands below parent at any depth.
func below(name, parent string) bool {
	return len(name) > len(parent) && name[:len(parent)] == parent && name[len(parent):][:1] == nameSeparator
}

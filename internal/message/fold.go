package message

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrInjection is the error of a value with CR, LF or NUL, which could end its field and begin another.
var ErrInjection = errors.New("message: CR, LF or NUL in a header value")

// Lines of header fields are folded at foldAt where there is white space, and never reach maxLine (RFC 5322, section
// 2.1.1).
const (
	foldAt  = 78
	maxLine = 998
)

func checkValue(name, v string) error {
	if strings.ContainsAny(v, "\r\n\x00") {
		return fmt.Errorf("field %s: %w", name, ErrInjection)
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > 76 {
		return fmt.Errorf("field name %q: empty or too long", name)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return fmt.Errorf("field name %q: character not allowed", name)
		}
	}
	return nil
}

// AppendField appends a whole field with its line end: the name, a colon, and the value folded at white space to lines
// of 78 octets. The value goes out as it is, UTF-8 too; AppendTextField encodes.
func AppendField(dst []byte, name, value string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return dst, err
	}
	if err := checkValue(name, value); err != nil {
		return dst, err
	}
	at := len(dst)
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = appendFolded(dst, value, len(dst)-at)
	for line := range bytes.Lines(dst[at:]) {
		if len(line) > maxLine {
			return dst[:at], fmt.Errorf("field %s: a word of more than %d octets", name, maxLine)
		}
	}
	return append(dst, "\r\n"...), nil
}

// AppendTextField appends an unstructured field such as Subject. Text that is not ASCII, or could be taken for an
// encoded word, is written as encoded words (RFC 2047).
func AppendTextField(dst []byte, name, text string) ([]byte, error) {
	if err := checkValue(name, text); err != nil {
		return dst, err
	}
	return AppendField(dst, name, encodeText(text, len(name)+2))
}

// encodeText gives text for an unstructured field whose name takes col columns.
func encodeText(text string, col int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if isPlainASCII([]byte(text)) && !strings.Contains(text, "=?") && longestWord(text) <= maxLine-foldAt {
		return text
	}
	return string(appendEncodedWords(nil, text, " ", foldAt-2-col))
}

func longestWord(s string) int {
	longest, run := 0, 0
	for i := range len(s) {
		if isWSP(s[i]) {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}

// appendFolded writes the value from column col on and breaks lines before white space. A line never consists of
// white space alone (RFC 5322, section 3.2.2).
func appendFolded(dst []byte, value string, col int) []byte {
	value = strings.Trim(value, " \t")
	first := true
	for value != "" {
		// One piece is white space and the word after it.
		n := 0
		for n < len(value) && isWSP(value[n]) {
			n++
		}
		for n < len(value) && !isWSP(value[n]) {
			n++
		}
		if !first && col+n > foldAt && isWSP(value[0]) {
			dst = append(dst, "\r\n"...)
			col = 0
		}
		dst = append(dst, value[:n]...)
		col += n
		value = value[n:]
		first = false
	}
	return dst
}

// formatAddress writes one mailbox as RFC 5322, section 3.4 has it, the name as encoded words when it is not ASCII. The
// result holds white space where it may be folded.
func formatAddress(a Address, col int) (string, error) {
	if err := checkValue("address", a.Name+a.Local+a.Domain); err != nil {
		return "", err
	}
	if a.Local == "" || strings.ContainsAny(a.Domain, " \t<>,;\"()") || !utf8.ValidString(a.Local+a.Domain) {
		return "", fmt.Errorf("address %q: not a mailbox", a.Addr())
	}
	if a.Name == "" {
		return a.Addr(), nil
	}
	return formatPhrase(a.Name, col) + " <" + a.Addr() + ">", nil
}

// formatPhrase writes a display name.
func formatPhrase(s string, col int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	switch {
	case !isPlainASCII([]byte(s)) || strings.Contains(s, "=?") || longestWord(s) > maxLine-foldAt:
		return string(appendEncodedWords(nil, s, " ", foldAt-2-col))
	case isPhrase(s):
		return s
	}
	return quoteString(s)
}

// isPhrase tells words of atoms with single spaces, which need no quotes.
func isPhrase(s string) bool {
	for w := range strings.SplitSeq(s, " ") {
		if w == "" {
			return false
		}
		for i := range len(w) {
			if !isAtext(w[i]) {
				return false
			}
		}
	}
	return true
}

// FormatAddresses writes a list of mailboxes for a From, To or like field, not yet folded.
func FormatAddresses(list ...Address) (string, error) {
	var b strings.Builder
	for i, a := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		s, err := formatAddress(a, min(10, foldAt))
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

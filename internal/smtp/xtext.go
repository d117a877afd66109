package smtp

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// DecodeXtext undoes xtext, RFC 3461, section 4: "+2B" for "+". A "=" that should have been encoded is let through.
func DecodeXtext(s string) (string, bool) {
	if len(s) > maxXtext {
		return "", false
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		case c < '!' || c > '~':
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

// EncodeXtext writes s as xtext.
func EncodeXtext(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			b.WriteByte('+')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// decodeUTF8Addr reads utf-8-addr-xtext, utf-8-addr-unitext or plain UTF-8: "\x{4E2D}" stands for one character, and
// "+2B" for an octet of ASCII.
func decodeUTF8Addr(s string) (string, bool) {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], `\x{`):
			hex, _, ok := strings.Cut(s[i+3:], "}")
			if !ok || len(hex) < 2 || len(hex) > 6 {
				return "", false
			}
			n, err := strconv.ParseUint(hex, 16, 32)
			if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
				return "", false
			}
			b.WriteRune(rune(n))
			i += len(hex) + 4
		case s[i] == '+' && i+2 < len(s):
			c, ok := DecodeXtext(s[i : i+3])
			if !ok || c[0] >= utf8.RuneSelf {
				return "", false
			}
			b.WriteString(c)
			i += 3
		case s[i] == '+' || s[i] == '\\':
			return "", false
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String(), utf8.ValidString(b.String())
}

package imapserver

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// utf7 is the base64 of modified UTF-7: "," for "/", no padding, no loose bits (RFC 3501, section 5.1.3).
var utf7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
	WithPadding(base64.NoPadding).Strict()

// appendUTF7 writes a UTF-8 name in modified UTF-7.
func appendUTF7(b []byte, name string) []byte {
	for i := 0; i < len(name); {
		c := name[i]
		if c >= ' ' && c < 0x7f {
			b = append(b, c)
			if c == '&' {
				b = append(b, '-')
			}
			i++
			continue
		}
		start := i
		for i < len(name) && (name[i] < ' ' || name[i] >= 0x7f) {
			i++
		}
		var units []byte
		for _, u := range utf16.Encode([]rune(name[start:i])) {
			units = append(units, byte(u>>8), byte(u))
		}
		b = append(b, '&')
		b = utf7.AppendEncode(b, units)
		b = append(b, '-')
	}
	return b
}

// decodeUTF7 reads a name in modified UTF-7. A name that is not canonical modified UTF-7 (raw UTF-8, or a raw "&" as
// some clients send it) stands for itself: ok is false then, and the name is returned as it is. Only the canonical form
// is decoded, so two different names never mean the same mailbox by their encoding alone.
func decodeUTF7(s string) (name string, ok bool) {
	amp := strings.IndexByte(s, '&')
	if amp < 0 {
		return s, !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
	}
	var out strings.Builder
	for rest := s; rest != ""; {
		amp = strings.IndexByte(rest, '&')
		if amp < 0 {
			out.WriteString(rest)
			break
		}
		out.WriteString(rest[:amp])
		rest = rest[amp+1:]
		end := strings.IndexByte(rest, '-')
		if end < 0 {
			return s, false
		}
		if end == 0 {
			out.WriteByte('&')
		} else if !decodeShift(&out, rest[:end]) {
			return s, false
		}
		rest = rest[end+1:]
	}
	name = out.String()
	if string(appendUTF7(nil, name)) != s {
		return s, false
	}
	return name, true
}

// decodeShift decodes one run of modified base64.
func decodeShift(out *strings.Builder, run string) bool {
	b, err := utf7.DecodeString(run)
	if err != nil || len(b)%2 != 0 {
		return false
	}
	for i := 0; i < len(b); i += 2 {
		r := rune(b[i])<<8 | rune(b[i+1])
		if utf16.IsSurrogate(r) {
			if i+3 >= len(b) {
				return false
			}
			r = utf16.DecodeRune(r, rune(b[i+2])<<8|rune(b[i+3]))
			i += 2
			if r == utf8.RuneError {
				return false
			}
		}
		out.WriteRune(r)
	}
	return true
}

package mailfile

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encodeFolder writes a mailbox name as the name of a Maildir++ folder: ".A.B", levels in modified UTF-7 (RFC 3501,
// section 5.1.3), which Dovecot takes by default. A dot or a slash inside a level can't be told from a separator
// there: it is written as Dovecot's listescape plugin does, "\2e" and "\2f", a backslash as "\5c".
func encodeFolder(name string) string {
	var b strings.Builder
	for _, level := range strings.Split(name, "/") {
		b.WriteByte('.')
		for _, r := range encodeUTF7(level) {
			switch r {
			case '.':
				b.WriteString(`\2e`)
			case '\\':
				b.WriteString(`\5c`)
			case '/': // from the base64 of modified UTF-7 it never comes: that has a comma there
				b.WriteString(`\2f`)
			default:
				b.WriteRune(r)
			}
		}
	}
	return b.String()
}

// decodeFolder reads the name of a Maildir++ folder; ok is false for a name that can't be one.
func decodeFolder(dir string) (name string, ok bool) {
	rest, dotted := strings.CutPrefix(dir, ".")
	if !dotted || rest == "" || rest == "." {
		return "", false
	}
	levels := strings.Split(rest, ".")
	for i, l := range levels {
		l = strings.NewReplacer(`\2e`, ".", `\2E`, ".", `\5c`, `\`, `\5C`, `\`, `\2f`, "_", `\2F`, "_").Replace(l)
		// A slash would be a level more, so it becomes "_". A name in plain UTF-8 is taken as it is.
		if utf8.ValidString(l) && !isASCII(l) {
			levels[i] = l
			continue
		}
		if levels[i], ok = decodeUTF7(l); !ok || levels[i] == "" {
			return "", false
		}
	}
	return strings.Join(levels, "/"), true
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

var utf7Base64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

func encodeUTF7(s string) string {
	var b strings.Builder
	var run []uint16
	flush := func() {
		if len(run) == 0 {
			return
		}
		raw := make([]byte, 0, 2*len(run))
		for _, u := range run {
			raw = binary.BigEndian.AppendUint16(raw, u)
		}
		b.WriteString("&" + utf7Base64.EncodeToString(raw) + "-")
		run = run[:0]
	}
	for _, r := range s {
		if r < 0x20 || r > 0x7e {
			run = utf16.AppendRune(run, r)
			continue
		}
		flush()
		if r == '&' {
			b.WriteString("&-")
		} else {
			b.WriteRune(r)
		}
	}
	flush()
	return b.String()
}

func decodeUTF7(s string) (string, bool) {
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(s, "&")
		b.WriteString(plain)
		if !found {
			return b.String(), true
		}
		code, after, closed := strings.Cut(rest, "-")
		if !closed {
			return "", false
		}
		s = after
		if code == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := utf7Base64.DecodeString(code)
		if err != nil || len(raw)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(raw[2*i:])
		}
		b.WriteString(string(utf16.Decode(units)))
	}
}

package transport

import (
	"fmt"
	"strings"

	"waxwing/internal/smtp"
)

// appendXtext writes s as xtext, RFC 3461, section 4.
func appendXtext(dst []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c < '!' || c > '~' || c == '+' || c == '=' {
			dst = append(dst, '+', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// notifyText writes the NOTIFY parameter, "" for the default.
func notifyText(n smtp.Notify) string {
	if n&smtp.NotifyNever != 0 {
		return "NEVER"
	}
	var words []string
	for _, w := range []struct {
		bit  smtp.Notify
		name string
	}{{smtp.NotifySuccess, "SUCCESS"}, {smtp.NotifyFailure, "FAILURE"}, {smtp.NotifyDelay, "DELAY"}} {
		if n&w.bit != 0 {
			words = append(words, w.name)
		}
	}
	return strings.Join(words, ",")
}

// originalRecipient writes the ORCPT parameter from its decoded form, "" when it can't go to this server. An address of
// type utf-8 goes as it is where SMTPUTF8 is in use, and with escapes elsewhere (RFC 6533, section 3).
func originalRecipient(o string, utf8 bool) string {
	kind, addr, ok := strings.Cut(o, ";")
	if !ok || kind == "" || addr == "" {
		return ""
	}
	var b strings.Builder
	b.WriteString(kind + ";")
	if !strings.EqualFold(kind, "utf-8") {
		if !ascii(addr) {
			return ""
		}
		b.Write(appendXtext(nil, addr))
	} else {
		for _, r := range addr {
			switch {
			case r == '\\', r == '+', r == '=', r <= ' ', r == 0x7f:
				fmt.Fprintf(&b, `\x{%X}`, r)
			case r < 0x7f, utf8:
				b.WriteRune(r)
			default:
				fmt.Fprintf(&b, `\x{%X}`, r)
			}
		}
	}
	if b.Len() > 500 { // RFC 3461, section 4.2
		return ""
	}
	return b.String()
}

package transport

import (
	"fmt"
	"strings"

	"waxwing/internal/smtp"
)

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
		b.WriteString(smtp.EncodeXtext(addr))
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

package message

import (
	"strconv"

	"golang.org/x/net/idna"
)

// maxEnvelopeAddresses bounds each list of an ENVELOPE.
const maxEnvelopeAddresses = 10_000

// maxQuoted is the longest string that is sent quoted; longer ones are literals, which clients read without limits on
// the length of a line.
const maxQuoted = 1024

// AppendEnvelope appends the ENVELOPE of a message with that header as IMAP sends it (RFC 3501, section 7.4.2; RFC 9051,
// section 7.5.2). The result is ASCII: encoded words stay as they are, and raw 8-bit text becomes encoded words. A field
// that is missing is NIL and one that is empty is "". Sender and Reply-To default to From.
func AppendEnvelope(dst []byte, h Header) []byte {
	var f envelopeFields
	f.collect(h)
	dst = append(dst, '(')
	dst = appendNString(dst, f.date, f.date != nil)
	dst = append(dst, ' ')
	dst = appendNString(dst, f.subject, f.subject != nil)
	dst = append(dst, ' ')
	at := len(dst)
	dst = appendAddresses(dst, f.from)
	from := [2]int{at, len(dst)}
	for _, v := range [2][]byte{f.sender, f.replyTo} {
		dst = append(dst, ' ')
		at = len(dst)
		dst = appendAddresses(dst, [][]byte{v})
		if string(dst[at:]) == "NIL" {
			dst = append(dst[:at], dst[from[0]:from[1]]...)
		}
	}
	for _, list := range [3][][]byte{f.to, f.cc, f.bcc} {
		dst = append(dst, ' ')
		dst = appendAddresses(dst, list)
	}
	dst = append(dst, ' ')
	dst = appendNString(dst, f.inReplyTo, f.inReplyTo != nil)
	dst = append(dst, ' ')
	dst = appendNString(dst, f.messageID, f.messageID != nil)
	return append(dst, ')')
}

// envelopeFields are the unfolded values that ENVELOPE shows. Of fields that may stand once the first counts; lists of
// recipients are joined.
type envelopeFields struct {
	date, subject, sender, replyTo, inReplyTo, messageID []byte
	from, to, cc, bcc                                    [][]byte
	one                                                  [1][]byte
}

func (e *envelopeFields) collect(h Header) {
	set := func(dst *[]byte, f *Field) {
		if *dst == nil {
			if *dst = f.Unfolded(); *dst == nil {
				*dst = []byte{}
			}
		}
	}
	for i := range h {
		f := &h[i]
		switch len(f.Name) {
		case 2:
			if equalFold(f.Name, "To") {
				e.to = append(e.to, f.Unfolded())
			} else if equalFold(f.Name, "Cc") {
				e.cc = append(e.cc, f.Unfolded())
			}
		case 3:
			if equalFold(f.Name, "Bcc") {
				e.bcc = append(e.bcc, f.Unfolded())
			}
		case 4:
			if equalFold(f.Name, "From") && e.from == nil {
				e.one[0] = f.Unfolded()
				e.from = e.one[:]
			} else if equalFold(f.Name, "Date") {
				set(&e.date, f)
			}
		case 6:
			if equalFold(f.Name, "Sender") {
				set(&e.sender, f)
			}
		case 7:
			if equalFold(f.Name, "Subject") {
				set(&e.subject, f)
			}
		case 8:
			if equalFold(f.Name, "Reply-To") {
				set(&e.replyTo, f)
			}
		case 10:
			if equalFold(f.Name, "Message-ID") {
				set(&e.messageID, f)
			}
		case 11:
			if equalFold(f.Name, "In-Reply-To") {
				set(&e.inReplyTo, f)
			}
		}
	}
}

// appendAddresses appends a parenthesized list of address structures, NIL for none. A group is an address with a nil
// host whose mailbox is its name; one with a nil mailbox too ends it.
func appendAddresses(dst []byte, lists [][]byte) []byte {
	at := len(dst)
	dst = append(dst, '(')
	n := 0
	group := false
	for _, list := range lists {
		scanAddresses(list, func(a *rawAddress) bool {
			n++
			switch a.kind {
			case kindGroup:
				group = true
				dst = append(dst, "(NIL NIL "...)
				dst = appendIMAPString(dst, a.name)
				dst = append(dst, " NIL)"...)
			case kindGroupEnd:
				group = false
				dst = append(dst, "(NIL NIL NIL NIL)"...)
			default:
				dst = append(dst, '(')
				dst = appendNString(dst, a.name, a.hasName && len(a.name) > 0)
				dst = append(dst, ' ')
				dst = appendNString(dst, a.route, len(a.route) > 0)
				dst = append(dst, ' ')
				dst = appendIMAPString(dst, a.local)
				dst = append(dst, ' ')
				dst = appendDomain(dst, a.domain)
				dst = append(dst, ')')
			}
			return n < maxEnvelopeAddresses
		})
		if group {
			group = false
			dst = append(dst, "(NIL NIL NIL NIL)"...)
		}
		if n >= maxEnvelopeAddresses {
			break
		}
	}
	if n == 0 {
		return append(dst[:at], "NIL"...)
	}
	return append(dst, ')')
}

// appendDomain appends a domain, in A-labels when it has others (RFC 5890). A local part that is not ASCII has no such
// form and goes out as an encoded word, which no client can mistake for an address that exists.
func appendDomain(dst, v []byte) []byte {
	if !isASCII(v) && len(v) <= maxDomain {
		if a, err := idna.Lookup.ToASCII(guessHeader(v, "")); err == nil {
			v = []byte(a)
		}
	}
	return appendIMAPString(dst, v)
}

// maxDomain is the longest domain in octets of UTF-8 that is converted.
const maxDomain = 1000

func appendNString(dst, v []byte, there bool) []byte {
	if !there {
		return append(dst, "NIL"...)
	}
	return appendIMAPString(dst, v)
}

// appendIMAPText is appendIMAPString of a string, which mostly is short and plain.
func appendIMAPText(dst []byte, s string) []byte {
	if len(s) > maxQuoted {
		return appendIMAPString(dst, []byte(s))
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f || s[i] == '"' || s[i] == '\\' {
			return appendIMAPString(dst, []byte(s))
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// appendIMAPString appends raw header text as a string of printable ASCII: quoted, or a literal when it is long.
func appendIMAPString(dst, v []byte) []byte {
	if !isPlainASCII(v) {
		v = printable(v)
	}
	if len(v) > maxQuoted {
		dst = append(dst, '{')
		dst = strconv.AppendInt(dst, int64(len(v)), 10)
		dst = append(dst, "}\r\n"...)
		return append(dst, v...)
	}
	dst = append(dst, '"')
	for _, c := range v {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// printable makes raw text printable ASCII: control characters become spaces, NUL goes, and when there are 8-bit octets
// they become encoded words together with the text around them.
func printable(v []byte) []byte {
	if isASCII(v) {
		return []byte(cleanText(string(v)))
	}
	return appendEncodedWords(nil, DecodeHeader(v), " ", wordLimit)
}

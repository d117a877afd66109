// Package smtp is the vocabulary of SMTP: replies with enhanced status codes, paths, and the parameters of MAIL and
// RCPT (RFC 5321, 3463, 3461, 1870, 6152, 6531, 3030, 2852, 4865, 6710, 7293). Pure functions over bytes: the server's
// sessions, the intake, the queue and the client speak in these types. It opens no connection.
package smtp

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"waxwing/internal/address"
)

// Enhanced is an enhanced status code, RFC 3463: class.subject.detail.
type Enhanced struct{ Class, Subject, Detail int }

// ParseEnhanced reads "5.1.1"; subject and detail have up to three digits.
func ParseEnhanced(s string) (Enhanced, bool) {
	class, rest, ok := strings.Cut(s, ".")
	subject, detail, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || class != "2" && class != "4" && class != "5" {
		return Enhanced{}, false
	}
	e := Enhanced{Class: int(class[0] - '0')}
	for _, part := range []struct {
		text string
		to   *int
	}{{subject, &e.Subject}, {detail, &e.Detail}} {
		n, err := strconv.ParseUint(part.text, 10, 16)
		if err != nil || n > 999 || part.text[0] == '+' {
			return Enhanced{}, false
		}
		*part.to = int(n)
	}
	return e, true
}

// IsZero tells the absence of an enhanced code.
func (e Enhanced) IsZero() bool { return e == Enhanced{} }

func (e Enhanced) String() string { return string(e.append(nil)) }

func (e Enhanced) append(b []byte) []byte {
	b = strconv.AppendInt(b, int64(e.Class), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(e.Subject), 10)
	b = append(b, '.')
	return strconv.AppendInt(b, int64(e.Detail), 10)
}

// Reply is one SMTP reply; it is an error too, so that a stage can return it. Text holds a line a "\n".
type Reply struct {
	Code     int
	Enhanced Enhanced // zero where none belongs: 220, 221 greetings, 354, EHLO
	Text     string
}

func (r *Reply) Error() string {
	b := strconv.AppendInt(nil, int64(r.Code), 10)
	b = append(b, ' ')
	if !r.Enhanced.IsZero() {
		b = append(r.Enhanced.append(b), ' ')
	}
	return string(b) + r.Text
}

// Temporary tells a 4xx reply, Permanent a 5xx one.
func (r *Reply) Temporary() bool { return r.Code/100 == 4 }

// Permanent tells a 5xx reply.
func (r *Reply) Permanent() bool { return r.Code/100 == 5 }

// Errorf builds a refusal, e.g. Errorf(550, "5.1.1", "no such mailbox %s", a). An enhanced code that isn't one becomes
// that of the reply's class, undefined ("5.0.0").
func Errorf(code int, enhanced, format string, args ...any) *Reply {
	e, ok := ParseEnhanced(enhanced)
	if !ok && enhanced != "" {
		e = Enhanced{Class: code / 100}
	}
	text := format
	if len(args) > 0 {
		text = fmt.Sprintf(format, args...)
	}
	return &Reply{Code: code, Enhanced: e, Text: text}
}

// maxReplyText is the text of one reply line: 512 octets with code, enhanced code and CRLF (RFC 5321, section 4.5.3.1.5).
const maxReplyText = 480

// Append writes the reply as it goes over the wire, ending in CRLF. A line that is too long becomes several. Control
// characters become "?", and so do octets outside of ASCII unless the peer takes UTF-8 (RFC 6531, section 3.7.4.2):
// the text may quote what a hostile peer said.
func (r *Reply) Append(b []byte, utf8OK bool) []byte {
	for text := r.Text; ; {
		line, rest, more := strings.Cut(text, "\n")
		if len(line) > maxReplyText {
			at := breakAt(line)
			rest, more = strings.TrimPrefix(text[at:], " "), true
			line = line[:at]
		}
		b = strconv.AppendInt(b, int64(r.Code), 10)
		if more {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if !r.Enhanced.IsZero() {
			b = append(r.Enhanced.append(b), ' ')
		}
		b = appendClean(b, line, utf8OK)
		b = append(b, '\r', '\n')
		if !more {
			return b
		}
		text = rest
	}
}

// breakAt finds where to break a long line: at a space, or else between characters.
func breakAt(line string) int {
	if at := strings.LastIndexByte(line[:maxReplyText], ' '); at > maxReplyText/2 {
		return at
	}
	at := maxReplyText
	for at > maxReplyText-utf8.UTFMax && !utf8.RuneStart(line[at]) {
		at--
	}
	return at
}

func appendClean(b []byte, s string, utf8OK bool) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				c = '?'
			}
			b = append(b, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if utf8OK && r != utf8.RuneError && r >= 0xa0 {
			b = append(b, s[i:i+n]...)
		} else {
			b = append(b, '?')
		}
		i += n
	}
	return b
}

// BodyType is the BODY parameter of MAIL, RFC 6152 and 3030.
type BodyType string

// The values of BODY; 7BIT is the default and not kept.
const (
	Body7Bit   BodyType = ""
	Body8Bit   BodyType = "8BITMIME"
	BodyBinary BodyType = "BINARYMIME"
)

// Mail is what a MAIL command said.
type Mail struct {
	From     address.Address
	Size     int64 // SIZE, 0 when not given; RFC 1870
	Body     BodyType
	UTF8     bool   // SMTPUTF8
	Ret      string // DSN: "", FULL or HDRS; RFC 3461, section 4.3
	EnvID    string // DSN: decoded xtext, at most 100 octets
	TLS      TLSNeed
	AuthSent string // AUTH=, kept and never believed; RFC 4954, section 5

	By          DeliverBy     // RFC 2852
	HoldFor     time.Duration // FUTURERELEASE; RFC 4865: one of the two
	HoldUntil   time.Time
	Priority    int // MT-PRIORITY; RFC 6710
	HasPriority bool
}

// TLSNeed is what the sender of a message asks of the connections that it goes over (RFC 8689).
type TLSNeed uint8

// The needs.
const (
	TLSDefault  TLSNeed = iota // what holds for the recipient's domain
	TLSRequired                // REQUIRETLS: authenticated TLS on the whole way
	TLSOptional                // "TLS-Required: No": what the recipient's domain asks for is passed over
)

// Rcpt is what a RCPT command said.
type Rcpt struct {
	To     address.Address
	Notify Notify // DSN; RFC 3461, section 4.1
	ORcpt  string // DSN: "rfc822;addr" decoded, "" when not given

	ValidSince ValidSince // RRVS
}

// Notify is the set of conditions under which a sender wants a DSN.
type Notify uint8

// The values of NOTIFY, RFC 3461, section 4.1.
const (
	NotifyDefault Notify = 0
	NotifyNever   Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

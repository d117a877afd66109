package imapserver

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/store"
)

// status is the first word of a status response (RFC 3501, section 7.1).
type status string

const (
	statusOK  status = "OK"
	statusNo  status = "NO"
	statusBad status = "BAD"
	statusBye status = "BYE"
)

// reply is the tagged end of a command. The zero reply is a plain OK.
type reply struct {
	status status
	code   string // response code without brackets
	text   string
}

// ok answers OK with a response code.
func ok(code, text string) reply { return reply{status: statusOK, code: code, text: text} }

// refusal is an error that is answered as it says.
type refusal struct {
	status status
	code   string
	text   string
}

func (r *refusal) Error() string {
	s := string(r.status)
	if r.code != "" {
		s += " [" + r.code + "]"
	}
	return s + " " + r.text
}

// no refuses a command that is well written; code is a response code of RFC 5530 or "".
func no(code, text string) error { return &refusal{statusNo, code, text} }

// bad refuses a command that cannot be meant.
func bad(text string) error { return &refusal{statusBad, "", text} }

// errEnd ends the session after what has been written.
var errEnd = errors.New("imapserver: session ends")

// storeCodes says how failures of the store are answered. What is not in the table is UNAVAILABLE: try again later.
var storeCodes = []struct {
	err  error
	code string
	text string
}{
	{store.ErrNotFound, "NONEXISTENT", "No such mailbox"},
	{store.ErrExists, "ALREADYEXISTS", "Mailbox already exists"},
	{store.ErrOverQuota, "OVERQUOTA", "Over quota"},
	{store.ErrName, "CANNOT", "Mailbox name not allowed"},
	{store.ErrLimit, "LIMIT", "A limit of the account is reached"},
	{store.ErrFull, "UNAVAILABLE", "No space left, try again later"},
	{store.ErrReadOnly, "UNAVAILABLE", "Writing is not possible now, try again later"},
	{store.ErrCorrupt, "CORRUPTION", "The stored message is damaged"},
	{store.ErrClosed, "UNAVAILABLE", "Server is shutting down"},
}

// replyTo turns the error of a command into its answer; internal tells that the log must hear of it.
func replyTo(err error) (r reply, internal bool) {
	var ref *refusal
	if errors.As(err, &ref) {
		return reply(*ref), false
	}
	var syn *syntaxError
	if errors.As(err, &syn) {
		return reply{statusBad, "", upperFirst(syn.Error())}, false
	}
	if errors.Is(err, errLiteralSize) {
		return reply{statusNo, "LIMIT", "Literal too large"}, false
	}
	for _, c := range storeCodes {
		if errors.Is(err, c.err) {
			serious := c.code == "UNAVAILABLE" || c.code == "CORRUPTION"
			return reply{statusNo, c.code, c.text}, serious
		}
	}
	return reply{statusNo, "UNAVAILABLE", "Internal error, try again later"}, true
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// appendStatus writes a status response line: tag is "*" for an untagged one.
func appendStatus(b []byte, tag string, r reply) []byte {
	b = append(b, tag...)
	b = append(b, ' ')
	b = append(b, r.status...)
	b = append(b, ' ')
	if r.code != "" {
		b = append(b, '[')
		b = append(b, r.code...)
		b = append(b, "] "...)
	}
	b = append(b, r.text...)
	return append(b, '\r', '\n')
}

func appendUint[T ~uint32 | ~uint64 | ~int | ~int64](b []byte, n T) []byte {
	return strconv.AppendUint(b, uint64(n), 10)
}

// appendString writes a string: quoted when it is short printable ASCII, else a literal.
func appendString(b []byte, s string) []byte {
	if len(s) > 1024 {
		return appendLiteral(b, s)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return appendLiteral(b, s)
		}
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

func appendLiteral(b []byte, s string) []byte {
	b = append(b, '{')
	b = appendUint(b, len(s))
	b = append(b, "}\r\n"...)
	return append(b, s...)
}

// appendAstring writes an astring: an atom where it may be one.
func appendAstring(b []byte, s string) []byte {
	if s == "" || len(s) > 128 {
		return appendString(b, s)
	}
	for i := range len(s) {
		if classes[s[i]]&classAstr == 0 {
			return appendString(b, s)
		}
	}
	if strings.EqualFold(s, "NIL") {
		return appendString(b, s)
	}
	return append(b, s...)
}

// appendMailbox writes a mailbox name in modified UTF-7, always quoted: some clients take no atom there.
func appendMailbox(b []byte, name string) []byte {
	return appendString(b, string(appendUTF7(nil, name)))
}

// flagNames are the system flags by bit.
var flagNames = [...]struct {
	flag store.Flags
	name string
}{
	{store.Answered, `\Answered`},
	{store.Flagged, `\Flagged`},
	{store.Deleted, `\Deleted`},
	{store.Seen, `\Seen`},
	{store.Draft, `\Draft`},
}

// appendFlags writes a parenthesised flag list.
func appendFlags(b []byte, f store.Flags, keywords []string, recent bool) []byte {
	b = append(b, '(')
	start := len(b)
	for i := range flagNames {
		if f&flagNames[i].flag != 0 {
			if len(b) > start {
				b = append(b, ' ')
			}
			b = append(b, flagNames[i].name...)
		}
	}
	if recent {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, `\Recent`...)
	}
	for _, k := range keywords {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, k...)
	}
	return append(b, ')')
}

const months = "JanFebMarAprMayJunJulAugSepOctNovDec"

// appendDateTime writes a date-time such as "17-Jul-1996 02:44:25 -0700", quoted; without time.Format's cost.
func appendDateTime(b []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	_, offset := t.Zone()
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	offset /= 60
	year = min(max(year, 0), 9999)
	b = append(b, '"')
	if day < 10 {
		b = append(b, ' ')
	} else {
		b = append(b, byte('0'+day/10))
	}
	b = append(b, byte('0'+day%10), '-')
	b = append(b, months[3*(month-1):3*month]...)
	b = append(b, '-')
	b = appendTwo(b, year/100)
	b = appendTwo(b, year%100)
	b = append(b, ' ')
	b = appendTwo(b, hour)
	b = append(b, ':')
	b = appendTwo(b, minute)
	b = append(b, ':')
	b = appendTwo(b, second)
	b = append(b, ' ', sign)
	b = appendTwo(b, offset/60)
	b = appendTwo(b, offset%60)
	return append(b, '"')
}

func appendTwo(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }

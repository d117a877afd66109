package smtp

import (
	"strconv"
	"strings"
	"time"
)

// ByMode says what becomes of a message that is not delivered in time, RFC 2852, section 4.
type ByMode byte

// The modes; the zero value says that BY was not given.
const (
	ByNotify ByMode = 'N' // its sender is told, and it goes on
	ByReturn ByMode = 'R' // it is returned
)

// DeliverBy is the parameter BY of MAIL: within which time a message is to be delivered (RFC 2852).
type DeliverBy struct {
	Seconds int64 // may be negative with ByNotify: it is late already
	Mode    ByMode
	Trace   bool // each hop tells the sender that it passed the message on
}

// MinDeliverBy is the shortest time that a message may ask for with ByReturn, advertised in EHLO.
const MinDeliverBy = time.Minute

// maxBySeconds is the largest by-time, nine digits.
const maxBySeconds = 999_999_999

// String is the value of BY as it is sent.
func (d DeliverBy) String() string {
	s := strconv.FormatInt(max(-maxBySeconds, min(maxBySeconds, d.Seconds)), 10) + ";" + d.Letters()
	return s
}

// Letters are mode and trace as BY writes them: "N", "NT", "R", "RT"; "" without BY.
func (d DeliverBy) Letters() string {
	switch {
	case d.Mode == 0:
		return ""
	case d.Trace:
		return string([]byte{byte(d.Mode), 'T'})
	}
	return string([]byte{byte(d.Mode)})
}

// ParseByLetters is the reverse of Letters; what can't be read is no BY.
func ParseByLetters(s string) DeliverBy {
	mode, trace := strings.CutSuffix(strings.ToUpper(s), "T")
	if mode != "N" && mode != "R" {
		return DeliverBy{}
	}
	return DeliverBy{Mode: ByMode(mode[0]), Trace: trace}
}

// parseDeliverBy reads "120;R", RFC 2852, section 4. A message can't be returned before it was there.
func parseDeliverBy(s string) (DeliverBy, bool) {
	number, letters, ok := strings.Cut(s, ";")
	d := ParseByLetters(letters)
	digits := strings.TrimPrefix(strings.TrimPrefix(number, "-"), "+")
	if !ok || d.Mode == 0 || digits == "" || len(digits) > 9 || len(number)-len(digits) > 1 {
		return DeliverBy{}, false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || d.Mode == ByReturn && n <= 0 {
		return DeliverBy{}, false
	}
	d.Seconds = n
	return d, true
}

// parseHoldFor reads the seconds of HOLDFOR, RFC 4865, section 3: up to nine digits.
func parseHoldFor(s string) (time.Duration, bool) {
	if len(s) > 9 {
		return 0, false
	}
	n, ok := parseSize(s)
	return time.Duration(n) * time.Second, ok && n > 0
}

// ParseTime reads a date-time of RFC 3339, as HOLDUNTIL and RRVS have it.
func ParseTime(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(s))
	return t, err == nil && t.Year() >= 1970 && t.Year() < 10_000
}

// FormatTime writes a moment as ParseTime reads it, in UTC.
func FormatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// Priority bounds of MT-PRIORITY, RFC 6710, section 3.
const (
	LowestPriority  = -9
	HighestPriority = 9
)

// ParsePriority reads a value of MT-PRIORITY or of the header field MT-Priority (RFC 6758): -9 to 9, without a plus.
func ParsePriority(s string) (int, bool) {
	digits := strings.TrimPrefix(s, "-")
	if len(digits) != 1 || digits[0] < '0' || digits[0] > '9' || s == "-0" {
		return 0, false
	}
	n := int(digits[0] - '0')
	if len(s) == 2 {
		n = -n
	}
	return n, true
}

// ValidSince is the parameter RRVS of RCPT (RFC 7293): the mailbox must have belonged to its owner since then.
type ValidSince struct {
	Since    time.Time // zero: not given
	Continue bool      // a server that can't check it may have the message all the same; else it is refused
}

// IsZero tells that RRVS was not given.
func (v ValidSince) IsZero() bool { return v.Since.IsZero() }

// String is the value of RRVS as it is sent, "" for none.
func (v ValidSince) String() string {
	switch {
	case v.IsZero():
		return ""
	case v.Continue:
		return FormatTime(v.Since) + ";C"
	}
	return FormatTime(v.Since) + ";R"
}

// ParseValidSince reads "2026-01-02T03:04:05Z;C", RFC 7293, section 3.1. Without a letter a server that can't check
// refuses.
func ParseValidSince(s string) (ValidSince, bool) {
	text, letter, given := strings.Cut(s, ";")
	t, ok := ParseTime(text)
	letter = strings.ToUpper(letter)
	if !ok || given && letter != "C" && letter != "R" {
		return ValidSince{}, false
	}
	return ValidSince{Since: t, Continue: letter == "C"}, true
}

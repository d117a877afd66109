package message

import (
	"bytes"
	"time"
)

// maxDate is how much of a Date field is looked at.
const maxDate = 512

// ParseDate reads the value of a Date field in all the forms that RFC 5322, sections 3.3 and 4.3 have and some more: a
// day name or none, two-digit years, no seconds, zones by name or none (then UTC), comments, "21-Nov-2026", the order
// of asctime, and ISO 8601.
func ParseDate(raw []byte) (time.Time, bool) {
	if len(raw) > maxDate {
		raw = raw[:maxDate]
	}
	d := dateParts{day: -1, month: -1, year: -1, hour: -1}
	d.read(dropComments(raw))
	return d.time()
}

func dropComments(raw []byte) []byte {
	raw = unfold(raw)
	if bytes.IndexByte(raw, '(') < 0 {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] == '(' {
			if n := commentLen(raw[i:]); n > 0 {
				out = append(out, ' ')
				i += n
				continue
			}
			break // a comment that never ends runs to the end
		}
		out = append(out, raw[i])
		i++
	}
	return out
}

// dateParts is filled from tokens in whatever order they come.
type dateParts struct {
	day, month, year, hour, minute, second int
	yearDigits                             int
	zone                                   int // seconds east of UTC
	hasZone, bad                           bool
}

func (d *dateParts) read(s []byte) {
	for len(s) > 0 && !d.bad {
		c := s[0]
		switch {
		case isDigit(c):
			s = d.number(s)
		case isLetter(c):
			n := 1
			for n < len(s) && (isLetter(s[n]) || s[n] == '.') {
				n++
			}
			d.name(s[:n])
			s = s[n:]
		case (c == '+' || c == '-') && d.hour >= 0 && len(s) > 1 && isDigit(s[1]):
			s = d.offset(s)
		default:
			s = s[1:]
		}
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isLetter(c byte) bool { return 'a' <= lower(c) && lower(c) <= 'z' }

// takeInt reads at most limit digits.
func takeInt(s []byte, limit int) (v, n int) {
	for n < len(s) && n < limit && isDigit(s[n]) {
		v = v*10 + int(s[n]-'0')
		n++
	}
	return v, n
}

// number reads what begins with a digit: a time when a colon follows, else day or year.
func (d *dateParts) number(s []byte) []byte {
	v, n := takeInt(s, 9)
	rest := s[n:]
	switch {
	case d.hour < 0 && len(rest) > 1 && (rest[0] == ':' || rest[0] == '.') && isDigit(rest[1]):
		return d.clock(v, rest)
	case d.day < 0 && d.month < 0 && n == 4 && len(rest) > 3 && rest[0] == '-' && isDigit(rest[1]):
		return d.iso(v, rest)
	case d.day < 0 && n <= 2:
		d.day = v
	case d.year < 0:
		d.year, d.yearDigits = v, n
	case d.hour >= 0 && !d.hasZone && n == 4:
		d.setOffset(v, 1) // a zone whose sign got lost
	default:
		d.bad = true
	}
	return rest
}

// clock reads minutes and seconds after the hour.
func (d *dateParts) clock(hour int, s []byte) []byte {
	d.hour = hour
	sep := s[0]
	var n int
	d.minute, n = takeInt(s[1:], 9)
	s = s[1+n:]
	if len(s) > 1 && s[0] == sep && isDigit(s[1]) {
		d.second, n = takeInt(s[1:], 9)
		s = s[1+n:]
		if len(s) > 1 && s[0] == '.' && isDigit(s[1]) {
			_, n = takeInt(s[1:], 12) // a fraction of a second
			s = s[1+n:]
		}
	}
	return s
}

// iso reads -mm-dd after a year, and the T before a time.
func (d *dateParts) iso(year int, s []byte) []byte {
	d.year, d.yearDigits = year, 4
	m, n := takeInt(s[1:], 2)
	d.month = m - 1
	s = s[1+n:]
	if len(s) > 1 && s[0] == '-' && isDigit(s[1]) {
		d.day, n = takeInt(s[1:], 2)
		s = s[1+n:]
		if len(s) > 0 && lower(s[0]) == 't' {
			s = s[1:]
		}
	}
	return s
}

// offset reads +hhmm, +hh:mm, +hmm or +hh.
func (d *dateParts) offset(s []byte) []byte {
	sign := 1
	if s[0] == '-' {
		sign = -1
	}
	v, n := takeInt(s[1:], 9)
	s = s[1+n:]
	if n <= 2 && len(s) > 2 && s[0] == ':' && isDigit(s[1]) {
		m, k := takeInt(s[1:], 2)
		v = v*100 + m
		s = s[1+k:]
	} else if n <= 2 {
		v *= 100
	}
	d.setOffset(v, sign)
	return s
}

func (d *dateParts) setOffset(hhmm, sign int) {
	h, m := hhmm/100, hhmm%100
	if h > 23 || m > 59 {
		h, m = 0, 0 // nonsense: RFC 5322, section 4.3 takes unknown zones as UTC
	}
	d.zone, d.hasZone = sign*(h*3600+m*60), true
}

var monthNames = [...]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}

// zoneNames are the zones of RFC 5322, section 4.3, in hours, and a few that are seen in mail.
var zoneNames = map[string]int{
	"ut": 0, "utc": 0, "gmt": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
	"wet": 0, "west": 1, "bst": 1, "cet": 1, "met": 1, "cest": 2, "mest": 2, "eet": 2, "eest": 3, "msk": 3, "jst": 9, "kst": 9,
	"hkt": 8, "sgt": 8, "akst": -9, "akdt": -8, "hst": -10,
}

// name reads a word: month, zone, or something to pass over as the names of days are.
func (d *dateParts) name(w []byte) {
	var buf [16]byte
	if len(w) > len(buf) {
		return
	}
	s := appendLower(buf[:0], w)
	if len(s) >= 3 && d.month < 0 {
		for i, m := range monthNames {
			if string(s[:3]) == m {
				d.month = i
				return
			}
		}
	}
	switch string(s) {
	case "am", "a.m.":
		if d.hour == 12 {
			d.hour = 0
		}
		return
	case "pm", "p.m.":
		if d.hour >= 1 && d.hour < 12 {
			d.hour += 12
		}
		return
	}
	if d.hour >= 0 && !d.hasZone {
		if h, ok := zoneNames[string(s)]; ok {
			d.zone = h * 3600
			// "GMT+0800": the offset that follows counts.
			d.hasZone = h != 0
		}
	}
}

// time checks the ranges. A field without a time of day is midnight.
func (d *dateParts) time() (time.Time, bool) {
	if d.bad || d.day < 1 || d.day > 31 || d.month < 0 || d.month > 11 || d.year < 0 {
		return time.Time{}, false
	}
	switch {
	case d.yearDigits <= 2 && d.year < 50:
		d.year += 2000 // RFC 5322, section 4.3
	case d.yearDigits <= 3:
		d.year += 1900
	}
	if d.hour < 0 {
		d.hour = 0
	}
	if d.year < 1900 || d.year > 9999 || d.hour > 23 || d.minute > 59 || d.second > 60 {
		return time.Time{}, false
	}
	loc := time.UTC
	if d.zone != 0 {
		loc = time.FixedZone("", d.zone)
	}
	t := time.Date(d.year, time.Month(d.month+1), d.day, d.hour, d.minute, min(d.second, 59), 0, loc)
	if t.Day() != d.day {
		return time.Time{}, false // no such day in that month
	}
	return t, true
}

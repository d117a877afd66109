package sieve

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/message"
)

// dateParts are the parts of a date (RFC 5260, section 4.2).
var dateParts = map[string]func(time.Time) string{
	"year":    func(t time.Time) string { return fmt.Sprintf("%04d", t.Year()) },
	"month":   func(t time.Time) string { return t.Format("01") },
	"day":     func(t time.Time) string { return t.Format("02") },
	"date":    func(t time.Time) string { return t.Format("2006-01-02") },
	"julian":  julian,
	"hour":    func(t time.Time) string { return t.Format("15") },
	"minute":  func(t time.Time) string { return t.Format("04") },
	"second":  func(t time.Time) string { return t.Format("05") },
	"time":    func(t time.Time) string { return t.Format("15:04:05") },
	"iso8601": func(t time.Time) string { return t.Format("2006-01-02T15:04:05-07:00") },
	"std11":   func(t time.Time) string { return t.Format("Mon, 02 Jan 2006 15:04:05 -0700") },
	"zone":    func(t time.Time) string { return t.Format("-0700") },
	"weekday": func(t time.Time) string { return strconv.Itoa(int(t.Weekday())) },
}

// julian is the Modified Julian Day of the date as its zone has it.
func julian(t time.Time) string {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return strconv.FormatInt(day.Unix()/86400+40587, 10)
}

// dateTest is what date and currentdate have in common.
type dateTest struct {
	zone     *text // nil: that of the server
	original bool
	part     *text
	match    *matcher
}

func (c *compiler) dateTest(k *call, part, keys *arg) (*dateTest, error) {
	d := &dateTest{original: k.has("originalzone")}
	var err error
	if d.zone, err = c.one(k.tags["zone"]); err != nil {
		return nil, err
	}
	if d.zone != nil && d.zone.parts == nil {
		if _, ok := parseZone(d.zone.lit); !ok {
			return nil, faultAt(k.tags["zone"].pos, "expected a time zone such as \"+0100\"")
		}
	}
	if d.part, err = c.one(part); err != nil {
		return nil, err
	}
	if d.part.parts == nil && dateParts[strings.ToLower(d.part.lit)] == nil {
		return nil, faultAt(part.pos, "\"", d.part.lit, "\" is no part of a date")
	}
	d.match, err = c.matcher(k, keys)
	return d, err
}

// parseZone reads "+hhmm".
func parseZone(s string) (*time.Location, bool) {
	if len(s) != 5 || s[0] != '+' && s[0] != '-' {
		return nil, false
	}
	n, err := strconv.ParseUint(s[1:], 10, 16)
	if err != nil || n%100 > 59 || n > 2359 {
		return nil, false
	}
	offset := int(n/100*60+n%100) * 60
	if s[0] == '-' {
		offset = -offset
	}
	return time.FixedZone("", offset), true
}

func (d *dateTest) run(r *run, times []time.Time) bool {
	show := dateParts[strings.ToLower(d.part.value(r))]
	if show == nil {
		return false
	}
	var list []string
	for _, t := range times {
		switch {
		case d.zone != nil:
			zone, ok := parseZone(d.zone.value(r))
			if !ok {
				return false
			}
			t = t.In(zone)
		case !d.original:
			t = t.In(r.in.Now.Location())
		}
		list = append(list, show(t))
	}
	return d.match.any(r, list)
}

func compileDate(c *compiler, k *call) (test, error) {
	names, err := c.names(k.pos[0], fieldName, "name of a header field")
	if err != nil {
		return nil, err
	}
	d, err := c.dateTest(k, k.pos[1], k.pos[2])
	if err != nil {
		return nil, err
	}
	ix, err := c.index(k)
	return func(r *run) bool {
		var times []time.Time
		for _, f := range pick(ix, r.fields(r.header, names[0].value(r))) {
			r.spend(len(f.Value))
			v := f.Unfolded()
			if i := bytes.LastIndexByte(v, ';'); i >= 0 { // Received and the like
				v = v[i+1:]
			}
			if t, ok := message.ParseDate(v); ok {
				times = append(times, t)
			}
		}
		return d.run(r, times)
	}, err
}

func compileCurrentDate(c *compiler, k *call) (test, error) {
	d, err := c.dateTest(k, k.pos[0], k.pos[1])
	return func(r *run) bool { return d.run(r, []time.Time{r.in.Now}) }, err
}

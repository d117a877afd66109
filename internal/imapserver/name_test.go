package imapserver

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestModifiedUTF7(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ wire, name string }{
		{"INBOX", "INBOX"},
		{"R&-D", "R&D"},
		{"&U,BTFw-", "台北"},
		{"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"}, // RFC 3501, section 5.1.3
		{"&V4NXPpCuTvY-", "垃圾邮件"},
		{"a&2D3eAA-", "a😀"},
	} {
		if got, valid := decodeUTF7(c.wire); got != c.name || !valid {
			t.Errorf("%s: got %q, %v", c.wire, got, valid)
		}
		if got := string(appendUTF7(nil, c.name)); got != c.wire {
			t.Errorf("%s: written as %s", c.name, got)
		}
	}
}

func TestNamesThatAreNoModifiedUTF7StandForThemselves(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"R&D", "a&", "台北", "\xff", "&AGE-" /* "a" must not be shifted */, "&U-", "&2D0-" /* half a surrogate pair */, "&U,BTF2-x&",
		"&U,BTFx-",
	} {
		if got, valid := decodeUTF7(name); got != name || valid {
			t.Errorf("%s: got %q, %v", name, got, valid)
		}
	}
}

func TestModifiedUTF7RoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.String().Draw(t, "name")
		if !utf8.ValidString(name) {
			t.Skip("no UTF-8")
		}
		wire := appendUTF7(nil, name)
		if !isASCII(wire) {
			t.Fatalf("%q: written as %q", name, wire)
		}
		if got, valid := decodeUTF7(string(wire)); got != name || !valid {
			t.Fatalf("%q: written as %s, read as %q", name, wire, got)
		}
	})
}

func FuzzUTF7(f *testing.F) {
	f.Add("&U,BTFw-")
	f.Add("&-&AGE-&2D3eAA-")
	f.Fuzz(func(t *testing.T, s string) {
		name, valid := decodeUTF7(s)
		if valid && string(appendUTF7(nil, name)) != s {
			t.Fatalf("%q means %q, which is written %q", s, name, appendUTF7(nil, name))
		}
	})
}

func TestCanonicalNames(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"inbox": "INBOX", "InBox/x": "INBOX/x", "inboxes": "inboxes", "x/inbox": "x/inbox", "": "", "&U,BTFw-": "台北",
	} {
		if got := canonicalName(in); got != want {
			t.Errorf("%s: got %s", in, got)
		}
	}
}

func TestListPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a/b/c", true},
		{"%", "a", true},
		{"%", "a/b", false},
		{"%/%", "a/b", true},
		{"a%", "abc", true},
		{"a%c", "ab/c", false},
		{"a*c", "ab/c", true},
		{"", "", true},
		{"", "a", false},
		{"a/%", "a/", true},
		{"a/%", "a", false},
		{"*b%", "a/b", true},
		{"%*%", "a/b", true},
		{"INBOX", "INBOX", true},
		{"inb%", "INBOX", true},
		{"台%", "台北", true},
	} {
		if got := matchInbox(c.pattern, c.name); got != c.want {
			t.Errorf("%s on %s: got %v", c.pattern, c.name, got)
		}
	}
}

func TestListPatternsAgreeWithRegularExpressions(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab/*%]{0,12}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[ab/]{0,12}`).Draw(t, "name")
		re := regexp.QuoteMeta(pattern)
		re = strings.ReplaceAll(strings.ReplaceAll(re, `\*`, `.*`), `%`, `[^/]*`)
		want := regexp.MustCompile(`^` + re + `$`).MatchString(name)
		if got := matchList(pattern, name); got != want {
			t.Fatalf("%q on %q: got %v", pattern, name, got)
		}
	})
}

// A pattern that made other servers try every way to match (CVE-2026-33607) takes time in proportion to its length: with
// every way, this test would not come to its end.
func TestListPatternsTakeLinearTime(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("a", 1000)
	for range 1000 {
		if matchList(strings.Repeat("*a", 2000)+"b", name) {
			t.Fatal("matched")
		}
	}
	if matchList(strings.Repeat("*a", 990)+"b", name) {
		t.Fatal("matched")
	}
}

func TestDateTimes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`"17-Jul-1996 02:44:25 -0700"`, `" 1-Jan-2026 00:00:00 +0000"`, `"29-Feb-2024 23:59:59 +0545"`,
	} {
		p := parserOver(text)
		at := p.dateTime()
		p.end()
		if p.err != nil {
			t.Fatalf("%s: %v", text, p.err)
		}
		if got := string(appendDateTime(nil, at)); got != text {
			t.Errorf("%s: written as %s", text, got)
		}
	}
}

func TestDayNumbersDisregardZones(t *testing.T) {
	t.Parallel()
	day := func(text string) int64 {
		p := parserOver(text)
		d := p.date()
		if p.err != nil {
			t.Fatal(p.err)
		}
		return d
	}
	at := time.Date(2024, 2, 29, 23, 30, 0, 0, time.FixedZone("", -11*3600))
	if got := dayNumber(at); got != day("29-Feb-2024") {
		t.Errorf("got %d, want %d", got, day("29-Feb-2024"))
	}
	if got := dayNumber(time.Date(1969, 12, 31, 12, 0, 0, 0, time.UTC)); got != day("1-Jan-1970")-1 {
		t.Errorf("before 1970: %d", got)
	}
	if day(`"01-Mar-2024"`) != day("1-mar-2024") || day("1-Mar-2024") != day("29-Feb-2024")+1 {
		t.Error("days are not counted by the calendar")
	}
}

package sieve

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

// TestTests holds what each test finds in the letter: true when it says so, false when the row begins with "!".
func TestTests(t *testing.T) {
	t.Parallel()
	for _, row := range []string{
		// RFC 5228
		`true`, `!false`, `not false`, `allof(true, true)`, `!allof(true, false)`, `anyof(false, true)`,
		`header :is "subject" "[URGENT] grüße 2026"`, `!header :is "subject" "urgent"`, `header :contains "Subject" "GRüßE"`,
		`!header :comparator "i;octet" :contains "subject" "URGENT"`, `header :matches "subject" "[*] gr?* 20??"`,
		`!header :matches "subject" "[urgent"`, `header :matches "subject" "*"`, `header :is ["x-none", "x-count"] ["1", "12"]`,
		`header :matches "subject" "\\[urgent\\]*"`, `!header :contains "x-none" ""`, `header :contains "x-count" ""`,
		`address :is "from" "bo+news@remote.test"`, `address :localpart "from" "bo+news"`, `address :domain ["to", "from"] "EXAMPLE.test"`,
		`address "to" "d@example.test"`, `!address :localpart "to" "team"`, `exists ["from", "date"]`, `!exists ["from", "x-none"]`,
		`size :over 100`, `!size :over 1G`, `size :under 1M`, `envelope "from" "bo@remote.test"`, `envelope :localpart "to" "anna+lists"`,
		`header :comparator "i;ascii-numeric" "x-count" "7"`,
		// RFC 5233
		`address :user "from" "bo"`, `address :detail "from" "news"`, `envelope :detail "to" "lists"`, `!address :detail "to" ""`,
		// RFC 5231
		`header :value "gt" :comparator "i;ascii-numeric" "x-count" "11"`, `!header :value "gt" :comparator "i;ascii-numeric" "x-count" "12"`,
		`header :count "eq" :comparator "i;ascii-numeric" "x-count" "2"`, `address :count "ge" "to" "3"`, `header :value "lt" "x-count" "2"`,
		// RFC 5173
		`body :contains "invoice is"`, `!body :raw :contains "invoice"`, `body :raw :contains "SGVsbG8g"`, `body :contains "click now"`,
		`!body :contains "<b>"`, `body :content "text/html" :contains "<b>"`, `!body :content "image" :contains "a"`, `body :content "application" :contains "PK"`,
		// RFC 5260
		`header :index 2 "x-count" "12"`, `!header :index 1 "x-count" "12"`, `header :index 1 :last "x-count" "12"`, `!header :index 3 "x-count" "12"`,
		`date "date" "hour" "11"`, `date :originalzone "date" "hour" "12"`, `date :zone "-0300" "date" "iso8601" "2026-11-21T08:34:56-03:00"`,
		`date :index 1 "received" "date" "2026-11-22"`, `date "date" "julian" "61365"`, `date "date" "weekday" "6"`, `!date "x-count" "year" "2026"`,
		`currentdate "time" "05:06:07"`, `currentdate :zone "+0530" "hour" "10"`, `currentdate :value "ge" "date" "2026-11-22"`,
		`date :originalzone "date" "std11" "Sat, 21 Nov 2026 12:34:56 +0100"`, `date :originalzone "date" "zone" "+0100"`,
		// RFC 5490, 8579
		`mailboxexists ["INBOX", "Lists"]`, `!mailboxexists ["INBOX", "None"]`,
		`specialuse_exists "\\Junk"`, `!specialuse_exists "INBOX" "\\Junk"`, `!specialuse_exists ["\\Junk", "\\Sent"]`,
		// RFC 5183, 5235
		`environment :is "name" "waxwing"`, `!environment "vnd.none" ""`, `spamtest :is "0"`, `virustest :value "eq" :comparator "i;ascii-numeric" "0"`,
		// draft-ietf-sieve-regex
		`header :regex "subject" "^\\[[a-z]+\\] gr.{2,3}e [0-9]{4}$"`, `!header :comparator "i;octet" :regex "subject" "URGENT"`,
		// RFC 5703
		`header :mime :type "content-type" "multipart"`, `header :mime :anychild :contenttype "content-type" "text/html"`,
		`header :mime :anychild :param "filename" "content-disposition" "a.zip"`, `!header :mime :anychild :subtype "content-type" "pdf"`,
		`exists :mime :anychild "content-disposition"`, `!exists :mime "content-disposition"`,
		// RFC 5435
		`valid_notify_method "mailto:a@b.test"`, `!valid_notify_method ["mailto:a@b.test", "tel:+1"]`,
		`notify_method_capability "mailto:a@b.test" "online" ["yes", "maybe"]`,
	} {
		condition, negated := strings.CutPrefix(row, "!")
		want := "keep"
		if negated {
			want = ""
		}
		r := do(t, all()+"if "+condition+" { keep; } else { discard; }", nil)
		if got := shown(r.Actions); got != want || r.Err != nil {
			t.Errorf("%s: %q, %v", row, got, r.Err)
		}
	}
}

// TestActions holds what scripts do.
func TestActions(t *testing.T) {
	t.Parallel()
	for _, row := range [][2]string{
		{``, `keep`},
		{`discard;`, ``},
		{`fileinto "A";`, `file A`},
		{`fileinto "A"; fileinto "A"; fileinto "B"; keep;`, `file A; file B; keep`},
		{`fileinto :copy "A";`, `file A; keep`},
		{`fileinto :create :flags ["\\seen", "$Work"] "A/B";`, `file A/B create \Seen $Work`},
		{`fileinto :specialuse "\\Junk" "B";`, `file B \Junk`},
		{`redirect "x@other.test"; redirect "x@OTHER.test";`, `redirect x@other.test`},
		{`redirect :copy "x@other.test";`, `redirect x@other.test; keep`},
		{`reject "no"; stop; keep;`, `reject no`},
		{"ereject text:\r\nline\r\n..dot\r\n.\r\n;", "reject line\r\n.dot\r\n"},
		{`if false { discard; } elsif true { fileinto "A"; } else { fileinto "B"; }`, `file A`},
		{`if not true { stop; } discard;`, ``},
		{`stop; discard;`, `keep`},
		// RFC 5232
		{`setflag "\\Seen \\Bogus (x"; addflag ["$A", "\\flagged"]; removeflag "$a"; fileinto "A"; keep;`, `file A \Seen \Flagged; keep \Seen \Flagged`},
		{`addflag "v" "\\Seen"; if hasflag "v" "\\seen" { fileinto :flags "${v}" "A"; }`, `file A \Seen`},
		{`setflag ["a","b"]; if hasflag :count "eq" ["a","b"] { } if hasflag :contains "" { discard; }`, ``},
		// RFC 5229
		{`set "a" "x"; set :upperfirst :lower "b" "ÀBC ${a}"; fileinto "${b}${none}${9}${a";`, `file Àbc x${a`},
		{`if header :matches "subject" "[*] * *" { fileinto "${0}|${1}|${2}|${3}|${4}"; }`, `file [urgent] Grüße 2026|urgent|Grüße|2026|`},
		{`if header :regex "subject" "\\[([a-z]+)\\]" { fileinto "${1}"; }`, `file urgent`},
		{`if header :matches "x-count" "?*" { fileinto "${1}-${2}"; }`, `file 7-`},
		{`set :length "n" "äöü"; set :quotewildcard "q" "a*?\\"; set :encodeurl "u" "a b/ü"; fileinto "${n} ${q} ${u}";`, `file 3 a\*\?\\ a%20b%2F%C3%BC`},
		{`set "s" "no"; if body :matches "*invoice*" { fileinto "${1}."; }`, `file .`},
		{`if string :is "${none}" "" { discard; }`, ``},
		{`if string :count "eq" :comparator "i;ascii-numeric" ["a", "", "b"] "2" { discard; }`, ``},
		// RFC 5228, section 2.4.2.4
		{`fileinto "a${hex:24 2F}${unicode:fc}${hex:zz}";`, `file a$/ü${hex:zz}`},
		// RFC 5293
		{`addheader "X-New" "grün"; if header :is "x-new" "grün" { discard; }`, ``},
		{`deleteheader :index 1 "x-count"; if header :is "x-count" "7" { stop; } discard;`, ``},
		{`deleteheader "x-count" "12"; if header :is "x-count" "12" { stop; } discard;`, ``},
		{`deleteheader "received"; deleteheader "content-type"; if exists ["received", "content-type"] { discard; }`, ``},
		{`addheader "X" "a\r\nBcc: evil"; if header :is "bcc" "evil" { stop; } discard;`, ``},
		// RFC 5703
		{`foreverypart { if header :mime :contenttype "content-type" "text/plain" { extracttext :first 5 "t"; break; } } fileinto "${t}";`, `file Hello`},
		{`set "n" ""; foreverypart :name "o" { foreverypart { set "n" "${n}x"; if string "${n}" "xx" { break :name "o"; } } } fileinto "${n}";`, `file xx`},
		// RFC 5230, 6131
		{`vacation :days 3 :subject "Away" "I am away.";`, `vacation bo@remote.test "Away" 72h0m0s; keep`},
		{`vacation :seconds 0 "I am away."; discard;`, `vacation bo@remote.test "" 0s`},
		{`vacation :days 1000000 "x";`, `vacation bo@remote.test "" 8760h0m0s; keep`},
		// RFC 5435
		{`notify :message "Mail" "mailto:a@b.test,c@d.test?body=x%20y&subject=no";`, `notify [a@b.test c@d.test] "Mail" "x y"; keep`},
	} {
		r := do(t, all()+row[0], nil)
		if got := shown(r.Actions); got != row[1] || r.Err != nil {
			t.Errorf("%s\n got %s\nwant %s\n%v", row[0], got, row[1], r.Err)
		}
	}
}

// TestErrorsOfScripts holds that each mistake is told with its place.
func TestErrorsOfScripts(t *testing.T) {
	t.Parallel()
	for _, row := range [][2]string{
		{`keep`, `1:5: expected ";" or "{", found the end of the script`},
		{"keep;\nfoo;", `2:1: unknown command "foo"`},
		{"keep;\n  require \"fileinto\";", `2:3: "require" must stand before all other commands`},
		{`require "x-y";`, `1:9: the extension "x-y" is not there`},
		{`fileinto "a";`, `1:1: "fileinto" needs: require "fileinto"`},
		{`keep :flags "a";`, `1:6: ":flags" needs: require "imap4flags"`},
		{`if header :is :contains "a" "b" {}`, `1:15: ":contains" can't stand with ":is"`},
		{`if header "a:b" "c" {}`, `1:11: "a:b" is no name of a header field`},
		{`if address "subject" "c" {}`, `1:12: "subject" is no header field with addresses`},
		{`if true keep;`, `1:1: "if" needs a block in braces`},
		{`if {}`, `1:1: "if" needs one test`},
		{`else {}`, `1:1: "else" without an "if" before it`},
		{`if true {} else {} elsif true {}`, `1:20: "elsif" without an "if" before it`},
		{`keep "a";`, `1:6: "keep" takes no more than 0 arguments beside tags`},
		{`redirect;`, `1:1: "redirect" lacks an argument: expected a string`},
		{`redirect "nobody";`, `1:10: "nobody" is no address to redirect to`},
		{`if size 1 {}`, `1:4: "size" needs ":over" or ":under"`},
		{`if header :comparator "i;x" "a" "b" {}`, `1:23: unknown comparator "i;x"`},
		{"# ü\n/* ü */ \"", `2:9: a string that has no end: expected '"'`},
		{`/* x`, `1:1: a comment that has no end: expected "*/"`},
		{"keep \xff;", `1:6: an octet that is not UTF-8`},
		{"keep \x00;", `1:6: a NUL octet`},
		{`if size :over 99999999999999999999 {}`, `1:15: the number is too large`},
		{`redirect ["a@b.test"];`, `1:10: expected a string as argument 1 of "redirect"`},
		{`if true { keep;`, `1:16: expected a command or "}", found the end of the script`},
		{`true;`, `1:1: "true" is a test: expected a command`},
		{`require "regex"; if header :regex "a" "(" {}`, "1:39: regular expression: missing closing ): `(?si)(`"},
		{`require ["include"]; include "${x}` + strings.Repeat("a", 3) + `"; break;`, `1:41: "break" needs: require "foreverypart"`},
		{`if anyof(` + strings.Repeat("not ", 40) + `true) {}`, `1:134: nested deeper than 32 levels`},
		{`require "ihave"; if allof(ihave "nope", frob "x") { discard 5; }`, `1:61: "discard" takes no more than 0 arguments beside tags`},
	} {
		_, err := Compile([]byte(row[0]), Options{})
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", row[0], err)
			continue
		}
		got := strings.NewReplacer("line ", "", ", column ", ":").Replace(e.Error())
		if got != row[1] {
			t.Errorf("%s\n got %s\nwant %s", row[0], got, row[1])
		}
	}
}

// TestARunThatFailsKeepsTheMessage holds that nothing else is done then.
func TestARunThatFailsKeepsTheMessage(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		`fileinto "A"; reject "x";`, `reject "x"; keep;`, `vacation "a"; vacation "b";`, `discard; redirect "${none}";`,
		`fileinto "A"; include "none";`, `discard; if mailboxexists "INBOX" {}`,
		`redirect "a@x.test"; redirect "b@x.test"; redirect "c@x.test"; redirect "d@x.test"; redirect "e@x.test";`,
		`discard; ` + strings.Repeat(`foreverypart {`, 4) + strings.Repeat(`if body :raw :contains "zzzzz" {}`, 5) + `}}}}` + strings.Repeat(strings.Repeat(`if mailboxexists "INBOX" {}`, 50), 30),
	} {
		r := do(t, all()+script, func(in *Input) {
			if strings.Contains(script, "mailboxexists") {
				in.Host = &world{err: errWorld}
			}
		})
		if r.Err == nil || shown(r.Actions) != "keep" {
			t.Errorf("%.80s: %s, %v", script, shown(r.Actions), r.Err)
		}
	}
}

// TestIHave holds RFC 5463: what is not there is an error only where it is reached.
func TestIHave(t *testing.T) {
	t.Parallel()
	r := do(t, `require ["ihave", "fileinto"]; if ihave "frob" { frob "x"; } elsif ihave ["imap4flags"] { keep :flags "\\Seen"; }`, nil)
	if got := shown(r.Actions); got != `keep \Seen` || r.Err != nil {
		t.Errorf("%s, %v", got, r.Err)
	}
	r = do(t, `require "ihave"; if not ihave "frob" { error "no frob"; }`, nil)
	if r.Err == nil || r.Err.Error() != "no frob" || shown(r.Actions) != "keep" {
		t.Errorf("%v, %s", r.Err, shown(r.Actions))
	}
}

// TestInclude holds RFC 6609: return, stop, globals, once, and scripts that are missing or include themselves.
func TestInclude(t *testing.T) {
	t.Parallel()
	scripts := map[string]string{
		"a":    `require ["include", "variables"]; global "g"; set "g" "${g}a"; set "l" "lost"; return; discard;`,
		"stop": `require "include"; stop;`,
		"self": `require "include"; include "self";`,
		"bad":  `fileinto "x";`,
	}
	for _, row := range [][3]string{
		{`global "g"; include "a"; include "a"; fileinto "${g}${l}";`, `file aa`, ""},
		{`global "g"; include :once "a"; include :once "a"; fileinto "${g}";`, `file a`, ""},
		{`include "a"; fileinto "${global.g}";`, `file a`, ""},
		{`include "stop"; discard;`, `keep`, ""},
		{`include :optional "none"; discard;`, ``, ""},
		{`discard; include "none";`, `keep`, `no personal script "none"`},
		{`discard; include "self";`, `keep`, `personal script "self": line 1, column 20: personal script "self" includes itself`},
		{`discard; include "bad";`, `keep`, `personal script "bad": line 1, column 1: "fileinto" needs: require "fileinto"`},
		{`discard; include :global "a";`, `keep`, `no global script "a"`},
	} {
		s, err := Compile([]byte(`require ["include", "variables", "fileinto"]; `+row[0]), Options{Load: func(global bool, name string) ([]byte, error) {
			if text, ok := scripts[name]; ok && !global {
				return []byte(text), nil
			}
			return nil, errors.New("none")
		}})
		if err != nil {
			t.Fatal(row[0], err)
		}
		r := Run(t.Context(), []*Script{s}, input(t, letter))
		told := ""
		if r.Err != nil {
			told = r.Err.Error()
		}
		if got := shown(r.Actions); got != row[1] || told != row[2] {
			t.Errorf("%s: %s, %s", row[0], got, told)
		}
	}
}

// TestScriptsInARow holds that the next script runs while the message is kept, and that all see what was done before.
func TestScriptsInARow(t *testing.T) {
	t.Parallel()
	for _, row := range [][3]string{
		{`fileinto :copy "A";`, `discard;`, `file A`},
		{`keep;`, `discard;`, `keep`},
		{`discard;`, `keep;`, ``},
		{`fileinto "A";`, `keep;`, `file A`},
		{`addheader "X" "y";`, `if header "x" "y" { discard; }`, ``},
		{`setflag "\\Seen";`, ``, `keep \Seen`},
		{`stop;`, `discard;`, ``},
	} {
		var list []*Script
		for _, text := range row[:2] {
			s, err := Compile([]byte(all()+text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, s)
		}
		if r := Run(t.Context(), list, input(t, letter)); shown(r.Actions) != row[2] || r.Err != nil {
			t.Errorf("%q: %s, %v", row[:2], shown(r.Actions), r.Err)
		}
	}
}

// TestWhoIsAnswered holds who gets an answer of vacation (RFC 5230, sections 4.5 and 4.6).
func TestWhoIsAnswered(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		from, header string
		want         bool
	}{
		{"bo@remote.test", "To: anna@example.test", true},
		{"bo@remote.test", "Cc: x@y.test, Anna <ANNA+tag@example.test>", true},
		{"bo@remote.test", "To: other@example.test", false},
		{"bo@remote.test", "To: alias@example.test", true},
		{"", "To: anna@example.test", false},
		{"anna@example.test", "To: anna@example.test", false},
		{"mailer-daemon@remote.test", "To: anna@example.test", false},
		{"owner-list@remote.test", "To: anna@example.test", false},
		{"list-request@remote.test", "To: anna@example.test", false},
		{"bo@remote.test", "To: anna@example.test\r\nList-Id: <x>", false},
		{"bo@remote.test", "To: anna@example.test\r\nPrecedence: Bulk", false},
		{"bo@remote.test", "To: anna@example.test\r\nAuto-Submitted: auto-replied", false},
		{"bo@remote.test", "To: anna@example.test\r\nAuto-Submitted: no", true},
		{"bo@remote.test", "To: anna@example.test\r\nX-Auto-Response-Suppress: OOF, DR", false},
	} {
		s, err := Compile([]byte(`require "vacation"; vacation :addresses ["alias@example.test"] "x";`), Options{})
		if err != nil {
			t.Fatal(err)
		}
		in := input(t, row.header+"\r\n\r\nx\r\n")
		in.From = address.Address{}
		if row.from != "" {
			in.From = mustAddress(t, row.from)
		}
		r := Run(t.Context(), []*Script{s}, in)
		if got := len(r.Actions) == 2; got != row.want {
			t.Errorf("%+v: %s", row, shown(r.Actions))
		}
	}
}

func TestDuplicate(t *testing.T) {
	t.Parallel()
	const script = `require "duplicate"; if duplicate :seconds 60 { discard; }`
	first := do(t, script, nil)
	if shown(first.Actions) != "keep" || len(first.Seen) != 1 || first.Seen[0].For != time.Minute {
		t.Fatalf("%+v", first)
	}
	again := do(t, script, func(in *Input) { in.Host = &world{seen: map[string]bool{first.Seen[0].Key: true}} })
	if shown(again.Actions) != "" || len(again.Seen) != 0 {
		t.Errorf("%+v", again)
	}
	other := do(t, `require "duplicate"; if duplicate :handle "h" {}`, nil)
	if other.Seen[0].Key == first.Seen[0].Key {
		t.Error("another handle has the same key")
	}
}

// TestEditedHeaderIsWhole holds that what is edited can be parsed as a header again, and that the actions before the edit
// have the header from before.
func TestEditedHeaderIsWhole(t *testing.T) {
	t.Parallel()
	r := do(t, all()+`fileinto :copy "A"; addheader :last "X-New" "`+strings.Repeat("wörd ", 100)+`"; deleteheader "subject";`, nil)
	if r.Actions[0].(FileInto).Header != nil {
		t.Error("the first action has the later header")
	}
	var raw []byte
	for _, f := range r.Actions[1].(Keep).Header {
		raw = append(raw, f.Raw...)
	}
	h, n := message.ParseHeader(raw)
	if n != len(raw) || h.Has("Subject") || h.Text("X-New") != strings.TrimSpace(strings.Repeat("wörd ", 100)) || !h.Has("Received") {
		t.Errorf("%s", raw)
	}
}

func TestSpam(t *testing.T) {
	t.Parallel()
	for percent, want := range map[int]string{-1: "0", 0: "1", 50: "5", 100: "10", 900: "10"} {
		r := do(t, all()+`if spamtest "`+want+`" { discard; }`, func(in *Input) { in.Spam = percent })
		if shown(r.Actions) != "" {
			t.Errorf("%d is not %s", percent, want)
		}
	}
}

// TestWorkIsBounded holds the classes of abuse: work grows with the message no more than in step, and ends at the limit.
func TestWorkIsBounded(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"contains": strings.Repeat(`if header :contains "subject" "`+strings.Repeat("a", 100)+`b" { stop; }`, 500),
		"matches":  strings.Repeat(`if header :matches "subject" "*`+strings.Repeat("a*", 100)+`b" { stop; }`, 500),
		"wild":     strings.Repeat(`if header :matches "subject" "*`+strings.Repeat("?", 500)+`b*" { stop; }`, 100),
		"regex":    strings.Repeat(`if header :regex "subject" "(a*)*(a|aa)+b" { stop; }`, 100),
		"address":  strings.Repeat(`if address :contains "to" "zz" { stop; }`, 1000),
		"keys":     `if header :contains "subject" ["` + strings.Repeat(`zz","`, 10000) + `z"] { stop; }`,
	} {
		s, err := Compile([]byte(all()+script), Options{})
		if err != nil {
			t.Fatal(name, err)
		}
		raw := "To: " + strings.Repeat("a@b.test, ", 20_000) + "x@y.test\r\nSubject: " + strings.Repeat("a", 200_000) + "\r\n\r\n"
		if r := Run(context.Background(), []*Script{s}, input(t, raw)); !errors.Is(r.Err, ErrWork) || shown(r.Actions) != "keep" {
			t.Errorf("%s: %v", name, r.Err)
		}
	}
}

// TestVariablesAreBounded holds that a script can't fill the memory.
func TestVariablesAreBounded(t *testing.T) {
	t.Parallel()
	r := do(t, all()+`set "a" "`+strings.Repeat("x", 100)+`";`+strings.Repeat(`set "a" "${a}${a}${a}${a}${a}${a}${a}${a}";`, 20)+
		`set :length "n" "${a}"; fileinto "${n}";`, nil)
	if got := shown(r.Actions); got != "file 16384" || r.Err != nil {
		t.Errorf("%s, %v", got, r.Err)
	}
}

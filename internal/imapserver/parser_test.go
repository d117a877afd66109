package imapserver

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// script is a lineSource over octets in memory.
type script struct{ rest []byte }

var errScriptEnd = &inputError{io.EOF}

func (s *script) line() ([]byte, error) {
	i := bytes.Index(s.rest, []byte("\r\n"))
	if i < 0 {
		return nil, errScriptEnd
	}
	line := s.rest[:i]
	s.rest = s.rest[i+2:]
	return line, nil
}

func (s *script) literal(n int64, _ bool) ([]byte, error) {
	if n > int64(len(s.rest)) {
		return nil, errScriptEnd
	}
	b := s.rest[:n]
	s.rest = s.rest[n:]
	return b, nil
}

// parserOver begins a parser with the first line of text.
func parserOver(text string) *parser {
	src := &script{rest: []byte(text + "\r\n")}
	line, _ := src.line()
	p := new(parser)
	p.reset(src, line, 64<<10)
	return p
}

func TestStringsOfTheGrammar(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want, err string }{
		{"atom", `abc`, `abc`, ""},
		{"atom with bracket", `a]b`, `a]b`, ""},
		{"quoted", `"a b"`, `a b`, ""},
		{"quoted empty", `""`, ``, ""},
		{"quoted escapes", `"a\"b\\c"`, `a"b\c`, ""},
		{"quoted UTF-8", `"草稿"`, `草稿`, ""},
		{"quoted bad escape", `"a\b"`, ``, "octet not allowed in a quoted string at octet 3"},
		{"quoted without end", `"abc`, ``, "unclosed quoted string at octet 1"},
		{"quoted latin-1", "\"a\xe4\"", ``, "string is not UTF-8 before this at octet 5"},
		{"literal", "{3}\r\na\r\n", "a\r\n", ""},
		{"literal without waiting", "{3+}\r\nabc", "abc", ""},
		{"literal empty", "{0}\r\n", "", ""},
		{"literal with NUL", "{3}\r\na\x00b", "", "NUL in the literal before this at octet 9"},
		{"literal within a line", "{3} x", "", "literal not at the end of the line at octet 4"},
		{"literal of huge size", "{99999999999999999999}", "", "number too large at octet 20"},
		{"literal too large", "{70000}\r\n", "", "literal too large"},
		{"nothing", ``, ``, "expected a string at octet 1"},
		{"parenthesis", `(`, ``, "expected a string at octet 1"},
		{"too long", strings.Repeat("x", 101), ``, "string too long at octet 102"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := parserOver(c.in)
			got := p.astring(100)
			p.end()
			if c.err == "" {
				if p.err != nil || got != c.want {
					t.Fatalf("got %q, %v; want %q", got, p.err, c.want)
				}
				return
			}
			if p.err == nil || p.err.Error() != c.err {
				t.Fatalf("got error %v, want %s", p.err, c.err)
			}
		})
	}
}

func TestTrailingLiteralIsFoundOnlyAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line  string
		n     int64
		sync  bool
		found bool
	}{
		{"a LOGIN {5}", 5, true, true},
		{"a LOGIN {5+}", 5, false, true},
		{`a LOGIN "x {5+}`, 5, false, true},
		{"a NOOP", 0, false, false},
		{"a {5} ", 0, false, false},
		{"a {+}", 0, false, false},
		{"a {}", 0, false, false},
		{"{7}", 7, true, true},
		{"7}", 0, false, false},
		{"}", 0, false, false},
		{"", 0, false, false},
		{"{99999999999999999999999999+}", 1<<62 - 1, false, true},
	} {
		n, sync, found := trailingLiteral([]byte(c.line))
		if n != c.n || found != c.found || found && sync != c.sync {
			t.Errorf("%q: got %d %v %v", c.line, n, sync, found)
		}
	}
}

func TestEveryCommandIsParsed(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		`LOGIN a@example.test "x y"`, `AUTHENTICATE PLAIN AGEAYg==`, `AUTHENTICATE LOGIN`, `ENABLE CONDSTORE X`,
		`ID NIL`, `ID ("name" "x" "version" NIL)`, `SELECT INBOX`, `SELECT "INBOX" (CONDSTORE)`, `EXAMINE {5+}` + "\r\nINBOX",
		`CREATE a/b`, `CREATE Old (USE (\Archive))`, `RENAME a b`, `LIST "" *`, `LIST (SUBSCRIBED RECURSIVEMATCH) "" (% a*) RETURN (CHILDREN STATUS (MESSAGES))`,
		`LSUB "" %`, `STATUS INBOX (MESSAGES UNSEEN SIZE)`, `APPEND INBOX (\Seen $X) " 7-Feb-1994 21:52:25 -0800" {10}`,
		`FETCH 1:*,3 FULL`, `FETCH 2 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (From "To")]<0.100> RFC822.PEEK)`,
		`UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE 0)`, `STORE 1 +FLAGS (\Deleted)`, `STORE 1 FLAGS \Seen \Draft`,
		`UID STORE 1:4 (UNCHANGEDSINCE 12) -FLAGS.SILENT ($Junk)`, `COPY 1:2 Trash`, `UID MOVE 4 "已发送"`, `UID EXPUNGE 1:*`,
		`SEARCH ALL`, `SEARCH CHARSET UTF-8 OR FROM "x" NOT (SUBJECT {3+}` + "\r\nabc UNSEEN)", `SEARCH RETURN (MIN COUNT) 1:5 SINCE 1-Feb-2020`,
		`UID SEARCH RETURN () MODSEQ "/flags/\\draft" all 620 SENTON "2-Mar-2021"`, `NOOP `, `IDLE`,
	} {
		p := parserOver("a1 " + line)
		cmd := parseForTest(p)
		if p.err != nil {
			t.Errorf("%s: %v", line, p.err)
		}
		if cmd == nil {
			t.Errorf("%s: no such command", line)
		}
	}
}

// parseForTest reads a command in any state.
func parseForTest(p *parser) *command {
	p.tag()
	p.space()
	name := p.word("a command")
	if name == "UID" {
		p.space()
		name = "UID " + p.word("a command")
	}
	cmd := commandTable[name]
	if p.err == nil && cmd != nil {
		cmd.make().parse(p)
	}
	return cmd
}

func TestGrammarErrorsNameThePlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, want string }{
		{"FETCH 0 FLAGS", `expected a number above 0 or "*" at octet 11`},
		{"FETCH 4294967296 FLAGS", "number too large at octet 19"},
		{"FETCH 1 (FLAGS", "expected a space at octet 18"},
		{"FETCH 1 FLAG", "expected an item that can be fetched at octet 12"},
		{"FETCH 1 BODY[0]", "part numbers begin at 1, before this at octet 18"},
		{"FETCH 1 BODY[MIME]", "MIME needs a part number, before this at octet 21"},
		{"FETCH 1 BODY[1.]", "expected a part number or a word at octet 19"},
		{"FETCH 1 BODY[]<1.0>", "an empty range, before this at octet 22"},
		{"FETCH 1 BODY[]<1>", "expected '.' at octet 20"},
		{"SEARCH", "expected a space at octet 10"},
		{"SEARCH FOO", "unknown search key at octet 11"},
		{"SEARCH SINCE 30-Feb-2020", "no such day, before this at octet 28"},
		{"SEARCH SINCE 1-Foo-2020", "expected a month at octet 19"},
		{"SEARCH ()", "empty parentheses before this at octet 13"},
		{"STORE 1 FLAGS (\\Foo)", "unknown system flag before this at octet 23"},
		{"STATUS INBOX ()", "expected a STATUS item at octet 19"},
		{"LIST (RECURSIVEMATCH) \"\" *", "RECURSIVEMATCH needs another selection option, before this at octet 26"},
		{"NOOP x", "unexpected text at octet 9"},
		{"APPEND INBOX abc", "expected '{' at octet 17"},
	} {
		p := parserOver("a1 " + c.line)
		// The tag and its space count: octet 4 begins the command.
		parseForTest(p)
		if p.err == nil || p.err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.line, p.err, c.want)
		}
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	nest := func(open, inner, end string, n int) string {
		return "a SEARCH " + strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	for _, c := range []struct {
		name, line string
		fits       bool
	}{
		{"50 parentheses", nest("(", "ALL", ")", 50), true},
		{"51 parentheses", nest("(", "ALL", ")", 51), false},
		{"500 NOT", nest("NOT ", "ALL", "", 500), true},
		{"501 NOT", nest("NOT ", "ALL", "", 501), false},
		{"30000 parentheses", nest("(", "ALL", ")", 30000), false},
		{"100 OR chain", nest("OR ALL ", "ALL", "", 100), true},
		{"5001 keys", "a SEARCH" + strings.Repeat(" ALL", 5001), false},
		{"101 texts", "a SEARCH" + strings.Repeat(" TEXT x", 101), false},
		{"10000 ranges", "a FETCH " + strings.Repeat("1,", 9999) + "1 FLAGS", true},
		{"10001 ranges", "a FETCH " + strings.Repeat("1,", 10000) + "1 FLAGS", false},
		{"65 sections", "a FETCH 1 (" + strings.Repeat("BODY[] ", 64) + "BODY[])", false},
		{"101 part numbers", "a FETCH 1 BODY[" + strings.Repeat("1.", 100) + "1]", false},
		{"ID with 31 pairs", "a ID (" + strings.Repeat(`"a" "b" `, 30) + `"a" "b")`, false},
		{"tag of 129", strings.Repeat("t", 129) + " NOOP", false},
	} {
		p := parserOver(c.line)
		parseForTest(p)
		if (p.err == nil) != c.fits {
			t.Errorf("%s: got %v", c.name, p.err)
		}
	}
}

func TestSectionLabels(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"BODY[]":                                   "BODY[] ",
		"BODY.PEEK[]<0.5>":                         "BODY[]<0> ",
		"body.peek[header]":                        "BODY[HEADER] ",
		"BODY[1.2.MIME]":                           "BODY[1.2.MIME] ",
		"BODY[3]<7.2>":                             "BODY[3]<7> ",
		"BODY[HEADER.FIELDS (From to)]":            "BODY[HEADER.FIELDS (FROM TO)] ",
		`BODY[1.HEADER.FIELDS.NOT ("X (")]`:        `BODY[1.HEADER.FIELDS.NOT ("X (")] `,
		"RFC822.HEADER":                            "RFC822.HEADER ",
		"RFC822.PEEK":                              "RFC822 ",
		"BODY[HEADER.FIELDS ({4}\r\nDate)]<2.100>": "BODY[HEADER.FIELDS (DATE)]<2> ",
	} {
		p := parserOver("1 " + in)
		r := new(fetchRequest)
		p.numSet()
		p.space()
		r.item(p)
		p.end()
		if p.err != nil || len(r.sections) != 1 || string(r.sections[0].label) != want {
			t.Errorf("%s: got %+v, %v", in, r.sections, p.err)
		}
	}
}

func TestSetsAgreeWithTheirMeaning(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		last := rapid.Uint32Range(0, 40).Draw(t, "last")
		set := make(numSet, 0)
		naive := make(map[uint32]bool)
		n := rapid.IntRange(1, 12).Draw(t, "n")
		for range n {
			lo := rapid.Uint32Range(0, 45).Draw(t, "lo")
			hi := rapid.Uint32Range(0, 45).Draw(t, "hi")
			set = append(set, numRange{lo, hi})
			if lo == star {
				lo = last
			}
			if hi == star {
				hi = last
			}
			if lo > hi {
				lo, hi = hi, lo
			}
			for k := lo; lo > 0 && k <= hi; k++ {
				naive[k] = true
			}
		}
		text := string(appendSet(nil, set))
		got := set.resolve(last)
		for k := uint32(1); k < 60; k++ {
			if got.contains(k) != naive[k] {
				t.Fatalf("%s with last %d: %d is %v", text, last, k, got.contains(k))
			}
		}
		for i := 1; i < len(got); i++ {
			if got[i].lo <= got[i-1].hi+1 {
				t.Fatalf("not merged: %v", got)
			}
		}
		if len(got) == 0 {
			return
		}
		p := parserOver(string(appendSet(nil, got)))
		if again := p.numSet().resolve(0); p.err != nil || string(appendSet(nil, again)) != string(appendSet(nil, got)) {
			t.Fatalf("written as %s, read as %v, %v", appendSet(nil, got), again, p.err)
		}
	})
}

func TestUIDsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   []uint32
		want string
	}{
		{nil, ""},
		{[]uint32{4}, "4"},
		{[]uint32{4, 5, 6}, "4:6"},
		{[]uint32{4, 6, 7, 2}, "4,6:7,2"},
		{[]uint32{7, 6, 5}, "7,6,5"},
	} {
		if got := string(appendUIDs(nil, c.in)); got != c.want {
			t.Errorf("%v: got %s, want %s", c.in, got, c.want)
		}
	}
}

// FuzzParser feeds octets as a command with its literals: parsing ends, errors name a place inside the command, and a
// command that is given up leaves the announcement of its literal in sight.
func FuzzParser(f *testing.F) {
	for _, s := range []string{
		"a FETCH 1:* (FLAGS BODY.PEEK[1.HEADER.FIELDS (X)]<1.2>)\r\n", "a LOGIN {3}\r\nabc {1+}\r\nx\r\n",
		"a SEARCH OR (NOT TEXT \"x\") CHARSET x\r\n", "a UID STORE 1,2:* (UNCHANGEDSINCE 4) +FLAGS.SILENT (\\Seen a)\r\n",
		"a LIST (SUBSCRIBED) \"\" (a% {2}\r\n*b) RETURN (STATUS (SIZE))\r\n", "a APPEND &ZeVnLIqe- (\\Seen) \"01-Jan-2020 00:00:00 +0100\" {5}\r\n",
		"a ID (\"a\" NIL)\r\n", "a SEARCH RETURN (ALL) SENTBEFORE 1-Jan-1990 MODSEQ 5 UID 1:4\r\n", "a STATUS x (SIZE)\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		src := &script{rest: in}
		line, err := src.line()
		if err != nil {
			return
		}
		p := new(parser)
		p.reset(src, line, 1<<10)
		cmd := parseForTest(p)
		if p.pos > len(p.line) {
			t.Fatalf("at %d of a line of %d", p.pos, len(p.line))
		}
		var syn *syntaxError
		if errors.As(p.err, &syn) && (syn.column < 0 || syn.column > len(in)) {
			t.Fatalf("error outside of the command: %v", syn)
		}
		if p.err == nil && cmd != nil && cmd.name != "APPEND" && p.pos != len(p.line) {
			t.Fatalf("%s: %q is left", cmd.name, p.line[p.pos:])
		}
	})
}

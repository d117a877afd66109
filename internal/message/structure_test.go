package message

import (
	"strings"
	"testing"
)

func TestEnvelope(t *testing.T) {
	t.Parallel()
	// The message of RFC 3501, section 8, whose FETCH response has this envelope.
	rfc := `("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes" ` +
		`(("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) ` +
		`(("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) ` +
		`((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL ` +
		`"<B27397-0100000@cac.washington.edu>")`
	for _, c := range []struct{ name, header, want string }{
		{"RFC 3501, section 8", "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n" +
			"From: Terry Gray <gray@cac.washington.edu>\r\nSubject: IMAP4rev1 WG mtg summary and minutes\r\n" +
			"To: imap@cac.washington.edu\r\ncc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n" +
			"Message-Id: <B27397-0100000@cac.washington.edu>\r\nMIME-Version: 1.0\r\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n", rfc},
		{"missing is NIL, empty is an empty string", "Subject:\r\nDate: \r\nTo:\r\nMessage-ID:\r\n", `("" "" NIL NIL NIL NIL NIL NIL NIL "")`},
		{
			"empty Sender and Reply-To are From", "From: a@b.test\r\nSender:\r\nReply-To: \r\n",
			`(NIL NIL ((NIL NIL "a" "b.test")) ((NIL NIL "a" "b.test")) ((NIL NIL "a" "b.test")) NIL NIL NIL NIL NIL)`,
		},
		{
			"own Sender and Reply-To", "From: a@b.test\r\nSender: s@b.test\r\nReply-To: r@b.test\r\n",
			`(NIL NIL ((NIL NIL "a" "b.test")) ((NIL NIL "s" "b.test")) ((NIL NIL "r" "b.test")) NIL NIL NIL NIL NIL)`,
		},
		{
			"groups", "To: A: a@b.test;, B:;\r\n",
			`(NIL NIL NIL NIL NIL ((NIL NIL "A" NIL)(NIL NIL "a" "b.test")(NIL NIL NIL NIL)(NIL NIL "B" NIL)(NIL NIL NIL NIL)) NIL NIL NIL NIL)`,
		},
		{
			"group that never closes", "To: A: a@b.test\r\n",
			`(NIL NIL NIL NIL NIL ((NIL NIL "A" NIL)(NIL NIL "a" "b.test")(NIL NIL NIL NIL)) NIL NIL NIL NIL)`,
		},
		{"source route", "To: <@x.test,@y.test:a@b.test>\r\n", `(NIL NIL NIL NIL NIL ((NIL "@x.test,@y.test" "a" "b.test")) NIL NIL NIL NIL)`},
		{"no domain is not a group", "To: root\r\n", `(NIL NIL NIL NIL NIL ((NIL NIL "root" "")) NIL NIL NIL NIL)`},
		{"several To fields are joined", "To: a@b.test\r\nTo: c@d.test\r\n", `(NIL NIL NIL NIL NIL ((NIL NIL "a" "b.test")(NIL NIL "c" "d.test")) NIL NIL NIL NIL)`},
		{"the first Subject counts", "Subject: a\r\nSubject: b\r\n", `(NIL "a" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{
			"quotes and backslashes", "Subject: a \"b\" \\c\r\nFrom: \"x \\\"y\\\"\" <a@b.test>\r\n",
			`(NIL "a \"b\" \\c" (("x \"y\"" NIL "a" "b.test")) (("x \"y\"" NIL "a" "b.test")) (("x \"y\"" NIL "a" "b.test")) NIL NIL NIL NIL NIL)`,
		},
		{"encoded words stay", "Subject: =?utf-8?Q?=C3=A9?=\r\n", `(NIL "=?utf-8?Q?=C3=A9?=" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"8-bit text is encoded", "Subject: é\r\n", `(NIL "=?utf-8?B?w6k=?=" NIL NIL NIL NIL NIL NIL NIL NIL)`},
		{"long text is a literal", "Subject: " + strings.Repeat("x", 2000) + "\r\n", "(NIL {2000}\r\n" + strings.Repeat("x", 2000) + " NIL NIL NIL NIL NIL NIL NIL NIL)"},
		{"folding is undone", "Subject: a\r\n b\r\nIn-Reply-To: <a@b>\r\n\t<c@d>\r\n", "(NIL \"a b\" NIL NIL NIL NIL NIL NIL \"<a@b> <c@d>\" NIL)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, _ := ParseHeader([]byte(c.header))
			got := strings.ReplaceAll(string(AppendEnvelope(nil, h)), "\t", " ")
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestBodyStructure(t *testing.T) {
	t.Parallel()
	lines := func(n, size int) string {
		return strings.Repeat("x\r\n", n-1) + strings.Repeat("y", size-3*(n-1)-2) + "\r\n"
	}
	for _, c := range []struct{ name, raw, body, structure string }{
		{
			"RFC 3501, section 7.4.2, a text", "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\nContent-Transfer-Encoding: 7BIT\r\n\r\n" + lines(53, 2279),
			`("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 2279 53)`,
			`("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 2279 53 NIL NIL NIL NIL)`,
		},
		{
			"RFC 3501, section 7.4.2, two parts",
			"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=US-ASCII\r\n\r\n" + lines(23, 1152) +
				"\r\n--b\r\nContent-Type: text/plain; charset=US-ASCII; name=cc.diff\r\nContent-ID: <960723163407.20117h@cac.washington.edu>\r\n" +
				"Content-Description: Compiler diff\r\nContent-Transfer-Encoding: BASE64\r\n\r\n" + lines(73, 4554) + "\r\n--b--\r\n",
			`(("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 1152 23)("text" "plain" ("charset" "US-ASCII" "name" "cc.diff") ` +
				`"<960723163407.20117h@cac.washington.edu>" "Compiler diff" "base64" 4554 73) "mixed")`,
			`(("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 1152 23 NIL NIL NIL NIL)("text" "plain" ("charset" "US-ASCII" "name" "cc.diff") ` +
				`"<960723163407.20117h@cac.washington.edu>" "Compiler diff" "base64" 4554 73 NIL NIL NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL)`,
		},
		{
			"extension data of each kind",
			"Content-Type: multipart/signed; boundary=b; protocol=\"a/b\"\r\nContent-Disposition: inline\r\nContent-Language: de\r\nContent-Location: http://x/\r\n\r\n" +
				"--b\r\nContent-Type: image/png\r\nContent-MD5: abc=\r\nContent-Disposition: attachment; filename=a.png\r\nContent-Language: en, fr (x)\r\nContent-Location:\r\n\r\nx\r\n--b--",
			`(("image" "png" NIL NIL NIL "7bit" 1) "signed")`,
			`(("image" "png" NIL NIL NIL "7bit" 1 "abc=" ("attachment" ("filename" "a.png")) ("en" "fr") "") "signed" ("boundary" "b" "protocol" "a/b") ("inline" NIL) "de" "http://x/")`,
		},
		{
			"message in a message", "Content-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\na\r\nb\r\n",
			`("message" "rfc822" NIL NIL NIL "7bit" 20 (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 2) 4)`,
			`("message" "rfc822" NIL NIL NIL "7bit" 20 (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 2 NIL NIL NIL NIL) 4 NIL NIL NIL NIL)`,
		},
		{
			"multipart without parts", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 7 1) "mixed")`,
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 7 1 NIL NIL NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL)`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := ParseBytes([]byte(c.raw))
			if got := string(AppendBodyStructure(nil, p, false)); got != c.body {
				t.Errorf("BODY\n got %s\nwant %s", got, c.body)
			}
			if got := string(AppendBodyStructure(nil, p, true)); got != c.structure {
				t.Errorf("BODYSTRUCTURE\n got %s\nwant %s", got, c.structure)
			}
		})
	}
}

// checkWire reads a parenthesized list as an IMAP client does, and requires printable ASCII.
func checkWire(t interface {
	Fatalf(format string, args ...any)
}, b []byte,
) {
	depth, i := 0, 0
	for i < len(b) {
		switch c := b[i]; {
		case c == '(':
			depth++
			i++
		case c == ')':
			depth--
			i++
			if depth == 0 && i != len(b) {
				t.Fatalf("text after the list: %q", b)
			}
		case c == '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
				if i < len(b) && (b[i] < ' ' || b[i] >= 0x7f) {
					t.Fatalf("octet %#x in a quoted string: %q", b[i], b)
				}
			}
			i++
		case c == '{':
			n := 0
			for i++; i < len(b) && isDigit(b[i]); i++ {
				n = n*10 + int(b[i]-'0')
			}
			if !strings.HasPrefix(string(b[i:min(len(b), i+3)]), "}\r\n") || i+3+n > len(b) || !isPlainASCII(b[i+3:i+3+n]) {
				t.Fatalf("bad literal: %q", b)
			}
			i += 3 + n
		case c == ' ' || isDigit(c) || c == 'N' || c == 'I' || c == 'L':
			i++
		default:
			t.Fatalf("octet %#x outside strings: %q", c, b)
		}
	}
	if depth != 0 || i != len(b) {
		t.Fatalf("unbalanced: %q", b)
	}
}

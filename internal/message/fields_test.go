package message

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDecodeHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"plain text", "Hello  World", "Hello  World"},
		{"folding is undone", "Hello\r\n  World\r\n", "Hello  World"},
		{"RFC 2047 section 8, one word", "(=?ISO-8859-1?Q?a?=)", "(a)"},
		{"RFC 2047 section 8, space between text and word", "(=?ISO-8859-1?Q?a?= b)", "(a b)"},
		{"RFC 2047 section 8, space between words is dropped", "(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"},
		{"RFC 2047 section 8, fold between words is dropped", "(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)"},
		{"RFC 2047 section 8, underscore is a space", "(=?ISO-8859-1?Q?a_b?=)", "(a b)"},
		{"RFC 2047 section 8, charsets differ", "(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"},
		{"language after the charset", "=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"},
		{"language after a charset in use", "=?utf-8*de?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"},
		{"character split between words", "=?utf-8?B?5L0=?= =?utf-8?B?oOWlvQ==?=", "你好"},
		{"character split between B and Q", "=?utf-8?B?5L0=?= =?UTF-8?Q?=A0=E5=A5=BD?=", "你好"},
		{"base64 group split between words", "=?utf-8?B?5L2g5a?= =?utf-8?B?W9?=", "你好"},
		{"missing padding", "=?gb2312?B?xOO6ww?=", "你好"},
		{"missing padding in both words", "=?GBK?B?xOM?= =?GBK?B?usM?=", "你好"},
		{"cp936 label", "=?cp936?B?xOO6ww==?=", "你好"},
		{"x-gbk label", "=?x-gbk?Q?=C4=E3=BA=C3?=", "你好"},
		{"ms936 label", "=?ms936?Q?=C4=E3=BA=C3?=", "你好"},
		{"gb_2312-80 label", "=?gb_2312-80?Q?=C4=E3=BA=C3?=", "你好"},
		{"GB 18030 label, rare characters", "=?gb18030?B?gjSxNZg5jjk?=", decodeWith(gb18030{}, []byte("\x82\x34\xb1\x35\x98\x39\x8e\x39"))},
		{"HZ is another charset", "=?hz-gb-2312?Q?~{Dc:C~}?=", "你好"},
		{"ISO-2022-JP", "=?ISO-2022-JP?B?GyRCRnxLXDhsGyhC?=", "日本語"},
		{"Big5", "=?big5?B?p0Gmbg==?=", "你好"},
		{"EUC-KR", "=?ks_c_5601-1987?B?vsiz5w==?=", "안녕"},
		{"Shift_JIS", "=?shift_jis?B?k/qWe4zq?=", "日本語"},
		{"windows-1251", "=?windows-1251?Q?=CF=F0=E8=E2=E5=F2?=", "Привет"},
		{"ISO 8859-1 is Windows-1252", "=?iso-8859-1?Q?=80uro?=", "€uro"},
		{"raw UTF-8", "你好", "你好"},
		{"raw GBK", "\xc4\xe3\xba\xc3", "你好"},
		{"raw Latin-1", "Gr\xfc\xdfe", "Grüße"},
		{"GBK under a UTF-8 label", "=?utf-8?B?xOO6ww==?=", "你好"},
		{"8-bit under a US-ASCII label", "=?us-ascii?Q?=C4=E3=BA=C3?=", "你好"},
		{"unknown label", "=?x-nonsense?Q?=E4=BD=A0?=", "你"},
		{"words glued together", "=?utf-8?Q?a?==?utf-8?Q?b?=", "ab"},
		{"word inside other text", "Re:=?utf-8?Q?=C3=A9?=!", "Re:é!"},
		{"raw spaces inside a word", "=?utf-8?Q?a b =C3=A9?=", "a b é"},
		{"raw question mark inside a word", "=?utf-8?Q?a?b?=", "a?b"},
		{"word in quotes", `"=?utf-8?Q?=C3=A9?="`, `"é"`},
		{"end is missing", "=?utf-8?Q?abc", "=?utf-8?Q?abc"},
		{"unknown encoding", "=?utf-8?X?abc?=", "=?utf-8?X?abc?="},
		{"empty word", "a =?utf-8?Q??= b", "a  b"},
		{"line end inside a word", "=?utf-8?Q?a=0D=0ABcc:_x?=", "a  Bcc: x"},
		{"NUL goes, controls become spaces", "a\x00b\x07c", "ab c"},
		{"broken UTF-8 in a word", "=?utf-8?Q?=E4=BD=A0=E4?=", "你\uFFFD"},
		{"lone equals signs", "a=?b =? c ?=", "a=?b =? c ?="},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := DecodeHeader([]byte(c.in)); got != c.want {
				t.Errorf("DecodeHeader(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func TestDecodeHeaderUsesTheFallbackCharset(t *testing.T) {
	t.Parallel()
	raw := []byte("\xcf\xf0\xe8 \xe2\xe5\xf2\xe0 \xf1") // Windows-1251, ends in half a GBK character
	if got := DecodeHeaderAs(raw, "windows-1251"); got != "При вета с" {
		t.Errorf("got %q", got)
	}
}

func addressString(list []Address) string {
	var b strings.Builder
	for _, a := range list {
		fmt.Fprintf(&b, "[%s|%s|%s|%s]", a.Name, a.Local, a.Domain, a.Group)
	}
	return b.String()
}

func TestParseAddressList(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"bare", "a@b.test", "[|a|b.test|]"},
		{"angle", "<a@b.test>", "[|a|b.test|]"},
		{"name", "Ann B. Smith <a@b.test>", "[Ann B. Smith|a|b.test|]"},
		{"quoted name with a comma", `"Smith, Ann" <a@b.test>, c@d.test`, "[Smith, Ann|a|b.test|][|c|d.test|]"},
		{"escapes in a quoted name", `"A \"B\" \\C" <a@b.test>`, `[A "B" \C|a|b.test|]`},
		{"comment as a name", "a@b.test (Ann Smith)", "[Ann Smith|a|b.test|]"},
		{"nested comments", "a(x(y)z)@b.test", "[x(y)z|a|b.test|]"},
		{"RFC 5322 A.1.2", `Who? <one@y.test>`, "[Who?|one|y.test|]"},
		{
			"RFC 5322 A.1.3 groups", "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
			"[Ed Jones|c|a.test|A Group][|joe|where.test|A Group][John|jdoe|one.test|A Group]",
		},
		{"empty group", "Undisclosed recipients:;", ""},
		{"RFC 5322 A.5 comments everywhere", `Pete(A nice \) chap) <pete(his account)@silly.test(his host)>`, "[Pete|pete|silly.test|]"},
		{"RFC 5322 A.6.1 obsolete forms", `Joe Q. Public <john.q.public@example.com>`, "[Joe Q. Public|john.q.public|example.com|]"},
		{"RFC 5322 A.6.3 white space", "jdoe@node . example, a . b @ c", "[|jdoe|node.example|][|a.b|c|]"},
		{"source route", "<@a.test,@b.test:c@d.test>", "[|c|d.test|]"},
		{"quoted local part", `"a b"@c.test, <"x@y"@z.test>`, "[|a b|c.test|][|x@y|z.test|]"},
		{"empty elements", ",a@b.test,,c@d.test,", "[|a|b.test|][|c|d.test|]"},
		{"local part alone", "root", "[|root||]"},
		{"phrase alone", "Ann Smith", "[Ann Smith|||]"},
		{"address beside a name without angles", "Ann Smith a@b.test", "[Ann Smith|a|b.test|]"},
		{"angle never closes", "Ann <a@b.test, Bob <c@d.test>", "[Ann|a|b.test|][Bob|c|d.test|]"},
		{"quote never closes", `"Ann <a@b.test>, c@d.test`, `["Ann|a|b.test|][|c|d.test|]`},
		{"comment never closes", "a@b.test (Ann, c@d.test", "[(Ann|a|b.test|][|c|d.test|]"},
		{"group never closes", "G: a@b.test", "[|a|b.test|G]"},
		{"semicolons as separators", "a@b.test; c@d.test", "[|a|b.test|][|c|d.test|]"},
		{"domain literal", "a@[IPv6:::1], <b@[127.0.0.1]>", "[|a|[IPv6:::1]|][|b|[127.0.0.1]|]"},
		{"encoded name", "=?utf-8?B?5byg5LiJ?= <a@b.test>", "[张三|a|b.test|]"},
		{"encoded name in quotes", `"=?utf-8?B?5byg?= =?utf-8?B?5LiJ?=" <a@b.test>`, "[张三|a|b.test|]"},
		{"comma in an encoded word", "=?utf-8?Q?Smith,_Ann?= <a@b.test>", "[Smith, Ann|a|b.test|]"},
		{"address in an encoded word", "=?utf-8?Q?<x@y.test>,?= <a@b.test>", "[<x@y.test>,|a|b.test|]"},
		{"GB 2312 name", "=?gb2312?B?1cXI/Q==?= <a@b.test>", "[张三|a|b.test|]"},
		{"raw GBK name", "\xd5\xc5\xc8\xfd <a@b.test>", "[张三|a|b.test|]"},
		{"name glued to the angle", `"Ann"<a@b.test>`, "[Ann|a|b.test|]"},
		{"two angles", "Ann <a@b.test> <c@d.test>", "[Ann|a|b.test|]"},
		{"null address", "<>", ""},
		{"UTF-8 address", "张三 <张三@例え.test>", "[张三|张三|例え.test|]"},
		{"line ends", "Ann\r\n <a@b.test>,\r\n\tc@d.test", "[Ann|a|b.test|][|c|d.test|]"},
		{"encoded CRLF in a name", "=?utf-8?Q?a=0D=0ABcc:_x?= <a@b.test>", "[a  Bcc: x|a|b.test|]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := addressString(ParseAddressList([]byte(c.in), 100)); got != c.want {
				t.Errorf("ParseAddressList(%q)\n got %s\nwant %s", c.in, got, c.want)
			}
		})
	}
}

func TestParseAddressListStopsAtTheLimit(t *testing.T) {
	t.Parallel()
	in := []byte(strings.Repeat("a@b.test,", 50))
	for _, limit := range []int{0, 1, 7, 50, 99} {
		if got := len(ParseAddressList(in, limit)); got != min(limit, 50) {
			t.Errorf("limit %d: %d addresses", limit, got)
		}
	}
}

func TestAddrQuotesTheLocalPart(t *testing.T) {
	t.Parallel()
	for want, a := range map[string]Address{
		"a.b@c.test":      {Local: "a.b", Domain: "c.test"},
		`"a b"@c.test`:    {Local: "a b", Domain: "c.test"},
		`"a\"\\"@c.test`:  {Local: `a"\`, Domain: "c.test"},
		`".a"@c.test`:     {Local: ".a", Domain: "c.test"},
		"张三@例え.test":      {Local: "张三", Domain: "例え.test"},
		"root":            {Local: "root"},
		`"a,b@x"@c.test`:  {Local: "a,b@x", Domain: "c.test"},
		`"a..b"@c.test`:   {Local: "a..b", Domain: "c.test"},
		"a+b=c/d@c.test":  {Local: "a+b=c/d", Domain: "c.test"},
		`"a:b;c"@d.e.f.g`: {Local: "a:b;c", Domain: "d.e.f.g"},
	} {
		if got := a.Addr(); got != want {
			t.Errorf("%+v: %s, want %s", a, got, want)
		}
		back := ParseAddressList([]byte(want), 2)
		if len(back) != 1 || back[0] != a {
			t.Errorf("%s reads back as %+v", want, back)
		}
	}
}

func TestParseDate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"Fri, 21 Nov 1997 09:55:06 -0600", "1997-11-21T09:55:06-06:00"},
		{"Tue, 1 Jul 2003 10:52:37 +0200", "2003-07-01T10:52:37+02:00"},
		{"1 Jul 2003 10:52 +0000", "2003-07-01T10:52:00Z"},
		{"Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n               -0330 (Newfoundland Time)", "1969-02-13T23:32:00-03:30"},
		{"21 Nov 97 09:55:06 GMT", "1997-11-21T09:55:06Z"},
		{"21 Nov 05 09:55:06 GMT", "2005-11-21T09:55:06Z"},
		{"21 Nov 105 09:55:06 GMT", "2005-11-21T09:55:06Z"},
		{"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", ""},
		{"Fri, 21 Nov 1997 09:55:06 EST", "1997-11-21T09:55:06-05:00"},
		{"Fri, 21 Nov 1997 09:55:06 PDT", "1997-11-21T09:55:06-07:00"},
		{"Fri, 21 Nov 1997 09:55:06 Z", "1997-11-21T09:55:06Z"},
		{"Fri, 21 Nov 1997 09:55:06 K", "1997-11-21T09:55:06Z"},
		{"Fri, 21 Nov 1997 09:55:06 XYZ", "1997-11-21T09:55:06Z"},
		{"Fri, 21 Nov 1997 09:55:06", "1997-11-21T09:55:06Z"},
		{"Fri, 21 Nov 1997 09:55:06 -0000", "1997-11-21T09:55:06Z"},
		{"Fri, 21 Nov 1997 09:55:06 +08:00", "1997-11-21T09:55:06+08:00"},
		{"Fri, 21 Nov 1997 09:55:06 GMT+0800", "1997-11-21T09:55:06+08:00"},
		{"Fri, 21 Nov 1997 09:55:06 +0800 (CST)", "1997-11-21T09:55:06+08:00"},
		{"Fri, 21 Nov 1997 09:55:06 +8", "1997-11-21T09:55:06+08:00"},
		{"Fri, 21 Nov 1997 09:55:06 +9999", "1997-11-21T09:55:06Z"},
		{"Fri Nov 21 09:55:06 1997", "1997-11-21T09:55:06Z"},
		{"Fri Nov 21 09:55:06 EST 1997", "1997-11-21T09:55:06-05:00"},
		{"21-Nov-1997 09:55:06 +0100", "1997-11-21T09:55:06+01:00"},
		{"Friday, 21-Nov-97 09:55:06 GMT", "1997-11-21T09:55:06Z"},
		{"21 November 1997 09.55.06 +0100", "1997-11-21T09:55:06+01:00"},
		{"1997-11-21T09:55:06+01:00", "1997-11-21T09:55:06+01:00"},
		{"1997-11-21 09:55:06.123 Z", "1997-11-21T09:55:06Z"},
		{"Fri, 21 Nov 1997 9:55:06 PM +0000", "1997-11-21T21:55:06Z"},
		{"Fri, 21 Nov 1997 23:59:60 +0000", "1997-11-21T23:59:59Z"},
		{"21 Nov 1997", "1997-11-21T00:00:00Z"},
		{"Sat, 30 Feb 1997 09:55:06 +0000", ""},
		{"Fri, 32 Nov 1997 09:55:06 +0000", ""},
		{"Fri, 21 Nov 1997 25:55:06 +0000", ""},
		{"Fri, 21 Nov 1997 09:65:06 +0000", ""},
		{"Fri, 21 Nov 99999999 09:55:06 +0000", ""},
		{"yesterday", ""},
		{"", ""},
		{"21 Nov", ""},
		{"(21 Nov 1997", ""},
	} {
		got, ok := ParseDate([]byte(c.in))
		if s := got.Format(time.RFC3339); ok != (c.want != "") || ok && s != c.want {
			t.Errorf("ParseDate(%q) = %s, %v, want %q", c.in, s, ok, c.want)
		}
	}
}

func TestMessageIDs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"<a@b>", "a@b"},
		{" <a@b>\r\n\t<c@d> ", "a@b c@d"},
		{"<a@b><c@d>", "a@b c@d"},
		{"Your message of Monday <a@b> from \"x\"", "a@b"},
		{"a@b", "a@b"},
		{"no id here", ""},
		{"<>", ""},
		{"<a@b", ""},
		{"<a <b@c>", "b@c"},
		{"<a b@c>", "ab@c"},
		{"<" + strings.Repeat("x", 2000) + "@y>", ""},
		{"", ""},
	} {
		if got := strings.Join(MessageIDs([]byte(c.in)), " "); got != c.want {
			t.Errorf("MessageIDs(%q) = %q, want %q", c.in, got, c.want)
		}
	}
	if n := len(MessageIDs([]byte(strings.Repeat("<a@b>", 5000)))); n != maxMessageIDs {
		t.Errorf("%d ids are kept", n)
	}
}

func TestBaseSubject(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, want string
		reply    bool
	}{
		{"Hello", "Hello", false},
		{"Re: Hello", "Hello", true},
		{"RE: re : Fwd: FW: Hello", "Hello", true},
		{"Re[2]: Hello", "Hello", true},
		{"Re [x] : Hello", "Hello", true},
		{"[list] Re: Hello", "Hello", true},
		{"[list] Hello", "Hello", false},
		{"Re: [list] [more] Hello", "Hello", true},
		{"[list]", "[list]", false},
		{"[a] [b]", "[b]", false},
		{"Re: [list]", "[list]", true},
		{"Hello (fwd) (FWD) ", "Hello", true},
		{"[fwd: Hello]", "Hello", true},
		{"[Fwd: Re: [x] Hello (fwd)]", "Hello", true},
		{"[fwd: Hello", "[fwd: Hello", false},
		{"  many\t\tspaces \r\n here ", "many spaces here", false},
		{"Regarding: x", "Regarding: x", false},
		{"Re:", "", true},
		{"", "", false},
		{"你好", "你好", false},
		{"Re: [unclosed Hello", "[unclosed Hello", true},
	} {
		if got := BaseSubject(c.in); got != c.want || IsReply(c.in) != c.reply {
			t.Errorf("BaseSubject(%q) = %q, %v, want %q, %v", c.in, got, IsReply(c.in), c.want, c.reply)
		}
	}
}

func TestParams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"simple", `text/plain; charset=utf-8; format="flowed"`, `charset=utf-8 format=flowed`},
		{
			"RFC 2231 section 3", `message/external-body; access-type=URL; URL*0="ftp://"; URL*1="cs.utk.edu/x"`,
			`access-type=URL url=ftp://cs.utk.edu/x`,
		},
		{"RFC 2231 section 4", `application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A`, `title=This is ***fun***`},
		{"RFC 2231 section 4.1", `application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20; ` +
			`title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2="isn't it!"`, `title=This is even more ***fun*** isn't it!`},
		{"pieces out of order", `a/b; name*1=b; name*0=a`, `name=ab`},
		{"piece missing", `a/b; name*0=a; name*2=.exe`, `name=a.exe`},
		{"GB 2312 in RFC 2231", `a/b; filename*=gb2312''%C4%E3%BA%C3.txt`, `filename=你好.txt`},
		{"GB 18030 split inside a character", `a/b; name*0*=gb18030''%C4; name*1*=%E3.txt`, `name=你.txt`},
		{"percent without digits", `a/b; name*=utf-8''100%25%zz%`, `name=100%%zz%`},
		{"no charset in RFC 2231", `a/b; name*=%41bc`, `name=Abc`},
		{"raw UTF-8", `a/b; name="你好.txt"`, `name=你好.txt`},
		{"raw GBK", "a/b; name=\"\xc4\xe3\xba\xc3.txt\"", `name=你好.txt`},
		{"encoded word in quotes", `a/b; name="=?gb2312?B?xOO6ww==?=.txt"`, `name=你好.txt`},
		{"encoded word without quotes", `a/b; name==?utf-8?B?5L2g5aW9?=`, `name=你好`},
		{"encoded word inside RFC 2231", `a/b; name*0="=?utf-8?B?5L2g?="; name*1="=?utf-8?B?5aW9?="`, `name=你好`},
		{"first duplicate counts", `a/b; x=1; x=2`, `x=1`},
		{"extended counts more than plain", `a/b; name=plain; name*=utf-8''ext`, `name=ext`},
		{"no quotes around spaces", `a/b; name=my file.txt; x=1`, `name=my file.txt x=1`},
		{"missing semicolon", `a/b; name="x" charset=utf-8 format=flowed`, `name=x charset=utf-8 format=flowed`},
		{"quote never closes", `a/b; name="my file.txt`, `name=my file.txt`},
		{"text after the quote", `a/b; name="a.txt".exe; x=1`, `name=a.txt.exe x=1`},
		{"comments", `a/b (c;d=e); (f) x=1 (g); y=2`, `x=1 y=2`},
		{"comment never closes", `a/b; (x=1; y=2`, `(x=1 y=2`},
		{"escapes", `a/b; name="a\"b\\c"`, `name=a"b\c`},
		{"semicolon in quotes", `a/b; name="a;b"`, `name=a;b`},
		{"spaces around the equals sign", `a/b; name = "x" ; y= z`, `name=x y=z`},
		{"empty value", `a/b; name=; x=""`, `name= x=`},
		{"name without value", `a/b; name; x=1`, `x=1`},
		{"bad piece number", `a/b; name*x=1; name*99999999999=2; x=1`, `x=1`},
		{"line end in a value", "a/b; name*=utf-8''a%0D%0Ab%00", `name=a  b`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, _, ps, _ := parseMediaType([]byte(c.in))
			var got []string
			for _, p := range ps {
				got = append(got, p.Name+"="+p.Value)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%q\n got %s\nwant %s", c.in, s, c.want)
			}
		})
	}
}

func TestMediaType(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"TEXT/HTML": "text/html", " text / plain ": "text/plain", "text": "text/plain", "multipart": "multipart/mixed",
		"": "text/plain", "foo": "text/plain", "/x": "text/plain", "image/": "text/plain", "(c)image/(d)png": "image/png",
		"application/vnd.ms-excel;name=x": "application/vnd.ms-excel",
	} {
		p := ParseBytes([]byte("Content-Type: " + in + "\r\n\r\n"))
		if p.MediaType() != want {
			t.Errorf("%q is read as %s, want %s", in, p.MediaType(), want)
		}
	}
}

func TestFileNamesListsWhatReadersMayShow(t *testing.T) {
	t.Parallel()
	p := ParseBytes([]byte("Content-Type: application/zip; name=b.txt; name=c.exe\r\n" +
		"Content-Disposition: attachment; filename=d.js; filename*=utf-8''a.txt\r\n\r\n"))
	if p.FileName() != "a.txt" {
		t.Errorf("FileName is %q", p.FileName())
	}
	if got := p.FileNames(); !slices.Equal(got, []string{"a.txt", "b.txt", "d.js", "c.exe"}) {
		t.Errorf("FileNames are %q", got)
	}
}

func TestManyParametersKeepTheOnesThatMatter(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("Content-Type: multipart/mixed")
	for i := range 5000 {
		fmt.Fprintf(&b, ";x%d=y", i)
	}
	b.WriteString("; boundary=b; name=evil.exe\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n")
	p := ParseBytes([]byte(b.String()))
	if len(p.Parts) != 1 || p.FileName() != "evil.exe" || !p.Defects.Has(DefectParamLimit) || len(p.Params) > maxParams+10 {
		t.Errorf("%d parts, name %q, %s, %d parameters", len(p.Parts), p.FileName(), p.Defects, len(p.Params))
	}
}

package smtp

import (
	"math"
	"strings"
	"testing"
)

func TestParseMail(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		from string
		want Mail // From is compared by its text
		code int  // of the refusal
		enh  string
	}{
		{in: " FROM:<>"},
		{in: " FROM:<a@example.test>", from: "a@example.test"},
		{in: " from: <a@example.test>", from: "a@example.test"},
		{in: " FROM:<@one.test,@two.test:a@example.test>", from: "a@example.test"},
		{in: ` FROM:<"a>b"@example.test> SIZE=1`, from: `"a>b"@example.test`, want: Mail{Size: 1}},
		{in: " FROM:<a@example.test> SIZE=1000 BODY=8BITMIME", from: "a@example.test", want: Mail{Size: 1000, Body: Body8Bit}},
		{in: " FROM:<a@example.test>  size=99999999999999999999  body=binarymime ", from: "a@example.test", want: Mail{Size: math.MaxInt64, Body: BodyBinary}},
		{in: " FROM:<a@example.test> RET=hdrs ENVID=QQ+2B314159", from: "a@example.test", want: Mail{Ret: "HDRS", EnvID: "QQ+314159"}},
		{in: " FROM:<a@example.test> AUTH=<> BODY=7BIT", from: "a@example.test", want: Mail{AuthSent: "<>"}},
		{in: " FROM:<用户@例子.测试> SMTPUTF8", from: "用户@xn--fsqu00a.xn--0zwm56d", want: Mail{UTF8: true}},

		{in: " FROM:<用户@例子.测试>", code: 553, enh: "5.6.7"},
		{in: " FROM:<a@例子.测试>", code: 553, enh: "5.6.7"},
		{in: "", code: 501, enh: "5.5.2"},
		{in: " TO:<a@example.test>", code: 501, enh: "5.5.2"},
		{in: " FROM:a@example.test", code: 501, enh: "5.5.2"},
		{in: " FROM:<a@example.test", code: 501, enh: "5.5.2"},
		{in: " FROM:<a@example.test>SIZE=1", code: 501, enh: "5.5.2"},
		{in: " FROM:<a@b@example.test>", code: 553, enh: "5.1.7"},
		{in: " FROM:<@one.test>", code: 553, enh: "5.1.7"},
		{in: " FROM:<one.test:a@example.test>", code: 553, enh: "5.1.7"},
		{in: " FROM:<a\x00@example.test>", code: 553, enh: "5.1.7"},
		{in: " FROM:<a@example.test> SIZE=-1", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> SIZE=+1", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> SIZE=", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> SIZE", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> SIZE=1 SIZE=1", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> SIZE=999999999999999999999", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> BODY=9BIT", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> SMTPUTF8=1", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> RET=ALL", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> ENVID=a+0D+0Ab", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> ENVID=a+2b", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> ENVID=a+", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> ENVID=" + strings.Repeat("a", 101), code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> XYZZY=1", code: 555, enh: "5.5.4"},
		{in: " FROM:<a@example.test> =1", code: 501, enh: "5.5.4"},
		{in: " FROM:<a@example.test> A\tB", code: 501, enh: "5.5.4"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			t.Parallel()
			m, refusal := ParseMail([]byte(tc.in))
			if checkRefusal(t, refusal, tc.code, tc.enh) {
				return
			}
			if m.From.String() != tc.from {
				t.Errorf("from %q", m.From)
			}
			m.From = tc.want.From
			if m != tc.want {
				t.Errorf("got %+v, want %+v", m, tc.want)
			}
		})
	}
}

func checkRefusal(t *testing.T, refusal *Reply, code int, enhanced string) bool {
	t.Helper()
	if (refusal == nil) != (code == 0) {
		t.Fatalf("refusal %v, want %d", refusal, code)
	}
	if refusal != nil && (refusal.Code != code || refusal.Enhanced.String() != enhanced) {
		t.Fatalf("refusal %v, want %d %s", refusal, code, enhanced)
	}
	return refusal != nil
}

func TestParseRcpt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in, to string
		notify Notify
		orcpt  string
		code   int
		enh    string
	}{
		{in: " TO:<a@example.test>", to: "a@example.test"},
		{in: " to: <@relay.test:a@example.test>", to: "a@example.test"},
		{in: " TO:<Postmaster>", to: "Postmaster"},
		{in: " TO:<a@example.test> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bb@example.test", to: "a@example.test", notify: NotifySuccess | NotifyDelay, orcpt: "rfc822;a+b@example.test"},
		{in: " TO:<a@example.test> NOTIFY=NEVER", to: "a@example.test", notify: NotifyNever},
		{in: ` TO:<a@example.test> ORCPT=UTF-8;\x{7528}+2B\x{6237}@example.test`, to: "a@example.test", orcpt: "utf-8;用+户@example.test"},
		{in: " TO:<a@example.test> ORCPT=utf-8;用户@example.test", to: "a@example.test", orcpt: "utf-8;用户@example.test"},

		{in: " TO:<>", code: 553, enh: "5.1.3"},
		{in: " TO:<a>", code: 553, enh: "5.1.3"},
		{in: " TO:<a@example.test", code: 501, enh: "5.5.2"},
		{in: " TO:<a@example.test> NOTIFY=NEVER,DELAY", code: 501, enh: "5.5.4"},
		{in: " TO:<a@example.test> NOTIFY=DELAY,DELAY", code: 501, enh: "5.5.4"},
		{in: " TO:<a@example.test> NOTIFY=", code: 501, enh: "5.5.4"},
		{in: " TO:<a@example.test> ORCPT=a@example.test", code: 501, enh: "5.5.4"},
		{in: " TO:<a@example.test> ORCPT=rfc822;", code: 501, enh: "5.5.4"},
		{in: " TO:<a@example.test> ORCPT=rfc822;+0A", code: 501, enh: "5.5.4"},
		{in: " TO:<a@example.test> ORCPT=rfc822;\xc3\xa4@example.test", code: 501, enh: "5.5.4"},
		{in: ` TO:<a@example.test> ORCPT=utf-8;\x{D800}@example.test`, code: 501, enh: "5.5.4"},
		{in: ` TO:<a@example.test> ORCPT=utf-8;\x{0A}@example.test`, code: 501, enh: "5.5.4"},
		{in: " TO:<a@example.test> SIZE=1", code: 555, enh: "5.5.4"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			t.Parallel()
			r, refusal := ParseRcpt([]byte(tc.in))
			if checkRefusal(t, refusal, tc.code, tc.enh) {
				return
			}
			if r.To.String() != tc.to || r.Notify != tc.notify || r.ORcpt != tc.orcpt {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestReplyOnTheWire(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word ", 150)
	for _, tc := range []struct {
		name string
		r    *Reply
		utf8 bool
		want string
	}{
		{"with an enhanced code", Errorf(550, "5.1.1", "no such mailbox"), false, "550 5.1.1 no such mailbox\r\n"},
		{"without", &Reply{Code: 354, Text: "go on"}, false, "354 go on\r\n"},
		{"several lines", Errorf(250, "2.0.0", "one\ntwo"), false, "250-2.0.0 one\r\n250 2.0.0 two\r\n"},
		{"an injection", Errorf(550, "5.1.1", "no <a\r\x00\x7f\x1b[2J>"), false, "550 5.1.1 no <a????[2J>\r\n"},
		{"UTF-8 to a peer that doesn't take it", Errorf(550, "5.1.1", "用户"), false, "550 5.1.1 ??\r\n"},
		{"UTF-8", Errorf(550, "5.1.1", "用\u0085\xff户"), true, "550 5.1.1 用??户\r\n"},
		{"a wrong enhanced code", Errorf(451, "oops", "later"), false, "451 4.0.0 later\r\n"},
		{"a format", Errorf(552, "5.3.4", "over %d octets", 10), false, "552 5.3.4 over 10 octets\r\n"},
		{"a long line", Errorf(550, "5.7.1", "%s", long), false, "550-5.7.1 " + strings.TrimSuffix(long[:480], " ") + "\r\n550 5.7.1 " + long[480:] + "\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := string(tc.r.Append(nil, tc.utf8)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestReplyKinds(t *testing.T) {
	t.Parallel()
	r := Errorf(451, "4.3.0", "later")
	if !r.Temporary() || r.Permanent() || r.Error() != "451 4.3.0 later" {
		t.Errorf("%v", r)
	}
	for _, s := range []string{"", "5", "5.1", "5.1.1.1", "3.1.1", "5.1000.1", "5.+1.1", "5..1", "a.b.c"} {
		if e, ok := ParseEnhanced(s); ok {
			t.Errorf("%q became %v", s, e)
		}
	}
	if e, ok := ParseEnhanced("5.999.0"); !ok || e.String() != "5.999.0" {
		t.Errorf("%v, %v", e, ok)
	}
}

func TestNotifyWords(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"NEVER", "SUCCESS", "SUCCESS,FAILURE,DELAY"} {
		if n, ok := parseNotify(s); !ok || n.Words() != s {
			t.Errorf("%q became %q", s, n.Words())
		}
	}
	if NotifyDefault.Words() != "" {
		t.Error("the default has words")
	}
}

func FuzzParams(f *testing.F) {
	f.Add(" FROM:<@a.test:b@c.test> SIZE=1 ENVID=a+2B")
	f.Add(` TO:<"a>b"@c.test> ORCPT=utf-8;\x{4E2D}a@b NOTIFY=DELAY`)
	f.Fuzz(func(t *testing.T, s string) {
		m, refusal := ParseMail([]byte(s))
		if refusal == nil {
			if m.Size < 0 || len(m.EnvID) > 100 || strings.ContainsAny(m.From.String()+m.EnvID+m.Ret, "\r\n\x00") {
				t.Fatalf("%q: %+v", s, m)
			}
		}
		r, refusal := ParseRcpt([]byte(s))
		if refusal == nil {
			if r.To.IsNull() || strings.ContainsAny(r.To.String()+r.ORcpt, "\r\n\x00") {
				t.Fatalf("%q: %+v", s, r)
			}
		}
		if x, ok := DecodeXtext(EncodeXtext(s)); len(s) < 300 && (!ok || x != s) {
			t.Fatalf("xtext of %q: %q, %v", s, x, ok)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add("one\ntwo", true)
	f.Add(strings.Repeat("用", 400), true)
	f.Fuzz(func(t *testing.T, text string, utf8OK bool) {
		wire := string(Errorf(550, "5.1.1", "%s", text).Append(nil, utf8OK))
		lines := strings.Split(strings.TrimSuffix(wire, "\r\n"), "\r\n")
		for i, line := range lines {
			sep := "-"
			if i == len(lines)-1 {
				sep = " "
			}
			if !strings.HasPrefix(line, "550"+sep+"5.1.1 ") || len(line) > 510 || strings.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("%q: line %q", text, line)
			}
		}
	})
}

func BenchmarkParseMail(b *testing.B) {
	in := []byte(" FROM:<somebody@mail.example.test> SIZE=10240 BODY=8BITMIME")
	b.ReportAllocs()
	for b.Loop() {
		if _, refusal := ParseMail(in); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

package queue

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
	"waxwing/internal/smtp"
)

var update = flag.Bool("update", false, "write the golden notifications anew")

// boundaries are random: the goldens hold a word in their place.
func stable(t *testing.T, raw []byte) string {
	t.Helper()
	p := message.ParseBytes(raw)
	b := p.Params.Get("boundary")
	if b == "" {
		t.Fatalf("no boundary:\n%s", raw)
	}
	return strings.ReplaceAll(string(raw), b, "BOUNDARY")
}

func TestNotificationGoldens(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.FixedZone("", 8*3600))
	header := []byte("From: a@here.test\r\nMessage-ID: <orig@here.test>\r\nSubject: hello\r\n")
	for name, n := range map[string]Notification{
		"failed": {
			Kind: Failed, To: address.Address{Local: "a", Domain: "here.test"}, EnvID: "QQ314", Original: header,
			Recipients: []NotifiedRecipient{
				{To: "x@b.test", ORcpt: "rfc822;orig+1@b.test", Status: smtp.Enhanced{Class: 5, Subject: 1, Detail: 1}, Diagnostic: "550-5.1.1 no such\n550 5.1.1 user", Host: "mx.b.test [192.0.2.1]", LastAttempt: at},
				{To: "y@c.test", Status: smtp.Enhanced{Class: 4, Subject: 4, Detail: 1}, Diagnostic: "no connection to mx.c.test [192.0.2.2]: connection refused", LastAttempt: at, Expired: true},
			},
		},
		"failed-utf8": {
			Kind: Failed, To: address.Address{Local: "用户", Domain: "here.test"}, UTF8: true, Original: []byte("Subject: 主题\r\n\r\n正文\r\n"), Whole: true,
			Recipients: []NotifiedRecipient{{To: "收件人@xn--fsq.test", ORcpt: "utf-8;收件人@例.test", Status: smtp.Enhanced{Class: 5, Subject: 6, Detail: 7}, Diagnostic: "553 5.6.7 不支持", LastAttempt: at}},
		},
		"failed-utf8-to-ascii": {
			Kind: Failed, To: address.Address{Local: "a", Domain: "here.test"}, Original: header,
			Recipients: []NotifiedRecipient{{To: "收件人@b.test", ORcpt: "utf-8;收@b.test", Status: smtp.Enhanced{Class: 5, Subject: 6, Detail: 7}, Diagnostic: "SMTPUTF8 is not offered", LastAttempt: at}},
		},
		"delayed": {
			Kind: Delayed, To: address.Address{Local: "a", Domain: "here.test"}, Expires: at.Add(100 * time.Hour), Original: header,
			Recipients: []NotifiedRecipient{{To: "x@b.test", Status: smtp.Enhanced{Class: 4, Subject: 2, Detail: 1}, Diagnostic: "450 4.2.1 busy", Host: "mx.b.test", LastAttempt: at}},
		},
		"relayed": {
			Kind: Relayed, To: address.Address{Local: "a", Domain: "here.test"}, Original: header,
			Recipients: []NotifiedRecipient{{To: "x@b.test", Status: smtp.Enhanced{Class: 2}, Diagnostic: "250 2.0.0 ok", Host: "mx.b.test", LastAttempt: at}},
		},
		"delivered": {
			Kind: Delivered, To: address.Address{Local: "a", Domain: "here.test"}, Original: header,
			Recipients: []NotifiedRecipient{{To: "x@here.test", Status: smtp.Enhanced{Class: 2, Subject: 1, Detail: 5}}, {To: "all@here.test", Action: "expanded", Status: smtp.Enhanced{Class: 2, Subject: 1, Detail: 5}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n.Hostname, n.TraceID, n.Now, n.Arrived = "mx.here.test", "01TRACE", at, at.Add(-time.Hour)
			raw, err := n.Compose()
			if err != nil {
				t.Fatal(err)
			}
			again, err := n.Compose()
			if err != nil || stable(t, again) != stable(t, raw) {
				t.Error("the same thing is told in two ways")
			}
			if d := message.ParseBytes(raw).AllDefects(); d != 0 {
				t.Errorf("defects %v", d.Names())
			}
			file := "testdata/" + name + ".eml"
			if *update {
				if err := os.WriteFile(file, []byte(stable(t, raw)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := stable(t, raw); got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Whatever a server said or a sender gave, a notification is a sound message whose machine part has its own lines only.
func FuzzCompose(f *testing.F) {
	f.Add("550 5.1.1 no\r\nAction: delivered", "rfc822;x@b\r\nStatus: 2.0.0", "mx\r\nX: y", "env\x00", "x@b.test", []byte("Subject: x\r\n"), true)
	f.Add("\xff\xfe", "utf-8;用户\\", "", "用", "用户@b.test", []byte("\r\n.\r\nFrom x\n--b"), false)
	f.Fuzz(func(t *testing.T, diagnostic, orcpt, host, env, to string, original []byte, utf8 bool) {
		n := Notification{
			Kind: Failed, Hostname: "mx.here.test", To: address.Address{Local: "a", Domain: "here.test"}, Now: begin, TraceID: "T", EnvID: env, UTF8: utf8, Original: original,
			Recipients: []NotifiedRecipient{{To: to, ORcpt: orcpt, Status: smtp.Enhanced{Class: 5}, Diagnostic: diagnostic, Host: host, LastAttempt: begin}},
		}
		raw, err := n.Compose()
		if err != nil {
			t.Fatal(err)
		}
		p := message.ParseBytes(raw)
		if p.Subtype != "report" || len(p.Parts) < 2 {
			t.Fatalf("no report:\n%q", raw)
		}
		status := string(raw[p.Parts[1].BodyOffset:p.Parts[1].End])
		for _, field := range []string{"Action: ", "Status: ", "Reporting-MTA: ", "Final-Recipient: "} {
			if strings.Count("\r\n"+status, "\r\n"+field) != 1 {
				t.Errorf("%s stands %d times in\n%q", field, strings.Count("\r\n"+status, "\r\n"+field), status)
			}
		}
		for line := range strings.SplitSeq(strings.TrimRight(status, "\r\n"), "\r\n") {
			if strings.ContainsAny(line, "\r\n\x00") || !utf8 && !isASCII(line) {
				t.Errorf("line %q", line)
			}
		}
	})
}

func TestHeaderIsCutAtALine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		cut  bool
		want string
	}{
		{"a: b\r\nc: d\r\n\r\nbody", false, "a: b\r\nc: d\r\n"},
		{"a: b\r\nc: d", true, "a: b\r\n"},
		{"a: b", true, ""},
		{"a: b\r\n", false, "a: b\r\n"},
		{"\r\nbody", false, ""},
		{"", false, ""},
	} {
		if got := string(cutHeader([]byte(tc.in), tc.cut)); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}

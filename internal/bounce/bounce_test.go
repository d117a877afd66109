package bounce

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"waxwing/internal/smtp"
)

func TestRepliesOfProvidersAreSorted(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/replies.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(lines) < 100 {
		t.Fatalf("only %d replies", len(lines))
	}
	for _, line := range lines {
		f := strings.SplitN(line, "|", 4)
		r := Reply{Host: f[2], Text: f[3], Stage: "RCPT"}
		code, rest, _ := strings.Cut(f[3], " ")
		if r.Code, err = strconv.Atoi(code); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		word, _, _ := strings.Cut(rest, " ")
		r.Enhanced, _ = smtp.ParseEnhanced(word)
		if got := Classify(r); string(got.Category) != f[0] || string(got.Action) != f[1] {
			t.Errorf("%s: %s\n\tgot %s, %s by %q, want %s, %s", f[2], f[3], got.Category, got.Action, got.Rule, f[0], f[1])
		}
	}
}

func TestWhatHappenedHereIsSorted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stage  string
		code   smtp.Enhanced
		want   Category
		action Action
	}{
		{"resolve", smtp.Enhanced{Class: 5, Subject: 1, Detail: 2}, NoDomain, Hard},
		{"resolve", smtp.Enhanced{Class: 5, Subject: 1, Detail: 10}, NoDomain, Hard},
		{"resolve", smtp.Enhanced{Class: 4, Subject: 4, Detail: 3}, DNS, Soft},
		{"resolve", smtp.Enhanced{Class: 5, Subject: 4, Detail: 6}, Loop, Soft},
		{"connect", smtp.Enhanced{Class: 4, Subject: 4, Detail: 1}, Network, PutOff},
		{"end of data", smtp.Enhanced{Class: 4, Subject: 4, Detail: 2}, Network, PutOff},
		{"STARTTLS", smtp.Enhanced{Class: 4, Subject: 7, Detail: 5}, TLS, Soft},
		{"MAIL", smtp.Enhanced{Class: 5, Subject: 3, Detail: 4}, Size, Soft},
		{"MAIL", smtp.Enhanced{Class: 5, Subject: 6, Detail: 7}, Content, Soft},
	} {
		if got := Classify(Reply{Stage: c.stage, Enhanced: c.code}); got.Category != c.want || got.Action != c.action {
			t.Errorf("%s %s: got %s, %s, want %s, %s", c.stage, c.code, got.Category, got.Action, c.want, c.action)
		}
	}
	if v := Classify(Reply{Code: 250, Text: "250 no such user"}); v.Category != None || v.Action != "" {
		t.Errorf("a delivery is sorted as %v", v)
	}
}

func TestProviderIsTheEndOfAHostsName(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"ASPMX.L.GOOGLE.COM.":                    "google",
		"gmail-smtp-in.l.google.com [192.0.2.1]": "google",
		"x.mail.protection.outlook.com":          "microsoft",
		"notgoogle.com":                          "other",
		"google.com.example.org":                 "other",
		"":                                       "other",
		"mx3.qq.com":                             "tencent",
	} {
		if got := Provider(host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

// FuzzClassify holds that whatever a server says gets one of the known categories, and that a temporary refusal never makes an
// address dead.
func FuzzClassify(f *testing.F) {
	f.Add(550, 5, 1, 1, "no such user", "RCPT", "mx1.qq.com")
	f.Add(0, 4, 4, 1, "\xff\x00", "connect", "")
	all := Categories()
	f.Fuzz(func(t *testing.T, code, class, subject, detail int, text, stage, host string) {
		v := Classify(Reply{Code: code, Enhanced: smtp.Enhanced{Class: class, Subject: subject, Detail: detail}, Text: text, Stage: stage, Host: host})
		if v.Category != None && !slices.Contains(all, v.Category) {
			t.Fatalf("category %q", v.Category)
		}
		if code/100 == 4 && v.Action == Hard {
			t.Fatalf("%d %q makes an address dead: %v", code, text, v)
		}
	})
}

func BenchmarkClassify(b *testing.B) {
	r := Reply{Code: 550, Text: "550 words that no rule of the table knows, of a length as servers write them to people", Host: "mx.example.test"}
	b.ReportAllocs()
	for b.Loop() {
		Classify(r)
	}
}

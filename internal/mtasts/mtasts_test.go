package mtasts

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseRecord(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		texts []string
		want  string // "": no record
	}{
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"},
		{[]string{"v=spf1 -all", "v=STSv1;id=1"}, "1"},
		{[]string{"v=STSv1 ; id = a ; later=x"}, "a"},
		{nil, ""},
		{[]string{"v=STSv1; id=1", "v=STSv1; id=2"}, ""},
		{[]string{"v=STSv1; id="}, ""},
		{[]string{"v=STSv1; id=not-this"}, ""},
		{[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, ""},
		{[]string{"v=STSv10; id=1"}, ""},
		{[]string{" v=STSv1; id=1"}, ""},
	} {
		id, err := ParseRecord(tc.texts)
		if id != tc.want || (err == nil) != (tc.want != "") || err != nil && !errors.Is(err, ErrNoRecord) {
			t.Errorf("%q: %q, %v", tc.texts, id, err)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	p, err := ParsePolicy("version: STSv1\r\nmode: enforce\r\nmx: Mail.Example.com\r\nmx: *.example.net\r\nfuture: x\r\nmax_age: 604800\r\nmode: none\r\n")
	if err != nil || p.Mode != Enforce || fmt.Sprint(p.MX) != "[mail.example.com *.example.net]" || p.Age != 7*24*time.Hour {
		t.Fatalf("%+v, %v", p, err)
	}
	again, err := ParsePolicy(p.String())
	if err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
		t.Errorf("written and read: %+v, %v", again, err)
	}
	if p, err := ParsePolicy("version: STSv1\nmode: none\nmax_age: 99999999"); err != nil || p.Age != MaxAge*time.Second {
		t.Errorf("a long age: %+v, %v", p, err)
	}
	for what, body := range map[string]string{
		"empty": "", "version": "version: STSv2\nmode: none\nmax_age: 1", "mode": "version: STSv1\nmode: strict\nmx: a.test\nmax_age: 1",
		"no mx": "version: STSv1\nmode: enforce\nmax_age: 1", "no age": "version: STSv1\nmode: none", "age": "version: STSv1\nmode: none\nmax_age: -1",
		"mx": "version: STSv1\nmode: enforce\nmx: a.*.test\nmax_age: 1", "line": "version: STSv1\nmode none\nmax_age: 1",
		"long": "version: STSv1\nmode: none\nmax_age: 1\n" + strings.Repeat("x: y\n", 20_000),
	} {
		if p, err := ParsePolicy(body); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	p := Policy{MX: []string{"mail.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.example.com.": true, "x.mail.example.com": false, "mail.example.org": false,
		"a.example.net": true, "a.b.example.net": false, "example.net": false, "": false,
	} {
		if p.Match(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1")
	f.Fuzz(func(t *testing.T, body string) {
		p, err := ParsePolicy(body)
		if err == nil {
			if again, err := ParsePolicy(p.String()); err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
				t.Errorf("%+v became %+v, %v", p, again, err)
			}
		}
		if id, err := ParseRecord([]string{body}); err == nil && !isID(id) {
			t.Errorf("id %q", id)
		}
	})
}

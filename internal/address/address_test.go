package address

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in          string
		local, dom  string
		out         string // as String writes it; "" for the same as in
		err         error
		onlyUnicode bool
	}{
		{in: "a@example.test", local: "a", dom: "example.test"},
		{in: "A.b+c@Example.TEST", local: "A.b+c", dom: "example.test", out: "A.b+c@example.test"},
		{in: `"a b"@example.test`, local: "a b", dom: "example.test"},
		{in: `"a"@example.test`, local: "a", dom: "example.test", out: "a@example.test"},
		{in: `"a\"b\\c"@example.test`, local: `a"b\c`, dom: "example.test"},
		{in: `"a@b"@example.test`, local: "a@b", dom: "example.test"},
		{in: `"a\b"@example.test`, local: "ab", dom: "example.test", out: "ab@example.test"},
		{in: `""@example.test`, local: "", dom: "example.test"},
		{in: "a@[192.0.2.1]", local: "a", dom: "[192.0.2.1]"},
		{in: "a@[ipv6:2001:DB8::1]", local: "a", dom: "[IPv6:2001:db8::1]", out: "a@[IPv6:2001:db8::1]"},
		{in: "用户@例子.测试", local: "用户", dom: "xn--fsqu00a.xn--0zwm56d", out: "用户@xn--fsqu00a.xn--0zwm56d"},
		{in: "a@例子。测试", local: "a", dom: "xn--fsqu00a.xn--0zwm56d", out: "a@xn--fsqu00a.xn--0zwm56d"},
		{in: "re\u0301@example.test", local: "r\u00e9", dom: "example.test", out: "r\u00e9@example.test"},
		{in: "a@straße.test", local: "a", dom: "xn--strae-oqa.test", out: "a@xn--strae-oqa.test"},
		{in: "a@host_1.example.test", local: "a", dom: "host_1.example.test"},
		{in: "a@localhost", local: "a", dom: "localhost"},
		{in: "!#$%&'*+-/=?^_`{|}~@example.test", local: "!#$%&'*+-/=?^_`{|}~", dom: "example.test"},

		{in: "", err: ErrLocal},
		{in: "a", err: ErrSyntax},
		{in: "@example.test", err: ErrLocal},
		{in: "a@", err: ErrDomain},
		{in: ".a@example.test", err: ErrLocal},
		{in: "a..b@example.test", err: ErrLocal},
		{in: "a.@example.test", err: ErrLocal},
		{in: "a b@example.test", err: ErrLocal},
		{in: "a\tb@example.test", err: ErrLocal},
		{in: "a\x00@example.test", err: ErrLocal},
		{in: "\"a\x00\"@example.test", err: ErrLocal},
		{in: "\"a\r\nb\"@example.test", err: ErrLocal},
		{in: "\"a\\\nb\"@example.test", err: ErrLocal},
		{in: `"a@example.test`, err: ErrLocal},
		{in: `"a\`, err: ErrLocal},
		{in: `"a"b@example.test`, err: ErrSyntax},
		{in: "a@b@example.test", err: ErrDomain},
		{in: "a@example..test", err: ErrDomain},
		{in: "a@example.test.", err: ErrDomain},
		{in: "a@-example.test", err: ErrDomain},
		{in: "a@example-.test", err: ErrDomain},
		{in: "a@192.0.2.1", err: ErrDomain},
		{in: "a@[192.0.2.1", err: ErrDomain},
		{in: "a@[192.0.2]", err: ErrDomain},
		{in: "a@[2001:db8::1]", err: ErrDomain},
		{in: "a@[IPv6:fe80::1%eth0]", err: ErrDomain},
		{in: "a@[IPv6:192.0.2.1]", err: ErrDomain},
		{in: "a@exa mple.test", err: ErrDomain},
		{in: "a@exam\x00ple.test", err: ErrDomain},
		{in: "a@xn--zzzzzz-.test", err: ErrDomain},
		{in: "a@xn--a.test", err: ErrDomain},
		{in: "\xff@example.test", err: ErrLocal},
		{in: "a\u0085b@example.test", err: ErrLocal},
		{in: "a\u2028b@example.test", err: ErrLocal},
		{in: "a\u3000b@example.test", err: ErrLocal},
		{in: "a@\xff.test", err: ErrDomain},
		{in: strings.Repeat("a", 65) + "@example.test", err: ErrTooLong},
		{in: "a@" + strings.Repeat("a", 64) + ".test", err: ErrDomain},
		{in: "a@" + strings.Repeat("abcdefghi.", 25) + "test", err: ErrTooLong},
		{in: strings.Repeat("a", 5000) + "@example.test", err: ErrTooLong},
	} {
		t.Run(tc.in, func(t *testing.T) {
			t.Parallel()
			a, err := Parse(tc.in)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err != nil {
				return
			}
			if a.Local != tc.local || a.Domain != tc.dom {
				t.Errorf("got %q at %q", a.Local, a.Domain)
			}
			if tc.out == "" {
				tc.out = tc.in
			}
			if a.String() != tc.out {
				t.Errorf("written as %q, want %q", a.String(), tc.out)
			}
		})
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	a, err := Parse("Grüße+Tag@Bücher.Example")
	if err != nil {
		t.Fatal(err)
	}
	if a.ASCII() {
		t.Error("a UTF-8 local part counts as ASCII")
	}
	if got := a.Key(); got != "grüsse+tag@xn--bcher-kva.example" {
		t.Errorf("key %q", got)
	}
	if got := a.Unicode(); got != "Grüße+Tag@bücher.example" {
		t.Errorf("for people %q", got)
	}
	base, detail, ok := a.SplitDetail("+")
	if !ok || base.Local != "Grüße" || detail != "Tag" || base.Domain != a.Domain {
		t.Errorf("split into %v, %q, %v", base, detail, ok)
	}
	for _, local := range []string{"plain", "+tag"} {
		if _, _, ok := (Address{Local: local, Domain: "example.test"}).SplitDetail("+"); ok {
			t.Errorf("%q has no detail", local)
		}
	}
	if !(Address{}).IsNull() || (Address{}).String() != "" || (Address{}).Key() != "" {
		t.Error("the null address has a form")
	}
	if got := (Address{Local: "postmaster"}).String(); got != "postmaster" {
		t.Errorf("bare postmaster is %q", got)
	}
}

func TestParseDomainTakesTheTrailingDotOff(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"Example.Test.": "example.test", "例子.测试.": "xn--fsqu00a.xn--0zwm56d", "XN--FSQU00A.test": "xn--fsqu00a.test"} {
		if got, err := ParseDomain(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ".", "a..", "[192.0.2.1]", "1.2.3.4", "a.1", "*.test", "a/b.test"} {
		if got, err := ParseDomain(in); err == nil {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a@example.test", `"a b\"c"@[192.0.2.1]`, "用户@例子.测试", "a+b@xn--fsqu00a.test", "a@[IPv6:::1]", "\u037e@a.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		if len(a.Local) > MaxLocal || len(a.Domain) > MaxDomain+2 {
			t.Fatalf("%q: too long: %q", s, a)
		}
		if strings.ContainsAny(a.String(), "\r\n\x00") || strings.ContainsAny(a.Domain, " @<>\",;") {
			t.Fatalf("%q: dangerous %q", s, a.String())
		}
		for _, form := range []string{a.String(), a.Unicode()} {
			b, err := Parse(form)
			if err != nil && len(form) > MaxTotal {
				continue // quoting may make it longer than a path may be
			}
			if err != nil || b != a {
				t.Fatalf("%q is written %q, which is %q, %v", s, form, b, err)
			}
		}
		if FoldLocal(FoldLocal(a.Local)) != FoldLocal(a.Local) {
			t.Fatalf("%q: folding is not stable", s)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("somebody.else@mail.example.test"); err != nil {
			b.Fatal(err)
		}
	}
}

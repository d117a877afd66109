package sieve

import (
	"errors"
	"strings"
	"testing"
)

// FuzzScript holds for any octets: a script that is refused is told where, one that compiles runs to an end, and a run that
// fails keeps the message.
func FuzzScript(f *testing.F) {
	for _, s := range []string{
		`keep;`, `if header :matches "subject" "*a?b*" { fileinto "${1}"; }`, "reject text:\r\na\r\n.\r\n;", `foreverypart { extracttext "a"; break; }`,
		`if anyof (not true, size :over 1K) { stop; }`, `vacation :addresses ["a"] "x";`, `notify "mailto:a@b.test?body=%20";`,
		`set :quoteregex "a" "(("; if header :regex "subject" "${a}" {}`, `deleteheader :index 1 :last "x-count" "*";`, `/* */ # x`,
	} {
		f.Add(s, "Subject: x\r\n\r\ny")
		f.Add(s, letter)
	}
	f.Fuzz(func(t *testing.T, script, raw string) {
		if len(script) > 10_000 || len(raw) > 100_000 {
			return
		}
		s, err := Compile([]byte(all()+script), Options{Limits: Limits{Work: 1 << 20, BodyBytes: 1 << 16}})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Text == "" {
				t.Errorf("no place: %v", err)
			}
			return
		}
		r := Run(t.Context(), []*Script{s}, input(t, raw))
		if r.Err != nil && shown(r.Actions) != "keep" {
			t.Errorf("%v: %s", r.Err, shown(r.Actions))
		}
	})
}

// FuzzGlob compares the matcher with one that tries all ways.
func FuzzGlob(f *testing.F) {
	f.Add("*a?b*", "xxaybz")
	f.Add(`\*?`, "*x")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 12 || len(s) > 20 {
			return
		}
		r := &run{work: 1 << 30, frame: &frame{}, lim: &Limits{}}
		_, got := matchGlob(r, s, parseGlob(pattern))
		if want := slowGlob(pattern, s); got != want {
			t.Errorf("%q on %q: %v", pattern, s, got)
		}
	})
}

func slowGlob(p, s string) bool {
	switch {
	case p == "":
		return s == ""
	case p[0] == '*':
		return slowGlob(strings.TrimLeft(p, "*"), s) || s != "" && slowGlob(p, s[1:])
	case p[0] == '\\' && len(p) > 1:
		return s != "" && s[0] == p[1] && slowGlob(p[2:], s[1:])
	}
	return s != "" && (p[0] == '?' || s[0] == p[0]) && slowGlob(p[1:], s[1:])
}

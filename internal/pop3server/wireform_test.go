package pop3server

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// form gives text to a wireForm in pieces cut at the places that cuts says.
func form(tb rapid.TB, text []byte, lines int64, cuts func(left int) int) (string, *wireForm) {
	tb.Helper()
	var out bytes.Buffer
	w := &wireForm{left: lines, dst: &out}
	var err error
	for rest := text; len(rest) > 0 && err == nil; {
		n := min(max(1, cuts(len(rest))), len(rest))
		_, err = w.Write(bytes.Clone(rest[:n]))
		rest = rest[n:]
	}
	if err := w.end(err); err != nil {
		tb.Fatal(err)
	}
	if int64(out.Len()) != w.n {
		tb.Fatalf("counted %d of %d octets", w.n, out.Len())
	}
	return out.String(), w
}

func whole(left int) int { return left }

func TestWireFormRepairsWhatPOP3CantSend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in, want string
		repaired       bool
	}{
		{"clean", "A: b\r\n\r\nbody\r\n", "A: b\r\n\r\nbody\r\n", false},
		{"clean, empty body", "A: b\r\n\r\n", "A: b\r\n\r\n", false},
		{"dots are for the DotWriter", "A: b\r\n\r\n.\r\n", "A: b\r\n\r\n.\r\n", false},
		{"no last CRLF", "A: b\r\n\r\nbody", "A: b\r\n\r\nbody\r\n", true},
		{"ends in CR", "A: b\r\n\r\nbody\r", "A: b\r\n\r\nbody\r\n", true},
		{"header only", "A: b\r\n", "A: b\r\n\r\n", true},
		{"header only, no CRLF", "A: b", "A: b\r\n\r\n", true},
		{"empty", "", "\r\n", true},
		{"Unix lines", "A: b\n\nbody\n", "A: b\r\n\r\nbody\r\n", true},
		{"old Mac lines", "A: b\r\rbody\r", "A: b\r\n\r\nbody\r\n", true},
		{"CR CR LF", "A: b\r\r\nbody\r\n", "A: b\r\n\r\nbody\r\n", true},
		{"NUL", "A: \x00\r\n\r\n\x00\r\n", "A: \x80\r\n\r\n\x80\r\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, piece := range []int{1, 2, 3, 1000} {
				got, w := form(t, []byte(tt.in), unlimited, func(int) int { return piece })
				if got != tt.want || w.repaired != tt.repaired {
					t.Errorf("pieces of %d: %q, repaired %v", piece, got, w.repaired)
				}
			}
		})
	}
}

func TestWireFormStopsAfterTheLinesOfTOP(t *testing.T) {
	t.Parallel()
	const text = "A: b\r\nC: d\r\n\r\none\r\n\r\ntwo"
	for lines, want := range []string{
		"A: b\r\nC: d\r\n\r\n",
		"A: b\r\nC: d\r\n\r\none\r\n",
		"A: b\r\nC: d\r\n\r\none\r\n\r\n",
		"A: b\r\nC: d\r\n\r\none\r\n\r\ntwo\r\n",
		"A: b\r\nC: d\r\n\r\none\r\n\r\ntwo\r\n",
	} {
		if got, _ := form(t, []byte(text), int64(lines), whole); got != want {
			t.Errorf("%d lines: %q", lines, got)
		}
	}
	w := &wireForm{}
	if _, err := w.Write([]byte("A: b\r\n\r\nmore")); !errors.Is(err, errEnough) {
		t.Errorf("TOP 0 reads on: %v", err)
	}
}

// TestWireFormHolds checks of random texts, cut at random places: the result has no bare CR or LF and no NUL, ends with
// CRLF, has an end of the header, does not depend on the cuts, and is the text itself if and only if nothing is said to
// be repaired; repairing it again changes nothing.
func TestWireFormHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"\r", "\n", "\r\n", "\r\n", "a", ".", "bc: d", "\x00", "\xff"})).Draw(t, "parts")
		text := []byte(strings.Join(parts, ""))
		cut := rapid.IntRange(1, 5)
		got, w := form(t, text, unlimited, func(int) int { return cut.Draw(t, "cut") })
		again, w2 := form(t, text, unlimited, whole)
		if got != again || w.repaired != w2.repaired {
			t.Fatalf("cuts matter: %q, %q", got, again)
		}
		if w.repaired == (got == string(text)) {
			t.Fatalf("repaired: %v, but %q became %q", w.repaired, text, got)
		}
		if bare := strings.ReplaceAll(got, "\r\n", ""); strings.ContainsAny(bare, "\r\n\x00") {
			t.Fatalf("%q became %q", text, got)
		}
		if !strings.HasSuffix(got, "\r\n") || (!strings.Contains(got, "\r\n\r\n") && !strings.HasPrefix(got, "\r\n")) {
			t.Fatalf("%q became %q", text, got)
		}
		if third, w3 := form(t, []byte(got), unlimited, whole); third != got || w3.repaired {
			t.Fatalf("not stable: %q, %q", got, third)
		}
	})
}

package imapserver

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"waxwing/internal/store/search"
)

func TestNeedles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		needle, text string
		want         bool
	}{
		{"Invoice", "your INVOICE is here", true},
		{"invoice", "in voice", false},
		{"", "", true},
		{"x", "", false},
		{"发票", "您的电子发票已开具", true},
		{"ABC", "全角ａｂｃ文字", true},   // full width
		{"ａｂｃ", "plain abc", true}, // and the other way
		{"cafe\u0301", "CAFÉ au lait", true},
		{"é", "e", false},
		{"ΣΑΣ", "σας", true},
		{"..", "a..b", true},
	} {
		n := newNeedle(c.needle)
		got, _ := n.in([]byte(c.text), nil)
		if got != c.want {
			t.Errorf("%q in %q: got %v", c.needle, c.text, got)
		}
		got, _, err := n.inReader(iotest.OneByteReader(strings.NewReader(c.text)), nil)
		if err != nil || got != c.want && c.needle != "" {
			t.Errorf("%q in %q read octet by octet: got %v, %v", c.needle, c.text, got, err)
		}
	}
}

func TestNeedlesAgreeWithFoldedContains(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := newNeedle(rapid.StringMatching(`[aAbB \-é中]{1,5}`).Draw(t, "needle"))
		text := []byte(rapid.StringMatching(`[aAbBcé中 \-]{0,60}`).Draw(t, "text"))
		want := bytes.Contains(search.AppendFold(nil, text), n.folded)
		if got, _ := n.in(text, nil); got != want {
			t.Fatalf("%q in %q: got %v", n.folded, text, got)
		}
		got, _, err := n.inReader(iotest.HalfReader(bytes.NewReader(text)), nil)
		if err != nil || got != want {
			t.Fatalf("%q in the stream %q: got %v, %v", n.folded, text, got, err)
		}
	})
}

func BenchmarkNeedle(b *testing.B) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, and then it sleeps. ", 1000))
	n := newNeedle("wonderful news")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if n.inASCII(text) {
			b.Fatal("found")
		}
	}
}

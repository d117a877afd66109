package search

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// terms are the terms of a document with one text in the body.
func terms(text string) []string {
	var d Document
	d.Text(Body, []byte(text))
	list := strings.Fields(string(d.AppendTerms(nil)))
	slices.Sort(list)
	return list
}

// excludes tells whether an index with these terms would exclude the text for the needle.
func excludes(have []string, asked []Term) bool {
	return slices.ContainsFunc(asked, func(q Term) bool {
		return !slices.ContainsFunc(have, func(h string) bool { return h == q.Text || q.Prefix && strings.HasPrefix(h, q.Text) })
	})
}

func TestGramsOfTexts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"a word", "Could", "bCOU bOUL bULD"},
		{"two letters say nothing", "it is", ""},
		{"words don't run together", "ab cd", ""},
		{"digits", "ab12", "bAB1 bB12"},
		{"chinese", "发票", "b发票 b票"},
		{"chinese, alone", "票", "b票"},
		{"mixed", "a票bcd", "bA票 bBCD b票B"},
		{"kana with marks", "ガイド", "bイト bカイ bト"},
		{"hangul is taken apart", "회의", "b\u1112\u116c\u110b b\u116c\u110b\u1174"},
		{"full width", "ａｂｃ", "bABC"},
		{"accents are passed over", "café e", "bAFE bCAF"},
		{"emoji", "🎉🎉", "b🎉 b🎉🎉"},
	} {
		want := strings.Fields(c.want)
		slices.Sort(want)
		if got := terms(c.text); !slices.Equal(got, want) {
			t.Errorf("%s: %q: got %q, want %q", c.name, c.text, got, want)
		}
	}
}

func TestGramsOfNeedles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		needle string
		want   []Term
	}{
		{"oul", []Term{{"sOUL", false}}},
		{"ab", nil},
		{"a-b.c", nil},
		{"", nil},
		{"票", []Term{{"s票", true}}},
		{"发票", []Term{{"s发票", false}}},
		{"-票-", []Term{{"s票", true}}},
		{"a票", []Term{{"sA票", false}}},
		{"zip the", []Term{{"sZIP", false}, {"sTHE", false}}}, // the rarer first
	} {
		if got := Grams(Subject, AppendFold(nil, []byte(c.needle))); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.needle, got, c.want)
		}
	}
	if got := Grams(Body, AppendFold(nil, []byte(strings.Repeat("abcdefghijklmnopqrstuvwxyz", 100)))); len(got) != maxNeedleGrams {
		t.Errorf("a long needle has %d grams", len(got))
	}
}

// scripts are runes that behave in all the ways there are: case, width, marks of several classes, compatibility forms,
// symbols, gaps, octets that are no rune.
var scripts = []string{
	"a", "b", "B", "c", "1", " ", "-", ".", "\r\n", "é", "ß", "İ", "ı", "ǅ", "ﬁ", "ª", "Σ", "ς", "и", "й", "\u0301", "\u0323", "\u034f", "\u0345",
	"发", "票", "金", "\uf90a", "ガ", "カ", "\u3099", "ｶ", "ﾞ", "ー", "한", "국", "ᄒ", "ป", "ุ", "่", "ำ", "🎉", "❤", "\ufe0f", "ａ", "Ａ", "　", "½", "\ufffd", "\xff",
}

func TestNoTextIsExcludedThatHoldsTheNeedle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SliceOfN(rapid.SampledFrom(scripts), 0, 12)
		needle := strings.Join(piece.Draw(t, "needle"), "")
		text := strings.Join(piece.Draw(t, "before"), "") + needle + strings.Join(piece.Draw(t, "after"), "")
		// The needle may stand in the text by chance or not at all, where folding joins it with what is around it.
		folded := AppendFold(nil, []byte(needle))
		if !bytes.Contains(AppendFold(nil, []byte(text)), folded) {
			return
		}
		if have, asked := terms(text), Grams(Body, folded); excludes(have, asked) {
			t.Fatalf("%q in %q: asked for %v, have %v", needle, text, asked, have)
		}
	})
}

func TestOtherTextsAreExcluded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, needle string }{
		{"you could have", "cloud"}, {"您的电子发票", "票发"}, {"会议", "会計"}, {"the end", "then"}, {"Köln", "kiln"},
	} {
		if !excludes(terms(c.text), Grams(Body, AppendFold(nil, []byte(c.needle)))) {
			t.Errorf("%q is not excluded for %q", c.text, c.needle)
		}
	}
}

func TestTextFromAReaderHasTheSameGrams(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("Could 您的电子发票 caf\u00e9 ", 700) // more than one buffer
	var d Document
	for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
		d.Reset()
		if err := d.TextFrom(Body, r); err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(string(d.AppendTerms(nil)))
		slices.Sort(got)
		if want := terms(text); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	d.Reset()
	if err := d.TextFrom(Body, iotest.ErrReader(io.ErrUnexpectedEOF)); err != io.ErrUnexpectedEOF {
		t.Fatalf("error of the reader: %v", err)
	}
}

func TestDocumentsAreBounded(t *testing.T) {
	t.Parallel()
	var d Document
	for i := range 60_000 {
		d.Text(Body, fmt.Appendf(nil, "%c%c", rune(0x4e00+i%20_000), rune(0x4e00+i/4)))
	}
	if !d.Incomplete() {
		t.Error("a document with too many grams passes for complete")
	}
	for i := range maxWords {
		d.Words(Body, fmt.Sprintf("x%d y%d", i, i))
	}
	if n := len(strings.Fields(string(d.AppendTerms(nil)))); n != maxWords {
		t.Errorf("%d terms", n)
	}
	d.Reset()
	if d.Incomplete() || len(d.AppendTerms(nil)) > 0 {
		t.Error("Reset left something")
	}
	d.Text(Body, make([]byte, maxText+1))
	if !d.Incomplete() {
		t.Error("a document with too much text passes for complete")
	}
}

func TestHitsExcludeWhatTheIndexKnowsAndDidNotFind(t *testing.T) {
	t.Parallel()
	h := &Hits{Upto: 10, IDs: []int64{2, 5}}
	for id, want := range map[int64]bool{1: true, 2: false, 4: true, 5: false, 10: true, 11: false} {
		if h.Excludes(id) != want {
			t.Errorf("message %d: excluded %v", id, !want)
		}
	}
	if (*Hits)(nil).Excludes(1) {
		t.Error("no index excludes something")
	}
}

func FuzzGrams(f *testing.F) {
	f.Add([]byte("could it be"), uint8(2), uint8(3))
	f.Add([]byte("您的电子发票 ｶﾞ a\u0301\u0323"), uint8(6), uint8(6))
	f.Fuzz(func(t *testing.T, text []byte, from, n uint8) {
		folded := AppendFold(nil, text)
		lo := min(int(from), len(folded))
		needle := folded[lo:min(lo+int(n), len(folded))]
		var d Document
		d.Text(Body, text)
		have := strings.Fields(string(d.AppendTerms(nil)))
		for _, h := range have {
			if !safe(h) {
				t.Fatalf("term %q", h)
			}
		}
		// A needle that begins or ends inside a rune occurs nowhere by itself: needles are folded from whole runes.
		if bytes.Equal(bytes.ToValidUTF8(needle, nil), needle) && excludes(have, Grams(Body, needle)) {
			t.Fatalf("%q in %q is excluded: %v", needle, folded, have)
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	text := []byte(strings.Repeat("Please find the invoice no. 4711 attached; 您的电子发票已开具. ", 150))
	var d Document
	var out []byte
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		d.Reset()
		d.Text(Body, text)
		out = d.AppendTerms(out[:0])
	}
}

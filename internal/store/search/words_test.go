package search

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWordsOfManyScripts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"english", "The quick-brown FOX's den.", "the quick brown fox s den"},
		{"german", "Die Straße nach Köln: Übergrößen", "die strasse nach köln übergrössen"},
		{"accents composed", "cafe\u0301 na\u00efve", "café naïve"},
		{"chinese", "您的电子发票", "您的 的电 电子 子发 发票 票"},
		{"chinese, one character", "票", "票"},
		{"chinese, two characters", "发票", "发票 票"},
		{"chinese between latin", "付款USD发票", "付款 款 usd 发票 票"},
		{"chinese punctuation ends a run", "会议，发票。", "会议 议 发票 票"},
		{"japanese", "会議のお知らせ", "会議 議の のお お知 知ら らせ せ"},
		{"japanese, half width kana", "ｶﾞｲﾄﾞ", "ガイ イド ド"},
		{"japanese, long sound", "東京タワー", "東京 京タ タワ ワー ー"},
		{"korean", "회의 자료", "회의 의 자료 료"},
		{"korean, decomposed", "\u1112\u116c\u110b\u1174", "회의 의"},
		{"thai", "ประชุม", "ปร ระ ะช ชุ ุม ม"},
		{"russian", "Счёт-фактура ОПЛАТА", "счёт фактура оплата"},
		{"greek, final sigma", "ΣΑΣ σας", "σασ σασ"},
		{"turkish", "İstanbul", "i̇stanbul"},
		{"hebrew and arabic", "שלום سلام", "שלום سلام"},
		{"full width", "ＡＢＣ１２３　ｄｅｆ", "abc123 def"},
		{"ligature", "ﬁnance", "finance"},
		{"emoji", "🎉party❤️ 👍🏽", "🎉 party ❤ 👍"},
		{"number", "1,234.50 and 3.14", "1234.50 1 234 50 and 3.14 3 14"},
		{"date and telephone", "2026-11-21 +86 138-0013", "2026 11 21 86 138 0013"},
		{"address", "Write to John.Doe@mail.Example.com now", "write to john.doe@mail.example.com john.doe mail.example.com example.com john doe mail example com now"},
		{"address in angles", "张三 <zhang@example.test>", "张三 三 zhang@example.test example.test zhang example test"},
		{"host name", "see www.example.com/path", "see www.example.com example.com www example com path"},
		{"file name", "report_2026.pdf", "report_2026.pdf report 2026 pdf"},
		{"end of sentence", "the end.", "the end"},
		{"list", "a,b,c", "a b c"},
		{"nothing", " .,;@ — ", ""},
		{"not utf-8", "a\xffb", "a b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(Analyzer{}.Words(c.text), " ")
			if got != c.want {
				t.Errorf("%q:\ngot  %s\nwant %s", c.text, got, c.want)
			}
		})
	}
}

func TestStemmingIsOptional(t *testing.T) {
	t.Parallel()
	const text = "invoices parties classes glass bus series cats Straßes"
	for _, c := range []struct {
		a    Analyzer
		want string
	}{
		{Analyzer{}, "invoices parties classes glass bus series cats strasses"},
		{Analyzer{Stem: true}, "invoice party classe glass bus sery cat strasse"},
	} {
		if got := strings.Join(c.a.Words(text), " "); got != c.want {
			t.Errorf("%+v: got %s, want %s", c.a, got, c.want)
		}
	}
}

func TestQueryAsksForWordsThatTheIndexHas(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"发票", "电子发票", "会議", "회의", "ประชุม", "john.doe@mail.example.com", "example.com", "1,234.50", "Köln", "🎉",
	} {
		have := Analyzer{}.Words("前后 " + text + " and more")
		for _, term := range (Analyzer{}).Query(Body, text) {
			if term.Text[0] != '0' || !slices.Contains(have, term.Text[1:]) {
				t.Errorf("%q asks for %q, which is not among %q", text, term.Text, have)
			}
		}
	}
}

func TestQueryForOneCharacterIsAPrefix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want []Term
	}{
		{"票", []Term{{"2票", true}}},
		{"发票", []Term{{"2发票", false}}},
		{"a", []Term{{"2a", false}}},
		{"a a", []Term{{"2a", false}}},
		{"🎉", []Term{{"2🎉", false}}},
		{"", nil},
	} {
		if got := (Analyzer{}).Query(Subject, c.text); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.text, got, c.want)
		}
	}
}

// safe tells whether a term passes through the tokenizer of the index in one piece.
func safe(term string) bool {
	return term != "" && utf8.ValidString(term) && !strings.ContainsFunc(term, func(r rune) bool {
		return r < utf8.RuneSelf && asciiClass[r] != narrow && !strings.ContainsRune("@._-+", r)
	})
}

func FuzzWords(f *testing.F) {
	for _, s := range []string{"a.b@c.d, 1,2.3", "发票abc", "ｶﾞ\u0301\u0323", "\x00\xff", "👍🏽 ₂"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range []Analyzer{{}, {Stem: true}} {
			words := a.Words(text)
			if len(words) > 4*len(text)+4 {
				t.Fatalf("%d words of %d octets", len(words), len(text))
			}
			for _, w := range words {
				if !safe(w) || utf8.RuneCountInString(w) > 3*maxWord {
					t.Fatalf("%q: word %q", text, w)
				}
			}
			for _, q := range a.Query(Body, text) {
				if !slices.Contains(words, q.Text[1:]) {
					t.Fatalf("%q: the query asks for %q, which is not among the words %q", text, q.Text, words)
				}
			}
		}
	})
}

func BenchmarkWords(b *testing.B) {
	text := strings.Repeat("Please find the invoice no. 4711 attached; 您的电子发票已开具. ", 150)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		Analyzer{}.Words(text)
	}
}

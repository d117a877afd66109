package search

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// AppendFold folds UTF-8 text as RFC 5051 (i;unicode-casemap) folds: title case, then compatibility decomposition, rune by
// rune, so that full and half width, composed and decomposed letters are the same.
func AppendFold(dst, text []byte) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			dst = append(dst, upperASCII(c))
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		i += size
		if isIdeograph(r) { // has neither case nor decomposition, and there is much of it
			dst = utf8.AppendRune(dst, r)
			continue
		}
		var buf [utf8.UTFMax]byte
		n := utf8.EncodeRune(buf[:], unicode.ToTitle(r))
		dst = norm.NFKD.Append(dst, buf[:n]...)
	}
	return dst
}

func upperASCII(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - ('a' - 'A')
	}
	return c
}

// isIdeograph tells the common Han ranges; the compatibility ideographs do decompose.
func isIdeograph(r rune) bool { return r >= 0x3400 && r <= 0x9fff }

// class is how a rune takes part in grams.
type class uint8

const (
	gap    class = iota // ends a run: spaces, punctuation, controls
	narrow              // letters and digits of scripts with many runes a word
	wide                // one rune says much: Han, kana, Thai, symbols
	mark                // passed over, since marks change places when text is normalized
)

// wideScripts are written without spaces between words, or with signs that are words.
var wideScripts = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Bopomofo, unicode.Yi, unicode.Thai, unicode.Lao,
	unicode.Khmer, unicode.Myanmar, unicode.Tibetan, unicode.Javanese, unicode.Balinese,
}

// asciiClass spares most text the look into tables.
var asciiClass = func() (t [utf8.RuneSelf]class) {
	for c := range t {
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			t[c] = narrow
		}
	}
	return t
}()

// graphemeJoiner is put in by normalization where there are very many marks; where depends on how text is cut.
const graphemeJoiner = 0x034f

// prolongedSound makes kana long and belongs to no script.
const prolongedSound = 0x30fc

// classOf classifies a rune of folded text; encoded is the same rune.
func classOf(r rune, encoded []byte) class {
	switch {
	case r < utf8.RuneSelf:
		return asciiClass[r]
	case isIdeograph(r):
		return wide
	case r == graphemeJoiner || norm.NFKD.Properties(encoded).CCC() != 0:
		return mark
	case r == prolongedSound || unicode.In(r, wideScripts...):
		return wide
	case unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
		return narrow
	case isSymbol(r):
		return wide
	}
	return gap
}

// isSymbol tells emoji and other pictures; the replacement character stands for octets that nobody could read.
func isSymbol(r rune) bool {
	return r >= 0x2190 && r != utf8.RuneError && unicode.Is(unicode.So, r)
}

package search

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Analyzer cuts text into words: NFKC and case folding, so that full and half width and both cases are the same. Accents
// stay. The zero value is what an index uses unless told otherwise.
type Analyzer struct {
	Stem bool // take the plural off English words
}

// Words are the tokens under which a text is found:
//
//   - words of letters, digits and marks;
//   - in Han, kana, Hangul, Thai and like scripts each pair of neighbours, and the last character of a run;
//   - a number with separators as a whole ("1,234.50" is 1234.50), beside its parts;
//   - an address as a whole, its local part, its domain and the domains above it, beside the words in them;
//   - a symbol such as an emoji by itself.
func (a Analyzer) Words(text string) []string { return a.appendTokens(nil, text, true) }

// Query are the terms that all must be there for the words of a text to be found in a field. One character of a script
// that is cut into pairs is looked for as a prefix.
func (a Analyzer) Query(f Field, text string) []Term {
	var terms []Term
	seen := make(map[string]bool)
	for _, w := range a.appendTokens(nil, text, false) {
		if !seen[w] {
			seen[w] = true
			r, size := utf8.DecodeRuneInString(w)
			terms = append(terms, Term{Text: digits[f:f+1] + w, Prefix: size == len(w) && wordClass(r) == wide && !isSymbol(r)})
		}
	}
	return terms
}

// appendTokens cuts a text. ends tells whether the last character of a run of pairs is wanted alone, as an index does.
func (a Analyzer) appendTokens(dst []string, text string, ends bool) []string {
	text = cases.Fold().String(norm.NFKC.String(text))
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch kind := wordClass(r); {
		case kind == wide && isSymbol(r):
			dst = append(dst, text[i:i+size])
			i += size
		case kind == wide:
			end := i + size + span(text[i+size:], wide)
			dst = appendPairs(dst, text[i:end], ends)
			i = end
		case kind == narrow:
			end := i + chunk(text[i:])
			dst = a.appendChunk(dst, text[i:end])
			i = end
		default:
			i += size
		}
	}
	return dst
}

// wordClass is how a rune takes part in words. Hangul is composed here, so that a syllable says as much as a Han character.
func wordClass(r rune) class {
	switch {
	case r < utf8.RuneSelf:
		return asciiClass[r]
	case isIdeograph(r) || r == prolongedSound || unicode.Is(unicode.Hangul, r) || unicode.In(r, wideScripts...):
		return wide
	case unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.Is(unicode.Mn, r) && !isVariation(r) || unicode.Is(unicode.Mc, r):
		return narrow
	case isSymbol(r):
		return wide
	}
	return gap
}

// isVariation tells the marks that choose between looks of a symbol.
func isVariation(r rune) bool { return r >= 0xfe00 && r <= 0xfe0f || r >= 0xe0100 }

// span counts the octets at the front whose runes are of one class; symbols are not among the wide ones.
func span(text string, kind class) int {
	for i, r := range text {
		if wordClass(r) != kind || kind == wide && isSymbol(r) {
			return i
		}
	}
	return len(text)
}

// appendPairs cuts a run of wide runes into overlapping pairs.
func appendPairs(dst []string, run string, ends bool) []string {
	_, first := utf8.DecodeRuneInString(run)
	at := 0
	for next := first; next < len(run); {
		_, size := utf8.DecodeRuneInString(run[next:])
		dst = append(dst, run[at:next+size])
		at, next = next, next+size
	}
	if ends || at == 0 {
		dst = append(dst, run[at:])
	}
	return dst
}

// joins are the characters that join narrow runs to a number, an address or a host name when they stand between two.
const joins = "@._-+,"

// chunk is the length of the narrow runs at the front with what joins them.
func chunk(text string) int {
	end := span(text, narrow)
	for end < len(text) && strings.IndexByte(joins, text[end]) >= 0 {
		n := span(text[end+1:], narrow)
		if n == 0 {
			break
		}
		end += 1 + n
	}
	return end
}

// appendChunk adds the words of a chunk, and the chunk as a whole where it is a number, an address or a name with dots.
func (a Analyzer) appendChunk(dst []string, text string) []string {
	if len(text) > 16*maxWord { // no address and no number
		return a.appendParts(dst, text)
	}
	local, domain, isAddress := strings.Cut(text, "@")
	switch {
	case isAddress:
		dst = append(dst, cutRunes(strings.ReplaceAll(text, ",", "")))
		if strings.Contains(local, ".") {
			dst = append(dst, cutRunes(strings.ReplaceAll(local, ",", "")))
		}
		dst = appendDomains(dst, domain)
	case strings.ContainsAny(text, ".,") && strings.Trim(text, "0123456789.,") == "":
		dst = append(dst, cutRunes(strings.ReplaceAll(text, ",", "")))
	case strings.Contains(text, ".") && !strings.Contains(text, ","):
		dst = appendDomains(dst, text)
	}
	return a.appendParts(dst, text)
}

// maxDomains is how many of the domains above a domain are words.
const maxDomains = 5

// appendDomains adds a name with dots, and the ends of it that still have a dot.
func appendDomains(dst []string, name string) []string {
	for range maxDomains {
		if !strings.Contains(name, ".") || strings.ContainsAny(name, "@,") {
			break
		}
		dst = append(dst, cutRunes(name))
		_, name, _ = strings.Cut(name, ".")
	}
	return dst
}

func (a Analyzer) appendParts(dst []string, text string) []string {
	for len(text) > 0 {
		n := span(text, narrow)
		if n == 0 {
			text = text[1:] // a join
			continue
		}
		word := cutRunes(text[:n])
		if a.Stem {
			word = stem(word)
		}
		dst = append(dst, word)
		text = text[n:]
	}
	return dst
}

// cutRunes cuts a word that is too long; in index and query alike.
func cutRunes(w string) string {
	if len(w) <= maxWord {
		return w
	}
	n := 0
	for i := range w {
		if n == maxWord {
			return w[:i]
		}
		n++
	}
	return w
}

// stem takes the plural off an English word (Harman, "How effective is suffixing?", 1991: the S stemmer).
func stem(w string) string {
	if len(w) < 4 || w[len(w)-1] != 's' || strings.ContainsFunc(w, func(r rune) bool { return r < 'a' || r > 'z' }) {
		return w
	}
	switch end := w[:len(w)-1]; {
	case strings.HasSuffix(end, "ie") && !strings.HasSuffix(end, "eie") && !strings.HasSuffix(end, "aie"):
		return end[:len(end)-2] + "y"
	case strings.HasSuffix(end, "e") && !strings.HasSuffix(end, "ae") && !strings.HasSuffix(end, "ee") && !strings.HasSuffix(end, "oe"):
		return end
	case strings.HasSuffix(end, "u"), strings.HasSuffix(end, "s"), strings.HasSuffix(end, "e"):
		return w
	default:
		return end
	}
}

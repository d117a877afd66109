package search

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// gram is up to three runes, 21 bits each, the first in the highest; 0 is none.
type gram uint64

func makeGram(a, b, c rune) gram { return gram(a)<<42 | gram(b)<<21 | gram(c) }

func (g gram) append(dst []byte) []byte {
	for shift := 42; shift >= 0; shift -= 21 {
		if r := rune(g >> shift & (1<<21 - 1)); r != 0 {
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}

// cutter cuts folded text into grams. Which gram stands at a place depends on the runes of the gram alone, never on what
// is around it: so the grams of a string are among those of any text that holds it. Three narrow runes make a gram, and so
// do two runes one of which is wide. A gap ends everything; marks are not there.
type cutter struct {
	before, last           rune
	beforeClass, lastClass class
	alone                  bool // last is the first of its run
}

// cut calls emit for each gram that ends in text, which continues what was cut before. text holds whole runes.
func (c *cutter) cut(text []byte, emit func(gram)) {
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRune(text[i:])
		}
		kind := classOf(r, text[i:i+size])
		i += size
		switch {
		case kind == mark:
			continue
		case kind == gap:
			c.end(emit)
			continue
		case c.lastClass == wide || c.lastClass == narrow && kind == wide:
			emit(makeGram(c.last, r, 0))
		case c.lastClass == narrow && c.beforeClass == narrow:
			emit(makeGram(c.before, c.last, r))
		}
		c.alone = c.lastClass == gap
		c.before, c.beforeClass = c.last, c.lastClass
		c.last, c.lastClass = r, kind
	}
}

// end ends the run. A wide rune that begins no pair stands alone: so each wide rune begins some gram, and is found as a
// prefix when it is all that is looked for.
func (c *cutter) end(emit func(gram)) {
	if c.lastClass == wide {
		emit(makeGram(c.last, 0, 0))
	}
	*c = cutter{}
}

// Term is what an index is asked for.
type Term struct {
	Text   string
	Prefix bool // any term that begins so will do
}

// maxNeedleGrams is how many grams of a needle are asked for: the rarest say enough.
const maxNeedleGrams = 8

// Grams are terms that every message has in whose field the needle occurs. It is given as AppendFold leaves it. Without
// any, the index can't help: the needle is too short, or made of punctuation.
func Grams(f Field, folded []byte) []Term {
	if f >= Attachment {
		return nil
	}
	seen := make(map[gram]bool)
	var grams []gram
	add := func(g gram) {
		if !seen[g] {
			seen[g] = true
			grams = append(grams, g)
		}
	}
	var c cutter
	for len(folded) > 0 && len(grams) < 4<<10 {
		_, size := utf8.DecodeRune(folded)
		run := c
		c.cut(folded[:size], func(g gram) {
			// A wide rune that is a run by itself in the needle may have neighbours in the text. One at the end of a run has
			// given its pair already.
			if g&(1<<42-1) != 0 || run.alone {
				add(g)
			}
		})
		folded = folded[size:]
	}
	if c.alone {
		c.end(add)
	}
	slices.SortStableFunc(grams, func(a, b gram) int { return cmp.Compare(a.commonness(), b.commonness()) })
	terms := make([]Term, 0, maxNeedleGrams)
	for _, g := range grams[:min(len(grams), maxNeedleGrams)] {
		text := g.append([]byte{letters[f]})
		terms = append(terms, Term{Text: string(text), Prefix: g&(1<<42-1) == 0})
	}
	return terms
}

// byFrequency has the letters of English, the rarest first.
const byFrequency = "ZQJXKVBPGYFWMUCLDHRSNIOATE"

// commonness guesses in how many messages a gram stands; the rarest are asked for first.
func (g gram) commonness() int {
	n := 0
	for shift := 42; shift >= 0; shift -= 21 {
		r := rune(g >> shift & (1<<21 - 1))
		switch {
		case r == 0:
			n += 30 // short: a prefix
		case r < utf8.RuneSelf:
			n += 5 + strings.IndexByte(byFrequency, byte(r))
		}
	}
	return n
}

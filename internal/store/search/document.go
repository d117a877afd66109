package search

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of one document. One that exceeds them is Incomplete: an index must never exclude it.
const (
	maxGrams = 30_000
	maxWords = 10_000
	maxText  = 16 << 20 // octets of text that are looked at
	baseSize = 1 << 12  // slots of a set that are kept from one document to the next
	maxWord  = 64       // runes of a word that count
)

// Document collects the terms of one message. The zero value is ready; Reset makes it ready for the next.
type Document struct {
	Analyzer Analyzer // how words are cut

	grams      [Attachment]gramSet
	words      [fieldCount]map[string]struct{}
	gramCount  int
	wordCount  int
	octets     int
	incomplete bool

	room, chunk []byte
	list        []string
}

// Reset forgets the terms and keeps memory of a usual size.
func (d *Document) Reset() {
	for i := range d.grams {
		d.grams[i].reset()
	}
	for i := range d.words {
		clear(d.words[i])
	}
	d.gramCount, d.wordCount, d.octets, d.incomplete = 0, 0, 0, false
}

// SetIncomplete notes that there is text that the document does not hold.
func (d *Document) SetIncomplete() { d.incomplete = true }

// Incomplete tells that the document does not hold all of its text.
func (d *Document) Incomplete() bool { return d.incomplete }

// Text adds the grams of a whole text in UTF-8.
func (d *Document) Text(f Field, text []byte) {
	if !d.spend(len(text)) {
		return
	}
	d.room = AppendFold(d.room[:0], text)
	var c cutter
	add := d.adder(f)
	c.cut(d.room, add)
	c.end(add)
}

// TextFrom adds the grams of a text in UTF-8 that is read from r.
func (d *Document) TextFrom(f Field, r io.Reader) error {
	if d.chunk == nil {
		d.chunk = make([]byte, 8<<10)
	}
	var c cutter
	add := d.adder(f)
	held := 0 // octets of chunk that begin a rune
	for !d.incomplete {
		n, err := r.Read(d.chunk[held:])
		text := d.chunk[:held+n]
		whole := len(text)
		if err == nil {
			whole -= Unfinished(text)
		}
		if !d.spend(whole) {
			return nil
		}
		d.room = AppendFold(d.room[:0], text[:whole])
		c.cut(d.room, add)
		held = copy(d.chunk, text[whole:])
		if err == io.EOF {
			c.end(add)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Unfinished counts the octets at the end that begin a rune without ending it.
func Unfinished(b []byte) int {
	for i := 1; i <= min(utf8.UTFMax-1, len(b)); i++ {
		c := b[len(b)-i]
		if utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-i:]) {
				return i
			}
			return 0
		}
	}
	return 0
}

// spend counts text that is looked at; false when there was too much.
func (d *Document) spend(n int) bool {
	if d.octets += n; d.octets > maxText {
		d.incomplete = true
	}
	return !d.incomplete
}

func (d *Document) adder(f Field) func(gram) {
	set := &d.grams[f]
	return func(g gram) {
		if d.gramCount < maxGrams {
			if set.add(g) {
				d.gramCount++
			}
			return
		}
		if !set.has(g) {
			d.incomplete = true
		}
	}
}

// Words adds the words of a text in UTF-8. Words beyond the bound are left out: no question of exactness hangs on them.
func (d *Document) Words(f Field, text string) {
	if d.wordCount >= maxWords {
		return
	}
	if d.words[f] == nil {
		d.words[f] = make(map[string]struct{})
	}
	d.list = d.Analyzer.appendTokens(d.list[:0], text, true)
	before := len(d.words[f])
	for _, w := range d.list {
		d.words[f][w] = struct{}{}
		if d.wordCount+len(d.words[f])-before >= maxWords {
			break
		}
	}
	d.wordCount += len(d.words[f]) - before
	clear(d.list)
}

// AppendTerms appends the terms, separated by spaces. Those of an incomplete document hold no grams: it is not asked for
// by them.
func (d *Document) AppendTerms(dst []byte) []byte {
	if !d.incomplete {
		for f := range d.grams {
			for _, g := range d.grams[f].slots {
				if g != 0 {
					dst = append(g.append(append(dst, letters[f])), ' ')
				}
			}
		}
	}
	for f := range d.words {
		for w := range d.words[f] {
			dst = append(append(append(dst, digits[f]), w...), ' ')
		}
	}
	return dst
}

// IsGram tells a term by which messages are excluded from one of a word.
func IsGram(term string) bool { return term != "" && strings.IndexByte(letters, term[0]) >= 0 }

// gramSet is a set of grams: open addressing, at most half full.
type gramSet struct {
	slots []gram
	n     int
}

func (s *gramSet) reset() {
	if len(s.slots) > baseSize {
		s.slots = nil
	}
	if s.n > 0 {
		clear(s.slots)
	}
	s.n = 0
}

// slot is where g is or belongs.
func (s *gramSet) slot(g gram) int {
	mask := uint64(len(s.slots) - 1)
	i := (uint64(g) * 0x9e3779b97f4a7c15) >> 20 & mask
	for s.slots[i] != 0 && s.slots[i] != g {
		i = (i + 1) & mask
	}
	return int(i)
}

func (s *gramSet) has(g gram) bool { return s.n > 0 && s.slots[s.slot(g)] == g }

// add tells whether g is new.
func (s *gramSet) add(g gram) bool {
	if 2*s.n >= len(s.slots) {
		s.grow()
	}
	i := s.slot(g)
	if s.slots[i] == g {
		return false
	}
	s.slots[i] = g
	s.n++
	return true
}

func (s *gramSet) grow() {
	old := s.slots
	s.slots = make([]gram, max(64, 2*len(old)))
	for _, g := range old {
		if g != 0 {
			s.slots[s.slot(g)] = g
		}
	}
}

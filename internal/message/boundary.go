package message

import (
	"math/rand/v2"
)

// maxBoundary is the longest boundary that is used; RFC 2046, section 5.1.1 allows 70.
const maxBoundary = 1000

// hashFactor makes the rolling hash of boundaries unpredictable from outside, so that nobody can prepare collisions.
var hashFactor = rand.Uint64() | 1

// boundaries is the stack of boundaries that are open while the parser walks through a message. A line is compared with
// all of them in one pass over the line, however many are open: a rolling hash of the line is looked up only at lengths
// that an open boundary has.
type boundaries struct {
	open    []boundary
	newest  map[uint64]int // hash -> index of the innermost one with it
	lengths [maxBoundary + 1]uint16
}

type boundary struct {
	text  string
	hash  uint64
	frame int // index of the multipart on the parser's stack
	prev  int // index of the one that this one hides, or -1
	max   int // length of the longest one up to here
}

func rollHash(h uint64, c byte) uint64 { return (h + uint64(c) + 1) * hashFactor }

func (b *boundaries) push(text string, frame int) {
	var h uint64
	for i := range len(text) {
		h = rollHash(h, text[i])
	}
	e := boundary{text: text, hash: h, frame: frame, prev: -1, max: len(text)}
	if n := len(b.open); n > 0 {
		e.max = max(e.max, b.open[n-1].max)
	}
	if b.newest == nil {
		b.newest = make(map[uint64]int)
	}
	if i, ok := b.newest[h]; ok {
		e.prev = i
	}
	b.newest[h] = len(b.open)
	b.lengths[len(text)]++
	b.open = append(b.open, e)
}

func (b *boundaries) pop() {
	n := len(b.open) - 1
	e := b.open[n]
	if e.prev >= 0 {
		b.newest[e.hash] = e.prev
	} else {
		delete(b.newest, e.hash)
	}
	b.lengths[len(e.text)]--
	b.open = b.open[:n]
}

// match compares a line that begins with "--" with the open boundaries. As RFC 2046, section 5.1.1 has it, the boundary
// must only stand at the beginning; of several the longest counts, and of equal ones the innermost. The line counts as
// closing when "--" and then nothing or white space follows; other text after the boundary is reported as junk.
func (b *boundaries) match(line []byte) (index int, closing, junk bool) {
	index = -1
	n := len(b.open)
	if n == 0 {
		return
	}
	body := line[2:]
	limit := min(len(body), b.open[n-1].max)
	var h uint64
	for i := range limit {
		h = rollHash(h, body[i])
		if b.lengths[i+1] == 0 {
			continue
		}
		if k, ok := b.newest[h]; ok && b.open[k].text == string(body[:i+1]) {
			index = k
		}
	}
	if index < 0 {
		return
	}
	rest := body[len(b.open[index].text):]
	if len(rest) >= 2 && rest[0] == '-' && rest[1] == '-' && (len(rest) == 2 || isSpace(rest[2])) {
		closing = true
		rest = rest[2:]
	}
	junk = len(trimSpace(rest)) > 0
	return
}

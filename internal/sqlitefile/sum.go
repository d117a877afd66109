package sqlitefile

import (
	"encoding/binary"
	"hash/crc32"
)

// The end of a page: its number, two CRC-32s of all before them, in the log the size that the frame gives, and eight octets that
// undo the effect of all this on the sums of the log.
//
// The number shows a page that stands where another belongs. The first page also differs from SQLite's in one bit: the version
// that says who may write to the file is above those that SQLite knows, so that other programs only read.
const (
	pageSize = 4096
	reserved = 24
	numberAt = pageSize - reserved
	crcAt    = numberAt + 4
	sizeAt   = crcAt + 8
	undoAt   = sizeAt + 4

	writersAt = 18 // in the first page
	onlyUs    = 0x80
)

// anyNumber is for a page of the log, which is named in its frame.
const anyNumber = 0

// state is what a look at a page finds.
type state uint8

const (
	sound  state = iota
	mended       // one octet was wrong and is right now
	broken       // more than one octet is wrong, or the page is another one
)

// polynomial is one of the two CRCs of a page. One alone would find every error of one octet, and mistake one in some thousand
// other errors for such; both must agree on the place and the value.
type polynomial struct {
	table *crc32.Table
	// back undoes the step of the CRC over a zero octet: it is indexed by the highest octet after the step.
	back [256]uint32
}

var castagnoli, ieee = newPolynomial(crc32.Castagnoli), newPolynomial(crc32.IEEE)

func newPolynomial(poly uint32) *polynomial {
	p := &polynomial{table: crc32.MakeTable(poly)}
	for i, v := range p.table {
		p.back[v>>24] = v<<8 | uint32(i) // the highest octets of a CRC's table are all different
	}
	return p
}

func (p *polynomial) sum(b []byte) uint32 { return crc32.Update(0, p.table, b) }

// before returns the state of the CRC before a zero octet brought it to c.
func (p *polynomial) before(c uint32) uint32 { return c<<8 ^ p.back[c>>24] }

// marked is what the mark of the first page does to the sums of the log, up to the reserved octets.
var marked = func() logSum {
	var page [numberAt]byte
	page[writersAt] = onlyUs
	return logSum{}.add(page[:], native)
}()

// seal fills the reserved octets of a page, which are zeros. size is that of its frame in the log, 0 in the database.
func seal(page []byte, number, size uint32) {
	var s logSum
	if number == 1 {
		page[writersAt] |= onlyUs
		s = marked
	}
	binary.BigEndian.PutUint32(page[numberAt:], number)
	binary.LittleEndian.PutUint32(page[crcAt:], castagnoli.sum(page[:crcAt]))
	binary.LittleEndian.PutUint32(page[crcAt+4:], ieee.sum(page[:crcAt]))
	binary.BigEndian.PutUint32(page[sizeAt:], size)
	// Two words more bring the sums of the log to where SQLite's page, with zeros in all reserved octets, had left them.
	s = s.add(page[numberAt:undoAt], native)
	native.PutUint32(page[undoAt:], -(s[0] + s[1]))
	native.PutUint32(page[undoAt+4:], -s[1])
}

// bare makes of a page what SQLite knows.
func bare(page []byte) {
	if numberOf(page) == 1 {
		page[writersAt] &^= onlyUs
	}
	clear(page[numberAt:])
}

func numberOf(page []byte) uint32 { return binary.BigEndian.Uint32(page[numberAt:]) }

// check compares a page with its sums and its number, and puts one wrong octet right. A page of zeros is sound: a database
// that grew has pages that were never written. What follows the CRCs is not looked at: a wrong octet there harms nothing by itself.
func check(page []byte, number uint32) state {
	a, b := differences(page)
	s := sound
	if a|b != 0 {
		if s, ok := checkEmpty(page); ok {
			return s
		}
		s = mend(page, a, b)
	}
	if s != broken && number != anyNumber && number != numberOf(page) {
		return broken
	}
	return s
}

// differences are between the CRCs of a page and what they should be.
func differences(page []byte) (a, b uint32) {
	return castagnoli.sum(page[:crcAt]) ^ binary.LittleEndian.Uint32(page[crcAt:]),
		ieee.sum(page[:crcAt]) ^ binary.LittleEndian.Uint32(page[crcAt+4:])
}

// mend finds the one octet that explains the differences a and b of the CRCs. A CRC is linear: the difference that an
// error e leaves, is e taken on by a zero octet for each octet from there to the end. Taken back, both differences arrive at e at
// the same octet, or there is no such error.
func mend(page []byte, a, b uint32) state {
	if a == 0 || b == 0 {
		// An error before the CRCs shows in both: it is one of them that is wrong.
		if !oneOctet(a | b) {
			return broken
		}
		binary.LittleEndian.PutUint32(page[crcAt:], castagnoli.sum(page[:crcAt]))
		binary.LittleEndian.PutUint32(page[crcAt+4:], ieee.sum(page[:crcAt]))
		return mended
	}
	for i := crcAt - 1; i >= 0; i-- {
		a, b = castagnoli.before(a), ieee.before(b)
		if a != b || a > 255 {
			continue
		}
		page[i] ^= byte(a)
		if x, y := differences(page); x|y == 0 {
			return mended
		}
		page[i] ^= byte(a)
		return broken
	}
	return broken
}

// checkEmpty judges a page that is all zeros, but for one octet at most; ok is false for others.
func checkEmpty(page []byte) (s state, ok bool) {
	at, n := 0, 0
	for i, c := range page {
		if c != 0 {
			at, n = i, n+1
			if n > 1 {
				return broken, false
			}
		}
	}
	if n == 0 {
		return sound, true
	}
	page[at] = 0
	return mended, true
}

// oneOctet tells whether a difference of two words lies in one octet.
func oneOctet(d uint32) bool {
	return d != 0 && (d&^0xff == 0 || d&^0xff00 == 0 || d&^0xff0000 == 0 || d&^0xff000000 == 0)
}

package sqlitefile

import (
	"bytes"
	"encoding/binary"
)

// The write-ahead log (sqlite.org/walformat.html): a header, then frames of a header and a page. All numbers are big-endian.
//
//	header  magic, version, page size, sequence, two salts, sum of the 24 octets before
//	frame   page number, size of the database after a commit, two salts, sum of all frames so far; the page
//
// After a crash SQLite reads the log from its beginning, and stops at the first frame whose salts or sum are wrong: that is
// where the crash was. A frame that rotted looks the same to it, and what was committed behind it would be lost. Hence the
// headers are put right too. A page has its own sums; when it is whole, the sum of a frame says whether the header is.
const (
	logHeader   = 32
	frameHeader = 24
	frameSize   = frameHeader + pageSize
	saltAt      = 16 // in the header
	logSumAt    = 24 // in the header
	frameSaltAt = 8
	frameSumAt  = 16
)

// magic is how a log begins. Its last bit says that the sums are over big-endian words.
var (
	magic  = []byte{0x37, 0x7f, 0x06, 0x82, 0x00, 0x2d, 0xe2, 0x18, 0, 0, pageSize >> 8, 0}
	native = binary.ByteOrder(binary.LittleEndian)
)

func init() {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		native = binary.BigEndian
	}
}

// logSum is the state of the sums of the log.
type logSum [2]uint32

// add goes on over b, whose length is a multiple of eight.
func (s logSum) add(b []byte, order binary.ByteOrder) logSum {
	if order == binary.ByteOrder(binary.LittleEndian) {
		for ; len(b) >= 8; b = b[8:] {
			s[0] += binary.LittleEndian.Uint32(b) + s[1]
			s[1] += binary.LittleEndian.Uint32(b[4:]) + s[0]
		}
		return s
	}
	for ; len(b) >= 8; b = b[8:] {
		s[0] += binary.BigEndian.Uint32(b) + s[1]
		s[1] += binary.BigEndian.Uint32(b[4:]) + s[0]
	}
	return s
}

func logSumOf(b []byte) logSum {
	return logSum{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
}

func (s logSum) put(b []byte) {
	binary.BigEndian.PutUint32(b, s[0])
	binary.BigEndian.PutUint32(b[4:], s[1])
}

// orderOf is the order of the words that a log is summed in.
func orderOf(header []byte) binary.ByteOrder {
	if header[3]&1 == 1 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func headerSound(h []byte) bool {
	return h[3]&^1 == magic[3] && bytes.Equal(h[:3], magic[:3]) && bytes.Equal(h[4:12], magic[4:]) &&
		(logSum{}).add(h[:logSumAt], orderOf(h)) == logSumOf(h[logSumAt:])
}

// checkHeader puts one wrong octet of the log's header right. Different octets may explain the difference of its sum: the first
// frame, whose salts and sum go on from those of the header, decides; its page has zeros in its reserved octets. A log without a frame of its own has nothing to lose.
func checkHeader(h, frame []byte) state {
	if headerSound(h) {
		return sound
	}
	for i := range logHeader {
		was := h[i]
		for e := 1; e < 256; e++ {
			h[i] = was ^ byte(e)
			if headerSound(h) && follows(h, frame) {
				return mended
			}
		}
		h[i] = was
	}
	return broken
}

// follows tells whether a frame is the first one after a header.
func follows(h, frame []byte) bool {
	order := orderOf(h)
	sum := logSumOf(h[logSumAt:]).add(frame[:frameSaltAt], order).add(frame[frameHeader:], order)
	return bytes.Equal(h[saltAt:logSumAt], frame[frameSaltAt:frameSumAt]) && sum == logSumOf(frame[frameSumAt:])
}

// checkFrame puts one wrong octet of a frame's header right. The page behind it is sound and has zeros in its reserved octets, and
// numbers is what it had there; salts are the log's, sum is that of the frames before.
func checkFrame(frame, numbers, salts []byte, sum logSum, order binary.ByteOrder) (after logSum, s state) {
	head, page := frame[:frameHeader], frame[frameHeader:]
	stored := logSumOf(head[frameSumAt:])
	if after = sum.add(head[:frameSaltAt], order).add(page, order); after == stored {
		switch differing(head[frameSaltAt:frameSumAt], salts) {
		case 0:
			return after, sound
		case 1:
			copy(head[frameSaltAt:], salts)
			return after, mended
		}
		return after, broken
	}
	if !bytes.Equal(head[frameSaltAt:frameSumAt], salts) {
		return after, broken // of an earlier round of the log
	}
	if wrong := differing(head[:frameSaltAt], numbers); wrong == 1 {
		if after = sum.add(numbers, order).add(page, order); after == stored {
			copy(head, numbers)
			return after, mended
		}
	} else if wrong == 0 && differingWords(after, stored) == 1 {
		after.put(head[frameSumAt:])
		return after, mended
	}
	return after, broken
}

// numbersOf are the two numbers that begin the header of a frame, as its page keeps them.
func numbersOf(page []byte) (n [frameSaltAt]byte) {
	copy(n[:], page[numberAt:crcAt])
	copy(n[crcAt-numberAt:], page[sizeAt:undoAt])
	return n
}

// differingWords counts the octets in which two sums differ.
func differingWords(a, b logSum) int {
	var x, y [8]byte
	a.put(x[:])
	b.put(y[:])
	return differing(x[:], y[:])
}

// differing counts the octets in which a and b, of one length, differ.
func differing(a, b []byte) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// order is the order of the words that the log is summed in.
func (t *tail) order() binary.ByteOrder {
	if t.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

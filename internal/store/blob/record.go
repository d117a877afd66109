package blob

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The format on disk. Numbers are little-endian. A segment begins with a segment header; records follow, each at a
// multiple of 8. DESIGN.md shows it as a picture.
const (
	segmentHeaderSize = 64
	recordHeaderSize  = 88
	entrySize         = 8  // of a block in a record's table: stored length, CRC-32C of the stored octets
	tailSize          = 16 // flags, key id, CRC of the record header, check
	align             = 8

	// blockSize is the octets of content that are compressed, checked and read at a time.
	blockSize = 128 << 10

	// maxContent bounds what a header may claim; it keeps sums of lengths far from overflow.
	maxContent = 1 << 40

	// The last octet is the version of the format. The header keeps its length and checksum in all versions, so that each
	// program knows a segment that is too new for it.
	segmentMagic = "WAXBLOB1"
)

// Flags of a record.
const (
	flagCompressed uint32 = 1 << iota // blocks shorter than their content are zstd frames
	flagEncrypted                     // each block is sealed with the key of the key id
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// marker is 8 random octets that begin each record of one segment. Since nobody outside knows them, no message can
// contain something that a scan would take for a record, and rubbish from a file's former life is never one.
type marker [8]byte

// segmentHeader is the first 64 octets of a segment.
type segmentHeader struct {
	segment Segment
	shard   uint32
	marker  marker
	created int64 // seconds since 1970, for people only
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], uint32(h.segment))
	binary.LittleEndian.PutUint32(b[12:], h.shard)
	copy(b[16:24], h.marker[:])
	binary.LittleEndian.PutUint64(b[24:], uint64(h.created))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func decodeSegmentHeader(b []byte, want Segment) (segmentHeader, error) {
	var h segmentHeader
	if len(b) < segmentHeaderSize || string(b[:7]) != segmentMagic[:7] {
		return h, fmt.Errorf("%w: %s has no segment header", ErrCorrupt, want)
	}
	if binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return h, fmt.Errorf("%w: segment header of %s", ErrCorrupt, want)
	}
	if b[7] != segmentMagic[7] { // the checksum is right: this is no damage
		return h, fmt.Errorf("%w: %s has format %q, this program knows %q", ErrNewer, want, b[:8], segmentMagic)
	}
	h.segment = Segment(binary.LittleEndian.Uint32(b[8:]))
	h.shard = binary.LittleEndian.Uint32(b[12:])
	h.marker = marker(b[16:24])
	h.created = int64(binary.LittleEndian.Uint64(b[24:]))
	if h.segment != want {
		return h, fmt.Errorf("%w: file of %s is %s", ErrCorrupt, want, h.segment)
	}
	return h, nil
}

// recordHeader stands before the blocks of a record. Only scans read it; reads by Ref take the tail.
type recordHeader struct {
	id     ID
	len    int64
	stored int64
	flags  uint32
	keyID  uint32
}

// encode writes the header of the record at ref into b and returns its CRC. The CRC covers the place too, so that a
// record that a faulty disk wrote elsewhere is not taken for one.
func (h *recordHeader) encode(b []byte, m marker, g Segment, off int64) uint32 {
	_ = b[recordHeaderSize-1]
	copy(b, m[:])
	copy(b[8:40], h.id[:])
	binary.LittleEndian.PutUint64(b[40:], uint64(h.len))
	binary.LittleEndian.PutUint64(b[48:], uint64(h.stored))
	binary.LittleEndian.PutUint32(b[56:], h.flags)
	binary.LittleEndian.PutUint32(b[60:], h.keyID)
	clear(b[64:84]) // reserved
	crc := crc32.Checksum(b[:84], castagnoli) ^ placeSum(uint64(g), uint64(off))
	binary.LittleEndian.PutUint32(b[84:], crc)
	return crc
}

// decodeRecordHeader reads a header; false when there is none at this place.
func decodeRecordHeader(b []byte, m marker, g Segment, off int64) (recordHeader, bool) {
	var h recordHeader
	if len(b) < recordHeaderSize || marker(b[:8]) != m {
		return h, false
	}
	if binary.LittleEndian.Uint32(b[84:]) != crc32.Checksum(b[:84], castagnoli)^placeSum(uint64(g), uint64(off)) {
		return h, false
	}
	h.id = ID(b[8:40])
	length, stored := binary.LittleEndian.Uint64(b[40:]), binary.LittleEndian.Uint64(b[48:])
	if length > maxContent || stored > 2*maxContent || stored%align != 0 {
		return h, false
	}
	h.len, h.stored = int64(length), int64(stored)
	if h.stored < recordHeaderSize+bodyEndSize(h.len) || h.stored > maxRecordSize(h.len) {
		return h, false
	}
	h.flags = binary.LittleEndian.Uint32(b[56:])
	h.keyID = binary.LittleEndian.Uint32(b[60:])
	return h, true
}

// placeSum mixes numbers into 32 bits that are combined with a CRC (SplitMix64's finisher). A CRC over the numbers
// would do as well, but would put them on the heap at each read.
func placeSum(numbers ...uint64) uint32 {
	var x uint64
	for _, n := range numbers {
		x = (x ^ n) + 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return uint32(x ^ x>>32)
}

// blocks is the number of blocks of a content.
func blocks(length int64) int64 { return (length + blockSize - 1) / blockSize }

// blockLen is the octets of content in block i.
func blockLen(length, i int64) int { return int(min(blockSize, length-i*blockSize)) }

// bodyEndSize is the table and the tail.
func bodyEndSize(length int64) int64 { return blocks(length)*entrySize + tailSize }

func alignUp(n int64) int64 { return (n + align - 1) &^ (align - 1) }

// recordSize is what a record takes whose blocks take stored octets.
func recordSize(length, stored int64) int64 {
	return recordHeaderSize + alignUp(stored) + bodyEndSize(length)
}

// maxRecordSize is the most that a record of a content may take.
func maxRecordSize(length int64) int64 {
	return recordSize(length, length+sealOverhead(length))
}

// BufferSize is the capacity at which ReadInto of the Ref does not allocate.
func (r Ref) BufferSize() int { return int(max(r.StoredLen-recordHeaderSize, r.Len)) }

// check refuses a Ref that can't be one, before its numbers are used.
func (r Ref) check() error {
	if r.Offset < segmentHeaderSize || r.Offset > 2*maxContent {
		return r.invalid()
	}
	return r.checkLengths()
}

// checkLengths is check but for the place.
func (r Ref) checkLengths() error {
	if r.Len < 0 || r.Len > maxContent || r.StoredLen < recordHeaderSize+bodyEndSize(r.Len) || r.StoredLen > maxRecordSize(r.Len) {
		return r.invalid()
	}
	return nil
}

func (r Ref) invalid() error {
	return fmt.Errorf("%w: %s with %d octets is no reference", ErrCorrupt, r, r.Len)
}

// bodyEnd is the table and the tail of a record: what a read by Ref needs beside the blocks.
type bodyEnd struct {
	table []byte // blocks * entrySize
	flags uint32
	keyID uint32
}

func (e *bodyEnd) encrypted() bool { return e.flags&flagEncrypted != 0 }

// stored returns the stored length and the checksum of block i.
func (e *bodyEnd) entry(i int64) (stored int, crc uint32) {
	b := e.table[i*entrySize:]
	return int(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint32(b[4:])
}

func putEntry(b []byte, stored int, crc uint32) {
	binary.LittleEndian.PutUint32(b, uint32(stored))
	binary.LittleEndian.PutUint32(b[4:], crc)
}

// sealBodyEnd fills the tail in b, which is a table followed by the room for the tail.
func sealBodyEnd(b []byte, ref Ref, flags, keyID, headerCRC uint32) {
	t := b[len(b)-tailSize:]
	binary.LittleEndian.PutUint32(t, flags)
	binary.LittleEndian.PutUint32(t[4:], keyID)
	binary.LittleEndian.PutUint32(t[8:], headerCRC)
	binary.LittleEndian.PutUint32(t[12:], bodyEndCRC(b, ref))
}

// bodyEndCRC covers the place, the lengths, the table and the tail but for itself.
func bodyEndCRC(b []byte, ref Ref) uint32 {
	place := placeSum(uint64(ref.Segment), uint64(ref.Offset), uint64(ref.Len), uint64(ref.StoredLen))
	return crc32.Checksum(b[:len(b)-4], castagnoli) ^ place
}

// openBodyEnd checks a table with its tail, and that the blocks fill the room that the Ref leaves them.
func openBodyEnd(b []byte, ref Ref) (bodyEnd, error) {
	t := b[len(b)-tailSize:]
	if binary.LittleEndian.Uint32(t[12:]) != bodyEndCRC(b, ref) {
		return bodyEnd{}, fmt.Errorf("%w: %s: checksum of the record", ErrCorrupt, ref)
	}
	e := bodyEnd{table: b[:len(b)-tailSize], flags: binary.LittleEndian.Uint32(t), keyID: binary.LittleEndian.Uint32(t[4:])}
	if e.flags&^(flagCompressed|flagEncrypted) != 0 {
		return bodyEnd{}, fmt.Errorf("%w: %s: unknown flags %#x", ErrCorrupt, ref, e.flags)
	}
	var sum int64
	for i := range blocks(ref.Len) {
		n, _ := e.entry(i)
		least, full := 0, blockLen(ref.Len, i)
		if e.encrypted() {
			least, full = sealedSize(0, i), sealedSize(full, i)
		}
		if n > full || n < least || (n < full && e.flags&flagCompressed == 0) {
			return bodyEnd{}, fmt.Errorf("%w: %s: length of block %d", ErrCorrupt, ref, i)
		}
		sum += int64(n)
	}
	if recordSize(ref.Len, sum) != ref.StoredLen {
		return bodyEnd{}, fmt.Errorf("%w: %s: lengths disagree", ErrCorrupt, ref)
	}
	return e, nil
}

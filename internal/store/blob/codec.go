package blob

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// compressFrom is the shortest content that is worth a try.
	compressFrom = 16 << 10
	// sampleSize is what is compressed of the beginning, the middle and the end to decide.
	sampleSize = 4 << 10
	// A content is compressed when at least a fifth is saved.
	savedShare = 5
)

// codec compresses and decompresses blocks. Its methods may be called at the same time.
type codec struct {
	rand    io.Reader
	enc     *zstd.Encoder
	dec     *zstd.Decoder
	blocks  sync.Pool // *[]byte of blockSize
	records sync.Pool // *[]byte up to smallBuffer: records of ordinary mail
	big     sync.Pool // *[]byte beyond
	seals   sync.Pool // *seal
}

// smallBuffer parts the pools, so that short mail does not sit in the buffers of long mail.
const smallBuffer = 64 << 10

func newCodec(rand io.Reader) (*codec, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(blockSize), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	// The capacity of the destination is the length that the record promises: a frame that holds more is an error.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(2*blockSize))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &codec{rand: rand, enc: enc, dec: dec}, nil
}

// block borrows a buffer of blockSize, with a capacity that a frame of a block never exceeds.
func (c *codec) block() *[]byte {
	if b, ok := c.blocks.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, blockSize, blockSize+blockSize/64)
	return &b
}

// record borrows a buffer of n octets.
func (c *codec) record(n int64) *[]byte {
	pool := &c.records
	if n > smallBuffer {
		pool = &c.big
	}
	b, ok := pool.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	if int64(cap(*b)) < n {
		*b = make([]byte, alignUp(n+n/8))
	}
	*b = (*b)[:n]
	return b
}

// recycle takes a buffer of record back.
func (c *codec) recycle(b *[]byte) {
	if cap(*b) <= smallBuffer {
		c.records.Put(b)
		return
	}
	c.big.Put(b)
}

// readFull reads len(p) octets of a content; one that is shorter than it said is an error.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("blob: read content at %d: %w", off, err)
}

// worthIt decides on a sample whether a content is compressed.
func (c *codec) worthIt(r io.ReaderAt, size int64) (bool, error) {
	if size < compressFrom {
		return false, nil
	}
	in, out := c.block(), c.block()
	defer c.blocks.Put(in)
	defer c.blocks.Put(out)
	sample := (*in)[:3*sampleSize]
	for i, off := range [...]int64{0, (size - sampleSize) / 2, size - sampleSize} {
		if err := readFull(r, sample[i*sampleSize:(i+1)*sampleSize], off); err != nil {
			return false, err
		}
	}
	packed := c.enc.EncodeAll(sample, (*out)[:0])
	return saves(len(sample), len(packed)), nil
}

func saves[T int | int64](from, to T) bool { return to <= from-from/savedShare }

// encodeBlock reads block i of a content, compresses it if that helps, seals it with x if that is not nil, and appends it
// to dst, which must have room for the block as it is. It returns dst and the checksum of what it appended.
func (c *codec) encodeBlock(dst []byte, r io.ReaderAt, size, i int64, compress bool, x *seal) ([]byte, uint32, error) {
	start := len(dst)
	if x != nil && i == 0 {
		dst = dst[:start+nonceSize]
	}
	dst, err := c.appendBlock(dst, r, size, i, compress)
	if err != nil {
		return dst[:start], 0, err
	}
	if x != nil {
		dst = x.close(dst, start, i)
	}
	return dst, crc32.Checksum(dst[start:], castagnoli), nil
}

// appendBlock reads and compresses a block.
func (c *codec) appendBlock(dst []byte, r io.ReaderAt, size, i int64, compress bool) ([]byte, error) {
	n := blockLen(size, i)
	if !compress {
		start := len(dst)
		dst = dst[:start+n]
		return dst, readFull(r, dst[start:], i*blockSize)
	}
	raw := c.block()
	defer c.blocks.Put(raw)
	if err := readFull(r, (*raw)[:n], i*blockSize); err != nil {
		return dst, err
	}
	out := c.block()
	defer c.blocks.Put(out)
	packed := c.enc.EncodeAll((*raw)[:n], (*out)[:0])
	if len(packed) >= n {
		packed = (*raw)[:n]
	}
	return append(dst, packed...), nil
}

// decodeBlock undoes encodeBlock: it checks the stored octets and makes n octets of content of them in dst[:n]. The octets
// of a sealed block are changed by it.
func (c *codec) decodeBlock(dst, stored []byte, n int, crc uint32, x *seal, i int64) error {
	switch {
	case x == nil:
		if crc32.Checksum(stored, castagnoli) != crc {
			return errChecksum
		}
	case len(stored) == sealedSize(n, i): // the tag says more than the checksum
		_, err := x.open(dst[:0:n], stored, i)
		return err
	default:
		from := sealedSize(0, i) - tagSize
		plain, err := x.open(stored[from:from], stored, i)
		if err != nil {
			return err
		}
		stored = plain
	}
	if len(stored) == n {
		copy(dst[:n], stored) // nothing to do when they are the same octets
		return nil
	}
	out, err := c.dec.DecodeAll(stored, dst[:0:n])
	if err != nil {
		return err
	}
	if len(out) != n {
		return errLength
	}
	return nil
}

var (
	errChecksum = errors.New("checksum")
	errLength   = errors.New("length after decompression")
)

// encoded is a record without its place: header and tail are sealed when the place is known.
type encoded struct {
	buf   *[]byte // from codec.record: the whole record
	id    ID
	len   int64
	flags uint32
	keyID uint32
	// counted says that the store counts the record as sealed and on its way.
	counted bool
}

func (e *encoded) size() int64 { return int64(len(*e.buf)) }

// seal writes header and tail for the place.
func (e *encoded) seal(m marker, g Segment, off int64) Ref {
	b := *e.buf
	ref := Ref{Segment: g, Offset: off, StoredLen: int64(len(b)), Len: e.len, Sum: e.id.prefix()}
	h := recordHeader{id: e.id, len: e.len, stored: ref.StoredLen, flags: e.flags, keyID: e.keyID}
	crc := h.encode(b, m, g, off)
	sealBodyEnd(b[int64(len(b))-bodyEndSize(e.len):], ref, e.flags, e.keyID, crc)
	return ref
}

// encode makes the record of a content that fits in memory, sealed with x unless that is nil.
func (c *codec) encode(r io.ReaderAt, size int64, id ID, x *seal) (*encoded, error) {
	compress, err := c.worthIt(r, size)
	if err != nil {
		return nil, err
	}
	e := &encoded{id: id, len: size}
	full := size
	if x != nil {
		e.flags, e.keyID = flagEncrypted, x.id
		full += sealOverhead(size)
	}
	e.buf = c.record(recordSize(size, full))
	stored, err := c.encodeBlocks(e, r, compress, x)
	if err == nil && compress && !saves(full, stored) {
		compress = false // the sample promised too much
		stored, err = c.encodeBlocks(e, r, false, x)
	}
	if err != nil {
		c.recycle(e.buf)
		return nil, err
	}
	if compress {
		e.flags |= flagCompressed
	}
	*e.buf = (*e.buf)[:recordSize(size, stored)]
	return e, nil
}

// encodeBlocks fills the blocks, the padding and the table of e, and returns what the blocks take.
func (c *codec) encodeBlocks(e *encoded, r io.ReaderAt, compress bool, x *seal) (int64, error) {
	if x != nil {
		if err := x.draw(c.rand); err != nil {
			return 0, err
		}
	}
	n := blocks(e.len)
	var few [8]byte
	table := few[:0]
	if n*entrySize > int64(len(few)) {
		table = make([]byte, 0, n*entrySize)
	}
	dst := (*e.buf)[:recordHeaderSize]
	for i := range n {
		start := len(dst)
		var crc uint32
		var err error
		if dst, crc, err = c.encodeBlock(dst, r, e.len, i, compress, x); err != nil {
			return 0, err
		}
		table = table[:len(table)+entrySize]
		putEntry(table[len(table)-entrySize:], len(dst)-start, crc)
	}
	stored := int64(len(dst) - recordHeaderSize)
	for int64(len(dst)) < recordHeaderSize+alignUp(stored) {
		dst = append(dst, 0)
	}
	copy((*e.buf)[len(dst):], table)
	return stored, nil
}

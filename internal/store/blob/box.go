package blob

import (
	"crypto/rand"
	"fmt"
)

// Box makes and opens records that stand outside of segments, each in a place that its caller numbers: rows of a table. Their
// format is that of records in a segment numbered 0, so they are compressed, checked, encrypted and bound in the same way.
// Its methods may be called at the same time.
type Box struct{ s *Store } // one without files: its codec and its keys

// NewBox makes a Box; without keys new records are not encrypted.
func NewBox(keys Keys) (*Box, error) {
	c, err := newCodec(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	s := &Store{opt: Options{Keys: keys}, codec: c}
	s.sealing.users = map[uint32]int{}
	return &Box{s}, nil
}

// Boxed is a record that has no place yet.
type Boxed struct {
	e   *encoded
	key uint32
}

// Put makes the record of a content, whose SHA-256 is id.
func (x *Box) Put(c Content, id ID) (*Boxed, error) {
	e, err := x.s.encode(c, c.Size(), id)
	if err != nil {
		return nil, err
	}
	if e.counted { // nobody walks through what stands in places
		x.s.doneSealing(e.keyID)
		e.counted = false
	}
	b := &Boxed{e, e.keyID}
	if e.len == 0 && x.s.opt.Keys != nil { // there is nothing to seal, now or after a rotation
		b.key, _ = x.s.opt.Keys.Current()
	}
	return b, nil
}

// Key is the id of the key that the record is sealed with, 0 for none.
func (b *Boxed) Key() uint32 { return b.key }

// Place binds the record to a place and returns what to keep there. The octets are valid until the next call of Place.
func (b *Boxed) Place(number int64) (Ref, []byte) {
	return b.e.seal(marker{}, 0, number), *b.e.buf
}

// Open returns the content of a record, checked, in buf when that suffices; stored may be changed. Errors: ErrCorrupt,
// ErrEncrypted, or one of the keys.
func (x *Box) Open(ref Ref, stored, buf []byte) ([]byte, error) {
	if err := ref.checkLengths(); err != nil {
		return nil, err
	}
	if int64(len(stored)) != ref.StoredLen {
		return nil, fmt.Errorf("%w: %s: %d octets stand there", ErrCorrupt, ref, len(stored))
	}
	return x.s.decode(ref, stored[recordHeaderSize:], buf)
}

// Look tells what content a record is of, from its head: for a record whose row is lost.
func (x *Box) Look(number int64, stored []byte) (Ref, ID, error) {
	h, ok := decodeRecordHeader(stored, marker{}, 0, number)
	if !ok || h.stored != int64(len(stored)) {
		return Ref{}, ID{}, fmt.Errorf("%w: no record stands at %d", ErrCorrupt, number)
	}
	return Ref{Offset: number, StoredLen: h.stored, Len: h.len, Sum: h.id.prefix()}, h.id, nil
}

package blob

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Keys are what records are encrypted with: a keyring.Ring. Its methods may be called at the same time.
type Keys interface {
	// Seal returns the key for a new record and counts the blocks that it is to seal.
	Seal(blocks int64) (id uint32, key cipher.AEAD, err error)
	// Key returns the key that a record names, nil when there is none of this id. An error says that it can't be known now.
	Key(id uint32) (cipher.AEAD, error)
	// Current returns the id of the key for new records, and whether all records are known to be under it.
	Current() (id uint32, swept bool)
	// Swept notes that all records are under key id.
	Swept(id uint32) error
}

// Encryption of a record (AES-256-GCM). Each block is sealed by itself, so that it can be read by itself. The first one
// begins with a random nonce; block i takes the nonce plus i. What is sealed with each block binds it to its content, its
// length, its key and its number: a block of another record, in another place, or missing at the end does not open. The
// place of the record is no part of it, so that records move as they are.
const (
	nonceSize = 12
	tagSize   = 16
	bindSize  = 40
	bindMagic = "WAXSEAL1"
)

// sealedSize is what a block of n octets takes when it is sealed.
func sealedSize(n int, i int64) int {
	if i == 0 {
		return n + nonceSize + tagSize
	}
	return n + tagSize
}

// sealOverhead is what encryption adds to a content.
func sealOverhead(length int64) int64 {
	if length == 0 {
		return 0 // there is nothing to seal
	}
	return nonceSize + blocks(length)*tagSize
}

// seal seals and opens the blocks of one record. It is borrowed from the codec, since what an AEAD is given is on the heap.
type seal struct {
	key   cipher.AEAD
	id    uint32
	first [nonceSize]byte // of block 0
	nonce [nonceSize]byte
	bind  [bindSize]byte
}

// seal borrows a seal for the record of a content.
func (c *codec) seal(key cipher.AEAD, id uint32, sum, length int64) *seal {
	x, ok := c.seals.Get().(*seal)
	if !ok {
		x = new(seal)
	}
	x.key, x.id = key, id
	copy(x.bind[:8], bindMagic)
	binary.LittleEndian.PutUint64(x.bind[8:], uint64(sum))
	binary.LittleEndian.PutUint64(x.bind[16:], uint64(length))
	binary.LittleEndian.PutUint64(x.bind[24:], uint64(id))
	return x
}

// giveBack takes a seal back; nil is none.
func (c *codec) giveBack(x *seal) {
	if x != nil {
		x.key = nil
		c.seals.Put(x)
	}
}

// draw takes a new nonce. Whatever is sealed anew needs a new one.
func (x *seal) draw(r io.Reader) error {
	if _, err := io.ReadFull(r, x.first[:]); err != nil {
		return fmt.Errorf("blob: nonce: %w", err)
	}
	return nil
}

// block sets nonce and binding for block i.
func (x *seal) block(i int64) {
	x.nonce = x.first
	low := binary.BigEndian.Uint64(x.nonce[4:])
	binary.BigEndian.PutUint64(x.nonce[4:], low+uint64(i))
	binary.LittleEndian.PutUint64(x.bind[32:], uint64(i))
}

// close seals b[start:], which is block i with room for its nonce before it, in place; b must have the capacity for the tag.
func (x *seal) close(b []byte, start int, i int64) []byte {
	x.block(i)
	if i == 0 {
		copy(b[start:], x.first[:])
		start += nonceSize
	}
	x.key.Seal(b[start:start], x.nonce[:], b[start:], x.bind[:])
	return b[:len(b)+tagSize]
}

var errSeal = errors.New("authentication: it was changed, or belongs elsewhere")

// open opens the stored octets of block i into dst.
func (x *seal) open(dst, stored []byte, i int64) ([]byte, error) {
	x.block(i)
	if i == 0 {
		stored = stored[nonceSize:]
	}
	plain, err := x.key.Open(dst, x.nonce[:], stored, x.bind[:])
	if err != nil {
		return nil, errSeal
	}
	return plain, nil
}

// opener borrows what the record at ref is opened with, nil for a record that is not encrypted. nonce is what its first
// block begins with.
func (s *Store) opener(ref Ref, end bodyEnd, nonce []byte) (*seal, error) {
	if !end.encrypted() || ref.Len == 0 {
		return nil, nil
	}
	key, err := s.key(end.keyID)
	if err != nil {
		return nil, fmt.Errorf("blob: read %s: %w", ref, err)
	}
	if key == nil {
		return nil, fmt.Errorf("%w: %s with key %08x, which is not there", ErrEncrypted, ref, end.keyID)
	}
	x := s.codec.seal(key, end.keyID, ref.Sum, ref.Len)
	copy(x.first[:], nonce)
	return x, nil
}

func (s *Store) key(id uint32) (cipher.AEAD, error) {
	if s.opt.Keys == nil {
		return nil, nil
	}
	return s.opt.Keys.Key(id)
}

// takeSeal borrows a seal under the current key for a new record, nil when records are not encrypted. Until doneSealing the
// store knows that a record under this key is on its way.
func (s *Store) takeSeal(id ID, length int64) (*seal, error) {
	if s.opt.Keys == nil || length == 0 {
		return nil, nil
	}
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	keyID, key, err := s.opt.Keys.Seal(blocks(length))
	if err != nil {
		return nil, classify(err)
	}
	s.sealing.users[keyID]++
	return s.codec.seal(key, keyID, id.prefix(), length), nil
}

// doneSealing ends takeSeal: the record is in its pack and counted there, or will never be. 0 is no key.
func (s *Store) doneSealing(keyID uint32) {
	if keyID == 0 {
		return
	}
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	if s.sealing.users[keyID]--; s.sealing.users[keyID] == 0 {
		delete(s.sealing.users, keyID)
	}
}

// keep remembers the key of a large content until it is settled: no pack counts it meanwhile.
func (s *Store) keepSealing(g Segment, keyID uint32) {
	if keyID == 0 {
		return
	}
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	s.sealing.large[g] = keyID
}

// settleSealing ends keepSealing.
func (s *Store) settleSealing(g Segment) {
	s.sealing.mu.Lock()
	keyID := s.sealing.large[g]
	delete(s.sealing.large, g)
	s.sealing.mu.Unlock()
	s.doneSealing(keyID)
}

// sealingOnly tells whether no record under another key than this is on its way.
func (s *Store) sealingOnly(keyID uint32) bool {
	s.sealing.mu.Lock()
	defer s.sealing.mu.Unlock()
	for id := range s.sealing.users {
		if id != keyID {
			return false
		}
	}
	return true
}

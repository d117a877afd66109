package blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
	"testing"
	"time"

	"waxwing/internal/durable"
	"waxwing/internal/durable/crashfs"
	"waxwing/internal/store/keyring"
)

// mode is a way of storing: the tests of the store run in each.
type mode struct{ encrypted bool }

func bothWays(t *testing.T, fn func(t *testing.T, m mode)) {
	t.Helper()
	t.Parallel()
	for name, m := range map[string]mode{"plain": {false}, "encrypted": {true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, m)
		})
	}
}

// with gives options the keys that the mode asks for. They stand on the same file system, and share its fate.
func (m mode) with(tb testing.TB, o Options) Options {
	tb.Helper()
	if m.encrypted {
		o.Keys = ringOn(tb, o.FS, o.Dir)
	}
	return o
}

// ringOn opens the keys on a file system, and makes them at the first time.
func ringOn(tb testing.TB, fsys durable.FS, dir string) *keyring.Ring {
	tb.Helper()
	if fsys == nil {
		fsys = durable.OS
	}
	o := keyring.Options{
		FS: fsys, Files: [2]string{dir + "/keys/first", dir + "/keys/second"},
		Source: keyring.Source{Kind: keyring.File, File: dir + "/master/key"},
	}
	ring, err := keyring.Open(context.Background(), o)
	if errors.Is(err, keyring.ErrNoFile) {
		var m *keyring.Master
		if m, err = keyring.NewMaster(rand.Reader); err != nil {
			tb.Fatal(err)
		}
		if err := keyring.WriteMaster(fsys, o.Source.File, m, time.Now()); err != nil {
			tb.Fatal(err)
		}
		ring, err = keyring.Create(context.Background(), o, true)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return ring
}

// storedOf returns the octets of a record as they are on disk.
func storedOf(t *testing.T, s *Store, fsys durable.FS, ref Ref) []byte {
	t.Helper()
	b := make([]byte, ref.StoredLen)
	f, err := fsys.OpenFile(s.path(ref.Segment), os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(b, ref.Offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// plant writes a record's octets at the place of another and makes all checksums right, as somebody with the disk in their
// hands can.
func plant(t *testing.T, s *Store, fsys durable.FS, ref Ref, record []byte) {
	t.Helper()
	b := bytes.Clone(record)
	end := b[int64(len(b))-bodyEndSize(ref.Len):]
	at := recordHeaderSize
	for i := range blocks(ref.Len) {
		n := int(binary.LittleEndian.Uint32(end[i*entrySize:]))
		if at+n <= len(b) {
			putEntry(end[i*entrySize:], n, crc32.Checksum(b[at:at+n], castagnoli))
		}
		at += n
	}
	binary.LittleEndian.PutUint32(end[len(end)-4:], bodyEndCRC(end, ref))
	f, err := fsys.OpenFile(s.path(ref.Segment), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, ref.Offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestChangedRecordsDoNotOpen lets an adversary change each octet of a record, with right checksums, swap records of one
// length, and swap blocks within one: only that record fails, and nothing of it is given out.
func TestChangedRecordsDoNotOpen(t *testing.T) {
	t.Parallel()
	fsys := crashfs.New()
	o := small(t, mode{true}, fsys)
	o.LargeFrom, o.SegmentSize = 1<<20, 8<<20
	s := open(t, o)
	a, b := random(1, 700), random(2, 700)
	refA, refB := put(t, s, 0, a), put(t, s, 0, b)
	long := random(3, 2*blockSize)
	refLong := put(t, s, 0, long)
	recordA, recordB, recordLong := storedOf(t, s, fsys, refA), storedOf(t, s, fsys, refB), storedOf(t, s, fsys, refLong)
	fails := func(what string, ref Ref) {
		t.Helper()
		if got, err := s.ReadInto(ref, nil); !errors.Is(err, ErrCorrupt) || got != nil {
			t.Errorf("%s: ReadInto: %d octets, %v", what, len(got), err)
		}
		r, err := s.Open(ref)
		if err == nil {
			_, err = r.ReadAt(make([]byte, ref.Len), 0)
			err = errors.Join(err, r.Close())
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: Reader: %v", what, err)
		}
	}
	for at := recordHeaderSize; at < recordHeaderSize+700+nonceSize+tagSize; at++ {
		bad := bytes.Clone(recordA)
		bad[at] ^= 1 << (at % 8)
		plant(t, s, fsys, refA, bad)
		fails(fmt.Sprint("octet ", at), refA)
	}
	plant(t, s, fsys, refA, recordB)
	plant(t, s, fsys, refB, recordA)
	fails("swapped, first", refA)
	fails("swapped, second", refB)
	plant(t, s, fsys, refA, recordA)
	plant(t, s, fsys, refB, recordB)
	for i, ref := range []Ref{refA, refB} {
		if got, err := s.ReadInto(ref, nil); err != nil || !bytes.Equal(got, [][]byte{a, b}[i]) {
			t.Errorf("put back: %v", err)
		}
	}
	// The two blocks of one content, exchanged: of the first only what follows its nonce.
	bad := bytes.Clone(recordLong)
	n := blockSize + tagSize
	first, second := recordHeaderSize+nonceSize, recordHeaderSize+nonceSize+n
	copy(bad[first:], recordLong[second:second+n])
	copy(bad[second:], recordLong[first:first+n])
	plant(t, s, fsys, refLong, bad)
	fails("blocks exchanged", refLong)
	// Another length, another content's id.
	plant(t, s, fsys, refLong, recordLong)
	other := refLong
	other.Sum++
	fails("another content", other)
	if got, err := s.ReadInto(refLong, nil); err != nil || !bytes.Equal(got, long) {
		t.Errorf("in the end: %v", err)
	}
}

// TestEncryptedOctetsTellNothing looks for the content, and for what equal contents would have in common, in the files.
func TestEncryptedOctetsTellNothing(t *testing.T) {
	t.Parallel()
	fsys := crashfs.New()
	s := open(t, small(t, mode{true}, fsys))
	seen := map[string]bool{}
	for i := range 20 {
		for _, content := range [][]byte{[]byte("a short secret letter"), words(1, 30_000), words(2, 90_000), random(3, 50_000)} {
			ref := put(t, s, uint32(i), content)
			b := storedOf(t, s, fsys, ref)
			if bytes.Contains(b, content[:16]) || bytes.Contains(b, content[len(content)-16:]) {
				t.Errorf("%d octets are in the clear", len(content))
			}
			body := string(b[recordHeaderSize : recordHeaderSize+16])
			if seen[body] {
				t.Error("two records begin with the same octets: a nonce was used twice")
			}
			seen[body] = true
		}
	}
	block := random(4, blockSize)
	ref := put(t, s, 0, append(bytes.Clone(block), block...))
	b := storedOf(t, s, fsys, ref)[recordHeaderSize+nonceSize:]
	if bytes.Equal(b[:64], b[blockSize+tagSize:][:64]) {
		t.Error("equal blocks of a content look the same: they share a nonce")
	}
}

// TestDamageIsNotSealedAsSound: what is not what its id says is reported and stays as it is, when keys change.
func TestDamageIsNotSealedAsSound(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, n := range map[string]int{"pack": 1000, "large": 90_000} {
		o := small(t, mode{true}, crashfs.New())
		ring, _ := o.Keys.(*keyring.Ring)
		s := open(t, o)
		x := newRows()
		id := ID(sha256.Sum256([]byte("what was said to come")))
		ref, err := s.Put(ctx, 0, bytes.NewReader(random(1, n)), id)
		if err != nil {
			t.Fatal(err)
		}
		s.Settle(ref, true)
		x.refs[id] = ref
		if _, err := ring.Rotate(); err != nil {
			t.Fatal(err)
		}
		out, err := s.Compact(ctx, x)
		if err != nil || len(out.Damaged) != 1 || x.refs[id] != ref {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
}

// TestWithoutItsKeyARecordIsAClearError: plain records read on, encrypted ones say which key is missing, damage is found
// all the same, and Recover and Compact lose nothing.
func TestWithoutItsKeyARecordIsAClearError(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fsys := crashfs.New()
	x := newRows()
	withKeys, without := small(t, mode{true}, fsys), small(t, mode{false}, fsys)
	session := func(o Options, fn func(*Store)) {
		t.Helper()
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(ctx, known(x.refs), nil); err != nil {
			t.Fatal(err)
		}
		fn(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	plain, secret, large := random(1, 1000), random(2, 1000), random(3, 100_000)
	session(without, func(s *Store) {
		if err := x.put(s, 0, plain); err != nil {
			t.Fatal(err)
		}
	})
	session(withKeys, func(s *Store) {
		if err := errors.Join(x.put(s, 0, secret), x.put(s, 0, large)); err != nil {
			t.Fatal(err)
		}
	})
	session(without, func(s *Store) {
		if got, err := s.ReadInto(x.refs[sha256.Sum256(plain)], nil); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("plain record: %v", err)
		}
		for _, content := range [][]byte{secret, large} {
			id := ID(sha256.Sum256(content))
			ref := x.refs[id]
			_, err := s.ReadInto(ref, nil)
			_, oerr := s.Open(ref)
			if !errors.Is(err, ErrEncrypted) || !errors.Is(oerr, ErrEncrypted) || !errors.Is(s.Check(ref, id), ErrEncrypted) || !s.whole(ref) {
				t.Errorf("%v, %v", err, oerr)
			}
			if err := fsys.Flip(s.path(ref.Segment), ref.Offset+recordHeaderSize+500, 1); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(ref, id); !errors.Is(err, ErrCorrupt) || s.whole(ref) {
				t.Errorf("damage without the key: %v", err)
			}
			if err := fsys.Flip(s.path(ref.Segment), ref.Offset+recordHeaderSize+500, 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range s.table.sorted() { // as if most were dead
			s.table.update(g, func(i *segmentInfo) { i.live, i.sealed = 0, true })
		}
		if _, err := s.Compact(ctx, x); err != nil { // records move as they are
			t.Error(err)
		}
	})
	session(withKeys, func(s *Store) {
		if err := x.verifyAll(s, x.refs); err != nil {
			t.Error(err)
		}
	})
}

// TestSweepEncryptsEverythingAnew: plain records and those under older keys end under the current one, those that were
// written while keys change too, and the old octets are gone.
func TestSweepEncryptsEverythingAnew(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fsys := crashfs.New()
	x := newRows()
	s, err := Open(small(t, mode{false}, fsys))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recover(ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	fill := func(s *Store, seed uint64) {
		for i := range uint64(60) {
			make, n := random, 500+int(i)*100
			if i%2 == 0 {
				make = words
			}
			if i%10 == 0 {
				n = 60_000 // a file of its own
			}
			if err := x.put(s, uint32(i), make(seed+i, n)); err != nil {
				t.Error(err)
			}
		}
	}
	fill(s, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o := small(t, mode{true}, fsys)
	ring, _ := o.Keys.(*keyring.Ring)
	if err := ring.Swept(1); err != nil { // as if the keys had come to a store with mail in it
		t.Fatal(err)
	}
	s, err = Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recover(ctx, known(x.refs), nil); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var writers sync.WaitGroup
	for round := range uint64(3) {
		writers.Go(func() { fill(s, 10_000*(round+1)) })
		if _, err := ring.Rotate(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Compact(ctx, x); err != nil {
			t.Fatal(err)
		}
		writers.Wait()
	}
	// What was on its way in the last round is taken by the next walk.
	if _, err := s.Compact(ctx, x); err != nil {
		t.Fatal(err)
	}
	key, swept := ring.Current()
	if !swept {
		t.Error("the walk has not ended")
	}
	for _, ref := range x.refs {
		b := storedOf(t, s, fsys, ref)
		end, err := openBodyEnd(b[int64(len(b))-bodyEndSize(ref.Len):], ref)
		if err != nil || !under(end, ref, key) {
			t.Errorf("%s is under key %08x, flags %b, %v", ref, end.keyID, end.flags, err)
		}
	}
	if err := x.verifyAll(s, x.refs); err != nil {
		t.Error(err)
	}
	before := s.Stats()
	if out, err := s.Compact(ctx, x); err != nil || out.Moved != 0 || s.Stats() != before {
		t.Errorf("another walk moves %+v, %v", out, err)
	}
}

// TestWalkEndsOnlyWhenNothingIsOnItsWay: a record that was sealed with the old key and has no row yet keeps the walk open.
func TestWalkEndsOnlyWhenNothingIsOnItsWay(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, n := range map[string]int{"pack": 1000, "large": 90_000} {
		fsys := crashfs.New()
		o := small(t, mode{true}, fsys)
		ring, _ := o.Keys.(*keyring.Ring)
		s := open(t, o)
		x := newRows()
		content := random(1, n)
		id := ID(sha256.Sum256(content))
		ref, err := s.Put(ctx, 0, bytes.NewReader(content), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Rotate(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Compact(ctx, x); err != nil {
			t.Fatal(err)
		}
		if _, swept := ring.Current(); swept {
			t.Errorf("%s: the walk ended before the record had a row", name)
		}
		x.refs[id], x.data[id] = ref, content
		s.Settle(ref, true)
		if _, err := s.Compact(ctx, x); err != nil {
			t.Fatal(err)
		}
		if _, swept := ring.Current(); !swept || x.refs[id] == ref {
			t.Errorf("%s: swept %v, still at %s", name, swept, x.refs[id])
		}
		if err := x.verifyAll(s, x.refs); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"testing"

	"waxwing/internal/durable"
	"waxwing/internal/durable/crashfs"
)

// packOf returns the octets of a pack with a few records.
func packOf(tb testing.TB, keys Keys, contents ...[]byte) []byte {
	tb.Helper()
	disk := crashfs.New()
	o := small(tb, mode{}, disk)
	o.Keys = keys
	s := open(tb, o)
	var g Segment
	for _, c := range contents {
		g = put(tb, s, 0, c).Segment
	}
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	b, err := durable.ReadFile(disk, s.path(g), 1<<20)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// FuzzRecover gives Recover, Verify and the reading calls a pack of any octets: no panic, no endless work, and what is
// told as whole is whole.
func FuzzRecover(f *testing.F) {
	keys := ringOn(f, crashfs.New(), "/ring")
	good := packOf(f, nil, []byte("first"), random(1, 500), words(2, compressFrom), nil)
	f.Add(packOf(f, keys, []byte("first"), random(1, 500), words(2, compressFrom), nil), int64(0))
	f.Add(good, int64(0))
	f.Add(good[:len(good)-30], int64(200))
	f.Add(append(bytes.Clone(good), good[segmentHeaderSize:]...), int64(64))
	f.Add(bytes.Repeat(good[16:24], 300), int64(0))
	f.Add([]byte{}, int64(0))
	f.Add(make([]byte, 10_000), int64(5))
	f.Fuzz(func(t *testing.T, pack []byte, end int64) {
		if len(pack) > 1<<20 {
			return
		}
		ctx := context.Background()
		disk := crashfs.New()
		o := small(t, mode{}, disk)
		o.Keys = keys
		if err := disk.MkdirAll(o.Dir+"/packs", 0o700); err != nil {
			t.Fatal(err)
		}
		file, err := disk.OpenFile(o.Dir+"/packs/00000001.blob", os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(pack, 0); err != nil {
			t.Fatal(err)
		}
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		k := map[Segment]Known{1: {End: end % (1 << 21), Live: 1}}
		_, err = s.Recover(ctx, k, func(ref Ref, _ ID) (bool, error) {
			if _, err := s.ReadInto(ref, nil); err != nil && !errors.Is(err, ErrEncrypted) {
				t.Errorf("told as whole, but: %v", err)
			}
			return true, nil
		})
		if err != nil {
			t.Fatalf("a damaged pack stops the store: %v", err)
		}
		if err := s.Verify(ctx, func(Ref, ID, error) error { return nil }); err != nil {
			t.Errorf("verify: %v", err)
		}
		ref := put(t, s, 0, []byte("the store goes on"))
		if err := s.Check(ref, sha256.Sum256([]byte("the store goes on"))); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzRead reads any octets by any Ref: an error or a content of the promised length, never a panic.
func FuzzRead(f *testing.F) {
	keys := ringOn(f, crashfs.New(), "/ring")
	good := packOf(f, nil, random(1, 500), words(2, compressFrom))
	f.Add(packOf(f, keys, random(1, 500)), int64(segmentHeaderSize), recordSize(500, 500+sealOverhead(500)), int64(500))
	f.Add(good, int64(segmentHeaderSize), recordSize(500, 500), int64(500))
	f.Add(good, int64(segmentHeaderSize)+recordSize(500, 500), int64(len(good))-segmentHeaderSize-recordSize(500, 500), int64(compressFrom))
	f.Fuzz(func(t *testing.T, pack []byte, offset, stored, length int64) {
		if length > 1<<20 || stored > 2<<20 { // memory is the caller's choice: it believes its own rows
			return
		}
		disk := crashfs.New()
		o := small(t, mode{}, disk)
		o.Keys = keys
		s := open(t, o)
		file, err := disk.OpenFile(s.path(5), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(pack, 0); err != nil {
			t.Fatal(err)
		}
		ref := Ref{Segment: 5, Offset: offset, StoredLen: stored, Len: length}
		b, err := s.ReadInto(ref, nil)
		if err == nil && int64(len(b)) != length {
			t.Errorf("%d octets, want %d", len(b), length)
		}
		r, rerr := s.Open(ref)
		if rerr == nil {
			all, err2 := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
			if err == nil && (err2 != nil || !bytes.Equal(all, b)) {
				t.Errorf("Reader and ReadInto differ: %v", err2)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if err == nil && rerr != nil {
			t.Errorf("ReadInto works, Open does not: %v", rerr)
		}
	})
}

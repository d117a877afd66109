package blob

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"waxwing/internal/durable/crashfs"
)

// makeNewer gives a segment the header that a later version of the format will have.
func makeNewer(t *testing.T, disk *crashfs.FS, name string) {
	t.Helper()
	f, err := disk.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, segmentHeaderSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	b[7]++
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestSegmentsOfANewerVersionAreRefusedOrLeftAlone: where rows name one, the store is not opened; where none does, it stays
// as it is and all else works.
func TestSegmentsOfANewerVersionAreRefusedOrLeftAlone(t *testing.T) {
	bothWays(t, func(t *testing.T, m mode) {
		ctx := context.Background()
		disk := newDisk(t)
		s, err := Open(small(t, m, disk))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recover(ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		pack, large := put(t, s, 0, random(1, 1000)), put(t, s, 0, random(2, 90_000))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		makeNewer(t, disk, s.path(pack.Segment))
		makeNewer(t, disk, s.path(large.Segment))
		s, err = Open(small(t, m, disk))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recover(ctx, map[Segment]Known{pack.Segment: {End: pack.End(), Live: pack.StoredLen}}, nil)
		if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), `has format "WAXBLOB2", this program knows "WAXBLOB1"`) {
			t.Errorf("with rows: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, small(t, m, disk))
		next := put(t, s, 0, random(3, 1000))
		if next.Segment == pack.Segment {
			t.Error("a segment of a newer version is written on")
		}
		if _, err := s.Compact(ctx, newRows()); err != nil {
			t.Error(err)
		}
		for _, ref := range []Ref{pack, large} {
			if _, err := disk.Stat(s.path(ref.Segment)); err != nil {
				t.Errorf("%s is gone: %v", ref, err)
			}
		}
	})
}

package blob

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
)

func TestBoxedRecordsOpenInTheirPlaceAlone(t *testing.T) {
	t.Parallel()
	keys := ringOn(t, nil, t.TempDir())
	for name, k := range map[string]Keys{"encrypted": keys, "plain": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box, err := NewBox(k)
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"", "a letter\r\n", strings.Repeat("it shrinks\r\n", 30_000)} {
				id := ID(sha256.Sum256([]byte(text)))
				b, err := box.Put(bytes.NewReader([]byte(text)), id)
				if err != nil {
					t.Fatal(err)
				}
				if (b.Key() != 0) != (k != nil) {
					t.Errorf("key %08x", b.Key())
				}
				b.Place(3) // a transaction that ran again
				ref, octets := b.Place(7)
				octets = bytes.Clone(octets)
				if k != nil && len(text) > 0 && bytes.Contains(octets, []byte("letter")) {
					t.Error("it can be read")
				}
				got, err := box.Open(ref, bytes.Clone(octets), nil)
				if err != nil || string(got) != text {
					t.Errorf("%d octets of %d, %v", len(got), len(text), err)
				}
				if ref2, id2, err := box.Look(7, octets); err != nil || ref2 != ref || id2 != id {
					t.Errorf("%+v, %v", ref2, err)
				}
				if _, _, err := box.Look(8, octets); !errors.Is(err, ErrCorrupt) {
					t.Error("another place:", err)
				}
				wrong := ref
				wrong.Offset = 8
				if _, err := box.Open(wrong, bytes.Clone(octets), nil); !errors.Is(err, ErrCorrupt) {
					t.Error("another place:", err)
				}
				wrong = ref
				wrong.Sum++
				if _, err := box.Open(wrong, bytes.Clone(octets), nil); k != nil && len(text) > 0 && !errors.Is(err, ErrCorrupt) {
					t.Error("another content:", err)
				}
				if _, err := box.Open(ref, octets[:len(octets)-8], nil); !errors.Is(err, ErrCorrupt) {
					t.Error("cut:", err)
				}
			}
		})
	}
}

func TestAFlippedOctetOfABoxedRecordIsNeverShown(t *testing.T) {
	t.Parallel()
	box, err := NewBox(ringOn(t, nil, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("Subject: whole\r\n\r\nor not at all\r\n")
	b, err := box.Put(bytes.NewReader(text), sha256.Sum256(text))
	if err != nil {
		t.Fatal(err)
	}
	ref, octets := b.Place(1)
	for i := range octets {
		bad := bytes.Clone(octets)
		bad[i] ^= 0x20
		got, err := box.Open(ref, bad, nil)
		if err == nil && !bytes.Equal(got, text) || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrEncrypted) {
			t.Fatalf("octet %d: %q, %v", i, got, err)
		}
	}
}

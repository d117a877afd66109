package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"waxwing/internal/durable"
)

// index is what this node knows of a repository without an identity: which pieces stand in which bundle. It is a file of
// records, one for each bundle that was uploaded, and worth no more than time: without it the next backup is a full one.
//
//	length and CRC-32 of what follows, 4 octets each; length of the head, 4 octets; the head as JSON; the pieces
type index struct {
	fs      durable.FS
	file    string
	bundles []known
	where   map[Sum]int // in bundles
	end     int64       // of the file
}

// known is a bundle that the index has.
type known struct {
	Part
	For    string `json:"for"` // which recipients: a digest of them
	pieces []piece
}

// maxIndexFile bounds the file: some 50 million pieces.
const maxIndexFile = 4 << 30

// recipientsDigest tells sets of recipients apart. A bundle serves a backup only when it was made for the same ones.
func recipientsDigest(to []string) string {
	list := slices.Clone(to)
	slices.Sort(list)
	sum := sha256.Sum256([]byte(strings.Join(list, "\n")))
	return hex.EncodeToString(sum[:16])
}

// loadIndex reads the index of a repository. What can't be read of it, behind a crash say, is left out.
func loadIndex(fsys durable.FS, dir, repository string) (*index, error) {
	x := &index{fs: fsys, file: filepath.Join(dir, "index-"+repository), where: make(map[Sum]int)}
	raw, err := durable.ReadFile(fsys, x.file, maxIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return nil, fmt.Errorf("backup: read index: %w", err)
	}
	for {
		k, rest, ok := parseKnown(raw[x.end:])
		if !ok {
			return x, nil
		}
		x.take(k)
		x.end = int64(len(raw) - len(rest))
	}
}

func (x *index) take(k known) {
	x.bundles = append(x.bundles, k)
	for _, p := range k.pieces {
		x.where[p.sum] = len(x.bundles) - 1
	}
}

func parseKnown(b []byte) (k known, rest []byte, ok bool) {
	if len(b) < 12 {
		return k, nil, false
	}
	size, crc, head := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	if uint64(size) > uint64(len(b)-8) || size < 4 || head > size-4 {
		return k, nil, false
	}
	body := b[8 : 8+size]
	if crc32.ChecksumIEEE(body) != crc || json.Unmarshal(body[4:4+head], &k) != nil {
		return k, nil, false
	}
	pieces, left, err := parsePieces(body[4+head:])
	if err != nil || len(left) > 0 {
		return k, nil, false
	}
	k.pieces = pieces
	return k, b[8+size:], true
}

func appendKnown(b []byte, k *known) ([]byte, error) {
	head, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	body := appendPieces(append(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head...), k.pieces)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(body))
	return append(b, body...), nil
}

// add notes a bundle that is safe in the target.
func (x *index) add(k known) error {
	record, err := appendKnown(nil, &k)
	if err != nil {
		return err
	}
	if err := x.fs.MkdirAll(filepath.Dir(x.file), 0o700); err != nil {
		return err
	}
	f, err := x.fs.OpenFile(x.file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(x.end) // what a crash left behind it
	if err == nil {
		_, err = f.WriteAt(record, x.end)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("backup: write index: %w", err)
	}
	if x.end == 0 {
		if err := x.fs.SyncDir(filepath.Dir(x.file)); err != nil {
			return err
		}
	}
	x.end += int64(len(record))
	x.take(k)
	return nil
}

// keep leaves only the bundles that are right, in memory and, when some go, in the file.
func (x *index) keep(right func(known) bool) error {
	bundles := x.bundles
	x.bundles, x.where = nil, make(map[Sum]int)
	var file []byte
	for i := range bundles {
		if !right(bundles[i]) {
			continue
		}
		var err error
		if file, err = appendKnown(file, &bundles[i]); err != nil {
			return err
		}
		x.take(bundles[i])
	}
	if len(x.bundles) == len(bundles) {
		return nil
	}
	if err := durable.WriteFile(x.fs, x.file, file, 0o600); err != nil {
		return fmt.Errorf("backup: write index: %w", err)
	}
	x.end = int64(len(file))
	return nil
}

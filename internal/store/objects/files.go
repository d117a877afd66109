package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"waxwing/internal/durable"
	"waxwing/internal/store/blob"
)

// root is the directory that package blob believes to read from.
const root = "/bucket"

// fileName is the name of a segment's file in a directory of package blob.
func fileName(g blob.Segment) string {
	kind := "packs"
	if g.Large() {
		kind = "large"
	}
	return filepath.Join(kind, fmt.Sprintf("%08x.blob", uint32(g)&(1<<31-1)))
}

// key is the name of a segment's object.
func (s *Store) key(g blob.Segment) string { return s.opt.Prefix + filepath.ToSlash(fileName(g)) }

// segmentOf is the segment of an object; ok is false for a name that no segment has.
func (s *Store) segmentOf(key string) (g blob.Segment, ok bool) {
	kind, number, found := strings.Cut(strings.TrimPrefix(key, s.opt.Prefix), "/")
	n, err := strconv.ParseUint(strings.TrimSuffix(number, ".blob"), 16, 31)
	if !found || err != nil {
		return 0, false
	}
	g = blob.Segment(n)
	if kind == "large" {
		g |= 1 << 31
	}
	return g, s.key(g) == key
}

// bucketFS is the bucket as the file system that package blob reads from. Nothing can be written.
type bucketFS struct {
	s     *Store
	cache *cache
}

var errReadOnly = errors.New("objects: the bucket is not written as files")

// OpenFile implements durable.FS.
func (b bucketFS) OpenFile(name string, flag int, _ fs.FileMode) (durable.File, error) {
	if flag != os.O_RDONLY {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errReadOnly}
	}
	rel, ok := strings.CutPrefix(filepath.ToSlash(name), root+"/")
	if !ok || !strings.HasSuffix(rel, ".blob") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.s.opt.Timeout)
	defer cancel()
	key := b.s.opt.Prefix + rel
	size, err := b.s.bucket.Size(ctx, key)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: key, Err: err}
	}
	return &objectFile{cache: b.cache, key: key, size: size}, nil
}

// Lock implements durable.FS: there is nothing that two readers could spoil.
func (bucketFS) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// MkdirAll implements durable.FS.
func (bucketFS) MkdirAll(string, fs.FileMode) error { return nil }

// ReadDir implements durable.FS: which objects there are is not asked when the store opens.
func (bucketFS) ReadDir(string) ([]fs.DirEntry, error) { return nil, nil }

// Free implements durable.FS.
func (bucketFS) Free(string) (int64, error) { return math.MaxInt64, nil }

// Stat implements durable.FS.
func (bucketFS) Stat(name string) (fs.FileInfo, error) {
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// Rename implements durable.FS.
func (bucketFS) Rename(string, string) error { return errReadOnly }

// Remove implements durable.FS.
func (bucketFS) Remove(string) error { return errReadOnly }

// SyncDir implements durable.FS.
func (bucketFS) SyncDir(string) error { return errReadOnly }

// objectFile is an object as a file.
type objectFile struct {
	cache *cache
	key   string
	size  int64
}

// ReadAt implements io.ReaderAt.
func (f *objectFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) && off < f.size {
		chunk, err := f.cache.get(chunkKey{f.key, off / chunkSize})
		if err != nil {
			return done, fmt.Errorf("object %s at %d: %w", f.key, off, err)
		}
		within := int(off % chunkSize)
		if within >= len(chunk) {
			return done, fmt.Errorf("object %s at %d: %w", f.key, off, io.ErrUnexpectedEOF)
		}
		n := copy(p[done:], chunk[within:])
		done += n
		off += int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// fetch reads one chunk of an object.
func (s *Store) fetch(k chunkKey) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.opt.Timeout)
	defer cancel()
	body, err := s.bucket.Get(ctx, k.object, k.n*chunkSize, chunkSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(blob.ErrGone, err)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(body, chunkSize))
	return b, errors.Join(err, body.Close())
}

// WriteAt implements durable.File.
func (*objectFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }

// Sync implements durable.File.
func (*objectFile) Sync() error { return errReadOnly }

// Allocate implements durable.File.
func (*objectFile) Allocate(int64, int64) error { return errReadOnly }

// Truncate implements durable.File.
func (*objectFile) Truncate(int64) error { return errReadOnly }

// Size implements durable.File.
func (f *objectFile) Size() (int64, error) { return f.size, nil }

// Close implements durable.File.
func (*objectFile) Close() error { return nil }

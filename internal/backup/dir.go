package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"waxwing/internal/durable"
)

// dirTarget keeps objects as files. A file gets its name when its octets are on stable storage.
type dirTarget struct {
	fs   durable.FS
	root string
}

// OpenDir is the target in a directory, which must be there: a disk that is not mounted must not be taken for an empty one.
func OpenDir(fsys durable.FS, root string) (Target, error) {
	info, err := fsys.Stat(root)
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		return nil, fmt.Errorf("backup: target %s: %w (it must be there: make it, or mount it, first)", root, err)
	}
	return dirTarget{fsys, root}, nil
}

func (d dirTarget) String() string { return d.root }

func (d dirTarget) Close() error { return nil }

func (d dirTarget) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// copyStep is how much is copied at a time.
const copyStep = 256 << 10

// Put implements Target.
func (d dirTarget) Put(ctx context.Context, name string, r io.ReaderAt, n int64) (err error) {
	file := d.path(name)
	if err := d.fs.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if name == leaseName {
		return d.putExclusive(ctx, file, r, n)
	}
	if _, err := d.fs.Stat(file); err == nil {
		return fmt.Errorf("put %s: %w", file, fs.ErrExist)
	}
	temp := file + durable.TempSuffix
	if err := d.fs.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.putExclusive(ctx, temp, r, n); err != nil {
		return err
	}
	if err := d.fs.Rename(temp, file); err != nil {
		return errors.Join(err, d.fs.Remove(temp))
	}
	return d.fs.SyncDir(filepath.Dir(file))
}

// putExclusive writes a file that must not be there, and removes it again on an error.
func (d dirTarget) putExclusive(ctx context.Context, file string, r io.ReaderAt, n int64) (err error) {
	f, err := d.fs.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, d.fs.Remove(file))
		}
	}()
	if err := copyAt(ctx, f, r, n); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return d.fs.SyncDir(filepath.Dir(file))
}

func copyAt(ctx context.Context, to io.WriterAt, from io.ReaderAt, n int64) error {
	buf := make([]byte, min(n, copyStep))
	for off := int64(0); off < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), n-off)]
		if got, err := from.ReadAt(part, off); got < len(part) {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		if _, err := to.WriteAt(part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	return nil
}

// fileRange reads a part of a file.
type fileRange struct {
	*io.SectionReader
	file durable.File
}

func (f fileRange) Close() error { return f.file.Close() }

// Get implements Target.
func (d dirTarget) Get(_ context.Context, name string, off, n int64) (io.ReadCloser, error) {
	f, err := d.fs.OpenFile(d.path(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if rest := max(size-off, 0); n < 0 || n > rest {
		n = rest
	}
	return fileRange{io.NewSectionReader(f, off, n), f}, nil
}

// List implements Target.
func (d dirTarget) List(_ context.Context, dir string) ([]Object, error) {
	list, err := d.fs.ReadDir(d.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Object
	for _, e := range list {
		if e.IsDir() || strings.HasSuffix(e.Name(), durable.TempSuffix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Object{Name: dir + e.Name(), Size: info.Size(), Modified: info.ModTime()})
	}
	return out, nil
}

// Remove implements Target.
func (d dirTarget) Remove(_ context.Context, name string) error {
	file := d.path(name)
	if err := d.fs.Remove(file); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return d.fs.SyncDir(filepath.Dir(file))
}

// sum256 hashes the first n octets.
func sum256(r io.ReaderAt, n int64) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(r, 0, n))
	return [sha256.Size]byte(h.Sum(nil)), err
}

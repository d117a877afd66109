// Package crashfs is a file system in memory for tests of durable code. It keeps apart what is on "stable storage" and
// what is only written, so that Crash can make the disk that a power cut would leave behind: a clone with everything
// that was synced, and a random part of the rest, torn at sectors of 512 octets. Hooks fail any call.
//
// It is harsher than real disks: unsynced changes survive in any combination, a new name needs SyncDir even when its
// file was synced, and after a failed Sync the data of that moment never becomes durable by a later one.
//
// It is no general file system: there are no links, permissions or times.
package crashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"waxwing/internal/durable"
)

// Kind names a call.
type Kind string

// The calls that hooks and observers hear of.
const (
	OpOpen     Kind = "open"
	OpRename   Kind = "rename"
	OpRemove   Kind = "remove"
	OpMkdir    Kind = "mkdir"
	OpReadDir  Kind = "readdir"
	OpStat     Kind = "stat"
	OpSyncDir  Kind = "syncdir"
	OpLock     Kind = "lock"
	OpRead     Kind = "read"
	OpWrite    Kind = "write"
	OpSync     Kind = "sync"
	OpAllocate Kind = "allocate"
	OpTruncate Kind = "truncate"
)

// Op is one call.
type Op struct {
	Kind Kind
	Name string // of the file or directory, as it was opened
	Off  int64
	Len  int64
	N    int // number of the call since New or Crash, from 1
}

// Partial is an error of a hook that lets a write do its first N octets before it fails with Err.
type Partial struct {
	N   int
	Err error
}

func (p *Partial) Error() string { return p.Err.Error() }
func (p *Partial) Unwrap() error { return p.Err }

// SyncPoint is one completed Sync or SyncDir.
type SyncPoint struct {
	Kind Kind
	Name string
}

// FS is the file system. It implements durable.FS.
type FS struct {
	mu       sync.Mutex
	root     *node
	locks    map[*node]bool
	capacity int64 // octets of all files, -1: no bound
	calls    int
	points   []SyncPoint
	hook     func(Op) error
	observer func(Op, error)
}

// New returns an empty file system.
func New() *FS { return &FS{root: newDir(), locks: map[*node]bool{}, capacity: -1} }

// SetHook sets a function that is called before each call; when it returns an error, the call fails with it and has no
// effect (but see Partial). It may call methods of the FS.
func (f *FS) SetHook(hook func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// SetObserver sets a function that is called after each call. It may call Crash.
func (f *FS) SetObserver(observer func(Op, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observer = observer
}

// SetCapacity bounds the sum of the sizes of all files; beyond it calls fail with ENOSPC. Negative: no bound.
func (f *FS) SetCapacity(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = n
}

// Used is the sum of the sizes of all files.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.root.used()
}

// Syncs counts the completed Syncs and SyncDirs.
func (f *FS) Syncs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.points)
}

// SyncPoints lists them in order.
func (f *FS) SyncPoints() []SyncPoint {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.points)
}

// call runs one call between hook and observer; do runs under the lock.
func (f *FS) call(op Op, do func(partial *Partial) error) error {
	f.mu.Lock()
	f.calls++
	op.N = f.calls
	hook, observer := f.hook, f.observer
	f.mu.Unlock()
	var err error
	var partial *Partial
	if hook != nil {
		err = hook(op)
	}
	if err == nil || (errors.As(err, &partial) && op.Kind == OpWrite) || (err != nil && op.Kind == OpSync) {
		f.mu.Lock()
		if err != nil && partial == nil {
			partial = &Partial{Err: err}
		}
		err = do(partial)
		if err == nil && (op.Kind == OpSync || op.Kind == OpSyncDir) {
			f.points = append(f.points, SyncPoint{op.Kind, op.Name})
		}
		f.mu.Unlock()
	}
	if err != nil {
		err = &fs.PathError{Op: string(op.Kind), Path: op.Name, Err: err}
	}
	if observer != nil {
		observer(op, err)
	}
	return err
}

// split returns the names on the way to a path.
func split(name string) []string {
	name = strings.Trim(filepath.Clean(name), string(filepath.Separator))
	if name == "" || name == "." {
		return nil
	}
	return strings.Split(name, string(filepath.Separator))
}

// walk finds a directory.
func (f *FS) walk(parts []string) (*node, error) {
	n := f.root
	for _, p := range parts {
		if n = n.now[p]; n == nil {
			return nil, fs.ErrNotExist
		}
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
	}
	return n, nil
}

// parent finds the directory of a path and the last name.
func (f *FS) parent(name string) (*node, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", fs.ErrInvalid
	}
	dir, err := f.walk(parts[:len(parts)-1])
	return dir, parts[len(parts)-1], err
}

// OpenFile implements durable.FS.
func (f *FS) OpenFile(name string, flag int, _ fs.FileMode) (durable.File, error) {
	var file *file
	err := f.call(Op{Kind: OpOpen, Name: name}, func(*Partial) error {
		dir, base, err := f.parent(name)
		if err != nil {
			return err
		}
		n := dir.now[base]
		switch {
		case n == nil && flag&os.O_CREATE == 0:
			return fs.ErrNotExist
		case n == nil:
			n = &node{}
			dir.set(base, n)
		case n.dir:
			return syscall.EISDIR
		case flag&os.O_EXCL != 0 && flag&os.O_CREATE != 0:
			return fs.ErrExist
		case flag&os.O_TRUNC != 0:
			n.truncate(0)
		}
		file = newFile(f, n, name, flag&(os.O_WRONLY|os.O_RDWR) != 0)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return file, nil
}

// Rename implements durable.FS.
func (f *FS) Rename(oldname, newname string) error {
	return f.call(Op{Kind: OpRename, Name: oldname}, func(*Partial) error {
		from, a, err := f.parent(oldname)
		if err != nil {
			return err
		}
		to, b, err := f.parent(newname)
		if err != nil {
			return err
		}
		n := from.now[a]
		if n == nil {
			return fs.ErrNotExist
		}
		if from != to {
			return syscall.EXDEV // no caller needs it, and its crash states are many
		}
		from.rename(a, b, n)
		return nil
	})
}

// Remove implements durable.FS.
func (f *FS) Remove(name string) error {
	return f.call(Op{Kind: OpRemove, Name: name}, func(*Partial) error {
		dir, base, err := f.parent(name)
		if err != nil {
			return err
		}
		n := dir.now[base]
		if n == nil {
			return fs.ErrNotExist
		}
		if n.dir && len(n.now) > 0 {
			return syscall.ENOTEMPTY
		}
		dir.set(base, nil)
		return nil
	})
}

// MkdirAll implements durable.FS.
func (f *FS) MkdirAll(name string, _ fs.FileMode) error {
	parts := split(name)
	for i := range parts {
		made := false
		err := f.call(Op{Kind: OpMkdir, Name: name}, func(*Partial) error {
			dir, err := f.walk(parts[:i])
			if err != nil {
				return err
			}
			switch n := dir.now[parts[i]]; {
			case n == nil:
				dir.set(parts[i], newDir())
				made = true
			case !n.dir:
				return syscall.ENOTDIR
			}
			return nil
		})
		if err != nil {
			return err
		}
		if made {
			if err := f.SyncDir(string(filepath.Separator) + filepath.Join(parts[:i]...)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadDir implements durable.FS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	var out []fs.DirEntry
	err := f.call(Op{Kind: OpReadDir, Name: name}, func(*Partial) error {
		dir, err := f.walk(split(name))
		if err != nil {
			return err
		}
		for base, n := range dir.now {
			out = append(out, fs.FileInfoToDirEntry(info{base, n.size, n.dir}))
		}
		slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		return nil
	})
	return out, err
}

// Stat implements durable.FS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	var out fs.FileInfo
	err := f.call(Op{Kind: OpStat, Name: name}, func(*Partial) error {
		if len(split(name)) == 0 {
			out = info{name, 0, true}
			return nil
		}
		dir, base, err := f.parent(name)
		if err != nil {
			return err
		}
		n := dir.now[base]
		if n == nil {
			return fs.ErrNotExist
		}
		out = info{base, n.size, n.dir}
		return nil
	})
	return out, err
}

// SyncDir implements durable.FS.
func (f *FS) SyncDir(name string) error {
	return f.call(Op{Kind: OpSyncDir, Name: name}, func(*Partial) error {
		dir, err := f.walk(split(name))
		if err != nil {
			return err
		}
		dir.syncNames()
		return nil
	})
}

// Lock implements durable.FS.
func (f *FS) Lock(name string) (io.Closer, error) {
	var l *lock
	err := f.call(Op{Kind: OpLock, Name: name}, func(*Partial) error {
		dir, base, err := f.parent(name)
		if err != nil {
			return err
		}
		n := dir.now[base]
		if n == nil {
			n = &node{}
			dir.set(base, n)
		}
		if f.locks[n] {
			return durable.ErrLocked
		}
		f.locks[n] = true
		l = &lock{f, n}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

type lock struct {
	f *FS
	n *node
}

// Close ends the lock.
func (l *lock) Close() error {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	delete(l.f.locks, l.n)
	return nil
}

// Free implements durable.FS.
func (f *FS) Free(string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.free(), nil
}

// free is what the capacity leaves; the caller holds the lock.
func (f *FS) free() int64 {
	if f.capacity < 0 {
		return 1 << 50
	}
	return max(0, f.capacity-f.root.used())
}

// Flip inverts bits of one octet of a file, on stable storage too: a fault of the disk.
func (f *FS) Flip(name string, off int64, mask byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		return err
	}
	n := dir.now[base]
	if n == nil || n.dir || off >= n.size {
		return fmt.Errorf("flip %s at %d: %w", name, off, fs.ErrNotExist)
	}
	n.flip(off, mask)
	return nil
}

// info implements fs.FileInfo.
type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

// Package durable is the small file-system interface through which everything that must survive a power cut is
// written: the packs of messages, keys, certificates, state files.
//
// It exists for two reasons. First, the few calls that durability needs stand in one place with their rules: data is
// on stable storage after File.Sync, a name is there after FS.SyncDir of its directory, and a failed Sync is never
// tried again, since the kernel may have dropped the pages that it could not write and a second call would answer
// "done". Second, tests put package crashfs in its place, which drops unsynced writes, tears sectors and fails calls.
//
// It is no general file-system abstraction: there is no seeking, no reading of links, no walking.
//
//	err := durable.WriteFile(durable.OS, "/var/lib/waxwing/node-id", id, 0o600)
package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLocked means that another process, or another user of the same FS, holds the lock.
var ErrLocked = errors.New("durable: locked by another process")

// ErrTooLarge is ReadFile's answer to a file beyond the limit.
var ErrTooLarge = errors.New("durable: file is larger than allowed")

// TempSuffix ends the name of each file that WriteFile has not finished. A file with it after a crash is rubbish.
const TempSuffix = ".tmp"

// FS is what a durable writer needs of a file system. Names are paths as package os takes them. All methods may be
// called at the same time. Errors are those of package os: errors.Is works with fs.ErrNotExist, syscall.ENOSPC and so on.
type FS interface {
	// OpenFile is os.OpenFile without O_APPEND.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces newname. It is durable after SyncDir of the directory.
	Rename(oldname, newname string) error
	// Remove deletes a file; open Files of it stay readable. It is durable after SyncDir of the directory.
	Remove(name string) error
	// MkdirAll makes a directory and its missing parents, and syncs the parent of each one that it made.
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// SyncDir puts the names in a directory on stable storage.
	SyncDir(name string) error
	// Lock takes an exclusive lock on a file that it makes if need be; ErrLocked when another holds it. The lock ends
	// with Close of what it returns, or with the process.
	Lock(name string) (io.Closer, error)
	// Free returns the octets that an unprivileged process may still write on the file system of dir.
	Free(dir string) (int64, error)
}

// File is an open file. ReadAt and WriteAt may be called at the same time.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync puts the data of the file, and the metadata needed to read it, on stable storage (fdatasync). After an
	// error the state of everything written since the last Sync is unknown for good: do not write on.
	Sync() error
	// Allocate reserves n octets of disk at off and makes the file at least off+n octets long; what was never written
	// reads as zeros. The size grows on purpose (no FALLOC_FL_KEEP_SIZE): appends inside it then leave the size alone,
	// so that each Sync has less metadata to write, and a full disk is met here and not in the middle of a record.
	Allocate(off, n int64) error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// WriteFile puts data under name so that after a crash either the old content or all of the new one is there: it writes
// a temporary file beside it, syncs it, renames it, and syncs the directory. The content is durable when it returns nil.
func WriteFile(fsys FS, name string, data []byte, perm fs.FileMode) (err error) {
	var salt [6]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	temp := name + "." + hex.EncodeToString(salt[:]) + TempSuffix
	if err := writeNew(fsys, temp, data, perm); err != nil {
		return err
	}
	if err := fsys.Rename(temp, name); err != nil {
		return errors.Join(err, fsys.Remove(temp))
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// writeNew writes and syncs a file that must not exist yet, and removes it again on an error.
func writeNew(fsys FS, name string, data []byte, perm fs.FileMode) (err error) {
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			// The first error is what matters; a file that stays behind has the temporary suffix.
			_ = fsys.Remove(name)
		}
	}()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

// ReadFile returns a whole file of at most limit octets.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("read %s: %d octets: %w", name, size, ErrTooLarge)
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(data)) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

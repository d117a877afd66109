package crashvfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/durable"
	"waxwing/internal/sqlitefile/memory"
)

// handle is an open file. One connection owns it.
type handle struct {
	durable.File
	disk    *Disk
	fs      durable.FS
	path    string
	syncDir bool // the name isn't durable yet
	same    *shared
	level   int32 // of the lock
	// Locks on the shared memory, by bits.
	shares, owns uint32
	mapped       bool
}

// handle opens a file.
func (d *Disk) handle(path string, flags int32) (*handle, error) {
	mode := os.O_RDONLY
	if flags&lib.SQLITE_OPEN_READWRITE != 0 {
		mode = os.O_RDWR
	}
	if flags&lib.SQLITE_OPEN_CREATE != 0 {
		mode |= os.O_CREATE
	}
	if flags&lib.SQLITE_OPEN_EXCLUSIVE != 0 {
		mode |= os.O_EXCL
	}
	fsys := d.now()
	f, err := fsys.OpenFile(path, mode, 0o600)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	same := d.open[path]
	if same == nil {
		same = &shared{}
		d.open[path] = same
	}
	same.handles++
	syncDir := flags&(lib.SQLITE_OPEN_WAL|lib.SQLITE_OPEN_MAIN_JOURNAL) != 0
	return &handle{File: f, disk: d, fs: fsys, path: path, syncDir: syncDir, same: same}, nil
}

func (h *handle) close() error {
	h.disk.mu.Lock()
	if h.same.handles--; h.same.handles == 0 && h.disk.open[h.path] == h.same {
		delete(h.disk.open, h.path)
	}
	h.disk.mu.Unlock()
	return h.Close()
}

func handleOf(p uintptr) *handle {
	h, _ := handles.Load(memory.At[file](p).handle)
	return h.(*handle)
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// methods are those of our files; 0 when there is no memory.
var methods = sync.OnceValue(memory.Methods{
	Close: closeFile, Read: readFile, Write: writeFile, Truncate: truncateFile, Sync: syncFile, Size: fileSize,
	Lock: lockFile, Unlock: unlockFile, CheckReservedLock: checkReservedLock,
	Control: fileControl, SectorSize: sectorSize, DeviceCharacteristics: deviceCharacteristics,
	ShmMap: shmMap, ShmLock: shmLock, ShmBarrier: shmBarrier, ShmUnmap: shmUnmap,
}.Make)

func closeFile(tls *libc.TLS, p uintptr) int32 {
	h := handleOf(p)
	h.same.unlock(h, lib.SQLITE_LOCK_NONE)
	if h.mapped {
		h.same.unmap(tls, h)
	}
	handles.Delete(memory.At[file](p).handle)
	if h.close() != nil {
		return lib.SQLITE_IOERR_CLOSE
	}
	return lib.SQLITE_OK
}

func readFile(_ *libc.TLS, p, buf uintptr, n int32, off int64) int32 {
	b := memory.Octets(buf, int(n))
	k, err := handleOf(p).ReadAt(b, off)
	switch {
	case err == nil:
		return lib.SQLITE_OK
	case errors.Is(err, io.EOF):
		clear(b[k:])
		return lib.SQLITE_IOERR_SHORT_READ
	case errors.Is(err, syscall.EIO):
		return lib.SQLITE_IOERR_CORRUPTFS
	}
	return lib.SQLITE_IOERR_READ
}

func writeFile(_ *libc.TLS, p, buf uintptr, n int32, off int64) int32 {
	_, err := handleOf(p).WriteAt(memory.Octets(buf, int(n)), off)
	switch {
	case err == nil:
		return lib.SQLITE_OK
	case errors.Is(err, syscall.ENOSPC):
		return lib.SQLITE_FULL
	}
	return lib.SQLITE_IOERR_WRITE
}

func truncateFile(_ *libc.TLS, p uintptr, size int64) int32 {
	if handleOf(p).Truncate(size) != nil {
		return lib.SQLITE_IOERR_TRUNCATE
	}
	return lib.SQLITE_OK
}

func syncFile(_ *libc.TLS, p uintptr, _ int32) int32 {
	h := handleOf(p)
	if h.Sync() != nil {
		return lib.SQLITE_IOERR_FSYNC
	}
	if h.syncDir {
		if h.fs.SyncDir(filepath.Dir(h.path)) != nil {
			return lib.SQLITE_IOERR_DIR_FSYNC
		}
		h.syncDir = false
	}
	return lib.SQLITE_OK
}

func fileSize(_ *libc.TLS, p, out uintptr) int32 {
	size, err := handleOf(p).Size()
	if err != nil {
		return lib.SQLITE_IOERR_FSTAT
	}
	*memory.At[int64](out) = size
	return lib.SQLITE_OK
}

func fileControl(*libc.TLS, uintptr, int32, uintptr) int32 { return lib.SQLITE_NOTFOUND }

func sectorSize(*libc.TLS, uintptr) int32 { return 4096 }

// deviceCharacteristics says of the disk what SQLite's own VFS says: crashfs tears what is written, and never what is beside it.
func deviceCharacteristics(*libc.TLS, uintptr) int32 {
	return lib.SQLITE_IOCAP_POWERSAFE_OVERWRITE | lib.SQLITE_IOCAP_SUBPAGE_READ
}

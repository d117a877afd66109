// Package crashvfs puts SQLite's databases and logs on a file system of package crashfs, so that tests can cut the power under
// them, tear their pages and fail their calls. It is no part of the server.
//
// It does what SQLite's own VFS for Unix does, and syncs where that syncs: files, and the directory when a journal or a log is
// synced for the first time. Locks and the memory that connections share are those of one process. What is temporary and has no
// name is SQLite's own.
//
//	disk, err := crashvfs.New(fsys)
//	db, err := sqlite.Open(ctx, "/mail.db", sqlite.Options{Below: disk.Below()})
package crashvfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/durable"
	"waxwing/internal/sqlitefile"
	"waxwing/internal/sqlitefile/memory"
)

// Disk is a file system as SQLite sees it. It stays for the life of the process, since SQLite knows it.
type Disk struct {
	name string
	mu   sync.Mutex
	fs   durable.FS
	open map[string]*shared // files that are open, by path
}

// vfs lies in SQLite's memory.
type vfs struct {
	base lib.Tsqlite3_vfs
	disk int64 // number of the Disk
	own  uintptr
}

// file lies in SQLite's memory.
type file struct {
	base   lib.Tsqlite3_file
	handle int64
}

var (
	numbers        atomic.Int64
	disks, handles sync.Map // number to *Disk, *handle
)

// New makes SQLite know a file system.
func New(fsys durable.FS) (*Disk, error) {
	tls := libc.NewTLS()
	defer tls.Close()
	own := lib.Xsqlite3_vfs_find(tls, 0)
	p := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(vfs{})))
	n := numbers.Add(1)
	d := &Disk{name: fmt.Sprintf("crash-%d", n), fs: fsys, open: map[string]*shared{}}
	name, err := libc.CString(d.name)
	if err != nil || own == 0 || p == 0 || methods() == 0 {
		return nil, errors.Join(errors.New("crashvfs: SQLite's VFS can't be extended"), err)
	}
	v := memory.At[vfs](p)
	*v = vfs{base: *memory.At[lib.Tsqlite3_vfs](own), disk: n, own: own}
	v.base.FpNext, v.base.FzName = 0, name
	v.base.FszOsFile = max(v.base.FszOsFile, int32(unsafe.Sizeof(file{})))
	v.base.FxOpen = memory.Pointer[memory.OpenFunc](openFile)
	v.base.FxDelete = memory.Pointer[memory.DeleteFunc](deleteFile)
	v.base.FxAccess = memory.Pointer[memory.AccessFunc](access)
	v.base.FxFullPathname = memory.Pointer[memory.PathFunc](fullPath)
	if rc := lib.Xsqlite3_vfs_register(tls, p, 0); rc != lib.SQLITE_OK {
		return nil, fmt.Errorf("crashvfs: SQLite refuses a VFS: %d", rc)
	}
	disks.Store(n, d)
	return d, nil
}

// Below is for those who open databases.
func (d *Disk) Below() sqlitefile.Below {
	d.mu.Lock()
	defer d.mu.Unlock()
	return sqlitefile.Below{VFS: d.name, FS: d.fs}
}

// Replace puts another file system in the place of the one before, on which nothing may be open.
func (d *Disk) Replace(fsys durable.FS) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.open) > 0 {
		return fmt.Errorf("crashvfs: %d files are open", len(d.open))
	}
	d.fs = fsys
	return nil
}

func diskOf(p uintptr) *Disk {
	d, _ := disks.Load(memory.At[vfs](p).disk)
	return d.(*Disk)
}

func (d *Disk) now() durable.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fs
}

func openFile(tls *libc.TLS, p, name, at uintptr, flags int32, out uintptr) int32 {
	const ours = lib.SQLITE_OPEN_MAIN_DB | lib.SQLITE_OPEN_WAL | lib.SQLITE_OPEN_MAIN_JOURNAL
	if name == 0 || flags&ours == 0 {
		own := memory.At[vfs](p).own
		return memory.Function[memory.OpenFunc](memory.At[lib.Tsqlite3_vfs](own).FxOpen)(tls, own, name, at, flags, out)
	}
	f := memory.At[file](at)
	*f = file{}
	h, err := diskOf(p).handle(libc.GoString(name), flags)
	if err != nil {
		return lib.SQLITE_CANTOPEN
	}
	f.handle = numbers.Add(1)
	handles.Store(f.handle, h)
	f.base.FpMethods = methods()
	if out != 0 {
		*memory.At[int32](out) = flags
	}
	return lib.SQLITE_OK
}

func deleteFile(_ *libc.TLS, p, name uintptr, dirSync int32) int32 {
	fsys, path := diskOf(p).now(), libc.GoString(name)
	err := fsys.Remove(path)
	if isMissing(err) {
		return lib.SQLITE_IOERR_DELETE_NOENT
	}
	if err != nil {
		return lib.SQLITE_IOERR_DELETE
	}
	if dirSync&1 != 0 && fsys.SyncDir(filepath.Dir(path)) != nil {
		return lib.SQLITE_IOERR_DIR_FSYNC
	}
	return lib.SQLITE_OK
}

func access(_ *libc.TLS, p, name uintptr, _ int32, out uintptr) int32 {
	fi, err := diskOf(p).now().Stat(libc.GoString(name))
	there := int32(0)
	if err == nil && fi.Size() > 0 {
		there = 1
	}
	*memory.At[int32](out) = there
	return lib.SQLITE_OK
}

func fullPath(_ *libc.TLS, _, name uintptr, n int32, out uintptr) int32 {
	path := filepath.Clean("/" + libc.GoString(name))
	if len(path)+1 > int(n) {
		return lib.SQLITE_CANTOPEN
	}
	b := memory.Octets(out, len(path)+1)
	copy(b, path)
	b[len(path)] = 0
	return lib.SQLITE_OK
}

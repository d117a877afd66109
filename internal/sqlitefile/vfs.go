package sqlitefile

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile/memory"
)

// vfsName is what the VFS over SQLite's own is registered as.
const vfsName = "waxwing-sums"

// layer is a VFS of ours. It lies in SQLite's memory.
type layer struct {
	base   lib.Tsqlite3_vfs
	under  uintptr // the VFS that it is over
	system bool    // which is SQLite's own
}

// layers are the VFSs of ours that SQLite knows, by the name of what they are over.
var layers = struct {
	sync.Mutex
	m map[string]*registered
}{m: map[string]*registered{}}

type registered struct {
	name string
	at   uintptr // of the layer
}

// register makes a VFS known to SQLite that is over another one, "" being its own. Files that are neither databases nor logs
// (journals, what is temporary) are those of the other one.
func register(over string) (*registered, error) {
	layers.Lock()
	defer layers.Unlock()
	if r := layers.m[over]; r != nil {
		return r, nil
	}
	r := &registered{name: vfsName}
	if over != "" {
		r.name += "-" + over
	}
	tls := libc.NewTLS()
	defer tls.Close()
	under, err := find(tls, over)
	if err != nil {
		return nil, err
	}
	r.at = libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(layer{})))
	name, err := libc.CString(r.name)
	if err != nil || r.at == 0 || methods() == 0 {
		return nil, errors.Join(errors.New("no memory for a VFS"), err)
	}
	l := memory.At[layer](r.at)
	*l = layer{base: *memory.At[lib.Tsqlite3_vfs](under), under: under, system: over == ""}
	l.base.FpNext, l.base.FzName = 0, name
	l.base.FszOsFile += int32(unsafe.Sizeof(file{}))
	l.base.FxOpen = memory.Pointer[memory.OpenFunc](openFile)
	l.base.FxDelete = memory.Pointer[memory.DeleteFunc](deleteFile)
	l.base.FxAccess = memory.Pointer[memory.AccessFunc](access)
	l.base.FxFullPathname = memory.Pointer[memory.PathFunc](fullPath)
	if rc := lib.Xsqlite3_vfs_register(tls, r.at, 0); rc != lib.SQLITE_OK {
		return nil, fmt.Errorf("SQLite refuses a VFS: %d", rc)
	}
	layers.m[over] = r
	return r, nil
}

// find finds a VFS that SQLite knows; without a name it is its own.
func find(tls *libc.TLS, name string) (uintptr, error) {
	if name == "" {
		if p := lib.Xsqlite3_vfs_find(tls, 0); p != 0 {
			return p, nil
		}
		return 0, errors.New("SQLite has no VFS")
	}
	c, err := libc.CString(name)
	if err != nil {
		return 0, err
	}
	defer libc.Xfree(tls, c)
	if p := lib.Xsqlite3_vfs_find(tls, c); p != 0 {
		return p, nil
	}
	return 0, fmt.Errorf("SQLite has no VFS %q", name)
}

// methods are those of our files; 0 when there is no memory.
var methods = sync.OnceValue(memory.Methods{
	Close: closeFile, Read: readFile, Write: writeFile, Truncate: truncateFile, Sync: syncFile, Size: fileSize,
	Lock: lockFile, Unlock: unlockFile, CheckReservedLock: checkReservedLock,
	Control: fileControl, SectorSize: sectorSize, DeviceCharacteristics: deviceCharacteristics,
	ShmMap: shmMap, ShmLock: shmLock, ShmBarrier: shmBarrier, ShmUnmap: shmUnmap,
}.Make)

// file is an open database or log. It lies in SQLite's memory, SQLite's own file behind it. One connection owns it and calls it
// from one goroutine at a time.
type file struct {
	base   lib.Tsqlite3_file
	real   uintptr // SQLite's own
	name   uintptr
	system bool // real is a file of the system
	log    bool
	// of a log:
	tail   tail
	head   [8]byte // the numbers of the frame at headAt
	headAt int64
	room   [frameSize]byte // for a look at what SQLite didn't ask for as a whole
}

func (f *file) methods() *lib.Tsqlite3_io_methods {
	return memory.At[lib.Tsqlite3_io_methods](memory.At[lib.Tsqlite3_file](f.real).FpMethods)
}

func (f *file) readReal(tls *libc.TLS, buf uintptr, n int32, off int64) int32 {
	return memory.Function[memory.ReadFunc](f.methods().FxRead)(tls, f.real, buf, n, off)
}

func (f *file) writeReal(tls *libc.TLS, buf uintptr, n int32, off int64) int32 {
	return memory.Function[memory.ReadFunc](f.methods().FxWrite)(tls, f.real, buf, n, off)
}

// scratch is the address of f.room.
func (f *file) scratch() uintptr {
	return f.real - unsafe.Sizeof(file{}) + unsafe.Offsetof(f.room)
}

func (f *file) report(off int64, s state) { report(libc.GoString(f.name), off, s) }

func openFile(tls *libc.TLS, vfs, name, p uintptr, flags int32, out uintptr) int32 {
	under := memory.At[layer](vfs).under
	open := memory.Function[memory.OpenFunc](memory.At[lib.Tsqlite3_vfs](under).FxOpen)
	if name == 0 || flags&(lib.SQLITE_OPEN_MAIN_DB|lib.SQLITE_OPEN_WAL) == 0 {
		return open(tls, under, name, p, flags, out)
	}
	f := memory.At[file](p)
	*f = file{real: p + unsafe.Sizeof(file{}), name: name, system: memory.At[layer](vfs).system, log: flags&lib.SQLITE_OPEN_WAL != 0}
	real := memory.At[lib.Tsqlite3_file](f.real)
	real.FpMethods = 0
	rc := open(tls, under, name, f.real, flags, out)
	if real.FpMethods != 0 { // then SQLite calls closeFile, also after an error
		f.base.FpMethods = methods()
	}
	return rc
}

func readFile(tls *libc.TLS, p, buf uintptr, n int32, off int64) int32 {
	f := memory.At[file](p)
	if f.log {
		return f.readLog(tls, buf, n, off)
	}
	if n != pageSize || off%pageSize != 0 {
		return f.readPart(tls, buf, n, off)
	}
	return f.readPage(tls, buf, off, numberAtOffset(off))
}

// readPage reads a page that has a number, or is anyNumber. What is behind the end of the file is zeros.
func (f *file) readPage(tls *libc.TLS, buf uintptr, off int64, number uint32) int32 {
	rc := f.readReal(tls, buf, pageSize, off)
	if rc != lib.SQLITE_OK && rc != lib.SQLITE_IOERR_SHORT_READ {
		return rc
	}
	page := memory.Octets(buf, pageSize)
	switch s := check(page, number); s {
	case mended:
		f.report(off, s)
	case broken:
		f.report(off, s)
		return lib.SQLITE_IOERR_DATA
	}
	bare(page)
	return rc
}

// Where a database file says how its pages are.
const (
	pageSizeAt = 16
	reservedAt = 20
	headerSize = 100
)

// readPart reads some octets of the first page: the header, before SQLite knows how large pages are, and the counter of changes.
// The page may be about to change, or torn by a crash and whole in the log: so that it isn't whole is no error yet, and none to tell
// of. An empty file, and one whose header a crash tore off as it was made, reads as the header of a database with our reserved
// octets, which is how SQLite comes to make one.
//
// SQLite reads parts of other pages only where a device says that it may; ours don't.
func (f *file) readPart(tls *libc.TLS, buf uintptr, n int32, off int64) int32 {
	if off < 0 || n < 0 || off+int64(n) > pageSize {
		return lib.SQLITE_IOERR_READ
	}
	rc := f.readReal(tls, f.scratch(), pageSize, 0)
	page := f.room[:pageSize]
	switch rc {
	case lib.SQLITE_OK:
		check(page, 1)
	case lib.SQLITE_IOERR_SHORT_READ:
		var size int64
		if rc := f.size(tls, &size); rc != lib.SQLITE_OK {
			return rc
		}
		if off+int64(n) <= size {
			rc = lib.SQLITE_OK
		}
	default:
		return rc
	}
	page[writersAt] &^= onlyUs
	if !anyOf(page[:headerSize]) {
		page[pageSizeAt], page[pageSizeAt+1], page[reservedAt] = pageSize>>8, pageSize&0xff, reserved
	}
	copy(memory.Octets(buf, int(n)), page[off:])
	return rc
}

// size asks for the size of the file. It goes over SQLite's memory, since the stack of a goroutine may move.
func (f *file) size(tls *libc.TLS, out *int64) int32 {
	p := tls.Alloc(8)
	defer tls.Free(8)
	rc := memory.Function[memory.AddressFunc](f.methods().FxFileSize)(tls, f.real, p)
	*out = *memory.At[int64](p)
	return rc
}

func writeFile(tls *libc.TLS, p, buf uintptr, n int32, off int64) int32 {
	f := memory.At[file](p)
	if f.log {
		return f.writeLog(tls, buf, n, off)
	}
	if n != pageSize || off%pageSize != 0 || off == 0 && !fits(memory.Octets(buf, pageSize)) {
		return lib.SQLITE_IOERR_WRITE
	}
	return f.writePage(tls, buf, off, numberAtOffset(off), 0)
}

// numberAtOffset is the number of the page of a database at an offset.
func numberAtOffset(off int64) uint32 { return uint32(off/pageSize) + 1 }

// fits tells whether a first page says that its pages have room for our sums.
func fits(page []byte) bool {
	return page[pageSizeAt] == pageSize>>8 && page[pageSizeAt+1] == pageSize&0xff && page[reservedAt] == reserved
}

// writePage writes a page with its sums. They are put into SQLite's copy and taken out again: SQLite only ever sees zeros there,
// which is what its sums of the log are over.
func (f *file) writePage(tls *libc.TLS, buf uintptr, off int64, number, size uint32) int32 {
	page := memory.Octets(buf, pageSize)
	seal(page, number, size)
	rc := f.writeReal(tls, buf, pageSize, off)
	bare(page)
	return rc
}

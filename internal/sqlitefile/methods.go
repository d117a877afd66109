package sqlitefile

import (
	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/durable"
	"waxwing/internal/sqlitefile/memory"
)

// What SQLite asks that has nothing to do with pages goes to the VFS below and its file: names, locks, the memory that
// connections share, syncs, sizes.

func deleteFile(tls *libc.TLS, vfs, name uintptr, dirSync int32) int32 {
	under := memory.At[layer](vfs).under
	return memory.Function[memory.DeleteFunc](memory.At[lib.Tsqlite3_vfs](under).FxDelete)(tls, under, name, dirSync)
}

func access(tls *libc.TLS, vfs, name uintptr, flags int32, out uintptr) int32 {
	under := memory.At[layer](vfs).under
	return memory.Function[memory.AccessFunc](memory.At[lib.Tsqlite3_vfs](under).FxAccess)(tls, under, name, flags, out)
}

func fullPath(tls *libc.TLS, vfs, name uintptr, n int32, out uintptr) int32 {
	under := memory.At[layer](vfs).under
	return memory.Function[memory.PathFunc](memory.At[lib.Tsqlite3_vfs](under).FxFullPathname)(tls, under, name, n, out)
}

func closeFile(tls *libc.TLS, p uintptr) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.FileFunc](f.methods().FxClose)(tls, f.real)
}

func truncateFile(tls *libc.TLS, p uintptr, size int64) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.SizeFunc](f.methods().FxTruncate)(tls, f.real, size)
}

func syncFile(tls *libc.TLS, p uintptr, flags int32) int32 {
	f := memory.At[file](p)
	rc := memory.Function[memory.FlagFunc](f.methods().FxSync)(tls, f.real, flags)
	if rc == lib.SQLITE_OK && f.system && durable.Written(libc.GoString(f.name)) != nil {
		return lib.SQLITE_IOERR_FSYNC
	}
	return rc
}

func fileSize(tls *libc.TLS, p, size uintptr) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.AddressFunc](f.methods().FxFileSize)(tls, f.real, size)
}

func lockFile(tls *libc.TLS, p uintptr, level int32) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.FlagFunc](f.methods().FxLock)(tls, f.real, level)
}

func unlockFile(tls *libc.TLS, p uintptr, level int32) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.FlagFunc](f.methods().FxUnlock)(tls, f.real, level)
}

func checkReservedLock(tls *libc.TLS, p, held uintptr) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.AddressFunc](f.methods().FxCheckReservedLock)(tls, f.real, held)
}

// fileControl keeps SQLite from mapping the file into memory, and answers the pragma of Scrub.
func fileControl(tls *libc.TLS, p uintptr, op int32, arg uintptr) int32 {
	f := memory.At[file](p)
	switch op {
	case lib.SQLITE_FCNTL_MMAP_SIZE:
		return lib.SQLITE_NOTFOUND
	case lib.SQLITE_FCNTL_PRAGMA:
		if rc := f.pragma(tls, arg); rc != lib.SQLITE_NOTFOUND {
			return rc
		}
	}
	return memory.Function[memory.ControlFunc](f.methods().FxFileControl)(tls, f.real, op, arg)
}

func sectorSize(tls *libc.TLS, p uintptr) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.FileFunc](f.methods().FxSectorSize)(tls, f.real)
}

// deviceCharacteristics keeps SQLite from reading parts of pages, which nobody could check.
func deviceCharacteristics(tls *libc.TLS, p uintptr) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.FileFunc](f.methods().FxDeviceCharacteristics)(tls, f.real) &^ lib.SQLITE_IOCAP_SUBPAGE_READ
}

func shmMap(tls *libc.TLS, p uintptr, region, size, extend int32, out uintptr) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.ShmMapFunc](f.methods().FxShmMap)(tls, f.real, region, size, extend, out)
}

func shmLock(tls *libc.TLS, p uintptr, off, n, flags int32) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.ShmLockFunc](f.methods().FxShmLock)(tls, f.real, off, n, flags)
}

func shmBarrier(tls *libc.TLS, p uintptr) {
	f := memory.At[file](p)
	memory.Function[memory.BarrierFunc](f.methods().FxShmBarrier)(tls, f.real)
}

func shmUnmap(tls *libc.TLS, p uintptr, remove int32) int32 {
	f := memory.At[file](p)
	return memory.Function[memory.FlagFunc](f.methods().FxShmUnmap)(tls, f.real, remove)
}

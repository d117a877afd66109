package memory

import (
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// The functions of a VFS, and of its files.
type (
	OpenFunc    = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	DeleteFunc  = func(tls *libc.TLS, vfs, name uintptr, dirSync int32) int32
	AccessFunc  = func(tls *libc.TLS, vfs, name uintptr, flags int32, out uintptr) int32
	PathFunc    = func(tls *libc.TLS, vfs, name uintptr, n int32, out uintptr) int32
	ReadFunc    = func(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 // and write
	FileFunc    = func(tls *libc.TLS, file uintptr) int32
	FlagFunc    = func(tls *libc.TLS, file uintptr, n int32) int32
	SizeFunc    = func(tls *libc.TLS, file uintptr, n int64) int32
	AddressFunc = func(tls *libc.TLS, file, p uintptr) int32
	ControlFunc = func(tls *libc.TLS, file uintptr, op int32, arg uintptr) int32
	ShmMapFunc  = func(tls *libc.TLS, file uintptr, region, size, extend int32, out uintptr) int32
	ShmLockFunc = func(tls *libc.TLS, file uintptr, off, n, flags int32) int32
	BarrierFunc = func(tls *libc.TLS, file uintptr)
)

// Methods are those of a file in Go: declared functions, each of them set.
type Methods struct {
	Close                             FileFunc
	Read, Write                       ReadFunc
	Truncate                          SizeFunc
	Sync                              FlagFunc
	Size                              AddressFunc
	Lock, Unlock                      FlagFunc
	CheckReservedLock                 AddressFunc
	Control                           ControlFunc
	SectorSize, DeviceCharacteristics FileFunc
	ShmMap                            ShmMapFunc
	ShmLock                           ShmLockFunc
	ShmBarrier                        BarrierFunc
	ShmUnmap                          FlagFunc
}

// Make gives SQLite the methods, of version 2: those of version 3 would let it read past them. It returns 0 when there is no memory.
func (m Methods) Make() uintptr {
	tls := libc.NewTLS()
	defer tls.Close()
	p := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_io_methods{})))
	if p == 0 {
		return 0
	}
	*At[lib.Tsqlite3_io_methods](p) = lib.Tsqlite3_io_methods{
		FiVersion:               2,
		FxClose:                 Pointer(m.Close),
		FxRead:                  Pointer(m.Read),
		FxWrite:                 Pointer(m.Write),
		FxTruncate:              Pointer(m.Truncate),
		FxSync:                  Pointer(m.Sync),
		FxFileSize:              Pointer(m.Size),
		FxLock:                  Pointer(m.Lock),
		FxUnlock:                Pointer(m.Unlock),
		FxCheckReservedLock:     Pointer(m.CheckReservedLock),
		FxFileControl:           Pointer(m.Control),
		FxSectorSize:            Pointer(m.SectorSize),
		FxDeviceCharacteristics: Pointer(m.DeviceCharacteristics),
		FxShmMap:                Pointer(m.ShmMap),
		FxShmLock:               Pointer(m.ShmLock),
		FxShmBarrier:            Pointer(m.ShmBarrier),
		FxShmUnmap:              Pointer(m.ShmUnmap),
	}
	return p
}

package sqlitefile

import (
	"path/filepath"
	"testing"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile/memory"
)

// TestReadingAndWritingAllocatesNothing calls the VFS as SQLite does.
func TestReadingAndWritingAllocatesNothing(t *testing.T) {
	vfs, err := register("")
	if err != nil {
		t.Fatal(err)
	}
	tls := libc.NewTLS()
	defer tls.Close()
	name := filepath.Join(t.TempDir(), "a.db")
	const size = 64 << 10
	room := libc.Xcalloc(tls, 1, size) // the file, its name and a page, as SQLite keeps them
	defer libc.Xfree(tls, room)
	path, buf := room+size/2, room+size-pageSize
	copy(memory.Octets(path, len(name)), name)
	if rc := openFile(tls, vfs.at, path, room, lib.SQLITE_OPEN_READWRITE|lib.SQLITE_OPEN_CREATE|lib.SQLITE_OPEN_MAIN_DB, 0); rc != lib.SQLITE_OK {
		t.Fatal(rc)
	}
	defer closeFile(tls, room)
	page := memory.Octets(buf, pageSize)
	page[pageSizeAt], page[reservedAt] = pageSize>>8, reserved
	bad := int32(0)
	n := testing.AllocsPerRun(100, func() {
		bad |= writeFile(tls, room, buf, pageSize, 0)
		bad |= readFile(tls, room, buf, pageSize, 0)
		bad |= readFile(tls, room, buf, 100, 0)
	})
	if bad != lib.SQLITE_OK || anyOf(page[numberAt:]) {
		t.Error("it failed:", bad)
	}
	if theirs := allocsUnder(tls, room, buf); n > theirs {
		t.Errorf("%v allocations, without sums %v", n, theirs)
	}
	if rc := writeFile(tls, room, buf, pageSize/2, 0); rc != lib.SQLITE_IOERR_WRITE {
		t.Error("half a page was written:", rc)
	}
	page[reservedAt] = 0
	if rc := writeFile(tls, room, buf, pageSize, 0); rc != lib.SQLITE_IOERR_WRITE {
		t.Error("a database without room for sums was written:", rc)
	}
	if unsafe.Sizeof(file{})%8 != 0 {
		t.Error("what lies behind a file is not aligned")
	}
}

// allocsUnder counts what SQLite's own file allocates for the same.
func allocsUnder(tls *libc.TLS, room, buf uintptr) float64 {
	f := memory.At[file](room)
	return testing.AllocsPerRun(100, func() {
		f.writeReal(tls, buf, pageSize, 0)
		f.readReal(tls, buf, pageSize, 0)
		f.readReal(tls, buf, pageSize, 0)
	})
}

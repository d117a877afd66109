package crashfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"waxwing/internal/durable"
	"waxwing/internal/durable/crashfs"
)

func create(t *testing.T, f *crashfs.FS, name string) durable.File {
	t.Helper()
	file, err := f.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func write(t *testing.T, f durable.File, off int64, b []byte) {
	t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// TestCrashKeepsWhatIsSyncedAndTearsTheRest looks at many crashes of one state: synced octets are always there, of the
// others each sector is there in some and missing in some, and the original is not touched.
func TestCrashKeepsWhatIsSyncedAndTearsTheRest(t *testing.T) {
	t.Parallel()
	f := crashfs.New()
	file := create(t, f, "/f")
	synced := bytes.Repeat([]byte{1}, 2000)
	write(t, file, 0, synced)
	if err := errors.Join(file.Sync(), f.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	write(t, file, 2000, bytes.Repeat([]byte{2}, 2000))
	var there, torn, short int
	for seed := range uint64(200) {
		b, err := durable.ReadFile(f.Crash(seed), "/f", 1<<20)
		if err != nil || len(b) < 2000 || !bytes.Equal(b[:2000], synced) {
			t.Fatalf("seed %d: synced data lost: %d octets, %v", seed, len(b), err)
		}
		rest := b[2000:]
		switch {
		case len(rest) == 0:
			short++
		case bytes.Count(rest, []byte{2}) == 2000:
			there++
		default:
			torn++
		}
	}
	if there == 0 || torn == 0 || short == 0 {
		t.Errorf("whole %d, torn %d, short %d: each must occur", there, torn, short)
	}
	if b, err := durable.ReadFile(f, "/f", 1<<20); err != nil || len(b) != 4000 || b[3999] != 2 {
		t.Errorf("the original changed: %d octets, %v", len(b), err)
	}
}

func TestCrashIsTheSameForASeed(t *testing.T) {
	t.Parallel()
	f := crashfs.New()
	for _, name := range []string{"/a", "/b", "/c"} {
		write(t, create(t, f, name), 0, bytes.Repeat([]byte(name), 3000))
	}
	for seed := range uint64(20) {
		one, two := f.Crash(seed), f.Crash(seed)
		for _, name := range []string{"/a", "/b", "/c"} {
			a, erra := durable.ReadFile(one, name, 1<<20)
			b, errb := durable.ReadFile(two, name, 1<<20)
			if !bytes.Equal(a, b) || (erra == nil) != (errb == nil) {
				t.Fatalf("seed %d: %s differs", seed, name)
			}
		}
	}
}

// TestNamesNeedSyncDir: a synced file whose name is not may vanish, and a rename is one step.
func TestNamesNeedSyncDir(t *testing.T) {
	t.Parallel()
	f := crashfs.New()
	file := create(t, f, "/old")
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	count := func(name string) int {
		n := 0
		for seed := range uint64(100) {
			if _, err := f.Crash(seed).Stat(name); err == nil {
				n++
			}
		}
		return n
	}
	if n := count("/old"); n == 0 || n == 100 {
		t.Errorf("unsynced name survived %d of 100 crashes", n)
	}
	if err := f.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	if n := count("/old"); n != 100 {
		t.Errorf("synced name survived %d of 100 crashes", n)
	}
	if err := f.Rename("/old", "/new"); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(100) {
		c := f.Crash(seed)
		_, erro := c.Stat("/old")
		_, errn := c.Stat("/new")
		if (erro == nil) == (errn == nil) {
			t.Fatalf("seed %d: old: %v, new: %v", seed, erro, errn)
		}
	}
}

// TestFailedSyncLosesItsData: the kernel marks pages clean that it could not write.
func TestFailedSyncLosesItsData(t *testing.T) {
	t.Parallel()
	f := crashfs.New()
	file := create(t, f, "/f")
	if err := errors.Join(file.Allocate(0, 3*4096), file.Sync(), f.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	write(t, file, 0, []byte("lost"))
	f.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.OpSync {
			return syscall.EIO
		}
		return nil
	})
	if err := file.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	f.SetHook(nil)
	write(t, file, 8192, []byte("kept"))
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	b, err := durable.ReadFile(f.Crash(1), "/f", 1<<20)
	if err != nil || !bytes.Equal(b[:4], make([]byte, 4)) || string(b[8192:8196]) != "kept" {
		t.Errorf("%q %q %v", b[:4], b[8192:8196], err)
	}
}

func TestHooksFailCalls(t *testing.T) {
	t.Parallel()
	f := crashfs.New()
	file := create(t, f, "/f")
	f.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.OpWrite {
			return &crashfs.Partial{N: 2, Err: syscall.ENOSPC}
		}
		return nil
	})
	if n, err := file.WriteAt([]byte("wax"), 0); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("partial write: %d, %v", n, err)
	}
	f.SetHook(nil)
	f.SetCapacity(100)
	if n, err := file.WriteAt(make([]byte, 200), 0); n != 100 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write to a full disk: %d, %v", n, err)
	}
	if err := file.Allocate(0, 101); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocate on a full disk: %v", err)
	}
	if free, err := f.Free("/"); free != 0 || err != nil {
		t.Errorf("free: %d, %v", free, err)
	}
	if err := f.Remove("/f"); err != nil {
		t.Error(err)
	}
	if free, _ := f.Free("/"); free != 100 {
		t.Errorf("free after Remove: %d", free)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	if _, err := file.Size(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("use after Close: %v", err)
	}
	if got := f.Syncs(); got != len(f.SyncPoints()) {
		t.Errorf("%d syncs, %d points", got, len(f.SyncPoints()))
	}
}

package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"waxwing/internal/durable"
	"waxwing/internal/durable/crashfs"
)

// systems are the implementations that must behave alike.
func systems(t *testing.T) map[string]struct {
	fs  durable.FS
	dir string
} {
	t.Helper()
	c := crashfs.New()
	if err := c.MkdirAll("/data", 0o700); err != nil {
		t.Fatal(err)
	}
	return map[string]struct {
		fs  durable.FS
		dir string
	}{"os": {durable.OS, t.TempDir()}, "crashfs": {c, "/data"}}
}

func TestFileSystemsBehaveAlike(t *testing.T) {
	t.Parallel()
	for name, sys := range systems(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(sys.dir, "a", "b", "file")
			if _, err := sys.fs.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("open without directory: %v", err)
			}
			must(t, sys.fs.MkdirAll(filepath.Dir(path), 0o700))
			must(t, sys.fs.MkdirAll(filepath.Dir(path), 0o700))
			f, err := sys.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			must(t, err)
			if _, err := sys.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
				t.Errorf("exclusive open of an existing file: %v", err)
			}
			must(t, f.Allocate(0, 10_000))
			if size, err := f.Size(); err != nil || size != 10_000 {
				t.Errorf("size after Allocate: %d, %v", size, err)
			}
			if _, err := f.WriteAt([]byte("wax"), 5_000); err != nil {
				t.Error(err)
			}
			must(t, f.Sync())
			b := make([]byte, 6)
			if _, err := f.ReadAt(b, 4_998); err != nil || string(b) != "\x00\x00wax\x00" {
				t.Errorf("read %q, %v", b, err)
			}
			must(t, f.Truncate(5_001))
			must(t, f.Allocate(5_001, 10))
			if n, err := f.ReadAt(b, 5_000); err != nil || string(b[:n]) != "w\x00\x00\x00\x00\x00" {
				t.Errorf("read after truncation and growth %q, %v", b[:n], err)
			}
			if n, err := f.ReadAt(b, 5_009); n != 2 || err != io.EOF {
				t.Errorf("read at the end: %d, %v", n, err)
			}
			must(t, sys.fs.Rename(path, path+"2"))
			must(t, sys.fs.SyncDir(filepath.Dir(path)))
			entries, err := sys.fs.ReadDir(filepath.Dir(path))
			if err != nil || len(entries) != 1 || entries[0].Name() != "file2" || entries[0].IsDir() {
				t.Errorf("entries %v, %v", entries, err)
			}
			must(t, sys.fs.Remove(path+"2"))
			if n, err := f.ReadAt(b[:1], 5_000); n != 1 || err != nil {
				t.Errorf("read of a removed file: %d, %v", n, err)
			}
			must(t, f.Close())
			if _, err := sys.fs.Stat(path + "2"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("stat of a removed file: %v", err)
			}
			if free, err := sys.fs.Free(sys.dir); err != nil || free <= 0 {
				t.Errorf("free: %d, %v", free, err)
			}
		})
	}
}

func TestLockIsExclusiveUntilClosed(t *testing.T) {
	t.Parallel()
	for name, sys := range systems(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(sys.dir, "lock")
			first, err := sys.fs.Lock(path)
			must(t, err)
			if _, err := sys.fs.Lock(path); !errors.Is(err, durable.ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			must(t, first.Close())
			again, err := sys.fs.Lock(path)
			must(t, err)
			must(t, again.Close())
		})
	}
}

func TestReadFileHoldsItsLimit(t *testing.T) {
	t.Parallel()
	for name, sys := range systems(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(sys.dir, "f")
			must(t, durable.WriteFile(sys.fs, path, []byte("12345"), 0o600))
			if b, err := durable.ReadFile(sys.fs, path, 5); err != nil || string(b) != "12345" {
				t.Errorf("%q, %v", b, err)
			}
			if _, err := durable.ReadFile(sys.fs, path, 4); !errors.Is(err, durable.ErrTooLarge) {
				t.Errorf("beyond the limit: %v", err)
			}
		})
	}
}

// TestWriteFileIsAtomic cuts the power after each call of WriteFile, several ways: the old content or the new one is
// there, and the new one once WriteFile has answered.
func TestWriteFileIsAtomic(t *testing.T) {
	t.Parallel()
	oldData, newData := bytes.Repeat([]byte("old "), 1000), bytes.Repeat([]byte("new!"), 3000)
	c := crashfs.New()
	must(t, c.MkdirAll("/d", 0o700))
	must(t, durable.WriteFile(c, "/d/f", oldData, 0o600))
	var states []*crashfs.FS
	c.SetObserver(func(crashfs.Op, error) {
		for seed := range uint64(20) {
			states = append(states, c.Crash(seed))
		}
	})
	must(t, durable.WriteFile(c, "/d/f", newData, 0o600))
	sawOld, sawNew := false, false
	for i, state := range states {
		b, err := durable.ReadFile(state, "/d/f", 1<<20)
		must(t, err)
		switch {
		case bytes.Equal(b, oldData):
			sawOld = true
		case bytes.Equal(b, newData):
			sawNew = true
		default:
			t.Fatalf("state %d: %d octets, neither old nor new", i, len(b))
		}
	}
	if !sawOld || !sawNew {
		t.Errorf("old seen: %v, new seen: %v: the test cuts too little", sawOld, sawNew)
	}
	c.SetObserver(nil)
	for seed := range uint64(50) {
		if b, err := durable.ReadFile(c.Crash(seed), "/d/f", 1<<20); err != nil || !bytes.Equal(b, newData) {
			t.Fatalf("after the answer: %d octets, %v", len(b), err)
		}
	}
}

// TestWriteFileFailsCleanly fails each call of WriteFile in turn: an error, the old content, nothing left behind.
func TestWriteFileFailsCleanly(t *testing.T) {
	t.Parallel()
	for failing := 1; ; failing++ {
		c := crashfs.New()
		must(t, c.MkdirAll("/d", 0o700))
		must(t, durable.WriteFile(c, "/d/f", []byte("old"), 0o600))
		calls, failed := 0, crashfs.Kind("")
		c.SetHook(func(op crashfs.Op) error {
			if calls++; calls == failing {
				failed = op.Kind
				return syscall.EIO
			}
			return nil
		})
		err := durable.WriteFile(c, "/d/f", []byte("new"), 0o600)
		c.SetHook(nil)
		if failed == "" {
			if failing < 5 {
				t.Fatalf("only %d calls", failing)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s failed: %v", failed, err)
		}
		b, rerr := durable.ReadFile(c, "/d/f", 100)
		must(t, rerr)
		if want := "old"; string(b) != want && failed != crashfs.OpSyncDir {
			t.Errorf("%s failed: content %q", failed, b)
		}
		entries, rerr := c.ReadDir("/d")
		must(t, rerr)
		if len(entries) != 1 {
			t.Errorf("%s failed: left behind %v", failed, entries)
		}
	}
}

func TestMkdirAllIsDurable(t *testing.T) {
	t.Parallel()
	c := crashfs.New()
	must(t, c.MkdirAll("/a/b/c", 0o700))
	for seed := range uint64(20) {
		if info, err := c.Crash(seed).Stat("/a/b/c"); err != nil || !info.IsDir() {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	var missing *fs.PathError
	if err := durable.OS.MkdirAll(filepath.Join(t.TempDir(), strings.Repeat("x", 300)), 0o700); !errors.As(err, &missing) {
		t.Errorf("name too long: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ExampleWriteFile() {
	dir, err := os.MkdirTemp("", "durable")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "node-id")
	if err := durable.WriteFile(durable.OS, name, []byte("mx1"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	data, err := durable.ReadFile(durable.OS, name, 64)
	fmt.Println(string(data), err)
	// Output: mx1 <nil>
}

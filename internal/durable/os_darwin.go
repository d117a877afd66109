package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync is a full flush: os.File.Sync uses F_FULLFSYNC here, since fsync alone does not reach the platters.
func datasync(f *os.File) error { return f.Sync() }

// Written is to be asked after a successful sync of a file: see the one for Linux. Here a sync that succeeds is enough.
func Written(string) error { return nil }

func allocate(f *os.File, off, n int64) error { return extend(f, off+n) }

func flock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

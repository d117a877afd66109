package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// retry repeats a call that a signal interrupted; Go's own preemption signals do that on some file systems.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// onFD runs a system call on the descriptor while the file can't be closed, without making it blocking as Fd would.
func onFD(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) {
		result = retry(func() error { return call(int(fd)) })
	}); err != nil {
		return err
	}
	return result
}

func datasync(f *os.File) error {
	return onFD(f, func(fd int) error {
		if err := unix.Fdatasync(fd); err != nil {
			return err
		}
		return written(func() error { return unix.Fchown(fd, -1, -1) })
	})
}

// Written is to be asked after a successful sync of a file, by who has no File of it: an error says that the sync meant nothing.
//
// When ext4 finds an error it gives up its journal and turns read-only. What was written and not yet synced is lost then, but a sync
// that runs in that moment may find nothing to do, and nothing to complain of. It turns once and for good: a file system that
// can be changed after the sync was sound when it ran.
func Written(name string) error {
	return written(func() error { return unix.Lchown(name, -1, -1) })
}

// written makes a change that changes nothing but a time. Where the journal is gone, the first one makes the file system read-only,
// and the second says so.
func written(change func() error) error {
	for range 2 {
		if err := retry(change); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
			return err
		}
	}
	return nil
}

func allocate(f *os.File, off, n int64) error {
	err := onFD(f, func(fd int) error { return unix.Fallocate(fd, 0, off, n) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return extend(f, off+n)
	}
	return err
}

func flock(f *os.File) error {
	err := onFD(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // the types differ by architecture
}

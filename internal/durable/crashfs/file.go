package crashfs

import (
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"
)

// file is an open file of the FS.
type file struct {
	fs       *FS
	n        *node
	name     string
	writable bool
	closed   atomic.Bool
}

func newFile(f *FS, n *node, name string, writable bool) *file {
	return &file{fs: f, n: n, name: name, writable: writable}
}

// do runs a call on the file.
func (f *file) do(op Op, call func(*Partial) error) error {
	op.Name = f.name
	return f.fs.call(op, func(p *Partial) error {
		if f.closed.Load() {
			return fs.ErrClosed
		}
		return call(p)
	})
}

// ReadAt implements durable.File. At the end of the file it answers a bare io.EOF, as os.File does.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	eof := false
	err = f.do(Op{Kind: OpRead, Off: off, Len: int64(len(p))}, func(*Partial) error {
		n, err = f.n.read(p, off)
		eof = err != nil
		return nil
	})
	if err == nil && eof {
		err = io.EOF
	}
	return n, err
}

// WriteAt implements durable.File.
func (f *file) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do(Op{Kind: OpWrite, Off: off, Len: int64(len(p))}, func(partial *Partial) error {
		var failure error
		if !f.writable {
			return syscall.EBADF
		}
		if partial != nil {
			p, failure = p[:min(partial.N, len(p))], partial.Err
		}
		if over := off + int64(len(p)) - f.n.size; over > 0 && over > f.fs.free() {
			p = p[:max(0, int64(len(p))-(over-f.fs.free()))]
			failure = syscall.ENOSPC
		}
		if n = len(p); n > 0 {
			f.n.write(off, p)
		}
		return failure
	})
	return n, err
}

// Sync implements durable.File.
func (f *file) Sync() error {
	return f.do(Op{Kind: OpSync}, func(failed *Partial) error {
		if failed != nil {
			f.n.failSync()
			return failed.Err
		}
		f.n.sync()
		return nil
	})
}

// Allocate implements durable.File.
func (f *file) Allocate(off, n int64) error {
	return f.do(Op{Kind: OpAllocate, Off: off, Len: n}, func(*Partial) error {
		over := off + n - f.n.size
		switch {
		case !f.writable:
			return syscall.EBADF
		case over > f.fs.free():
			return syscall.ENOSPC
		case over > 0:
			f.n.truncate(off + n)
		}
		return nil
	})
}

// Truncate implements durable.File.
func (f *file) Truncate(size int64) error {
	return f.do(Op{Kind: OpTruncate, Off: size}, func(*Partial) error {
		if !f.writable {
			return syscall.EINVAL
		}
		if size-f.n.size > f.fs.free() {
			return syscall.ENOSPC
		}
		f.n.truncate(size)
		return nil
	})
}

// Size implements durable.File.
func (f *file) Size() (size int64, err error) {
	err = f.do(Op{Kind: OpStat}, func(*Partial) error {
		size = f.n.size
		return nil
	})
	return size, err
}

// Close implements durable.File.
func (f *file) Close() error {
	if f.closed.Swap(true) {
		return fs.ErrClosed
	}
	return nil
}

package sqlitefile

import (
	"encoding/binary"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile/memory"
)

// tail is where the recovery of a log is: SQLite reads the header, then frame after frame.
type tail struct {
	next  int64 // offset of the frame that comes next; 0: nothing is known of the frames before it
	sum   logSum
	salts [8]byte
	big   bool // the words are summed as big-endian
}

// inFrame splits an offset of a log.
func inFrame(off int64) (frame, rest int64) {
	rest = (off - logHeader) % frameSize
	return off - rest, rest
}

func (f *file) readLog(tls *libc.TLS, buf uintptr, n int32, off int64) int32 {
	frame, rest := inFrame(off)
	switch {
	case n == logHeader && off == 0:
		return f.readHeader(tls, buf)
	case n == pageSize && off > 0 && rest == frameHeader:
		return f.readPage(tls, buf, off, anyNumber)
	case n == frameSize && off > 0 && rest == 0:
		return f.readFrame(tls, buf, frame)
	}
	return f.readReal(tls, buf, n, off)
}

func (f *file) writeLog(tls *libc.TLS, buf uintptr, n int32, off int64) int32 {
	f.tail = tail{} // the recovery is over
	_, rest := inFrame(off)
	switch {
	case n == logHeader && off == 0:
		return f.writeReal(tls, buf, n, off)
	case n == frameHeader && off > 0 && rest == 0:
		f.head, f.headAt = [8]byte(memory.Octets(buf, frameSaltAt)), off
		return f.writeReal(tls, buf, n, off)
	case n == pageSize && off > 0 && rest == frameHeader && !anyOf(memory.Octets(buf+numberAt, reserved)):
		if rc := f.knowHead(tls, off-frameHeader); rc != lib.SQLITE_OK {
			return rc
		}
		return f.writePage(tls, buf, off, binary.BigEndian.Uint32(f.head[:]), binary.BigEndian.Uint32(f.head[4:]))
	}
	return lib.SQLITE_IOERR_WRITE
}

// knowHead makes f.head the numbers of a frame. SQLite writes the header and then the page, but for a page that a transaction
// changes once more.
func (f *file) knowHead(tls *libc.TLS, off int64) int32 {
	if f.headAt == off {
		return lib.SQLITE_OK
	}
	rc := f.readReal(tls, f.scratch(), frameSaltAt, off)
	if rc == lib.SQLITE_OK {
		f.head, f.headAt = [8]byte(f.room[:frameSaltAt]), off
	}
	return rc
}

func anyOf(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return true
		}
	}
	return false
}

func (f *file) readHeader(tls *libc.TLS, buf uintptr) int32 {
	f.tail = tail{}
	rc := f.readReal(tls, buf, logHeader, 0)
	if rc != lib.SQLITE_OK {
		return rc
	}
	h := memory.Octets(buf, logHeader)
	if rc := f.readReal(tls, f.scratch(), frameSize, logHeader); rc != lib.SQLITE_OK {
		return lib.SQLITE_OK // no frames, nothing to lose
	}
	bare(f.room[frameHeader:])
	switch checkHeader(h, f.room[:]) {
	case broken:
		return lib.SQLITE_OK // SQLite sees for itself
	case mended:
		f.report(0, mended)
	}
	f.tail = tail{next: logHeader, sum: logSumOf(h[logSumAt:]), salts: [8]byte(h[saltAt:logSumAt]), big: h[3]&1 == 1}
	return lib.SQLITE_OK
}

// readFrame reads a frame for the recovery, or for a transaction that wrote a page twice and sums its frames anew. In the
// recovery, a frame with a broken page ends the log: most likely it is where a crash was. SQLite must not judge that by its own sums
// alone, which don't cover ours: it would take a page that lost nothing else, and nobody could read it.
func (f *file) readFrame(tls *libc.TLS, buf uintptr, off int64) int32 {
	rc := f.readReal(tls, buf, frameSize, off)
	if rc != lib.SQLITE_OK {
		f.tail.next = 0
		return rc
	}
	frame := memory.Octets(buf, frameSize)
	page := check(frame[frameHeader:], anyNumber)
	if page == broken {
		if f.tail.next == 0 {
			f.report(off+frameHeader, broken)
			return lib.SQLITE_IOERR_DATA
		}
		f.tail.next = -1
		clear(frame[:frameHeader]) // no page has number 0
		return rc
	}
	numbers := numbersOf(frame[frameHeader:])
	bare(frame[frameHeader:])
	if off != f.tail.next {
		return rc
	}
	sum, head := checkFrame(frame, numbers[:], f.tail.salts[:], f.tail.sum, f.tail.order())
	if head == broken {
		f.tail.next = -1
		return rc
	}
	f.tail.next, f.tail.sum = off+frameSize, sum
	if page == mended || head == mended {
		f.report(off, mended)
	}
	return rc
}

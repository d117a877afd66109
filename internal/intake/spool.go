package intake

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"waxwing/internal/message/convert"
	"waxwing/internal/smtp"
)

const (
	chunkSize = 32 << 10
	// memorySpool is how much of one message is held in memory before it goes to a file.
	memorySpool = 256 << 10
)

type chunk [chunkSize]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// Spool takes the octets of one message while they come in: memory up to 256 KiB, then a file that has no name, so that
// nothing is left of it after a crash. It is filled by one goroutine, then read.
//
// Write and ReadFrom fail with a *smtp.Reply. After that the session reads the rest of the message away; Commit gives
// the same refusal.
type Spool struct {
	in     *Intake
	max    int64
	size   int64
	chunks []*chunk // all of the message, when file is nil
	file   *os.File
	seen   convert.Scanner
	err    error
}

func newSpool(in *Intake, maxSize int64) *Spool { return &Spool{in: in, max: maxSize} }

// Size is the number of octets taken so far.
func (s *Spool) Size() int64 { return s.size }

// Write takes octets.
func (s *Spool) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	written := 0
	for len(p) > 0 {
		var n int
		if dst := s.room(); dst != nil {
			if n = min(len(dst), len(p)); s.admit(int64(n)) {
				copy(dst, p[:n])
				s.took(p[:n])
			}
		} else if s.err == nil {
			n = s.writeFile(p)
		}
		if s.err != nil {
			return written, s.err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// ReadFrom takes all octets of r, straight into the spool's own memory.
func (s *Spool) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	var buf *chunk // between r and the file
	defer func() {
		if buf != nil {
			chunks.Put(buf)
		}
	}()
	for s.err == nil {
		dst := s.room()
		if s.err != nil {
			break
		}
		toFile := dst == nil
		if toFile {
			if buf == nil {
				buf = chunks.Get().(*chunk)
			}
			dst = buf[:]
		}
		n, err := r.Read(dst)
		total += int64(n)
		switch {
		case n == 0:
		case toFile:
			_, _ = s.Write(dst[:n]) // its error stays in s.err
		case s.admit(int64(n)):
			s.took(dst[:n])
		}
		if errors.Is(err, io.EOF) {
			return total, s.err
		}
		if err != nil {
			return total, err
		}
	}
	return total, s.err
}

// room gives the free end of the last chunk, or nil when the message is or now goes in a file.
func (s *Spool) room() []byte {
	if s.file != nil {
		return nil
	}
	used := int(s.size % chunkSize)
	if used > 0 || s.size < int64(len(s.chunks))*chunkSize {
		return s.chunks[len(s.chunks)-1][used:]
	}
	if s.size >= memorySpool || s.in.inMemory.Add(chunkSize) > s.in.limits.SpoolMemory {
		if s.size < memorySpool {
			s.in.inMemory.Add(-chunkSize)
		}
		s.spill()
		return nil
	}
	s.chunks = append(s.chunks, chunks.Get().(*chunk))
	return s.chunks[len(s.chunks)-1][:]
}

// admit counts octets against the limits of the message and of all messages.
func (s *Spool) admit(n int64) bool {
	if s.size+n > s.max {
		s.err = smtp.Errorf(552, "5.3.4", "message too large: at most %d octets", s.max)
		return false
	}
	if s.in.spooled.Add(n) > s.in.limits.SpoolBytes {
		s.in.spooled.Add(-n)
		s.err = replyFull
		return false
	}
	return true
}

// took counts octets that are in place.
func (s *Spool) took(p []byte) {
	s.size += int64(len(p))
	_, _ = s.seen.Write(p) // never fails
}

func (s *Spool) writeFile(p []byte) int {
	if !s.admit(int64(len(p))) {
		return 0
	}
	if n, err := s.file.WriteAt(p, s.size); err != nil {
		s.in.spooled.Add(-int64(len(p)))
		s.fail("write", err)
		return n
	}
	s.took(p)
	return len(p)
}

func (s *Spool) fail(op string, err error) {
	err = fmt.Errorf("intake: %s spool: %w", op, err)
	s.in.log.Error("message can't be spooled", "error", err)
	s.err = storeReply(err)
}

// spill moves what is in memory to a file without a name.
func (s *Spool) spill() {
	f, err := os.CreateTemp(s.in.opts.SpoolDir, "spool-*")
	if err != nil {
		s.fail("create", err)
		return
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		s.fail("unlink", err)
		return
	}
	var off int64
	for _, c := range s.chunks {
		n := min(s.size-off, chunkSize)
		if _, err := f.WriteAt(c[:n], off); err != nil {
			_ = f.Close()
			s.fail("write", err)
			return
		}
		off += n
	}
	s.dropChunks()
	s.file = f
}

func (s *Spool) dropChunks() {
	for _, c := range s.chunks {
		chunks.Put(c)
	}
	s.in.inMemory.Add(-int64(len(s.chunks)) * chunkSize)
	s.chunks = nil
}

// ReadAt reads what was taken (io.ReaderAt).
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("intake: negative offset")
	}
	if s.file != nil {
		return s.file.ReadAt(p, off)
	}
	n := 0
	for n < len(p) && off < s.size {
		c := s.chunks[off/chunkSize]
		end := min(s.size-off/chunkSize*chunkSize, chunkSize)
		m := copy(p[n:], c[off%chunkSize:end])
		n += m
		off += int64(m)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// free gives everything back; the spool is empty then.
func (s *Spool) free() {
	s.dropChunks()
	if s.file != nil {
		_ = s.file.Close() // nothing that was written to it matters any more
		s.file = nil
	}
	s.in.spooled.Add(-s.size)
	s.size = 0
	if s.err == nil {
		s.err = errSpoolClosed
	}
}

var errSpoolClosed = errors.New("intake: spool is closed")

func isASCII(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b >= 0x80 {
			return false
		}
	}
	return true
}

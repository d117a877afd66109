package listen

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// passes tells accept errors that go away on their own.
func passes(err error) bool {
	return isDescriptors(err) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EPROTO) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}

func isDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// spare is a file descriptor held back, so that a peer can be told to come later when there is none left.
type spare struct{ file *os.File }

func newSpare() *spare {
	f, err := os.Open(os.DevNull)
	if err != nil {
		return &spare{} // tried again after the next lack
	}
	return &spare{file: f}
}

func (s *spare) close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// turnAway takes one waiting connection on the spare descriptor and hands it to reject.
func (s *spare) turnAway(l net.Listener, reject func(net.Conn)) bool {
	timed, ok := l.(interface{ SetDeadline(time.Time) error })
	if !ok || s.file == nil {
		*s = *newSpare()
		return false
	}
	s.close()
	defer func() { *s = *newSpare() }()
	// The connection may have gone meanwhile: don't wait for the next one without a spare.
	if timed.SetDeadline(time.Now().Add(minPause)) != nil {
		return false
	}
	defer func() { _ = timed.SetDeadline(time.Time{}) }()
	nc, err := l.Accept()
	if err != nil {
		return false
	}
	reject(nc)
	return true
}

package wire

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerGone tells whether the peer has closed its side and nothing that it sent is left to read. On plaintext, input
// before the close does not count as gone: a client may send all its commands, end its output, and still wait for the
// answers. On TLS the farewell record always is such input, and nobody half-closes: there the close alone decides.
func peerGone(nc net.Conn, secure bool) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = rc.Control(func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds[:], 0); err != nil || n == 0 {
			return
		}
		if secure || fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			gone = true
			return
		}
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return gone || err != nil
}

package postgres

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// boundUnanswered has a connection break when what was sent on it isn't acknowledged in time. Without it the kernel would send
// again for a quarter of an hour, and a node that was cut off would wait as long.
func boundUnanswered(network, _ string, c syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var err error
	controlled := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unansweredTime.Milliseconds()))
	})
	return errors.Join(controlled, err)
}

//go:build unix

package backup

import (
	"errors"
	"syscall"
)

// gone tells that no process of this host has this number.
func gone(pid int) bool {
	return pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

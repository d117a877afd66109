//go:build !linux

package postgres

import "syscall"

// boundUnanswered does nothing where the kernel has no such bound: keepalives must do.
func boundUnanswered(string, string, syscall.RawConn) error { return nil }

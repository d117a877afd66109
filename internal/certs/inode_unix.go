//go:build unix

package certs

import (
	"io/fs"
	"syscall"
)

// inodeOf tells a replaced file from its predecessor of the same size and time.
func inodeOf(fi fs.FileInfo) uint64 {
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Ino) //nolint:unconvert // its type differs between systems
	}
	return 0
}

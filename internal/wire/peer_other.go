//go:build !linux

package wire

import "net"

// peerGone can't be told here without reading: the next read or write tells.
func peerGone(net.Conn, bool) bool { return false }

// Package porttest gives tests ports of 127.0.0.1 for programs that can't choose one themselves. A port that was free a
// moment ago may be taken when the program comes to bind it: by another test that asked the kernel, or by the near end of
// any connection. The ports given here lie below those that the kernel hands out, and no two processes that ask this
// package get the same ones: each holds blocks of ports by listening on the first port of each, until it ends. So a port
// stays with the test, also while the program that it is for is stopped and started again.
//
// It is for test code alone.
//
//	ports, err := porttest.Reserve(2)
package porttest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
)

// Blocks of ports from first to last; the kernel's own range begins behind them unless it was changed.
const (
	first = 20_000
	last  = 32_000
	block = 50
)

// errNone says that all blocks are held, by this process or by others.
var errNone = errors.New("porttest: no ports are left")

// held is what this process holds.
var held struct {
	sync.Mutex
	guards []net.Listener // on the first port of each block
	next   int            // the port to be given next
	end    int            // of the block that it is in
}

// Reserve returns n ports of 127.0.0.1 on which nothing listens. They are not given again to anybody who asks this package
// until the process ends.
func Reserve(n int) ([]int, error) {
	held.Lock()
	defer held.Unlock()
	ports := make([]int, 0, n)
	for len(ports) < n {
		if held.next == held.end {
			if err := takeBlock(); err != nil {
				return nil, err
			}
		}
		port := held.next
		held.next++
		if l, err := listen(port); err == nil { // else a program holds it that knows nothing of blocks
			if err := l.Close(); err != nil {
				return nil, fmt.Errorf("porttest: %w", err)
			}
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// takeBlock holds another block. Processes begin to look at different places.
func takeBlock() error {
	blocks := (limit() - first) / block
	for i := range blocks {
		begin := first + (os.Getpid()+i)%blocks*block
		if l, err := listen(begin); err == nil {
			held.guards = append(held.guards, l)
			held.next, held.end = begin+1, begin+block
			return nil
		}
	}
	return errNone
}

// limit is the end of the ports to choose from.
func limit() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return last
	}
	var begin int
	if _, err := fmt.Sscan(strings.TrimSpace(string(b)), &begin); err != nil || begin < first+block {
		return last // the kernel's range covers ours: what is left is that blocks are apart
	}
	return min(begin, last)
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

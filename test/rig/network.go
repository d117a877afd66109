package rig

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Network is some machines in miniature: hosts in network namespaces of their own, with a link each to a hub, which has a
// namespace too. None of it has a name outside: it goes with this process, whatever ends that. It asks for root.
type Network struct {
	Hub   *Host
	Hosts []*Host
	// Range is the network of all hosts, in CIDR notation.
	Range string

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{} // listeners and connections of relays
	relays sync.WaitGroup
}

// Host is one of the machines.
type Host struct {
	Address string // without a port

	space *os.File // its namespace
	link  string   // the hub's end of its link
}

// NewNetwork makes a hub and a number of hosts.
func NewNetwork(ctx context.Context, hosts int) (n *Network, err error) {
	n = &Network{Range: "10.77.0.0/24", open: make(map[io.Closer]struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("network: %w", err), n.Close())
		}
	}()
	if n.Hub, err = newHost("10.77.0.1"); err != nil {
		return n, err
	}
	if err := n.Hub.ip(ctx, "link add br0 type bridge", "addr add 10.77.0.1/24 dev br0", "link set br0 up"); err != nil {
		return n, err
	}
	for i := range hosts {
		h, err := newHost(fmt.Sprintf("10.77.0.%d", i+2))
		if err != nil {
			return n, err
		}
		n.Hosts = append(n.Hosts, h)
		h.link = fmt.Sprintf("port%d", i)
		err = n.Hub.ip(ctx,
			fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", h.link, os.Getpid(), h.space.Fd()),
			fmt.Sprintf("link set %s master br0 up", h.link))
		if err == nil {
			err = h.ip(ctx, "addr add "+h.Address+"/24 dev eth0", "link set eth0 up")
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// newHost makes a namespace with nothing but its loopback.
func newHost(address string) (h *Host, err error) {
	h = &Host{Address: address}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and nobody else gets into the namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			h.space, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return h, fmt.Errorf("namespace: %w", err)
	}
	return h, h.ip(context.Background(), "link set lo up")
}

// Enter calls fn on a thread in the host's namespace: what it starts, listens on or dials is there.
func (h *Host) Enter(fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(h.space.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the namespace of %s: %w", h.Address, err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("rig: a thread is lost in a namespace: %v", back))
	}
	return err
}

// ip runs the program of this name with one line of words after the other.
func (h *Host) ip(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		var out strings.Builder
		cmd := exec.CommandContext(ctx, "ip", strings.Fields(line)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := h.Enter(cmd.Start); err != nil {
			return fmt.Errorf("ip %s: %w", line, err)
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out.String())
		}
	}
	return nil
}

// Cut takes the link of a host down: what is on the way is lost, and nobody is told.
func (n *Network) Cut(ctx context.Context, h *Host) error {
	return n.Hub.ip(ctx, "link set "+h.link+" down")
}

// Heal brings it up again.
func (n *Network) Heal(ctx context.Context, h *Host) error {
	return n.Hub.ip(ctx, "link set "+h.link+" up")
}

// Serve hands connections to a port of a host on to an address outside; with a configuration they begin with TLS.
func (n *Network) Serve(h *Host, port int, to string, conf *tls.Config) (address string, err error) {
	var l net.Listener
	address = net.JoinHostPort(h.Address, strconv.Itoa(port))
	err = h.Enter(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		return "", err
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	n.relay(l, func() (net.Conn, error) { return net.Dial("tcp", to) })
	return address, nil
}

// Reach hands connections to an address of loopback out here on to the same address of a host's loopback.
func (n *Network) Reach(h *Host, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	n.relay(l, func() (c net.Conn, err error) {
		err = h.Enter(func() error {
			c, err = net.Dial("tcp", address)
			return err
		})
		return c, err
	})
	return nil
}

// keep notes what Close closes; it is false, and closes it, when the network is closed already.
func (n *Network) keep(c io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		c.Close()
		return false
	}
	n.open[c] = struct{}{}
	return true
}

func (n *Network) drop(c io.Closer) {
	c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, c)
}

// relay hands each connection to l on to one that dial opens, until the network is closed.
func (n *Network) relay(l net.Listener, dial func() (net.Conn, error)) {
	if !n.keep(l) {
		return
	}
	n.relays.Go(func() {
		defer n.drop(l)
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			n.relays.Go(func() {
				if !n.keep(near) {
					return
				}
				defer n.drop(near)
				far, err := dial()
				if err != nil || !n.keep(far) {
					return
				}
				defer n.drop(far)
				go func() {
					_, _ = io.Copy(far, near)
					far.Close()
				}()
				_, _ = io.Copy(near, far)
			})
		}
	})
}

// Close ends all relays, and with the programs that run there the namespaces and links.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	for c := range n.open {
		c.Close()
	}
	n.mu.Unlock()
	n.relays.Wait()
	var err error
	for _, h := range append([]*Host{n.Hub}, n.Hosts...) {
		if h != nil && h.space != nil {
			err = errors.Join(err, h.space.Close())
		}
	}
	return err
}

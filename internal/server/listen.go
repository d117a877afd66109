package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/listen"
)

// listening is a bound socket with what is spoken on it.
type listening struct {
	config.Listener
	listener net.Listener
}

// bindAll binds all listeners. A socket that systemd passes under a listener's name is taken in place of its address
// (sd_listen_fds(3)).
func bindAll(ctx context.Context, cfg *config.Config) (out []listening, err error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("listen: sockets from systemd: %w", err)
	}
	defer func() {
		if err != nil {
			for _, l := range out {
				err = errors.Join(err, l.listener.Close())
			}
			out = nil
		}
	}()
	var lc net.ListenConfig
	for i, l := range cfg.Listeners {
		name := l.SocketName()
		if from := passed[name]; len(from) > 0 && from[0] != nil {
			out = append(out, listening{l, behindProxies(l, from[0])})
			passed[name] = from[1:]
			continue
		}
		bound, err := bind(ctx, lc, l.Address)
		if err != nil {
			what := fmt.Sprintf("listen for %s (%s) on %s, listener.%d in %s", l.Protocol, l.TLS, l.Address, i, cfg.Path)
			return out, control.Errorf(control.Unavailable, "%s: %w", what, bindError(err))
		}
		out = append(out, listening{l, behindProxies(l, bound)})
	}
	for name, rest := range passed {
		for _, l := range rest {
			if l != nil {
				return out, errors.Join(fmt.Errorf("listen: systemd passes a socket %q that no listener has as its name", name), l.Close())
			}
		}
	}
	return out, nil
}

// bind makes a socket of the network, or one of the file system.
func bind(ctx context.Context, lc net.ListenConfig, address string) (net.Listener, error) {
	path := config.UnixPath(address)
	if path == "" {
		return lc.Listen(ctx, "tcp", address)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSocket != 0 && abandoned(ctx, path) {
		if err := os.Remove(path); err != nil { // a crash left it behind
			return nil, err
		}
	}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// abandoned tells a socket of the file system that nobody listens on.
func abandoned(ctx context.Context, path string) bool {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close() // it was only a look
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// behindProxies makes a listener ask for the PROXY protocol, where it is configured.
func behindProxies(l config.Listener, bound net.Listener) net.Listener {
	if trusted := l.Proxies(); len(trusted) > 0 {
		return &listen.Proxied{Listener: bound, Trusted: trusted}
	}
	return bound
}

// bindError says what to do about an address that can't be bound.
func bindError(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("another program has this port: `ss -ltnp` tells which; stop it, or change the address there: %w", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("this user may not bind the port: run under systemd with AmbientCapabilities=CAP_NET_BIND_SERVICE or socket activation: %w", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("this machine has no such address: change it there: %w", err)
	}
	return err
}

// listeners tells what is bound where.
func (s *Server) listeners() []control.Listener {
	out := make([]control.Listener, len(s.listening))
	for i, l := range s.listening {
		out[i] = control.Listener{Protocol: string(l.Protocol), TLS: string(l.TLS), Address: l.listener.Addr().String()}
	}
	return out
}

// addresses writes listeners for one line of the log.
func addresses(list []control.Listener) string {
	out := make([]string, len(list))
	for i, l := range list {
		out[i] = l.Protocol + "/" + l.TLS + "=" + l.Address
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

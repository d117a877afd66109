package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"waxwing/internal/config"
	"waxwing/internal/control"
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
			out = append(out, listening{l, from[0]})
			passed[name] = from[1:]
			continue
		}
		bound, err := lc.Listen(ctx, "tcp", l.Address)
		if err != nil {
			return out, fmt.Errorf("listen for %s (listener.%d in %s): %w", l.Protocol, i, config.FileName, err)
		}
		out = append(out, listening{l, bound})
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

package transport

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Via is how a connection is made: from which address, under which name, and for how many messages. The zero value is as the
// system and the options say.
type Via struct {
	Address netip.Addr // local address; servers of the other kind of address are not tried then
	Name    string     // for EHLO, "" for Options.Hostname
	Reuse   int        // messages over one connection, 0 for Options.MaxReuse
}

// LinkVia is Link with a Via.
func (t *Transport) LinkVia(destination string, v Via) *Link {
	return &Link{t: t, destination: destination, via: v}
}

// Via is how the link connects.
func (l *Link) Via() Via { return l.via }

// dial connects to a server.
func (t *Transport) dial(ctx context.Context, v Via, network, place string) (net.Conn, error) {
	if !v.Address.IsValid() || !strings.HasPrefix(network, "tcp") {
		return t.opts.Dial(ctx, network, place)
	}
	d := net.Dialer{KeepAlive: time.Minute, LocalAddr: &net.TCPAddr{IP: v.Address.AsSlice()}}
	return d.DialContext(ctx, network, place)
}

// reaches tells whether addresses of this kind can be connected to.
func (v Via) reaches(addr netip.AddrPort) bool {
	return !v.Address.IsValid() || !addr.IsValid() || v.Address.Unmap().Is4() == addr.Addr().Unmap().Is4()
}

// name is what the client calls itself.
func (t *Transport) name(v Via) string {
	if v.Name != "" {
		return v.Name
	}
	return t.opts.Hostname
}

// reuse is how many messages go over one connection.
func (t *Transport) reuse(v Via) int {
	if v.Reuse > 0 {
		return v.Reuse
	}
	return t.opts.MaxReuse
}

// wayPrefix begins the name of a destination that is a server in place of a domain.
const wayPrefix = "relay:"

// Way names a destination that is a server: "mx.example.org" or "192.0.2.1:2525". Mail for it goes to that server, whatever the
// address says, with TLS when it can; false when it names none.
func Way(server string) (destination string, ok bool) {
	host, port := server, 25
	if h, p, err := net.SplitHostPort(server); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", false
		}
		host, port = h, int(n)
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if _, err := netip.ParseAddr(host); err != nil {
		if host == "" || len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.Contains(host, "..") {
			return "", false
		}
	}
	return wayPrefix + net.JoinHostPort(host, strconv.Itoa(port)), true
}

// way is the server that a destination names; nil when it is a domain.
func way(destination string) *SmartHost {
	server, ok := strings.CutPrefix(destination, wayPrefix)
	if !ok {
		return nil
	}
	host, port, err := net.SplitHostPort(server)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil {
		return nil
	}
	return &SmartHost{Host: host, Port: n, TLS: TLSOpportunistic}
}

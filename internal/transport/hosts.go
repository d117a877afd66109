package transport

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/smtp"
)

const (
	maxHosts     = 64               // exchangers of one destination that are looked at
	maxAddresses = 32               // addresses tried for one delivery
	downTime     = 5 * time.Minute  // how long an address that took no connection is tried only after the others
	bareTime     = 10 * time.Minute // how long a host whose TLS fails is spoken to without at once
	maxDown      = 10_000
)

// host is one server to try.
type host struct {
	name  string // to verify the certificate by and to report
	port  int
	smart *SmartHost
	addrs []netip.AddrPort // known beforehand; otherwise name is looked up
	via   Via
}

// failure is why something could not be done before any recipient was named.
type failure struct {
	stage       string
	permanent   bool
	enhanced    smtp.Enhanced
	reply       *reply // nil when no server said anything
	message     string
	unreachable bool
	local       error // a failure of this server, not of another
	self        bool  // the host is this server
}

func (f *failure) Error() string { return f.stage + ": " + f.message }

func temporarily(stage string, subject, detail int, format string, args ...any) *failure {
	return &failure{stage: stage, enhanced: smtp.Enhanced{Class: 4, Subject: subject, Detail: detail}, message: fmt.Sprintf(format, args...)}
}

func permanently(stage string, subject, detail int, format string, args ...any) *failure {
	return &failure{stage: stage, permanent: true, enhanced: smtp.Enhanced{Class: 5, Subject: subject, Detail: detail}, message: fmt.Sprintf(format, args...)}
}

// found is the hosts of a destination.
type found struct {
	list   []host
	secure bool // DNSSEC says that they are, or the administrator
}

// hosts lists the servers of a destination in the order in which they are tried (RFC 5321, section 5.1).
// It gives the domain of the recipients too, by which policies are found.
func (t *Transport) hosts(ctx context.Context, destination string) (found, string, *failure) {
	r, err := t.route(destination)
	if err != nil {
		return found{}, r.domain, temporarily("resolve", 3, 5, "the route of %s can't be used: %v", destination, err)
	}
	if len(r.hosts) == 0 {
		list, f := t.exchangers(ctx, r.domain)
		return list, r.domain, f
	}
	out := found{secure: true}
	for _, h := range r.hosts {
		if h.Socket != "" {
			out.list = append(out.list, socketHost(h))
			continue
		}
		smart := host{name: strings.ToLower(h.Host), port: h.port(), smart: h}
		if ip, err := netip.ParseAddr(strings.Trim(h.Host, "[]")); err == nil {
			smart.addrs = []netip.AddrPort{netip.AddrPortFrom(ip, uint16(smart.port))}
		}
		out.list = append(out.list, smart)
	}
	return out, r.domain, nil
}

// exchangers lists the hosts that the DNS names for a domain, or the one that an address literal is.
func (t *Transport) exchangers(ctx context.Context, destination string) (found, *failure) {
	if strings.HasPrefix(destination, "[") {
		ip, ok := literal(destination)
		if !ok {
			return found{}, permanently("resolve", 1, 2, "%s is not an address that mail can be sent to", destination)
		}
		if t.opts.IsSelf != nil && t.opts.IsSelf(netip.AddrPortFrom(ip, uint16(t.opts.Port))) {
			return found{}, permanently("resolve", 4, 6, "%s is this server itself, which is not set up for the domain", destination)
		}
		return found{list: []host{{name: destination, port: t.opts.Port, addrs: []netip.AddrPort{netip.AddrPortFrom(ip, uint16(t.opts.Port))}}}}, nil
	}
	mx, err := t.opts.Resolver.MX(ctx, destination)
	switch {
	case errors.Is(err, dns.ErrNullMX): // RFC 7505, section 4.1
		return found{}, permanently("resolve", 1, 10, "the domain %s does not accept mail (null MX)", destination)
	case errors.Is(err, dns.ErrNotFound), errors.Is(err, dns.ErrName):
		return found{}, permanently("resolve", 1, 2, "the domain %s does not exist", destination)
	case err != nil:
		f := temporarily("resolve", 4, 3, "the servers of %s can't be looked up: %v", destination, err)
		f.unreachable = true
		return found{}, f
	}
	list, f := t.order(destination, mx)
	return found{list, mx.Secure}, f
}

// order shuffles hosts of equal preference and cuts the list where this server stands in it: a host of the same or a
// worse preference would send the mail back here (RFC 5321, section 5.1).
func (t *Transport) order(destination string, mx dns.MX) ([]host, *failure) {
	list := mx.Hosts[:min(len(mx.Hosts), maxHosts)]
	for i, h := range list {
		if !t.own[h.Host] {
			continue
		}
		cut := i
		for cut > 0 && list[cut-1].Preference == h.Preference {
			cut--
		}
		if cut == 0 {
			return nil, permanently("resolve", 4, 6, "mail for %s loops back to this server, which is not set up for the domain", destination)
		}
		list = list[:cut]
		break
	}
	hosts := make([]host, len(list))
	for i, h := range list {
		hosts[i] = host{name: h.Host, port: t.opts.Port}
	}
	for lo := 0; lo < len(list); {
		hi := lo + 1
		for hi < len(list) && list[hi].Preference == list[lo].Preference {
			hi++
		}
		t.opts.Shuffle(hi-lo, func(i, j int) { hosts[lo+i], hosts[lo+j] = hosts[lo+j], hosts[lo+i] })
		lo = hi
	}
	return hosts, nil
}

// literal reads an address literal, RFC 5321, section 4.1.3.
func literal(s string) (netip.Addr, bool) {
	inner, ok := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	if !ok {
		return netip.Addr{}, false
	}
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		ip, err := netip.ParseAddr(inner[5:])
		return ip, err == nil && ip.Is6() && ip.Zone() == ""
	}
	ip, err := netip.ParseAddr(inner)
	return ip, err == nil && ip.Is4()
}

// addresses finds where to connect to for a host, and what the DNS says of its name. Addresses that were given are as good
// as authenticated ones.
func (t *Transport) addresses(ctx context.Context, h host) ([]netip.AddrPort, dns.Answer, *failure) {
	given := dns.Answer{Secure: true, Name: h.name}
	if len(h.addrs) > 0 {
		return h.addrs, given, nil
	}
	if fixed, ok := t.opts.Hosts[h.name]; ok {
		return fixed, given, nil
	}
	ips, err := t.opts.Resolver.IP(ctx, h.name)
	switch {
	case err == nil:
	case dns.Temporary(err):
		f := temporarily("resolve", 4, 3, "the address of %s can't be looked up: %v", h.name, err)
		f.unreachable = true
		return nil, ips.Answer, f
	case h.smart != nil: // a mistake in the configuration must not bounce mail
		return nil, ips.Answer, temporarily("resolve", 4, 3, "the smart host %s has no address", h.name)
	default:
		return nil, ips.Answer, permanently("resolve", 4, 4, "the host %s has no address", h.name)
	}
	var out []netip.AddrPort
	self := false
	for _, ip := range ips.Addrs {
		if t.opts.NoIPv6 && ip.Is6() {
			continue
		}
		ap := netip.AddrPortFrom(ip, uint16(h.port))
		if t.opts.IsSelf != nil && t.opts.IsSelf(ap) {
			self = true
			continue
		}
		out = append(out, ap)
	}
	switch {
	case len(out) > 0:
		return out, ips.Answer, nil
	case self:
		f := permanently("resolve", 4, 6, "%s is this server itself, which is not set up for the domain", h.name)
		f.self = true
		return nil, ips.Answer, f
	}
	return nil, ips.Answer, temporarily("resolve", 4, 4, "the host %s has no address of a kind that can be used here", h.name)
}

// downtime remembers addresses that took no connection.
type downtime struct {
	mu    sync.Mutex
	until map[netip.AddrPort]time.Time
}

func (d *downtime) mark(a netip.AddrPort, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil || len(d.until) >= maxDown { // an address forgotten costs one more timeout
		d.until = map[netip.AddrPort]time.Time{}
	}
	d.until[a] = until
}

func (d *downtime) clear(a netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.until, a)
}

func (d *downtime) is(a netip.AddrPort, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	until, ok := d.until[a]
	if ok && (now.After(until) || until.Sub(now) > downTime) {
		delete(d.until, a)
		return false
	}
	return ok
}

// setBare remembers that TLS with a host fails; bareNow tells whether to do without.
func (t *Transport) setBare(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.bare) >= maxDown {
		clear(t.bare)
	}
	t.bare[name] = t.opts.Clock().Add(bareTime)
}

func (t *Transport) bareNow(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	until, ok := t.bare[name]
	now := t.opts.Clock()
	if ok && (now.After(until) || until.Sub(now) > bareTime) {
		delete(t.bare, name)
		return false
	}
	return ok
}

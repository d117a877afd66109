// Package web is an HTTPS client for addresses that strangers choose, such as the domain of a recipient: it connects to the
// public Internet alone, follows no redirects, and knows no proxies and no cookies. What it reads is for its caller to bound.
//
//	client := web.New(web.Options{Resolver: resolver, Timeout: time.Minute})
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"waxwing/internal/dns"
)

const (
	dialTime = 10 * time.Second
	maxAddrs = 8
)

// Resolver is what is asked of the DNS; *dns.Resolver is one.
type Resolver interface {
	IP(ctx context.Context, host string) (dns.IPs, error)
}

// Options of a client. Resolver and Timeout are needed.
type Options struct {
	Resolver Resolver
	Timeout  time.Duration  // of a whole request
	RootCAs  *x509.CertPool // nil: those of the system
	Private  bool           // lets servers have addresses that are not on the public Internet
	Clock    func() time.Time
}

// New makes a client.
func New(o Options) *http.Client {
	return &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: o.dial, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig:     &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12, Time: o.Clock},
			TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 30 * time.Second, MaxResponseHeaderBytes: 32 << 10,
		},
	}
}

// dial connects to the first address of a host that takes the connection.
func (o Options) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ips, err := o.Resolver.IP(ctx, host)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%s has no address that may be connected to", host)
	for _, ip := range ips.Addrs[:min(len(ips.Addrs), maxAddrs)] {
		if !public(ip) && !o.Private {
			continue
		}
		dctx, cancel := context.WithTimeout(ctx, dialTime)
		conn, derr := (&net.Dialer{}).DialContext(dctx, "tcp", net.JoinHostPort(ip.Unmap().String(), port))
		cancel()
		if derr == nil {
			return conn, nil
		}
		err = derr
	}
	return nil, err
}

// inner are networks that are not the public Internet, beside those that package netip knows, and those that lead into
// others by the address that stands in them.
var inner = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

// public tells an address on the public Internet.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Zone() != "" {
		return false
	}
	for _, n := range inner {
		if n.Contains(ip) {
			return false
		}
	}
	return true
}

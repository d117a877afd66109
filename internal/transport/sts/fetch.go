package sts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"waxwing/internal/mtasts"
)

// Bounds of one fetch.
const (
	fetchTime  = time.Minute // RFC 8461, section 3.3
	dialTime   = 10 * time.Second
	maxAddrs   = 8
	maxFetches = 16 // at a time
)

// The result types of RFC 8460, section 4.3.2, for policies that can't be had.
const (
	failFetch   = "sts-policy-fetch-error"
	failInvalid = "sts-policy-invalid"
	failWebPKI  = "sts-webpki-invalid"
)

// fetchError is why a policy can't be had.
type fetchError struct {
	kind string
	err  error
}

func (e *fetchError) Error() string { return e.err.Error() }
func (e *fetchError) Unwrap() error { return e.err }

// fetcher fetches policies over HTTPS: to addresses on the public Internet alone, without redirects, proxies and cookies,
// since the domain of a recipient is anybody's choice.
type fetcher struct {
	o      *Options
	client *http.Client
	slots  chan struct{}
}

func newFetcher(o *Options) *fetcher {
	f := &fetcher{o: o, slots: make(chan struct{}, maxFetches)}
	f.client = &http.Client{
		Timeout:       fetchTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: f.dial, DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig:     &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12, Time: o.Clock},
			TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 30 * time.Second, MaxResponseHeaderBytes: 32 << 10,
		},
	}
	return f
}

// fetch gets the policy of a domain.
func (f *fetcher) fetch(ctx context.Context, domain string) (mtasts.Policy, error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return mtasts.Policy{}, &fetchError{failFetch, ctx.Err()}
	}
	host := "mta-sts." + domain
	if f.o.Port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(f.o.Port))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+mtasts.Path, nil)
	if err != nil {
		return mtasts.Policy{}, &fetchError{failFetch, err}
	}
	req.Header.Set("User-Agent", "Waxwing")
	resp, err := f.client.Do(req)
	if err != nil {
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			return mtasts.Policy{}, &fetchError{failWebPKI, err}
		}
		return mtasts.Policy{}, &fetchError{failFetch, err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK { // a redirect is an error too: RFC 8461, section 3.3
		return mtasts.Policy{}, &fetchError{failFetch, fmt.Errorf("%s answers %s", host, resp.Status)}
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return mtasts.Policy{}, &fetchError{failInvalid, fmt.Errorf("%s sends no text/plain", host)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, mtasts.MaxBody+1))
	if err != nil {
		return mtasts.Policy{}, &fetchError{failFetch, err}
	}
	p, err := mtasts.ParsePolicy(string(body))
	if err != nil {
		return p, &fetchError{failInvalid, err}
	}
	return p, nil
}

// dial connects to the first address of a host that takes the connection.
func (f *fetcher) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ips, err := f.o.Resolver.IP(ctx, host)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("%s has no address that may be connected to", host)
	for _, ip := range ips.Addrs[:min(len(ips.Addrs), maxAddrs)] {
		if !public(ip) && !f.o.Private {
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

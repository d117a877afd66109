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
	"strconv"
	"time"

	"waxwing/internal/mtasts"
	"waxwing/internal/transport/web"
)

// Bounds of one fetch.
const (
	fetchTime  = time.Minute // RFC 8461, section 3.3
	maxFetches = 16          // at a time
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

// fetcher fetches policies over HTTPS.
type fetcher struct {
	o      *Options
	client *http.Client
	slots  chan struct{}
}

func newFetcher(o *Options) *fetcher {
	return &fetcher{o: o, slots: make(chan struct{}, maxFetches), client: web.New(web.Options{
		Resolver: o.Resolver, Timeout: fetchTime, RootCAs: o.RootCAs, Private: o.Private, Clock: o.Clock,
	})}
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

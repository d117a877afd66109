package s3test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Fault is what a Proxy does to a request.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Proxy stands in front of a service.
type Proxy struct {
	Address string

	mu    sync.Mutex
	fault Fault
	seen  int
	more  chan struct{} // closed with the next request
}

// NewProxy starts a proxy, which ends with the test. Without a Fault it only passes on.
func (s *Service) NewProxy(tb testing.TB) *Proxy {
	tb.Helper()
	transport := &http.Transport{}
	next := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: s.Address})
			r.Out.Host = r.In.Host
		},
	}
	p := &Proxy{more: make(chan struct{})}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		fault := p.fault
		p.seen++
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
		if fault == nil {
			next.ServeHTTP(w, r)
			return
		}
		fault(w, r, next)
	}))
	tb.Cleanup(func() {
		srv.Close()
		transport.CloseIdleConnections()
	})
	p.Address = strings.TrimPrefix(srv.URL, "http://")
	return p
}

// Set changes what happens from the next request on; nil is nothing.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Requests is how many requests came.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// Refuse answers every request with an error of the service.
func Refuse(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.WriteHeader(http.StatusServiceUnavailable)
}

// FailUploads carries uploads out until the nth, and refuses them from then on.
func FailUploads(n int32) Fault {
	var seen atomic.Int32
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && seen.Add(1) >= n {
			Refuse(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}
}

// LoseUploads says that what is uploaded was stored, and throws it away.
func LoseUploads(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.Method != http.MethodPut {
		next.ServeHTTP(w, r)
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	w.Header().Set("ETag", `"00000000000000000000000000000000"`)
	w.WriteHeader(http.StatusOK)
}

// FlipReads changes one octet in the middle of each object that is read.
func FlipReads(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.Method != http.MethodGet {
		next.ServeHTTP(w, r)
		return
	}
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	body := bytes.Clone(rec.Body.Bytes())
	if strings.HasSuffix(r.URL.Path, ".blob") && len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	if _, err := w.Write(body); err != nil {
		return
	}
}

// LoseAnswers carries uploads out and then breaks the connection, once.
func LoseAnswers() Fault {
	var once sync.Once
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		lose := false
		if r.Method == http.MethodPut {
			once.Do(func() { lose = true })
		}
		if !lose {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
}

// Hold keeps each request waiting until release is closed or its sender leaves.
func Hold(release <-chan struct{}) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		select {
		case <-release:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}
}

// Await waits until n requests came.
func (p *Proxy) Await(tb testing.TB, n int) {
	tb.Helper()
	for {
		p.mu.Lock()
		seen, more := p.seen, p.more
		p.mu.Unlock()
		if seen >= n {
			return
		}
		select {
		case <-more:
		case <-tb.Context().Done():
			tb.Fatalf("%d requests came, not %d", seen, n)
		}
	}
}

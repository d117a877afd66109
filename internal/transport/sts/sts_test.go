package sts

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/mtasts"
	"waxwing/internal/store"
)

// memoryStore is a Store in memory.
type memoryStore struct {
	mu   sync.Mutex
	rows map[string]store.STSPolicy
}

func (m *memoryStore) STSPolicy(_ context.Context, d string) (store.STSPolicy, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.rows[d]
	return r, ok, nil
}

func (m *memoryStore) SetSTSPolicy(_ context.Context, p store.STSPolicy) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows[p.Domain] = p
	return nil
}

func (m *memoryStore) UsedSTSPolicies(_ context.Context, domains []string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range domains {
		r := m.rows[d]
		r.Used = at
		m.rows[d] = r
	}
	return nil
}

func (m *memoryStore) OldSTSPolicies(_ context.Context, before time.Time, _ int) ([]store.STSPolicy, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.STSPolicy
	for _, r := range m.rows {
		if r.Fetched.Before(before) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (m *memoryStore) DropSTSPolicies(_ context.Context, now, unused time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d, r := range m.rows {
		if !r.Expires.After(now) || r.Used.Before(unused) {
			delete(m.rows, d)
		}
	}
	return nil
}

func (m *memoryStore) WhileLeading(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// zone is a Resolver: everything is at 127.0.0.1, and the record is what the test says.
type zone struct {
	mu  sync.Mutex
	id  string // "": there is no record
	err error
}

func (z *zone) set(id string, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.id, z.err = id, err
}

func (z *zone) TXT(_ context.Context, name string) (dns.Texts, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.err != nil {
		return dns.Texts{}, z.err
	}
	if z.id == "" || !strings.HasPrefix(name, "_mta-sts.") {
		return dns.Texts{}, &dns.Error{Name: name, Type: "TXT", Err: dns.ErrNotFound}
	}
	return dns.Texts{Texts: []string{"v=STSv1; id=" + z.id}}, nil
}

func (z *zone) IP(context.Context, string) (dns.IPs, error) {
	return dns.IPs{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, nil
}

// world is a domain, example.com (the certificate of httptest is for it and the names below), with its web server.
type world struct {
	zone  zone
	store memoryStore
	p     *Policies
	now   atomic.Int64
	hits  atomic.Int64
	serve atomic.Value // http.HandlerFunc
}

const domain = "example.com"

func body(mode string, age int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "version: STSv1\r\nmode: %s\r\nmx: mx.example.com\r\nmax_age: %d\r\n", mode, age)
	}
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{store: memoryStore{rows: map[string]store.STSPolicy{}}}
	w.serve.Store(body("enforce", 7*86400))
	w.now.Store(time.Now().Unix())
	s := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.hits.Add(1)
		if r.URL.Path != mtasts.Path || !strings.HasPrefix(r.Host, "mta-sts."+domain+":") {
			http.NotFound(rw, r)
			return
		}
		w.serve.Load().(http.HandlerFunc)(rw, r)
	}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	o := Options{
		Store: &w.store, Resolver: &w.zone, RootCAs: roots, Port: n, Private: true,
		Clock: func() time.Time { return time.Unix(w.now.Load(), 0) },
	}
	if change != nil {
		change(&o)
	}
	if w.p, err = New(o); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) ask(t *testing.T) string {
	t.Helper()
	got, err := w.p.Policy(t.Context(), domain)
	switch {
	case err != nil:
		return "error"
	case got.Found:
		return string(got.Mode)
	}
	return "none " + got.Problem
}

func TestAPolicyIsFetchedOnceAndHoldsThroughFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	if got := w.ask(t); got != "none " || w.hits.Load() != 0 {
		t.Fatalf("without a record: %s", got)
	}
	w.zone.set("1", nil)
	for range 3 {
		if got := w.ask(t); got != "enforce" || w.hits.Load() != 1 {
			t.Fatalf("%s after %d fetches", got, w.hits.Load())
		}
	}
	// Whatever becomes of the record and the web server, the policy holds to its end.
	w.serve.Store(http.HandlerFunc(http.NotFound))
	for id, err := range map[string]error{"": nil, "x": &dns.Error{Err: dns.ErrTimeout}, "2": nil} {
		w.zone.set(id, err)
		if got := w.ask(t); got != "enforce" {
			t.Errorf("record %q, %v: %s", id, err, got)
		}
	}
	// A new process has it from the store.
	again, err := New(w.p.o)
	if err != nil {
		t.Fatal(err)
	}
	w.p = again
	w.zone.set("", nil)
	if got := w.ask(t); got != "enforce" {
		t.Errorf("after a new start: %s", got)
	}
	w.now.Add(7*86400 + 1)
	if got := w.ask(t); got != "none " {
		t.Errorf("after its end: %s", got)
	}
}

func TestANewIDBringsTheNewPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.zone.set("1", nil)
	w.ask(t)
	w.serve.Store(body("testing", 86400))
	w.zone.set("2", nil)
	if got := w.ask(t); got != "testing" || w.store.rows[domain].ID != "2" {
		t.Errorf("%s, %+v", got, w.store.rows[domain])
	}
}

func TestWhatIsNoPolicy(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		serve  http.HandlerFunc
		change func(*Options)
		want   string
	}{
		"not found":  {http.NotFound, nil, "none sts-policy-fetch-error"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, mtasts.Path, http.StatusFound) }, nil, "none sts-policy-fetch-error"},
		"HTML":       {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }, nil, "none sts-policy-invalid"},
		"nonsense":   {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello, this is no policy at all\r\n") }, nil, "none sts-policy-invalid"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, strings.Repeat("version: STSv1\r\n", 10_000))
		}, nil, "none sts-policy-invalid"},
		"a certificate of nobody": {body("enforce", 1000), func(o *Options) { o.RootCAs = x509.NewCertPool() }, "none sts-webpki-invalid"},
		"a web server inside":     {body("enforce", 1000), func(o *Options) { o.Private = false }, "none sts-policy-fetch-error"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tc.change)
			w.serve.Store(tc.serve)
			w.zone.set("1", nil)
			if got := w.ask(t); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			hits := w.hits.Load()
			if got := w.ask(t); got != tc.want || w.hits.Load() != hits {
				t.Errorf("asked again at once: %s, %d fetches", got, w.hits.Load())
			}
			w.now.Add(int64(failedWait/time.Second) + 1)
			w.serve.Store(body("enforce", 1000))
			if got := w.ask(t); tc.change == nil && got != "enforce" {
				t.Errorf("asked again later: %s", got)
			}
		})
	}
}

func TestNobodyKnows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.zone.set("", &dns.Error{Err: dns.ErrServFail})
	if got := w.ask(t); got != "error" {
		t.Error(got)
	}
}

func TestThoseWhoAskAtTheSameTimeWaitForOneFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.zone.set("1", nil)
	held := make(chan struct{})
	w.serve.Store(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		<-held
		body("enforce", 1000)(rw, r)
	}))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := w.ask(t); got != "enforce" {
				t.Error(got)
			}
		})
	}
	for w.hits.Load() == 0 {
		time.Sleep(time.Millisecond) // polls for the event that the server was asked
	}
	close(held)
	wg.Wait()
	if n := w.hits.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestPoliciesInUseAreRenewedAndOthersGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.zone.set("1", nil)
	w.ask(t)
	first := w.store.rows[domain].Expires
	w.now.Add(86400 + 60)
	w.ask(t)
	w.p.keepHouse(t.Context(), true)
	if r := w.store.rows[domain]; !r.Expires.After(first) || w.hits.Load() != 2 || r.Used.Unix() != w.now.Load() {
		t.Errorf("not renewed: %+v after %d fetches", r, w.hits.Load())
	}
	w.serve.Store(http.HandlerFunc(http.NotFound))
	w.now.Add(2 * 86400)
	w.p.keepHouse(t.Context(), true)
	if got := w.ask(t); got != "enforce" {
		t.Errorf("a renewal that failed ended the policy: %s", got)
	}
	w.now.Add(int64(unusedAge/time.Second) + 1)
	w.p.keepHouse(t.Context(), true)
	if len(w.store.rows) != 0 {
		t.Errorf("kept: %+v", w.store.rows)
	}
}

package dns_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/dns"
	"waxwing/internal/dns/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zone = `
	example.test.        3600 IN SOA ns.example.test. root.example.test. 1 2 3 4 600
	example.test.        300 IN MX 20 b.example.test.
	example.test.        300 IN MX 10 C.example.test.
	example.test.        300 IN MX 10 a.example.test.
	a.example.test.      300 IN A 192.0.2.1
	a.example.test.      300 IN AAAA 2001:db8::1
	b.example.test.      300 IN A 192.0.2.2
	null.test.           300 IN MX 0 .
	bare.test.           300 IN A 192.0.2.3
	alias.test.          100 IN CNAME example.test.
	out.test.            100 IN CNAME far.elsewhere.test.
	loop.test.           100 IN CNAME loop2.test.
	loop2.test.          100 IN CNAME loop.test.
	self.test.           100 IN CNAME self.test.
	zero.test.           0   IN A 192.0.2.4
	high.test.           4294967295 IN A 192.0.2.5
	long.test.           2000000 IN A 192.0.2.6
	text.test.           300 IN TXT "v=spf1 " "-all"
	text.test.           300 IN TXT "caf\195\169 \"q\" back\\slash"
	1.2.0.192.in-addr.arpa. 300 IN PTR a.example.test.
	1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 300 IN PTR a6.example.test.
	_25._tcp.a.example.test. 300 IN TLSA 3 1 1 00ff10
	weird.test.          300 IN MX 10 bad\032name.test.
	six.test.            300 IN AAAA 2001:db8::6
`

// A resolver waits for patience where an answer comes, however busy the machine is, and for short where none does.
const (
	patience = 2 * time.Minute
	short    = 100 * time.Millisecond
)

// clock is a settable clock.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_700_000_000+c.offset.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d / time.Second)) }

func resolver(t *testing.T, s *dnstest.Server, change func(*dns.Options)) (*dns.Resolver, *clock) {
	t.Helper()
	c := &clock{}
	o := dns.Options{Servers: []string{s.Addr()}, Timeout: patience, Clock: c.now}
	if change != nil {
		change(&o)
	}
	r, err := dns.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, c
}

func TestMX(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	r, _ := resolver(t, s, nil)
	for _, tc := range []struct {
		domain, hosts string
		implicit      bool
		err           error
	}{
		{domain: "example.test", hosts: "10 a.example.test, 10 c.example.test, 20 b.example.test"},
		{domain: "EXAMPLE.test.", hosts: "10 a.example.test, 10 c.example.test, 20 b.example.test"},
		{domain: "alias.test", hosts: "10 a.example.test, 10 c.example.test, 20 b.example.test"},
		{domain: "bare.test", hosts: "0 bare.test", implicit: true},
		{domain: "null.test", err: dns.ErrNullMX},
		{domain: "nowhere.example.test", err: dns.ErrNotFound},
		{domain: "weird.test", err: dns.ErrMalformed},
		{domain: "loop.test", err: dns.ErrMalformed},
		{domain: "self.test", err: dns.ErrMalformed},
		{domain: "bad domain", err: dns.ErrName},
		{domain: "", err: dns.ErrName},
		{domain: "a..b", err: dns.ErrName},
		{domain: strings.Repeat("a", 64) + ".test", err: dns.ErrName},
		{domain: strings.Repeat("a.", 127) + "test", err: dns.ErrName},
	} {
		mx, err := r.MX(t.Context(), tc.domain)
		if !errors.Is(err, tc.err) {
			t.Errorf("MX(%q) = %v, want %v", tc.domain, err, tc.err)
			continue
		}
		var got []string
		for _, h := range mx.Hosts {
			got = append(got, fmt.Sprintf("%d %s", h.Preference, h.Host))
		}
		if strings.Join(got, ", ") != tc.hosts || mx.Implicit != tc.implicit {
			t.Errorf("MX(%q) = %v implicit %v, want %s", tc.domain, got, mx.Implicit, tc.hosts)
		}
	}
}

func TestAddressesTextsNamesAndTLSA(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	r, _ := resolver(t, s, nil)
	ctx := t.Context()
	if ips, err := r.IP(ctx, "a.example.test"); err != nil || fmt.Sprint(ips.Addrs) != "[2001:db8::1 192.0.2.1]" {
		t.Errorf("IP = %v, %v", ips.Addrs, err)
	}
	if ips, err := r.IP(ctx, "b.example.test"); err != nil || fmt.Sprint(ips.Addrs) != "[192.0.2.2]" {
		t.Errorf("IP = %v, %v", ips.Addrs, err)
	}
	if ips, err := r.IP(ctx, "six.test"); err != nil || fmt.Sprint(ips.Addrs) != "[2001:db8::6]" {
		t.Errorf("IP = %v, %v", ips.Addrs, err)
	}
	if _, err := r.IP(ctx, "text.test"); !errors.Is(err, dns.ErrNoData) || dns.Temporary(err) {
		t.Errorf("IP without addresses: %v", err)
	}
	if txt, err := r.TXT(ctx, "text.test"); err != nil || fmt.Sprintf("%q", txt.Texts) != `["v=spf1 -all" "café \"q\" back\\slash"]` {
		t.Errorf("TXT = %q, %v", txt.Texts, err)
	}
	if n, err := r.PTR(ctx, netip.MustParseAddr("192.0.2.1")); err != nil || fmt.Sprint(n.Names) != "[a.example.test]" {
		t.Errorf("PTR = %v, %v", n.Names, err)
	}
	if n, err := r.PTR(ctx, netip.MustParseAddr("::ffff:192.0.2.1")); err != nil || fmt.Sprint(n.Names) != "[a.example.test]" {
		t.Errorf("PTR of a mapped address = %v, %v", n.Names, err)
	}
	if n, err := r.PTR(ctx, netip.MustParseAddr("2001:db8::1")); err != nil || fmt.Sprint(n.Names) != "[a6.example.test]" {
		t.Errorf("PTR = %v, %v", n.Names, err)
	}
	tl, err := r.TLSA(ctx, "_25._tcp.a.example.test")
	if err != nil || len(tl.Records) != 1 || tl.Records[0].Usage != 3 || fmt.Sprintf("%x", tl.Records[0].Data) != "00ff10" {
		t.Errorf("TLSA = %+v, %v", tl, err)
	}
}

func TestTTLsAreHonouredDownToZero(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		keep time.Duration // asked once within it, again after it; 0: asked each time
	}{
		{"b.example.test", 300 * time.Second},
		{"zero.test", 0},
		{"high.test", 0},                            // high bit set: RFC 2181, section 8
		{"long.test", 24 * time.Hour},               // capped
		{"nowhere.example.test", 600 * time.Second}, // negative: the SOA's minimum
		{"nowhere.without-soa.test", 0},             // RFC 2308, section 5
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := dnstest.New(t, zone)
			r, c := resolver(t, s, nil)
			ask := func() int {
				_, _ = r.IP(t.Context(), tc.name) // the count of questions is what matters
				return s.Count(tc.name, "A")
			}
			ask()
			if tc.keep == 0 {
				if n := ask(); n != 2 {
					t.Fatalf("asked %d times, want 2", n)
				}
				return
			}
			c.advance(tc.keep - time.Second)
			if n := ask(); n != 1 {
				t.Fatalf("asked %d times within the TTL, want 1", n)
			}
			c.advance(2 * time.Second)
			if n := ask(); n != 2 {
				t.Fatalf("asked %d times after the TTL, want 2", n)
			}
			c.advance(-100 * time.Hour) // a clock set back must not keep answers alive
			if n := ask(); n != 3 {
				t.Fatalf("asked %d times after the clock went back, want 3", n)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name      string
		fault     dnstest.Fault
		err       error // nil: answered all the same
		temporary bool
	}{
		{"silence", dnstest.Fault{Drop: true}, dns.ErrTimeout, true},
		{"SERVFAIL", dnstest.Fault{Rcode: "SERVFAIL"}, dns.ErrServFail, true},
		{"REFUSED", dnstest.Fault{Rcode: "REFUSED"}, dns.ErrServFail, true},
		{"bogus", dnstest.Fault{Rcode: "SERVFAIL", EDE: 6}, dns.ErrBogus, true},
		{"SERVFAIL for another reason", dnstest.Fault{Rcode: "SERVFAIL", EDE: 22}, dns.ErrServFail, true},
		{"NXDOMAIN", dnstest.Fault{Rcode: "NXDOMAIN"}, dns.ErrNotFound, false},
		{"truncated", dnstest.Fault{Truncate: true}, nil, false},
		{"truncated and no TCP", dnstest.Fault{Truncate: true, NoTCP: true}, dns.ErrServFail, true},
		{"huge", dnstest.Fault{Huge: 50_000}, nil, false},
		{"forged packets first", dnstest.Fault{Forge: true}, nil, false},
		{"garbage", dnstest.Fault{Garbage: true}, dns.ErrMalformed, true},
		{"no EDNS", dnstest.Fault{NoEDNS: true}, nil, false},
		{"no EDNS and truncated", dnstest.Fault{NoEDNS: true, Truncate: true}, nil, false},
		{"slow", dnstest.Fault{Delay: 20 * time.Millisecond}, nil, false},
		{"too slow", dnstest.Fault{Delay: time.Minute}, dns.ErrTimeout, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := dnstest.New(t, zone)
			s.Fail("b.example.test", tc.fault)
			r, _ := resolver(t, s, func(o *dns.Options) {
				if errors.Is(tc.err, dns.ErrTimeout) {
					o.Timeout = short
				}
			})
			ips, err := r.IP(t.Context(), "b.example.test")
			if !errors.Is(err, tc.err) || dns.Temporary(err) != tc.temporary {
				t.Fatalf("IP: %v, temporary %v; want %v", err, dns.Temporary(err), tc.err)
			}
			if tc.err == nil && fmt.Sprint(ips.Addrs) != "[192.0.2.2]" {
				t.Fatalf("IP = %v", ips.Addrs)
			}
		})
	}
}

// TestSilenceOnceIsAskedAgain counts on two seconds being enough for the second answer: the first waits them out.
func TestSilenceOnceIsAskedAgain(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	s.Fail("b.example.test", dnstest.Fault{Type: "A", Drop: true, Times: 1})
	r, _ := resolver(t, s, func(o *dns.Options) { o.Timeout = 2 * time.Second })
	if ips, err := r.IP(t.Context(), "b.example.test"); err != nil || fmt.Sprint(ips.Addrs) != "[192.0.2.2]" {
		t.Fatalf("IP = %v, %v", ips.Addrs, err)
	}
}

func TestOneFamilyFailingLeavesTheOther(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	s.Fail("a.example.test", dnstest.Fault{Type: "AAAA", Rcode: "SERVFAIL"})
	r, _ := resolver(t, s, nil)
	ips, err := r.IP(t.Context(), "a.example.test")
	if err != nil || fmt.Sprint(ips.Addrs) != "[192.0.2.1]" || ips.TTL != 0 {
		t.Fatalf("IP = %+v, %v", ips, err)
	}
	// Without an address at all, the failure must not look like "has no address".
	s.Fail("six.test", dnstest.Fault{Type: "AAAA", Rcode: "SERVFAIL"})
	if _, err := r.IP(t.Context(), "six.test"); !dns.Temporary(err) {
		t.Fatalf("IP = %v, want a temporary failure", err)
	}
}

func TestNextServerIsAskedWhenOneFails(t *testing.T) {
	t.Parallel()
	bad, good := dnstest.New(t, zone), dnstest.New(t, zone)
	bad.Fail("*", dnstest.Fault{Rcode: "SERVFAIL"})
	r, _ := resolver(t, bad, func(o *dns.Options) { o.Servers = append(o.Servers, good.Addr()) })
	if _, err := r.MX(t.Context(), "example.test"); err != nil {
		t.Fatal(err)
	}
}

func TestADIsBelievedOnlyFromTrustedResolvers(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	s.Authenticate(true)
	far := "192.0.2.53:53" // reaches the server through Dial below
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == far {
			addr = s.Addr()
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	for _, tc := range []struct {
		server string
		trust  bool
		want   bool
	}{{s.Addr(), false, true}, {far, false, false}, {far, true, true}} {
		r, _ := resolver(t, s, func(o *dns.Options) { o.Servers, o.TrustAD, o.Dial = []string{tc.server}, tc.trust, dial })
		mx, err := r.MX(t.Context(), "example.test")
		if err != nil || mx.Secure != tc.want {
			t.Errorf("server %s trust %v: secure %v, %v", tc.server, tc.trust, mx.Secure, err)
		}
	}
	s.Authenticate(false)
	r, _ := resolver(t, s, nil)
	if mx, err := r.MX(t.Context(), "example.test"); err != nil || mx.Secure {
		t.Errorf("without AD: secure %v, %v", mx.Secure, err)
	}
}

func TestAliasIntoAnotherResponseIsAskedFor(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone+"far.elsewhere.test. 50 IN A 192.0.2.9\nfar.elsewhere.test. 50 IN AAAA 2001:db8::9\n")
	s.Fail("out.test", dnstest.Fault{Cut: true})
	r, _ := resolver(t, s, nil)
	ips, err := r.IP(t.Context(), "out.test")
	if s.Count("far.elsewhere.test", "A") != 1 {
		t.Error("the end of the alias was not asked for")
	}
	if err != nil || fmt.Sprint(ips.Addrs) != "[2001:db8::9 192.0.2.9]" || ips.Name != "far.elsewhere.test" || ips.TTL != 50*time.Second {
		t.Fatalf("IP = %+v, %v", ips, err)
	}
}

func TestSameQuestionsAreAskedOnce(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	s.Fail("zero.test", dnstest.Fault{Delay: time.Second})
	r, _ := resolver(t, s, nil)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 50 {
		wg.Go(func() {
			<-start
			if _, err := r.TXT(context.Background(), "zero.test"); !errors.Is(err, dns.ErrNoData) {
				t.Errorf("TXT: %v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := s.Count("zero.test", "TXT"); n > 5 { // some may start after the first answer, which may not be kept
		t.Errorf("asked %d times", n)
	}
}

func TestCancelledCallerDoesNotCancelTheOthers(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	answer := make(chan struct{})
	s.Fail("b.example.test", dnstest.Fault{Hold: answer})
	r, _ := resolver(t, s, nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := r.TXT(ctx, "b.example.test"); first <- err }()
	for s.Count("b.example.test", "TXT") == 0 {
		time.Sleep(time.Millisecond) // polls for the event that the server saw the question
	}
	second := make(chan error, 1)
	go func() { _, err := r.TXT(t.Context(), "b.example.test"); second <- err }()
	cancel()
	if err := <-first; !errors.Is(err, dns.ErrTimeout) || !dns.Temporary(err) {
		t.Errorf("cancelled: %v", err)
	}
	close(answer)
	if err := <-second; !errors.Is(err, dns.ErrNoData) {
		t.Errorf("other: %v", err)
	}
}

func TestCloseEndsQuestions(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	s.Fail("*", dnstest.Fault{Drop: true})
	r, _ := resolver(t, s, nil)
	done := make(chan error, 1)
	go func() { _, err := r.TXT(t.Context(), "b.example.test"); done <- err }()
	for s.Count("b.example.test", "TXT") == 0 {
		time.Sleep(time.Millisecond) // polls for the event that the server saw the question
	}
	r.Close()
	if err := <-done; !dns.Temporary(err) || err == nil {
		t.Errorf("after Close: %v", err)
	}
	if _, err := r.TXT(t.Context(), "b.example.test"); !errors.Is(err, dns.ErrClosed) {
		t.Errorf("closed resolver: %v", err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, "*.many.test. 300 IN TXT \"x\"\n")
	r, _ := resolver(t, s, func(o *dns.Options) { o.CacheCount = 10 })
	for range 2 {
		for i := range 11 { // one more than fits: the least recently used is always the next asked for
			if _, err := r.TXT(t.Context(), fmt.Sprintf("n%d.many.test", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(s.Queries()); n != 22 {
		t.Errorf("%d questions, want 22", n)
	}
	small, _ := resolver(t, s, func(o *dns.Options) { o.CacheBytes = 10 })
	before := len(s.Queries())
	for range 2 {
		if _, err := small.TXT(t.Context(), "n1.many.test"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.Queries()) - before; n != 2 {
		t.Errorf("%d questions with a cache of 10 octets, want 2", n)
	}
}

func TestIdsAndPortsAreNotPredictable(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, zone)
	r, _ := resolver(t, s, nil)
	for range 20 {
		if _, err := r.IP(t.Context(), "zero.test"); err != nil {
			t.Fatal(err)
		}
	}
	ids, ports := map[uint16]bool{}, map[int]bool{}
	for _, q := range s.Queries() {
		ids[q.ID], ports[q.Port] = true, true
	}
	if len(ids) < 35 || len(ports) < 20 {
		t.Errorf("%d ids and %d ports for 40 questions", len(ids), len(ports))
	}
}

func TestServersComeFromResolvConf(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/resolv.conf"
	write(t, file, "# local\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions ndots:1\n")
	for _, tc := range []struct {
		o    dns.Options
		want string
	}{
		{dns.Options{ResolvConf: file}, "[192.0.2.53:53 [2001:db8::53]:53]"},
		{dns.Options{ResolvConf: file + ".missing"}, "[127.0.0.1:53]"},
		{dns.Options{ResolvConf: file, Servers: []string{"192.0.2.1:5353"}}, "[192.0.2.1:5353]"},
	} {
		r, err := dns.New(tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.Servers()); got != tc.want {
			t.Errorf("servers %s, want %s", got, tc.want)
		}
		r.Close()
	}
	if _, err := dns.New(dns.Options{Servers: []string{"ns.example.test:53"}}); err == nil {
		t.Error("a resolver by name was taken")
	}
}

func BenchmarkCachedMX(b *testing.B) {
	s := dnstest.New(b, zone)
	r, err := dns.New(dns.Options{Servers: []string{s.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.MX(b.Context(), "example.test"); err != nil {
			b.Fatal(err)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLocalhostIsNotAskedFor(t *testing.T) {
	t.Parallel()
	s := dnstest.New(t, "")
	r, _ := resolver(t, s, nil)
	for _, name := range []string{"localhost", "LOCALHOST."} {
		got, err := r.IP(t.Context(), name)
		if err != nil || len(got.Addrs) != 2 || !got.Addrs[0].IsLoopback() || !got.Addrs[1].IsLoopback() {
			t.Errorf("%s: %v, %v", name, got.Addrs, err)
		}
	}
	if n := len(s.Queries()); n != 0 {
		t.Errorf("the name server was asked %d times", n)
	}
}

// Package dnstest is a programmable DNS server for tests. It answers over real UDP and TCP on 127.0.0.1 from zones
// written as text, and can be told to misbehave for a name: to stay silent, to fail, to truncate, to answer slowly,
// hugely, or with a forged packet first. It recurses nowhere and holds no delegation.
//
//	s := dnstest.New(t, `
//		example.test.     300 IN MX 10 mx.example.test.
//		mx.example.test.  300 IN A  127.0.0.2
//	`)
//	s.Fail("broken.test", dnstest.Fault{Rcode: "SERVFAIL"})
//	r, _ := dns.New(dns.Options{Servers: []string{s.Addr()}})
package dnstest

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// Fault says how the server misbehaves. The first fault that fits a query applies; what is zero stays as it is.
type Fault struct {
	Type     string        // "MX", "A", ...; empty for all
	Times    int           // how many queries it applies to; 0 for all
	Drop     bool          // no answer
	Rcode    string        // answer with this code: "SERVFAIL", "REFUSED", "NXDOMAIN", "FORMERR", ...
	EDE      uint16        // extended error code (RFC 8914) sent with it, 0 for none
	Truncate bool          // over UDP: TC and no records
	NoTCP    bool          // over TCP: close without an answer
	Huge     int           // so many octets of extra records
	Delay    time.Duration // before the answer
	Hold     chan struct{} // the answer waits until it is closed
	Forge    bool          // over UDP: first a packet with another id, one with another question, and garbage
	Garbage  bool          // octets that are no DNS message, under the right id
	NoEDNS   bool          // FORMERR to queries with EDNS
	Cut      bool          // only the first alias, without what it leads to
}

// Query is one question that the server was asked.
type Query struct {
	Name    string // lower case, without trailing dot
	Type    string
	Network string // "udp" or "tcp"
	Port    int    // of the client
	ID      uint16
}

// Server is a running server.
type Server struct {
	addr     string
	udp, tcp *mdns.Server
	wg       sync.WaitGroup
	stop     chan struct{}
	once     sync.Once

	mu      sync.Mutex // guards what follows
	records map[string][]mdns.RR
	faults  map[string][]*Fault
	queries []Query
	ad      bool
}

// New starts a server that ends with the test.
func New(tb testing.TB, zone string) *Server {
	tb.Helper()
	s, err := Start(zone)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Start starts a server on a free port of 127.0.0.1. Close it.
func Start(zone string) (*Server, error) {
	s := &Server{records: map[string][]mdns.RR{}, faults: map[string][]*Fault{}, stop: make(chan struct{})}
	if err := s.Add(zone); err != nil {
		return nil, err
	}
	pc, l, err := listen()
	if err != nil {
		return nil, err
	}
	s.addr = pc.LocalAddr().String()
	h := mdns.HandlerFunc(s.serve)
	s.udp = &mdns.Server{PacketConn: pc, Handler: h}
	s.tcp = &mdns.Server{Listener: l, Handler: h}
	for _, srv := range []*mdns.Server{s.udp, s.tcp} {
		ready := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(ready) }
		s.wg.Go(func() { _ = srv.ActivateAndServe() }) // its error is that of Shutdown
		<-ready
	}
	return s, nil
}

// listen finds a port that is free for both protocols.
func listen() (net.PacketConn, net.Listener, error) {
	var last error
	for range 20 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, fmt.Errorf("dnstest: listen: %w", err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l, nil
		}
		last = errors.Join(err, pc.Close())
	}
	return nil, nil, fmt.Errorf("dnstest: no port is free for UDP and TCP: %w", last)
}

// Addr is where the server listens, "127.0.0.1:port".
func (s *Server) Addr() string { return s.addr }

// Close stops the server and waits for it.
func (s *Server) Close() {
	s.once.Do(func() {
		close(s.stop)
		_ = s.udp.Shutdown() // fails only when it does not run
		_ = s.tcp.Shutdown()
		s.wg.Wait()
	})
}

// Add takes records in the format of zone files; lines may be indented. "*" as first label answers for all names below
// that have no records of their own.
func (s *Server) Add(zone string) error {
	var text strings.Builder
	for line := range strings.Lines(zone) {
		text.WriteString(strings.TrimLeft(line, " \t"))
	}
	p := mdns.NewZoneParser(strings.NewReader(text.String()), ".", "")
	p.SetDefaultTTL(300)
	s.mu.Lock()
	defer s.mu.Unlock()
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		name := strings.ToLower(rr.Header().Name)
		s.records[name] = append(s.records[name], rr)
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("dnstest: zone: %w", err)
	}
	return nil
}

// Set replaces all records of the names that zone mentions.
func (s *Server) Set(zone string) error {
	other := &Server{records: map[string][]mdns.RR{}}
	if err := other.Add(zone); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, rrs := range other.records {
		s.records[name] = rrs
	}
	return nil
}

// Remove forgets all records of a name.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, fqdn(name))
}

// Fail adds a fault for a name; "*" stands for every name.
func (s *Server) Fail(name string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fqdn(name)
	s.faults[key] = append(s.faults[key], &f)
}

// Heal removes all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.faults)
}

// Authenticate sets the AD bit on all answers from now on, or not.
func (s *Server) Authenticate(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ad = on
}

// Queries lists what was asked so far.
func (s *Server) Queries() []Query {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Query(nil), s.queries...)
}

// Count counts the queries for a name and type; "" stands for every type.
func (s *Server) Count(name, qtype string) int {
	n := 0
	for _, q := range s.Queries() {
		if q.Name == strings.TrimSuffix(fqdn(name), ".") && (qtype == "" || q.Type == qtype) {
			n++
		}
	}
	return n
}

func fqdn(name string) string { return strings.ToLower(mdns.Fqdn(name)) }

package transport

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"waxwing/internal/dns"
)

func TestMailComesFromTheAddressAndTheNameThatAreAsked(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	from := netip.MustParseAddr("127.0.0.3")
	link := tr.LinkVia("b.test", Via{Address: from, Name: "out.test", Reuse: 2})
	defer link.Close()
	for range 3 {
		if r := link.Deliver(t.Context(), mail("x@b.test")); r[0].Status != Delivered {
			t.Fatalf("%+v", r[0])
		}
	}
	lines, _ := s.seen()
	if !slices.Contains(lines, "EHLO out.test") || slices.Contains(lines, "EHLO me.test") {
		t.Errorf("commands %q", lines)
	}
	if n := s.connections(); n != 2 {
		t.Errorf("%d connections for 3 messages, 2 each", n)
	}
	s.mu.Lock()
	for c := range s.conns {
		if ip := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); ip != from {
			t.Errorf("a connection from %s", ip)
		}
	}
	s.mu.Unlock()
	if link.Retarget("b.test", Via{}) {
		t.Error("a connection from another address is used")
	}
	six := tr.LinkVia("b.test", Via{Address: netip.MustParseAddr("2001:db8::1")})
	defer six.Close()
	if r := six.Deliver(t.Context(), mail("x@b.test")); r[0].Status != Deferred || r[0].Stage != "connect" {
		t.Errorf("an IPv4 server from an IPv6 address: %+v", r[0])
	}
}

func TestAWayIsAServerInPlaceOfADomain(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, nil, func(o *Options) { o.Resolver = noDNS{} })
	way, ok := Way(s.addr().String())
	if !ok {
		t.Fatal(way)
	}
	link := tr.Link(way)
	defer link.Close()
	if r := link.Deliver(context.Background(), mail("x@b.test")); r[0].Status != Delivered {
		t.Fatalf("%+v", r[0])
	}
	for server, want := range map[string]string{
		"MX.b.test": "relay:mx.b.test:25", "[2001:db8::1]:2525": "relay:[2001:db8::1]:2525", "2001:db8::1": "relay:[2001:db8::1]:25",
		"": "", "a b": "", "a..b": "", "a:0": "", "a:99999": "", "a:x": "", "a/b": "",
	} {
		if got, ok := Way(server); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %t", server, got, ok)
		}
	}
}

// noDNS fails every look-up.
type noDNS struct{ fakeDNS }

func (noDNS) MX(context.Context, string) (dns.MX, error) { panic("a look-up") }

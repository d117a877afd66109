package server

import (
	"net"
	"net/netip"
	"testing"

	"waxwing/internal/config"
)

func TestFailedSignInsSlowNobodyDownOnLoopbackAlone(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	cfg.Listeners = config.StandardListeners(true)
	exempt := loopbackOnly(&cfg)
	for addr, want := range map[string]bool{"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true, "192.0.2.1": false} {
		if exempt(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s: exempt is not %v", addr, want)
		}
	}
	cfg.Listeners[0].Address = "0.0.0.0:25"
	if loopbackOnly(&cfg) != nil {
		t.Error("loopback is exempt on a server that strangers can reach, and so is every local proxy's client")
	}
}

func TestMailToThisServerItselfIsNoticed(t *testing.T) {
	t.Parallel()
	listen := func(addr string) listening {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return listening{config.Listener{Protocol: config.SMTP}, l}
	}
	port := func(l listening) uint16 { return l.listener.Addr().(*net.TCPAddr).AddrPort().Port() }
	one, all := listen("127.0.0.1:0"), listen("0.0.0.0:0")
	imap := listen("127.0.0.1:0")
	imap.Protocol = config.IMAP
	s := &Server{listening: []listening{one, all, imap}}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	self := map[netip.AddrPort]bool{
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port(one)):        true,
		netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), port(one)): true,
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port(one)):        false,
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port(all)):        true,
		netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port(all)):        false,
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port(imap)):       false,
	}
	for _, a := range own {
		self[netip.AddrPortFrom(netip.MustParsePrefix(a.String()).Addr(), port(all))] = true
	}
	for a, want := range self {
		if s.isSelf(a) != want {
			t.Errorf("%s: this server itself is not %v", a, want)
		}
	}
}

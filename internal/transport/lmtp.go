package transport

import "net/netip"

// LMTP (RFC 2033) is how a route brings mail to a store on this machine or in this network: LHLO in place of EHLO, and
// behind the end of the message a reply for each recipient that was accepted. It goes over TCP or a socket of the file
// system. Chunks are not used: what their replies look like is not said for LMTP.

// lmtp tells whether the session speaks LMTP.
func (s *session) lmtp() bool { return s.host.smart != nil && s.host.smart.LMTP }

// lhlo begins an LMTP session. There is no older greeting to fall back to.
func (s *session) lhlo() *failure {
	r, f := s.command("LHLO", s.t.opts.Timeouts.Command, "LHLO "+s.t.opts.Hostname)
	if f != nil {
		return f
	}
	if r.class() != 2 {
		return s.refused("LHLO", r)
	}
	s.ext = parseEHLO(r.lines)
	s.ext.chunking, s.ext.binary = false, false
	return nil
}

// endedEach takes in the replies for each recipient, in the order of the accepted RCPT commands. Who has got none when the
// connection breaks is tried again, and only they.
func (s *session) endedEach(d *delivery, accepted []int) *failure {
	for n, i := range accepted {
		s.limit(s.t.opts.Timeouts.DataEnd)
		r, err := readReply(s.conn)
		if err != nil {
			f := s.broken("end of data", err)
			s.settleAll(d, accepted[n:], f.result(s.host, s.addr, s.tls))
			return f
		}
		res := s.resultOf("end of data", r)
		res.Relayed = res.Status == Delivered && s.tellsRelayed(d.m)
		if r.class() == 3 || r.code == 421 {
			s.dead = true
			res.Unreachable = r.code == 421
		}
		d.settle(i, res)
	}
	return nil
}

// place is where to connect to.
func (h host) place(addr netip.AddrPort) (network, address string) {
	if h.smart != nil && h.smart.Socket != "" {
		return "unix", h.smart.Socket
	}
	return "tcp", addr.String()
}

// socketHost is the host of a route over a socket of the file system. It has no address.
func socketHost(h *SmartHost) host {
	return host{name: "localhost", smart: h, addrs: []netip.AddrPort{{}}}
}

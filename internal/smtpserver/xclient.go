package smtpserver

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"waxwing/internal/smtp"
)

// cmdXClient takes the true client's address from a trusted proxy, as Postfix defines it. Everything that was said
// before is forgotten, and the session begins anew with a greeting. LOGIN is not taken: nobody is signed in by word of
// another machine.
func (s *session) cmdXClient(args []byte) error {
	addr, port := s.remote.Addr(), s.remote.Port()
	helo := ""
	for _, field := range bytes.Fields(args) {
		name, text, ok := strings.Cut(string(field), "=")
		value, decoded := smtp.DecodeXtext(text)
		if !ok || !decoded {
			s.bad(501, "5.5.4", "malformed attribute")
			return nil
		}
		if strings.EqualFold(value, "[UNAVAILABLE]") || strings.EqualFold(value, "[TEMPUNAVAIL]") {
			continue
		}
		switch strings.ToUpper(name) {
		case "ADDR":
			addr, ok = parseXClientAddr(value)
		case "PORT":
			var n uint64
			var err error
			n, err = strconv.ParseUint(value, 10, 16)
			port, ok = uint16(n), err == nil
		case "HELO":
			helo, ok = value, isHelloName(value)
		case "NAME", "PROTO": // nothing here stands on them
		default:
			ok = false
		}
		if !ok {
			s.bad(501, "5.5.4", "attribute not taken")
			return nil
		}
	}
	s.remote = netip.AddrPortFrom(addr, port)
	s.conn.SetRemoteAddr(s.remote)
	s.noteConnection()
	s.helo, s.esmtp, s.identity = helo, helo != "", nil
	if !s.srv.pool.Recount(s, addr) {
		s.end(421, "4.3.2", "too many connections from that address, try again later")
		return nil
	}
	return s.greet(s.enter())
}

func parseXClientAddr(value string) (netip.Addr, bool) {
	const tag = "IPV6:"
	if len(value) > len(tag) && strings.EqualFold(value[:len(tag)], tag) {
		value = value[len(tag):]
	}
	a, err := netip.ParseAddr(value)
	return a.Unmap(), err == nil && a.Zone() == ""
}

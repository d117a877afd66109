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
	x := xclient{remote: s.remote, local: s.local, esmtp: true}
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
		if !x.set(strings.ToUpper(name), value) {
			s.bad(501, "5.5.4", "attribute not taken")
			return nil
		}
	}
	s.remote, s.local = x.remote, x.local
	s.conn.SetRemoteAddr(s.remote)
	s.noteConnection()
	s.helo, s.esmtp, s.identity = x.helo, x.helo != "" && x.esmtp, nil
	if !s.srv.pool.Recount(s, s.remote.Addr()) {
		s.end(421, "4.3.2", "too many connections from that address, try again later")
		return nil
	}
	return s.greet(s.enter())
}

// xclient is what the attributes of one XCLIENT say.
type xclient struct {
	remote, local netip.AddrPort
	helo          string
	esmtp         bool
}

// set takes an attribute in; false for one that isn't known or can't be read.
func (x *xclient) set(name, value string) (ok bool) {
	switch name {
	case "ADDR":
		return setAddr(&x.remote, value)
	case "PORT":
		return setPort(&x.remote, value)
	case "DESTADDR":
		return setAddr(&x.local, value)
	case "DESTPORT":
		return setPort(&x.local, value)
	case "HELO":
		x.helo = value
		return isHelloName(value)
	case "PROTO":
		x.esmtp = strings.EqualFold(value, "ESMTP")
		return x.esmtp || strings.EqualFold(value, "SMTP")
	case "NAME", "REVERSE_NAME": // the DNS is asked here
		return true
	}
	return false
}

func setAddr(at *netip.AddrPort, value string) bool {
	a, ok := parseXClientAddr(value)
	*at = netip.AddrPortFrom(a, at.Port())
	return ok
}

func setPort(at *netip.AddrPort, value string) bool {
	n, err := strconv.ParseUint(value, 10, 16)
	*at = netip.AddrPortFrom(at.Addr(), uint16(n))
	return err == nil
}

func parseXClientAddr(value string) (netip.Addr, bool) {
	const tag = "IPV6:"
	if len(value) > len(tag) && strings.EqualFold(value[:len(tag)], tag) {
		value = value[len(tag):]
	}
	a, err := netip.ParseAddr(value)
	return a.Unmap(), err == nil && a.Zone() == ""
}

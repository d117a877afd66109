package intake

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"waxwing/internal/message"
)

// addedHeader is about what the added fields need.
const addedHeader = 512

// compose writes the header that is stored and turns the parsed message into that of the result: fields are added before
// the others, some are dropped, and no octet of the rest changes. The body stays in the spool.
func (t *Transaction) compose(part *message.Part, id string, now time.Time) *message.Spliced {
	b := make([]byte, 0, part.BodyOffset-part.Offset+addedHeader)
	if len(t.locals) > 0 { // RFC 5321, section 4.4: the server of the final delivery
		b = append(b, "Return-Path: <"...)
		b = append(b, t.mail.From.String()...)
		b = append(b, ">\r\n"...)
	}
	b = t.appendReceived(b, id, now)
	b = t.appendMissing(b, part.Header, id, now)
	if t.user() && t.terms.priority != 0 {
		b = fmt.Appendf(b, "MT-Priority: %d\r\n", t.terms.priority)
	}
	for i := range part.Header {
		f := &part.Header[i]
		if t.drops(f) {
			continue
		}
		b = append(b, f.Raw...)
		if n := len(b); n < 2 || b[n-2] != '\r' || b[n-1] != '\n' {
			b = append(b, "\r\n"...) // a header that ends with the message
		}
	}
	part.Header, _ = message.ParseHeader(b)
	b = append(b, "\r\n"...)
	content := message.Splice(b, t.spool, part.BodyOffset, t.spool.size)
	shift(part, int64(len(b))-part.BodyOffset)
	return content
}

// appendMissing writes the fields that a message made here or by a user must have (RFC 6409, sections 8.2 and 8.3).
func (t *Transaction) appendMissing(b []byte, h message.Header, id string, now time.Time) []byte {
	if !t.user() && !t.internal {
		return b
	}
	if !h.Has("Date") {
		b = append(append(b, "Date: "...), now.Format(dateFormat)...)
		b = append(b, "\r\n"...)
	}
	if !h.Has("Message-ID") {
		b = append(append(append(b, "Message-ID: <"...), id...), '@')
		b = append(append(b, t.idDomain()...), ">\r\n"...)
	}
	return b
}

// shift moves all offsets behind the header of the message.
func shift(root *message.Part, by int64) {
	root.Offset = 0
	root.BodyOffset += by
	root.End += by
	root.Walk(func(p *message.Part) bool {
		if p == root {
			return true
		}
		p.Offset += by
		p.BodyOffset += by
		p.End += by
		for i := range p.Header {
			p.Header[i].Offset += by
		}
		return true
	})
}

// drops tells which fields of a message that comes in are not kept: a Return-Path of earlier hops (RFC 5321, section
// 4.4), results of checks that claim to be ours (RFC 8601, section 5), and on submission Bcc (RFC 5322, section 3.6.3) and the MT-Priority that this
// server writes anew (RFC 6758).
func (t *Transaction) drops(f *message.Field) bool {
	switch {
	case f.Is("Return-Path"):
		return true
	case f.Is("Authentication-Results"):
		return ownResults(f.Value, t.in.opts.Hostname)
	case f.Is("Bcc"), f.Is("Resent-Bcc"):
		return t.user() || t.internal
	case f.Is("MT-Priority"):
		return t.user()
	}
	return false
}

func (t *Transaction) idDomain() string {
	if t.mail.From.Domain != "" {
		return t.mail.From.Domain
	}
	return t.in.opts.Hostname
}

// dateFormat is that of RFC 5322, section 3.3.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 -0700"

// appendReceived writes the trace field of this hop (RFC 5321, section 4.4; the protocol by RFC 3848 and 6531, the
// cipher by RFC 8314, section 4.3). The recipient stands there only when it is alone: others must not learn of it.
func (t *Transaction) appendReceived(b []byte, id string, now time.Time) []byte {
	b = append(b, "Received: "...)
	if !t.internal {
		b = append(b, "from "...)
		literal := addressLiteral(t.peer.Remote.Addr())
		if t.user() && !t.in.opts.TraceClientName {
			b = append(b, literal...)
		} else {
			b = append(append(b, traceName(t.peer.HELO)...), " ("...)
			b = append(append(b, literal...), ')')
		}
		b = append(b, "\r\n\t"...)
	}
	b = append(append(b, "by "...), t.in.opts.Hostname...)
	b = append(append(b, " with "...), t.protocol()...)
	b = append(append(b, " id "...), id...)
	if len(t.rcpts) == 1 {
		b = append(append(b, "\r\n\tfor <"...), t.rcpts[0].to.String()...)
		b = append(b, '>')
	}
	if t.peer.TLS != nil && !t.internal {
		b = append(append(b, "\r\n\ttls "...), tls.CipherSuiteName(t.peer.TLS.CipherSuite)...)
		b = append(append(append(b, " ("...), tls.VersionName(t.peer.TLS.Version)...), ')')
	}
	b = append(append(b, ";\r\n\t"...), now.Format(dateFormat)...)
	return append(b, "\r\n"...)
}

// protocol is the "with" clause.
func (t *Transaction) protocol() string {
	if t.internal {
		return "LOCAL"
	}
	if !t.peer.ESMTP {
		return "SMTP"
	}
	name := "ESMTP"
	if t.peer.LMTP { // RFC 3848
		name = "LMTP"
	}
	if t.mail.UTF8 {
		name = "UTF8" + strings.TrimPrefix(name, "E") // RFC 6531, section 4.3
	}
	if t.peer.TLS != nil {
		name += "S"
	}
	if t.peer.Identity != nil {
		name += "A"
	}
	return name
}

// addressLiteral is a host's address as a domain (RFC 5321, section 4.1.3).
func addressLiteral(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid():
		return "unknown"
	case a.Is6():
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}

// traceName gives a client's name when it is one that may stand in a header field.
func traceName(helo string) string {
	if helo == "" || len(helo) > 255 {
		return "unknown"
	}
	for i := range len(helo) {
		c := helo[i]
		ok := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c == '.' || c == '-' || c == '_' || c == '[' || c == ']' || c == ':'
		if !ok {
			return "unknown"
		}
	}
	return helo
}

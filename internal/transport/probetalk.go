package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"
)

// hintOf says what may be done about a failure.
func hintOf(f *failure) string {
	switch {
	case strings.Contains(f.message, "does not exist"):
		return "is the name spelled rightly, and is the domain registered and delegated?"
	case strings.Contains(f.message, "null MX"):
		return "the domain says that it takes no mail (RFC 7505)"
	case strings.Contains(f.message, "can't be looked up"):
		return "does the resolver answer, and is the domain's DNSSEC sound?"
	case strings.Contains(f.message, "loops back"), strings.Contains(f.message, "this server itself"):
		return "this server is the domain's mail server: set the domain up here, or mend its MX records"
	}
	return ""
}

// asked sends a command and tells the answer; nil when the connection is of no use any more.
func (p *probe) asked(s *session, stage, line string, hints map[int]string) *reply {
	began := p.t.opts.Clock()
	r, f := s.command(stage, p.t.opts.Timeouts.Command, line)
	took := p.t.opts.Clock().Sub(began)
	if f != nil {
		p.tell(stage, Problem, took, f.message, "", "")
		s.dead = true
		return nil
	}
	finding, text := Fine, "taken"
	switch {
	case r.class() == 4:
		finding, text = Problem, "refused for now"
	case r.class() == 5:
		finding, text = Problem, "refused"
	}
	hint := hints[r.code]
	if hint == "" {
		hint = hints[r.class()]
	}
	p.tell(stage, finding, took, text, r.raw, hint)
	return r
}

func (p *probe) greeting(s *session) bool {
	s.limit(p.t.opts.Timeouts.Greeting)
	began := p.t.opts.Clock()
	r, err := readReply(s.conn)
	took := p.t.opts.Clock().Sub(began)
	if err != nil {
		p.tell("greeting", Problem, took, s.broken("greeting", err).message, "", "does an SMTP server listen on that port? With TLS from the first octet on, as on port 465, use --tls implicit")
		return false
	}
	if r.class() != 2 {
		p.tell("greeting", Problem, took, "the server takes no mail from here now", r.raw, "the words say why: often a block list, or too many connections")
		return false
	}
	finding, hint := Fine, ""
	if took > 10*time.Second {
		finding, hint = Note, "a slow greeting keeps spammers off, and makes others wait"
	}
	p.tell("greeting", finding, took, "the server greets", r.raw, hint)
	return true
}

func (p *probe) hello(s *session) bool {
	r := p.asked(s, "EHLO", "EHLO "+p.t.opts.Hostname, map[int]string{5: "a server that refuses EHLO is very old, or dislikes the name that was given: see --hostname"})
	if r == nil || r.class() != 2 {
		return false
	}
	s.ext = parseEHLO(r.lines)
	return true
}

func (p *probe) startTLS(ctx context.Context, s *session, want *demand) bool {
	if !s.ext.starttls {
		hint := "mail crosses the network readable for all: switch STARTTLS on"
		if !want.plain {
			hint = "the policy demands TLS: mail waits, and comes back in the end"
		}
		p.tell("STARTTLS", Problem, 0, "TLS is not offered", "", hint)
		return true
	}
	r := p.asked(s, "STARTTLS", "STARTTLS", map[int]string{4: "TLS is offered and refused: has the server a certificate?", 5: "TLS is offered and refused: has the server a certificate?"})
	if r == nil {
		return false
	}
	if r.code != 220 {
		return true
	}
	return p.secure(ctx, s, want) && p.hello(s)
}

// secure does the handshake and explains it.
func (p *probe) secure(ctx context.Context, s *session, want *demand) bool {
	s.limit(p.t.opts.Timeouts.TLS)
	began := p.t.opts.Clock()
	f := s.handshake(ctx)
	took := p.t.opts.Clock().Sub(began)
	if f != nil {
		p.tell("TLS", Problem, took, f.message, "", "TLS 1.2 or 1.3 is needed, with a suite that both sides know")
		s.dead = true
		return false
	}
	state, _ := s.conn.TLS()
	p.tell("TLS", Fine, took, tls.VersionName(state.Version)+", "+tls.CipherSuiteName(state.CipherSuite), "", "")
	p.chain(s, state)
	if want.check != nil {
		if err := want.check(state); err != nil {
			p.tell("policy", Problem, 0, "the certificate is not what "+want.policy+" demands: "+err.Error(), "", "no mail is sent to this host as long as that is so")
		} else {
			p.tell("policy", Fine, 0, "the certificate is what "+want.policy+" demands", "", "")
		}
	}
	return true
}

// chain explains the certificates.
func (p *probe) chain(s *session, state tls.ConnectionState) {
	now := p.t.opts.Clock()
	for i, c := range state.PeerCertificates[:min(len(state.PeerCertificates), 10)] {
		what := "its certificate"
		if i > 0 {
			what = fmt.Sprintf("certificate %d of the chain", i+1)
		}
		text := fmt.Sprintf("%s: for %s, by %s, until %s", what, printable([]byte(c.Subject.String())), printable([]byte(c.Issuer.String())), c.NotAfter.UTC().Format(time.DateOnly))
		if i == 0 && len(c.DNSNames) > 0 {
			text += ", names " + printable([]byte(strings.Join(c.DNSNames[:min(len(c.DNSNames), 20)], " ")))
		}
		switch {
		case now.After(c.NotAfter):
			p.tell("certificate", Problem, 0, text, "", "it has expired")
		case now.Before(c.NotBefore):
			p.tell("certificate", Problem, 0, text, "", "it is not valid yet: is a clock wrong?")
		case c.NotAfter.Sub(now) < 14*24*time.Hour:
			p.tell("certificate", Note, 0, text, "", "it ends soon")
		default:
			p.tell("certificate", Fine, 0, text, "", "")
		}
	}
	if s.problem != nil {
		p.tell("certificate", Note, 0, "it can't be verified: "+s.problem.Error(), "", "mail is sent all the same unless a policy forbids it; the whole chain and a name that fits the host would mend it")
		return
	}
	p.tell("certificate", Fine, 0, "it is valid and for "+hostName(s.host), "", "")
}

// offers tells what the server can do.
func (p *probe) offers(s *session) {
	x := &s.ext
	var has, lacks []string
	for _, e := range []struct {
		name string
		ok   bool
	}{
		{"PIPELINING", x.pipelining},
		{"8BITMIME", x.eightBit},
		{"SMTPUTF8", x.utf8},
		{"DSN", x.dsn},
		{"CHUNKING", x.chunking},
		{"REQUIRETLS", x.requireTLS},
	} {
		if e.ok {
			has = append(has, e.name)
		} else {
			lacks = append(lacks, e.name)
		}
	}
	text := "offers " + strings.Join(has, " ")
	if x.size > 0 {
		text += fmt.Sprintf("; messages of at most %d octets", x.size)
	}
	if len(lacks) > 0 {
		text += "; lacks " + strings.Join(lacks, " ")
	}
	p.tell("offers", Fine, 0, text, "", "")
	switch {
	case len(x.auth) > 0 && !s.tls.Used:
		p.tell("offers", Problem, 0, "AUTH "+strings.Join(x.auth, " ")+" is offered without TLS", "", "passwords would cross the network readable for all")
	case len(x.auth) > 0:
		p.tell("offers", Fine, 0, "AUTH "+strings.Join(x.auth, " "), "", "")
	}
}

func (p *probe) signIn(s *session) bool {
	began := p.t.opts.Clock()
	f := s.authenticate(&SmartHost{Host: s.host.name, Username: p.req.Username, Password: p.req.Password})
	took := p.t.opts.Clock().Sub(began)
	if f != nil {
		said := ""
		if f.reply != nil {
			said = f.reply.raw
		}
		p.tell("AUTH", Problem, took, f.message, said, "the name, the password, or the mechanism is not taken; no password is sent without a certificate that is valid")
		return false
	}
	p.tell("AUTH", Fine, took, "signed in as "+p.req.Username, "", "")
	return true
}

// envelope tries sender and recipient, and sends the message when there is one.
func (p *probe) envelope(s *session) {
	if p.req.To == "" {
		return
	}
	r := p.asked(s, "MAIL", "MAIL FROM:<"+p.req.From+">", map[int]string{
		4: "the sender is put off: greylisting, or a look-up that failed", 5: "the sender is refused: has its domain MX or address records, SPF, and does the address of this host have a name?",
	})
	if r == nil || r.class() != 2 {
		return
	}
	r = p.asked(s, "RCPT", "RCPT TO:<"+p.req.To+">", map[int]string{
		4: "greylisting, a full mailbox or a limit: try again later", 5: "the words say why: no such mailbox, or the server doesn't take mail for the domain", 530: "the server wants a sign-in first: --user",
	})
	if r == nil || r.class() != 2 {
		return
	}
	if p.req.Message == nil {
		p.asked(s, "RSET", "RSET", nil)
		return
	}
	r = p.asked(s, "DATA", "DATA", nil)
	if r == nil || r.code != 354 {
		return
	}
	began := p.t.opts.Clock()
	s.limit(p.t.opts.Timeouts.DataEnd)
	_, err := s.conn.Write(dotted(p.req.Message))
	if err == nil {
		err = s.conn.Flush()
	}
	var end *reply
	if err == nil {
		end, err = readReply(s.conn)
	}
	took := p.t.opts.Clock().Sub(began)
	switch {
	case err != nil:
		p.tell("message", Problem, took, s.broken("end of data", err).message, "", "whether the message was taken is unknown")
		s.dead = true
	case end.class() == 2:
		p.tell("message", Fine, took, "the message was taken", end.raw, "")
	default:
		p.tell("message", Problem, took, "the message was refused", end.raw, "the words say why: often the content, or how the sender is authenticated")
	}
}

// dotted is a message as DATA sends it, RFC 5321, section 4.5.2.
func dotted(b []byte) []byte {
	b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\r"), nil)
	b = bytes.TrimSuffix(b, []byte("\n"))
	var out bytes.Buffer
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		if bytes.HasPrefix(line, []byte(".")) {
			out.WriteByte('.')
		}
		out.Write(line)
		out.WriteString("\r\n")
	}
	out.WriteString(".\r\n")
	return out.Bytes()
}

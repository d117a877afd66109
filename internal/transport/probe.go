package transport

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/mtasts"
	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

// ProbeRequest says what Probe is to try.
type ProbeRequest struct {
	Target   string // domain or host in A-labels, or an address literal
	From, To string // envelope; without To nothing behind EHLO is tried
	Message  []byte // sent when it isn't nil
	Implicit bool   // TLS from the first octet
	NoTLS    bool   // no STARTTLS
	Only     string // "4" or "6": addresses of this kind alone
	Username string // signs in
	Password []byte
	Places   int // addresses that are tried; 0: 8
}

// Finding is how serious a step of a probe is.
type Finding string

// The findings.
const (
	Fine    Finding = "ok"
	Note    Finding = "note"    // worth knowing
	Problem Finding = "problem" // mail may suffer by it
)

// ProbeStep is one thing that a probe saw.
type ProbeStep struct {
	Stage   string        `json:"stage"`
	Host    string        `json:"host,omitempty"`
	Address string        `json:"address,omitempty"`
	Finding Finding       `json:"finding"`
	Text    string        `json:"text"`
	Said    string        `json:"said,omitempty"` // the server's words
	Hint    string        `json:"hint,omitempty"`
	Took    time.Duration `json:"took_ns,omitempty"`
}

// probe is one run of Probe.
type probe struct {
	t   *Transport
	req ProbeRequest
	on  ProbeStep // place that steps are about
	say func(ProbeStep)
}

func (p *probe) tell(stage string, f Finding, took time.Duration, text, said, hint string) {
	s := p.on
	s.Stage, s.Finding, s.Took, s.Text, s.Said, s.Hint = stage, f, took, text, said, hint
	p.say(s)
}

// Probe goes through all that a delivery would do, step by step, at each address of a destination, and tells what it sees. It
// keeps going where a delivery would end, as far as that makes sense. It returns whether a server could be spoken to.
func (t *Transport) Probe(ctx context.Context, req ProbeRequest, tell func(ProbeStep)) (reached bool) {
	if req.Places <= 0 {
		req.Places = 8
	}
	p := &probe{t: t, req: req, say: tell}
	hosts, _, f := t.hosts(ctx, req.Target)
	if f != nil {
		p.tell("mx", Problem, 0, f.message, "", hintOf(f))
		return false
	}
	p.exchangers(ctx, hosts)
	p.announced(ctx)
	policy, f := t.plan(ctx, req.Target, smtp.TLSDefault, hosts)
	if f != nil {
		p.tell("policy", Problem, 0, f.message, "", hintOf(f))
		return false
	}
	places := 0
	for _, h := range hosts.list {
		p.on = ProbeStep{Host: h.name}
		addrs, where, f := t.addresses(ctx, h)
		if f != nil {
			p.tell("address", Problem, 0, f.message, "", "give the host an A or AAAA record, or take it out of the MX records")
			continue
		}
		if len(h.addrs) == 0 {
			p.addressesOf(addrs)
		}
		want, f := t.demand(ctx, policy, h, where)
		if f != nil {
			p.tell("policy", Problem, 0, f.message, "", "mail to this host waits until that is mended")
			want = opportunistic(false)
		} else {
			p.tell("policy", Fine, 0, "connections are protected by: "+want.policy, "", "")
		}
		for _, a := range addrs {
			if req.Only == "4" && !a.Addr().Unmap().Is4() || req.Only == "6" && a.Addr().Unmap().Is4() {
				continue
			}
			if places++; places > req.Places || ctx.Err() != nil {
				return reached
			}
			p.on.Address = a.String()
			reached = p.at(ctx, h, a, want) || reached
		}
	}
	return reached
}

// exchangers tells which hosts take mail.
func (p *probe) exchangers(ctx context.Context, hosts found) {
	if strings.HasPrefix(p.req.Target, "[") {
		return
	}
	if r, err := p.t.route(p.req.Target); err != nil || len(r.hosts) > 0 {
		return // an administrator's route goes before MX
	}
	var names []string
	for _, h := range hosts.list {
		names = append(names, h.name)
	}
	mx, err := p.t.opts.Resolver.MX(ctx, p.req.Target)
	switch {
	case err == nil && mx.Implicit:
		p.tell("mx", Note, 0, p.req.Target+" has no MX record: it is its own mail server", "", "an MX record says clearly where mail goes")
	default:
		p.tell("mx", Fine, 0, "in this order: "+strings.Join(names, ", "), "", "")
	}
	if hosts.secure {
		p.tell("mx", Fine, 0, "the answer is authenticated by DNSSEC", "", "")
	} else {
		p.tell("mx", Note, 0, "the answer is not authenticated by DNSSEC, or the resolver is not trusted to say so", "", "without DNSSEC there is no DANE")
	}
}

// announced tells whether the domain announces an MTA-STS policy.
func (p *probe) announced(ctx context.Context) {
	r, ok := p.t.opts.Resolver.(interface {
		TXT(ctx context.Context, name string) (dns.Texts, error)
	})
	if !ok || strings.HasPrefix(p.req.Target, "[") {
		return
	}
	texts, err := r.TXT(ctx, "_mta-sts."+p.req.Target)
	id := ""
	if err == nil {
		id, err = mtasts.ParseRecord(texts.Texts)
	}
	switch {
	case err == nil:
		p.tell("mta-sts", Fine, 0, "an MTA-STS policy is announced, with id "+id, "", "")
	case errors.Is(err, dns.ErrNotFound), errors.Is(err, mtasts.ErrNoRecord):
		p.tell("mta-sts", Note, 0, "no MTA-STS policy is announced", "", "a policy keeps attackers from switching TLS off (RFC 8461)")
	default:
		p.tell("mta-sts", Problem, 0, "whether an MTA-STS policy is announced can't be looked up: "+err.Error(), "", "")
	}
}

func (p *probe) addressesOf(addrs []netip.AddrPort) {
	var list []string
	four, six := false, false
	for _, a := range addrs {
		list = append(list, a.Addr().String())
		if a.Addr().Unmap().Is4() {
			four = true
		} else {
			six = true
		}
	}
	text := strings.Join(list, ", ")
	switch {
	case !six:
		p.tell("address", Note, 0, text, "", "no IPv6 address")
	case !four:
		p.tell("address", Note, 0, text, "", "no IPv4 address: many servers can't reach it")
	default:
		p.tell("address", Fine, 0, text, "", "")
	}
}

// at talks to one address.
func (p *probe) at(ctx context.Context, h host, a netip.AddrPort, want *demand) bool {
	began := p.t.opts.Clock()
	dctx, cancel := context.WithTimeout(ctx, p.t.opts.Timeouts.Connect)
	nc, err := p.t.opts.Dial(dctx, "tcp", a.String())
	cancel()
	took := p.t.opts.Clock().Sub(began)
	if err != nil {
		p.tell("connect", Problem, took, "no connection: "+netError(err).Error(), "", "is the server up, and does a firewall on the way (or the provider here) block the port?")
		return false
	}
	p.tell("connect", Fine, took, "connected", "", "")
	look := &demand{policy: want.policy, plain: true, sni: want.sni, report: noPolicy}
	s := &session{t: p.t, domain: p.req.Target, host: h, addr: a, demand: look, tls: TLSInfo{Policy: want.policy}}
	s.conn = wire.New(nc, wire.Limits{Line: maxReplyLine, LineTime: p.t.opts.Timeouts.Command})
	stop := s.bind(ctx)
	defer stop()
	defer s.quit()
	p.talk(ctx, s, want)
	return true
}

// talk goes from the greeting to the end; it ends with the first step without which the next makes no sense.
func (p *probe) talk(ctx context.Context, s *session, want *demand) {
	if p.req.Implicit && !p.secure(ctx, s, want) {
		return
	}
	if !p.greeting(s) || !p.hello(s) {
		return
	}
	if !s.tls.Used && !p.req.NoTLS {
		if !p.startTLS(ctx, s, want) {
			return
		}
	}
	p.offers(s)
	if p.req.Username != "" && !p.signIn(s) {
		return
	}
	p.envelope(s)
}

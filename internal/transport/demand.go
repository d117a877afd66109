package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"waxwing/internal/dane"
	"waxwing/internal/dns"
	"waxwing/internal/mtasts"
	"waxwing/internal/smtp"
	"waxwing/internal/tlspolicy"
)

// STS finds the MTA-STS policies of other domains; *sts.Policies is one.
type STS interface {
	// Policy gives the policy that a domain has, with Found false for none. An error is that nobody could say.
	Policy(ctx context.Context, domain string) (STSPolicy, error)
}

// STSPolicy is what is known of a domain's MTA-STS policy.
type STSPolicy struct {
	mtasts.Policy
	Found   bool
	Problem string // why a policy that the domain announces could not be had: a result type of RFC 8460, section 4.3
}

// plan is what is known of a destination before its hosts are looked at.
type plan struct {
	domain   string
	entry    tlspolicy.Entry // of the administrator's table
	explicit bool            // there is an entry
	needs    smtp.TLSNeed
	secure   bool // the names of its hosts are authentic: DNSSEC, or the administrator gave them
	sts      STSPolicy
	smart    bool
}

// demand is what a connection with one host must meet before mail goes over it.
type demand struct {
	policy string // for the log
	plain  bool   // plaintext will do where TLS doesn't work
	never  bool   // TLS is not used
	// check judges the server; nil takes any certificate. Its error ends the connection.
	check func(tls.ConnectionState) error
	sni   string

	needs  smtp.TLSNeed
	report PolicyKey // what an Outcome says of the policy
	pkix   bool      // a certificate that isn't valid is a failure to report, though it may decide nothing
}

// scope names what the demand of a session follows from: one that was opened under another scope is not used again.
func (t *Transport) scope(destination string, needs smtp.TLSNeed) (string, *failure) {
	r, err := t.route(destination)
	if err != nil {
		return "", temporarily("resolve", 3, 5, "the route of %s can't be used: %v", destination, err)
	}
	e, _, f := t.entry(r.domain)
	if f != nil {
		return "", f
	}
	return fmt.Sprintf("%d %s %s", needs, e.Level, strings.Join(e.Match, ",")), nil
}

// entry is what the administrator's table says of a destination. A table that can't be read lets nothing through.
func (t *Transport) entry(destination string) (e tlspolicy.Entry, explicit bool, f *failure) {
	e.Level = tlspolicy.Auto
	if t.opts.Policies == nil || strings.HasPrefix(destination, "[") {
		return e, false, nil
	}
	table, err := t.opts.Policies()
	if err != nil {
		return e, false, temporarily("policy", 3, 5, "the setting tls.policies can't be read: %v", err)
	}
	if found, ok := table.For(destination); ok {
		return found, found.Level != tlspolicy.Auto, nil
	}
	return e, false, nil
}

// plan finds out what holds for all hosts of a destination.
func (t *Transport) plan(ctx context.Context, destination string, needs smtp.TLSNeed, hosts found) (*plan, *failure) {
	p := &plan{domain: destination, needs: needs, secure: hosts.secure, smart: hosts.list[0].smart != nil}
	var f *failure
	if p.entry, p.explicit, f = t.entry(destination); f != nil {
		return nil, f
	}
	if p.explicit || p.smart || t.opts.STS == nil || needs == smtp.TLSOptional || strings.HasPrefix(destination, "[") {
		return p, nil
	}
	policy, err := t.opts.STS.Policy(ctx, destination)
	if err != nil && hosts.secure {
		// In a signed zone nobody can forge that there is no policy, but anybody on the way can suppress the answer.
		f := temporarily("policy", 7, 5, "the MTA-STS policy of %s can't be looked up: %v", destination, err)
		f.unreachable = true
		return nil, f
	}
	p.sts = policy
	return p, nil
}

// demand decides how the connection with a host must be protected. where is the answer to the look-up of its address.
func (t *Transport) demand(ctx context.Context, p *plan, h host, where dns.Answer) (*demand, *failure) {
	d, f := t.judge(ctx, p, h, where)
	if f != nil {
		return nil, f
	}
	d.needs = p.needs
	if p.needs == smtp.TLSRequired {
		return t.requireTLS(p, h, d)
	}
	return d, nil
}

// judge is demand without what the sender asks for.
func (t *Transport) judge(ctx context.Context, p *plan, h host, where dns.Answer) (*demand, *failure) {
	if h.smart != nil && h.smart.TLS != TLSOpportunistic { // the administrator has said how
		return &demand{policy: "smart host", check: t.valid(h, nil), report: noPolicy}, nil
	}
	free := p.needs == smtp.TLSOptional
	switch level := p.entry.Level; {
	case level == tlspolicy.None:
		return &demand{policy: "none (tls.policies)", plain: true, never: true, report: noPolicy}, nil
	case level == tlspolicy.Encrypt:
		return &demand{policy: "encrypt (tls.policies)", report: noPolicy}, nil
	case level == tlspolicy.Verify, level == tlspolicy.Secure:
		names := p.entry.Match
		if len(names) == 0 && level == tlspolicy.Secure {
			names = []string{p.domain, "." + p.domain}
		}
		return &demand{policy: string(level) + " (tls.policies)", check: t.valid(h, names), report: noPolicy, pkix: true}, nil
	case level == tlspolicy.May, free && !p.explicit:
		return opportunistic(free), nil
	}
	d, f := t.dane(ctx, p, h, where)
	if d != nil || f != nil {
		return d, f
	}
	if p.entry.Level == tlspolicy.DANEOnly {
		f := temporarily("policy", 7, 5, "%s has no usable TLSA records, which tls.policies demands for %s", h.name, p.domain)
		t.tell(Outcome{PolicyKey: PolicyKey{Type: TypeTLSA}, Domain: p.domain, Host: h.name, Failure: "dane-required"})
		return nil, f
	}
	if p.sts.Found && p.sts.Mode != mtasts.None {
		return t.sts(p, h)
	}
	if p.sts.Problem != "" {
		t.tell(Outcome{PolicyKey: PolicyKey{Type: TypeSTS}, Domain: p.domain, Host: h.name, Failure: p.sts.Problem})
	}
	return opportunistic(false), nil
}

func opportunistic(asked bool) *demand {
	d := &demand{policy: "opportunistic", plain: true, report: noPolicy}
	if asked {
		d.policy = "opportunistic (TLS-Required: No)"
	}
	return d
}

// sts holds a host to the MTA-STS policy of its domain (RFC 8461, sections 4 and 5).
func (t *Transport) sts(p *plan, h host) (*demand, *failure) {
	key := PolicyKey{Type: TypeSTS, Strings: strings.Join(p.sts.Lines(), "\n"), Hosts: strings.Join(p.sts.MX, "\n")}
	enforced := p.sts.Mode == mtasts.Enforce
	if !p.sts.Match(h.name) {
		f := temporarily("policy", 7, 0, "the MTA-STS policy of %s does not name its server %s", p.domain, h.name)
		t.tell(Outcome{PolicyKey: key, Domain: p.domain, Host: h.name, Failure: failValidation, Code: "mx-mismatch"})
		if enforced {
			return nil, f
		}
		return &demand{policy: "mta-sts testing", plain: true, report: PolicyKey{}}, nil // it was told already
	}
	if !enforced {
		return &demand{policy: "mta-sts testing", plain: true, report: key, pkix: true}, nil
	}
	return &demand{policy: "mta-sts enforce", check: t.valid(h, nil), report: key, pkix: true}, nil
}

// dane looks for TLSA records of a host; nil when DANE is not used there (RFC 7672, section 2.2). A look-up that fails, or
// whose answer is forged, keeps mail from the host: that it should have records can't be ruled out.
func (t *Transport) dane(ctx context.Context, p *plan, h host, where dns.Answer) (*demand, *failure) {
	if _, err := netip.ParseAddr(strings.Trim(h.name, "[]")); err == nil || !p.secure || strings.HasPrefix(h.name, "[") {
		return nil, nil
	}
	bases, f := t.bases(ctx, p, h, where)
	if f != nil {
		return nil, f
	}
	for _, base := range bases {
		got, err := t.opts.Resolver.TLSA(ctx, fmt.Sprintf("_%d._tcp.%s", h.port, base))
		switch {
		case err != nil && dns.Temporary(err):
			return nil, t.lookupFailed(p, h, "the TLSA records of "+base, err)
		case err != nil, !got.Secure, len(got.Records) == 0:
			continue
		}
		return t.byRecords(p, h, base, got.Records)
	}
	return nil, nil
}

func (t *Transport) byRecords(p *plan, h host, base string, records []dns.TLSA) (*demand, *failure) {
	set := dane.New(records)
	key := PolicyKey{Type: TypeTLSA, Strings: presentation(records), Hosts: h.name}
	if !set.Usable() {
		if p.entry.Level == tlspolicy.DANEOnly {
			f := temporarily("policy", 7, 5, "%s has no usable TLSA records, which tls.policies demands for %s", h.name, p.domain)
			t.tell(Outcome{PolicyKey: key, Domain: p.domain, Host: h.name, Failure: "tlsa-invalid"})
			return nil, f
		}
		return &demand{policy: "dane (no usable record: encrypt)", sni: base, report: key}, nil
	}
	names := []string{base, p.domain} // RFC 7672, section 3.2.2
	if h.name != base {
		names = append(names, h.name)
	}
	return &demand{
		policy: "dane", sni: base, report: key,
		check: func(cs tls.ConnectionState) error { return set.Verify(cs.PeerCertificates, names, t.opts.Clock()) },
	}, nil
}

// bases are the names at which TLSA records of a host may stand, in the order in which they are asked for (RFC 7672,
// section 2.2.3): what the host is an alias of, when all of the way there is authentic, and its own name. A zone that is
// not signed has none: it is not asked, for some of its servers fail at such questions.
func (t *Transport) bases(ctx context.Context, p *plan, h host, where dns.Answer) ([]string, *failure) {
	alias := where.Name != "" && where.Name != h.name
	switch {
	case where.Secure && alias:
		return []string{where.Name, h.name}, nil
	case where.Secure:
		return []string{h.name}, nil
	case !alias:
		return nil, nil
	}
	step, err := t.opts.Resolver.Alias(ctx, h.name)
	switch {
	case err != nil && dns.Temporary(err):
		return nil, t.lookupFailed(p, h, "the name "+h.name, err)
	case err == nil && step.Secure:
		return []string{h.name}, nil
	}
	return nil, nil
}

func (t *Transport) lookupFailed(p *plan, h host, what string, err error) *failure {
	f := temporarily("policy", 7, 5, "%s can't be looked up: %v", what, err)
	f.unreachable = true
	if errors.Is(err, dns.ErrBogus) {
		t.tell(Outcome{PolicyKey: PolicyKey{Type: TypeTLSA}, Domain: p.domain, Host: h.name, Failure: "dnssec-invalid"})
	}
	return f
}

// presentation writes TLSA records as they stand in a zone.
func presentation(records []dns.TLSA) string {
	var lines []string
	for _, r := range records[:min(len(records), 20)] {
		lines = append(lines, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data[:min(len(r.Data), 512)]))
	}
	return strings.Join(lines, "\n")
}

// requireTLS adds what REQUIRETLS asks for (RFC 8689, section 4.2.1): a host whose name is authentic and whose certificate
// is for it. That it offers REQUIRETLS too is seen when it has said EHLO.
func (t *Transport) requireTLS(p *plan, h host, d *demand) (*demand, *failure) {
	named := p.secure || h.smart != nil || p.sts.Found && p.sts.Match(h.name) || p.entry.Level == tlspolicy.Secure
	if d.never || !named {
		return nil, permanently("policy", 7, 10, "the sender requires TLS, and that %s is a server of %s is not authentic: neither DNSSEC nor MTA-STS says so", h.name, p.domain)
	}
	out := *d
	out.policy, out.plain = "requiretls, "+d.policy, false
	if out.check == nil {
		out.check, out.pkix = t.valid(h, nil), true
	}
	return &out, nil
}

// valid makes a check that the certificate is valid, for one of the names, or for the host's when there are none.
func (t *Transport) valid(h host, names []string) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if len(names) == 0 {
			return t.verify(cs, hostName(h))
		}
		if err := t.verify(cs, ""); err != nil {
			return err
		}
		leaf := cs.PeerCertificates[0]
		for _, n := range names {
			below := strings.HasPrefix(n, ".")
			if !below && leaf.VerifyHostname(n) == nil || below && slices.ContainsFunc(leaf.DNSNames, func(san string) bool { return tlspolicy.Below(n, san) }) {
				return nil
			}
		}
		return fmt.Errorf("%w: for none of %s", dane.ErrName, strings.Join(names, ", "))
	}
}

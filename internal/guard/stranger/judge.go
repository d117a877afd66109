package stranger

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/dns"
	"waxwing/internal/guard"
	"waxwing/internal/guard/dnslist"
	"waxwing/internal/smtp"
)

// The weights of findings. One alone greylists nobody but for a missing name, and all together refuse nobody by the default
// thresholds: that takes a list.
const (
	weightNoName      = 3 // the address has no name
	weightUnconfirmed = 2 // its name doesn't lead back to it
	weightLie         = 5 // HELO is a name of ours
	weightNotAName    = 3 // HELO is no host name
	weightOther       = 3 // HELO is another's address
	weightShort       = 2 // HELO is a name without a domain
	weightUnresolved  = 1 // HELO is a name that doesn't exist
	weightLiteral     = 1 // HELO is the client's address
)

// client is what was found out about an address.
type client struct {
	listings []dnslist.Listing
	findings []guard.Finding
}

func (d *Door) judgeClient(ctx context.Context, a netip.Addr, set Settings) *client {
	c := &client{listings: d.opts.Lists.Address(ctx, a)}
	if !set.Reverse {
		return c
	}
	name, finding := d.reverse(ctx, a)
	if finding != nil {
		c.findings = append(c.findings, *finding)
	}
	if name != "" && d.opts.Lists.Any(dnslist.Reverse) {
		c.listings = append(c.listings, d.opts.Lists.Domain(ctx, dnslist.Reverse, name)...)
	}
	return c
}

// maxNames is how many names of an address are tried.
const maxNames = 5

// reverse finds the name of an address that leads back to it.
func (d *Door) reverse(ctx context.Context, a netip.Addr) (name string, f *guard.Finding) {
	names, err := d.opts.Resolver.PTR(ctx, a)
	switch {
	case err == nil:
	case dns.Temporary(err):
		return "", nil // nobody's fault
	default:
		return "", &guard.Finding{Check: nameReverse, Weight: weightNoName, Reason: "the client's address has no name in the DNS"}
	}
	for _, n := range names.Names[:min(len(names.Names), maxNames)] {
		ips, err := d.opts.Resolver.IP(ctx, n)
		switch {
		case err == nil && slices.Contains(ips.Addrs, a):
			return n, nil
		case err != nil && dns.Temporary(err):
			return "", nil
		}
	}
	return "", &guard.Finding{
		Check: nameReverse, Weight: weightUnconfirmed,
		Reason: fmt.Sprintf("the name of the client's address, %s, does not lead back to it", names.Names[0]),
	}
}

// hello is what was found out about what a client calls itself.
type hello struct {
	name     string
	lie      string // what can't be true, in words
	listings []dnslist.Listing
	findings []guard.Finding
}

func (h *hello) find(weight int, reason string) *hello {
	h.findings = append(h.findings, guard.Finding{Check: nameHello, Weight: weight, Reason: reason})
	return h
}

func (h *hello) lies(reason string) *hello {
	h.lie = reason
	return h.find(weightLie, reason)
}

func (d *Door) judgeHello(ctx context.Context, v *guard.Visitor, set Settings) *hello {
	h := &hello{name: v.HELO}
	if set.Hello == Off {
		return h
	}
	remote, own := v.Remote.Addr(), v.Local.Addr().Unmap()
	ip, isAddress := literal(v.HELO)
	switch {
	case isAddress && ip == remote:
		return h.find(weightLiteral, "HELO is an address")
	case isAddress && ip == own:
		return h.lies("HELO is this server's address, which you are not")
	case isAddress:
		return h.find(weightOther, "HELO is an address that is not the client's")
	}
	name, err := address.ParseDomain(v.HELO)
	if err != nil || name == "" || name[0] == '[' {
		return h.find(weightNotAName, "HELO is no host name")
	}
	h.listings = d.opts.Lists.Domain(ctx, dnslist.Hello, name)
	ours := strings.EqualFold(name, d.opts.Hostname) || d.opts.Local(name)
	if !strings.Contains(name, ".") && !ours {
		return h.find(weightShort, "HELO is a name without a domain")
	}
	ips, err := d.opts.Resolver.IP(ctx, name)
	switch {
	case err == nil && ours && !slices.Contains(ips.Addrs, remote), ours && err != nil && !dns.Temporary(err):
		return h.lies("HELO is " + name + ", a name of this server or of a domain of it, which you are not")
	case err != nil && !dns.Temporary(err):
		return h.find(weightUnresolved, "the name in HELO does not exist")
	}
	return h
}

// literal reads an address, in brackets or not.
func literal(name string) (netip.Addr, bool) {
	if strings.HasPrefix(name, "[") {
		_, ip, err := address.ParseLiteral(name)
		return ip.Unmap(), err == nil && ip.IsValid()
	}
	ip, err := netip.ParseAddr(name)
	return ip.Unmap(), err == nil
}

// sender is what was found out about the domain of a reverse-path.
type sender struct {
	from     address.Address
	refusal  *smtp.Reply
	listings []dnslist.Listing
	findings []guard.Finding
}

func (d *Door) judgeSender(ctx context.Context, from address.Address, set Settings) *sender {
	s := &sender{from: from}
	if from.Domain == "" || from.IsLiteral() || d.opts.Local(from.Domain) {
		return s
	}
	s.listings = d.opts.Lists.Domain(ctx, dnslist.Sender, from.Domain)
	if set.Sender == Off {
		return s
	}
	err := d.takesMail(ctx, from.Domain)
	switch {
	case err == nil:
	case errors.Is(err, dns.ErrNullMX): // RFC 7505, section 4.2
		s.refusal = smtp.Errorf(550, "5.7.27", "the sender's domain %s takes no mail (null MX)", from.Domain)
	case !dns.Temporary(err):
		s.refusal = smtp.Errorf(550, "5.1.8", "the sender's domain %s has no MX and no address: nobody could answer", from.Domain)
	case set.Sender == On:
		s.refusal = smtp.Errorf(450, "4.1.8", "the sender's domain %s can't be looked up now, try again later", from.Domain)
	}
	return s
}

// takesMail asks whether mail could go to a domain.
func (d *Door) takesMail(ctx context.Context, domain string) error {
	mx, err := d.opts.Resolver.MX(ctx, domain)
	if err == nil && mx.Implicit {
		_, err = d.opts.Resolver.IP(ctx, domain)
	}
	return err
}

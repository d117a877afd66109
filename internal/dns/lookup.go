package dns

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// resolve answers a question through aliases that cross responses.
func (r *Resolver) resolve(ctx context.Context, name string, qtype uint16) ([]mdns.RR, Answer, error) {
	q, err := newQuestion(name, qtype)
	if err != nil {
		return nil, Answer{}, err
	}
	ans := Answer{Secure: true, TTL: maxTTL}
	first := q
	for range maxAliases {
		res, err := r.lookup(ctx, q)
		if res != nil {
			ans.Secure = ans.Secure && res.secure
			ans.TTL = min(ans.TTL, max(0, res.expires.Sub(r.opts.Clock())))
			ans.Name = strings.TrimSuffix(res.owner, ".")
		}
		if err != nil {
			var e *Error
			if errors.As(err, &e) && q != first {
				err = failure(first, e.Err, strings.TrimSuffix(q.name, ".")+joinInfo(e.Info))
			}
			if res == nil {
				ans = Answer{}
			}
			return nil, ans, err
		}
		if !res.alias {
			return res.records, ans, nil
		}
		q.name = res.owner
	}
	return nil, Answer{}, failure(first, ErrMalformed, "too many aliases")
}

// newQuestion checks and normalises a name. Letters, digits, hyphens and underscores are what mail needs; anything else
// can't be the name of a mail host, and would have to be escaped.
func newQuestion(name string, qtype uint16) (question, error) {
	bad := &Error{Name: name, Type: mdns.TypeToString[qtype], Err: ErrName}
	trimmed := strings.TrimSuffix(name, ".")
	if trimmed == "" || len(trimmed) > 253 {
		bad.Name = bad.Name[:min(len(bad.Name), 80)]
		return question{}, bad
	}
	for label := range strings.SplitSeq(trimmed, ".") {
		if label == "" || len(label) > 63 {
			return question{}, bad
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return question{}, bad
			}
		}
	}
	return question{name: strings.ToLower(trimmed) + ".", qtype: qtype}, nil
}

// host makes a name from a record presentable, or "" when it can't be a host's.
func host(name string) string {
	q, err := newQuestion(name, mdns.TypeA)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(q.name, ".")
}

// MX finds who takes mail for a domain. Without MX records the domain itself is the exchanger, and Implicit is set;
// whether it has an address is for IP to say. A null MX is ErrNullMX.
func (r *Resolver) MX(ctx context.Context, domain string) (MX, error) {
	rrs, ans, err := r.resolve(ctx, domain, mdns.TypeMX)
	if errors.Is(err, ErrNoData) {
		// The alias of a domain is its canonical name: its address is found the same way from either.
		h := host(domain)
		return MX{Answer: ans, Hosts: []Exchanger{{Host: h}}, Implicit: true}, nil
	}
	if err != nil {
		return MX{}, err
	}
	out := MX{Answer: ans}
	null := false
	for _, rr := range rrs {
		m := rr.(*mdns.MX)
		if m.Mx == "." {
			null = true
			continue
		}
		if h := host(m.Mx); h != "" {
			out.Hosts = append(out.Hosts, Exchanger{Host: h, Preference: m.Preference})
		}
	}
	q, _ := newQuestion(domain, mdns.TypeMX)
	switch {
	case len(out.Hosts) > 0: // a null MX beside others is a mistake of theirs: RFC 7505, section 3, forbids it
	case null:
		return MX{}, failure(q, ErrNullMX, "")
	default:
		return MX{}, failure(q, ErrMalformed, "no MX names a host")
	}
	slices.SortFunc(out.Hosts, func(a, b Exchanger) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Host, b.Host))
	})
	return out, nil
}

// localhost is not asked for: RFC 6761, section 6.3.
var localhost = IPs{
	Answer: Answer{Name: "localhost", Secure: true, TTL: maxTTL},
	Addrs:  []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})},
}

// IP finds all addresses of a host. When one family fails and the other answers, the answer stands, with a TTL of 0.
func (r *Resolver) IP(ctx context.Context, name string) (IPs, error) {
	if strings.EqualFold(strings.TrimSuffix(name, "."), localhost.Name) {
		out := localhost
		out.Addrs = slices.Clone(out.Addrs)
		return out, nil
	}
	type half struct {
		rrs []mdns.RR
		ans Answer
		err error
	}
	ch := make(chan half, 1)
	go func() { // ends with the lookup, which ctx bounds
		rrs, ans, err := r.resolve(ctx, name, mdns.TypeAAAA)
		ch <- half{rrs, ans, err}
	}()
	rrs, ans, err := r.resolve(ctx, name, mdns.TypeA)
	v4, v6 := half{rrs, ans, err}, <-ch
	out := IPs{Answer: Answer{Secure: true, TTL: maxTTL}}
	for _, h := range []half{v6, v4} {
		if h.err != nil && Temporary(h.err) {
			out.TTL = 0 // what did answer is as secure as it is: a failure must not make an insecure host of a secure one
			continue
		}
		out.Secure = out.Secure && h.ans.Secure
		out.TTL = min(out.TTL, h.ans.TTL)
		out.Name = h.ans.Name
		for _, rr := range h.rrs {
			switch a := rr.(type) {
			case *mdns.A:
				if ip, ok := netip.AddrFromSlice(a.A.To4()); ok {
					out.Addrs = append(out.Addrs, ip)
				}
			case *mdns.AAAA:
				if ip, ok := netip.AddrFromSlice(a.AAAA.To16()); ok {
					out.Addrs = append(out.Addrs, ip)
				}
			}
		}
	}
	if len(out.Addrs) > 0 {
		return out, nil
	}
	if v6.err != nil && Temporary(v6.err) {
		return IPs{}, v6.err
	}
	if v4.err != nil {
		return IPs{}, v4.err
	}
	return IPs{}, v6.err
}

// A finds the IPv4 addresses of a name alone: what lists in the DNS answer with (RFC 5782, section 2.1).
func (r *Resolver) A(ctx context.Context, name string) (IPs, error) {
	rrs, ans, err := r.resolve(ctx, name, mdns.TypeA)
	if err != nil {
		return IPs{}, err
	}
	out := IPs{Answer: ans}
	for _, rr := range rrs {
		if ip, ok := netip.AddrFromSlice(rr.(*mdns.A).A.To4()); ok {
			out.Addrs = append(out.Addrs, ip)
		}
	}
	return out, nil
}

// TXT finds the texts of a name.
func (r *Resolver) TXT(ctx context.Context, name string) (Texts, error) {
	rrs, ans, err := r.resolve(ctx, name, mdns.TypeTXT)
	if err != nil {
		return Texts{}, err
	}
	out := Texts{Answer: ans}
	for _, rr := range rrs {
		out.Texts = append(out.Texts, unescape(strings.Join(rr.(*mdns.TXT).Txt, "")))
	}
	return out, nil
}

// unescape undoes the presentation format in which the library keeps strings: \DDD and \X.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
				c = (s[i+1]-'0')*100 + (s[i+2]-'0')*10 + (s[i+3] - '0')
				i += 3
			} else {
				i++
				c = s[i]
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// PTR finds the names of an address. They are claims of whoever holds the reverse zone: check them with IP.
func (r *Resolver) PTR(ctx context.Context, ip netip.Addr) (Names, error) {
	arpa, err := mdns.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return Names{}, &Error{Name: ip.String(), Type: "PTR", Err: ErrName}
	}
	rrs, ans, err := r.resolve(ctx, arpa, mdns.TypePTR)
	if err != nil {
		return Names{}, err
	}
	out := Names{Answer: ans}
	for _, rr := range rrs {
		if h := host(rr.(*mdns.PTR).Ptr); h != "" {
			out.Names = append(out.Names, h)
		}
	}
	if len(out.Names) == 0 {
		return Names{}, &Error{Name: ip.String(), Type: "PTR", Err: ErrNoData, Info: "no name of a host"}
	}
	return out, nil
}

// TLSA finds the TLSA records at a name such as "_25._tcp.mx.example.org". Without Secure they mean nothing
// (RFC 7672, section 2.2).
func (r *Resolver) TLSA(ctx context.Context, name string) (TLSAs, error) {
	rrs, ans, err := r.resolve(ctx, name, mdns.TypeTLSA)
	if err != nil {
		return TLSAs{Answer: ans}, err
	}
	out := TLSAs{Answer: ans}
	for _, rr := range rrs {
		t := rr.(*mdns.TLSA)
		data, err := hex.DecodeString(t.Certificate)
		if err != nil {
			continue
		}
		out.Records = append(out.Records, TLSA{Usage: t.Usage, Selector: t.Selector, Matching: t.MatchingType, Data: data})
	}
	return out, nil
}

// Alias finds the name that a name is an alias of, and whether that step alone is authenticated; ErrNoData when it is no
// alias.
func (r *Resolver) Alias(ctx context.Context, name string) (Answer, error) {
	rrs, ans, err := r.resolve(ctx, name, mdns.TypeCNAME)
	if err != nil {
		return ans, err
	}
	ans.Name = host(rrs[0].(*mdns.CNAME).Target)
	return ans, nil
}

// Ping asks for the root's name servers: it shows that a resolver answers, and how fast.
func (r *Resolver) Ping(ctx context.Context) (time.Duration, error) {
	start := r.opts.Clock()
	_, err := r.ask(ctx, question{name: ".", qtype: mdns.TypeNS})
	return r.opts.Clock().Sub(start), err
}

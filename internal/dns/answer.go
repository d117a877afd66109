package dns

import (
	"fmt"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// result is the useful part of one response, as it is cached. Its fields do not change after it was made.
type result struct {
	records []mdns.RR // of the type asked for, at the end of the chain of aliases
	owner   string    // end of the chain, with trailing dot
	alias   bool      // the chain left this response: owner must be asked for
	secure  bool
	ttl     time.Duration
	expires time.Time // set by the cache
	err     error     // *Error of kind ErrNotFound or ErrNoData, for a negative answer
	cost    int       // octets, roughly
}

// digest reads a response. An error means that this server has nothing to say.
func digest(q question, msg *mdns.Msg, secure bool) (*result, *Error) {
	switch msg.Rcode {
	case mdns.RcodeSuccess, mdns.RcodeNameError:
	case mdns.RcodeServerFailure:
		if text, bogus := validationFailure(msg); bogus {
			return nil, failure(q, ErrBogus, text)
		}
		return nil, failure(q, ErrServFail, "SERVFAIL")
	default:
		return nil, failure(q, ErrServFail, mdns.RcodeToString[msg.Rcode])
	}
	res := &result{owner: q.name, secure: secure, ttl: maxTTL, cost: msg.Len() + 200}
	if err := follow(q, msg, res); err != nil {
		return nil, err
	}
	for _, rr := range msg.Answer {
		h := rr.Header()
		if h.Class == mdns.ClassINET && h.Rrtype == q.qtype && strings.EqualFold(h.Name, res.owner) && len(res.records) < maxRecords {
			res.records = append(res.records, rr)
			res.lower(h.Ttl)
		}
	}
	switch {
	case len(res.records) > 0:
		return res, nil
	case msg.Rcode == mdns.RcodeNameError:
		res.err = failure(q, ErrNotFound, "")
	case res.owner != q.name:
		res.alias = true
		return res, nil
	default:
		res.err = failure(q, ErrNoData, "")
	}
	res.negative(msg)
	return res, nil
}

// follow walks the CNAMEs of a response. Each is looked for once among all records, so the work is bounded.
func follow(q question, msg *mdns.Msg, res *result) *Error {
	if q.qtype == mdns.TypeCNAME {
		return nil
	}
	for hops := 0; ; hops++ {
		next := ""
		for _, rr := range msg.Answer {
			c, ok := rr.(*mdns.CNAME)
			if ok && c.Hdr.Class == mdns.ClassINET && strings.EqualFold(c.Hdr.Name, res.owner) {
				next = strings.ToLower(c.Target)
				res.lower(c.Hdr.Ttl)
				break
			}
		}
		if next == "" {
			return nil
		}
		if hops == maxAliases || next == res.owner {
			return failure(q, ErrMalformed, "too many aliases")
		}
		res.owner = next
	}
}

// lower takes a TTL into account. One with the high bit set means 0 (RFC 2181, section 8).
func (res *result) lower(ttl uint32) {
	d := time.Duration(ttl) * time.Second
	if ttl > 1<<31-1 {
		d = 0
	}
	res.ttl = min(res.ttl, d)
}

// negative sets how long a negative answer may be kept: without an SOA not at all (RFC 2308, section 5).
func (res *result) negative(msg *mdns.Msg) {
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*mdns.SOA); ok {
			res.lower(min(soa.Hdr.Ttl, soa.Minttl))
			res.ttl = min(res.ttl, maxNegativeTTL)
			return
		}
	}
	res.ttl = 0
}

// validationFailure finds the extended error codes of a failed validation, RFC 8914, sections 4.6 to 4.13.
func validationFailure(msg *mdns.Msg) (string, bool) {
	opt := msg.IsEdns0()
	if opt == nil {
		return "", false
	}
	for _, o := range opt.Option {
		if ede, ok := o.(*mdns.EDNS0_EDE); ok && ede.InfoCode >= mdns.ExtendedErrorCodeDNSSECIndeterminate && ede.InfoCode <= mdns.ExtendedErrorCodeNSECMissing {
			return fmt.Sprintf("extended error %d", ede.InfoCode), true
		}
	}
	return "", false
}

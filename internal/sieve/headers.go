package sieve

import (
	"slices"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

func compileNot(c *compiler, k *call) (test, error) {
	t, err := c.test(k.node.tests[0])
	return func(r *run) bool { return !t(r) }, err
}

// compileOf compiles anyof and allof: the first test that decides is the last one run.
func compileOf(decides bool) func(*compiler, *call) (test, error) {
	return func(c *compiler, k *call) (test, error) {
		list := make([]test, len(k.node.tests))
		for i, n := range k.node.tests {
			var err error
			if list[i], err = c.test(n); err != nil {
				return nil, err
			}
		}
		return func(r *run) bool {
			for _, t := range list {
				r.spend(16)
				if r.err != nil {
					return false
				}
				if t(r) == decides {
					return decides
				}
			}
			return !decides
		}, nil
	}
}

// index says which of several fields of one name is meant (RFC 5260, section 6).
type index struct {
	n    int64 // from 1; 0: all
	last bool  // from the end
}

func (c *compiler) index(k *call) (index, error) {
	i := index{last: k.has("last")}
	if a := k.tags["index"]; a != nil {
		if i.n = a.number; i.n == 0 {
			return i, faultAt(a.pos, "\":index\" counts from 1")
		}
	} else if a := k.tags["last"]; a != nil {
		return i, faultAt(a.pos, "\":last\" needs \":index\"")
	}
	return i, nil
}

// pick gives the ones that are meant.
func pick[T any](i index, list []T) []T {
	n := i.n
	switch {
	case n == 0:
		return list
	case n > int64(len(list)):
		return nil
	case i.last:
		n = int64(len(list)) - n + 1
	}
	return list[n-1 : n]
}

// scope says whose header is looked at (RFC 5703, section 4).
type scope struct {
	mime, children bool
}

func scopeOf(k *call) (scope, error) {
	s := scope{mime: k.has("mime"), children: k.has("anychild")}
	if s.children && !s.mime {
		return s, faultAt(k.tags["anychild"].pos, "\":anychild\" needs \":mime\"")
	}
	return s, nil
}

// parts are the parts that are looked at: without ":mime" the message itself, whatever loop is around.
func (s scope) parts(r *run) []*message.Part {
	p := r.in.Message
	if s.mime && r.part != nil {
		p = r.part
	}
	if !s.children {
		return []*message.Part{p}
	}
	var out []*message.Part
	p.Walk(func(q *message.Part) bool {
		r.spend(64)
		out = append(out, q)
		return r.err == nil
	})
	return out
}

// headerOf is the header of a part: that of the message as it was edited.
func (r *run) headerOf(p *message.Part) message.Header {
	if p == r.in.Message {
		return r.header
	}
	return p.Header
}

// fields are the fields of a name in a header.
func (r *run) fields(h message.Header, name string) []*message.Field {
	r.spend(len(h))
	var out []*message.Field
	for i := range h {
		if h[i].Is(name) {
			out = append(out, &h[i])
		}
	}
	return out
}

// decodedFields are the values of the fields of a name, in UTF-8 and without white space around them.
func (r *run) decodedFields(p *message.Part, name string) []string {
	top := p == r.in.Message
	if list, ok := r.decoded[name]; ok && top {
		return list
	}
	fields := r.fields(r.headerOf(p), name)
	out := make([]string, len(fields))
	for i, f := range fields {
		r.spend(len(f.Value))
		if r.err != nil {
			return nil
		}
		out[i] = strings.TrimSpace(message.DecodeHeader(f.Value))
	}
	if top {
		r.decoded[name] = out
	}
	return out
}

// names checks the names of fields that are written as they are.
func (c *compiler) names(a *arg, ok func(string) bool, what string) ([]*text, error) {
	list, err := c.texts(a)
	for i, t := range list {
		if err == nil && t.parts == nil && !ok(t.lit) {
			err = faultAt(a.strings[i].pos, "\"", t.lit, "\" is no ", what)
		}
	}
	return list, err
}

// fieldName tells whether a string can name a header field (RFC 5322, section 2.2).
func fieldName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 127 || s[i] == ':' {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

func compileHeader(c *compiler, k *call) (test, error) {
	names, err := c.names(k.pos[0], fieldName, "name of a header field")
	if err != nil {
		return nil, err
	}
	m, err := c.matcher(k, k.pos[1])
	if err != nil {
		return nil, err
	}
	ix, err := c.index(k)
	if err != nil {
		return nil, err
	}
	sc, err := scopeOf(k)
	if err != nil {
		return nil, err
	}
	form, err := c.mimeForm(k)
	if err != nil {
		return nil, err
	}
	return func(r *run) bool {
		var list []string
		for _, p := range sc.parts(r) {
			for _, t := range names {
				name := t.value(r)
				if form != nil {
					list = append(list, form(r, p, name)...)
					continue
				}
				list = append(list, pick(ix, r.decodedFields(p, name))...)
			}
		}
		return m.any(r, list)
	}, nil
}

// addressFields are those that hold addresses (RFC 5228, section 5.1): other fields are refused, as the RFC wants it.
var addressFields = []string{
	"from", "to", "cc", "bcc", "sender", "reply-to", "resent-from", "resent-to", "resent-cc", "resent-bcc", "resent-sender",
	"resent-reply-to", "return-path", "delivered-to", "envelope-to", "x-envelope-to", "x-original-to", "apparently-to", "errors-to",
	"disposition-notification-to", "return-receipt-to", "mail-followup-to", "mail-reply-to", "x-forwarded-to", "x-forwarded-for",
}

func addressField(s string) bool { return slices.Contains(addressFields, strings.ToLower(s)) }

// maxAddresses bounds the addresses that are taken from one field.
const maxAddresses = 10_000

func compileAddress(c *compiler, k *call) (test, error) {
	names, err := c.names(k.pos[0], addressField, "header field with addresses")
	if err != nil {
		return nil, err
	}
	m, err := c.matcher(k, k.pos[1])
	if err != nil {
		return nil, err
	}
	ix, err := c.index(k)
	if err != nil {
		return nil, err
	}
	sc, err := scopeOf(k)
	if err != nil {
		return nil, err
	}
	part := addressPart(k)
	return func(r *run) bool {
		var list []string
		for _, p := range sc.parts(r) {
			for _, t := range names {
				name := t.value(r)
				if !addressField(name) {
					continue
				}
				for _, f := range pick(ix, r.fields(r.headerOf(p), name)) {
					r.spend(16 * len(f.Value))
					if r.err != nil {
						return false
					}
					for _, a := range message.ParseAddressList(f.Value, maxAddresses) {
						if a.Local != "" || a.Domain != "" {
							list = appendAddress(list, part, r.in.Separator, a.Local, a.Domain, a.Addr())
						}
					}
				}
			}
		}
		return m.any(r, list)
	}, nil
}

// addressPart is the part of an address that a test compares.
func addressPart(k *call) string {
	for _, t := range addressTags {
		if k.has(t.name) {
			return t.name
		}
	}
	return "all"
}

// appendAddress adds a part of an address, unless the address doesn't have it (RFC 5233, section 4).
func appendAddress(list []string, part, sep, local, domain, all string) []string {
	switch part {
	case "localpart":
		return append(list, local)
	case "domain":
		return append(list, domain)
	case "user", "detail":
		user, detail, found := local, "", false
		if sep != "" {
			user, detail, found = strings.Cut(local, sep)
		}
		if part == "user" {
			return append(list, user)
		}
		if found {
			return append(list, detail)
		}
		return list
	}
	return append(list, all)
}

func compileEnvelope(c *compiler, k *call) (test, error) {
	names, err := c.names(k.pos[0], func(s string) bool {
		s = strings.ToLower(s)
		return s == "from" || s == "to"
	}, "part of the envelope: expected \"from\" or \"to\"")
	if err != nil {
		return nil, err
	}
	m, err := c.matcher(k, k.pos[1])
	if err != nil {
		return nil, err
	}
	part := addressPart(k)
	return func(r *run) bool {
		var list []string
		for _, t := range names {
			var a address.Address
			switch strings.ToLower(t.value(r)) {
			case "from":
				a = r.in.From
			case "to":
				a = r.in.To
			default:
				continue
			}
			list = appendAddress(list, part, r.in.Separator, a.Local, a.Domain, a.String())
		}
		return m.any(r, list)
	}, nil
}

func compileExists(c *compiler, k *call) (test, error) {
	names, err := c.names(k.pos[0], fieldName, "name of a header field")
	if err != nil {
		return nil, err
	}
	sc, err := scopeOf(k)
	return func(r *run) bool {
		for _, t := range names {
			name := t.value(r)
			if !slices.ContainsFunc(sc.parts(r), func(p *message.Part) bool { return len(r.fields(r.headerOf(p), name)) > 0 }) {
				return false
			}
		}
		return true
	}, err
}

func compileSize(_ *compiler, k *call) (test, error) {
	n, over := k.pos[0].number, k.has("over")
	if !over && !k.has("under") {
		return nil, faultAt(k.node.pos, "\"size\" needs \":over\" or \":under\"")
	}
	return func(r *run) bool {
		if over {
			return r.in.Size > n
		}
		return r.in.Size < n
	}, nil
}

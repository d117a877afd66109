package control

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/guard"
)

// Operations on the access lists.
var (
	AccessAdd    = operation("access.add", (*Service).accessAdd)
	AccessRemove = operation("access.remove", (*Service).accessRemove)
	AccessList   = operation("access.list", (*Service).accessList)
	AccessTest   = operation("access.test", (*Service).accessTest)
)

// AccessRules is all access rules in order.
type AccessRules struct {
	Access []directory.AccessRule `json:"access"`
}

// AccessFilter selects rules.
type AccessFilter struct {
	For string `json:"for,omitempty"` // only of this domain or account
}

func (s *Service) accessAdd(ctx context.Context, req directory.AccessRule) (directory.AccessRule, error) {
	return s.dir.SetAccess(ctx, req)
}

func (s *Service) accessRemove(ctx context.Context, req directory.AccessRule) (Done, error) {
	return Done{}, s.dir.RemoveAccess(ctx, req)
}

func (s *Service) accessList(_ context.Context, req AccessFilter) (AccessRules, error) {
	out := AccessRules{Access: []directory.AccessRule{}}
	for _, r := range s.rules().Access {
		if req.For == "" || strings.EqualFold(req.For, r.For) {
			out.Access = append(out.Access, r)
		}
	}
	return out, nil
}

func (s *Service) rules() directory.Rules {
	if r := s.dir.Settings().Rules; r != nil {
		return *r
	}
	return directory.Rules{}
}

// AccessQuestion asks what the rules say of a peer.
type AccessQuestion struct {
	Address string `json:"address"`
	HELO    string `json:"helo,omitempty"`
	Sender  string `json:"sender,omitempty"`
	For     string `json:"for,omitempty"` // a domain of ours that mail is to, or an account that is signed in to
}

// AccessAnswers is what the rules say, a line a listener and stage at which one of them speaks, and one a listener without.
type AccessAnswers struct {
	Answers []AccessAnswer `json:"answers"`
	Exempt  bool           `json:"exempt"` // from limits and delays, by guard.exempt
}

// AccessAnswer is what holds on a listener.
type AccessAnswer struct {
	Listener string                 `json:"listener"`
	Stage    string                 `json:"stage"` // connect, helo, mail, rcpt, sign-in
	Action   directory.AccessAction `json:"action"`
	Rule     *directory.AccessRule  `json:"rule"` // null: no rule speaks of it
}

func (s *Service) accessTest(_ context.Context, req AccessQuestion) (AccessAnswers, error) {
	a, err := netip.ParseAddr(req.Address)
	if err != nil || a.Zone() != "" {
		return AccessAnswers{}, &Error{Kind: Invalid, Field: "address", Text: "address: an IP address is needed"}
	}
	q := accessQuery{list: guard.CompileAccess(s.rules().Access), addr: a, req: req}
	if req.Sender != "" {
		if q.from, err = parseAddress("sender", req.Sender); err != nil {
			return AccessAnswers{}, err
		}
	}
	if err := q.scope(); err != nil {
		return AccessAnswers{}, err
	}
	out := AccessAnswers{Exempt: slices.ContainsFunc(s.dir.Settings().Guard.ExemptNetworks(), func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })}
	for _, l := range guard.Listeners {
		out.Answers = append(out.Answers, q.on(l)...)
	}
	return out, nil
}

// accessQuery is a question on its way.
type accessQuery struct {
	list            *guard.AccessList
	addr            netip.Addr
	from            address.Address
	domain, account string
	req             AccessQuestion
}

func (q *accessQuery) scope() error {
	switch {
	case q.req.For == "":
	case strings.Contains(q.req.For, "@"):
		a, err := parseAddress("for", q.req.For)
		q.account = a.Key()
		return err
	default:
		d, err := address.ParseDomain(q.req.For)
		if err != nil {
			return addressError("for", err)
		}
		q.domain = d
	}
	return nil
}

// on tells what the rules say on a listener.
func (q *accessQuery) on(l guard.Listener) []AccessAnswer {
	var out []AccessAnswer
	add := func(stage string, r directory.AccessRule, ok bool) {
		if ok {
			out = append(out, AccessAnswer{string(l), stage, r.Action, &r})
		}
	}
	r, ok := q.list.Network(l, "", q.addr)
	add("connect", r, ok)
	if l != guard.IMAP && l != guard.POP3 {
		r, ok = q.list.Helo(l, "", q.req.HELO)
		add("helo", r, ok)
		r, ok = q.list.Sender(l, "", q.from)
		add("mail", r, ok)
		if q.domain != "" {
			r, ok = q.list.Network(l, q.domain, q.addr)
			add("rcpt", r, ok)
			r, ok = q.list.Sender(l, q.domain, q.from)
			add("rcpt", r, ok)
			r, ok = q.list.Helo(l, q.domain, q.req.HELO)
			add("rcpt", r, ok)
		}
	}
	if q.account != "" && l != guard.MX {
		r, ok = q.list.Network(l, q.account, q.addr)
		add("sign-in", r, ok)
		if allowed, _ := q.list.SignIn(l, q.account, q.addr); !ok && !allowed {
			out = append(out, AccessAnswer{string(l), "sign-in", directory.Deny, nil})
		}
	}
	if len(out) == 0 {
		out = append(out, AccessAnswer{string(l), "connect", directory.Allow, nil})
	}
	return out
}

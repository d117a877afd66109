package control

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/guard/dnslist"
)

// Operations on the DNS lists that strangers are looked up in.
var (
	DNSListAdd    = operation("dnslist.add", (*Service).dnsListAdd)
	DNSListRemove = operation("dnslist.remove", (*Service).dnsListRemove)
	DNSListList   = operation("dnslist.list", (*Service).dnsListList)
	DNSListTest   = operation("dnslist.test", (*Service).dnsListTest)
)

// settingDNSLists is where they stand.
const settingDNSLists = "stranger.dns_lists"

// DNSListDraft is a list as it is written: its zone and options.
type DNSListDraft struct {
	Text string `json:"text"`
}

// DNSListRef names a list by its name or its zone.
type DNSListRef struct {
	Name string `json:"name"`
}

// DNSList is one list.
type DNSList struct {
	Name    string   `json:"name"`
	Zone    string   `json:"zone"`
	Allow   bool     `json:"allow,omitempty"`
	Of      string   `json:"of"` // address, or some of helo,sender,ptr
	Weight  int      `json:"weight"`
	Codes   []string `json:"codes,omitempty"` // weights of some answers: "127.0.0.2=8"
	Timeout string   `json:"timeout"`
	Text    string   `json:"text"`

	State string    `json:"state,omitempty"` // of a running server: "in use", or why it is off
	Next  time.Time `json:"next,omitzero"`   // when it is tried again
}

// DNSLists is all lists.
type DNSLists struct {
	Lists []DNSList `json:"lists"`
}

func shownDNSList(l dnslist.List) DNSList {
	out := DNSList{
		Name: l.Name, Zone: l.Zone, Allow: l.Allow, Of: l.Of.String(), Weight: l.Weight, Timeout: l.Timeout.String(), Text: l.String(),
	}
	for _, c := range l.Codes {
		out.Codes = append(out.Codes, c.String())
	}
	return out
}

func (s *Service) dnsListAdd(ctx context.Context, req DNSListDraft) (DNSList, error) {
	l, err := dnslist.Parse(req.Text)
	if err != nil {
		return DNSList{}, &Error{Kind: Invalid, Field: "list", Text: err.Error(), cause: err}
	}
	return shownDNSList(l), s.changeDNSLists(ctx, func(lists []string) ([]string, error) {
		for _, have := range s.dir.Settings().Stranger.Lists() {
			if have.Name == l.Name || have.Zone == l.Zone {
				return nil, Errorf(Conflict, "list %s exists already: remove it first to change it", have.Name)
			}
		}
		return append(lists, l.String()), nil
	})
}

func (s *Service) dnsListRemove(ctx context.Context, req DNSListRef) (Done, error) {
	return Done{}, s.changeDNSLists(ctx, func(lists []string) ([]string, error) {
		for i, l := range s.dir.Settings().Stranger.Lists() {
			if strings.EqualFold(l.Name, req.Name) || strings.EqualFold(l.Zone, req.Name) {
				return append(lists[:i], lists[i+1:]...), nil
			}
		}
		return nil, Errorf(NotFound, "no DNS list %s; `waxwing dnslist list` shows those that there are", req.Name)
	})
}

// changeDNSLists changes the setting, unless somebody else changes it at the same time.
func (s *Service) changeDNSLists(ctx context.Context, change func(lists []string) ([]string, error)) error {
	set := s.dir.Settings()
	next, err := change(append([]string{}, set.Stranger.DNSLists...))
	if err != nil {
		return err
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return err
	}
	_, err = s.dir.ChangeSettings(ctx, set.Version, directory.Actor(ctx), map[string]json.RawMessage{settingDNSLists: raw})
	return err
}

func (s *Service) dnsListList(context.Context, Done) (DNSLists, error) {
	out := DNSLists{Lists: []DNSList{}}
	var states []dnslist.Status
	if s.server != nil {
		states = s.server.DNSLists()
	}
	for _, l := range s.dir.Settings().Stranger.Lists() {
		shown := shownDNSList(l)
		for _, st := range states {
			if st.List.String() != l.String() {
				continue
			}
			shown.State = "in use"
			if st.Off != "" {
				shown.State, shown.Next = "off: "+st.Off, utc(st.Next)
			}
		}
		out.Lists = append(out.Lists, shown)
	}
	return out, nil
}

// DNSListQuestion asks what the lists say about an address or a domain.
type DNSListQuestion struct {
	About string `json:"about"`
	List  string `json:"list,omitempty"` // only this one, by name or zone; or a draft that isn't in use
}

// DNSListAnswers is what they say.
type DNSListAnswers struct {
	About   string          `json:"about"`
	Answers []DNSListAnswer `json:"answers"`
	Score   int             `json:"score"`   // the sum of the weights
	Allowed bool            `json:"allowed"` // an allow list spares it
}

// DNSListAnswer is what one list says.
type DNSListAnswer struct {
	List   string `json:"list"`
	Listed bool   `json:"listed"`
	Answer string `json:"answer,omitempty"`
	Weight int    `json:"weight"`
	Text   string `json:"text,omitempty"`
	Failed string `json:"failed,omitempty"` // why there is no answer
	Fault  string `json:"fault,omitempty"`  // why the list isn't used
}

func (s *Service) dnsListTest(ctx context.Context, req DNSListQuestion) (DNSListAnswers, error) {
	if s.tryList == nil {
		return DNSListAnswers{}, Errorf(Unavailable, "no resolver")
	}
	addr, domain, err := aboutWhom(req.About)
	if err != nil {
		return DNSListAnswers{}, err
	}
	lists, err := s.listsToTry(req.List, addr.IsValid())
	if err != nil {
		return DNSListAnswers{}, err
	}
	out := DNSListAnswers{About: req.About, Answers: []DNSListAnswer{}}
	for _, l := range lists {
		t, err := s.tryList(ctx, l, addr, domain)
		if err != nil {
			return out, err
		}
		a := DNSListAnswer{List: l.Name, Failed: t.Failed, Fault: t.Fault, Text: t.Text}
		if t.Listing != nil {
			a.Listed, a.Answer, a.Weight = true, t.Listing.Answer, t.Listing.Weight
			out.Allowed = out.Allowed || l.Allow
			if !l.Allow {
				out.Score += a.Weight
			}
		}
		out.Answers = append(out.Answers, a)
	}
	return out, nil
}

func aboutWhom(text string) (a netip.Addr, domain string, err error) {
	if a, err = netip.ParseAddr(text); err == nil {
		return a.Unmap().WithZone(""), "", nil
	}
	if domain, err = address.ParseDomain(text); err != nil {
		return a, "", &Error{Kind: Invalid, Field: "about", Text: "about: an IP address or a domain"}
	}
	return netip.Addr{}, domain, nil
}

// listsToTry are those of addresses or those of domains, or the one that is named.
func (s *Service) listsToTry(name string, addresses bool) ([]dnslist.List, error) {
	var out []dnslist.List
	for _, l := range s.dir.Settings().Stranger.Lists() {
		if name != "" && !strings.EqualFold(l.Name, name) && !strings.EqualFold(l.Zone, name) || name == "" && (l.Of == dnslist.Address) != addresses {
			continue
		}
		out = append(out, l)
	}
	if name == "" || len(out) > 0 {
		return out, nil
	}
	l, err := dnslist.Parse(name)
	if err != nil {
		return nil, &Error{Kind: Invalid, Field: "list", Text: err.Error(), cause: err}
	}
	return []dnslist.List{l}, nil
}

package directory

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/address"
)

// Limits of what follows.
const (
	// MaxForwards is how many addresses an account's mail may be forwarded to.
	MaxForwards = 20
	maxExcepted = 1000 // local parts that a catch-all leaves out
	maxSenders  = 1000 // who may send to a group
)

// Forward says where the mail of an account goes beside its mailbox or in its place. The zero value is none.
type Forward struct {
	To     []address.Address
	Copy   bool // the mailbox gets it too
	Paused bool // kept, but without effect
}

// On tells whether mail is forwarded.
func (f Forward) On() bool { return len(f.To) > 0 && !f.Paused }

// Senders is who may send to a group.
type Senders string

// The kinds of Senders. Who claims an address of this server must have signed in to count as it.
const (
	AnySender     Senders = "" // everyone
	MemberSenders Senders = "members"
	DomainSenders Senders = "domain" // addresses of the group's own domain
	ListedSenders Senders = "list"   // Allowed
)

// Group is what an alias says beside its targets. The zero value lets everyone send, and failures go to the sender.
type Group struct {
	Senders Senders
	Allowed []string        // addresses and domains, with ListedSenders
	Owner   address.Address // gets the failures of mail to members elsewhere, in place of the sender; zero: none
	Hidden  bool            // no sender learns who the members are; needs an owner
}

// The JSON forms of what the rows hold.
type (
	domainOptions struct {
		AliasOf    string   `json:"alias_of,omitempty"`
		Subaddress string   `json:"subaddress,omitempty"`
		Except     []string `json:"catch_all_except,omitempty"`
	}
	accountOptions struct {
		Forward []string `json:"forward,omitempty"`
		Copy    bool     `json:"forward_copy,omitempty"`
		Paused  bool     `json:"forward_paused,omitempty"`
	}
	groupOptions struct {
		Senders Senders  `json:"senders,omitempty"`
		Allowed []string `json:"allowed,omitempty"`
		Owner   string   `json:"owner,omitempty"`
		Hidden  bool     `json:"hidden,omitempty"`
	}
)

// optionsText writes options as a row holds them; "" for none.
func optionsText(v any) string {
	raw, err := json.Marshal(v)
	if err != nil || string(raw) == "{}" {
		return "" // text, booleans and lists of text always marshal
	}
	return string(raw)
}

// NoSubaddress as the separator of a domain turns sub-addresses off.
const NoSubaddress = "off"

const separators = "+-=_#~"

func domainOptionsText(d Domain) string {
	return optionsText(domainOptions{AliasOf: d.AliasOf, Subaddress: d.Subaddress, Except: d.CatchAllExcept})
}

// checkDomainOptions holds what a domain may say beside its addresses; local tells the domains that are ours, and their own
// AliasOf.
func checkDomainOptions(dom *Domain, aliasOf func(domain string) (string, bool)) error {
	if dom.AliasOf != "" {
		name, err := address.ParseDomain(dom.AliasOf)
		if err != nil {
			return &FieldError{Field: "alias_of", Value: dom.AliasOf, Want: "a domain of this server"}
		}
		dom.AliasOf = name
		other, ok := aliasOf(name)
		switch own, _ := address.ParseDomain(dom.Name); {
		case !ok:
			return &FieldError{Field: "alias_of", Value: name, Want: "a domain of this server"}
		case name == own:
			return &FieldError{Field: "alias_of", Value: name, Want: "another domain than itself"}
		case other != "":
			return &FieldError{Field: "alias_of", Value: name, Want: "a domain that is itself no alias of " + other}
		case !dom.CatchAll.IsNull():
			return &FieldError{Field: "catch_all", Value: dom.CatchAll.String(), Want: "no catch-all: the one of " + name + " serves"}
		}
	}
	if s := dom.Subaddress; s != "" && s != NoSubaddress && (len(s) != 1 || !strings.Contains(separators, s)) {
		return &FieldError{Field: "subaddress", Value: s, Want: "off, one of + - = _ # ~, or nothing for the server's"}
	}
	if len(dom.CatchAllExcept) > maxExcepted {
		return &FieldError{Field: "catch_all_except", Want: fmt.Sprintf("at most %d local parts", maxExcepted)}
	}
	for _, e := range dom.CatchAllExcept {
		if e == "" || len(e) > address.MaxLocal || strings.ContainsAny(e, "@ \t\r\n") || strings.Contains(strings.TrimSuffix(e, "*"), "*") {
			return &FieldError{Field: "catch_all_except", Value: e, Want: "what stands before the @, or the beginning of it with * behind"}
		}
	}
	return nil
}

// readDomainOptions fills in what the row of a domain says.
func readDomainOptions(text string, dom *Domain) error {
	if text == "" {
		return nil
	}
	var o domainOptions
	err := json.Unmarshal([]byte(text), &o)
	dom.AliasOf, dom.Subaddress, dom.CatchAllExcept = o.AliasOf, o.Subaddress, o.Except
	return err
}

// excepted tells whether a catch-all leaves an address out.
func (d *Domain) excepted(local string) bool {
	if len(d.CatchAllExcept) == 0 {
		return false
	}
	local = address.FoldLocal(local)
	return slices.ContainsFunc(d.CatchAllExcept, func(e string) bool {
		if start, ok := strings.CutSuffix(address.FoldLocal(e), "*"); ok {
			return strings.HasPrefix(local, start)
		}
		return address.FoldLocal(e) == local
	})
}

// separator is what stands between user and tag in addresses of the domain; "" for no sub-addresses.
func (d *Domain) separator(standard string) string {
	switch d.Subaddress {
	case "":
		return standard
	case NoSubaddress:
		return ""
	}
	return d.Subaddress
}

// checkForward holds what an account's forwarding may say, and gives its text. It follows no aliases: loops that lead
// through others are found when mail is routed, and by Directory.SetForward.
func checkForward(own address.Address, f Forward) (string, error) {
	if len(f.To) > MaxForwards {
		return "", &FieldError{Field: "forward", Want: fmt.Sprintf("at most %d addresses", MaxForwards)}
	}
	o := accountOptions{Copy: f.Copy, Paused: f.Paused}
	seen := map[string]bool{own.Key(): true}
	for _, to := range f.To {
		if to.Local == "" || to.Domain == "" || to.Domain[0] == '[' {
			return "", &FieldError{Field: "forward", Value: to.String(), Want: "addresses such as name@example.test"}
		}
		if seen[to.Key()] {
			return "", &FieldError{Field: "forward", Value: to.String(), Want: "each address once, and not the account's own"}
		}
		seen[to.Key()] = true
		o.Forward = append(o.Forward, to.String())
	}
	if len(f.To) == 0 {
		return "", nil
	}
	return optionsText(o), nil
}

// readForward reads what the row of an account says.
func readForward(text string) (Forward, error) {
	if text == "" {
		return Forward{}, nil
	}
	var o accountOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return Forward{}, err
	}
	f := Forward{Copy: o.Copy, Paused: o.Paused}
	for _, t := range o.Forward {
		a, err := address.Parse(t)
		if err != nil {
			return Forward{}, err
		}
		f.To = append(f.To, a)
	}
	return f, nil
}

// checkGroup holds what an alias may say beside its targets, and gives its text.
func checkGroup(g Group) (string, error) {
	switch g.Senders {
	case AnySender, MemberSenders, DomainSenders:
		if len(g.Allowed) > 0 {
			return "", &FieldError{Field: "allowed", Want: `nothing, unless senders is "list"`}
		}
	case ListedSenders:
		if len(g.Allowed) == 0 || len(g.Allowed) > maxSenders {
			return "", &FieldError{Field: "allowed", Want: fmt.Sprintf("1 to %d addresses or domains", maxSenders)}
		}
	default:
		return "", &FieldError{Field: "senders", Value: string(g.Senders), Want: "members, domain, list, or nothing for everyone"}
	}
	o := groupOptions{Senders: g.Senders, Hidden: g.Hidden}
	for _, s := range g.Allowed {
		if a, err := address.Parse(s); err == nil {
			o.Allowed = append(o.Allowed, a.String())
		} else if d, err := address.ParseDomain(s); err == nil {
			o.Allowed = append(o.Allowed, d)
		} else {
			return "", &FieldError{Field: "allowed", Value: s, Want: "addresses and domains"}
		}
	}
	if !g.Owner.IsNull() {
		if g.Owner.Domain == "" || g.Owner.IsLiteral() {
			return "", &FieldError{Field: "owner", Value: g.Owner.String(), Want: "an address such as name@example.test"}
		}
		o.Owner = g.Owner.String()
	} else if g.Hidden {
		return "", &FieldError{Field: "owner", Want: "an address: of hidden members no failure goes to the sender"}
	}
	return optionsText(o), nil
}

// readGroup reads what the row of an alias says.
func readGroup(text string) (Group, error) {
	if text == "" {
		return Group{}, nil
	}
	var o groupOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return Group{}, err
	}
	g := Group{Senders: o.Senders, Allowed: o.Allowed, Hidden: o.Hidden}
	var err error
	if o.Owner != "" {
		g.Owner, err = address.Parse(o.Owner)
	}
	return g, err
}

// lets tells whether a list of addresses and domains names an address.
func (g *Group) lets(a address.Address) bool {
	key := a.Key()
	return slices.ContainsFunc(g.Allowed, func(s string) bool {
		if strings.IndexByte(s, '@') < 0 {
			return s == a.Domain
		}
		listed, err := address.Parse(s)
		return err == nil && listed.Key() == key
	})
}

// text is a forward for people, who compare two.
func (f Forward) text() string {
	if len(f.To) == 0 {
		return ""
	}
	out := joined(f.To)
	if f.Copy {
		out += "; with a copy"
	}
	if f.Paused {
		out += "; paused"
	}
	return out
}

// text is the same of a group.
func (g Group) text() string {
	var parts []string
	if g.Senders != AnySender {
		parts = append(parts, "senders "+string(g.Senders))
	}
	if len(g.Allowed) > 0 {
		parts = append(parts, "allowed "+strings.Join(g.Allowed, ", "))
	}
	if !g.Owner.IsNull() {
		parts = append(parts, "owner "+g.Owner.Unicode())
	}
	if g.Hidden {
		parts = append(parts, "hidden")
	}
	return strings.Join(parts, "; ")
}

func joined(list []address.Address) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.Unicode()
	}
	return strings.Join(out, ", ")
}

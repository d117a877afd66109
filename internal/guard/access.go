package guard

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/smtp"
)

// AccessList is a set of access rules in a form that is asked in time that depends on the length of a prefix or name, not on
// the number of rules. It never changes.
type AccessList struct {
	networks map[networkKey]directory.AccessRule
	lengths4 [33]bool // prefix lengths that rules have
	lengths6 [129]bool
	names    map[nameKey]directory.AccessRule // of senders and hosts, with their prefix
	limited  map[string]bool                  // accounts with rules that allow
}

type networkKey struct {
	prefix          netip.Prefix // zero: all
	listener, scope string
}

type nameKey struct{ name, listener, scope string }

// CompileAccess makes the list of some rules.
func CompileAccess(rules []directory.AccessRule) *AccessList {
	l := &AccessList{
		networks: make(map[networkKey]directory.AccessRule), names: make(map[nameKey]directory.AccessRule), limited: make(map[string]bool),
	}
	for _, r := range rules {
		if strings.HasPrefix(r.Subject, directory.SenderSubject) || strings.HasPrefix(r.Subject, directory.HeloSubject) {
			l.names[nameKey{r.Subject, r.Listener, r.For}] = r
			continue
		}
		key := networkKey{listener: r.Listener, scope: r.For}
		if r.Subject != directory.AllSubject {
			p, err := directory.ParseNetwork(r.Subject)
			if err != nil {
				continue // the directory lets none through
			}
			key.prefix = p
			if p.Addr().Is4() {
				l.lengths4[p.Bits()] = true
			} else {
				l.lengths6[p.Bits()] = true
			}
		}
		l.networks[key] = r
		if strings.Contains(r.For, "@") && r.Action != directory.Deny {
			l.limited[r.For] = true
		}
	}
	return l
}

// Network finds the rule for an address: the longest prefix counts, and of two of one length the one that names the
// listener. scope is "", a domain or an account.
func (l *AccessList) Network(listener Listener, scope string, a netip.Addr) (directory.AccessRule, bool) {
	a = a.Unmap().WithZone("")
	lengths := l.lengths4[:]
	if a.Is6() {
		lengths = l.lengths6[:]
	}
	for bits := len(lengths) - 1; bits >= 0 && a.IsValid(); bits-- {
		if !lengths[bits] {
			continue
		}
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if r, ok := l.network(networkKey{p, string(listener), scope}); ok {
			return r, true
		}
	}
	return l.network(networkKey{netip.Prefix{}, string(listener), scope})
}

func (l *AccessList) network(k networkKey) (directory.AccessRule, bool) {
	r, ok := l.networks[k]
	if !ok && k.listener != "" {
		k.listener = ""
		r, ok = l.networks[k]
	}
	return r, ok
}

// Sender finds the rule for an envelope sender: the address itself, its domain, the domains above.
func (l *AccessList) Sender(listener Listener, scope string, from address.Address) (directory.AccessRule, bool) {
	if len(l.names) == 0 || from.IsNull() {
		return directory.AccessRule{}, false
	}
	if r, ok := l.name(nameKey{directory.SenderSubject + from.Key(), string(listener), scope}); ok {
		return r, true
	}
	return l.domain(directory.SenderSubject, listener, scope, from.Domain)
}

// Helo finds the rule for the name that a peer gives itself, or a domain above it.
func (l *AccessList) Helo(listener Listener, scope, name string) (directory.AccessRule, bool) {
	if len(l.names) == 0 {
		return directory.AccessRule{}, false
	}
	domain, err := address.ParseDomain(name)
	if err != nil {
		return directory.AccessRule{}, false
	}
	return l.domain(directory.HeloSubject, listener, scope, domain)
}

func (l *AccessList) domain(prefix string, listener Listener, scope, domain string) (directory.AccessRule, bool) {
	for more := domain != ""; more; _, domain, more = strings.Cut(domain, ".") {
		if r, ok := l.name(nameKey{prefix + domain, string(listener), scope}); ok {
			return r, true
		}
	}
	return directory.AccessRule{}, false
}

func (l *AccessList) name(k nameKey) (directory.AccessRule, bool) {
	r, ok := l.names[k]
	if !ok && k.listener != "" {
		k.listener = ""
		r, ok = l.names[k]
	}
	return r, ok
}

// SignIn tells whether an account may be signed in to from an address, by its own rules: what they don't speak of is
// allowed, unless some of them allow.
func (l *AccessList) SignIn(listener Listener, account string, a netip.Addr) (ok bool, reason string) {
	r, found := l.Network(listener, account, a)
	switch {
	case found && r.Action == directory.Deny:
		return false, "denied by the rule " + r.Subject
	case !found && l.limited[account]:
		return false, "the account's rules allow it from elsewhere only"
	}
	return true, ""
}

// Settings is where the guard learns what holds: *directory.Directory.
type Settings interface{ Settings() directory.Settings }

// Access is the check of the access lists. It compiles them anew when they have changed.
type Access struct {
	settings Settings
	exempt   func(netip.Addr) bool // beside the settings' networks; may be nil

	mu      sync.RWMutex
	rules   *directory.Rules // that list was made of
	list    *AccessList
	text    string // that networks was made of
	network []netip.Prefix
}

// NewAccess gives the check over the settings' rules. exempt tells who else is exempt from limits; it may be nil.
func NewAccess(settings Settings, exempt func(netip.Addr) bool) *Access {
	return &Access{settings: settings, exempt: exempt, list: CompileAccess(nil)}
}

// List is the list that holds now.
func (c *Access) List() *AccessList {
	list, _ := c.now()
	return list
}

func (c *Access) now() (*AccessList, []netip.Prefix) {
	set := c.settings.Settings()
	c.mu.RLock()
	list, network := c.list, c.network
	fresh := c.rules == set.Rules && c.text == set.Guard.Exempt
	c.mu.RUnlock()
	if fresh {
		return list, network
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rules != set.Rules {
		c.rules, c.list = set.Rules, CompileAccess(nil)
		if set.Rules != nil {
			c.list = CompileAccess(set.Rules.Access)
		}
	}
	if c.text != set.Guard.Exempt {
		c.text, c.network = set.Guard.Exempt, set.Guard.ExemptNetworks()
	}
	return c.list, c.network
}

// Exempt tells who is exempt from limits and delays.
func (c *Access) Exempt(a netip.Addr) bool {
	if c.exempt != nil && c.exempt(a) {
		return true
	}
	_, networks := c.now()
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Admits tells whether a connection is taken at all, for listeners without stages.
func (c *Access) Admits(listener Listener, a netip.Addr) bool {
	r, ok := c.List().Network(listener, "", a)
	return !ok || r.Action != directory.Deny
}

// Check is the link of the chain. It comes first: others go by what it finds.
func (c *Access) Check() Check {
	return Check{Name: "access", Always: true, Stages: map[Stage]Func{
		Connect: c.connect, Helo: c.helo, Mail: c.mail, Rcpt: c.rcpt,
	}}
}

func (c *Access) connect(_ context.Context, v *Visitor) Verdict {
	a := v.Remote.Addr()
	v.Exempt = c.Exempt(a)
	r, ok := c.List().Network(v.Listener, "", a)
	if !ok {
		return Verdict{}
	}
	v.Trusted = r.Action == directory.Trust
	if r.Action != directory.Deny {
		return Verdict{}
	}
	return denied(554, r, "access denied: connections from "+a.String()+" are not taken")
}

func denied(code int, r directory.AccessRule, text string) Verdict {
	return Refuse(smtp.Errorf(code, "5.7.1", "%s", text), fmt.Sprintf("access rule %q denies", r.Subject))
}

func (c *Access) helo(_ context.Context, v *Visitor) Verdict {
	if r, ok := c.List().Helo(v.Listener, "", v.HELO); ok && r.Action == directory.Deny && !v.Trusted {
		return denied(550, r, "access denied: your host name is not welcome")
	}
	return Verdict{}
}

func (c *Access) mail(_ context.Context, v *Visitor) Verdict {
	if r, ok := c.List().Sender(v.Listener, "", v.From); ok && r.Action == directory.Deny && !v.Trusted {
		return denied(550, r, "access denied: this sender is not welcome")
	}
	return Verdict{}
}

// rcpt holds the rules of the recipient's domain.
func (c *Access) rcpt(_ context.Context, v *Visitor) Verdict {
	list, scope := c.List(), v.To.Domain
	if scope == "" || v.Trusted || v.Account != 0 {
		return Verdict{}
	}
	r, ok := list.Network(v.Listener, scope, v.Remote.Addr())
	if !ok || r.Action != directory.Deny {
		r, ok = list.Sender(v.Listener, scope, v.From)
	}
	if !ok || r.Action != directory.Deny {
		r, ok = list.Helo(v.Listener, scope, v.HELO)
	}
	if ok && r.Action == directory.Deny {
		return denied(550, r, "access denied: this domain takes no mail from you")
	}
	return Verdict{}
}

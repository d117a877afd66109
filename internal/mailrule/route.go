package mailrule

import (
	"strings"
	"unicode"

	"waxwing/internal/address"
)

// What a route does.
const (
	ActionRelay   = "relay"   // to Hosts
	ActionMX      = "mx"      // to the servers of the recipient's domain, whatever a wider route says
	ActionDiscard = "discard" // taken and given to nobody
	ActionReject  = "reject"  // refused with Text
)

// Route says where mail goes, by recipient, by sender, or by both.
type Route struct {
	Name         string   `json:"name"`
	To           string   `json:"to,omitempty"`   // pattern; "*" when empty
	From         string   `json:"from,omitempty"` // pattern of the envelope's sender; "*" when empty
	Action       string   `json:"action"`
	Hosts        []string `json:"hosts,omitempty"` // in order
	TLS          string   `json:"tls,omitempty"`   // starttls when empty
	Username     string   `json:"username,omitempty"`
	PasswordFile string   `json:"password_file,omitempty"` // full path
	LMTP         bool     `json:"lmtp,omitempty"`          // the hosts speak LMTP
	Text         string   `json:"text,omitempty"`          // of a refusal
}

// Clean checks a rule and gives it in its normal form.
func (r Route) Clean() (Route, error) {
	if err := checkName(r.Name); err != nil {
		return r, err
	}
	for _, p := range []struct {
		field string
		text  *string
	}{{"to", &r.To}, {"from", &r.From}} {
		if *p.text == "" {
			*p.text = "*"
		}
		clean, err := cleanPattern(p.field, *p.text)
		if err != nil {
			return r, err
		}
		*p.text = clean
	}
	if r.Action == "" {
		r.Action = ActionRelay
	}
	if err := r.checkAction(); err != nil {
		return r, err
	}
	switch {
	case (r.Username == "") != (r.PasswordFile == ""):
		return r, &FieldError{"password_file", r.PasswordFile, "username and password_file together"}
	case r.PasswordFile != "" && (!strings.HasPrefix(r.PasswordFile, "/") || strings.ContainsRune(r.PasswordFile, 0)):
		return r, &FieldError{"password_file", r.PasswordFile, "the full path of a file"}
	case len(r.Username) > 255 || strings.ContainsFunc(r.Username, unicode.IsControl):
		return r, &FieldError{"username", "", "at most 255 octets without controls"}
	}
	if err := checkTLS(r.TLS, r.Username != ""); err != nil {
		return r, err
	}
	if err := checkHosts(r.Hosts); err != nil {
		return r, err
	}
	for _, text := range r.Hosts {
		if h, err := ParseHost(text); r.LMTP && (err != nil || h.Port == 0) {
			return r, &FieldError{"hosts", text, "a port with each host: LMTP has none of its own (RFC 2033, section 5)"}
		}
	}
	return r, nil
}

func (r *Route) checkAction() error {
	relay := r.Action == ActionRelay
	switch {
	case r.Action != ActionRelay && r.Action != ActionMX && r.Action != ActionDiscard && r.Action != ActionReject:
		return &FieldError{"action", r.Action, "relay, mx, discard or reject"}
	case relay != (len(r.Hosts) > 0):
		return &FieldError{"hosts", strings.Join(r.Hosts, ", "), "at least one with the action relay, none with any other"}
	case !relay && (r.TLS != "" || r.Username != "" || r.LMTP):
		return &FieldError{"tls", r.TLS, "nothing but with the action relay; nor a username or lmtp"}
	case (r.Action == ActionReject) != (r.Text != ""):
		return &FieldError{"text", r.Text, "the words of the refusal, with the action reject only"}
	case len(r.Text) > maxText || strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' || c > '~' }):
		return &FieldError{"text", r.Text, "at most 200 characters of ASCII, without controls"}
	}
	return nil
}

// Wide tells a route that says nothing of the recipient: mail for addresses here doesn't take it.
func (r *Route) Wide() bool { return r.To == "*" }

// Route is the rule for mail from a sender to a recipient: the one whose pattern says most of the recipient, and among
// those the one that says most of the sender; nil when none fits.
func (s *Set) Route(from, to address.Address) *Route {
	if len(s.routes) == 0 {
		return nil
	}
	for _, k := range keys(to) {
		if r := best(s.byTo[k], from); r != nil {
			return r
		}
	}
	return nil
}

func best(list []*Route, from address.Address) (found *Route) {
	least := rankAny + 1
	for _, r := range list {
		if rank, ok := fits(r.From, from); ok && (rank < least || rank == least && r.Name < found.Name) {
			found, least = r, rank
		}
	}
	return found
}

// Find is the rule that mail queued under a destination takes now, and the domain of its recipients; nil: the plain way. A rule
// of a name that is gone leaves its mail to those of the domain.
func (s *Set) Find(destination string) (r *Route, domain string) {
	if rest, ok := strings.CutPrefix(destination, destinationPrefix); ok {
		name, domain, _ := strings.Cut(rest, "/")
		if r := s.byName[name]; r != nil && (r.Action == ActionRelay || r.Action == ActionMX) {
			return r, domain
		}
		destination = domain
	}
	if len(s.routes) == 0 {
		return nil, destination
	}
	for _, k := range keys(address.Address{Local: "\x00", Domain: destination})[1:] {
		for _, r := range s.byTo[k] {
			if r.From == "*" {
				return r, destination
			}
		}
	}
	return nil, destination
}

const destinationPrefix = "route:"

// Destination is what mail on this route (nil: none) is queued under: the recipient's domain where Find gives the same by it,
// else the route's name with it. What changes in the route then holds for what waits already.
func (s *Set) Destination(r *Route, to address.Address) string {
	if found, _ := s.Find(to.Domain); r == nil || found == r {
		return to.Domain
	}
	return destinationPrefix + r.Name + "/" + to.Domain
}

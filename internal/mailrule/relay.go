package mailrule

import (
	"fmt"

	"waxwing/internal/address"
)

// How the recipients of a relay domain are checked ahead.
const (
	CheckAsk  = "ask"  // the next server is asked
	CheckList = "list" // Recipients
	CheckNone = "none" // all are taken
)

// Relay is a domain that mail is taken for and sent on to its servers.
type Relay struct {
	Domain     string   `json:"domain"`
	Hosts      []string `json:"hosts,omitempty"` // in order; none: the domain's MX
	TLS        string   `json:"tls,omitempty"`   // with the hosts; opportunistic when empty
	Check      string   `json:"check"`
	Recipients []string `json:"recipients,omitempty"`  // addresses, or local parts
	AcceptDown bool     `json:"accept_down,omitempty"` // while nobody can be asked, recipients are taken; else they are put off

	known map[string]bool
}

// Clean checks a rule and gives it in its normal form.
func (r Relay) Clean() (Relay, error) {
	domain, err := address.ParseDomain(r.Domain)
	if err != nil {
		return r, &FieldError{"domain", r.Domain, "a domain name such as example.test"}
	}
	r.Domain = domain
	if r.Check == "" {
		r.Check = CheckAsk
	}
	switch {
	case r.Check != CheckAsk && r.Check != CheckList && r.Check != CheckNone:
		return r, &FieldError{"check", r.Check, "ask, list or none"}
	case r.Check != CheckList && len(r.Recipients) > 0:
		return r, &FieldError{"recipients", "", `nothing, unless check is "list"`}
	case len(r.Recipients) > MaxRecipients:
		return r, &FieldError{"recipients", fmt.Sprint(len(r.Recipients)), fmt.Sprintf("at most %d", MaxRecipients)}
	case r.AcceptDown && r.Check != CheckAsk:
		return r, &FieldError{"accept_down", "true", `false, unless check is "ask"`}
	case len(r.Hosts) == 0 && r.TLS != "":
		return r, &FieldError{"tls", r.TLS, "nothing without hosts: see the setting tls.policies"}
	}
	if err := checkTLS(r.TLS, false); err != nil {
		return r, err
	}
	list := make([]string, 0, len(r.Recipients))
	for _, text := range r.Recipients {
		a, err := address.Parse(text)
		if err != nil {
			a, err = address.Parse(text + "@" + domain)
		}
		if err != nil || a.Domain != domain {
			return r, &FieldError{"recipients", text, "addresses of " + domain}
		}
		list = append(list, a.String())
	}
	r.Recipients = list
	return r, checkHosts(r.Hosts)
}

// Lists tells whether an address is one of the listed recipients.
func (r *Relay) Lists(a address.Address) bool { return r.known[a.Key()] }

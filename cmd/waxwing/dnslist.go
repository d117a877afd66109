package main

import (
	"fmt"
	"strings"

	"waxwing/internal/control"
)

type dnsListCommand struct {
	Add    dnsListAdd    `cmd:"" help:"Ask a list about strangers who bring mail."`
	Remove dnsListRemove `cmd:"" help:"Ask a list no more."`
	List   dnsListList   `cmd:"" help:"Show the lists, and which are switched off."`
	Test   dnsListTest   `cmd:"" help:"Ask the lists about an address or a domain."`
}

type dnsListAdd struct {
	Zone    string   `arg:"" help:"Zone of the list, e.g. zen.example.org."`
	Allow   bool     `help:"It is an allow list: what it lists is spared."`
	Of      string   `help:"What it is asked about: address, or some of helo,sender,ptr." placeholder:"SUBJECTS"`
	Weight  *int     `help:"Weight of a listing, 0 to 100. By default 10, which is what refuses a stranger." placeholder:"N"`
	Code    []string `help:"Weight of an answer, e.g. 127.0.0.2=8, 127.0.0.10-11=3 or mask:4=2; all others then count for nothing. May be repeated." placeholder:"ANSWER=N" sep:"none"`
	Timeout string   `help:"How long an answer is waited for, 100ms to 10s. By default 3s." placeholder:"TIME"`
	Name    string   `help:"How it is called in replies and logs. By default its zone; needed where the zone holds a key."`
	Probe   string   `help:"A domain that a list of domains must list. By default test, as RFC 5782 says." placeholder:"DOMAIN"`
}

// text is the list as the service reads it.
func (c *dnsListAdd) text() string {
	words := []string{c.Zone}
	if c.Allow {
		words = append(words, "allow")
	}
	if c.Weight != nil {
		words = append(words, fmt.Sprintf("weight=%d", *c.Weight))
	}
	for _, o := range [][2]string{{"of", c.Of}, {"timeout", c.Timeout}, {"name", c.Name}, {"probe", c.Probe}} {
		if o[1] != "" {
			words = append(words, o[0]+"="+o[1])
		}
	}
	return strings.Join(append(words, c.Code...), " ")
}

func (c *dnsListAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		l, err := control.DNSListAdd.Call(s.ctx, k, control.DNSListDraft{Text: c.text()})
		if err != nil {
			return err
		}
		return s.print(l, func(p *printer) { p.row("added", l.Name, l.Text) })
	})
}

type dnsListRemove struct {
	Name string `arg:"" help:"Name or zone of the list."`
}

func (c *dnsListRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.DNSListRemove.Call(s.ctx, k, control.DNSListRef{Name: c.Name}); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Name}, func(p *printer) { p.row("removed", c.Name) })
	})
}

type dnsListList struct{}

func (c *dnsListList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		all, err := control.DNSListList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(all.Lists, func(p *printer) {
			p.row("LIST", "KIND", "OF", "WEIGHT", "STATE")
			for _, l := range all.Lists {
				kind, weight := "block", fmt.Sprint(l.Weight)
				if l.Allow {
					kind, weight = "allow", ""
				} else if len(l.Codes) > 0 {
					weight = strings.Join(l.Codes, " ")
				}
				p.row(l.Name, kind, l.Of, weight, l.State)
			}
		})
	})
}

type dnsListTest struct {
	About string `arg:"" help:"IP address or domain."`
	List  string `help:"Only this list, by name or zone; it need not be in use." placeholder:"LIST"`
}

func (c *dnsListTest) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		got, err := control.DNSListTest.Call(s.ctx, k, control.DNSListQuestion{About: c.About, List: c.List})
		if err != nil {
			return err
		}
		return s.print(got, func(p *printer) {
			for _, a := range got.Answers {
				said := "not listed"
				switch {
				case a.Failed != "":
					said = "no answer: " + a.Failed
				case a.Listed:
					said = fmt.Sprintf("listed, %s, weight %d", a.Answer, a.Weight)
				}
				p.row(a.List, said, a.Text)
				if a.Fault != "" {
					p.row("", "the list is not used: "+a.Fault)
				}
			}
			p.row("score", got.Score)
			if got.Allowed {
				p.row("spared by an allow list")
			}
		})
	})
}

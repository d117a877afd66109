package main

import (
	"strings"

	"waxwing/internal/control"
)

type relayCommand struct {
	Add    relayAdd    `cmd:"" help:"Take mail for a domain and send it on to its servers."`
	Set    relaySet    `cmd:"" help:"Replace the rule of a relay domain."`
	List   relayList   `cmd:"" help:"List relay domains."`
	Remove relayRemove `cmd:"" help:"Relay no more for a domain."`
}

// relayFlags is the rule of a relay domain.
type relayFlags struct {
	Domain     string   `arg:"" help:"The domain."`
	Host       []string `help:"Server that its mail goes to, HOST or HOST:PORT; repeat it for more, in order. By default the domain's MX." placeholder:"HOST"`
	TLS        string   `name:"tls" help:"With --host: opportunistic (default), starttls or implicit; the latter two verify the certificate." placeholder:"MODE"`
	Check      string   `help:"How recipients are checked ahead: ask (the next server), list (see --recipient) or none." default:"ask" placeholder:"HOW"`
	Recipient  []string `help:"With --check list: an address of the domain; repeat it for more." placeholder:"ADDRESS"`
	AcceptDown bool     `help:"With --check ask: take recipients while the next server can't be asked, instead of putting them off (451)."`
}

func (f *relayFlags) rule() control.Relay {
	return control.Relay{Domain: f.Domain, Hosts: f.Host, TLS: f.TLS, Check: f.Check, Recipients: f.Recipient, AcceptDown: f.AcceptDown}
}

type relayAdd struct{ relayFlags }

func (c *relayAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		r, err := control.RelayAdd.Call(s.ctx, k, c.rule())
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("made", r.Domain) })
	})
}

type relaySet struct{ relayFlags }

func (c *relaySet) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		r, err := control.RelaySet.Call(s.ctx, k, c.rule())
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("changed", r.Domain) })
	})
}

type relayList struct{}

func (c *relayList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.RelayList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(list.Relays, func(p *printer) {
			p.row("DOMAIN", "TO", "RECIPIENTS", "WHILE DOWN")
			for _, r := range list.Relays {
				to, down := "MX", ""
				if len(r.Hosts) > 0 {
					to = strings.Join(r.Hosts, ", ")
				}
				if r.Check == "ask" {
					down = "put off"
				}
				if r.AcceptDown {
					down = "taken"
				}
				p.row(r.Domain, to, r.Check, down)
			}
		})
	})
}

type relayRemove struct {
	Domain string `arg:"" help:"The domain."`
}

func (c *relayRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.RelayRemove.Call(s.ctx, k, control.RuleRef{Name: c.Domain}); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Domain}, func(p *printer) { p.row("removed", c.Domain) })
	})
}

type routeCommand struct {
	Add    routeAdd    `cmd:"" help:"Make a route."`
	Set    routeSet    `cmd:"" help:"Replace a route."`
	List   routeList   `cmd:"" help:"List routes."`
	Remove routeRemove `cmd:"" help:"Remove a route; what waits on it goes the way that is left."`
	Test   routeTest   `cmd:"" help:"Tell step by step where mail for an address would go. Nothing is sent."`
}

// routeFlags is a route.
type routeFlags struct {
	Name         string   `arg:"" help:"Name of the route: a-z, 0-9, - _ and ."`
	To           string   `help:"For recipients: an address, a domain, .domain for its subdomains, or * (default)." placeholder:"PATTERN"`
	From         string   `help:"For senders of the envelope: the same." placeholder:"PATTERN"`
	Host         []string `help:"Server that takes the mail, HOST or HOST:PORT; repeat it for more, in order." placeholder:"HOST"`
	TLS          string   `name:"tls" help:"starttls (default) or implicit, both with a certificate that is valid; or opportunistic." placeholder:"MODE"`
	Username     string   `help:"Name to sign in with." placeholder:"NAME"`
	PasswordFile string   `help:"File with the password, on each node; full path." placeholder:"FILE"`
	LMTP         bool     `name:"lmtp" help:"The hosts speak LMTP."`
	MX           bool     `name:"mx" help:"In place of --host: to the servers of the recipient's domain, whatever a wider route says."`
	Discard      bool     `help:"In place of --host: take the mail and give it to nobody."`
	Reject       string   `help:"In place of --host: refuse the recipient with these words." placeholder:"TEXT"`
}

func (f *routeFlags) rule() (control.Route, error) {
	r := control.Route{
		Name: f.Name, To: f.To, From: f.From, Action: "relay", Hosts: f.Host, TLS: f.TLS, Username: f.Username, PasswordFile: f.PasswordFile, LMTP: f.LMTP,
		Text: f.Reject,
	}
	n := 0
	for action, given := range map[string]bool{"relay": len(f.Host) > 0, "mx": f.MX, "discard": f.Discard, "reject": f.Reject != ""} {
		if given {
			r.Action = action
			n++
		}
	}
	if n != 1 {
		return r, usagef("give one of --host, --mx, --discard and --reject")
	}
	return r, nil
}

type routeAdd struct{ routeFlags }

func (c *routeAdd) Run(s *session) error {
	rule, err := c.rule()
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		r, err := control.RouteAdd.Call(s.ctx, k, rule)
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("made", r.Name) })
	})
}

type routeSet struct{ routeFlags }

func (c *routeSet) Run(s *session) error {
	rule, err := c.rule()
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		r, err := control.RouteSet.Call(s.ctx, k, rule)
		if err != nil {
			return err
		}
		return s.print(r, func(p *printer) { p.row("changed", r.Name) })
	})
}

type routeList struct{}

func (c *routeList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.RouteList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(list.Routes, func(p *printer) {
			p.row("NAME", "TO", "FROM", "WHAT")
			for _, r := range list.Routes {
				what := r.Action
				switch r.Action {
				case "relay":
					what = strings.Join(r.Hosts, ", ")
				case "reject":
					what = "reject: " + r.Text
				}
				p.row(r.Name, r.To, r.From, what)
			}
		})
	})
}

type routeRemove struct {
	Name string `arg:"" help:"Name of the route."`
}

func (c *routeRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.RouteRemove.Call(s.ctx, k, control.RuleRef{Name: c.Name}); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Name}, func(p *printer) { p.row("removed", c.Name) })
	})
}

type routeTest struct {
	Address string `arg:"" help:"The recipient."`
	From    string `help:"The sender; by default the null sender of notifications." placeholder:"ADDRESS"`
	Signed  bool   `help:"The sender has signed in."`
}

func (c *routeTest) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		a, err := control.RouteTest.Call(s.ctx, k, control.RouteQuestion{To: c.Address, From: c.From, Signed: c.Signed})
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) {
			for _, w := range a.Why {
				p.row("because", w)
			}
			if !a.Accepted {
				p.row("refused", a.Refusal)
				return
			}
			if len(a.Targets) == 0 {
				p.row("goes to", "nobody")
			}
			for _, t := range a.Targets {
				switch {
				case t.Mailbox != "":
					p.row("goes to", "the mailbox of "+t.Mailbox)
				case t.Sender != "":
					p.row("goes to", t.Remote+", from "+t.Sender)
				default:
					p.row("goes to", t.Remote)
				}
			}
		})
	})
}

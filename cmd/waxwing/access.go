package main

import (
	"waxwing/internal/control"
	"waxwing/internal/directory"
)

type accessCommand struct {
	Add    accessAdd    `cmd:"" help:"Allow, deny or trust an address, a network, a sender or a host name."`
	Remove accessRemove `cmd:"" help:"Remove a rule."`
	List   accessList   `cmd:"" help:"List the rules."`
	Test   accessTest   `cmd:"" help:"Say what the rules mean for an address."`
}

// accessSubject is what names a rule.
type accessSubject struct {
	Subject  string `arg:"" help:"192.0.2.7, 192.0.2.0/24, 2001:db8::/32, all, sender:spam.example, sender:li@spam.example or helo:mail.spam.example."`
	Listener string `help:"Only on this listener: mx, submission, submissions, imap or pop3." placeholder:"NAME"`
	For      string `help:"Only for mail to this domain, or for signing in to this account." placeholder:"DOMAIN|ADDRESS"`
}

func (c accessSubject) rule() directory.AccessRule {
	return directory.AccessRule{Subject: c.Subject, Listener: c.Listener, For: c.For}
}

type accessAdd struct {
	Action string `arg:"" enum:"allow,deny,trust" help:"allow, deny or trust."`
	accessSubject
	Note string `help:"Why, for those who read the list." placeholder:"TEXT"`
}

func (c *accessAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		r := c.rule()
		r.Action, r.Note = directory.AccessAction(c.Action), c.Note
		made, err := control.AccessAdd.Call(s.ctx, k, r)
		if err != nil {
			return err
		}
		return s.print(made, func(p *printer) { p.row(accessRow(made)...) })
	})
}

// accessRow shows a rule on a line.
func accessRow(r directory.AccessRule) []any {
	listener, scope := r.Listener, r.For
	if listener == "" {
		listener = "all"
	}
	if scope == "" {
		scope = "server"
	}
	return []any{r.Action, r.Subject, listener, scope, r.Note}
}

type accessRemove struct{ accessSubject }

func (c *accessRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.AccessRemove.Call(s.ctx, k, c.rule()); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Subject}, func(p *printer) { p.row("removed", c.Subject) })
	})
}

type accessList struct {
	For string `help:"Only the rules of this domain or account." placeholder:"DOMAIN|ADDRESS"`
}

func (c *accessList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		all, err := control.AccessList.Call(s.ctx, k, control.AccessFilter{For: c.For})
		if err != nil {
			return err
		}
		return s.print(all.Access, func(p *printer) {
			p.row("ACTION", "SUBJECT", "LISTENER", "FOR", "NOTE")
			for _, r := range all.Access {
				p.row(accessRow(r)...)
			}
		})
	})
}

type accessTest struct {
	Address string `arg:"" help:"IP address of the peer."`
	HELO    string `name:"helo" help:"Name that it gives itself." placeholder:"NAME"`
	Sender  string `help:"Envelope sender of its mail." placeholder:"ADDRESS"`
	For     string `help:"Domain that its mail is to, or account that it signs in to." placeholder:"DOMAIN|ADDRESS"`
}

func (c *accessTest) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		out, err := control.AccessTest.Call(s.ctx, k, control.AccessQuestion{Address: c.Address, HELO: c.HELO, Sender: c.Sender, For: c.For})
		if err != nil {
			return err
		}
		return s.print(out, func(p *printer) {
			p.row("LISTENER", "STAGE", "ANSWER", "BY")
			for _, a := range out.Answers {
				by := "no rule"
				if a.Rule != nil {
					by = a.Rule.Subject
				}
				p.row(a.Listener, a.Stage, a.Action, by)
			}
			if out.Exempt {
				p.row("all", "", "exempt from limits", "guard.exempt")
			}
		})
	})
}

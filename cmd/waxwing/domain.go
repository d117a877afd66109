package main

import (
	"slices"
	"strings"

	"waxwing/internal/control"
)

type domainCommand struct {
	Add    domainAdd    `cmd:"" help:"Take mail for a domain."`
	List   domainList   `cmd:"" help:"List domains."`
	Show   domainShow   `cmd:"" help:"Show a domain."`
	Set    domainSet    `cmd:"" help:"Change catch-all, postmaster, what it stands for, sub-addresses or the limit of accounts."`
	Policy domainPolicy `cmd:"" help:"Show or change what holds for a domain: quota of all accounts together, and how long mail is kept."`
	Remove domainRemove `cmd:"" help:"Take no more mail for a domain; it must have no accounts or aliases."`
}

type domainAdd struct {
	Name string `arg:"" help:"The domain."`
}

func (c *domainAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		d, err := control.DomainAdd.Call(s.ctx, k, control.Domain{Name: c.Name})
		if err != nil {
			return err
		}
		return s.print(d, func(p *printer) { p.row("made", d.Name) })
	})
}

type domainList struct{}

func (c *domainList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.DomainList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(list.Domains, func(p *printer) {
			p.row("DOMAIN", "CATCH-ALL", "POSTMASTER")
			for _, d := range list.Domains {
				p.row(d.Name, d.CatchAll, d.Postmaster)
			}
		})
	})
}

type domainShow struct {
	Name string `arg:"" help:"The domain."`
}

func (c *domainShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		d, err := control.DomainShow.Call(s.ctx, k, control.DomainRef{Name: c.Name})
		if err != nil {
			return err
		}
		return s.print(d, func(p *printer) { showDomain(p, d) })
	})
}

func showDomain(p *printer, d control.Domain) {
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	p.row("domain", d.Name)
	p.row("catch-all", or(d.CatchAll, "none: unknown addresses are refused"))
	p.row("postmaster", or(d.Postmaster, "an administrator"))
	if d.AliasOf != "" {
		p.row("stands for", d.AliasOf)
	}
	if len(d.Except) > 0 {
		p.row("catch-all not for", strings.Join(d.Except, ", "))
	}
	if d.Subaddress != "" {
		p.row("sub-addresses", d.Subaddress)
	}
	if d.MaxAccounts > 0 {
		p.row("accounts at most", d.MaxAccounts)
	}
	p.row("created", d.Created.Format(timeFormat))
}

type domainSet struct {
	Name           string   `arg:"" help:"The domain."`
	CatchAll       *string  `help:"Address that takes mail for unknown ones; empty for none." placeholder:"ADDRESS"`
	Postmaster     *string  `help:"Account that gets postmaster@ and abuse@; empty for an administrator." placeholder:"ADDRESS"`
	AliasOf        *string  `help:"Another domain of this server that it stands for; empty for none." placeholder:"DOMAIN"`
	Subaddress     *string  `help:"What begins a sub-address in it: one of + - = _ # ~, off for none, empty for the server's." placeholder:"SEPARATOR"`
	CatchAllExcept []string `help:"What stands before the @ of an address that the catch-all leaves out; with * behind, all that begin so. Repeat it for more; empty for none." placeholder:"NAME" sep:"none"`
	MaxAccounts    *int     `help:"Accounts at most; 0 for no limit." placeholder:"N"`
}

func (c *domainSet) Run(s *session) error {
	if c.CatchAll == nil && c.Postmaster == nil && c.MaxAccounts == nil && c.AliasOf == nil && c.Subaddress == nil && len(c.CatchAllExcept) == 0 {
		return usagef("nothing to change: give --catch-all, --catch-all-except, --postmaster, --alias-of, --subaddress or --max-accounts")
	}
	return s.with(func(k control.Carrier) error {
		d, err := control.DomainShow.Call(s.ctx, k, control.DomainRef{Name: c.Name})
		if err != nil {
			return err
		}
		if c.CatchAll != nil {
			d.CatchAll = *c.CatchAll
		}
		if c.Postmaster != nil {
			d.Postmaster = *c.Postmaster
		}
		if c.AliasOf != nil {
			d.AliasOf = *c.AliasOf
		}
		if c.Subaddress != nil {
			d.Subaddress = *c.Subaddress
		}
		if len(c.CatchAllExcept) > 0 {
			d.Except = slices.DeleteFunc(c.CatchAllExcept, func(e string) bool { return e == "" })
		}
		if c.MaxAccounts != nil {
			d.MaxAccounts = *c.MaxAccounts
		}
		if d, err = control.DomainSet.Call(s.ctx, k, d); err != nil {
			return err
		}
		return s.print(d, func(p *printer) { showDomain(p, d) })
	})
}

type domainRemove struct {
	Name string `arg:"" help:"The domain."`
}

func (c *domainRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.DomainRemove.Call(s.ctx, k, control.DomainRef{Name: c.Name}); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Name}, func(p *printer) { p.row("removed", c.Name) })
	})
}

package main

import (
	"strings"

	"waxwing/internal/control"
)

type aliasCommand struct {
	Add    aliasAdd    `cmd:"" help:"Make an alias: mail to it goes to its targets."`
	Set    aliasSet    `cmd:"" help:"Replace the targets of an alias."`
	Show   aliasShow   `cmd:"" help:"Show an alias."`
	List   aliasList   `cmd:"" help:"List aliases."`
	Remove aliasRemove `cmd:"" help:"Remove an alias."`
}

type aliasAdd struct {
	Address string   `arg:"" help:"The address, in a domain of this server."`
	Targets []string `arg:"" help:"Where its mail goes."`
	groupFlags
}

// groupFlags are what an alias can say beside its targets.
type groupFlags struct {
	Senders *string  `help:"Who may send to it: everyone, members, domain, or list (see --allow)." placeholder:"WHO"`
	Allow   []string `help:"Address or domain that may send to it, with --senders list; repeat it for more." placeholder:"WHOM" sep:"none"`
	Owner   *string  `help:"Address that gets failures of mail to members elsewhere, in place of the sender; empty for none." placeholder:"ADDRESS"`
	Hidden  *bool    `help:"No sender learns who the members are." negatable:""`
}

func (f *groupFlags) given() bool {
	return f.Senders != nil || len(f.Allow) > 0 || f.Owner != nil || f.Hidden != nil
}

// apply changes an alias by the flags that were given.
func (f *groupFlags) apply(a *control.Alias) {
	if f.Senders != nil {
		if a.Senders = *f.Senders; a.Senders == "everyone" {
			a.Senders = ""
		}
		if a.Senders != "list" && len(f.Allow) == 0 {
			a.Allowed = nil
		}
	}
	if len(f.Allow) > 0 {
		a.Allowed = f.Allow
	}
	if f.Owner != nil {
		a.Owner = *f.Owner
	}
	if f.Hidden != nil {
		a.Hidden = *f.Hidden
	}
}

func (c *aliasAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		want := control.Alias{Address: c.Address, Targets: c.Targets}
		c.apply(&want)
		a, err := control.AliasAdd.Call(s.ctx, k, want)
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) { p.row("made", a.Address, strings.Join(a.Targets, ", ")) })
	})
}

type aliasSet struct {
	Address string   `arg:"" help:"The address of the alias."`
	Targets []string `arg:"" optional:"" help:"Where its mail goes; as before when none are given."`
	groupFlags
}

func (c *aliasSet) Run(s *session) error {
	if len(c.Targets) == 0 && !c.given() {
		return usagef("nothing to change: give targets, --senders, --allow, --owner or --hidden")
	}
	return s.with(func(k control.Carrier) error {
		a, err := control.AliasShow.Call(s.ctx, k, control.AliasRef{Address: c.Address})
		if err != nil {
			return err
		}
		if len(c.Targets) > 0 {
			a.Targets = c.Targets
		}
		c.apply(&a)
		if a, err = control.AliasSet.Call(s.ctx, k, a); err != nil {
			return err
		}
		return s.print(a, func(p *printer) { p.row("changed", a.Address, strings.Join(a.Targets, ", ")) })
	})
}

type aliasShow struct {
	Address string `arg:"" help:"The address of the alias."`
}

func (c *aliasShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		a, err := control.AliasShow.Call(s.ctx, k, control.AliasRef{Address: c.Address})
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) {
			p.row("alias", a.Address)
			p.row("targets", strings.Join(a.Targets, ", "))
			who := map[string]string{"": "everyone", "members": "its members", "domain": "addresses of its domain"}[a.Senders]
			if a.Senders == "list" {
				who = strings.Join(a.Allowed, ", ")
			}
			p.row("may send", who)
			if a.Owner != "" {
				p.row("owner", a.Owner)
			}
			if a.Hidden {
				p.row("members", "hidden")
			}
		})
	})
}

type aliasList struct {
	Domain string `help:"Only of this domain."`
	Search string `help:"Only whose address holds this text."`
}

func (c *aliasList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		all := []control.Alias{}
		req := control.Listing{Domain: c.Domain, Search: c.Search}
		for {
			page, err := control.AliasList.Call(s.ctx, k, req)
			if err != nil {
				return err
			}
			all = append(all, page.Aliases...)
			if req.After = page.Next; req.After == "" {
				break
			}
		}
		return s.print(all, func(p *printer) {
			p.row("ALIAS", "TARGETS")
			for _, a := range all {
				p.row(a.Address, strings.Join(a.Targets, ", "))
			}
		})
	})
}

type aliasRemove struct {
	Address string `arg:"" help:"The address of the alias."`
}

func (c *aliasRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.AliasRemove.Call(s.ctx, k, control.AliasRef{Address: c.Address}); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Address}, func(p *printer) { p.row("removed", c.Address) })
	})
}

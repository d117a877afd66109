package main

import (
	"strings"

	"waxwing/internal/control"
)

type aliasCommand struct {
	Add    aliasAdd    `cmd:"" help:"Make an alias: mail to it goes to its targets."`
	Set    aliasSet    `cmd:"" help:"Replace the targets of an alias."`
	List   aliasList   `cmd:"" help:"List aliases."`
	Remove aliasRemove `cmd:"" help:"Remove an alias."`
}

type aliasAdd struct {
	Address string   `arg:"" help:"The address, in a domain of this server."`
	Targets []string `arg:"" help:"Where its mail goes."`
}

func (c *aliasAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		a, err := control.AliasAdd.Call(s.ctx, k, control.Alias{Address: c.Address, Targets: c.Targets})
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) { p.row("made", a.Address, strings.Join(a.Targets, ", ")) })
	})
}

type aliasSet struct {
	Address string   `arg:"" help:"The address of the alias."`
	Targets []string `arg:"" help:"Where its mail goes."`
}

func (c *aliasSet) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		a, err := control.AliasSet.Call(s.ctx, k, control.Alias{Address: c.Address, Targets: c.Targets})
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) { p.row("changed", a.Address, strings.Join(a.Targets, ", ")) })
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

package main

import (
	"fmt"
	"path/filepath"

	"waxwing/internal/config"
	"waxwing/internal/server"
	"waxwing/internal/store/upgrade"
)

type storeUpgrade struct {
	NoCopy bool `help:"Make no copy before: you have a backup. Needed with PostgreSQL, which is not copied."`
}

func (c *storeUpgrade) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	did, err := server.UpgradeStore(s.ctx, cfg, s.logger(), c.NoCopy)
	if err != nil {
		return unavailable(fullDisk(cfg, err))
	}
	return s.print(did, func(p *printer) {
		switch {
		case did.From == 0:
			p.row("up to date", fmt.Sprintf("schema %d", did.Schema))
		case did.Copy == nil:
			p.row("upgraded", fmt.Sprintf("schema %d to %d", did.From, did.Schema))
		default:
			p.row("upgraded", fmt.Sprintf("schema %d to %d", did.From, did.Schema), "copy from before: "+did.Copy.Name)
		}
	})
}

type storeRollback struct {
	Name string `arg:"" optional:"" help:"Copy to go back to; by default the newest."`
	Yes  bool   `help:"Don't ask."`
}

func (c *storeRollback) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if !c.Yes {
		if s.json {
			return usagef("with --json nothing is asked: add --yes")
		}
		yes, err := s.askYes("Go back to the store before the upgrade? Mail, folders and accounts that came since are lost.")
		if err != nil {
			return err
		}
		if !yes {
			s.say("nothing was changed")
			return quietError{exitFailed}
		}
	}
	r, err := server.RollbackStore(s.ctx, cfg, c.Name)
	if err != nil {
		return err
	}
	return s.print(r, func(p *printer) {
		p.row("back at", r.To.Name)
		p.row("set aside", r.Aside)
		p.line(fmt.Sprintf("Start waxwing %s now: a newer version upgrades the store again.", versionBefore(r.To.Program)))
		p.line(fmt.Sprintf("Outgoing mail is held, as it may have been sent: %s queue list --dir %s", program(), shellQuote(filepath.Dir(cfg.Path))))
		p.line("Mail that came since is still in the packs for a while: `waxwing store repair --recover-to ADDRESS` brings it into a folder.")
	})
}

// versionBefore names the version that a copy is of.
func versionBefore(version string) string {
	if version == "" {
		return "in the version from before the upgrade"
	}
	return version
}

type storeCopies struct {
	Drop string `help:"Remove this copy, and with it what was deleted for good since." placeholder:"NAME"`
}

func (c *storeCopies) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if c.Drop != "" {
		if err := server.DropCopy(cfg, c.Drop); err != nil {
			return err
		}
	}
	all, err := server.Copies(cfg)
	if err != nil {
		return err
	}
	if all == nil {
		all = []upgrade.Copy{} // JSON shows a list
	}
	return s.print(all, func(p *printer) {
		if len(all) == 0 {
			p.line("no copies from before upgrades")
			return
		}
		p.row("NAME", "MADE", "SCHEMA", "VERSION", "UPGRADED BY", "DATABASE", "REMOVED")
		for _, x := range all {
			p.row(x.Name, clock(x.Time), x.Schema, x.Program, x.Upgraded, config.Size(x.Octets).Human(), clock(x.Time.Add(upgrade.Keep)))
		}
	})
}

package main

import (
	"fmt"
	"io"
	"strings"

	"waxwing/internal/control"
)

type configCommand struct {
	Show     configShow     `cmd:"" help:"Show the settings, with what each means."`
	Check    configCheck    `cmd:"" help:"Check waxwing.toml, and a file for apply, without changing anything."`
	Export   configExport   `cmd:"" help:"Print settings, domains, aliases and accounts as TOML, to be kept in git and applied. Passwords are not in it."`
	Diff     configDiff     `cmd:"" help:"Show what applying a file would change."`
	Apply    configApply    `cmd:"" help:"Make settings, domains, aliases and accounts what a file says, all of it or nothing."`
	History  configHistory  `cmd:"" help:"List who changed what when, newest first."`
	Rollback configRollback `cmd:"" help:"Make settings, domains, aliases and accounts what they were at a version."`
}

type configShow struct {
	Version *int64 `help:"As they were at this version." placeholder:"N"`
}

func (c *configShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		set, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{Version: c.Version})
		if err != nil {
			return err
		}
		return s.print(set, func(p *printer) {
			p.row("SETTING", "VALUE", "", "MEANING")
			for _, x := range set.Settings {
				mark := ""
				if x.Changed {
					mark = "(changed)"
				}
				p.row(x.Name, string(x.Value), mark, x.Doc)
			}
			p.line("")
			p.row("version", set.Version)
		})
	})
}

type configCheck struct {
	File string `arg:"" optional:"" help:"A file as export prints it; - is standard input."`
}

func (c *configCheck) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if c.File != "" {
		if err := s.withConfig(cfg, func(k control.Carrier) error {
			_, err := planFile(s, k, c.File)
			return err
		}); err != nil {
			return err
		}
	}
	return s.print(map[string]any{"ok": true, "file": cfg.Path}, func(p *printer) { p.row(cfg.Path, "is right") })
}

type configExport struct {
	Version *int64 `help:"As it was at this version." placeholder:"N"`
}

func (c *configExport) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		doc, err := control.DocumentShow.Call(s.ctx, k, control.DocumentAt{Version: c.Version})
		if err != nil {
			return err
		}
		if s.json {
			return s.print(doc, nil)
		}
		set, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{Version: c.Version})
		if err != nil {
			return err
		}
		if _, err = io.WriteString(s.out, documentTOML(set, doc)); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	})
}

type configDiff struct {
	File string `arg:"" help:"File as export prints it; - is standard input."`
}

func (c *configDiff) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		p, err := planFile(s, k, c.File)
		if err != nil {
			return err
		}
		return s.printChanges(p.would.Changes, "no difference")
	})
}

// applyFlags are those of commands that change the document.
type applyFlags struct {
	Yes        bool `help:"Don't ask."`
	DeleteMail bool `help:"Also remove accounts that hold mail, with the mail."`
}

type configApply struct {
	File string `arg:"" help:"File as export prints it; - is standard input. A setting that it doesn't name goes back to its default. A list (domains, aliases, accounts) that it doesn't have is left as it is; one that it has is complete."`
	applyFlags
}

func (c *configApply) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		p, err := planFile(s, k, c.File)
		if err != nil {
			return err
		}
		if c.File == "-" && !c.Yes {
			return usagef("standard input is the file, so that nothing can be asked: add --yes")
		}
		return c.confirm(s, p.would, func() (control.Applied, error) {
			done, err := p.apply(control.Application{Base: p.would.Version, DeleteMail: c.DeleteMail})
			return done, err
		})
	})
}

type configRollback struct {
	Version int64 `arg:"" help:"Version, as history shows it; 0 for all defaults and nothing else."`
	applyFlags
}

func (c *configRollback) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		would, err := control.DocumentRollback.Call(s.ctx, k, control.Rollback{Version: c.Version, Base: -1, DryRun: true})
		if err != nil {
			return err
		}
		return c.confirm(s, would, func() (control.Applied, error) {
			return control.DocumentRollback.Call(s.ctx, k, control.Rollback{Version: c.Version, Base: would.Version, DeleteMail: c.DeleteMail})
		})
	})
}

// confirm shows what would change and asks before it is done. What is done is based on the version that was shown: a
// change that somebody made meanwhile is not overwritten unseen.
func (f applyFlags) confirm(s *session, would control.Applied, do func() (control.Applied, error)) error {
	if len(would.Changes) == 0 {
		return s.printChanges(would.Changes, "nothing to change")
	}
	if !f.Yes {
		if s.json {
			return usagef("with --json nothing is asked: add --yes")
		}
		if err := s.printChanges(would.Changes, ""); err != nil {
			return err
		}
		yes, err := s.askYes(fmt.Sprintf("Make these %d changes?", len(would.Changes)))
		if err != nil {
			return err
		}
		if !yes {
			s.say("nothing was changed")
			return quietError{exitFailed}
		}
	}
	done, err := do()
	if control.KindOf(err) == control.Conflict && !f.DeleteMail && strings.Contains(err.Error(), "holds mail") {
		err = control.Errorf(control.Conflict, "%w: `waxwing export` saves the mail; --delete-mail removes the account with it", err)
	}
	if err != nil {
		return err
	}
	if f.Yes {
		if err := s.printChanges(done.Changes, ""); err != nil {
			return err
		}
	}
	s.say("done: version %d", done.Version)
	return nil
}

// printChanges shows differences, or the line for none.
func (s *session) printChanges(changes []control.DocumentChange, nothing string) error {
	return s.print(changes, func(p *printer) {
		if len(changes) == 0 {
			p.line(nothing)
		}
		for _, c := range changes {
			what := c.Kind + " " + c.Name
			if c.Field != "" {
				what += " " + c.Field
			}
			switch {
			case c.Act == "change":
				p.row("change", what, valueText(c.From)+" -> "+valueText(c.To))
			case c.Remark != "":
				p.row(c.Act, what, c.Remark)
			default:
				p.row(c.Act, what, joinText(c.From, c.To))
			}
		}
	})
}

// joinText is the one of the two that is there.
func joinText(from, to any) string {
	if from != nil {
		return valueText(from)
	}
	if to != nil {
		return valueText(to)
	}
	return ""
}

type configHistory struct {
	Limit  int   `help:"Lines at most." default:"50"`
	Before int64 `help:"Only versions before this one." placeholder:"N"`
}

func (c *configHistory) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		lines := []control.HistoryLine{}
		req := control.HistoryPage{Before: c.Before, Limit: c.Limit}
		h, err := control.SettingsHistory.Call(s.ctx, k, req)
		if err != nil {
			return err
		}
		lines = append(lines, h.Changes...)
		return s.print(lines, func(p *printer) {
			p.row("VERSION", "TIME", "WHO", "WHAT", "VALUE")
			for _, x := range h.Changes {
				value := string(x.Value)
				kind, name, object := strings.Cut(x.Name, "/")
				switch {
				case object && value == "null":
					value = "(removed)"
				case value == "null":
					value = "(default)"
				}
				if !object {
					kind, name = "setting", x.Name
				}
				p.row(x.Version, x.Time.Format(timeFormat), x.Actor, kind+" "+name, value)
			}
		})
	})
}

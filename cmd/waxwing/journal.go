package main

import (
	"waxwing/internal/control"
)

type journalCommand struct {
	Add    journalAdd    `cmd:"" help:"Make a journal."`
	Set    journalSet    `cmd:"" help:"Replace a journal."`
	List   journalList   `cmd:"" help:"List journals."`
	Remove journalRemove `cmd:"" help:"Remove a journal."`
}

// journalFlags is a journal.
type journalFlags struct {
	Name   string `arg:"" help:"Name of the journal: a-z, 0-9, - _ and ."`
	Of     string `help:"Whose mail: an address, a domain, .domain for its subdomains, or *." required:"" placeholder:"PATTERN"`
	To     string `help:"Address that gets it." required:"" placeholder:"ADDRESS"`
	Flow   string `help:"Which mail: sent, received or both." default:"both" placeholder:"WHICH"`
	Report bool   `help:"A report with sender and recipients of the envelope, and the message attached; by default the message itself."`
}

func (f *journalFlags) rule() control.Journal {
	j := control.Journal{Name: f.Name, Of: f.Of, To: f.To, Flow: f.Flow, Form: "copy"}
	if f.Report {
		j.Form = "report"
	}
	return j
}

type journalAdd struct{ journalFlags }

func (c *journalAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		j, err := control.JournalAdd.Call(s.ctx, k, c.rule())
		if err != nil {
			return err
		}
		return s.print(j, func(p *printer) { p.row("made", j.Name) })
	})
}

type journalSet struct{ journalFlags }

func (c *journalSet) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		j, err := control.JournalSet.Call(s.ctx, k, c.rule())
		if err != nil {
			return err
		}
		return s.print(j, func(p *printer) { p.row("changed", j.Name) })
	})
}

type journalList struct{}

func (c *journalList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.JournalList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(list.Journals, func(p *printer) {
			p.row("NAME", "OF", "MAIL", "TO", "FORM")
			for _, j := range list.Journals {
				p.row(j.Name, j.Of, j.Flow, j.To, j.Form)
			}
		})
	})
}

type journalRemove struct {
	Name string `arg:"" help:"Name of the journal."`
}

func (c *journalRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.JournalRemove.Call(s.ctx, k, control.RuleRef{Name: c.Name}); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Name}, func(p *printer) { p.row("removed", c.Name) })
	})
}

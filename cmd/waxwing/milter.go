package main

import (
	"strings"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/directory"
)

type milterCommand struct {
	Add    milterAdd    `cmd:"" help:"Add a milter, or change the one of that name."`
	Remove milterRemove `cmd:"" help:"Ask a milter no more."`
	List   milterList   `cmd:"" help:"List milters in the order in which they are asked."`
	Test   milterTest   `cmd:"" help:"Connect to milters and tell what they want. Exit code 5 when one can't be reached."`
}

type milterAdd struct {
	Name     string      `arg:"" help:"A name for the log and the trace."`
	Address  string      `arg:"" help:"tcp:host:port or unix:/full/path."`
	When     string      `help:"Whose mail it sees: mx (other servers), submission (users) or both." default:"both"`
	Failure  string      `help:"What becomes of messages when it can't be asked: tempfail, accept or reject." default:"tempfail"`
	Connect  string      `help:"Time to connect." default:"5s" placeholder:"DURATION"`
	Command  string      `help:"Time to answer a command." default:"10s" placeholder:"DURATION"`
	Content  string      `help:"Time to answer to a whole message." default:"60s" placeholder:"DURATION"`
	MaxSize  config.Size `help:"Larger messages pass it by; 0: it sees all." default:"0" placeholder:"SIZE"`
	Body     bool        `help:"It may replace bodies. Otherwise no body is ever changed."`
	Trusted  bool        `help:"It sees mail of trusted peers too."`
	Position int         `help:"Its place in the order, from 1; by default where it is, or the last." placeholder:"N"`
}

func (c *milterAdd) Run(s *session) error {
	m := directory.Milter{
		Name: c.Name, Address: c.Address, When: c.When, Failure: c.Failure, Connect: c.Connect, Command: c.Command, Content: c.Content,
		MaxSize: int64(c.MaxSize), Body: c.Body, TrustedIn: c.Trusted,
	}
	return s.with(func(k control.Carrier) error {
		list, err := control.MilterSet.Call(s.ctx, k, control.MilterChange{Milter: m, Position: c.Position})
		if err != nil {
			return err
		}
		return s.printMilters(list)
	})
}

func (s *session) printMilters(list control.Milters) error {
	return s.print(list, func(p *printer) {
		if len(list.Milters) == 0 {
			p.line("no milters")
			return
		}
		p.row("NAME", "ADDRESS", "WHEN", "FAILURE", "CONNECT", "COMMAND", "CONTENT", "MAX SIZE", "BODY", "TRUSTED")
		for _, m := range list.Milters {
			size := "all"
			if m.MaxSize > 0 {
				size = config.Size(m.MaxSize).Human()
			}
			p.row(m.Name, m.Address, m.When, m.Failure, m.Connect, m.Command, m.Content, size, yes(m.Body), yes(m.TrustedIn))
		}
	})
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type milterRemove struct {
	Name string `arg:"" help:"Its name."`
}

func (c *milterRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.MilterRemove.Call(s.ctx, k, control.MilterRef{Name: c.Name})
		if err != nil {
			return err
		}
		return s.printMilters(list)
	})
}

type milterList struct{}

func (c *milterList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.MilterList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.printMilters(list)
	})
}

type milterTest struct {
	Name string `arg:"" optional:"" help:"Its name; all by default."`
}

func (c *milterTest) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.MilterTest.Call(s.ctx, k, control.MilterRef{Name: c.Name})
		if err != nil {
			return err
		}
		bad := false
		err = s.print(list, func(p *printer) {
			p.row("NAME", "STATE", "WANTS TO", "DOES NOT SEE")
			for _, m := range list {
				state := "answers within " + m.Took
				if !m.OK {
					state = m.Error
				}
				p.row(m.Name, state, strings.Join(m.Wants, ", "), strings.Join(m.Skips, ", "))
			}
		})
		for _, m := range list {
			bad = bad || !m.OK
		}
		if err == nil && bad {
			err = quietError{exitUnavailable}
		}
		return err
	})
}

package main

import (
	"strings"

	"waxwing/internal/control"
)

type forwardCommand struct {
	Set    forwardSet    `cmd:"" help:"Forward the mail of an account."`
	Show   forwardShow   `cmd:"" help:"Show where the mail of an account goes."`
	List   forwardList   `cmd:"" help:"List accounts that forward."`
	Pause  forwardPause  `cmd:"" help:"Forward no more for a while: mail goes to the mailbox."`
	Resume forwardResume `cmd:"" help:"Forward again."`
	Remove forwardRemove `cmd:"" help:"Forward no more."`
}

func showForward(f control.Forward) func(*printer) {
	return func(p *printer) {
		p.row("account", f.Address)
		switch {
		case len(f.To) == 0:
			p.row("mail goes to", "the mailbox")
			return
		case f.Paused:
			p.row("mail goes to", "the mailbox (forwarding is paused)")
		case f.Copy:
			p.row("mail goes to", strings.Join(f.To, ", ")+" and the mailbox")
		default:
			p.row("mail goes to", strings.Join(f.To, ", "))
		}
		if f.Paused {
			p.row("paused", strings.Join(f.To, ", "))
		}
	}
}

type forwardSet struct {
	Address string   `arg:"" help:"The address of the account."`
	To      []string `arg:"" help:"Where its mail goes."`
	Copy    bool     `help:"The mailbox gets it too."`
}

func (c *forwardSet) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		f, err := control.ForwardSet.Call(s.ctx, k, control.Forward{Address: c.Address, To: c.To, Copy: c.Copy})
		if err != nil {
			return err
		}
		return s.print(f, showForward(f))
	})
}

type forwardShow struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *forwardShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		f, err := control.ForwardShow.Call(s.ctx, k, control.AccountRef{Address: c.Address})
		if err != nil {
			return err
		}
		return s.print(f, showForward(f))
	})
}

type forwardList struct {
	Domain string `help:"Only of this domain."`
	Search string `help:"Only whose address or name holds this text."`
}

func (c *forwardList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.ForwardList.Call(s.ctx, k, control.Listing{Domain: c.Domain, Search: c.Search})
		if err != nil {
			return err
		}
		return s.print(list.Forwards, func(p *printer) {
			p.row("ACCOUNT", "TO", "MAILBOX", "STATE")
			for _, f := range list.Forwards {
				mailbox, state := "no", "active"
				if f.Copy || f.Paused {
					mailbox = "yes"
				}
				if f.Paused {
					state = "paused"
				}
				p.row(f.Address, strings.Join(f.To, ", "), mailbox, state)
			}
		})
	})
}

// change sets what fn makes of an account's forwarding.
func changeForward(s *session, account string, fn func(*control.Forward)) error {
	return s.with(func(k control.Carrier) error {
		f, err := control.ForwardShow.Call(s.ctx, k, control.AccountRef{Address: account})
		if err != nil {
			return err
		}
		if len(f.To) == 0 {
			return control.Errorf(control.NotFound, "%s doesn't forward", account)
		}
		fn(&f)
		if f, err = control.ForwardSet.Call(s.ctx, k, f); err != nil {
			return err
		}
		return s.print(f, showForward(f))
	})
}

type forwardPause struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *forwardPause) Run(s *session) error {
	return changeForward(s, c.Address, func(f *control.Forward) { f.Paused = true })
}

type forwardResume struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *forwardResume) Run(s *session) error {
	return changeForward(s, c.Address, func(f *control.Forward) { f.Paused = false })
}

type forwardRemove struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *forwardRemove) Run(s *session) error {
	return changeForward(s, c.Address, func(f *control.Forward) { f.To, f.Copy, f.Paused = nil, false, false })
}

type srsCommand struct {
	Show   srsShow   `cmd:"" help:"Show which keys there are and since when."`
	Rotate srsRotate `cmd:"" help:"Make a new key; what the others signed stays good for its time."`
}

func showSRS(keys control.SRSKeys) func(*printer) {
	return func(p *printer) {
		p.row("KEY", "MADE", "STATE")
		for i, k := range keys.Keys {
			state := "signs"
			if i > 0 {
				state = "is believed"
			}
			p.row(k.ID, k.Created.Format(timeFormat), state)
		}
	}
}

type srsShow struct{}

func (c *srsShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		keys, err := control.SRSShow.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(keys, showSRS(keys))
	})
}

type srsRotate struct{}

func (c *srsRotate) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		keys, err := control.SRSRotate.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(keys, showSRS(keys))
	})
}

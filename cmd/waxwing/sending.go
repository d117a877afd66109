package main

import (
	"fmt"

	"waxwing/internal/control"
	"waxwing/internal/directory"
)

type sendingCommand struct {
	List    sendingList    `cmd:"" help:"List the accounts on hold, and the limits of domains and accounts that have their own."`
	Limit   sendingLimit   `cmd:"" help:"Say how much an account, or all accounts of a domain together, may send."`
	Unlimit sendingUnlimit `cmd:"" help:"Remove the limit of an account or domain: the settings hold again."`
	Hold    sendingHold    `cmd:"" help:"Keep the mail of an account in the queue, also what it sends from now on."`
	Release sendingRelease `cmd:"" help:"Let the mail of an account go."`
}

type sendingList struct{}

func (c *sendingList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		all, err := control.SendingList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(all, func(p *printer) {
			p.row("ON HOLD", "SINCE", "REASON")
			for _, h := range all.Holds {
				p.row(h.Address, h.Since.Format(timeFormat), h.Reason)
			}
			p.line("")
			p.row("LIMITED", "MESSAGES/HOUR", "MESSAGES/DAY", "RECIPIENTS/HOUR", "RECIPIENTS/DAY")
			for _, l := range all.Limits {
				p.row(limitRow(l)...)
			}
		})
	})
}

// limitRow shows a limit on a line.
func limitRow(l directory.SendingLimit) []any {
	number := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	return []any{l.For, number(l.MessagesPerHour), number(l.MessagesPerDay), number(l.RecipientsPerHour), number(l.RecipientsPerDay)}
}

type sendingLimit struct {
	For               string `arg:"" help:"A domain, or the address of an account."`
	MessagesPerHour   *int64 `help:"Messages an hour; 0 for no limit." placeholder:"N"`
	MessagesPerDay    *int64 `help:"Messages a day; 0 for no limit." placeholder:"N"`
	RecipientsPerHour *int64 `help:"Recipients an hour; 0 for no limit." placeholder:"N"`
	RecipientsPerDay  *int64 `help:"Recipients a day; 0 for no limit." placeholder:"N"`
}

func (c *sendingLimit) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		l, err := control.SendingLimit.Call(s.ctx, k, directory.SendingLimit(*c))
		if err != nil {
			return err
		}
		return s.print(l, func(p *printer) { p.row(limitRow(l)...) })
	})
}

type sendingUnlimit struct {
	For string `arg:"" help:"A domain, or the address of an account."`
}

func (c *sendingUnlimit) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.SendingUnlimit.Call(s.ctx, k, control.SendingScope(*c)); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.For}, func(p *printer) { p.row("removed", c.For) })
	})
}

type sendingHold struct {
	Address string `arg:"" help:"The address of the account."`
	Reason  string `help:"Why, for those who look." placeholder:"TEXT"`
}

func (c *sendingHold) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		h, err := control.SendingHold.Call(s.ctx, k, control.HoldRequest(*c))
		if err != nil {
			return err
		}
		return s.print(h, func(p *printer) { p.row("on hold", h.Address, fmt.Sprintf("%d recipients in the queue", h.Recipients)) })
	})
}

type sendingRelease struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *sendingRelease) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		h, err := control.SendingRelease.Call(s.ctx, k, control.AccountRef(*c))
		if err != nil {
			return err
		}
		return s.print(h, func(p *printer) {
			p.row("released", h.Address, fmt.Sprintf("%d recipients in the queue", h.Recipients))
		})
	})
}

// sendingRows show what an account has sent.
func sendingRows(p *printer, u *control.SendingUse) {
	if u == nil {
		return
	}
	if u.Hold != nil {
		p.row("sending", "on hold since "+u.Hold.Since.Format(timeFormat)+": "+u.Hold.Reason)
	}
	of := func(a control.Allowance) string {
		if a.Limit == 0 {
			return "no limit"
		}
		return fmt.Sprintf("%d of %d", a.Used, a.Limit)
	}
	p.row("sent messages", of(u.MessagesPerHour)+" an hour, "+of(u.MessagesPerDay)+" a day")
	p.row("sent to", of(u.RecipientsPerHour)+" recipients an hour, "+of(u.RecipientsPerDay)+" a day")
}

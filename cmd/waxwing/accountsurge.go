package main

import (
	"time"

	"waxwing/internal/control"
)

type accountSurge struct {
	Address string `arg:"" help:"The address of the account."`
	Action  string `help:"folder: surplus goes into a folder of its own; defer: strangers have to come again; off: nothing is done; default: as the settings say." enum:"folder,defer,off,default," default:"" placeholder:"ACTION"`
}

func (c *accountSurge) Run(s *session) error {
	req := control.SurgeChoice{Address: c.Address}
	if c.Action != "" {
		req.Action = &c.Action
	}
	return s.with(func(k control.Carrier) error {
		got, err := control.AccountSurge.Call(s.ctx, k, req)
		if err != nil {
			return err
		}
		return s.print(got, func(p *printer) {
			p.row("account", got.Address)
			p.row("choice", got.Action)
			p.row("in a mail bomb", got.Holds)
			if !got.Told.IsZero() {
				p.row("last told of one", got.Told.Format(time.RFC3339))
			}
		})
	})
}

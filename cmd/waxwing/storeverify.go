package main

import (
	"context"
	"fmt"

	"waxwing/internal/config"
	"waxwing/internal/control"
)

type storeVerify struct {
	Account  string `help:"Only this account." placeholder:"ADDRESS"`
	RowsOnly bool   `help:"Leave the octets of messages unread: fast, and finds less."`
	Rate     string `help:"Octets of messages to read a second at most, e.g. 20MiB." placeholder:"SIZE"`
}

func (c *storeVerify) Run(s *session) error {
	req := control.Verification{Account: c.Account, RowsOnly: c.RowsOnly}
	if c.Rate != "" {
		z, err := config.ParseSize(c.Rate)
		if err != nil {
			return usagef("--rate: %w", err)
		}
		req.Rate = int64(z)
	}
	return s.proveStore("verified", func(ctx context.Context, k control.Carrier) (control.VerifyReport, error) {
		return control.StoreVerify.Call(ctx, k, req)
	})
}

type storeRepair struct {
	DryRun    bool   `help:"Only say what would be mended."`
	RecoverTo string `help:"Account whose folder Recovered takes whole messages that nothing names any more: lost mail, and deleted mail that is still on the disk, whoever it was of." placeholder:"ADDRESS"`
}

func (c *storeRepair) Run(s *session) error {
	return s.proveStore("repaired", func(ctx context.Context, k control.Carrier) (control.VerifyReport, error) {
		return control.StoreRepair.Call(ctx, k, control.Repairing{DryRun: c.DryRun, RecoverTo: c.RecoverTo})
	})
}

// proveStore runs a verification or repair, shows how far it is, and prints what was found. Problems that are left make exit code 1.
func (s *session) proveStore(verb string, run func(context.Context, control.Carrier) (control.VerifyReport, error)) error {
	return s.with(func(k control.Carrier) error {
		end := s.showProof(k)
		r, err := run(s.ctx, k)
		end()
		if err != nil {
			return err
		}
		if err := s.print(r, func(p *printer) { showProblems(p, verb, r) }); err != nil {
			return err
		}
		for _, x := range r.List {
			if x.Fixed == "" || r.DryRun {
				return quietError{exitFailed}
			}
		}
		return nil
	})
}

// showProof shows how far the run is, until the function that it returns is called.
func (s *session) showProof(k control.Carrier) (end func()) {
	return s.follow("octets read", func(ctx context.Context, p *progress) {
		if v, err := control.StoreProgress.Call(ctx, k, control.Done{}); err == nil {
			p.about(fmt.Sprintf("%d messages, %d problems, octets read", v.Messages, v.Problems), v.Octets, v.Total)
		}
	})
}

func showProblems(p *printer, verb string, r control.VerifyReport) {
	if len(r.List) > 0 {
		p.row("KIND", "ACCOUNT", "FOLDER", "UID", "MESSAGE", "PROBLEM", "MENDED")
	}
	for _, x := range r.List {
		p.row(x.Kind, x.Account, x.Mailbox, x.UID, x.Message, x.Text, x.Fixed)
	}
	p.row(verb, fmt.Sprintf("%d accounts, %d folders, %d entries, %d messages; %d contents read, %s; %d problems",
		r.Accounts, r.Mailboxes, r.Entries, r.Messages, r.Contents, config.Size(r.Octets).Human(), r.Problems))
	if r.Recovered > 0 {
		p.row("brought back from the packs", r.Recovered)
	}
}

package main

import (
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/transfer"
)

type exportCommand struct {
	Account string `arg:"" help:"Whose mail."`
	To      string `arg:"" type:"path" help:"Directory for the files: empty, or of an export of this account to go on with."`
	Format  string `help:"mbox (a file a folder) or maildir." default:"mbox" enum:"mbox,maildir"`
}

func (c *exportCommand) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		result, err := transfer.Export(s.ctx, transfer.ExportOptions{
			Carrier: k, Account: c.Account, Format: transfer.Format(c.Format), Dir: c.To, Progress: s.transferProgress(),
		})
		return s.finishTransfer("exported", result, err)
	})
}

type importCommand struct {
	Account string `arg:"" help:"Whose mail it becomes."`
	From    string `arg:"" type:"path" help:"An mbox file, a directory of *.mbox files, or a Maildir."`
	Mailbox string `help:"Mailbox for a single file; for directories, a mailbox to put all folders below." placeholder:"NAME"`
	State   string `type:"path" help:"File that keeps how far the import is; by default beside the source." placeholder:"FILE"`
}

func (c *importCommand) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		result, err := transfer.Import(s.ctx, transfer.ImportOptions{
			Carrier: k, Account: c.Account, Source: c.From, Mailbox: c.Mailbox, State: c.State, Progress: s.transferProgress(),
		})
		return s.finishTransfer("imported", result, err)
	})
}

// transferProgress shows events on standard error.
func (s *session) transferProgress() func(transfer.Event) {
	p := s.progress("", 0)
	return func(e transfer.Event) {
		if e.Problem != "" {
			p.interrupt()
			s.say("%s: %s", plain(e.Folder), plain(e.Problem))
			return
		}
		p.about(e.Folder, e.Done, e.Total)
	}
}

// finishTransfer prints what was done, also when it was broken off: then the same command goes on from there.
func (s *session) finishTransfer(verb string, r transfer.Result, err error) error {
	if err != nil {
		if r.Messages > 0 {
			s.say("%d messages %s before it was broken off; run the same command again to go on", r.Messages, verb)
		}
		return err
	}
	return s.print(r, func(p *printer) {
		p.row(verb, r.Messages, "messages", config.Size(r.Octets).Human(), r.Folders, "folders")
		if r.Skipped > 0 {
			p.row("left out", r.Skipped, "messages, see above")
		}
	})
}

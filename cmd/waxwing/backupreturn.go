package main

import (
	"fmt"

	"waxwing/internal/backup"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/transfer"
)

// partial tells that a part of the server is to come back, rather than all of it.
func (c *backupRestore) partial() bool { return c.Domain != "" || c.Account != "" }

// checkPart refuses what doesn't go together.
func (c *backupRestore) checkPart() error {
	switch {
	case c.All == c.partial() || c.Domain != "" && c.Account != "":
		return usagef("say what to bring back: --all, --domain, or --account")
	case c.Folder != "" && c.Account == "", c.Message != 0 && c.Folder == "":
		return usagef("--folder needs --account, and --message needs both")
	case c.Queue != string(backup.HoldQueue) && !c.All:
		return usagef("--queue goes with --all: the other parts have no queue")
	}
	return nil
}

// part brings a domain, an account, a folder or a message back into the server, running or stopped.
func (c *backupRestore) part(s *session, rd *backup.Reader) error {
	return s.with(func(k control.Carrier) error {
		p := s.progress("messages", 0)
		done, err := transfer.Restore(s.ctx, transfer.RestoreOptions{
			Carrier: k, Reader: rd, Domain: c.Domain, Account: c.Account, Folder: c.Folder, UID: c.Message, DryRun: c.DryRun, Listed: c.List,
			Progress: func(folder string, done, all int64) { p.about(folder, done, all) },
		})
		p.end()
		if err != nil {
			if control.KindOf(err) != control.NotFound && control.KindOf(err) != control.Invalid && !c.DryRun {
				s.say("the restore was broken off: run the same command again, with --backup %s, and it goes on", rd.ID)
			}
			return kinded(err)
		}
		if err := s.print(done, func(p *printer) { showReturned(p, &done) }); err != nil {
			return err
		}
		if len(done.Damaged) > 0 {
			return quietError{exitFailed}
		}
		return nil
	})
}

func showReturned(p *printer, r *transfer.RestoreResult) {
	verb := "restored"
	if r.DryRun {
		verb = "would be restored"
		if len(r.List) > 0 {
			p.row("ACCOUNT", "FOLDER", "UID", "DATE", "SIZE", "SUBJECT")
		}
		for _, m := range r.List {
			p.row(m.Account, m.Folder, m.UID, clock(m.Date), config.Size(m.Size).Human(), shorten(m.Subject, 60))
		}
		if n := r.Messages - int64(len(r.List)); n > 0 {
			p.row(fmt.Sprintf("and %d more: --list 0 shows all", n))
		}
	}
	if r.Domain != "" {
		p.row("domain", r.Domain, "was gone")
	}
	for _, a := range r.Accounts {
		state := ""
		if a.Made {
			state = "was gone"
		}
		p.row(a.Address, state)
		for _, f := range a.Folders {
			how := "under new UIDs"
			if f.Made {
				how = "was gone: with its UIDs"
			}
			if f.As != "" {
				how += ", as " + f.As
			}
			p.row("", f.Name, fmt.Sprintf("%d messages, %d still there", f.Messages, f.There), how)
		}
	}
	for _, a := range r.Aliases {
		p.row("alias", a)
	}
	for _, d := range r.Damaged {
		p.row("DAMAGED", d)
	}
	for _, w := range r.Warnings {
		p.row("WARNING", w)
	}
	p.row(verb, fmt.Sprintf("%d messages, %s, of backup %s; %d are still there", r.Messages, config.Size(r.Octets).Human(), r.Backup, r.There))
}

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"waxwing/internal/backup"
	"waxwing/internal/config"
	"waxwing/internal/server"
	"waxwing/internal/store"
)

type backupRestore struct {
	IdentityFile string `required:"" help:"File with the key. It is read by this command alone and never handed to the server." placeholder:"FILE" type:"path"`
	Backup       string `help:"Which one, by the name that the list shows; by default the newest. A name proves that the backup is the one that was made under it." placeholder:"ID"`
	All          bool   `help:"The whole server, into an empty directory made by init --empty."`
	Domain       string `help:"A domain, with all of its accounts and aliases." placeholder:"NAME"`
	Account      string `help:"An account." placeholder:"ADDRESS"`
	Folder       string `help:"One folder of the account, by the name that it has in the backup." placeholder:"NAME"`
	Message      uint32 `help:"One message of the folder, by the UID that it has in the backup; --dry-run on the folder shows them." placeholder:"UID"`
	KeepDamaged  bool   `help:"With --all, go on without messages that the target has lost or damaged. Otherwise one ends the command."`
	DryRun       bool   `help:"Only say what would come back."`
	List         int    `help:"How many messages a dry run lists; 0: all." default:"1000" placeholder:"N"`
	Queue        string `help:"With --all, what becomes of outgoing mail: hold, release, or drop. It may have been sent since the backup." enum:"hold,release,drop" default:"hold" placeholder:"WHAT"`
	targetFlags
}

func (c *backupRestore) Run(s *session) error {
	if err := c.checkPart(); err != nil {
		return err
	}
	ids, err := backup.ReadIdentities(c.IdentityFile)
	if err != nil {
		return usageError{err}
	}
	if c.Target == "" && c.All {
		return usagef("an empty server has no settings: say with --target where the backups are")
	}
	cfg, err := s.config()
	if err != nil {
		return err
	}
	spool := cfg.Spool.Dir // on the disk that the mail goes to
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return err
	}
	return s.repository(c.targetFlags, func(r *backup.Repository) (err error) {
		b, err := r.Find(s.ctx, c.Backup)
		if err != nil {
			return kinded(err)
		}
		if err := b.Newer(server.Schema()); err != nil {
			return kinded(err)
		}
		rd, err := r.Read(s.ctx, b, ids, spool)
		if err != nil {
			return kinded(err)
		}
		defer func() { err = errors.Join(err, rd.Close()) }()
		if c.partial() {
			return c.part(s, rd)
		}
		return c.whole(s, cfg, rd)
	})
}

// restored is what the command prints.
type restored struct {
	Backup    string        `json:"backup"`
	Directory string        `json:"directory"`
	Counts    backup.Counts `json:"counts"`
	Queue     string        `json:"queue"`   // what becomes of queued mail
	Queued    int64         `json:"queued"`  // recipients of it
	Damaged   []string      `json:"damaged"` // contents that are not in the backup
	DryRun    bool          `json:"dry_run"`
}

// whole restores a server.
func (c *backupRestore) whole(s *session, cfg *config.Config, rd *backup.Reader) error {
	out := restored{Backup: rd.ID, Directory: filepath.Dir(cfg.Path), Counts: rd.Manifest.Counts, Queue: c.Queue, Damaged: []string{}, DryRun: c.DryRun}
	for _, err := range rd.Rows(s.ctx, "queue_recipient", 0) {
		if err != nil {
			return err
		}
		out.Queued++
	}
	if !c.DryRun {
		p := s.progress("octets", out.Counts.Octets)
		err := server.Restore(s.ctx, cfg, s.logger(), rd, server.RestoreOptions{Queue: backup.QueueFate(c.Queue), KeepDamaged: c.KeepDamaged}, server.Watch{
			Loaded: func(at store.Loading) {
				p.about(fmt.Sprintf("%d rows, octets", at.AllRows), at.Octets, out.Counts.Octets)
			},
			Compared: func(v store.Compared) {
				p.about(fmt.Sprintf("%d rows compared, octets", v.Rows), v.Octets, out.Counts.Octets)
			},
			Damaged: func(info store.ContentInfo, err error) {
				out.Damaged = append(out.Damaged, fmt.Sprintf("content %d, SHA-256 %x: %v", info.ID, info.Sum, err))
			},
		})
		p.end()
		if err != nil {
			return unavailable(err)
		}
	}
	if err := s.print(out, func(p *printer) { out.show(p, cfg) }); err != nil {
		return err
	}
	if len(out.Damaged) > 0 {
		return quietError{exitFailed}
	}
	return nil
}

func (r *restored) show(p *printer, cfg *config.Config) {
	verb := "restored"
	if r.DryRun {
		verb = "would be restored"
	}
	p.row(verb, r.Backup)
	p.row("", fmt.Sprintf("%d accounts, %d messages, %s, into %s", r.Counts.Accounts, r.Counts.Messages, config.Size(r.Counts.Octets).Human(), r.Directory))
	for _, d := range r.Damaged {
		p.row("DAMAGED", d)
	}
	if r.DryRun {
		return
	}
	p.line("Everything was read back and compared.")
	switch {
	case r.Queued == 0:
	case r.Queue == string(backup.ReleaseQueue):
		p.line(fmt.Sprintf("%d recipients of outgoing mail are due as they were: what was sent since the backup is sent again.", r.Queued))
	case r.Queue == string(backup.DropQueue):
		p.line(fmt.Sprintf("%d recipients of outgoing mail were dropped, and nobody is told.", r.Queued))
	default:
		p.line(fmt.Sprintf("%d recipients of outgoing mail are held: it may have been sent since the backup. `waxwing queue list` shows them, `waxwing queue release` and `waxwing queue drop` decide.", r.Queued))
	}
	p.line("Backups are not scheduled here: `waxwing backup schedule` sets a time, once this server takes the place of the old one.")
	if cfg.Encryption.Source == config.KeyFile {
		p.line("This store has keys of its own. Back up " + cfg.Encryption.File + ".")
	}
}

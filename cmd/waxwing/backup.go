package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"waxwing/internal/backup"
	"waxwing/internal/config"
	"waxwing/internal/control"
)

type backupCommand struct {
	Key      backupKey      `cmd:"" help:"Make a key for backups. Do it on another machine, and keep it there: who has it can read all backups."`
	Now      backupNow      `cmd:"" help:"Make a backup, while the server runs."`
	List     backupList     `cmd:"" help:"List the backups, and say how the last one and the last test went."`
	Verify   backupVerify   `cmd:"" help:"Compare a backup with its hashes; with a key decrypt and compare everything."`
	Test     backupTest     `cmd:"" help:"Test the newest backup now, as the server does by itself."`
	Restore  backupRestore  `cmd:"" help:"Bring back a message, a folder, an account or a domain into this server, or a whole server into an empty directory."`
	Schedule backupSchedule `cmd:"" help:"Show or set when backups are made, where they go, and who can read them."`
}

// targetFlags name a target in place of the one that the settings have.
type targetFlags struct {
	Target          string `help:"Where the backups are: the full path of a directory, or https://host/bucket/prefix. By default as the settings say." placeholder:"TARGET"`
	CredentialsFile string `help:"File with access key and secret key of a bucket, a line each." placeholder:"FILE" type:"path"`
}

// repository opens the repository that the flags or the settings name, and runs fn with it.
func (s *session) repository(f targetFlags, fn func(r *backup.Repository) error) (err error) {
	if f.Target == "" {
		err := s.with(func(k control.Carrier) error {
			b, err := control.BackupStatus.Call(s.ctx, k, control.Done{})
			f.Target = b.Target
			if f.CredentialsFile == "" {
				f.CredentialsFile = b.CredentialsFile
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	t, err := backup.OpenTarget(s.ctx, f.Target, f.CredentialsFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	r, err := backup.Open(s.ctx, t)
	if err != nil {
		return kinded(err)
	}
	return fn(r)
}

// kinded gives errors about backups their kind.
func kinded(err error) error {
	switch {
	case errors.Is(err, backup.ErrNoRepository), errors.Is(err, os.ErrNotExist):
		return control.Errorf(control.NotFound, "%w", err)
	case errors.Is(err, backup.ErrIdentity), errors.Is(err, backup.ErrNoRecipients), errors.Is(err, backup.ErrNewer):
		return control.Errorf(control.Invalid, "%w", err)
	}
	return err
}

type backupKey struct {
	Out string `required:"" help:"File for the key; it must not be there." placeholder:"FILE" type:"path"`
	PQ  bool   `name:"pq" help:"One that withstands quantum computers too. Its public half is some 2,000 characters long."`
}

func (c *backupKey) Run(s *session) error {
	to, err := backup.WriteKey(c.Out, c.PQ, time.Now())
	if errors.Is(err, os.ErrExist) {
		return control.Errorf(control.Conflict, "%w", err)
	}
	if err != nil {
		return err
	}
	return s.print(map[string]string{"file": c.Out, "recipient": to}, func(p *printer) {
		p.row("key", c.Out)
		p.row("recipient", to)
		p.line("Keep the file away from the server, twice: without it no backup can be read. The recipient is no secret.")
	})
}

type backupNow struct {
	Full       bool     `help:"Send everything, and use nothing of earlier backups."`
	Recipients []string `name:"recipient" help:"Who can read the backup, in place of whom the settings name." placeholder:"AGE1..."`
	Rate       string   `help:"Octets a second to send at most, e.g. 5MiB." placeholder:"SIZE"`
	targetFlags
}

func (c *backupNow) Run(s *session) error {
	req := control.BackupRequest{Full: c.Full, Target: c.Target, CredentialsFile: c.CredentialsFile, Recipients: c.Recipients}
	if c.Rate != "" {
		rate, err := parseRate(c.Rate)
		if err != nil {
			return err
		}
		req.Rate = &rate
	}
	return s.with(func(k control.Carrier) error {
		end := s.watchBackup(k)
		rec, err := control.BackupNow.Call(s.ctx, k, req)
		end()
		if err != nil {
			return err
		}
		if err := s.print(rec, func(p *printer) { showRecord(p, "backup", &rec) }); err != nil {
			return err
		}
		if rec.Counts.Damaged > 0 {
			return quietError{exitFailed}
		}
		return nil
	})
}

func parseRate(text string) (int64, error) {
	z, err := config.ParseSize(text)
	if err != nil {
		return 0, usagef("--rate: %w", err)
	}
	return int64(z), nil
}

// watchBackup shows what the server's backups are at, until the function that it returns is called.
func (s *session) watchBackup(k control.Carrier) (end func()) {
	return s.follow("octets", func(ctx context.Context, p *progress) {
		if b, err := control.BackupStatus.Call(ctx, k, control.Done{}); err == nil && b.Now != nil {
			p.about(fmt.Sprintf("%s: %d messages' contents, %s sent, octets", b.Now.What, b.Now.Contents, config.Size(b.Now.Sent).Human()), b.Now.Octets, b.Now.Total)
		}
	})
}

func showRecord(p *printer, what string, r *backup.Record) {
	if r.Error != "" {
		p.row(what, clock(r.Began), "failed: "+r.Error)
		return
	}
	p.row(what, r.ID)
	p.row("", fmt.Sprintf("%d accounts, %d messages, %s; %s sent to %s in %s", r.Counts.Accounts, r.Counts.Messages, config.Size(r.Counts.Octets).Human(),
		config.Size(r.Sent).Human(), r.Target, r.Finished.Sub(r.Began).Round(time.Second)))
	if r.Pruned.Backups > 0 || r.Pruned.Objects > 0 {
		p.row("removed", fmt.Sprintf("%d old backups, %s", r.Pruned.Backups, config.Size(r.Pruned.Octets).Human()))
	}
	for _, d := range r.Damaged {
		p.row("NOT IN IT", d)
	}
}

type backupList struct {
	targetFlags
}

// listedBackup is a backup as it is shown.
type listedBackup struct {
	ID       string        `json:"id"`
	Created  time.Time     `json:"created"`
	Counts   backup.Counts `json:"counts"`
	Added    int64         `json:"added"`
	Octets   int64         `json:"octets"` // of all objects that it needs
	Bundles  int           `json:"bundles"`
	Host     string        `json:"host"`
	Program  string        `json:"program"`
	Schema   int64         `json:"schema"`
	Readable []string      `json:"recipients"`
}

func listed(b backup.Backup) listedBackup {
	m := b.Manifest
	out := listedBackup{ID: b.ID, Created: m.Created, Counts: m.Counts, Added: m.Added, Octets: m.Catalog.Size, Bundles: len(m.Bundles), Host: m.Host, Program: m.Program, Schema: m.Schema, Readable: m.Recipients}
	for _, p := range m.Bundles {
		out.Octets += p.Size
	}
	return out
}

// madeBy is the version of the program that made the backup, and its schema.
func (b listedBackup) madeBy() string {
	if b.Schema == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%d)", b.Program, b.Schema)
}

func (c *backupList) Run(s *session) error {
	out := struct {
		Backups  []listedBackup   `json:"backups"`
		Problems []string         `json:"problems"`
		State    *control.Backups `json:"state,omitempty"`
	}{Backups: []listedBackup{}, Problems: []string{}}
	if c.Target == "" {
		if err := s.with(func(k control.Carrier) error {
			b, err := control.BackupStatus.Call(s.ctx, k, control.Done{})
			out.State = &b
			return err
		}); err != nil {
			return err
		}
		c.Target, c.CredentialsFile = out.State.Target, out.State.CredentialsFile
	}
	err := s.repository(c.targetFlags, func(r *backup.Repository) error {
		list, problems, err := r.List(s.ctx)
		for _, b := range list {
			out.Backups = append(out.Backups, listed(b))
		}
		for _, p := range problems {
			out.Problems = append(out.Problems, p.Error())
		}
		return err
	})
	if err != nil && control.KindOf(err) != control.NotFound {
		return err
	}
	return s.print(out, func(p *printer) {
		p.row("BACKUP", "CREATED", "ACCOUNTS", "MESSAGES", "MAIL", "ADDED", "NEEDS", "MADE BY")
		for _, b := range out.Backups {
			p.row(b.ID, clock(b.Created), b.Counts.Accounts, b.Counts.Messages, config.Size(b.Counts.Octets).Human(), config.Size(b.Added).Human(), config.Size(b.Octets).Human(), b.madeBy())
		}
		for _, x := range out.Problems {
			p.row("PROBLEM", x)
		}
		if out.State != nil {
			p.line("")
			showState(p, out.State)
		}
	})
}

// showState says how the last backup and the last test went.
func showState(p *printer, b *control.Backups) {
	if b.Last != nil {
		showRecord(p, "last backup", b.Last)
	}
	if t := b.Test; t != nil {
		text := "good (" + t.Kind + ")"
		if !t.Good() {
			text = "FAILED: " + strings.Join(append([]string{t.Error}, t.Problems...), " ")
		}
		p.row("last test", t.ID)
		p.row("", clock(t.Began), text)
	}
	switch {
	case b.Now != nil:
		p.row("now", "a "+b.Now.What+" is under way")
	case b.Schedule == "":
		p.row("next", "never: no schedule is set")
	default:
		p.row("next", clock(b.Next))
	}
	if b.Late {
		p.row("LATE", "the last good backup is older than two intervals")
	}
}

type backupVerify struct {
	ID           string `arg:"" optional:"" help:"A backup, by the name that the list shows; by default the newest."`
	IdentityFile string `help:"File with the key: everything is decrypted and compared. Without it: what can be seen from outside." placeholder:"FILE" type:"path"`
	Rate         string `help:"Octets a second to read at most." placeholder:"SIZE"`
	targetFlags
}

func (c *backupVerify) Run(s *session) error {
	var o backup.VerifyOptions
	var err error
	if c.IdentityFile != "" {
		if o.Identities, err = backup.ReadIdentities(c.IdentityFile); err != nil {
			return usageError{err}
		}
	}
	if c.Rate != "" {
		if o.Rate, err = parseRate(c.Rate); err != nil {
			return err
		}
	}
	progress := s.progress("octets", 0)
	o.Progress = func(v backup.Verified, total int64) {
		progress.about(fmt.Sprintf("%d objects, octets", v.Objects), v.Octets, total)
	}
	return s.repository(c.targetFlags, func(r *backup.Repository) error {
		b, err := r.Find(s.ctx, c.ID)
		if err != nil {
			return kinded(err)
		}
		v, err := r.Verify(s.ctx, b, o)
		progress.end()
		if err != nil {
			return kinded(err)
		}
		out := struct {
			ID string `json:"id"`
			*backup.Verified
		}{b.ID, v}
		if err := s.print(out, func(p *printer) {
			for _, x := range v.Problems {
				p.row("PROBLEM", x)
			}
			depth := "from outside; with --identity-file everything is decrypted and compared"
			if v.Deep {
				depth = fmt.Sprintf("%d contents and %d rows decrypted and compared", v.Contents, v.Rows)
			}
			p.row("verified", b.ID)
			p.row("", fmt.Sprintf("%d objects, %s; %s; %d problems", v.Objects, config.Size(v.Octets).Human(), depth, len(v.Problems)))
		}); err != nil {
			return err
		}
		if len(v.Problems) > 0 {
			return quietError{exitFailed}
		}
		return nil
	})
}

type backupTest struct{}

func (c *backupTest) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		end := s.watchBackup(k)
		rec, err := control.BackupTest.Call(s.ctx, k, control.Done{})
		end()
		if err != nil {
			return err
		}
		if err := s.print(rec, func(p *printer) {
			for _, x := range rec.Problems {
				p.row("PROBLEM", x)
			}
			p.row("tested", rec.ID)
			p.row("", fmt.Sprintf("%s: %d objects, %d contents, %d rows; %d problems", rec.Kind, rec.Objects, rec.Contents, rec.Rows, len(rec.Problems)))
		}); err != nil {
			return err
		}
		if !rec.Good() {
			return quietError{exitFailed}
		}
		return nil
	})
}

type backupSchedule struct {
	Target          *string  `help:"The full path of a directory, or https://host/bucket/prefix?region=R." placeholder:"TARGET"`
	CredentialsFile *string  `help:"File with access key and secret key of a bucket, a line each; readable by the server alone." placeholder:"FILE"`
	Recipients      []string `name:"recipient" help:"Who can read the backups: the public half of a key. May be given more than once." placeholder:"AGE1..."`
	At              string   `help:"Time of day, e.g. 03:30, by the server's clock." placeholder:"HH:MM" xor:"when"`
	Every           string   `help:"Interval, e.g. 6h." placeholder:"TIME" xor:"when"`
	Off             bool     `help:"Make none by itself." xor:"when"`
	Rate            *string  `help:"Octets a second to send at most, e.g. 5MiB; 0: no bound." placeholder:"SIZE"`
	KeepDaily       *int     `help:"Days of which the newest backup is kept." placeholder:"N"`
	KeepWeekly      *int     `help:"Weeks of which the newest backup is kept." placeholder:"N"`
	KeepMonthly     *int     `help:"Months of which the newest backup is kept." placeholder:"N"`
	TestDays        *int     `help:"Days between two tests of the newest backup; 0: none." placeholder:"DAYS"`
	TestKeyFile     *string  `help:"File with a key of the server's own, for which backups are encrypted too, so that tests can restore them. Who takes the server can then read all backups made since." placeholder:"FILE"`
}

func (c *backupSchedule) change() (control.BackupPlanChange, error) {
	out := control.BackupPlanChange{
		Target: c.Target, CredentialsFile: fullPath(c.CredentialsFile), KeepDaily: c.KeepDaily, KeepWeekly: c.KeepWeekly, KeepMonthly: c.KeepMonthly,
		TestDays: c.TestDays, TestKeyFile: fullPath(c.TestKeyFile),
	}
	if len(c.Recipients) > 0 {
		text := strings.Join(c.Recipients, " ")
		out.Recipients = &text
	}
	if when := c.At + c.Every; when != "" || c.Off {
		if c.At != "" && !strings.Contains(c.At, ":") || strings.Contains(c.Every, ":") {
			return out, usagef("--at takes a time of day like 03:30, --every an interval like 6h")
		}
		out.Schedule = &when
	}
	if c.Rate != nil {
		rate, err := parseRate(*c.Rate)
		if err != nil {
			return out, err
		}
		out.Rate = &rate
	}
	return out, nil
}

// fullPath makes a path absolute; nil and "" stay.
func fullPath(name *string) *string {
	if name == nil || *name == "" {
		return name
	}
	full, err := filepath.Abs(*name)
	if err != nil {
		return name // the check of the setting refuses it
	}
	return &full
}

func (c *backupSchedule) Run(s *session) error {
	change, err := c.change()
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		var b control.Backups
		var err error
		if (change == control.BackupPlanChange{}) {
			b, err = control.BackupStatus.Call(s.ctx, k, control.Done{})
		} else {
			b, err = control.BackupPlan.Call(s.ctx, k, change)
		}
		if err != nil {
			return err
		}
		return s.print(b, func(p *printer) {
			p.row("target", b.Target)
			p.row("credentials", b.CredentialsFile)
			for _, r := range b.Recipients {
				p.row("recipient", shorten(r, 80))
			}
			p.row("schedule", b.Schedule)
			rate := "no bound"
			if b.Rate > 0 {
				rate = config.Size(b.Rate).Human() + " a second"
			}
			p.row("rate", rate)
			p.row("kept", fmt.Sprintf("%d days, %d weeks, %d months", b.KeepDaily, b.KeepWeekly, b.KeepMonthly))
			p.row("tests", fmt.Sprintf("every %d days", b.TestDays), b.TestKeyFile)
			p.line("")
			showState(p, &b)
		})
	})
}

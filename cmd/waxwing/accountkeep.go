package main

import (
	"fmt"
	"strings"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/control"
)

// deletedFlags select deleted mail of an account.
type deletedFlags struct {
	Address  string   `arg:""`
	Since    string   `help:"Only what was deleted then or later: a date (2026-01-31), a time (2026-01-31T12:00:00Z), or how long ago (36h, 7d)." placeholder:"TIME"`
	Mailbox  string   `help:"Only what was deleted from the folder of this name." placeholder:"NAME"`
	Messages []string `name:"message" help:"Only these, by the ids that the list shows." placeholder:"ID"`
}

func (f deletedFlags) selection() (control.DeletedSelection, error) {
	since, err := parseSince(f.Since, time.Now())
	if err != nil {
		return control.DeletedSelection{}, usageError{err}
	}
	return control.DeletedSelection{Address: f.Address, Since: since, Mailbox: f.Mailbox, Messages: f.Messages}, nil
}

// parseSince reads a moment of the past.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return t, nil
	}
	var days int
	if n, ok := strings.CutSuffix(text, "d"); ok {
		if _, err := fmt.Sscanf(n+" ", "%d ", &days); err == nil && days >= 0 {
			return now.AddDate(0, 0, -days), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("--since %q: a date (2026-01-31), a time (2026-01-31T12:00:00Z), or how long ago (36h, 7d)", text)
}

type accountDeleted struct{ deletedFlags }

func (c *accountDeleted) Run(s *session) error {
	sel, err := c.selection()
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		all := control.Deleted{Messages: []control.DeletedMessage{}}
		req := control.DeletedPage{DeletedSelection: sel}
		for {
			page, err := control.AccountDeleted.Call(s.ctx, k, req)
			if err != nil {
				return err
			}
			all.Messages = append(all.Messages, page.Messages...)
			all.Mailboxes = append(all.Mailboxes, page.Mailboxes...)
			if req.After = page.Next; req.After == "" {
				break
			}
		}
		return s.print(all, func(p *printer) { showDeleted(p, all) })
	})
}

func showDeleted(p *printer, all control.Deleted) {
	if len(all.Messages) == 0 && len(all.Mailboxes) == 0 {
		p.line("nothing that was deleted can be restored")
		return
	}
	p.row("ID", "DELETED", "BY", "FOLDER", "SIZE", "SUBJECT")
	for _, m := range all.Messages {
		p.row(m.ID, m.Deleted.Format(timeFormat), m.By, m.Mailbox, config.Size(m.Size).Human(), shorten(m.Subject, 60))
	}
	for _, m := range all.Mailboxes {
		p.row("-", m.Deleted.Format(timeFormat), m.By, m.Name, "-", "(the folder itself)")
	}
}

type accountRestore struct {
	deletedFlags
	DryRun bool `help:"Only say what would come back."`
}

func (c *accountRestore) Run(s *session) error {
	sel, err := c.selection()
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		done, err := control.AccountRestore.Call(s.ctx, k, control.Restore{DeletedSelection: sel, DryRun: c.DryRun})
		if err != nil {
			return err
		}
		return s.print(done, func(p *printer) {
			what := "restored"
			if done.DryRun {
				what = "would be restored"
			}
			p.row(what, fmt.Sprintf("%d messages, %s", done.Messages, config.Size(done.Octets).Human()))
			for _, name := range done.Mailboxes {
				p.row("folder", name)
			}
		})
	})
}

type accountPurge struct {
	deletedFlags
	Confirm string `help:"The address once more: what is purged can't be brought back but from a backup." placeholder:"ADDRESS"`
}

func (c *accountPurge) Run(s *session) error {
	if c.Confirm != c.Address {
		return usagef("this removes deleted mail of %s for good: repeat the address with --confirm", c.Address)
	}
	sel, err := c.selection()
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		done, err := control.AccountPurge.Call(s.ctx, k, control.Purge{DeletedSelection: sel, Confirm: c.Confirm})
		if err != nil {
			return err
		}
		return s.print(done, func(p *printer) {
			p.row("purged", fmt.Sprintf("%d messages, %s", done.Messages, config.Size(done.Octets).Human()))
		})
	})
}

type accountHold struct {
	Address string `arg:""`
	State   string `arg:"" optional:"" enum:"on,off,show" default:"show" help:"on, off, or show."`
	Reason  string `help:"Why, for the record." placeholder:"TEXT"`
}

func (c *accountHold) Run(s *session) error {
	if c.State != "show" && c.Reason == "" {
		return usagef("a hold is put on and taken off for a reason: add --reason")
	}
	return s.with(func(k control.Carrier) error {
		var h control.Holds
		var err error
		if c.State == "show" {
			h, err = control.AccountHolds.Call(s.ctx, k, control.AccountRef{Address: c.Address})
		} else {
			h, err = control.AccountHold.Call(s.ctx, k, control.HoldChange{Address: c.Address, On: c.State == "on", Reason: c.Reason})
		}
		if err != nil {
			return err
		}
		return s.print(h, func(p *printer) {
			state := "not held"
			if h.Held {
				state = "held: nothing of it goes"
			}
			p.row(h.Address, state)
			for _, one := range h.Holds {
				p.row("since", one.Since.Format(timeFormat), one.By, one.Reason)
				if !one.Ended.IsZero() {
					p.row("until", one.Ended.Format(timeFormat), one.EndedBy, one.EndedReason)
				}
			}
		})
	})
}

type domainPolicy struct {
	Name          string  `arg:""`
	Quota         *string `help:"Octets that all accounts may hold together, e.g. 500GiB, or none." placeholder:"SIZE"`
	QuotaMessages *int64  `help:"Messages that all accounts may hold together; 0 for no limit." placeholder:"N"`
	TrashDays     *int64  `help:"Days after which messages leave the folder for deleted mail; 0: never, -1: as the setting says." placeholder:"DAYS"`
	JunkDays      *int64  `help:"The same for the junk folder." placeholder:"DAYS"`
	MailDays      *int64  `help:"Days after which messages leave any folder; 0: never." placeholder:"DAYS"`
}

func (c *domainPolicy) Run(s *session) error {
	change := control.DomainPolicyChange{
		Domain: c.Name, QuotaMessages: c.QuotaMessages, TrashDays: c.TrashDays, JunkDays: c.JunkDays, MailDays: c.MailDays,
	}
	if c.Quota != nil {
		quota, err := parseQuota(*c.Quota)
		if err != nil {
			return usageError{err}
		}
		quota = max(quota, 0)
		change.QuotaBytes = &quota
	}
	return s.with(func(k control.Carrier) error {
		var d control.DomainPolicy
		var err error
		if (change == control.DomainPolicyChange{Domain: c.Name}) {
			d, err = control.DomainPolicyShow.Call(s.ctx, k, control.DomainRef{Name: c.Name})
		} else {
			d, err = control.DomainPolicySet.Call(s.ctx, k, change)
		}
		if err != nil {
			return err
		}
		return s.print(d, func(p *printer) {
			p.row("domain", d.Domain)
			p.row("holds", useText(d.Usage, d.QuotaBytes, d.QuotaMessages))
			p.row("trash", daysText(d.TrashDays))
			p.row("junk", daysText(d.JunkDays))
			p.row("all mail", daysText(d.MailDays))
		})
	})
}

func daysText(n int64) string {
	switch {
	case n < 0:
		return "as the setting says"
	case n == 0:
		return "kept"
	}
	return fmt.Sprintf("%d days", n)
}

// useText says what is used of a quota.
func useText(u *control.Usage, octets, messages int64) string {
	text := fmt.Sprintf("%s of %s%s, %d messages", config.Size(u.Bytes).Human(), quotaText(octets), percent(u.Bytes, octets), u.Messages)
	if messages > 0 {
		text += fmt.Sprintf(" of %d%s", messages, percent(u.Messages, messages))
	}
	return text
}

func percent(used, quota int64) string {
	if quota <= 0 {
		return ""
	}
	return fmt.Sprintf(" (%d %%)", int64(float64(used)*100/float64(quota)))
}

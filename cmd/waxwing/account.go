package main

import (
	"fmt"

	"waxwing/internal/address"
	"waxwing/internal/config"
	"waxwing/internal/control"
)

type accountCommand struct {
	Add      accountAdd      `cmd:"" help:"Make an account."`
	Import   accountImport   `cmd:"" help:"Make accounts from a CSV file: address,password,name,quota."`
	List     accountList     `cmd:"" help:"List accounts."`
	Show     accountShow     `cmd:"" help:"Show an account with its mailboxes."`
	Set      accountSet      `cmd:"" help:"Change name, quota, language or role of an account."`
	Suspend  accountSuspend  `cmd:"" help:"Keep an account from signing in and getting mail."`
	Resume   accountResume   `cmd:"" help:"Let a suspended account in again."`
	Password accountPassword `cmd:"" help:"Set the password of an account."`
	Delete   accountDelete   `cmd:"" help:"Delete an account with all its mail."`
	Deleted  accountDeleted  `cmd:"" help:"List deleted mail that can be restored."`
	Restore  accountRestore  `cmd:"" help:"Put deleted mail back into its folders."`
	Purge    accountPurge    `cmd:"" help:"Remove deleted mail for good, before its time."`
	Surge    accountSurge    `cmd:"" help:"Show or choose what becomes of the surplus of a mail bomb against an account."`
	Hold     accountHold     `cmd:"" help:"Keep everything of an account, whatever its user does (legal hold)."`
}

// noQuota is how "no limit" is asked for.
const noQuota = "none"

// parseQuota reads a size, "none" or nothing for the default.
func parseQuota(text string) (int64, error) {
	switch text {
	case "":
		return 0, nil
	case noQuota:
		return -1, nil
	}
	z, err := config.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("quota: %w", err)
	}
	if z == 0 {
		return -1, nil
	}
	return int64(z), nil
}

type accountAdd struct {
	Address string `arg:"" help:"The address, in a domain of this server."`
	Name    string `help:"Name of the person, e.g. \"Li Wei\"."`
	Admin   bool   `help:"An administrator: gets mail to postmaster and abuse."`
	Quota   string `help:"Octets that the account may hold, e.g. 5GiB, or none." placeholder:"SIZE"`
	passwordFlag
}

func (c *accountAdd) Run(s *session) error {
	owner, err := address.Parse(c.Address)
	if err != nil {
		return usageError{err}
	}
	quota, err := parseQuota(c.Quota)
	if err != nil {
		return usageError{err}
	}
	hash, err := c.hash(s, owner)
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		made, err := control.AccountAdd.Call(s.ctx, k, control.NewAccounts{Accounts: []control.NewAccount{{
			Address: c.Address, Name: c.Name, Admin: c.Admin, QuotaBytes: quota, PasswordHash: hash,
		}}})
		if err != nil {
			return err
		}
		return s.print(made.Accounts[0], func(p *printer) { p.row("made", made.Accounts[0].Address) })
	})
}

type accountList struct {
	Domain string `help:"Only of this domain."`
	Search string `help:"Only whose address or name holds this text."`
}

func (c *accountList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		all := []control.Account{}
		req := control.Listing{Domain: c.Domain, Search: c.Search}
		for {
			page, err := control.AccountList.Call(s.ctx, k, req)
			if err != nil {
				return err
			}
			all = append(all, page.Accounts...)
			if req.After = page.Next; req.After == "" {
				break
			}
		}
		return s.print(all, func(p *printer) {
			p.row("ADDRESS", "NAME", "QUOTA", "STATE")
			for _, a := range all {
				p.row(a.Address, a.Name, quotaText(a.QuotaBytes), stateText(a))
			}
		})
	})
}

func quotaText(n int64) string {
	if n == 0 {
		return noQuota
	}
	return config.Size(n).Human()
}

func stateText(a control.Account) string {
	text := "active"
	if a.Suspended {
		text = "suspended"
	}
	if a.Admin {
		text += ", administrator"
	}
	return text
}

type accountShow struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *accountShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		a, err := control.AccountShow.Call(s.ctx, k, control.AccountRef{Address: c.Address})
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) {
			p.row("address", a.Address)
			p.row("name", a.Name)
			p.row("state", stateText(a))
			p.row("language", a.Language)
			p.row("created", a.Created.Format(timeFormat))
			if a.Usage != nil {
				p.row("holds", useText(a.Usage, a.QuotaBytes, a.QuotaMessages))
			}
			if a.Held {
				p.row("legal hold", "nothing of it goes, see `waxwing account hold`")
			}
			sendingRows(p, a.Sending)
			if a.Password != nil && !*a.Password {
				p.row("password", "none: nobody can sign in")
			}
			for _, al := range a.Aliases {
				p.row("alias", al)
			}
			p.line("")
			p.row("MAILBOX", "MESSAGES", "UNSEEN", "SIZE")
			for _, m := range a.Mailboxes {
				p.row(m.Name, m.Messages, m.Unseen, config.Size(m.Size).Human())
			}
		})
	})
}

// timeFormat is how times are shown to people: UTC.
const timeFormat = "2006-01-02 15:04:05Z"

type accountSet struct {
	Address  string  `arg:"" help:"The address of the account."`
	Name     *string `help:"Name of the person."`
	Quota    *string `help:"Octets that the account may hold, e.g. 5GiB, or none." placeholder:"SIZE"`
	Language *string `help:"en or zh." enum:"en,zh"`
	Admin    *bool   `help:"An administrator or not." negatable:""`
}

func (c *accountSet) Run(s *session) error {
	if c.Name == nil && c.Quota == nil && c.Language == nil && c.Admin == nil {
		return usagef("nothing to change: give --name, --quota, --language or --admin")
	}
	change := control.AccountChange{Address: c.Address, Name: c.Name, Language: c.Language, Admin: c.Admin}
	if c.Quota != nil {
		quota, err := parseQuota(*c.Quota)
		if err != nil {
			return usageError{err}
		}
		quota = max(quota, 0)
		change.QuotaBytes = &quota
	}
	return s.with(func(k control.Carrier) error {
		a, err := control.AccountSet.Call(s.ctx, k, change)
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) { p.row("changed", a.Address) })
	})
}

type accountSuspend struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *accountSuspend) Run(s *session) error { return suspend(s, c.Address, true) }

type accountResume struct {
	Address string `arg:"" help:"The address of the account."`
}

func (c *accountResume) Run(s *session) error { return suspend(s, c.Address, false) }

func suspend(s *session, addr string, suspended bool) error {
	return s.with(func(k control.Carrier) error {
		a, err := control.AccountSuspend.Call(s.ctx, k, control.Suspension{Address: addr, Suspended: suspended})
		if err != nil {
			return err
		}
		return s.print(a, func(p *printer) { p.row(a.Address, stateText(a)) })
	})
}

type accountPassword struct {
	Address string `arg:"" help:"The address of the account."`
	passwordFlag
}

func (c *accountPassword) Run(s *session) error {
	owner, err := address.Parse(c.Address)
	if err != nil {
		return usageError{err}
	}
	return s.with(func(k control.Carrier) error {
		// Asked before the password is, so that a wrong address is told at once.
		if _, err := control.AccountShow.Call(s.ctx, k, control.AccountRef{Address: c.Address}); err != nil {
			return err
		}
		hash, err := c.hash(s, owner)
		if err != nil {
			return err
		}
		if _, err := control.AccountHash.Call(s.ctx, k, control.PasswordChange{Address: c.Address, PasswordHash: hash}); err != nil {
			return err
		}
		return s.print(map[string]string{"address": c.Address, "password": "set"}, func(p *printer) { p.row("password set for", c.Address) })
	})
}

type accountDelete struct {
	Address string `arg:"" help:"The address of the account."`
	Yes     bool   `help:"Really: the mail can't be brought back but from a backup or an export."`
}

func (c *accountDelete) Run(s *session) error {
	if !c.Yes {
		return usagef("this deletes %s with all its mail: add --yes (`waxwing export` saves the mail first)", c.Address)
	}
	return s.with(func(k control.Carrier) error {
		if _, err := control.AccountDelete.Call(s.ctx, k, control.AccountRef{Address: c.Address}); err != nil {
			return err
		}
		return s.print(map[string]string{"deleted": c.Address}, func(p *printer) { p.row("deleted", c.Address) })
	})
}

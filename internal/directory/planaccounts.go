package directory

import (
	"context"
	"slices"

	"waxwing/internal/store"
)

func (p *planner) planAccounts(ctx context.Context) error {
	if p.want.Accounts == nil {
		return nil
	}
	list, err := p.d.Accounts(ctx, Filter{})
	if err != nil {
		return err
	}
	have := make(map[string]Account, len(list))
	for _, a := range list {
		have[a.Address.Key()] = a
	}
	for i, w := range p.want.Accounts {
		if err := p.claim("accounts", i, w.Address); err != nil {
			return err
		}
		if err := p.planAccount(have, w); err != nil {
			return at("accounts", i, err)
		}
	}
	for _, a := range list {
		if _, gone := have[a.Address.Key()]; gone {
			p.edit.RemoveAccounts = append(p.edit.RemoveAccounts, a.ID)
			p.change(Change{Act: Remove, Kind: "account", Name: a.Address.Unicode(), Remark: remarkMail})
		}
	}
	return nil
}

// planAccount takes one account of the document, and out of have what it stands for.
func (p *planner) planAccount(have map[string]Account, w DocumentAccount) error {
	n := NewAccount{Address: w.Address, Name: w.Name, Admin: w.Admin, Language: w.Language}
	for _, q := range []struct {
		to   *int64
		from *int64
	}{{&n.QuotaBytes, w.QuotaBytes}, {&n.QuotaMessages, w.QuotaMessages}} {
		if q.from == nil {
			continue // the setting's
		}
		if *q.to = *q.from; *q.from == 0 {
			*q.to = -1
		}
		if *q.from < 0 {
			*q.to = maxQuota + 1 // -1 means nothing in a document
		}
	}
	row, err := accountRow(&n, p.settings, p.own)
	if err != nil {
		return err
	}
	row.Suspended = w.Suspended
	if row.Options, err = checkForward(w.Address, w.Forward); err != nil {
		return err
	}
	key, name := w.Address.Key(), w.Address.Unicode()
	old, ok := have[key]
	delete(have, key)
	if !ok {
		row.Created = p.d.clock()
		p.edit.AddAccounts = append(p.edit.AddAccounts, store.NewDirectoryAccount{DirectoryAccount: row, Mailboxes: p.settings.mailboxes()})
		p.change(Change{Act: Make, Kind: "account", Name: name, Remark: remarkNoPassword})
	}
	before := len(p.Changes)
	p.fields("account", name, []field{
		{"name", old.Name, row.Name},
		{"language", old.Language, row.Language},
		{"admin", old.Admin, row.Admin},
		{"suspended", old.Suspended, row.Suspended},
		{"quota_bytes", old.QuotaBytes, row.QuotaBytes},
		{"quota_messages", old.QuotaMessages, row.QuotaMessages},
		{"forward", old.Forward.text(), w.Forward.text()},
	})
	if ok && len(p.Changes) > before {
		p.edit.SetAccounts = append(p.edit.SetAccounts, store.DirectoryAccountChange{
			ID: old.ID, Name: &row.Name, Language: &row.Language, Admin: &row.Admin, Suspended: &row.Suspended,
			QuotaBytes: &row.QuotaBytes, QuotaMessages: &row.QuotaMessages, Options: &row.Options,
		})
	}
	return nil
}

func (p *planner) planAliases() error {
	if p.want.Aliases == nil {
		return nil
	}
	have := make(map[string]Alias, len(p.now.Aliases))
	for _, al := range p.now.Aliases {
		have[al.Address.Key()] = al
	}
	for i, al := range p.want.Aliases {
		if err := p.claim("aliases", i, al.Address); err != nil {
			return err
		}
		row, err := p.d.aliasRow(al, p.own)
		if err != nil {
			return at("aliases", i, err)
		}
		old, ok := have[row.Key]
		delete(have, row.Key)
		switch {
		case !ok:
			p.edit.AddAliases = append(p.edit.AddAliases, row)
			p.change(Change{Act: Make, Kind: "alias", Name: al.Address.Unicode(), To: targets(al)})
		case !slices.Equal(keys(old), keys(al)):
			p.edit.SetAliases = append(p.edit.SetAliases, row)
			p.change(Change{Act: Alter, Kind: "alias", Name: al.Address.Unicode(), Field: "targets", From: targets(old), To: targets(al)})
		}
		if was, will := old.Group.text(), al.Group.text(); was != will {
			p.change(Change{Act: Alter, Kind: "alias", Name: al.Address.Unicode(), Field: "group", From: was, To: will})
			if ok && slices.Equal(keys(old), keys(al)) {
				p.edit.SetAliases = append(p.edit.SetAliases, row)
			}
		}
	}
	for _, al := range p.now.Aliases {
		if _, gone := have[al.Address.Key()]; gone {
			p.edit.RemoveAliases = append(p.edit.RemoveAliases, al.Address.Key())
			p.change(Change{Act: Remove, Kind: "alias", Name: al.Address.Unicode(), From: targets(al)})
		}
	}
	return nil
}

func keys(al Alias) []string {
	out := make([]string, len(al.Targets))
	for i, t := range al.Targets {
		out[i] = t.Key()
	}
	return out
}

func targets(al Alias) string { return joined(al.Targets) }

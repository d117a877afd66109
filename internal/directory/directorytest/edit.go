package directorytest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/store"
)

// EditDirectory implements directory.Repository: all of it or nothing. An error about an account has no index.
func (m *Memory) EditDirectory(_ context.Context, e store.DirectoryEdit) (int64, []store.AccountID, error) {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return 0, nil, err
	}
	if e.Base >= 0 && e.Base != m.version {
		return 0, nil, store.ErrDirectoryConflict
	}
	before, lines := m.clone(), len(m.history)
	m.version++
	ids, err := m.edit(e)
	if err != nil {
		m.tables, m.history = before, m.history[:lines]
		return 0, nil, err
	}
	m.versions = append(m.versions, m.clone())
	return m.version, ids, nil
}

func (m *Memory) edit(e store.DirectoryEdit) (ids []store.AccountID, err error) {
	for _, k := range e.RemoveAliases {
		if _, ok := m.aliases[k]; !ok {
			return nil, store.ErrNotFound
		}
		delete(m.aliases, k)
		delete(m.keys, k)
		m.line(e, "alias/"+k, nil)
	}
	for _, id := range e.RemoveAccounts {
		a, ok := m.accounts[id]
		if !ok {
			return nil, store.ErrNotFound
		}
		delete(m.keys, a.row.Key)
		delete(m.accounts, id)
		m.line(e, "account/"+a.row.Key, nil)
	}
	if err := m.putDomains(e); err != nil {
		return nil, err
	}
	if ids, err = m.addAccounts(e); err != nil {
		return nil, err
	}
	for _, c := range e.SetAccounts {
		if err := m.setAccount(e, c); err != nil {
			return nil, err
		}
	}
	if err := m.putAliases(e); err != nil {
		return nil, err
	}
	if err := m.removeDomains(e); err != nil {
		return nil, err
	}
	if err := m.editRules(e); err != nil {
		return nil, err
	}
	for _, c := range e.Settings {
		m.line(e, c.Name, c.Value)
		if c.Value == nil {
			delete(m.settings, c.Name)
			continue
		}
		m.settings[c.Name] = store.SettingRow{Name: c.Name, Value: *c.Value, Version: m.version, Changed: e.At}
	}
	return ids, nil
}

func (m *Memory) line(e store.DirectoryEdit, name string, value *string) {
	m.history = append(m.history, store.SettingChange{Version: m.version, Name: name, Value: value, Changed: e.At, Actor: e.Actor})
}

// object notes an object that is there after the edit; what it holds stands in the versions.
func (m *Memory) object(e store.DirectoryEdit, name string) {
	text := "{}"
	m.line(e, name, &text)
}

func (m *Memory) putDomains(e store.DirectoryEdit) error {
	for _, d := range e.AddDomains {
		if _, ok := m.domains[d.Name]; ok {
			return store.ErrExists
		}
		m.domains[d.Name] = d
		m.object(e, "domain/"+d.Name)
	}
	for _, d := range e.SetDomains {
		old, ok := m.domains[d.Name]
		if !ok {
			return store.ErrNotFound
		}
		d.Created = old.Created
		m.domains[d.Name] = d
		m.object(e, "domain/"+d.Name)
	}
	return nil
}

func (m *Memory) removeDomains(e store.DirectoryEdit) error {
	for _, name := range e.RemoveDomains {
		for key := range m.keys {
			if strings.HasSuffix(key, "@"+name) {
				return store.ErrDirectoryNotEmpty
			}
		}
		if _, ok := m.domains[name]; !ok {
			return store.ErrNotFound
		}
		delete(m.domains, name)
		m.line(e, "domain/"+name, nil)
	}
	return nil
}

func (m *Memory) addAccounts(e store.DirectoryEdit) ([]store.AccountID, error) {
	ids := make([]store.AccountID, len(e.AddAccounts))
	for i, a := range e.AddAccounts {
		d, ok := m.domains[a.Domain]
		if !ok {
			return nil, store.ErrNotFound
		}
		if _, ok := m.keys[a.Key]; ok {
			return nil, store.ErrExists
		}
		used := 0
		for _, other := range m.accounts {
			if other.row.Domain == a.Domain {
				used++
			}
		}
		if d.MaxAccounts > 0 && used >= d.MaxAccounts {
			return nil, store.ErrLimit
		}
		m.last++
		ids[i] = m.last
		row := a.DirectoryAccount
		row.ID, row.PasswordVersion = m.last, 1
		m.accounts[m.last] = entry{row: row, phc: a.Password}
		m.keys[a.Key] = m.last
		m.object(e, "account/"+a.Key)
	}
	return ids, nil
}

func (m *Memory) setAccount(e store.DirectoryEdit, c store.DirectoryAccountChange) error {
	a, ok := m.accounts[c.ID]
	if !ok {
		return store.ErrNotFound
	}
	set(&a.row.Name, c.Name)
	set(&a.row.Language, c.Language)
	set(&a.row.Admin, c.Admin)
	set(&a.row.Suspended, c.Suspended)
	set(&a.row.QuotaBytes, c.QuotaBytes)
	set(&a.row.QuotaMessages, c.QuotaMessages)
	set(&a.row.Options, c.Options)
	m.accounts[c.ID] = a
	m.object(e, "account/"+a.row.Key)
	return nil
}

func set[T any](p, v *T) {
	if v != nil {
		*p = *v
	}
}

func (m *Memory) putAliases(e store.DirectoryEdit) error {
	for i, a := range slices.Concat(e.AddAliases, e.SetAliases) {
		replace := i >= len(e.AddAliases)
		id, ok := m.keys[a.Key]
		switch {
		case replace && (!ok || id != 0):
			return store.ErrNotFound
		case !replace && ok:
			return store.ErrExists
		}
		if _, ok := m.domains[a.Domain]; !ok {
			return fmt.Errorf("domain %s: %w", a.Domain, store.ErrNotFound)
		}
		m.keys[a.Key], m.aliases[a.Key] = 0, a
		m.object(e, "alias/"+a.Key)
	}
	return nil
}

// DirectoryAt implements directory.Repository.
func (m *Memory) DirectoryAt(_ context.Context, version int64) (out store.DirectorySnapshot, err error) {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return out, err
	}
	if version < 0 || version >= int64(len(m.versions)) {
		return out, store.ErrNotFound
	}
	t := m.versions[version]
	for _, d := range t.domains {
		out.Domains = append(out.Domains, d)
	}
	for _, a := range t.accounts {
		out.Accounts = append(out.Accounts, a.row)
	}
	for _, a := range t.aliases {
		out.Aliases = append(out.Aliases, a)
	}
	for _, r := range t.rules {
		out.Rules = append(out.Rules, r)
	}
	return out, nil
}

func (m *Memory) editRules(e store.DirectoryEdit) error {
	for _, r := range e.RemoveRules {
		key := r.Kind + "/" + r.Name
		if _, ok := m.rules[key]; !ok {
			return store.ErrNotFound
		}
		delete(m.rules, key)
		m.line(e, key, nil)
	}
	for i, r := range slices.Concat(e.AddRules, e.PutRules) {
		key := r.Kind + "/" + r.Name
		if _, ok := m.rules[key]; ok && i < len(e.AddRules) {
			return store.ErrExists
		}
		m.rules[key] = r
		m.line(e, key, &r.Value)
	}
	return nil
}

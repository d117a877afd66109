// Package directorytest helps tests of whatever stands on package directory: a repository in memory, whose calls can be
// made to fail. It keeps the same rules as the rows of the store; the tests of package directory run over both.
package directorytest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// Memory is a directory.Repository in memory. It is safe for concurrent use.
type Memory struct {
	mu        sync.Mutex
	domains   map[string]store.DirectoryDomain
	accounts  map[store.AccountID]*entry
	keys      map[string]store.AccountID // of accounts; 0 for aliases
	aliases   map[string]store.DirectoryAlias
	last      store.AccountID
	version   int64
	settings  map[string]store.SettingRow
	history   []store.SettingChange
	fail      error
	questions int
}

type entry struct {
	row store.DirectoryAccount
	phc string
}

var _ directory.Repository = (*Memory)(nil)

// NewMemory gives an empty repository.
func NewMemory() *Memory {
	return &Memory{
		domains: map[string]store.DirectoryDomain{}, accounts: map[store.AccountID]*entry{}, keys: map[string]store.AccountID{},
		aliases: map[string]store.DirectoryAlias{}, settings: map[string]store.SettingRow{},
	}
}

// Fail makes every call fail with err until it is called with nil.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// Questions is how many calls there were.
func (m *Memory) Questions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.questions
}

// enter begins a call.
func (m *Memory) enter() (leave func(), err error) {
	m.mu.Lock()
	m.questions++
	return m.mu.Unlock, m.fail
}

// DirectoryDomains implements directory.Repository.
func (m *Memory) DirectoryDomains(context.Context) ([]store.DirectoryDomain, error) {
	leave, err := m.enter()
	defer leave()
	var list []store.DirectoryDomain
	for _, d := range m.domains {
		list = append(list, d)
	}
	return list, err
}

// AddDirectoryDomain implements directory.Repository.
func (m *Memory) AddDirectoryDomain(_ context.Context, d store.DirectoryDomain) error {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return err
	}
	if _, ok := m.domains[d.Name]; ok {
		return store.ErrExists
	}
	m.domains[d.Name] = d
	return nil
}

// SetDirectoryDomain implements directory.Repository.
func (m *Memory) SetDirectoryDomain(_ context.Context, d store.DirectoryDomain) error {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return err
	}
	old, ok := m.domains[d.Name]
	if !ok {
		return store.ErrNotFound
	}
	d.Created = old.Created
	m.domains[d.Name] = d
	return nil
}

// RemoveDirectoryDomain implements directory.Repository.
func (m *Memory) RemoveDirectoryDomain(_ context.Context, name string) error {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return err
	}
	for key := range m.keys {
		if strings.HasSuffix(key, "@"+name) {
			return store.ErrDirectoryNotEmpty
		}
	}
	if _, ok := m.domains[name]; !ok {
		return store.ErrNotFound
	}
	delete(m.domains, name)
	return nil
}

// LookupDirectoryAddress implements directory.Repository.
func (m *Memory) LookupDirectoryAddress(_ context.Context, key string) (store.DirectoryAddress, error) {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return store.DirectoryAddress{}, err
	}
	id, ok := m.keys[key]
	switch {
	case !ok:
		return store.DirectoryAddress{}, store.ErrNotFound
	case id != 0:
		row := m.accounts[id].row
		return store.DirectoryAddress{Account: &row}, nil
	}
	var found store.DirectoryAddress
	for _, t := range m.aliases[key].Targets {
		found.Targets = append(found.Targets, t.Address)
	}
	return found, nil
}

// DirectoryAccount implements directory.Repository.
func (m *Memory) DirectoryAccount(_ context.Context, id store.AccountID) (store.DirectoryAccount, error) {
	leave, err := m.enter()
	defer leave()
	e, ok := m.accounts[id]
	switch {
	case err != nil:
		return store.DirectoryAccount{}, err
	case !ok:
		return store.DirectoryAccount{}, store.ErrNotFound
	}
	return e.row, nil
}

// DirectoryAccounts implements directory.Repository.
func (m *Memory) DirectoryAccounts(_ context.Context, f store.DirectoryFilter) ([]store.DirectoryAccount, error) {
	leave, err := m.enter()
	defer leave()
	var list []store.DirectoryAccount
	for _, e := range m.accounts {
		if selected(f, e.row.Key, e.row.Domain, e.row.Name) {
			list = append(list, e.row)
		}
	}
	slices.SortFunc(list, func(a, b store.DirectoryAccount) int { return cmp.Compare(a.Key, b.Key) })
	return limited(list, f.Limit), err
}

func selected(f store.DirectoryFilter, key, domain, name string) bool {
	search := strings.ToLower(f.Search)
	return (f.Domain == "" || f.Domain == domain) && key > f.After &&
		(strings.Contains(key, search) || strings.Contains(strings.ToLower(name), search))
}

func limited[T any](list []T, limit int) []T {
	if limit > 0 && len(list) > limit {
		return list[:limit]
	}
	return list
}

// FirstDirectoryAccount implements directory.Repository.
func (m *Memory) FirstDirectoryAccount(_ context.Context, domain string, admin bool) (store.DirectoryAccount, error) {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return store.DirectoryAccount{}, err
	}
	for id := store.AccountID(1); id <= m.last; id++ {
		e, ok := m.accounts[id]
		if ok && !e.row.Suspended && (domain == "" || e.row.Domain == domain) && (!admin || e.row.Admin) {
			return e.row, nil
		}
	}
	return store.DirectoryAccount{}, store.ErrNotFound
}

// AddDirectoryAccounts implements directory.Repository. The error about an entry has no index.
func (m *Memory) AddDirectoryAccounts(_ context.Context, accounts []store.NewDirectoryAccount) ([]store.AccountID, error) {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		d, ok := m.domains[a.Domain]
		if !ok {
			return nil, store.ErrNotFound
		}
		if _, ok := m.keys[a.Key]; ok {
			return nil, store.ErrExists
		}
		used := 0
		for _, e := range m.accounts {
			if e.row.Domain == a.Domain {
				used++
			}
		}
		if d.MaxAccounts > 0 && used+len(accounts) > d.MaxAccounts {
			return nil, store.ErrLimit
		}
	}
	ids := make([]store.AccountID, len(accounts))
	for i, a := range accounts {
		m.last++
		ids[i] = m.last
		row := a.DirectoryAccount
		row.ID, row.PasswordVersion = m.last, 1
		m.accounts[m.last] = &entry{row: row, phc: a.Password}
		m.keys[a.Key] = m.last
	}
	return ids, nil
}

// change runs fn on an account.
func (m *Memory) change(id store.AccountID, fn func(*entry)) error {
	leave, err := m.enter()
	defer leave()
	e, ok := m.accounts[id]
	switch {
	case err != nil:
		return err
	case !ok:
		return store.ErrNotFound
	}
	fn(e)
	return nil
}

// SetDirectoryAccount implements directory.Repository.
func (m *Memory) SetDirectoryAccount(_ context.Context, a store.DirectoryAccount) error {
	return m.change(a.ID, func(e *entry) {
		e.row.Name, e.row.Language, e.row.Admin = a.Name, a.Language, a.Admin
		e.row.QuotaBytes, e.row.QuotaMessages = a.QuotaBytes, a.QuotaMessages
	})
}

// SuspendDirectoryAccount implements directory.Repository.
func (m *Memory) SuspendDirectoryAccount(_ context.Context, id store.AccountID, suspended bool) error {
	return m.change(id, func(e *entry) { e.row.Suspended = suspended })
}

// RemoveDirectoryAccount implements directory.Repository.
func (m *Memory) RemoveDirectoryAccount(_ context.Context, id store.AccountID) error {
	return m.change(id, func(e *entry) {
		delete(m.keys, e.row.Key)
		delete(m.accounts, id)
	})
}

// DirectoryPassword implements directory.Repository.
func (m *Memory) DirectoryPassword(_ context.Context, id store.AccountID) (phc string, version int64, err error) {
	err = m.change(id, func(e *entry) { phc, version = e.phc, e.row.PasswordVersion })
	return phc, version, err
}

// SetDirectoryPassword implements directory.Repository.
func (m *Memory) SetDirectoryPassword(_ context.Context, id store.AccountID, phc string) error {
	return m.change(id, func(e *entry) {
		e.phc = phc
		e.row.PasswordVersion++
	})
}

// DirectoryAliases implements directory.Repository.
func (m *Memory) DirectoryAliases(_ context.Context, f store.DirectoryFilter) ([]store.DirectoryAlias, error) {
	leave, err := m.enter()
	defer leave()
	var list []store.DirectoryAlias
	for _, a := range m.aliases {
		names := slices.ContainsFunc(a.Targets, func(t store.DirectoryTarget) bool { return t.Key == f.Target })
		if selected(f, a.Key, a.Domain, a.Local) && (f.Target == "" || names) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b store.DirectoryAlias) int { return cmp.Compare(a.Key, b.Key) })
	return limited(list, f.Limit), err
}

// PutDirectoryAlias implements directory.Repository.
func (m *Memory) PutDirectoryAlias(_ context.Context, a store.DirectoryAlias, replace bool) error {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return err
	}
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
	return nil
}

// RemoveDirectoryAlias implements directory.Repository.
func (m *Memory) RemoveDirectoryAlias(_ context.Context, key string) error {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return err
	}
	if _, ok := m.aliases[key]; !ok {
		return store.ErrNotFound
	}
	delete(m.aliases, key)
	delete(m.keys, key)
	return nil
}

// Settings implements directory.Repository.
func (m *Memory) Settings(context.Context) (int64, []store.SettingRow, error) {
	leave, err := m.enter()
	defer leave()
	var list []store.SettingRow
	for _, r := range m.settings {
		list = append(list, r)
	}
	return m.version, list, err
}

// ChangeSettings implements directory.Repository.
func (m *Memory) ChangeSettings(_ context.Context, base int64, actor string, at time.Time, changes []store.SettingChange) (int64, error) {
	leave, err := m.enter()
	defer leave()
	if err != nil {
		return 0, err
	}
	if base >= 0 && base != m.version {
		return 0, store.ErrDirectoryConflict
	}
	m.version++
	for _, c := range changes {
		c.Version, c.Actor, c.Changed = m.version, actor, at
		m.history = append(m.history, c)
		if c.Value == nil {
			delete(m.settings, c.Name)
			continue
		}
		m.settings[c.Name] = store.SettingRow{Name: c.Name, Value: *c.Value, Version: m.version, Changed: at}
	}
	return m.version, nil
}

// SettingsHistory implements directory.Repository.
func (m *Memory) SettingsHistory(_ context.Context, upTo int64, limit int) ([]store.SettingChange, error) {
	leave, err := m.enter()
	defer leave()
	var list []store.SettingChange
	for _, c := range m.history {
		if upTo <= 0 || c.Version <= upTo {
			list = append(list, c)
		}
	}
	slices.SortStableFunc(list, func(a, b store.SettingChange) int {
		return cmp.Or(-cmp.Compare(a.Version, b.Version), cmp.Compare(a.Name, b.Name))
	})
	return limited(list, limit), err
}

// Package directorytest helps tests of whatever stands on package directory: a repository in memory, whose calls can be
// made to fail. It keeps the same rules as the rows of the store; the tests of package directory run over both.
package directorytest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// Memory is a directory.Repository in memory. It is safe for concurrent use.
type Memory struct {
	mu sync.Mutex
	tables
	last      store.AccountID
	history   []store.SettingChange
	versions  []tables // as they were, by version
	fail      error
	questions int
}

// tables are the rows at one version.
type tables struct {
	version  int64
	domains  map[string]store.DirectoryDomain
	accounts map[store.AccountID]entry
	keys     map[string]store.AccountID // of accounts; 0 for aliases
	aliases  map[string]store.DirectoryAlias
	settings map[string]store.SettingRow
	rules    map[string]store.DirectoryRule // by kind/name
}

func (t *tables) clone() tables {
	return tables{t.version, maps.Clone(t.domains), maps.Clone(t.accounts), maps.Clone(t.keys), maps.Clone(t.aliases), maps.Clone(t.settings), maps.Clone(t.rules)}
}

type entry struct {
	row store.DirectoryAccount
	phc string
}

var _ directory.Repository = (*Memory)(nil)

// NewMemory gives an empty repository.
func NewMemory() *Memory {
	m := &Memory{tables: tables{
		domains: map[string]store.DirectoryDomain{}, accounts: map[store.AccountID]entry{}, keys: map[string]store.AccountID{},
		aliases: map[string]store.DirectoryAlias{}, settings: map[string]store.SettingRow{}, rules: map[string]store.DirectoryRule{},
	}}
	m.versions = []tables{m.clone()}
	return m
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

// DirectoryRules implements directory.Repository.
func (m *Memory) DirectoryRules(context.Context) ([]store.DirectoryRule, error) {
	leave, err := m.enter()
	defer leave()
	var list []store.DirectoryRule
	for _, r := range m.rules {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b store.DirectoryRule) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list, err
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
	found := store.DirectoryAddress{Options: m.aliases[key].Options}
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
	fn(&e)
	m.accounts[id] = e
	return nil
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

package directory

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// Document is all that an administrator has decided, at one version: what can be kept in a file, compared and applied. It
// holds no password.
type Document struct {
	Version  int64
	Settings map[string]json.RawMessage // JSON by name; one that isn't named has its default
	// A nil list says nothing of its objects, and they are left as they are. One that isn't nil is complete: what it
	// doesn't name goes.
	Domains  []Domain
	Accounts []DocumentAccount
	Aliases  []Alias
	Access   []AccessRule
	Sending  []SendingLimit
	MailRules
}

// DocumentAccount is an account in a Document.
type DocumentAccount struct {
	Address       address.Address
	Name          string
	Admin         bool
	Suspended     bool
	Language      string // the setting's when empty
	QuotaBytes    *int64 // 0: none; the setting's when nil
	QuotaMessages *int64 // 0: none; the setting's when nil
	Forward       Forward
}

// Document gives the document as it is now.
func (d *Directory) Document(ctx context.Context) (Document, error) {
	s := d.Settings() // read first: an edit meanwhile makes a newer version, and the older one is then refused as a base
	doc := Document{Version: s.Version, Settings: s.changed(), Domains: d.Domains(), Accounts: []DocumentAccount{}}
	accounts, err := d.Accounts(ctx, Filter{})
	if err != nil {
		return Document{}, err
	}
	for _, a := range accounts {
		doc.Accounts = append(doc.Accounts, documentAccount(a))
	}
	doc.takeRules(s.rules())
	doc.MailRules = d.MailRules()
	doc.Aliases, err = d.Aliases(ctx, Filter{})
	return doc, err
}

// DocumentAt gives the document as it was at a version; ErrNotFound when there was none such.
func (d *Directory) DocumentAt(ctx context.Context, version int64) (Document, error) {
	s, err := d.SettingsAt(ctx, version)
	if err != nil {
		return Document{}, err
	}
	rows, err := d.repo.DirectoryAt(ctx, version)
	if err != nil {
		return Document{}, wrap("read history of", "directory", err)
	}
	doc := Document{Version: version, Settings: s.changed(), Domains: []Domain{}, Accounts: []DocumentAccount{}, Aliases: []Alias{}}
	doc.takeRules(s.rules())
	for _, r := range rows.Domains {
		doc.Domains = append(doc.Domains, d.domain(r))
	}
	for _, r := range rows.Accounts {
		doc.Accounts = append(doc.Accounts, documentAccount(account(r)))
	}
	for _, r := range rows.Aliases {
		al, err := alias(r)
		if err != nil {
			return Document{}, err
		}
		doc.Aliases = append(doc.Aliases, al)
	}
	doc.MailRules = d.readMailRules(slices.DeleteFunc(rows.Rules, func(r store.DirectoryRule) bool { return isRule(r.Kind + "/") }))
	slices.SortFunc(doc.Domains, func(a, b Domain) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(doc.Accounts, func(a, b DocumentAccount) int { return cmp.Compare(a.Address.Key(), b.Address.Key()) })
	slices.SortFunc(doc.Aliases, func(a, b Alias) int { return cmp.Compare(a.Address.Key(), b.Address.Key()) })
	return doc, nil
}

// takeRules sets the lists of rules, which are never nil.
func (doc *Document) takeRules(r Rules) {
	doc.Access = append([]AccessRule{}, r.Access...)
	doc.Sending = append([]SendingLimit{}, r.Sending...)
}

func documentAccount(a Account) DocumentAccount {
	return DocumentAccount{
		Address: a.Address, Name: a.Name, Admin: a.Admin, Suspended: a.Suspended, Language: a.Language,
		QuotaBytes: &a.QuotaBytes, QuotaMessages: &a.QuotaMessages, Forward: a.Forward,
	}
}

// changed are the settings that differ from their defaults.
func (s Settings) changed() map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, x := range s.List() {
		if x.Changed {
			out[x.Name] = x.Value
		}
	}
	return out
}

// Act is what a Change does to its object.
type Act string

// The acts.
const (
	Make   Act = "make"
	Alter  Act = "change"
	Remove Act = "remove"
)

// Change is one difference between what is and what a document asks for.
type Change struct {
	Act    Act
	Kind   string // "setting", "domain", "account", "alias", "access", "sending"
	Name   string
	Field  string // of the object, "" for the whole
	From   any    // nil: nothing
	To     any    // nil: nothing
	Remark string // what follows from it that isn't plain
}

// Plan is the way from one version to what a document asks for.
type Plan struct {
	Changes  []Change
	edit     store.DirectoryEdit
	settings Settings
}

// Base is the version that the plan starts from.
func (p Plan) Base() int64 { return p.edit.Base }

// Remarks of changes.
const (
	remarkNoPassword = "without a password: nobody can sign in until `waxwing account password`"
	remarkMail       = "with all its mail"
)

// Plan compares a document with what is, and checks it. What is wrong comes as a *FieldError, whose Field names the place
// in the document: "message.size", "accounts.2.quota_bytes".
func (d *Directory) Plan(ctx context.Context, want Document) (Plan, error) {
	now, err := d.Document(ctx)
	if err != nil {
		return Plan{}, err
	}
	p := &planner{d: d, now: now, want: want}
	p.edit.Base = now.Version
	for _, step := range []func() error{p.planSettings, p.planRules, p.scope, p.planDomains, func() error { return p.planAccounts(ctx) }, p.planAliases, p.planMailRules} {
		if err := step(); err != nil {
			return Plan{}, err
		}
	}
	return p.Plan, nil
}

// Apply carries out a plan in one transaction, and gives the new version. ErrConflict when something changed since the
// plan was made; ErrHoldsMail, unless deleteMail allows it, when it removes an account that has mail.
func (d *Directory) Apply(ctx context.Context, p Plan, deleteMail bool) (int64, error) {
	if len(p.Changes) == 0 {
		return p.edit.Base, nil
	}
	d.reload.Lock()
	defer d.reload.Unlock()
	p.edit.KeepMail = !deleteMail
	if _, err := d.commit(ctx, p.edit, &p.settings); err != nil {
		if at, ok := store.DirectoryBatchIndex(err); ok && at < len(p.edit.AddAccounts) {
			return 0, wrap("apply: account", p.edit.AddAccounts[at].Key, err)
		}
		return 0, wrap("apply:", cmp.Or(store.DirectorySubject(err), "settings"), err)
	}
	return d.Settings().Version, nil
}

// planner finds out the differences.
type planner struct {
	Plan
	d         *Directory
	now, want Document
	own       ownAddress
	addresses map[string]string // of the document, by key: where each stands
}

// at puts the place in the document before the field of an error.
func at(list string, i int, err error) error {
	if f, ok := errors.AsType[*FieldError](err); ok {
		return &FieldError{Field: fmt.Sprintf("%s.%d.%s", list, i, f.Field), Value: f.Value, Want: f.Want}
	}
	return err
}

func (p *planner) change(c Change) { p.Changes = append(p.Changes, c) }

func (p *planner) planSettings() error {
	next, err := DefaultSettings().with(p.want.Settings)
	if err != nil {
		return err
	}
	now := p.d.Settings()
	p.settings = next
	p.edit.Settings = difference(now, next)
	from, to := now.List(), next.List()
	for i := range from {
		if string(from[i].Value) != string(to[i].Value) {
			p.change(Change{Act: Alter, Kind: "setting", Name: from[i].Name, From: from[i].Value, To: to[i].Value})
		}
	}
	return nil
}

// scope is what addresses may stand in once the document is applied.
func (p *planner) scope() error {
	p.addresses = map[string]string{}
	p.own = ownAddress{separator: p.separator(p.now.Domains), local: p.d.Local}
	if p.want.Domains == nil {
		return nil
	}
	names := map[string]bool{}
	for i, dom := range p.want.Domains {
		name, err := address.ParseDomain(dom.Name)
		switch {
		case err != nil:
			return at("domains", i, &FieldError{Field: "name", Value: dom.Name, Want: "a domain name such as example.test"})
		case names[name]:
			return at("domains", i, &FieldError{Field: "name", Value: dom.Name, Want: "each domain once"})
		}
		names[name] = true
	}
	p.own = ownAddress{separator: p.separator(p.want.Domains), local: func(domain string) bool { return names[domain] }}
	return nil
}

// separator tells what begins a sub-address in each of the domains to be.
func (p *planner) separator(list []Domain) func(string) string {
	of := make(map[string]Domain, len(list))
	for _, dom := range list {
		if name, err := address.ParseDomain(dom.Name); err == nil {
			of[name] = dom
		}
	}
	standard := p.settings.SubaddressSeparator
	return func(domain string) string {
		dom := of[domain]
		return dom.separator(standard)
	}
}

// aliasOf tells which domains there are to be, and what they stand for.
func (p *planner) aliasOf() func(string) (string, bool) {
	of := make(map[string]string, len(p.want.Domains))
	for _, dom := range p.want.Domains {
		if name, err := address.ParseDomain(dom.Name); err == nil {
			of[name] = dom.AliasOf
		}
	}
	return func(name string) (string, bool) {
		target, ok := of[name]
		return target, ok
	}
}

func (p *planner) planDomains() error {
	if p.want.Domains == nil {
		return nil
	}
	have := map[string]Domain{}
	for _, dom := range p.now.Domains {
		have[dom.Name] = dom
	}
	hasAccount, aliasOf := p.accountsToBe(), p.aliasOf()
	for i, dom := range p.want.Domains {
		row, err := domainRow(dom, hasAccount, aliasOf)
		if err != nil {
			return at("domains", i, err)
		}
		next := p.d.domain(row)
		old, ok := have[next.Name]
		delete(have, next.Name)
		if !ok {
			row.Created = p.d.clock()
			p.edit.AddDomains = append(p.edit.AddDomains, row)
			p.change(Change{Act: Make, Kind: "domain", Name: next.Name})
			old = Domain{Name: next.Name}
		}
		n := len(p.Changes)
		p.fields("domain", next.Name, []field{
			{"catch_all", text(old.CatchAll), text(next.CatchAll)},
			{"postmaster", text(old.Postmaster), text(next.Postmaster)},
			{"max_accounts", old.MaxAccounts, next.MaxAccounts},
			{"alias_of", old.AliasOf, next.AliasOf},
			{"subaddress", old.Subaddress, next.Subaddress},
			{"catch_all_except", strings.Join(old.CatchAllExcept, ", "), strings.Join(next.CatchAllExcept, ", ")},
		})
		if ok && len(p.Changes) > n {
			p.edit.SetDomains = append(p.edit.SetDomains, row)
		}
	}
	for _, dom := range p.now.Domains {
		if _, gone := have[dom.Name]; gone {
			p.edit.RemoveDomains = append(p.edit.RemoveDomains, dom.Name)
			p.change(Change{Act: Remove, Kind: "domain", Name: dom.Name})
		}
	}
	return nil
}

// accountsToBe tells which addresses are accounts' once the document is applied.
func (p *planner) accountsToBe() func(address.Address) (bool, error) {
	list := p.want.Accounts
	if list == nil {
		list = p.now.Accounts
	}
	keys := make(map[string]bool, len(list))
	for _, a := range list {
		keys[a.Address.Key()] = true
	}
	return func(a address.Address) (bool, error) { return keys[a.Key()], nil }
}

// field is one property of an object, as it is and as it is to be.
type field struct {
	name     string
	from, to any
}

// fields notes the fields that differ.
func (p *planner) fields(kind, name string, list []field) {
	for _, f := range list {
		if f.from != f.to {
			p.change(Change{Act: Alter, Kind: kind, Name: name, Field: f.name, From: f.from, To: f.to})
		}
	}
}

func text(a address.Address) string {
	if a.IsNull() {
		return ""
	}
	return a.Unicode()
}

// claim notes that an address of the document stands for an account or an alias.
func (p *planner) claim(list string, i int, a address.Address) error {
	if other, dup := p.addresses[a.Key()]; dup {
		return at(list, i, &FieldError{Field: "address", Value: a.String(), Want: "each address once: it stands in " + other + " already"})
	}
	p.addresses[a.Key()] = fmt.Sprintf("%s.%d", list, i)
	return nil
}

package directory

import (
	"cmp"
	"context"
	"slices"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// AddDomain makes a domain ours. ErrExists when it is already.
func (d *Directory) AddDomain(ctx context.Context, dom Domain) (Domain, error) {
	row, err := domainRow(dom, d.hasAccount(ctx), d.aliasOf)
	if err != nil {
		return Domain{}, err
	}
	row.Created = d.clock()
	if _, err := d.edit(ctx, store.DirectoryEdit{Base: -1, AddDomains: []store.DirectoryDomain{row}}); err != nil {
		return Domain{}, wrap("add domain", row.Name, err)
	}
	return d.Domain(row.Name)
}

// SetDomain changes catch-all, postmaster and the limit of accounts.
func (d *Directory) SetDomain(ctx context.Context, dom Domain) error {
	row, err := domainRow(dom, d.hasAccount(ctx), d.aliasOf)
	if err != nil {
		return err
	}
	for _, other := range d.Domains() {
		if dom.AliasOf != "" && other.AliasOf == row.Name {
			return &FieldError{Field: "alias_of", Value: dom.AliasOf, Want: "nothing: " + other.Name + " stands for this domain"}
		}
	}
	_, err = d.edit(ctx, store.DirectoryEdit{Base: -1, SetDomains: []store.DirectoryDomain{row}})
	return wrap("change domain", row.Name, err)
}

// RemoveDomain makes a domain foreign. ErrNotEmpty while it has accounts or aliases.
func (d *Directory) RemoveDomain(ctx context.Context, name string) error {
	ascii, err := address.ParseDomain(name)
	if err != nil {
		return domainError(name)
	}
	for _, dom := range d.Domains() {
		if dom.AliasOf == ascii {
			return &FieldError{Field: "domain", Value: ascii, Want: "a domain that none stands for: " + dom.Name + " does for this one"}
		}
	}
	_, err = d.edit(ctx, store.DirectoryEdit{Base: -1, RemoveDomains: []string{ascii}})
	return wrap("remove domain", ascii, err)
}

// Domain gives one domain of ours; ErrNotFound for all others.
func (d *Directory) Domain(name string) (Domain, error) {
	ascii, err := address.ParseDomain(name)
	if err != nil {
		return Domain{}, domainError(name)
	}
	dom, ok := (*d.domains.Load())[ascii]
	if !ok {
		return Domain{}, wrap("find domain", ascii, store.ErrNotFound)
	}
	return dom, nil
}

// Domains gives all domains of ours by name.
func (d *Directory) Domains() []Domain {
	m := *d.domains.Load()
	all := make([]Domain, 0, len(m))
	for _, dom := range m {
		all = append(all, dom)
	}
	slices.SortFunc(all, func(a, b Domain) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func domainError(name string) error {
	return &FieldError{Field: "domain", Value: name, Want: "a domain name such as example.test"}
}

// hasAccount tells whether an address is that of an account, for checks of what is about to be.
func (d *Directory) hasAccount(ctx context.Context) func(address.Address) (bool, error) {
	return func(a address.Address) (bool, error) {
		k, err := d.lookup(ctx, a.Key())
		return k.account != nil, err
	}
}

// aliasOf gives the domain that one of ours stands for; false for domains that aren't ours.
func (d *Directory) aliasOf(name string) (string, bool) {
	dom, ok := (*d.domains.Load())[name]
	return dom.AliasOf, ok
}

// domainRow checks a domain and gives its row.
func domainRow(dom Domain, hasAccount func(address.Address) (bool, error), aliasOf func(string) (string, bool)) (store.DirectoryDomain, error) {
	name, err := address.ParseDomain(dom.Name)
	if err != nil || name[0] == '[' {
		return store.DirectoryDomain{}, domainError(dom.Name)
	}
	if dom.MaxAccounts < 0 {
		return store.DirectoryDomain{}, &FieldError{Field: "max_accounts", Want: "0 (no limit) or more"}
	}
	if err := checkDomainOptions(&dom, aliasOf); err != nil {
		return store.DirectoryDomain{}, err
	}
	row := store.DirectoryDomain{Options: domainOptionsText(dom), Name: name, MaxAccounts: dom.MaxAccounts, Created: dom.Created}
	if !dom.CatchAll.IsNull() {
		row.CatchAll = dom.CatchAll.String()
	}
	if !dom.Postmaster.IsNull() {
		ok, err := hasAccount(dom.Postmaster)
		if err != nil {
			return store.DirectoryDomain{}, err
		}
		if !ok {
			return store.DirectoryDomain{}, &FieldError{
				Field: "postmaster", Value: dom.Postmaster.String(), Want: "the address of an account of this server",
			}
		}
		row.Postmaster = dom.Postmaster.String()
	}
	return row, nil
}

func (d *Directory) reloadDomains(ctx context.Context) error {
	d.tables.Lock()
	defer d.tables.Unlock()
	rows, err := d.repo.DirectoryDomains(ctx)
	if err != nil {
		return wrap("read", "domains", err)
	}
	m := make(map[string]Domain, len(rows))
	for _, r := range rows {
		m[r.Name] = d.domain(r)
	}
	d.domains.Store(&m)
	return nil
}

// domain gives the domain of a row. A row that can't be read harms only itself: the domain stays ours, without that
// address.
func (d *Directory) domain(r store.DirectoryDomain) Domain {
	dom := Domain{Name: r.Name, MaxAccounts: r.MaxAccounts, Created: r.Created}
	var err error
	if r.CatchAll != "" {
		if dom.CatchAll, err = address.Parse(r.CatchAll); err != nil {
			d.log.Error("catch-all address can't be read", "domain", r.Name, "address", r.CatchAll, "error", err)
		}
	}
	if r.Postmaster != "" {
		if dom.Postmaster, err = address.Parse(r.Postmaster); err != nil {
			d.log.Error("postmaster address can't be read", "domain", r.Name, "address", r.Postmaster, "error", err)
		}
	}
	if err := readDomainOptions(r.Options, &dom); err != nil {
		d.log.Error("options of a domain can't be read", "domain", r.Name, "error", err)
	}
	return dom
}

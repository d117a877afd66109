package control

import (
	"context"
	"time"

	"waxwing/internal/directory"
)

// Operations on domains and aliases.
var (
	DomainAdd    = operation("domain.add", (*Service).domainAdd)
	DomainSet    = operation("domain.set", (*Service).domainSet)
	DomainList   = operation("domain.list", (*Service).domainList)
	DomainShow   = operation("domain.show", (*Service).domainShow)
	DomainRemove = operation("domain.remove", (*Service).domainRemove)

	AliasAdd    = operation("alias.add", (*Service).aliasAdd)
	AliasSet    = operation("alias.set", (*Service).aliasSet)
	AliasShow   = operation("alias.show", (*Service).aliasShow)
	AliasList   = operation("alias.list", (*Service).aliasList)
	AliasRemove = operation("alias.remove", (*Service).aliasRemove)
)

// Domain is a domain whose mail is ours.
type Domain struct {
	Name        string    `json:"name"`
	CatchAll    string    `json:"catch_all,omitempty"`        // address that takes mail for unknown ones; none when empty
	Postmaster  string    `json:"postmaster,omitempty"`       // account that gets postmaster@ and abuse@; an administrator when empty
	MaxAccounts int       `json:"max_accounts"`               // 0: no limit
	AliasOf     string    `json:"alias_of,omitempty"`         // another domain that it stands for
	Subaddress  string    `json:"subaddress,omitempty"`       // separator of sub-addresses, off, or empty for the setting's
	Except      []string  `json:"catch_all_except,omitempty"` // local parts that the catch-all leaves out; with * behind, all that begin so
	Created     time.Time `json:"created,omitzero"`
}

// DomainRef names one domain.
type DomainRef struct {
	Name string `json:"name"`
}

// Domains is all domains in order of name.
type Domains struct {
	Domains []Domain `json:"domains"`
}

func shownDomain(d directory.Domain) Domain {
	out := Domain{
		Name: d.Name, MaxAccounts: d.MaxAccounts, AliasOf: d.AliasOf, Subaddress: d.Subaddress, Except: d.CatchAllExcept, Created: d.Created.UTC(),
	}
	if !d.CatchAll.IsNull() {
		out.CatchAll = d.CatchAll.String()
	}
	if !d.Postmaster.IsNull() {
		out.Postmaster = d.Postmaster.String()
	}
	return out
}

func (d Domain) row() (directory.Domain, error) {
	out := directory.Domain{Name: d.Name, MaxAccounts: d.MaxAccounts, AliasOf: d.AliasOf, Subaddress: d.Subaddress, CatchAllExcept: d.Except}
	var err error
	if d.CatchAll != "" {
		if out.CatchAll, err = parseAddress("catch_all", d.CatchAll); err != nil {
			return out, err
		}
	}
	if d.Postmaster != "" {
		if out.Postmaster, err = parseAddress("postmaster", d.Postmaster); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s *Service) domainAdd(ctx context.Context, req Domain) (Domain, error) {
	row, err := req.row()
	if err != nil {
		return Domain{}, err
	}
	made, err := s.dir.AddDomain(ctx, row)
	if err != nil {
		return Domain{}, err
	}
	return shownDomain(made), nil
}

func (s *Service) domainSet(ctx context.Context, req Domain) (Domain, error) {
	row, err := req.row()
	if err != nil {
		return Domain{}, err
	}
	if err := s.dir.SetDomain(ctx, row); err != nil {
		return Domain{}, err
	}
	return s.domainShow(ctx, DomainRef{req.Name})
}

func (s *Service) domainList(context.Context, Done) (Domains, error) {
	list := s.dir.Domains()
	out := Domains{Domains: make([]Domain, len(list))}
	for i, d := range list {
		out.Domains[i] = shownDomain(d)
	}
	return out, nil
}

func (s *Service) domainShow(_ context.Context, req DomainRef) (Domain, error) {
	d, err := s.dir.Domain(req.Name)
	if err != nil {
		return Domain{}, err
	}
	return shownDomain(d), nil
}

func (s *Service) domainRemove(ctx context.Context, req DomainRef) (Done, error) {
	return Done{}, s.dir.RemoveDomain(ctx, req.Name)
}

// Alias is an address that leads to others.
type Alias struct {
	Address string    `json:"address"`
	Targets []string  `json:"targets"`
	Senders string    `json:"senders,omitempty"` // who may send to it: members, domain, list; empty for everyone
	Allowed []string  `json:"allowed,omitempty"` // addresses and domains, with list
	Owner   string    `json:"owner,omitempty"`   // gets failures in place of the sender
	Hidden  bool      `json:"hidden,omitempty"`  // no sender learns who the members are
	Created time.Time `json:"created,omitzero"`
}

// Aliases is a page of aliases in order of address.
type Aliases struct {
	Aliases []Alias `json:"aliases"`
	Next    string  `json:"next,omitempty"`
}

// AliasRef names one alias.
type AliasRef struct {
	Address string `json:"address"`
}

func (a Alias) row() (directory.Alias, error) {
	var out directory.Alias
	var err error
	if out.Address, err = parseAddress("address", a.Address); err != nil {
		return out, err
	}
	if out.Targets, err = parseAddresses("targets", a.Targets); err != nil {
		return out, err
	}
	out.Group = directory.Group{Senders: directory.Senders(a.Senders), Allowed: a.Allowed, Hidden: a.Hidden}
	if a.Owner != "" {
		out.Group.Owner, err = parseAddress("owner", a.Owner)
	}
	return out, err
}

func shownAlias(a directory.Alias) Alias {
	return Alias{
		Address: a.Address.Unicode(), Created: a.Created.UTC(), Targets: shownAddresses(a.Targets), Senders: string(a.Group.Senders),
		Allowed: a.Group.Allowed, Owner: a.Group.Owner.Unicode(), Hidden: a.Group.Hidden,
	}
}

func (s *Service) aliasAdd(ctx context.Context, req Alias) (Alias, error) {
	row, err := req.row()
	if err != nil {
		return Alias{}, err
	}
	return shownAlias(row), s.dir.AddAlias(ctx, row)
}

func (s *Service) aliasSet(ctx context.Context, req Alias) (Alias, error) {
	row, err := req.row()
	if err != nil {
		return Alias{}, err
	}
	return shownAlias(row), s.dir.SetAlias(ctx, row)
}

func (s *Service) aliasShow(ctx context.Context, req AliasRef) (Alias, error) {
	a, err := parseAddress("address", req.Address)
	if err != nil {
		return Alias{}, err
	}
	al, err := s.dir.Alias(ctx, a)
	if err != nil {
		return Alias{}, err
	}
	return shownAlias(al), nil
}

func (s *Service) aliasList(ctx context.Context, req Listing) (Aliases, error) {
	f := req.filter()
	list, err := s.dir.Aliases(ctx, f)
	if err != nil {
		return Aliases{}, err
	}
	out := Aliases{Aliases: make([]Alias, len(list))}
	for i, a := range list {
		out.Aliases[i] = shownAlias(a)
	}
	if len(list) == f.Limit {
		out.Next = list[len(list)-1].Address.Key()
	}
	return out, nil
}

func (s *Service) aliasRemove(ctx context.Context, req AliasRef) (Done, error) {
	a, err := parseAddress("address", req.Address)
	if err != nil {
		return Done{}, err
	}
	return Done{}, s.dir.RemoveAlias(ctx, a)
}

package directory

import (
	"context"
	"fmt"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// AddAlias makes an alias. ErrExists when its address is an account or an alias.
func (d *Directory) AddAlias(ctx context.Context, al Alias) error { return d.putAlias(ctx, al, false) }

// SetAlias replaces the targets of an alias; ErrNotFound.
func (d *Directory) SetAlias(ctx context.Context, al Alias) error { return d.putAlias(ctx, al, true) }

func (d *Directory) putAlias(ctx context.Context, al Alias, replace bool) error {
	row, err := d.aliasRow(al, d.ownAddress())
	if err != nil {
		return err
	}
	edit := store.DirectoryEdit{Base: -1}
	if replace {
		edit.SetAliases = []store.DirectoryAlias{row}
	} else {
		edit.AddAliases = []store.DirectoryAlias{row}
	}
	_, err = d.edit(ctx, edit)
	return wrap("save alias", al.Address.String(), err)
}

// aliasRow checks an alias and gives its row.
func (d *Directory) aliasRow(al Alias, own ownAddress) (store.DirectoryAlias, error) {
	var none store.DirectoryAlias
	if err := own.check(al.Address); err != nil {
		return none, err
	}
	if len(al.Targets) == 0 || len(al.Targets) > MaxTargets {
		return none, &FieldError{Field: "targets", Want: fmt.Sprintf("1 to %d addresses", MaxTargets)}
	}
	row := store.DirectoryAlias{
		Key: al.Address.Key(), Local: al.Address.Local, Domain: al.Address.Domain, Created: d.clock(),
	}
	seen := map[string]bool{row.Key: true}
	for _, t := range al.Targets {
		if t.Local == "" || t.Domain == "" || t.Domain[0] == '[' {
			return none, &FieldError{Field: "targets", Value: t.String(), Want: "addresses such as name@example.test"}
		}
		key := t.Key()
		if seen[key] {
			return none, &FieldError{Field: "targets", Value: t.String(), Want: "each address once, and not the alias itself"}
		}
		seen[key] = true
		row.Targets = append(row.Targets, store.DirectoryTarget{Address: t.String(), Key: key})
	}
	var err error
	row.Options, err = checkGroup(al.Group)
	return row, err
}

// RemoveAlias removes an alias; ErrNotFound.
func (d *Directory) RemoveAlias(ctx context.Context, a address.Address) error {
	_, err := d.edit(ctx, store.DirectoryEdit{Base: -1, RemoveAliases: []string{a.Key()}})
	return wrap("remove alias", a.String(), err)
}

// Alias finds an alias by its own address; ErrNotFound.
func (d *Directory) Alias(ctx context.Context, a address.Address) (Alias, error) {
	k, err := d.lookup(ctx, a.Key())
	if err == nil && k.alias == nil {
		err = wrap("find alias", a.String(), store.ErrNotFound)
	}
	if err != nil {
		return Alias{}, err
	}
	al := *k.alias
	al.Address = a
	return al, nil
}

// Aliases lists aliases.
func (d *Directory) Aliases(ctx context.Context, f Filter) ([]Alias, error) {
	return d.aliases(ctx, store.DirectoryFilter{Domain: f.Domain, Search: f.Search, After: f.After, Limit: f.Limit})
}

// AliasesOf lists the aliases that name an address among their targets.
func (d *Directory) AliasesOf(ctx context.Context, a address.Address) ([]Alias, error) {
	return d.aliases(ctx, store.DirectoryFilter{Target: a.Key()})
}

func (d *Directory) aliases(ctx context.Context, f store.DirectoryFilter) ([]Alias, error) {
	rows, err := d.repo.DirectoryAliases(ctx, f)
	if err != nil {
		return nil, wrap("list", "aliases", err)
	}
	list := make([]Alias, len(rows))
	for i, r := range rows {
		if list[i], err = alias(r); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// alias gives the alias of a row.
func alias(r store.DirectoryAlias) (Alias, error) {
	al := Alias{Address: address.Address{Local: r.Local, Domain: r.Domain}, Created: r.Created}
	for _, t := range r.Targets {
		a, err := address.Parse(t.Address)
		if err != nil {
			return Alias{}, wrap("read target of", r.Key, err)
		}
		al.Targets = append(al.Targets, a)
	}
	var err error
	if al.Group, err = readGroup(r.Options); err != nil {
		return Alias{}, wrap("read group", r.Key, err)
	}
	return al, nil
}

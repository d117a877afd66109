package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

const (
	// MaxAliasDepth is how many aliases may lead one to another.
	MaxAliasDepth = 10
	// MaxTargets is how many addresses one alias may name, and how many recipients an address may expand to.
	MaxTargets = 1000
)

// Status says what an address is to this server.
type Status uint8

const (
	NotLocal  Status = iota // the domain isn't ours
	NoMailbox               // the domain is ours, the address stands for nothing
	Suspended               // it stands only for suspended accounts
	OK
)

func (s Status) String() string {
	switch s {
	case NotLocal:
		return "not local"
	case NoMailbox:
		return "no mailbox"
	case Suspended:
		return "suspended"
	case OK:
		return "ok"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Recipient is one place where mail for an address goes: an account of ours, or an address elsewhere.
type Recipient struct {
	Account *Account        // nil when remote; shared: do not change
	Remote  address.Address // zero when local
	Detail  string          // sub-address: "tag" of "user+tag"
}

// Resolution is what became of one address.
type Resolution struct {
	Status     Status
	Recipients []Recipient // at least one when Status is OK
	Expanded   bool        // it went through an alias or a catch-all: recipients needn't be the address itself
}

// Local tells whether the domain (in A-labels) is ours.
func (d *Directory) Local(domain string) bool {
	_, ok := (*d.domains.Load())[domain]
	return ok
}

// Resolve says where mail for an address goes. In this order: the address itself as account or alias; the same without
// its sub-address; the role addresses postmaster and abuse; the domain's catch-all. A bare <postmaster> (Domain "") is
// the postmaster of the whole server. Aliases lead at most MaxAliasDepth deep and to MaxTargets recipients, cycles are
// cut, and an account is named once.
func (d *Directory) Resolve(ctx context.Context, to address.Address) (Resolution, error) {
	if to.Domain == "" {
		if !strings.EqualFold(to.Local, "postmaster") {
			return Resolution{Status: NotLocal}, nil
		}
		return d.role(ctx, Domain{})
	}
	domain, ok := (*d.domains.Load())[to.Domain]
	if !ok {
		return Resolution{Status: NotLocal}, nil
	}
	found, detail, err := d.find(ctx, to)
	if err != nil {
		return Resolution{}, err
	}
	if found.account != nil {
		return single(found.account, detail), nil
	}
	if found.alias != nil {
		return d.expand(ctx, found.alias, detail)
	}
	if IsRole(to) {
		res, err := d.role(ctx, domain)
		if err != nil || res.Status == OK {
			return res, err
		}
	}
	if !domain.CatchAll.IsNull() && !relayNotation(to.Local) {
		return d.expand(ctx, &Alias{Address: to, Targets: []address.Address{domain.CatchAll}}, "")
	}
	return Resolution{Status: NoMailbox}, nil
}

// IsRole tells the addresses that every domain takes mail for: postmaster (RFC 5321, section 4.5.1) and abuse (RFC 2142).
func IsRole(a address.Address) bool {
	return strings.EqualFold(a.Local, "postmaster") || strings.EqualFold(a.Local, "abuse")
}

// relayNotation tells local parts that ask for a further hop: user%elsewhere, elsewhere!user, "user@elsewhere". No
// account or alias may have such a local part, and a catch-all doesn't take them, so that none is ever accepted.
func relayNotation(local string) bool {
	return strings.ContainsAny(local, "%!@")
}

func single(a *Account, detail string) Resolution {
	if a.Suspended {
		return Resolution{Status: Suspended}
	}
	return Resolution{Status: OK, Recipients: []Recipient{{Account: a, Detail: detail}}}
}

// role finds who reads postmaster@ and abuse@ of a domain without such an account or alias: the domain's own choice, its
// first administrator, the server's first administrator, and at last the oldest account of the domain and of the server,
// since a domain must have a postmaster from its first account on.
func (d *Directory) role(ctx context.Context, domain Domain) (Resolution, error) {
	if !domain.Postmaster.IsNull() {
		k, err := d.lookup(ctx, domain.Postmaster.Key())
		if err != nil {
			return Resolution{}, err
		}
		if k.account != nil && !k.account.Suspended {
			return single(k.account, ""), nil
		}
	}
	a, err := d.administrator(ctx, domain.Name)
	if errors.Is(err, store.ErrNotFound) {
		return Resolution{Status: NoMailbox}, nil
	}
	if err != nil {
		return Resolution{}, err
	}
	return single(a, ""), nil
}

// administrator remembers its answer in the cache under a key that no address has.
func (d *Directory) administrator(ctx context.Context, domain string) (*Account, error) {
	key := "\x00administrator " + domain
	k, epoch, ok := d.cache.get(key)
	if ok && k.account != nil {
		return k.account, nil
	}
	if ok {
		return nil, store.ErrNotFound
	}
	tries := []struct {
		domain string
		admin  bool
	}{{domain, true}, {"", true}, {domain, false}, {"", false}}
	for _, t := range tries {
		row, err := d.repo.FirstDirectoryAccount(ctx, t.domain, t.admin)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, wrap("find administrator of", domain, err)
		}
		a := account(row)
		d.cache.put(key, known{account: &a}, epoch)
		return &a, nil
	}
	d.cache.put(key, known{}, epoch)
	return nil, store.ErrNotFound
}

// find looks an address up as it is, then without its sub-address.
func (d *Directory) find(ctx context.Context, a address.Address) (k known, detail string, err error) {
	if k, err = d.lookup(ctx, a.Key()); err != nil || k.account != nil || k.alias != nil {
		return k, "", err
	}
	base, detail, cut := a.SplitDetail(d.Settings().SubaddressSeparator)
	if !cut {
		return known{}, "", nil
	}
	k, err = d.lookup(ctx, base.Key())
	return k, detail, err
}

// lookup reads what a key stands for, through the cache.
func (d *Directory) lookup(ctx context.Context, key string) (known, error) {
	k, epoch, ok := d.cache.get(key)
	if ok {
		return k, nil
	}
	row, err := d.repo.LookupDirectoryAddress(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		k = known{}
	case err != nil:
		return known{}, wrap("look up", key, err)
	case row.Account != nil:
		a := account(*row.Account)
		k.account = &a
	default:
		k.alias = &Alias{Targets: make([]address.Address, 0, len(row.Targets))}
		for _, t := range row.Targets {
			a, err := address.Parse(t)
			if err != nil {
				return known{}, wrap("read target of", key, err)
			}
			k.alias.Targets = append(k.alias.Targets, a)
		}
	}
	d.cache.put(key, k, epoch)
	return k, nil
}

// expansion is one walk through aliases.
type expansion struct {
	dir       *Directory
	visited   map[string]bool // keys of all addresses met: cycles and repeats are cut here
	accounts  map[store.AccountID]bool
	res       Resolution
	suspended bool
}

func (d *Directory) expand(ctx context.Context, al *Alias, detail string) (Resolution, error) {
	x := &expansion{dir: d, visited: map[string]bool{}, accounts: map[store.AccountID]bool{}}
	if err := x.walk(ctx, al, detail, 1); err != nil {
		return Resolution{}, err
	}
	x.res.Expanded = true
	switch {
	case len(x.res.Recipients) > 0:
		x.res.Status = OK
	case x.suspended:
		x.res.Status = Suspended
	default:
		x.res.Status = NoMailbox
	}
	return x.res, nil
}

func (x *expansion) walk(ctx context.Context, al *Alias, detail string, depth int) error {
	if depth > MaxAliasDepth {
		return fmt.Errorf("%w: more than %d aliases in a row", ErrExpansion, MaxAliasDepth)
	}
	for _, t := range al.Targets {
		key := t.Key()
		if x.visited[key] {
			continue
		}
		x.visited[key] = true
		if len(x.visited) > 2*MaxTargets {
			return fmt.Errorf("%w: more than %d addresses", ErrExpansion, 2*MaxTargets)
		}
		if !x.dir.Local(t.Domain) {
			if err := x.add(Recipient{Remote: t}); err != nil {
				return err
			}
			continue
		}
		k, tag, err := x.dir.find(ctx, t)
		if err != nil {
			return err
		}
		if tag == "" {
			tag = detail
		}
		if err := x.take(ctx, k, tag, depth); err != nil {
			return err
		}
	}
	return nil
}

// take adds what a target stands for. A local target that stands for nothing (its account was removed) is passed over.
func (x *expansion) take(ctx context.Context, k known, detail string, depth int) error {
	switch {
	case k.alias != nil:
		return x.walk(ctx, k.alias, detail, depth+1)
	case k.account == nil:
		return nil
	case k.account.Suspended:
		x.suspended = true
		return nil
	case x.accounts[k.account.ID]:
		return nil
	}
	x.accounts[k.account.ID] = true
	return x.add(Recipient{Account: k.account, Detail: detail})
}

func (x *expansion) add(r Recipient) error {
	if len(x.res.Recipients) >= MaxTargets {
		return fmt.Errorf("%w: more than %d recipients", ErrExpansion, MaxTargets)
	}
	x.res.Recipients = append(x.res.Recipients, r)
	return nil
}

// Owns tells whether an account may send as an address: its own, with or without a sub-address, an alias that leads to
// it (alone or among others), and the role addresses that it reads. A catch-all gives no such right, and a suspended
// account owns nothing.
func (d *Directory) Owns(ctx context.Context, id store.AccountID, a address.Address) (bool, error) {
	domain, ok := (*d.domains.Load())[a.Domain]
	if !ok {
		return false, nil
	}
	k, _, err := d.find(ctx, a)
	if err != nil {
		return false, err
	}
	var res Resolution
	switch {
	case k.account != nil:
		return k.account.ID == id && !k.account.Suspended, nil
	case k.alias != nil:
		res, err = d.expand(ctx, k.alias, "")
	case IsRole(a):
		res, err = d.role(ctx, domain)
	}
	if err != nil {
		return false, err
	}
	for _, r := range res.Recipients {
		if r.Account != nil && r.Account.ID == id {
			return true, nil
		}
	}
	return false, nil
}

// ByLogin finds the account that a login name means: its whole address, or an alias that leads to this account and
// nowhere else. ErrNotFound when there is none; suspended accounts are found.
func (d *Directory) ByLogin(ctx context.Context, login string) (Account, error) {
	a, err := address.Parse(login)
	if err != nil || !d.Local(a.Domain) {
		return Account{}, ErrNotFound
	}
	k, err := d.lookup(ctx, a.Key())
	if err != nil {
		return Account{}, err
	}
	for depth := 0; k.alias != nil && depth < MaxAliasDepth; depth++ {
		if len(k.alias.Targets) != 1 || !d.Local(k.alias.Targets[0].Domain) {
			return Account{}, ErrNotFound
		}
		if k, err = d.lookup(ctx, k.alias.Targets[0].Key()); err != nil {
			return Account{}, err
		}
	}
	if k.account == nil {
		return Account{}, ErrNotFound
	}
	return *k.account, nil
}

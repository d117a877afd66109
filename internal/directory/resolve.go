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
	By      address.Address // the address of ours that leads here, when it is not the account's own
	Owner   address.Address // of the group that it is a member of: gets failures in place of the sender; zero: none
}

// Resolution is what became of one address.
type Resolution struct {
	Status     Status
	Recipients []Recipient // at least one when Status is OK
	Expanded   bool        // it went through an alias, a catch-all or a forward: recipients needn't be the address itself

	group   *Group // that the address is, when it says who may send to it
	domain  string // of the group
	members map[string]bool
	readers map[store.AccountID]bool
}

// Local tells whether the domain (in A-labels) is ours.
func (d *Directory) Local(domain string) bool {
	_, ok := (*d.domains.Load())[domain]
	return ok
}

// Resolve says where mail for an address goes. In this order: the address itself as account or alias; the same without
// its sub-address; for a domain that stands for another, all of this there; the role addresses postmaster and abuse; the
// domain's catch-all. A bare <postmaster> (Domain "") is the postmaster of the whole server. Aliases and forwards lead at
// most MaxAliasDepth deep and to MaxTargets recipients, cycles are cut, and an account is named once. An account whose
// forwarding leads to nobody but itself keeps its mail.
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
	switch {
	case err != nil:
		return Resolution{}, err
	case found.account != nil && !found.account.Forward.On():
		return single(found.account, detail), nil
	case found.account != nil || found.alias != nil:
		return d.expand(ctx, to, found, detail)
	}
	if domain.AliasOf != "" {
		if domain, ok = (*d.domains.Load())[domain.AliasOf]; !ok {
			return Resolution{Status: NoMailbox}, nil
		}
	}
	if IsRole(to) {
		res, err := d.role(ctx, domain)
		if err != nil || res.Status == OK {
			return res, err
		}
	}
	if !domain.CatchAll.IsNull() && !relayNotation(to.Local) && !domain.excepted(to.Local) {
		return d.expand(ctx, to, known{alias: &Alias{Targets: []address.Address{domain.CatchAll}}}, "")
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

// find looks an address up as it is, then without its sub-address, and then in the domain that its own stands for.
func (d *Directory) find(ctx context.Context, a address.Address) (k known, detail string, err error) {
	domain := (*d.domains.Load())[a.Domain]
	for range 2 {
		if k, err = d.lookup(ctx, a.Key()); err != nil || k.account != nil || k.alias != nil {
			return k, "", err
		}
		if base, detail, cut := a.SplitDetail(domain.separator(d.settings.Load().SubaddressSeparator)); cut {
			if k, err = d.lookup(ctx, base.Key()); err != nil || k.account != nil || k.alias != nil {
				return k, detail, err
			}
		}
		if domain.AliasOf == "" {
			break
		}
		a.Domain = domain.AliasOf
		domain = (*d.domains.Load())[a.Domain]
	}
	return known{}, "", nil
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
		if own, err := address.Parse(key); err == nil {
			k.alias.Address = own // without a sub-address, however it was asked for
		}
		if k.alias.Group, err = readGroup(row.Options); err != nil {
			return known{}, wrap("read group", key, err) // fails closed: who may send isn't known
		}
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

// expansion is one walk through aliases and forwards.
type expansion struct {
	dir       *Directory
	owners    bool            // forwards are passed over: what leads to whose mailbox is asked, not where mail goes
	visited   map[string]led  // keys of all addresses met: cycles and repeats are cut here
	members   map[string]bool // those that aliases named
	readers   map[store.AccountID]bool
	accounts  map[store.AccountID]bool
	res       Resolution
	suspended bool
}

// led says what came of an address that was met.
type led uint8

const (
	underway  led = iota + 1 // its own targets are being walked through: who leads to it closes a cycle
	somewhere                // it leads to at least one recipient
	nowhere
)

// way is how an expansion came to where it is.
type way struct {
	by     address.Address
	owner  address.Address
	detail string
	depth  int
}

// expand follows an address that stands for an alias or a forwarding account.
func (d *Directory) expand(ctx context.Context, to address.Address, k known, detail string) (Resolution, error) {
	x := &expansion{dir: d}
	if err := x.run(ctx, to, k, detail); err != nil {
		return Resolution{}, err
	}
	return x.res, nil
}

func (x *expansion) run(ctx context.Context, to address.Address, k known, detail string) error {
	x.visited = map[string]led{to.Key(): underway}
	x.accounts, x.readers, x.members = map[store.AccountID]bool{}, map[store.AccountID]bool{}, map[string]bool{}
	if _, err := x.take(ctx, to, k, way{detail: detail}); err != nil {
		return err
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
	if k.alias != nil && k.alias.Group.Senders != AnySender {
		x.res.group, x.res.domain, x.res.members, x.res.readers = &k.alias.Group, to.Domain, x.members, x.readers
	}
	return nil
}

// walk goes through the targets of an alias or a forward, and tells whether they lead anywhere.
func (x *expansion) walk(ctx context.Context, targets []address.Address, w way, member bool) (bool, error) {
	if w.depth++; w.depth > MaxAliasDepth {
		return false, fmt.Errorf("%w: more than %d aliases in a row", ErrExpansion, MaxAliasDepth)
	}
	any := false
	for _, t := range targets {
		key := t.Key()
		if member {
			x.members[key] = true
		}
		if was := x.visited[key]; was != 0 {
			any = any || was == somewhere
			continue
		}
		x.visited[key] = underway
		if len(x.visited) > 2*MaxTargets {
			return false, fmt.Errorf("%w: more than %d addresses", ErrExpansion, 2*MaxTargets)
		}
		led, err := x.step(ctx, t, w)
		if err != nil {
			return false, err
		}
		any = any || led
		if x.visited[key] = nowhere; led {
			x.visited[key] = somewhere
		}
	}
	return any, nil
}

// step goes to one target.
func (x *expansion) step(ctx context.Context, t address.Address, w way) (bool, error) {
	if !x.dir.Local(t.Domain) {
		return true, x.add(Recipient{Remote: t, By: w.by, Owner: w.owner})
	}
	k, tag, err := x.dir.find(ctx, t)
	if err != nil {
		return false, err
	}
	if tag != "" {
		w.detail = tag
	}
	return x.take(ctx, t, k, w)
}

// take adds what an address stands for. A local target that stands for nothing (its account was removed) is passed over.
func (x *expansion) take(ctx context.Context, at address.Address, k known, w way) (bool, error) {
	switch {
	case k.alias != nil:
		if w.by = k.alias.Address; w.by.IsNull() { // a catch-all
			w.by = at
		}
		if !k.alias.Group.Owner.IsNull() {
			w.owner = k.alias.Group.Owner
		}
		return x.walk(ctx, k.alias.Targets, w, true)
	case k.account == nil:
		return false, nil
	case k.account.Suspended:
		x.suspended = true
		return false, nil
	case x.readers[k.account.ID]:
		return x.accounts[k.account.ID], nil
	}
	x.readers[k.account.ID] = true
	led := false
	if f := k.account.Forward; f.On() && !x.owners {
		// Failures of what an account forwards are its sender's or its own, not those of a group that it is in.
		onward := way{by: k.account.Address, detail: "", depth: w.depth}
		var err error
		if led, err = x.walk(ctx, f.To, onward, false); err != nil {
			return false, err
		}
		if led && !f.Copy {
			return true, nil
		}
	}
	x.accounts[k.account.ID] = true
	return true, x.add(Recipient{Account: k.account, Detail: w.detail, By: w.by, Owner: w.owner})
}

func (x *expansion) add(r Recipient) error {
	if len(x.res.Recipients) >= MaxTargets {
		return fmt.Errorf("%w: more than %d recipients", ErrExpansion, MaxTargets)
	}
	x.res.Recipients = append(x.res.Recipients, r)
	return nil
}

// Sender is who sends, as far as it is known.
type Sender struct {
	Address address.Address
	Account store.AccountID // that signed in; 0: a stranger
	Ours    bool            // this server itself
}

// MaySend tells whether a sender may use the address that was resolved: a group can say who may. An address of ours counts
// only when its owner has signed in, for anyone can write it; of addresses elsewhere that can't be known here.
func (d *Directory) MaySend(r *Resolution, from Sender) bool {
	g := r.group
	switch {
	case g == nil || from.Ours:
		return true
	case from.Account == 0 && d.Local(from.Address.Domain), from.Account == 0 && from.Address.IsNull():
		return false
	}
	switch g.Senders {
	case MemberSenders:
		return from.Account != 0 && r.readers[from.Account] || r.members[from.Address.Key()]
	case DomainSenders:
		return from.Address.Domain == r.domain
	case ListedSenders:
		return g.lets(from.Address)
	}
	return false
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
		x := &expansion{dir: d, owners: true}
		err = x.run(ctx, a, k, "")
		res = x.res
	case IsRole(a):
		if domain.AliasOf != "" {
			domain = (*d.domains.Load())[domain.AliasOf]
		}
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
	k, err := d.lookupWhole(ctx, a)
	if err != nil {
		return Account{}, err
	}
	for depth := 0; k.alias != nil && depth < MaxAliasDepth; depth++ {
		if len(k.alias.Targets) != 1 || !d.Local(k.alias.Targets[0].Domain) {
			return Account{}, ErrNotFound
		}
		if k, err = d.lookupWhole(ctx, k.alias.Targets[0]); err != nil {
			return Account{}, err
		}
	}
	if k.account == nil {
		return Account{}, ErrNotFound
	}
	return *k.account, nil
}

// lookupWhole looks a whole address up, without sub-addresses, in its domain and in the one that this stands for.
func (d *Directory) lookupWhole(ctx context.Context, a address.Address) (known, error) {
	k, err := d.lookup(ctx, a.Key())
	if err != nil || k.account != nil || k.alias != nil {
		return k, err
	}
	if a.Domain = (*d.domains.Load())[a.Domain].AliasOf; a.Domain == "" {
		return k, nil
	}
	return d.lookup(ctx, a.Key())
}

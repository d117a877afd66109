package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

const (
	maxNameOctets = 200
	maxQuota      = 1 << 60
	// MaxBatch is how many accounts one call of AddAccounts takes.
	MaxBatch = 10_000
)

// NewAccount is an account to be made.
type NewAccount struct {
	Address       address.Address
	Name          string
	PasswordHash  string // PHC string of auth.HashPassword; empty: nobody can sign in yet
	Admin         bool
	Language      string // "en" or "zh"; the setting's when empty
	QuotaBytes    int64  // 0: the setting's; -1: none
	QuotaMessages int64  // 0: the setting's; -1: none
}

// Filter selects accounts and aliases in the order of their addresses.
type Filter struct {
	Domain string // only of this domain
	Search string // only whose address or name holds this text
	After  string // only addresses after this one's Key: paging
	Limit  int    // at most so many; 0: all
}

// BatchError says which entry of a batch was refused. Nothing of the batch was made.
type BatchError struct {
	Index int
	Err   error
}

func (e *BatchError) Error() string { return fmt.Sprintf("entry %d: %v", e.Index+1, e.Err) }
func (e *BatchError) Unwrap() error { return e.Err }

// AddAccount makes one account with its default mailboxes, in one transaction.
func (d *Directory) AddAccount(ctx context.Context, n NewAccount) (Account, error) {
	made, err := d.AddAccounts(ctx, []NewAccount{n})
	if err != nil {
		if b, ok := errors.AsType[*BatchError](err); ok {
			return Account{}, b.Err
		}
		return Account{}, err
	}
	return made[0], nil
}

// AddAccounts makes all the accounts or none, in one transaction. What is wrong with an entry comes as a *BatchError.
func (d *Directory) AddAccounts(ctx context.Context, batch []NewAccount) ([]Account, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	if len(batch) > MaxBatch {
		return nil, &FieldError{Field: "accounts", Want: fmt.Sprintf("at most %d at once", MaxBatch)}
	}
	set, own := d.Settings(), d.ownAddress()
	rows := make([]store.NewDirectoryAccount, len(batch))
	seen := make(map[string]bool, len(batch))
	for i, n := range batch {
		row, err := accountRow(&n, set, own)
		if err == nil && seen[row.Key] {
			err = wrap("add account", n.Address.String(), store.ErrExists)
		}
		if err != nil {
			return nil, &BatchError{Index: i, Err: err}
		}
		seen[row.Key] = true
		row.Created = d.clock()
		rows[i] = store.NewDirectoryAccount{DirectoryAccount: row, Password: n.PasswordHash, Mailboxes: set.mailboxes()}
	}
	ids, err := d.edit(ctx, store.DirectoryEdit{Base: -1, AddAccounts: rows})
	if err != nil {
		return nil, batchError(batch, err)
	}
	made := make([]Account, len(rows))
	for i, r := range rows {
		r.ID, r.PasswordVersion = ids[i], 1
		made[i] = account(r.DirectoryAccount)
	}
	return made, nil
}

// batchError names the entry that the store refused, when it says so.
func batchError(batch []NewAccount, err error) error {
	if at, ok := store.DirectoryBatchIndex(err); ok && at < len(batch) {
		return &BatchError{Index: at, Err: wrap("add account", batch[at].Address.String(), err)}
	}
	return wrap("add", "accounts", err)
}

// accountRow checks a new account and fills in the defaults.
func accountRow(n *NewAccount, set Settings, own ownAddress) (store.DirectoryAccount, error) {
	var none store.DirectoryAccount
	if err := own.check(n.Address); err != nil {
		return none, err
	}
	if err := checkName(n.Name); err != nil {
		return none, err
	}
	if n.PasswordHash != "" && !strings.HasPrefix(n.PasswordHash, "$argon2id$") {
		return none, &FieldError{Field: "password", Want: "an argon2id hash in PHC form"}
	}
	lang := n.Language
	if lang == "" {
		lang = set.Language
	}
	if err := checkLanguage(lang); err != nil {
		return none, err
	}
	qb, err := quota("quota_bytes", n.QuotaBytes, set.QuotaBytes)
	if err != nil {
		return none, err
	}
	qm, err := quota("quota_messages", n.QuotaMessages, set.QuotaMessages)
	if err != nil {
		return none, err
	}
	return store.DirectoryAccount{
		Key: n.Address.Key(), Local: n.Address.Local, Domain: n.Address.Domain, Name: n.Name, Language: lang,
		Admin: n.Admin, QuotaBytes: qb, QuotaMessages: qm,
	}, nil
}

// ownAddress holds what an account or alias of ours may be called: an unquoted local part of at most 64 octets
// (RFC 5321, section 4.5.3.1.1) without characters that ask for relaying or that end a path, in a domain of ours.
type ownAddress struct {
	separator func(domain string) string
	local     func(domain string) bool
}

func (d *Directory) ownAddress() ownAddress {
	standard := d.Settings().SubaddressSeparator
	return ownAddress{local: d.Local, separator: func(domain string) string {
		dom := (*d.domains.Load())[domain]
		return dom.separator(standard)
	}}
}

func (o ownAddress) check(a address.Address) error {
	want := ""
	switch {
	case a.Local == "" || a.Domain == "":
		want = "an address such as name@example.test"
	case len(a.Local) > 64:
		want = "at most 64 octets before the @"
	case strings.ContainsFunc(a.Local, func(r rune) bool {
		return strings.ContainsRune(`%!@/\|"'<>()[],;:`, r) || unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError
	}):
		want = `no spaces, controls or any of % ! @ / \ | " ' < > ( ) [ ] , ; : before the @`
	case strings.HasPrefix(a.Local, ".") || strings.HasSuffix(a.Local, ".") || strings.Contains(a.Local, ".."):
		want = "no dot first, last or twice in a row before the @"
	case strings.HasPrefix(strings.ToLower(a.Local), "srs0=") || strings.HasPrefix(strings.ToLower(a.Local), "srs1="):
		want = "no SRS0= or SRS1= first: forwarded mail has such senders"
	case !o.local(a.Domain):
		want = fmt.Sprintf("a domain of this server; add %s first", a.Domain)
	case o.separator(a.Domain) != "" && strings.Contains(a.Local, o.separator(a.Domain)):
		want = fmt.Sprintf("no %q before the @: it begins a sub-address", o.separator(a.Domain))
	default:
		return nil
	}
	return &FieldError{Field: "address", Value: a.String(), Want: want}
}

func checkName(name string) error {
	if len(name) > maxNameOctets || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return &FieldError{Field: "name", Want: fmt.Sprintf("at most %d octets of UTF-8 without control characters", maxNameOctets)}
	}
	return nil
}

func checkLanguage(lang string) error {
	if lang != "en" && lang != "zh" {
		return &FieldError{Field: "language", Value: lang, Want: "en or zh"}
	}
	return nil
}

// quota resolves 0 to the default and -1 to none, which rows keep as 0.
func quota(field string, given, standard int64) (int64, error) {
	switch {
	case given == 0:
		return standard, nil
	case given == -1:
		return 0, nil
	case given < 0 || given > maxQuota:
		return 0, &FieldError{Field: field, Value: fmt.Sprint(given), Want: "-1 (none), 0 (the default) or a number above 0"}
	}
	return given, nil
}

// account gives the account of a row.
func account(r store.DirectoryAccount) Account {
	f, _ := readForward(r.Options) // checked when it was written
	return Account{
		Forward: f,
		ID:      r.ID, Address: address.Address{Local: r.Local, Domain: r.Domain}, Name: r.Name, Suspended: r.Suspended,
		Admin: r.Admin, QuotaBytes: r.QuotaBytes, QuotaMessages: r.QuotaMessages, Language: r.Language,
		PasswordVersion: r.PasswordVersion, Created: r.Created,
	}
}

// Account finds an account by its own address (not by an alias); ErrNotFound.
func (d *Directory) Account(ctx context.Context, a address.Address) (Account, error) {
	k, err := d.lookup(ctx, a.Key())
	if err != nil {
		return Account{}, err
	}
	if k.account == nil {
		return Account{}, wrap("find account", a.String(), store.ErrNotFound)
	}
	return *k.account, nil
}

// AccountByID finds an account by its id; ErrNotFound.
func (d *Directory) AccountByID(ctx context.Context, id store.AccountID) (Account, error) {
	row, err := d.repo.DirectoryAccount(ctx, id)
	if err != nil {
		return Account{}, wrap("find account", fmt.Sprint(id), err)
	}
	return account(row), nil
}

// Accounts lists accounts.
func (d *Directory) Accounts(ctx context.Context, f Filter) ([]Account, error) {
	rows, err := d.repo.DirectoryAccounts(ctx, store.DirectoryFilter{Domain: f.Domain, Search: f.Search, After: f.After, Limit: f.Limit})
	if err != nil {
		return nil, wrap("list", "accounts", err)
	}
	list := make([]Account, len(rows))
	for i, r := range rows {
		list[i] = account(r)
	}
	return list, nil
}

// SetAccount changes Name, Language, Admin, QuotaBytes and QuotaMessages (0: none) of the account with this ID; its
// other fields are left as they are.
func (d *Directory) SetAccount(ctx context.Context, a Account) error {
	if err := checkName(a.Name); err != nil {
		return err
	}
	if err := checkLanguage(a.Language); err != nil {
		return err
	}
	for field, q := range map[string]int64{"quota_bytes": a.QuotaBytes, "quota_messages": a.QuotaMessages} {
		if q < 0 || q > maxQuota {
			return &FieldError{Field: field, Value: fmt.Sprint(q), Want: "0 (none) or more"}
		}
	}
	return d.changeAccount(ctx, "change account", store.DirectoryAccountChange{
		ID: a.ID, Name: &a.Name, Language: &a.Language, Admin: &a.Admin, QuotaBytes: &a.QuotaBytes, QuotaMessages: &a.QuotaMessages,
	})
}

// SetForward sets where an account's mail goes. Loops through accounts and aliases of this server are refused.
func (d *Directory) SetForward(ctx context.Context, id store.AccountID, f Forward) error {
	a, err := d.AccountByID(ctx, id)
	if err != nil {
		return err
	}
	text, err := checkForward(a.Address, f)
	if err != nil {
		return err
	}
	for _, to := range f.To {
		back, err := d.leadsTo(ctx, to, id)
		if err != nil {
			return err
		}
		if back {
			return &FieldError{Field: "forward", Value: to.String(), Want: "an address that doesn't lead back to " + a.Address.String()}
		}
	}
	return d.changeAccount(ctx, "forward mail of", store.DirectoryAccountChange{ID: id, Options: &text})
}

// leadsTo tells whether mail to an address comes into a mailbox of ours, or passes it.
func (d *Directory) leadsTo(ctx context.Context, to address.Address, id store.AccountID) (bool, error) {
	if !d.Local(to.Domain) {
		return false, nil
	}
	k, detail, err := d.find(ctx, to)
	if err != nil || k.account == nil && k.alias == nil {
		return false, err
	}
	x := &expansion{dir: d}
	err = x.run(ctx, to, k, detail)
	return x.readers[id], err
}

// Suspend keeps an account from signing in and from getting mail, or lets it again.
func (d *Directory) Suspend(ctx context.Context, id store.AccountID, suspended bool) error {
	return d.changeAccount(ctx, "suspend account", store.DirectoryAccountChange{ID: id, Suspended: &suspended})
}

func (d *Directory) changeAccount(ctx context.Context, op string, c store.DirectoryAccountChange) error {
	_, err := d.edit(ctx, store.DirectoryEdit{Base: -1, SetAccounts: []store.DirectoryAccountChange{c}})
	return wrap(op, fmt.Sprint(c.ID), err)
}

// RemoveAccount removes an account with its mail. Its address is free again; aliases that name it lead nowhere.
func (d *Directory) RemoveAccount(ctx context.Context, id store.AccountID) error {
	_, err := d.edit(ctx, store.DirectoryEdit{Base: -1, RemoveAccounts: []store.AccountID{id}})
	return wrap("remove account", fmt.Sprint(id), err)
}

// PasswordHash gives the PHC string, empty when the account has none, and its version. ErrNotFound.
func (d *Directory) PasswordHash(ctx context.Context, id store.AccountID) (phc string, version int64, err error) {
	phc, version, err = d.repo.DirectoryPassword(ctx, id)
	return phc, version, wrap("read password of account", fmt.Sprint(id), err)
}

// SetPasswordHash sets the PHC string of auth.HashPassword; remembered logins end at once.
func (d *Directory) SetPasswordHash(ctx context.Context, id store.AccountID, phc string) error {
	if !strings.HasPrefix(phc, "$argon2id$") {
		return &FieldError{Field: "password", Want: "an argon2id hash in PHC form"}
	}
	err := d.repo.SetDirectoryPassword(ctx, id, phc)
	d.cache.clear() // in any case: a failure may have come after the commit
	return wrap("set password of account", fmt.Sprint(id), err)
}

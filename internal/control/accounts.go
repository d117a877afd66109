package control

import (
	"context"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// Operations on accounts.
var (
	AccountAdd     = operation("account.add", (*Service).accountAdd)
	AccountList    = operation("account.list", (*Service).accountList)
	AccountShow    = operation("account.show", (*Service).accountShow)
	AccountSuspend = operation("account.suspend", (*Service).accountSuspend)
	AccountSet     = operation("account.set", (*Service).accountSet)
	AccountHash    = operation("account.password", (*Service).accountHash)
	AccountDelete  = operation("account.delete", (*Service).accountDelete)
)

// Account is an account as it is shown.
type Account struct {
	ID            int64     `json:"id"`
	Address       string    `json:"address"`
	Name          string    `json:"name,omitempty"`
	Admin         bool      `json:"admin"`
	Suspended     bool      `json:"suspended"`
	Language      string    `json:"language"`
	QuotaBytes    int64     `json:"quota_bytes"`    // 0: none
	QuotaMessages int64     `json:"quota_messages"` // 0: none
	Created       time.Time `json:"created"`
	// Only in the answer of AccountShow:
	Usage     *Usage      `json:"usage,omitempty"`
	Mailboxes []Mailbox   `json:"mailboxes,omitempty"`
	Aliases   []string    `json:"aliases,omitempty"`
	Password  *bool       `json:"has_password,omitempty"`
	Held      bool        `json:"held,omitempty"` // under a legal hold
	Sending   *SendingUse `json:"sending,omitempty"`
}

// Usage is what an account holds.
type Usage struct {
	Bytes    int64 `json:"bytes"`
	Messages int64 `json:"messages"`
}

// NewAccount is an account to be made.
type NewAccount struct {
	Address       string `json:"address"`
	Name          string `json:"name,omitempty"`
	PasswordHash  string `json:"password_hash,omitempty"` // argon2id in PHC form; empty: nobody can sign in yet
	Admin         bool   `json:"admin,omitempty"`
	Language      string `json:"language,omitempty"`       // en or zh; the setting's when empty
	QuotaBytes    int64  `json:"quota_bytes,omitempty"`    // 0: the setting's, -1: none
	QuotaMessages int64  `json:"quota_messages,omitempty"` // 0: the setting's, -1: none
}

// AccountRef names one account.
type AccountRef struct {
	Address string `json:"address"`
}

// NewAccounts is a batch of accounts: all are made or none. The Index of an Error tells the entry to blame.
type NewAccounts struct {
	Accounts []NewAccount `json:"accounts"`
}

// Accounts is a page of accounts in order of address.
type Accounts struct {
	Accounts []Account `json:"accounts"`
	Next     string    `json:"next,omitempty"` // to be given as After; "" at the end
}

// Listing asks for a page of accounts or aliases.
type Listing struct {
	Domain string `json:"domain,omitempty"`
	Search string `json:"search,omitempty"` // part of an address or a name
	After  string `json:"after,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}

// maxPage bounds a page of accounts or aliases.
const maxPage = 1000

func (l Listing) filter() directory.Filter {
	f := directory.Filter{Domain: l.Domain, Search: l.Search, After: l.After, Limit: l.Limit}
	if d, err := address.ParseDomain(l.Domain); err == nil {
		f.Domain = d
	}
	if f.Limit <= 0 || f.Limit > maxPage {
		f.Limit = maxPage
	}
	return f
}

func shownAccount(a directory.Account) Account {
	return Account{
		ID: int64(a.ID), Address: a.Address.Unicode(), Name: a.Name, Admin: a.Admin, Suspended: a.Suspended, Language: a.Language,
		QuotaBytes: a.QuotaBytes, QuotaMessages: a.QuotaMessages, Created: a.Created.UTC(),
	}
}

func (s *Service) accountAdd(ctx context.Context, req NewAccounts) (Accounts, error) {
	batch := make([]directory.NewAccount, len(req.Accounts))
	for i, n := range req.Accounts {
		a, err := parseAddress("address", n.Address)
		if err != nil {
			return Accounts{}, &Error{Kind: Invalid, Field: "address", Index: &i, Text: err.Error(), cause: err}
		}
		batch[i] = directory.NewAccount{
			Address: a, Name: n.Name, PasswordHash: n.PasswordHash, Admin: n.Admin, Language: n.Language,
			QuotaBytes: n.QuotaBytes, QuotaMessages: n.QuotaMessages,
		}
	}
	made, err := s.dir.AddAccounts(ctx, batch)
	if err != nil {
		return Accounts{}, err
	}
	out := Accounts{Accounts: make([]Account, len(made))}
	for i, a := range made {
		out.Accounts[i] = shownAccount(a)
	}
	return out, nil
}

func (s *Service) accountList(ctx context.Context, req Listing) (Accounts, error) {
	f := req.filter()
	list, err := s.dir.Accounts(ctx, f)
	if err != nil {
		return Accounts{}, err
	}
	out := Accounts{Accounts: make([]Account, len(list))}
	for i, a := range list {
		out.Accounts[i] = shownAccount(a)
	}
	if len(list) == f.Limit {
		out.Next = list[len(list)-1].Address.Key()
	}
	return out, nil
}

func (s *Service) account(ctx context.Context, addr string) (directory.Account, error) {
	a, err := parseAddress("address", addr)
	if err != nil {
		return directory.Account{}, err
	}
	return s.dir.Account(ctx, a)
}

func (s *Service) accountShow(ctx context.Context, req AccountRef) (Account, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Account{}, err
	}
	out := shownAccount(a)
	usage, err := s.store.Usage(ctx, a.ID)
	if err != nil {
		return Account{}, err
	}
	out.Usage = &Usage{Bytes: usage.Bytes, Messages: usage.Messages}
	if _, out.Held, err = s.store.Holds(ctx, a.ID); err != nil {
		return Account{}, err
	}
	if out.Sending, err = s.sendingUse(ctx, a); err != nil {
		return Account{}, err
	}
	if out.Mailboxes, err = s.mailboxes(ctx, a.ID); err != nil {
		return Account{}, err
	}
	aliases, err := s.dir.AliasesOf(ctx, a.Address)
	if err != nil {
		return Account{}, err
	}
	for _, al := range aliases {
		out.Aliases = append(out.Aliases, al.Address.Unicode())
	}
	hash, _, err := s.dir.PasswordHash(ctx, a.ID)
	if err != nil {
		return Account{}, err
	}
	has := hash != ""
	out.Password = &has
	return out, nil
}

// Suspension suspends an account or lets it in again.
type Suspension struct {
	Address   string `json:"address"`
	Suspended bool   `json:"suspended"`
}

func (s *Service) accountSuspend(ctx context.Context, req Suspension) (Account, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Account{}, err
	}
	if err := s.dir.Suspend(ctx, a.ID, req.Suspended); err != nil {
		return Account{}, err
	}
	return s.accountByID(ctx, a.ID)
}

// AccountChange changes the fields of an account that are not nil.
type AccountChange struct {
	Address       string  `json:"address"`
	Name          *string `json:"name,omitempty"`
	Admin         *bool   `json:"admin,omitempty"`
	Language      *string `json:"language,omitempty"`
	QuotaBytes    *int64  `json:"quota_bytes,omitempty"` // 0: none
	QuotaMessages *int64  `json:"quota_messages,omitempty"`
}

func (s *Service) accountSet(ctx context.Context, req AccountChange) (Account, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Account{}, err
	}
	setTo(&a.Name, req.Name)
	setTo(&a.Admin, req.Admin)
	setTo(&a.Language, req.Language)
	setTo(&a.QuotaBytes, req.QuotaBytes)
	setTo(&a.QuotaMessages, req.QuotaMessages)
	if err := s.dir.SetAccount(ctx, a); err != nil {
		return Account{}, err
	}
	return s.accountByID(ctx, a.ID)
}

func setTo[T any](p, v *T) {
	if v != nil {
		*p = *v
	}
}

func (s *Service) accountByID(ctx context.Context, id store.AccountID) (Account, error) {
	a, err := s.dir.AccountByID(ctx, id)
	if err != nil {
		return Account{}, err
	}
	return shownAccount(a), nil
}

// PasswordChange sets the hash of an account's password.
type PasswordChange struct {
	Address      string `json:"address"`
	PasswordHash string `json:"password_hash"` // argon2id in PHC form
}

// Done is the result of an operation that has none.
type Done struct{}

func (s *Service) accountHash(ctx context.Context, req PasswordChange) (Done, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Done{}, err
	}
	return Done{}, s.dir.SetPasswordHash(ctx, a.ID, req.PasswordHash)
}

func (s *Service) accountDelete(ctx context.Context, req AccountRef) (Done, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Done{}, err
	}
	return Done{}, s.dir.RemoveAccount(ctx, a.ID)
}

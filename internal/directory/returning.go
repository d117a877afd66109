package directory

import (
	"context"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// Returned is an account of a backup whose mail is back (store.BeginReturn) and that now becomes an account again.
type Returned struct {
	Right         store.ReturnRight
	Address       address.Address
	Name          string
	Language      string
	Suspended     bool
	PasswordHash  string // PHC; empty: nobody can sign in
	QuotaBytes    int64  // 0: none
	QuotaMessages int64
	Created       time.Time
	Subscriptions []string
	Holds         []store.Hold // that were in force
}

// ReturnAccount makes the account. It is no administrator, whatever it was: rights that somebody took away, with the account
// or before, don't come back unasked.
func (d *Directory) ReturnAccount(ctx context.Context, r Returned) error {
	if err := d.ownAddress().check(r.Address); err != nil {
		return err
	}
	if err := checkName(r.Name); err != nil {
		return err
	}
	if err := checkLanguage(r.Language); err != nil {
		return err
	}
	if r.PasswordHash != "" && !strings.HasPrefix(r.PasswordHash, "$argon2id$") {
		return &FieldError{Field: "password", Want: "an argon2id hash in PHC form"}
	}
	row := store.NewDirectoryAccount{Password: r.PasswordHash, DirectoryAccount: store.DirectoryAccount{
		ID: r.Right.Account, Key: r.Address.Key(), Local: r.Address.Local, Domain: r.Address.Domain, Name: r.Name, Language: r.Language,
		Suspended: r.Suspended, QuotaBytes: max(r.QuotaBytes, 0), QuotaMessages: max(r.QuotaMessages, 0), Created: r.Created,
	}}
	_, err := d.edit(ctx, store.DirectoryEdit{Base: -1, ReturnAccounts: []store.DirectoryReturn{
		{NewDirectoryAccount: row, Token: r.Right.Token, Subscriptions: r.Subscriptions, Holds: r.Holds},
	}})
	return wrap("bring back account", r.Address.String(), err)
}

// IsAlias tells whether an address is that of an alias.
func (d *Directory) IsAlias(ctx context.Context, a address.Address) (bool, error) {
	k, err := d.lookup(ctx, a.Key())
	return k.alias != nil, err
}

// Package directory knows who the mail is for: the domains that are ours, the accounts in them, aliases (with many
// targets: groups), catch-all addresses, sub-addresses, and the role addresses that every domain must have
// (RFC 5321, section 4.5.1; RFC 2142; RFC 5233 for sub-addresses). It also keeps the settings of the whole server.
//
// It is not a password checker (package auth) and holds no mail (package store). What a RCPT command asks for is
// answered from memory; every committed change empties what it concerns, so that an answer is never older than the
// last change that was acknowledged. A lookup that fails is an error, never "no such user": callers answer 451.
//
// Every change, of a setting as of a domain, an account or an alias, is a new version with a line in one history, which
// tells who made it. A Document is all of it at one version; what differs between two is a Plan, carried out in one
// transaction.
//
//	to, _ := address.Parse("sales+spring@example.test")
//	res, err := dir.Resolve(ctx, to)
//	// res.Status == directory.OK, res.Recipients[0].Account.Address, res.Recipients[0].Detail == "spring"
package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// Errors that callers act on; all else is a failure of the store.
var (
	ErrNotFound = errors.New("directory: not found")
	ErrExists   = errors.New("directory: already exists")
	ErrNotEmpty = errors.New("directory: domain still has accounts or aliases")
	ErrLimit    = errors.New("directory: limit reached")
	// ErrExpansion means that an alias is nested deeper than MaxAliasDepth or leads to more than MaxTargets
	// addresses: a fault of the configuration, which must not cost mail.
	ErrExpansion = errors.New("directory: alias expands too far")
	// ErrConflict means that something changed since the version that a change was based on.
	ErrConflict = errors.New("directory: changed meanwhile")
	// ErrHoldsMail means that an account has mail, which its removal would delete.
	ErrHoldsMail = errors.New("directory: account holds mail")
)

// FieldError says which field of a request isn't allowed, and what is.
type FieldError struct {
	Field string // e.g. "address", "quota_bytes"
	Value string // what was given; empty when it must not be shown
	Want  string // what is allowed, in words
}

func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s", e.Field, e.Want)
	}
	return fmt.Sprintf("%s %q: %s", e.Field, e.Value, e.Want)
}

// Repository is what the directory keeps its rows in. Every change is one transaction, durable when the call returns.
// Errors: store.ErrNotFound, store.ErrExists, store.ErrLimit, or a failure.
type Repository interface {
	DirectoryDomains(ctx context.Context) ([]store.DirectoryDomain, error)
	LookupDirectoryAddress(ctx context.Context, key string) (store.DirectoryAddress, error)
	DirectoryAccount(ctx context.Context, id store.AccountID) (store.DirectoryAccount, error)
	DirectoryAccounts(ctx context.Context, f store.DirectoryFilter) ([]store.DirectoryAccount, error)
	FirstDirectoryAccount(ctx context.Context, domain string, admin bool) (store.DirectoryAccount, error)
	DirectoryPassword(ctx context.Context, id store.AccountID) (phc string, version int64, err error)
	SetDirectoryPassword(ctx context.Context, id store.AccountID, phc string) error

	DirectoryAliases(ctx context.Context, f store.DirectoryFilter) ([]store.DirectoryAlias, error)
	Settings(ctx context.Context) (version int64, rows []store.SettingRow, err error)
	SettingsHistory(ctx context.Context, before int64, limit int) ([]store.SettingChange, error)
	DirectoryAt(ctx context.Context, version int64) (store.DirectorySnapshot, error)
	DirectoryRules(ctx context.Context) ([]store.DirectoryRule, error)
	EditDirectory(ctx context.Context, e store.DirectoryEdit) (version int64, made []store.AccountID, err error)
}

// Account is one person's or program's account.
type Account struct {
	ID              store.AccountID
	Address         address.Address
	Name            string // for people: "Li Wei"
	Suspended       bool   // may not sign in, gets no mail
	Admin           bool
	QuotaBytes      int64  // 0: none
	QuotaMessages   int64  // 0: none
	Language        string // "en" or "zh"
	PasswordVersion int64  // changes with the password
	Forward         Forward
	Created         time.Time
}

// Domain is one domain whose mail is ours.
type Domain struct {
	Name        string          // A-labels, lower case
	CatchAll    address.Address // zero: none
	Postmaster  address.Address // an account; zero: an administrator, see Resolve
	MaxAccounts int             // 0: no limit
	AliasOf     string          // another domain of ours that it stands for: addresses that it lacks are looked up there
	Subaddress  string          // separator of sub-addresses: one character, "" for the setting's, NoSubaddress for none
	// CatchAllExcept are local parts that the catch-all leaves out; with * behind, all that begin so.
	CatchAllExcept []string
	Created        time.Time
}

// Alias is an address that leads to other addresses; with many targets it is a group.
type Alias struct {
	Address address.Address
	Targets []address.Address
	Group   Group
	Created time.Time
}

// Options of a Directory; the zero value serves.
type Options struct {
	Clock        func() time.Time // time.Now when nil
	Logger       *slog.Logger
	CacheEntries int // addresses held in memory; 100,000 when 0
	// OnSettings is called with the settings at the start and after each change of them. It must not call the Directory.
	OnSettings func(Settings)
}

// Directory answers who mail is for. It is safe for concurrent use and starts no goroutine.
type Directory struct {
	repo  Repository
	clock func() time.Time
	log   *slog.Logger

	onSettings func(Settings)

	domains  atomic.Pointer[map[string]Domain] // whole, replaced after each change
	settings atomic.Pointer[Settings]
	rules    atomic.Pointer[ruleSet] // the rules about the way of mail
	reload   sync.Mutex              // of settings: one change at a time
	tables   sync.Mutex              // one reload of domains at a time
	cache    *lookupCache
}

// New reads domains and settings and gives a Directory over the repository (a *store.Store).
func New(ctx context.Context, repo Repository, opts Options) (*Directory, error) {
	d := &Directory{repo: repo, clock: opts.Clock, log: opts.Logger, cache: newLookupCache(opts.CacheEntries), onSettings: opts.OnSettings}
	if d.clock == nil {
		d.clock = time.Now
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if err := d.reloadDomains(ctx); err != nil {
		return nil, err
	}
	if err := d.reloadMailRules(ctx); err != nil {
		return nil, err
	}
	if err := d.reloadSettings(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// Refresh forgets what is cached and reads domains and settings again: for rows that changed behind this Directory,
// as after a restore.
func (d *Directory) Refresh(ctx context.Context) error {
	d.cache.clear()
	if err := d.reloadDomains(ctx); err != nil {
		return err
	}
	if err := d.reloadMailRules(ctx); err != nil {
		return err
	}
	return d.reloadSettings(ctx)
}

// wrap gives an error of the repository its operation and subject, and the kind that callers of this package know.
func wrap(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	var field *FieldError
	if errors.As(err, &field) {
		return err
	}
	kinds := []struct{ from, to error }{
		{store.ErrNotFound, ErrNotFound},
		{store.ErrExists, ErrExists},
		{store.ErrDirectoryNotEmpty, ErrNotEmpty},
		{store.ErrDirectoryConflict, ErrConflict},
		{store.ErrLimit, ErrLimit},
		{store.ErrDirectoryMail, ErrHoldsMail},
	}
	for _, k := range kinds {
		if errors.Is(err, k.from) {
			return fmt.Errorf("%s %s: %w", op, subject, k.to)
		}
	}
	return fmt.Errorf("directory: %s %s: %w", op, subject, err)
}

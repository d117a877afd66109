// Package contacts knows whom the users of this server have written to: mail from them is expected. A sender is no more
// than a claim, so that being a contact spares delays and the surge folder, and nothing that decides on spam.
//
// What is new is kept in memory and written to the store in batches.
//
//	c := contacts.New(contacts.Options{Store: st})
//	go c.Run(ctx)
//	c.Wrote(account, to)
//	known := c.Any(ctx, from)
package contacts

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/guard"
	"waxwing/internal/guard/batch"
	"waxwing/internal/store"
)

// Store keeps the rows: *store.Store.
type Store interface {
	SaveContacts(ctx context.Context, list []store.Contact) error
	Wrote(ctx context.Context, acct store.AccountID, key string) (time.Time, error)
	ExpireContacts(ctx context.Context, before time.Time, most int) error
}

// Bounds.
const (
	Keep        = 2 * 365 * 24 * time.Hour // since the account last wrote
	MostOfOne   = 20_000                   // of one account, the newest
	again       = 7 * 24 * time.Hour       // after which a contact is written anew
	maxEntries  = 32_768                   // in memory, twice
	maxFresh    = 20_000                   // that wait to be written
	expireEvery = 24 * time.Hour
)

// Options of a Book. Store is needed.
type Options struct {
	Store  Store
	Clock  func() time.Time // time.Now when nil
	Logger *slog.Logger     // discarded when nil
	Lead   func() bool      // whether this node expires rows; always when nil
}

// Book knows the contacts of all accounts. It is safe for concurrent use.
type Book struct {
	opts Options

	mu       sync.Mutex
	new, old map[contact]time.Time                    // written lately; two generations, the older is dropped when the newer is full
	fresh    map[string]map[store.AccountID]time.Time // to be written to the store, by address
	waiting  int                                      // in fresh
}

type contact struct {
	account store.AccountID
	key     string
}

// New gives a Book.
func New(o Options) *Book {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Book{opts: o, new: map[contact]time.Time{}, fresh: map[string]map[store.AccountID]time.Time{}}
}

// Check is the link of the guard's chain that learns whom signed-in users write to.
func (b *Book) Check() guard.Check {
	return guard.Check{Name: "contacts", Always: true, Stages: map[guard.Stage]guard.Func{
		guard.Recipient: func(_ context.Context, v *guard.Visitor) guard.Verdict {
			if v.Account != 0 && v.Outcome == nil {
				b.Wrote(v.Account, v.To)
			}
			return guard.Verdict{}
		},
	}}
}

// Wrote notes that an account writes to an address.
func (b *Book) Wrote(acct store.AccountID, to address.Address) {
	c, now := contact{acct, to.Key()}, b.opts.Clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	at, ok := b.new[c]
	if !ok {
		at, ok = b.old[c]
	}
	if ok && now.Sub(at) < again && !at.After(now) {
		return
	}
	if len(b.new) >= maxEntries {
		b.old, b.new = b.new, make(map[contact]time.Time)
	}
	b.new[c] = now
	accounts := b.fresh[c.key]
	if _, waits := accounts[acct]; !waits {
		if b.waiting >= maxFresh {
			return
		}
		b.waiting++
	}
	if accounts == nil {
		accounts = make(map[store.AccountID]time.Time, 1)
		b.fresh[c.key] = accounts
	}
	accounts[acct] = now
}

// Any tells whether any account has written to an address.
func (b *Book) Any(ctx context.Context, a address.Address) bool { return b.has(ctx, 0, a) }

// Of tells whether an account has written to an address.
func (b *Book) Of(ctx context.Context, acct store.AccountID, a address.Address) bool {
	return b.has(ctx, acct, a)
}

// has asks the store, and before it what isn't written yet. A store that can't be asked knows nobody.
func (b *Book) has(ctx context.Context, acct store.AccountID, a address.Address) bool {
	if a.IsNull() {
		return false
	}
	key := a.Key()
	b.mu.Lock()
	accounts := b.fresh[key]
	_, found := accounts[acct]
	found = found || acct == 0 && len(accounts) > 0
	b.mu.Unlock()
	if found {
		return true
	}
	at, err := b.opts.Store.Wrote(ctx, acct, key)
	if err != nil {
		b.opts.Logger.Warn("contacts can't be looked up", "error", err)
	}
	return err == nil && !at.IsZero()
}

// Run writes what is new and expires what is old until ctx ends; then it writes what is left.
func (b *Book) Run(ctx context.Context) {
	batch.Run(ctx, batch.Work{Name: "contacts", Flush: b.Flush, Expire: b.Expire, Every: expireEvery, Lead: b.opts.Lead, Logger: b.opts.Logger})
}

// Expire forgets in the store whom nobody has written to for long.
func (b *Book) Expire(ctx context.Context) error {
	return b.opts.Store.ExpireContacts(ctx, b.opts.Clock().Add(-Keep), MostOfOne)
}

// Flush writes what is new to the store. What can't be written waits for the next time.
func (b *Book) Flush(ctx context.Context) error {
	b.mu.Lock()
	var list []store.Contact
	for key, accounts := range b.fresh {
		for account, at := range accounts {
			list = append(list, store.Contact{Account: account, Key: key, Wrote: at})
		}
	}
	b.mu.Unlock()
	_, err := batch.InParts(list, func(part []store.Contact) error {
		if err := b.opts.Store.SaveContacts(ctx, part); err != nil {
			return err
		}
		b.written(part)
		return nil
	})
	return err
}

func (b *Book) written(list []store.Contact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range list {
		accounts := b.fresh[c.Key]
		if !accounts[c.Account].Equal(c.Wrote) {
			continue // written to once more meanwhile
		}
		delete(accounts, c.Account)
		b.waiting--
		if len(accounts) == 0 {
			delete(b.fresh, c.Key)
		}
	}
}

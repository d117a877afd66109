package intake

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"waxwing/internal/address"
	"waxwing/internal/cache"
	"waxwing/internal/directory"
	"waxwing/internal/sieve"
	"waxwing/internal/store"
)

// Scripts is what deliveries ask about filter scripts; *store.Store is one.
type Scripts interface {
	SieveVersion(ctx context.Context, acct store.AccountID) (int64, error)
	SieveActive(ctx context.Context, acct store.AccountID) (name string, text []byte, err error)
	SieveText(ctx context.Context, acct store.AccountID, name string) ([]byte, error)
	SieveSeen(ctx context.Context, acct store.AccountID, key string) (bool, error)
	Mailbox(ctx context.Context, acct store.AccountID, name string) (store.Mailbox, error)
	Mailboxes(ctx context.Context, acct store.AccountID) ([]store.Mailbox, error)
}

// scriptMemory bounds the compiled scripts that are kept, by the octets of their texts and what they are compiled to, about.
const (
	scriptMemory = 64 << 20
	scriptFactor = 20
)

// filters keeps compiled scripts.
type filters struct {
	scripts Scripts
	users   *cache.Cache[store.AccountID, userScript]
	admin   atomic.Pointer[adminScripts]
}

// userScript is what an account runs; script is nil when it can't be compiled.
type userScript struct {
	version, settings int64
	script            *sieve.Script
}

// adminScripts are those of the settings at a version; nil for none.
type adminScripts struct {
	settings      int64
	before, after *sieve.Script
}

func newFilters(s Scripts) *filters {
	if s == nil {
		return nil
	}
	return &filters{scripts: s, users: cache.New[store.AccountID, userScript](scriptMemory)}
}

// administrators gives the scripts of the settings. They were checked when they were set.
func (f *filters) administrators(set *directory.Settings) *adminScripts {
	if a := f.admin.Load(); a != nil && a.settings == set.Version {
		return a
	}
	compile := func(text string) *sieve.Script {
		if text == "" {
			return nil
		}
		s, _ := sieve.Compile([]byte(text), set.SieveOptions())
		return s
	}
	a := &adminScripts{settings: set.Version, before: compile(set.SieveBefore), after: compile(set.SieveAfter)}
	f.admin.Store(a)
	return a
}

// of gives what is run for a mailbox: nothing for an account without a script, at no cost.
func (f *filters) of(ctx context.Context, acct store.AccountID, set *directory.Settings) ([]*sieve.Script, error) {
	admin := f.administrators(set)
	version, err := f.scripts.SieveVersion(ctx, acct)
	if err != nil {
		return nil, err
	}
	if version == 0 && admin.before == nil && admin.after == nil {
		return nil, nil
	}
	list := []*sieve.Script{admin.before}
	if version != 0 {
		own, err := f.user(ctx, acct, version, set)
		if err != nil {
			return nil, err
		}
		list = append(list, own)
	}
	list = append(list, admin.after)
	return slices.DeleteFunc(list, func(s *sieve.Script) bool { return s == nil }), nil
}

// user gives the script of an account, compiled. One that can't be compiled any more, since the settings allow less, is none.
func (f *filters) user(ctx context.Context, acct store.AccountID, version int64, set *directory.Settings) (*sieve.Script, error) {
	if k, ok := f.users.Get(acct); ok && k.version == version && k.settings == set.Version {
		return k.script, nil
	}
	_, text, err := f.scripts.SieveActive(ctx, acct)
	if errors.Is(err, store.ErrNotFound) { // taken back a moment ago
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	octets := len(text)
	var failed error
	options := set.SieveOptions()
	options.Load = func(global bool, name string) ([]byte, error) {
		if global {
			return nil, store.ErrNotFound
		}
		text, err := f.scripts.SieveText(ctx, acct, name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			failed = err
		}
		octets += len(text)
		return text, err
	}
	script, err := sieve.Compile(text, options)
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		script = nil
	}
	f.users.Drop(acct)
	f.users.Put(acct, userScript{version, set.Version, script}, int64(octets*scriptFactor+512))
	return script, nil
}

// sieveHost answers what a run asks about its account.
type sieveHost struct {
	scripts Scripts
	account store.AccountID
}

// MailboxExists implements sieve.Host.
func (h sieveHost) MailboxExists(ctx context.Context, name string) (bool, error) {
	_, err := h.scripts.Mailbox(ctx, h.account, name)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// SpecialUse implements sieve.Host.
func (h sieveHost) SpecialUse(ctx context.Context, name, use string) (bool, error) {
	m, err := h.byUse(ctx, use)
	return err == nil && m.ID != 0 && (name == "" || m.Name == name), err
}

// byUse finds the mailbox of a special use (RFC 6154); the zero one when there is none.
func (h sieveHost) byUse(ctx context.Context, use string) (store.Mailbox, error) {
	role := store.Role(strings.ToLower(strings.TrimPrefix(use, `\`)))
	list, err := h.scripts.Mailboxes(ctx, h.account)
	if i := slices.IndexFunc(list, func(m store.Mailbox) bool { return m.Role == role }); i >= 0 && role != "" && err == nil {
		return list[i], nil
	}
	return store.Mailbox{}, err
}

// Seen implements sieve.Host.
func (h sieveHost) Seen(ctx context.Context, key string) (bool, error) {
	return h.scripts.SieveSeen(ctx, h.account, key)
}

// flagsOf parts IMAP flags as a script names them into the store's flags and keywords.
func flagsOf(list []string) (flags store.Flags, keywords []string) {
	system := map[string]store.Flags{
		`\Seen`: store.Seen, `\Answered`: store.Answered, `\Flagged`: store.Flagged, `\Deleted`: store.Deleted, `\Draft`: store.Draft,
	}
	for _, f := range list {
		if bit, ok := system[f]; ok {
			flags |= bit
		} else {
			keywords = append(keywords, f)
		}
	}
	return flags, keywords
}

// sieveInput is what a run for a mailbox is told.
func (t *Transaction) sieveInput(l *local, own address.Address) sieve.Input {
	to := l.to
	if to.Local == "" {
		to = own
	}
	env := map[string]string{"name": "Waxwing", "phase": "during", "location": "MDA", "host": t.in.opts.Hostname}
	if _, domain, ok := strings.Cut(t.in.opts.Hostname, "."); ok {
		env["domain"] = domain
	}
	if ip := t.peer.Remote.Addr(); ip.IsValid() {
		env["remote-ip"] = ip.Unmap().String()
	}
	return sieve.Input{
		From: t.mail.From, To: to, Mine: []address.Address{own}, Separator: t.set.SubaddressSeparator, Now: t.in.opts.Clock(),
		Environment: env, Spam: -1, Host: sieveHost{t.in.filters.scripts, l.account},
	}
}

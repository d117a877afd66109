package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// DirectoryEdit is a set of changes of domains, accounts, aliases and settings. All of them commit in one transaction, as
// one new version with its lines in the history, or none does. They are carried out in the order of the fields, so that an
// address can go from an alias to an account in one edit.
type DirectoryEdit struct {
	Base  int64 // the version that it is based on, -1 for any: ErrDirectoryConflict when it isn't the newest
	Actor string
	At    time.Time

	RemoveAliases  []string // by key
	RemoveAccounts []AccountID
	KeepMail       bool // an account that holds mail is not removed: ErrDirectoryMail
	AddDomains     []DirectoryDomain
	SetDomains     []DirectoryDomain
	AddAccounts    []NewDirectoryAccount
	ReturnAccounts []DirectoryReturn
	SetAccounts    []DirectoryAccountChange
	AddAliases     []DirectoryAlias
	SetAliases     []DirectoryAlias
	RemoveDomains  []string
	RemoveRules    []DirectoryRule // by kind and name
	PutRules       []DirectoryRule // made or replaced
	AddRules       []DirectoryRule // ErrExists when there is one of that name
	Settings       []SettingChange
}

// DirectoryAccountChange changes the fields of an account that aren't nil.
type DirectoryAccountChange struct {
	ID            AccountID
	Name          *string
	Language      *string
	Admin         *bool
	Suspended     *bool
	QuotaBytes    *int64
	QuotaMessages *int64
	Options       *string
}

// EditDirectory carries out an edit and gives its version and the ids of the accounts that it made. ErrExists,
// ErrNotFound, ErrLimit (a domain's limit of accounts), ErrDirectoryNotEmpty, ErrDirectoryConflict, ErrDirectoryMail;
// DirectoryBatchIndex tells which of AddAccounts is to blame, DirectorySubject what else.
func (s *Store) EditDirectory(ctx context.Context, e DirectoryEdit) (version int64, ids []AccountID, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		if e.Base >= 0 {
			// Asked before anything is written: an edit that comes too late spoils nobody's transaction.
			if err := tx.QueryRow(`SELECT value FROM directory_counter WHERE name = 'settings'`).Scan(&version); err != nil {
				return err
			}
			if version != e.Base {
				return ErrDirectoryConflict
			}
		}
		if err := tx.QueryRow(`UPDATE directory_counter SET value = value + 1 WHERE name = 'settings' RETURNING value`).Scan(&version); err != nil {
			return err
		}
		tx.directory = true
		ids, err = (&directoryEditor{s: s, tx: tx, edit: &e, version: version}).run()
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	return version, ids, nil
}

// batchEntryError names the entry of AddAccounts that failed.
type batchEntryError struct {
	index int
	err   error
}

func (e *batchEntryError) Error() string { return fmt.Sprintf("entry %d: %v", e.index, e.err) }
func (e *batchEntryError) Unwrap() error { return e.err }

// DirectoryBatchIndex tells which entry of AddAccounts an error of EditDirectory is about.
func DirectoryBatchIndex(err error) (int, bool) {
	if e, ok := errors.AsType[*batchEntryError](err); ok {
		return e.index, true
	}
	return 0, false
}

// subjectError names the row that an edit failed at.
type subjectError struct {
	subject string
	err     error
}

func (e *subjectError) Error() string { return e.subject + ": " + e.err.Error() }
func (e *subjectError) Unwrap() error { return e.err }

// DirectorySubject tells what an error of EditDirectory is about: "domain example.test", "account li@example.test"; ""
// when it doesn't say.
func DirectorySubject(err error) string {
	if e, ok := errors.AsType[*subjectError](err); ok {
		return e.subject
	}
	return ""
}

// directoryEditor carries out one edit in a transaction.
type directoryEditor struct {
	s       *Store
	tx      *Tx
	edit    *DirectoryEdit
	version int64
}

func (d *directoryEditor) run() (ids []AccountID, err error) {
	e := d.edit
	steps := []func() error{
		func() error { return each(e.RemoveAliases, "alias", func(k string) string { return k }, d.removeAlias) },
		func() error { return d.removeAccounts() },
		func() error { return each(e.AddDomains, "domain", domainName, d.addDomain) },
		func() error { return each(e.SetDomains, "domain", domainName, d.setDomain) },
		func() error { ids, err = d.addAccounts(); return err },
		func() error {
			return each(e.ReturnAccounts, "account", func(r DirectoryReturn) string { return r.Key }, d.returnAccount)
		},
		func() error { return d.setAccounts() },
		func() error { return each(e.AddAliases, "alias", aliasKey, d.addAlias) },
		func() error { return each(e.SetAliases, "alias", aliasKey, d.setAlias) },
		func() error {
			return each(e.RemoveDomains, "domain", func(n string) string { return n }, d.removeDomain)
		},
		func() error { return each(e.RemoveRules, "rule", ruleName, d.removeRule) },
		func() error { return each(e.AddRules, "rule", ruleName, d.addRule) },
		func() error { return each(e.PutRules, "rule", ruleName, d.putRule) },
		func() error { return d.settings() },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func domainName(d DirectoryDomain) string { return d.Name }
func aliasKey(a DirectoryAlias) string    { return a.Key }

// each does one thing to all of a list, and names what it failed at.
func each[T any](list []T, kind string, name func(T) string, do func(T) error) error {
	for _, x := range list {
		if err := do(x); err != nil {
			return &subjectError{subject: kind + " " + name(x), err: err}
		}
	}
	return nil
}

func (d *directoryEditor) addDomain(r DirectoryDomain) error {
	n, err := affected(d.tx.Exec(`INSERT INTO directory_domain (name, catch_all, postmaster, max_accounts, options, created)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING`,
		r.Name, r.CatchAll, r.Postmaster, r.MaxAccounts, r.Options, r.Created.UnixMicro()))
	if err == nil && n == 0 {
		err = ErrExists
	}
	if err != nil {
		return err
	}
	return d.note(historyDomains+r.Name, domainForm(r))
}

func (d *directoryEditor) setDomain(r DirectoryDomain) error {
	err := oneRow(d.tx.Exec(`UPDATE directory_domain SET catch_all = $2, postmaster = $3, max_accounts = $4, options = $5 WHERE name = $1`,
		r.Name, r.CatchAll, r.Postmaster, r.MaxAccounts, r.Options))
	if err != nil {
		return err
	}
	return d.note(historyDomains+r.Name, domainForm(r))
}

// removeDomain removes a domain without addresses.
func (d *directoryEditor) removeDomain(name string) error {
	var used int
	err := d.tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM directory_address WHERE domain = $1 LIMIT 1) AS t`, name).Scan(&used)
	if err != nil {
		return err
	}
	if used > 0 {
		return ErrDirectoryNotEmpty
	}
	if err := oneRow(d.tx.Exec(`DELETE FROM directory_domain WHERE name = $1`, name)); err != nil {
		return err
	}
	return d.note(historyDomains+name, nil)
}

func (d *directoryEditor) addAccounts() ([]AccountID, error) {
	list := d.edit.AddAccounts
	if len(list) == 0 {
		return nil, nil
	}
	var last int64
	err := d.tx.QueryRow(`UPDATE directory_counter SET value = value + $1 WHERE name = 'account' RETURNING value`, len(list)).Scan(&last)
	if err != nil {
		return nil, err
	}
	ids := make([]AccountID, len(list))
	room := map[string]int{}
	for i := range list {
		ids[i] = AccountID(last - int64(len(list)-1-i))
		if err := d.addAccount(ids[i], &list[i], room); err != nil {
			return nil, &batchEntryError{index: i, err: err}
		}
	}
	return ids, nil
}

// addAccount makes one account.
func (d *directoryEditor) addAccount(id AccountID, a *NewDirectoryAccount, room map[string]int) error {
	if err := d.takeRoom(a.Domain, room); err != nil {
		return err
	}
	if err := d.accountRows(id, a); err != nil {
		return err
	}
	if err := d.s.CreateAccountState(d.tx, id, a.Mailboxes); err != nil {
		return err
	}
	return d.accountMade(id, a)
}

// takeRoom counts an account in; room remembers how many more each domain takes (-1: no limit).
func (d *directoryEditor) takeRoom(domain string, room map[string]int) error {
	left, known := room[domain]
	if !known {
		var limit, used int
		err := d.tx.QueryRow(`SELECT max_accounts, (SELECT count(account_id) FROM directory_address WHERE domain = $1)
			FROM directory_domain WHERE name = $1`, domain).Scan(&limit, &used)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("domain %s: %w", domain, ErrNotFound)
		}
		if err != nil {
			return err
		}
		left = -1
		if limit > 0 {
			left = max(limit-used, 0)
		}
	}
	if left == 0 {
		return fmt.Errorf("domain %s: %w", domain, ErrLimit)
	}
	room[domain] = max(left-1, -1)
	return nil
}

// accountRows makes the rows of an account; ErrExists when the address is taken.
func (d *directoryEditor) accountRows(id AccountID, a *NewDirectoryAccount) error {
	created := a.Created.UnixMicro()
	n, err := affected(d.tx.Exec(`INSERT INTO directory_address (address_key, local_part, domain, account_id, options, created)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (address_key) DO NOTHING`, a.Key, a.Local, a.Domain, id, a.Options, created))
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrExists
	}
	_, err = d.tx.Exec(`INSERT INTO directory_account (account_id, name, language, admin, suspended, quota_bytes, quota_messages,
		password, password_version, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9)`,
		id, a.Name, a.Language, bit(a.Admin), bit(a.Suspended), a.QuotaBytes, a.QuotaMessages, a.Password, created)
	return err
}

// accountMade sets the quota of a new account and notes it.
func (d *directoryEditor) accountMade(id AccountID, a *NewDirectoryAccount) error {
	if err := d.s.SetQuota(d.tx, id, a.QuotaBytes, a.QuotaMessages); err != nil {
		return err
	}
	return d.note(historyAccounts+a.Key, accountForm(a.DirectoryAccount))
}

func (d *directoryEditor) setAccounts() error {
	for _, c := range d.edit.SetAccounts {
		err := oneRow(d.tx.Exec(`UPDATE directory_account SET name = COALESCE($2, name), language = COALESCE($3, language),
			admin = COALESCE($4, admin), suspended = COALESCE($5, suspended), quota_bytes = COALESCE($6, quota_bytes),
			quota_messages = COALESCE($7, quota_messages) WHERE account_id = $1`,
			c.ID, c.Name, c.Language, bitOf(c.Admin), bitOf(c.Suspended), c.QuotaBytes, c.QuotaMessages))
		if err != nil {
			return err
		}
		if c.Options != nil {
			if err := oneRow(d.tx.Exec(`UPDATE directory_address SET options = $2 WHERE account_id = $1`, c.ID, *c.Options)); err != nil {
				return err
			}
		}
		a, err := d.account(c.ID)
		if err != nil {
			return err
		}
		if c.QuotaBytes != nil || c.QuotaMessages != nil {
			if err := d.s.SetQuota(d.tx, c.ID, a.QuotaBytes, a.QuotaMessages); err != nil {
				return err
			}
		}
		if err := d.note(historyAccounts+a.Key, accountForm(a)); err != nil {
			return err
		}
	}
	return nil
}

// account reads an account as the transaction leaves it.
func (d *directoryEditor) account(id AccountID) (DirectoryAccount, error) {
	return scanDirectoryAccount(d.tx.QueryRow(`SELECT `+accountColumns+` FROM `+accountTables+` WHERE d.account_id = $1`, id).Scan)
}

func (d *directoryEditor) removeAccounts() error {
	for _, id := range d.edit.RemoveAccounts {
		a, err := d.account(id)
		if err != nil {
			return err
		}
		if err := d.removeAccount(a); err != nil {
			return &subjectError{subject: "account " + a.Key, err: err}
		}
	}
	return nil
}

func (d *directoryEditor) removeAccount(a DirectoryAccount) error {
	if d.edit.KeepMail {
		w, err := d.tx.account(a.ID)
		if err != nil {
			return err
		}
		if n := w.counters.usedMessages; n > 0 {
			return fmt.Errorf("%w: %d messages", ErrDirectoryMail, n)
		}
	}
	for _, q := range []string{
		`DELETE FROM directory_account WHERE account_id = $1`,
		`DELETE FROM directory_address WHERE account_id = $1`,
	} {
		if err := oneRow(d.tx.Exec(q, a.ID)); err != nil {
			return err
		}
	}
	if err := d.s.DeleteAccountState(d.tx, a.ID); err != nil {
		return err
	}
	if err := d.tx.exec(`DELETE FROM sending_hold WHERE account_id = $1`, a.ID); err != nil {
		return err
	}
	return d.note(historyAccounts+a.Key, nil)
}

func (d *directoryEditor) addAlias(a DirectoryAlias) error {
	n, err := affected(d.tx.Exec(`INSERT INTO directory_address (address_key, local_part, domain, account_id, options, created)
		SELECT $1, $2, name, NULL, $5, $4 FROM directory_domain WHERE name = $3 ON CONFLICT (address_key) DO NOTHING`,
		a.Key, a.Local, a.Domain, a.Created.UnixMicro(), a.Options))
	if err != nil {
		return err
	}
	if n == 0 {
		return d.missingOrTaken(a.Domain)
	}
	return d.targets(a)
}

// missingOrTaken tells why an alias wasn't inserted.
func (d *directoryEditor) missingOrTaken(domain string) error {
	var n int
	if err := d.tx.QueryRow(`SELECT count(*) FROM directory_domain WHERE name = $1`, domain).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("domain %s: %w", domain, ErrNotFound)
	}
	return ErrExists
}

// setAlias replaces the targets; ErrNotFound for an account's address too.
func (d *directoryEditor) setAlias(a DirectoryAlias) error {
	err := oneRow(d.tx.Exec(`UPDATE directory_address SET local_part = $2, options = $3 WHERE address_key = $1 AND account_id IS NULL`,
		a.Key, a.Local, a.Options))
	if err != nil {
		return err
	}
	if _, err := d.tx.Exec(`DELETE FROM directory_target WHERE address_key = $1`, a.Key); err != nil {
		return err
	}
	return d.targets(a)
}

func (d *directoryEditor) targets(a DirectoryAlias) error {
	for i, t := range a.Targets {
		_, err := d.tx.Exec(`INSERT INTO directory_target (address_key, position, target, target_key) VALUES ($1, $2, $3, $4)`,
			a.Key, i, t.Address, t.Key)
		if err != nil {
			return err
		}
	}
	return d.note(historyAliases+a.Key, aliasForm(a))
}

// removeAlias removes an alias; ErrNotFound, also for an account's address.
func (d *directoryEditor) removeAlias(key string) error {
	_, err := d.tx.Exec(`DELETE FROM directory_target WHERE address_key IN
		(SELECT address_key FROM directory_address WHERE address_key = $1 AND account_id IS NULL)`, key)
	if err != nil {
		return err
	}
	if err := oneRow(d.tx.Exec(`DELETE FROM directory_address WHERE address_key = $1 AND account_id IS NULL`, key)); err != nil {
		return err
	}
	return d.note(historyAliases+key, nil)
}

func (d *directoryEditor) settings() error {
	for _, c := range d.edit.Settings {
		var err error
		if c.Value == nil {
			_, err = d.tx.Exec(`DELETE FROM setting WHERE name = $1`, c.Name)
		} else {
			_, err = d.tx.Exec(`INSERT INTO setting (name, value, version, changed) VALUES ($1, $2, $3, $4)
				ON CONFLICT (name) DO UPDATE SET value = excluded.value, version = excluded.version, changed = excluded.changed`,
				c.Name, *c.Value, d.version, d.edit.At.UnixMicro())
		}
		if err != nil {
			return err
		}
		if err := d.line(c.Name, c.Value); err != nil {
			return err
		}
	}
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// bitOf is bit of a pointer; nil stays nil.
func bitOf(b *bool) *int {
	if b == nil {
		return nil
	}
	n := bit(*b)
	return &n
}

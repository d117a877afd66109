package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// batchEntryError names the entry of a batch that failed.
type batchEntryError struct {
	index int
	err   error
}

func (e *batchEntryError) Error() string { return fmt.Sprintf("entry %d: %v", e.index, e.err) }
func (e *batchEntryError) Unwrap() error { return e.err }

// DirectoryBatchIndex tells which entry of AddDirectoryAccounts an error is about.
func DirectoryBatchIndex(err error) (int, bool) {
	if e, ok := errors.AsType[*batchEntryError](err); ok {
		return e.index, true
	}
	return 0, false
}

// DirectoryDomains gives all domains.
func (s *Store) DirectoryDomains(ctx context.Context) ([]DirectoryDomain, error) {
	var list []DirectoryDomain
	err := s.Read(ctx, func(q Querier) error {
		rows, err := q.Query(`SELECT name, catch_all, postmaster, max_accounts, created FROM directory_domain ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			var d DirectoryDomain
			var created int64
			if err := rows.Scan(&d.Name, &d.CatchAll, &d.Postmaster, &d.MaxAccounts, &created); err != nil {
				return err
			}
			d.Created = time.UnixMicro(created)
			list = append(list, d)
		}
		return rows.Err()
	})
	return list, err
}

// AddDirectoryDomain makes a domain; ErrExists.
func (s *Store) AddDirectoryDomain(ctx context.Context, d DirectoryDomain) error {
	return s.Write(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(`INSERT INTO directory_domain (name, catch_all, postmaster, max_accounts, created)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING`,
			d.Name, d.CatchAll, d.Postmaster, d.MaxAccounts, d.Created.UnixMicro()))
		if err == nil && n == 0 {
			return ErrExists
		}
		return err
	})
}

// SetDirectoryDomain changes a domain; ErrNotFound.
func (s *Store) SetDirectoryDomain(ctx context.Context, d DirectoryDomain) error {
	return s.Write(ctx, func(tx *Tx) error {
		return oneRow(tx.Exec(`UPDATE directory_domain SET catch_all = $2, postmaster = $3, max_accounts = $4 WHERE name = $1`,
			d.Name, d.CatchAll, d.Postmaster, d.MaxAccounts))
	})
}

// RemoveDirectoryDomain removes a domain without addresses; ErrNotFound, ErrDirectoryNotEmpty.
func (s *Store) RemoveDirectoryDomain(ctx context.Context, name string) error {
	return s.Write(ctx, func(tx *Tx) error {
		var used int
		err := tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM directory_address WHERE domain = $1 LIMIT 1) AS t`, name).Scan(&used)
		if err != nil {
			return err
		}
		if used > 0 {
			return ErrDirectoryNotEmpty
		}
		return oneRow(tx.Exec(`DELETE FROM directory_domain WHERE name = $1`, name))
	})
}

const accountColumns = `d.account_id, a.address_key, a.local_part, a.domain, d.name, d.language, d.admin, d.suspended,
	d.quota_bytes, d.quota_messages, d.password_version, d.created`

const accountTables = `directory_account AS d JOIN directory_address AS a ON a.account_id = d.account_id`

func scanDirectoryAccount(scan func(...any) error) (DirectoryAccount, error) {
	var a DirectoryAccount
	var created int64
	err := scan(&a.ID, &a.Key, &a.Local, &a.Domain, &a.Name, &a.Language, &a.Admin, &a.Suspended,
		&a.QuotaBytes, &a.QuotaMessages, &a.PasswordVersion, &created)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	a.Created = time.UnixMicro(created)
	return a, err
}

// LookupDirectoryAddress tells what a key stands for; ErrNotFound.
func (s *Store) LookupDirectoryAddress(ctx context.Context, key string) (DirectoryAddress, error) {
	var found DirectoryAddress
	err := s.Read(ctx, func(q Querier) error {
		found = DirectoryAddress{}
		a, err := scanDirectoryAccount(q.QueryRow(`SELECT `+accountColumns+` FROM `+accountTables+` WHERE a.address_key = $1`, key).Scan)
		if err == nil {
			found.Account = &a
			return nil
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		rows, err := q.Query(`SELECT target FROM directory_target WHERE address_key = $1 ORDER BY position`, key)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var t string
			if err := rows.Scan(&t); err != nil {
				return err
			}
			found.Targets = append(found.Targets, t)
		}
		if len(found.Targets) == 0 && rows.Err() == nil {
			return ErrNotFound
		}
		return rows.Err()
	})
	return found, err
}

// DirectoryAccount finds an account by its id; ErrNotFound.
func (s *Store) DirectoryAccount(ctx context.Context, id AccountID) (a DirectoryAccount, err error) {
	err = s.Read(ctx, func(q Querier) error {
		a, err = scanDirectoryAccount(q.QueryRow(`SELECT `+accountColumns+` FROM `+accountTables+` WHERE d.account_id = $1`, id).Scan)
		return err
	})
	return a, err
}

// FirstDirectoryAccount finds the oldest account that isn't suspended, of one domain ("": of any), administrators only or
// all; ErrNotFound.
func (s *Store) FirstDirectoryAccount(ctx context.Context, domain string, admin bool) (a DirectoryAccount, err error) {
	query := `SELECT ` + accountColumns + ` FROM ` + accountTables + ` WHERE d.suspended = 0`
	var args []any
	if domain != "" {
		query += ` AND a.domain = $1`
		args = append(args, domain)
	}
	if admin {
		query += ` AND d.admin = 1`
	}
	err = s.Read(ctx, func(q Querier) error {
		a, err = scanDirectoryAccount(q.QueryRow(query+` ORDER BY d.account_id LIMIT 1`, args...).Scan)
		return err
	})
	return a, err
}

// DirectoryAccounts lists accounts.
func (s *Store) DirectoryAccounts(ctx context.Context, f DirectoryFilter) ([]DirectoryAccount, error) {
	where, args := directoryWhere(f, "a.account_id IS NOT NULL", "lower(d.name)")
	var list []DirectoryAccount
	err := s.Read(ctx, func(q Querier) error {
		rows, err := q.Query(`SELECT `+accountColumns+` FROM `+accountTables+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			a, err := scanDirectoryAccount(rows.Scan)
			if err != nil {
				return err
			}
			list = append(list, a)
		}
		return rows.Err()
	})
	return list, err
}

// directoryWhere builds the condition and the order of a list over directory_address AS a; searched is the column that
// Search looks at beside the address.
func directoryWhere(f DirectoryFilter, first, searched string) (where string, args []any) {
	conds := []string{first}
	cond := func(text string, arg any) {
		args = append(args, arg)
		conds = append(conds, strings.ReplaceAll(text, "?", fmt.Sprintf("$%d", len(args))))
	}
	if f.Domain != "" {
		cond("a.domain = ?", f.Domain)
	}
	if f.Search != "" {
		pattern := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(f.Search)) + "%"
		cond(`(a.address_key LIKE ? ESCAPE '\' OR `+searched+` LIKE ? ESCAPE '\')`, pattern)
	}
	if f.Target != "" {
		cond("a.address_key IN (SELECT address_key FROM directory_target WHERE target_key = ?)", f.Target)
	}
	if f.After != "" {
		cond("a.address_key > ?", f.After)
	}
	where = " WHERE " + strings.Join(conds, " AND ") + " ORDER BY a.address_key"
	if f.Limit > 0 {
		args = append(args, f.Limit)
		where += fmt.Sprintf(" LIMIT $%d", len(args))
	}
	return where, args
}

// AddDirectoryAccounts makes accounts with their mailboxes, all or none. ErrExists, ErrLimit (a domain's limit of
// accounts), ErrNotFound (the domain); DirectoryBatchIndex tells the entry.
func (s *Store) AddDirectoryAccounts(ctx context.Context, accounts []NewDirectoryAccount) ([]AccountID, error) {
	var ids []AccountID
	err := s.Write(ctx, func(tx *Tx) error {
		var last int64
		err := tx.QueryRow(`UPDATE directory_counter SET value = value + $1 WHERE name = 'account' RETURNING value`,
			len(accounts)).Scan(&last)
		if err != nil {
			return err
		}
		ids = make([]AccountID, len(accounts))
		room := map[string]int{}
		for i := range accounts {
			ids[i] = AccountID(last - int64(len(accounts)-1-i))
			if err := s.addDirectoryAccount(tx, ids[i], &accounts[i], room); err != nil {
				return &batchEntryError{index: i, err: err}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// addDirectoryAccount makes one account; room remembers how many more each domain takes (-1: no limit).
func (s *Store) addDirectoryAccount(tx *Tx, id AccountID, a *NewDirectoryAccount, room map[string]int) error {
	left, known := room[a.Domain]
	if !known {
		var limit, used int
		err := tx.QueryRow(`SELECT max_accounts, (SELECT count(account_id) FROM directory_address WHERE domain = $1)
			FROM directory_domain WHERE name = $1`, a.Domain).Scan(&limit, &used)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("domain %s: %w", a.Domain, ErrNotFound)
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
		return fmt.Errorf("domain %s: %w", a.Domain, ErrLimit)
	}
	room[a.Domain] = max(left-1, -1)
	created := a.Created.UnixMicro()
	n, err := affected(tx.Exec(`INSERT INTO directory_address (address_key, local_part, domain, account_id, created)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT (address_key) DO NOTHING`, a.Key, a.Local, a.Domain, id, created))
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrExists
	}
	_, err = tx.Exec(`INSERT INTO directory_account (account_id, name, language, admin, suspended, quota_bytes, quota_messages,
		password, password_version, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, $9)`,
		id, a.Name, a.Language, bit(a.Admin), bit(a.Suspended), a.QuotaBytes, a.QuotaMessages, a.Password, created)
	if err != nil {
		return err
	}
	if err := s.CreateAccountState(tx, id, a.Mailboxes); err != nil {
		return err
	}
	return s.SetQuota(tx, id, a.QuotaBytes, a.QuotaMessages)
}

// SetDirectoryAccount changes name, language, administrator and quota; ErrNotFound.
func (s *Store) SetDirectoryAccount(ctx context.Context, a DirectoryAccount) error {
	return s.Write(ctx, func(tx *Tx) error {
		err := oneRow(tx.Exec(`UPDATE directory_account SET name = $2, language = $3, admin = $4, quota_bytes = $5,
			quota_messages = $6 WHERE account_id = $1`, a.ID, a.Name, a.Language, bit(a.Admin), a.QuotaBytes, a.QuotaMessages))
		if err != nil {
			return err
		}
		return s.SetQuota(tx, a.ID, a.QuotaBytes, a.QuotaMessages)
	})
}

// SuspendDirectoryAccount suspends an account or ends that; ErrNotFound.
func (s *Store) SuspendDirectoryAccount(ctx context.Context, id AccountID, suspended bool) error {
	return s.Write(ctx, func(tx *Tx) error {
		return oneRow(tx.Exec(`UPDATE directory_account SET suspended = $2 WHERE account_id = $1`, id, bit(suspended)))
	})
}

// RemoveDirectoryAccount removes an account, its address and its mail; ErrNotFound.
func (s *Store) RemoveDirectoryAccount(ctx context.Context, id AccountID) error {
	return s.Write(ctx, func(tx *Tx) error {
		if err := oneRow(tx.Exec(`DELETE FROM directory_account WHERE account_id = $1`, id)); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM directory_address WHERE account_id = $1`, id); err != nil {
			return err
		}
		return s.DeleteAccountState(tx, id)
	})
}

// DirectoryPassword gives the password hash of an account and its version; ErrNotFound.
func (s *Store) DirectoryPassword(ctx context.Context, id AccountID) (phc string, version int64, err error) {
	err = s.Read(ctx, func(q Querier) error {
		err := q.QueryRow(`SELECT password, password_version FROM directory_account WHERE account_id = $1`, id).Scan(&phc, &version)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	return phc, version, err
}

// SetDirectoryPassword sets the password hash of an account and raises its version; ErrNotFound.
func (s *Store) SetDirectoryPassword(ctx context.Context, id AccountID, phc string) error {
	return s.Write(ctx, func(tx *Tx) error {
		return oneRow(tx.Exec(`UPDATE directory_account SET password = $2, password_version = password_version + 1
			WHERE account_id = $1`, id, phc))
	})
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func affected(res sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// oneRow turns a change of no row into ErrNotFound.
func oneRow(res sql.Result, err error) error {
	n, err := affected(res, err)
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

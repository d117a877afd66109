package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// DirectoryDomains gives all domains.
func (s *Store) DirectoryDomains(ctx context.Context) ([]DirectoryDomain, error) {
	var list []DirectoryDomain
	err := s.Read(ctx, func(q Querier) error {
		rows, err := q.Query(`SELECT name, catch_all, postmaster, max_accounts, options, created FROM directory_domain ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			var d DirectoryDomain
			var created int64
			if err := rows.Scan(&d.Name, &d.CatchAll, &d.Postmaster, &d.MaxAccounts, &d.Options, &created); err != nil {
				return err
			}
			d.Created = time.UnixMicro(created)
			list = append(list, d)
		}
		return rows.Err()
	})
	return list, err
}

const accountColumns = `d.account_id, a.address_key, a.local_part, a.domain, d.name, d.language, d.admin, d.suspended,
	d.quota_bytes, d.quota_messages, d.password_version, a.options, d.created`

const accountTables = `directory_account AS d JOIN directory_address AS a ON a.account_id = d.account_id`

func scanDirectoryAccount(scan func(...any) error) (DirectoryAccount, error) {
	var a DirectoryAccount
	var created int64
	err := scan(&a.ID, &a.Key, &a.Local, &a.Domain, &a.Name, &a.Language, &a.Admin, &a.Suspended,
		&a.QuotaBytes, &a.QuotaMessages, &a.PasswordVersion, &a.Options, &created)
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
		rows, err := q.Query(`SELECT t.target, a.options FROM directory_target AS t
			JOIN directory_address AS a ON a.address_key = t.address_key WHERE t.address_key = $1 ORDER BY t.position`, key)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var t string
			if err := rows.Scan(&t, &found.Options); err != nil {
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

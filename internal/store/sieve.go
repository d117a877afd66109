package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// ErrActive means that a filter script is the active one of its account: it can't be deleted.
var ErrActive = errors.New("store: the script is active")

// SieveScript is a filter script of an account. What it says is package sieve's to know.
type SieveScript struct {
	Name    string
	Size    int64 // octets
	Active  bool
	Changed time.Time
}

// SieveLimits are what an account may have of scripts.
type SieveLimits struct {
	Scripts int
	Octets  int64 // of one script
}

// SieveMemory is something that an account's scripts remember until it expires.
type SieveMemory struct {
	Account AccountID
	Key     string
	Expires time.Time
}

// SieveVersion is the number of what deliveries to an account run: another one after each change, 0 for nothing. It is
// answered from memory.
func (s *Store) SieveVersion(ctx context.Context, acct AccountID) (version int64, err error) {
	err = s.with(ctx, acct, func(a *account) error {
		version = a.counters.sieve
		return nil
	})
	return version, err
}

// SieveScripts lists the scripts of an account by name.
func (s *Store) SieveScripts(ctx context.Context, acct AccountID) ([]SieveScript, error) {
	var list []SieveScript
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var x SieveScript
		var changed int64
		err := rows.Scan(&x.Name, &x.Size, &x.Active, &changed)
		x.Changed = time.UnixMicro(changed)
		list = append(list, x)
		return err
	}, `SELECT name, length(text), active, changed FROM sieve_script WHERE account_id = $1 ORDER BY name`, acct)
	if err != nil {
		return nil, fmt.Errorf("store: scripts of account %d: %w", acct, err)
	}
	return list, nil
}

// SieveText gives the text of a script; ErrNotFound.
func (s *Store) SieveText(ctx context.Context, acct AccountID, name string) (text []byte, err error) {
	err = s.reads.row(ctx, []any{&text}, `SELECT text FROM sieve_script WHERE account_id = $1 AND name = $2`, acct, name)
	return text, sieveError(acct, name, err)
}

// SieveActive gives the name and text of the active script; ErrNotFound when none is.
func (s *Store) SieveActive(ctx context.Context, acct AccountID) (name string, text []byte, err error) {
	err = s.reads.row(ctx, []any{&name, &text}, `SELECT name, text FROM sieve_script WHERE account_id = $1 AND active = 1`, acct)
	return name, text, sieveError(acct, "that is active", err)
}

func sieveError(acct AccountID, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		err = ErrNotFound
	}
	return fmt.Errorf("store: script %s of account %d: %w", name, acct, err)
}

// editSieve changes scripts of an account, and with them the version that deliveries go by.
func (s *Store) editSieve(ctx context.Context, acct AccountID, name string, edit func(tx *Tx) error) error {
	err := s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		if err := edit(tx); err != nil {
			return err
		}
		var active int
		if err := tx.QueryRow(`SELECT count(*) FROM sieve_script WHERE account_id = $1 AND active = 1`, acct).Scan(&active); err != nil {
			return err
		}
		before := w.counters.sieve
		w.counters.sieve, w.dirty, tx.wrote = 0, true, true
		if active > 0 {
			w.counters.sieve = max(tx.now.UnixMicro(), before+1)
		}
		return nil
	})
	return sieveError(acct, name, err)
}

// CheckSieveRoom tells whether a script would find room; ErrLimit when the account has too many, ErrOverQuota when it is too
// large.
func (s *Store) CheckSieveRoom(ctx context.Context, acct AccountID, name string, octets int64, limits SieveLimits) error {
	if octets > limits.Octets {
		return sieveError(acct, name, ErrOverQuota)
	}
	var others int
	err := s.reads.row(ctx, []any{&others}, `SELECT count(*) FROM sieve_script WHERE account_id = $1 AND name <> $2`, acct, name)
	if err == nil && others >= limits.Scripts {
		err = ErrLimit
	}
	return sieveError(acct, name, err)
}

// PutSieve stores a script, in place of one of the same name, which stays active if it was. Errors as of CheckSieveRoom.
func (s *Store) PutSieve(ctx context.Context, acct AccountID, name string, text []byte, limits SieveLimits) error {
	if int64(len(text)) > limits.Octets {
		return sieveError(acct, name, ErrOverQuota)
	}
	if text == nil {
		text = []byte{}
	}
	return s.editSieve(ctx, acct, name, func(tx *Tx) error {
		var others int
		if err := tx.QueryRow(`SELECT count(*) FROM sieve_script WHERE account_id = $1 AND name <> $2`, acct, name).Scan(&others); err != nil {
			return err
		}
		if others >= limits.Scripts {
			return ErrLimit
		}
		return tx.exec(`INSERT INTO sieve_script (account_id, name, text, active, changed) VALUES ($1, $2, $3, 0, $4)
			ON CONFLICT (account_id, name) DO UPDATE SET text = excluded.text, changed = excluded.changed`,
			acct, name, text, tx.now.UnixMicro())
	})
}

// ActivateSieve makes a script the active one, or none when the name is empty; ErrNotFound.
func (s *Store) ActivateSieve(ctx context.Context, acct AccountID, name string) error {
	return s.editSieve(ctx, acct, name, func(tx *Tx) error {
		if name != "" {
			var there int
			err := tx.QueryRow(`SELECT count(*) FROM sieve_script WHERE account_id = $1 AND name = $2`, acct, name).Scan(&there)
			if err != nil {
				return err
			}
			if there == 0 {
				return ErrNotFound
			}
		}
		if err := tx.exec(`UPDATE sieve_script SET active = 0 WHERE account_id = $1 AND active = 1`, acct); err != nil || name == "" {
			return err
		}
		return tx.exec(`UPDATE sieve_script SET active = 1 WHERE account_id = $1 AND name = $2`, acct, name)
	})
}

// DeleteSieve removes a script; ErrNotFound, ErrActive.
func (s *Store) DeleteSieve(ctx context.Context, acct AccountID, name string) error {
	return s.editSieve(ctx, acct, name, func(tx *Tx) error {
		var active int
		err := tx.QueryRow(`SELECT active FROM sieve_script WHERE account_id = $1 AND name = $2`, acct, name).Scan(&active)
		if err != nil {
			return err
		}
		if active != 0 {
			return ErrActive
		}
		return tx.exec(`DELETE FROM sieve_script WHERE account_id = $1 AND name = $2`, acct, name)
	})
}

// RenameSieve gives a script another name; ErrNotFound, ErrExists.
func (s *Store) RenameSieve(ctx context.Context, acct AccountID, name, to string) error {
	return s.editSieve(ctx, acct, name, func(tx *Tx) error {
		var there, taken int
		err := tx.QueryRow(`SELECT count(CASE WHEN name = $2 THEN 1 END), count(CASE WHEN name = $3 THEN 1 END) FROM sieve_script
			WHERE account_id = $1`, acct, name, to).Scan(&there, &taken)
		switch {
		case err != nil:
			return err
		case there == 0:
			return ErrNotFound
		case taken > 0:
			return ErrExists
		}
		return tx.exec(`UPDATE sieve_script SET name = $3 WHERE account_id = $1 AND name = $2`, acct, name, to)
	})
}

// SieveSeen tells whether an account's scripts remember something.
func (s *Store) SieveSeen(ctx context.Context, acct AccountID, key string) (bool, error) {
	var expires int64
	err := s.reads.row(ctx, []any{&expires}, `SELECT expires FROM sieve_memory WHERE account_id = $1 AND memory = $2`, acct, key)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: memory of account %d: %w", acct, err)
	}
	return expires > s.clock().Unix(), nil
}

// remember writes what a delivery's scripts are to remember.
func (tx *Tx) remember(list []SieveMemory) error {
	for _, m := range list {
		err := tx.exec(`INSERT INTO sieve_memory (account_id, memory, expires) VALUES ($1, $2, $3)
			ON CONFLICT (account_id, memory) DO UPDATE SET expires = excluded.expires`, m.Account, m.Key, m.Expires.Unix())
		if err != nil {
			return fmt.Errorf("memory: %w", err)
		}
	}
	return nil
}

// forgetStep is how many rows one transaction removes.
const forgetStep = 1000

// forgetSieve removes what scripts need not remember any more.
func (s *Store) forgetSieve(ctx context.Context) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.Write(ctx, func(tx *Tx) error {
			n, err := affected(tx.Exec(`DELETE FROM sieve_memory WHERE (account_id, memory) IN
				(SELECT account_id, memory FROM sieve_memory WHERE expires <= $1 ORDER BY expires LIMIT $2)`, tx.now.Unix(), forgetStep))
			more = n == forgetStep
			return err
		})
		if err != nil {
			return fmt.Errorf("store: memory of scripts: %w", err)
		}
	}
	return nil
}

package store

import (
	"context"
	"fmt"
	"time"
)

// PutDirectoryAlias makes an alias (ErrExists) or replaces the targets of one (ErrNotFound).
func (s *Store) PutDirectoryAlias(ctx context.Context, a DirectoryAlias, replace bool) error {
	return s.Write(ctx, func(tx *Tx) error {
		if replace {
			// Says ErrNotFound for an account's address too.
			err := oneRow(tx.Exec(`UPDATE directory_address SET local_part = $2 WHERE address_key = $1 AND account_id IS NULL`, a.Key, a.Local))
			if err != nil {
				return err
			}
			if _, err := tx.Exec(`DELETE FROM directory_target WHERE address_key = $1`, a.Key); err != nil {
				return err
			}
		} else {
			n, err := affected(tx.Exec(`INSERT INTO directory_address (address_key, local_part, domain, account_id, created)
				SELECT $1, $2, name, NULL, $4 FROM directory_domain WHERE name = $3 ON CONFLICT (address_key) DO NOTHING`,
				a.Key, a.Local, a.Domain, a.Created.UnixMicro()))
			if err != nil {
				return err
			}
			if n == 0 {
				return missingOrTaken(tx, a.Domain)
			}
		}
		return insertTargets(tx, a)
	})
}

// missingOrTaken tells why an alias wasn't inserted.
func missingOrTaken(tx *Tx, domain string) error {
	var n int
	if err := tx.QueryRow(`SELECT count(*) FROM directory_domain WHERE name = $1`, domain).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("domain %s: %w", domain, ErrNotFound)
	}
	return ErrExists
}

func insertTargets(tx *Tx, a DirectoryAlias) error {
	for i, t := range a.Targets {
		_, err := tx.Exec(`INSERT INTO directory_target (address_key, position, target, target_key) VALUES ($1, $2, $3, $4)`,
			a.Key, i, t.Address, t.Key)
		if err != nil {
			return err
		}
	}
	return nil
}

// RemoveDirectoryAlias removes an alias; ErrNotFound, also for an account's address.
func (s *Store) RemoveDirectoryAlias(ctx context.Context, key string) error {
	return s.Write(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`DELETE FROM directory_target WHERE address_key IN
			(SELECT address_key FROM directory_address WHERE address_key = $1 AND account_id IS NULL)`, key)
		if err != nil {
			return err
		}
		return oneRow(tx.Exec(`DELETE FROM directory_address WHERE address_key = $1 AND account_id IS NULL`, key))
	})
}

// DirectoryAliases lists aliases with their targets.
func (s *Store) DirectoryAliases(ctx context.Context, f DirectoryFilter) ([]DirectoryAlias, error) {
	where, args := directoryWhere(f, "a.account_id IS NULL", "a.local_part")
	var list []DirectoryAlias
	err := s.Read(ctx, func(q Querier) error {
		// The limit counts aliases, not targets: it stands in the inner query.
		rows, err := q.Query(`SELECT a.address_key, a.local_part, a.domain, a.created, t.target, t.target_key FROM
			(SELECT a.address_key, a.local_part, a.domain, a.created FROM directory_address AS a`+where+`) AS a
			JOIN directory_target AS t ON t.address_key = a.address_key ORDER BY a.address_key, t.position`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			var a DirectoryAlias
			var t DirectoryTarget
			var created int64
			if err := rows.Scan(&a.Key, &a.Local, &a.Domain, &created, &t.Address, &t.Key); err != nil {
				return err
			}
			if len(list) == 0 || list[len(list)-1].Key != a.Key {
				a.Created = time.UnixMicro(created)
				list = append(list, a)
			}
			last := &list[len(list)-1]
			last.Targets = append(last.Targets, t)
		}
		return rows.Err()
	})
	return list, err
}

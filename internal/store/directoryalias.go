package store

import (
	"context"
	"time"
)

// DirectoryAliases lists aliases with their targets.
func (s *Store) DirectoryAliases(ctx context.Context, f DirectoryFilter) ([]DirectoryAlias, error) {
	where, args := directoryWhere(f, "a.account_id IS NULL", "a.local_part")
	var list []DirectoryAlias
	err := s.Read(ctx, func(q Querier) error {
		// The limit counts aliases, not targets: it stands in the inner query.
		rows, err := q.Query(`SELECT a.address_key, a.local_part, a.domain, a.options, a.created, t.target, t.target_key FROM
			(SELECT a.address_key, a.local_part, a.domain, a.options, a.created FROM directory_address AS a`+where+`) AS a
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
			if err := rows.Scan(&a.Key, &a.Local, &a.Domain, &a.Options, &created, &t.Address, &t.Key); err != nil {
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

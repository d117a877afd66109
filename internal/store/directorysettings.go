package store

import (
	"context"
	"database/sql"
	"time"
)

// Settings gives the settings that differ from their default and the version that they have.
func (s *Store) Settings(ctx context.Context) (version int64, list []SettingRow, err error) {
	err = s.Read(ctx, func(q Querier) error {
		if err := q.QueryRow(`SELECT value FROM directory_counter WHERE name = 'settings'`).Scan(&version); err != nil {
			return err
		}
		rows, err := q.Query(`SELECT name, value, version, changed FROM setting ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			var r SettingRow
			var changed int64
			if err := rows.Scan(&r.Name, &r.Value, &r.Version, &changed); err != nil {
				return err
			}
			r.Changed = time.UnixMicro(changed)
			list = append(list, r)
		}
		return rows.Err()
	})
	return version, list, err
}

// SettingsHistory lists the changes of versions up to and with upTo (0: all), newest version first, at most limit lines
// (0: all).
func (s *Store) SettingsHistory(ctx context.Context, upTo int64, limit int) ([]SettingChange, error) {
	var list []SettingChange
	err := s.Read(ctx, func(q Querier) error {
		query := `SELECT version, name, value, changed, actor FROM setting_history WHERE version <= $1 ORDER BY version DESC, name`
		if upTo <= 0 {
			upTo = 1<<63 - 1
		}
		args := []any{upTo}
		if limit > 0 {
			query += ` LIMIT $2`
			args = append(args, limit)
		}
		rows, err := q.Query(query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			var c SettingChange
			var value sql.NullString
			var changed int64
			if err := rows.Scan(&c.Version, &c.Name, &value, &changed, &c.Actor); err != nil {
				return err
			}
			if value.Valid {
				c.Value = &value.String
			}
			c.Changed = time.UnixMicro(changed)
			list = append(list, c)
		}
		return rows.Err()
	})
	return list, err
}

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

// ChangeSettings makes all changes as one new version and writes them into the history. base is the version that they
// were based on, -1 for any: ErrDirectoryConflict when it isn't the newest.
func (s *Store) ChangeSettings(ctx context.Context, base int64, actor string, at time.Time, changes []SettingChange) (version int64, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		if err := tx.QueryRow(`UPDATE directory_counter SET value = value + 1 WHERE name = 'settings' RETURNING value`).Scan(&version); err != nil {
			return err
		}
		if base >= 0 && version != base+1 {
			return ErrDirectoryConflict
		}
		for _, c := range changes {
			var err error
			if c.Value == nil {
				_, err = tx.Exec(`DELETE FROM setting WHERE name = $1`, c.Name)
			} else {
				_, err = tx.Exec(`INSERT INTO setting (name, value, version, changed) VALUES ($1, $2, $3, $4)
					ON CONFLICT (name) DO UPDATE SET value = excluded.value, version = excluded.version, changed = excluded.changed`,
					c.Name, *c.Value, version, at.UnixMicro())
			}
			if err != nil {
				return err
			}
			_, err = tx.Exec(`INSERT INTO setting_history (version, name, value, changed, actor) VALUES ($1, $2, $3, $4, $5)`,
				version, c.Name, c.Value, at.UnixMicro(), actor)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return version, err
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

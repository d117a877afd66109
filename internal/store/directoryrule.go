package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// DirectoryRules gives all rules, by kind and name.
func (s *Store) DirectoryRules(ctx context.Context) ([]DirectoryRule, error) {
	var list []DirectoryRule
	err := s.Read(ctx, func(q Querier) error {
		rows, err := q.Query(`SELECT kind, name, value, created FROM mail_rule ORDER BY kind, name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			var r DirectoryRule
			var created int64
			if err := rows.Scan(&r.Kind, &r.Name, &r.Value, &created); err != nil {
				return err
			}
			r.Created = time.UnixMicro(created)
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, err
}

func ruleName(r DirectoryRule) string { return r.Kind + " " + r.Name }

func (d *directoryEditor) addRule(r DirectoryRule) error {
	n, err := affected(d.tx.Exec(`INSERT INTO mail_rule (kind, name, value, created) VALUES ($1, $2, $3, $4)
		ON CONFLICT (kind, name) DO NOTHING`, r.Kind, r.Name, r.Value, r.Created.UnixMicro()))
	if err == nil && n == 0 {
		err = ErrExists
	}
	if err != nil {
		return err
	}
	return d.line(r.Kind+"/"+r.Name, &r.Value)
}

func (d *directoryEditor) putRule(r DirectoryRule) error {
	_, err := d.tx.Exec(`INSERT INTO mail_rule (kind, name, value, created) VALUES ($1, $2, $3, $4)
		ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value`, r.Kind, r.Name, r.Value, r.Created.UnixMicro())
	if err != nil {
		return err
	}
	return d.line(r.Kind+"/"+r.Name, &r.Value)
}

func (d *directoryEditor) removeRule(r DirectoryRule) error {
	if err := oneRow(d.tx.Exec(`DELETE FROM mail_rule WHERE kind = $1 AND name = $2`, r.Kind, r.Name)); err != nil {
		return err
	}
	return d.line(r.Kind+"/"+r.Name, nil)
}

// srsKeySize is the octets of a key for HMAC-SHA256.
const srsKeySize = 32

// maxSRSKeys is how many keys are kept: with one more the oldest goes, and what it signed is refused.
const maxSRSKeys = 8

// SRSKeys gives the keys that reverse-paths of forwarded mail are signed with, newest first. The first one is made when
// there is none; of several nodes that do so at once all get the same.
func (s *Store) SRSKeys(ctx context.Context) ([]SRSKey, error) {
	list, err := s.srsKeys(ctx)
	if err != nil || len(list) > 0 {
		return list, err
	}
	secret := make([]byte, srsKeySize)
	_, _ = rand.Read(secret) // it never fails
	err = s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO srs_key (id, secret, created) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING`, secret, tx.now.UnixMicro())
	})
	if err != nil {
		return nil, fmt.Errorf("store: make key of SRS: %w", err)
	}
	return s.srsKeys(ctx)
}

func (s *Store) srsKeys(ctx context.Context) ([]SRSKey, error) {
	var list []SRSKey
	err := s.Read(ctx, func(q Querier) error {
		rows, err := q.Query(`SELECT id, secret, created FROM srs_key ORDER BY id DESC`)
		if err != nil {
			return err
		}
		defer rows.Close()
		list = nil
		for rows.Next() {
			var k SRSKey
			var created int64
			if err := rows.Scan(&k.ID, &k.Secret, &created); err != nil {
				return err
			}
			k.Created = time.UnixMicro(created)
			list = append(list, k)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("store: keys of SRS: %w", err)
	}
	return list, nil
}

// RotateSRSKey makes a new key, which signs from now on. The others are believed until they are older than keep and a newer
// one has signed in their place for that long.
func (s *Store) RotateSRSKey(ctx context.Context, keep time.Duration) error {
	secret := make([]byte, srsKeySize)
	_, _ = rand.Read(secret) // it never fails
	err := s.Write(ctx, func(tx *Tx) error {
		tx.directory = true
		if err := tx.exec(`INSERT INTO srs_key (id, secret, created) SELECT COALESCE(MAX(id), 0) + 1, $1, $2 FROM srs_key`,
			secret, tx.now.UnixMicro()); err != nil {
			return err
		}
		// A key signed until the next one came: it goes when that one is old enough.
		if err := tx.exec(`DELETE FROM srs_key WHERE id < (SELECT COALESCE(MAX(id), 0) FROM srs_key WHERE created < $1)`,
			tx.now.Add(-keep).UnixMicro()); err != nil {
			return err
		}
		return tx.exec(`DELETE FROM srs_key WHERE id <= (SELECT MAX(id) FROM srs_key) - $1`, maxSRSKeys)
	})
	if err != nil {
		return fmt.Errorf("store: new key of SRS: %w", err)
	}
	return nil
}

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// The history of settings holds the directory too: a line "account/KEY" with the account as JSON, or NULL when it was
// removed, and "domain/NAME", "alias/KEY" and "RULEKIND/NAME" in the same way. Names of settings have no slash. What an edit leaves is
// written by the transaction of the edit, so that the history can't say anything else than what was.
const (
	historyDomains  = "domain/"
	historyAccounts = "account/"
	historyAliases  = "alias/"
)

type domainHistory struct {
	CatchAll    string `json:"catch_all,omitempty"`
	Postmaster  string `json:"postmaster,omitempty"`
	MaxAccounts int    `json:"max_accounts,omitempty"`
	Options     string `json:"options,omitempty"`
}

// accountHistory is what is known of an account, but for its password.
type accountHistory struct {
	Local         string `json:"local"`
	Domain        string `json:"domain"`
	Name          string `json:"name,omitempty"`
	Language      string `json:"language"`
	Admin         bool   `json:"admin,omitempty"`
	Suspended     bool   `json:"suspended,omitempty"`
	QuotaBytes    int64  `json:"quota_bytes,omitempty"`
	QuotaMessages int64  `json:"quota_messages,omitempty"`
	Options       string `json:"options,omitempty"`
}

type aliasHistory struct {
	Local   string            `json:"local"`
	Domain  string            `json:"domain"`
	Targets []DirectoryTarget `json:"targets"`
	Options string            `json:"options,omitempty"`
}

func domainForm(d DirectoryDomain) any {
	return domainHistory{CatchAll: d.CatchAll, Postmaster: d.Postmaster, MaxAccounts: d.MaxAccounts, Options: d.Options}
}

func accountForm(a DirectoryAccount) any {
	return accountHistory{
		Local: a.Local, Domain: a.Domain, Name: a.Name, Language: a.Language, Admin: a.Admin, Suspended: a.Suspended,
		QuotaBytes: a.QuotaBytes, QuotaMessages: a.QuotaMessages, Options: a.Options,
	}
}

func aliasForm(a DirectoryAlias) any {
	return aliasHistory{Local: a.Local, Domain: a.Domain, Targets: a.Targets, Options: a.Options}
}

// note writes what an edit left of an object; nil is nothing.
func (d *directoryEditor) note(name string, form any) error {
	if form == nil {
		return d.line(name, nil)
	}
	raw, err := json.Marshal(form)
	if err != nil {
		return fmt.Errorf("history of %s: %w", name, err)
	}
	text := string(raw)
	return d.line(name, &text)
}

// line writes a line of the history. One edit may touch an object twice: the last word counts.
func (d *directoryEditor) line(name string, value *string) error {
	_, err := d.tx.Exec(`INSERT INTO setting_history (version, name, value, changed, actor) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (version, name) DO UPDATE SET value = excluded.value`,
		d.version, name, value, d.edit.At.UnixMicro(), d.edit.Actor)
	return err
}

// DirectorySnapshot is the directory as it was. Ids, password versions and times of creation aren't told.
type DirectorySnapshot struct {
	Domains  []DirectoryDomain
	Accounts []DirectoryAccount
	Aliases  []DirectoryAlias
	Rules    []DirectoryRule
}

// DirectoryAt gives the domains, accounts and aliases as they were at a version, in order of name.
func (s *Store) DirectoryAt(ctx context.Context, version int64) (DirectorySnapshot, error) {
	var out DirectorySnapshot
	err := s.Read(ctx, func(q Querier) error {
		out = DirectorySnapshot{}
		rows, err := q.Query(`SELECT h.name, h.value FROM setting_history AS h JOIN
			(SELECT name, max(version) AS version FROM setting_history WHERE version <= $1 AND name LIKE '%/%' GROUP BY name) AS l
			ON l.name = h.name AND l.version = h.version WHERE h.value IS NOT NULL ORDER BY h.name`, version)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name, value string
			if err := rows.Scan(&name, &value); err != nil {
				return err
			}
			if err := out.add(name, value); err != nil {
				return fmt.Errorf("history of %s: %w", name, err)
			}
		}
		return rows.Err()
	})
	return out, err
}

// add takes up one line of the history.
func (s *DirectorySnapshot) add(name, value string) error {
	kind, key, _ := strings.Cut(name, "/")
	switch kind + "/" {
	case historyDomains:
		var f domainHistory
		if err := json.Unmarshal([]byte(value), &f); err != nil {
			return err
		}
		s.Domains = append(s.Domains, DirectoryDomain{Name: key, CatchAll: f.CatchAll, Postmaster: f.Postmaster, MaxAccounts: f.MaxAccounts, Options: f.Options})
	case historyAccounts:
		var f accountHistory
		if err := json.Unmarshal([]byte(value), &f); err != nil {
			return err
		}
		s.Accounts = append(s.Accounts, DirectoryAccount{
			Key: key, Local: f.Local, Domain: f.Domain, Name: f.Name, Language: f.Language, Admin: f.Admin, Suspended: f.Suspended,
			QuotaBytes: f.QuotaBytes, QuotaMessages: f.QuotaMessages, Options: f.Options,
		})
	case historyAliases:
		var f aliasHistory
		if err := json.Unmarshal([]byte(value), &f); err != nil {
			return err
		}
		s.Aliases = append(s.Aliases, DirectoryAlias{Key: key, Local: f.Local, Domain: f.Domain, Targets: f.Targets, Options: f.Options})
	default:
		s.Rules = append(s.Rules, DirectoryRule{Kind: kind, Name: key, Value: value})
	}
	return nil
}

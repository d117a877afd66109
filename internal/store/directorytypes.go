package store

import (
	"errors"
	"time"
)

// Errors of the directory's rows beside ErrNotFound, ErrExists and ErrLimit.
var (
	ErrDirectoryNotEmpty = errors.New("store: domain has accounts or aliases")
	ErrDirectoryConflict = errors.New("store: rows changed meanwhile")
	ErrDirectoryMail     = errors.New("store: account holds mail")
)

// DirectoryDomain is the row of one domain. Package directory gives these rows their meaning; here they are text.
type DirectoryDomain struct {
	Name        string
	CatchAll    string
	Postmaster  string
	MaxAccounts int
	Options     string // JSON, "" for none
	Created     time.Time
}

// DirectoryAccount is the row of one account with its address.
type DirectoryAccount struct {
	ID              AccountID
	Key             string // the address folded for comparison; unique among accounts and aliases
	Local           string
	Domain          string
	Name            string
	Language        string
	Admin           bool
	Suspended       bool
	QuotaBytes      int64
	QuotaMessages   int64
	PasswordVersion int64
	Options         string // JSON, "" for none
	Created         time.Time
}

// NewDirectoryAccount is an account to be made, with the mailboxes it begins with. Its ID is given by the store.
type NewDirectoryAccount struct {
	DirectoryAccount
	Password  string // PHC, "" for none
	Mailboxes []MailboxSpec
}

// DirectoryAddress is what an address stands for: an account, or an alias with its targets.
type DirectoryAddress struct {
	Account *DirectoryAccount
	Targets []string
	Options string // of an alias
}

// DirectoryTarget is one target of an alias, as SMTP writes it and folded.
type DirectoryTarget struct {
	Address string `json:"address"`
	Key     string `json:"key"`
}

// DirectoryAlias is one alias.
type DirectoryAlias struct {
	Key     string
	Local   string
	Domain  string
	Targets []DirectoryTarget
	Options string // JSON, "" for none
	Created time.Time
}

// DirectoryRule is one rule that belongs to no address: kinds and values are package directory's.
type DirectoryRule struct {
	Kind    string
	Name    string
	Value   string // JSON
	Created time.Time
}

// SRSKey is a key that reverse-paths of forwarded mail are signed with.
type SRSKey struct {
	ID      int64
	Secret  []byte
	Created time.Time
}

// DirectoryFilter selects accounts or aliases, in the order of their keys.
type DirectoryFilter struct {
	Domain string // only of this domain
	Search string // only whose key or name holds this text
	Target string // aliases only: that name this key among their targets
	After  string // only keys after this one: paging
	Limit  int    // at most so many; 0: all
}

// SettingRow is one setting that differs from its default.
type SettingRow struct {
	Name    string
	Value   string // JSON
	Version int64
	Changed time.Time
}

// SettingChange is one line of the history: of a setting, or as "account/KEY", "domain/NAME", "alias/KEY", "RULEKIND/NAME" of the directory.
type SettingChange struct {
	Version int64
	Name    string
	Value   *string // JSON; nil: back to the default, or removed
	Changed time.Time
	Actor   string
}

package control

import (
	"context"
	"encoding/json"

	"waxwing/internal/address"
	"waxwing/internal/directory"
)

// Operations on the document: settings, domains, accounts and aliases as one whole.
var (
	DocumentShow     = operation("document.show", (*Service).documentShow)
	DocumentApply    = operation("document.apply", (*Service).documentApply)
	DocumentRollback = operation("document.rollback", (*Service).documentRollback)
)

// Document is all that an administrator has decided, without passwords. A list that is null says nothing of its objects
// and leaves them as they are; any other is complete: what it doesn't name goes.
type Document struct {
	Version  int64                      `json:"version"`
	Settings map[string]json.RawMessage `json:"settings"` // that differ from their defaults, by name
	Domains  []DocumentDomain           `json:"domains"`
	Accounts []DocumentAccount          `json:"accounts"`
	Aliases  []DocumentAlias            `json:"aliases"`
	Access   []directory.AccessRule     `json:"access"`
	Sending  []directory.SendingLimit   `json:"sending_limits"`
	Relays   []Relay                    `json:"relays"`
	Routes   []Route                    `json:"routes"`
	Journals []Journal                  `json:"journals"`
}

// DocumentDomain is a domain in a Document.
type DocumentDomain struct {
	Name        string   `json:"name"`
	CatchAll    string   `json:"catch_all,omitempty"`
	Postmaster  string   `json:"postmaster,omitempty"`
	MaxAccounts int      `json:"max_accounts,omitempty"`
	AliasOf     string   `json:"alias_of,omitempty"`
	Subaddress  string   `json:"subaddress,omitempty"`
	Except      []string `json:"catch_all_except,omitempty"`
}

// DocumentAccount is an account in a Document.
type DocumentAccount struct {
	Address       string   `json:"address"`
	Name          string   `json:"name,omitempty"`
	Admin         bool     `json:"admin,omitempty"`
	Suspended     bool     `json:"suspended,omitempty"`
	Language      string   `json:"language,omitempty"`       // en or zh; the setting's when empty
	QuotaBytes    *int64   `json:"quota_bytes,omitempty"`    // 0: none; the setting's when absent
	QuotaMessages *int64   `json:"quota_messages,omitempty"` // 0: none; the setting's when absent
	Forward       []string `json:"forward,omitempty"`
	ForwardCopy   bool     `json:"forward_copy,omitempty"`
	ForwardPaused bool     `json:"forward_paused,omitempty"`
}

// DocumentAlias is an alias in a Document.
type DocumentAlias struct {
	Address string   `json:"address"`
	Targets []string `json:"targets"`
	Senders string   `json:"senders,omitempty"`
	Allowed []string `json:"allowed,omitempty"`
	Owner   string   `json:"owner,omitempty"`
	Hidden  bool     `json:"hidden,omitempty"`
}

// DocumentAt asks for the document as it is, or as it was.
type DocumentAt struct {
	Version *int64 `json:"version,omitempty"`
}

// Application asks for the document to become what is given, all of it or nothing.
type Application struct {
	Document   Document `json:"document"`
	Base       int64    `json:"base"`        // the version that it is based on, -1 for any
	DryRun     bool     `json:"dry_run"`     // only say what would change
	DeleteMail bool     `json:"delete_mail"` // accounts with mail may be removed
}

// Rollback asks for the document to become what it was at a version.
type Rollback struct {
	Version    int64 `json:"version"`
	Base       int64 `json:"base"`
	DryRun     bool  `json:"dry_run"`
	DeleteMail bool  `json:"delete_mail"`
}

// Applied tells what changed, or would.
type Applied struct {
	Version int64            `json:"version"` // that it has led to; with DryRun the one that it is based on
	Changes []DocumentChange `json:"changes"`
}

// DocumentChange is one difference.
type DocumentChange struct {
	Act    string `json:"act"`  // make, change, remove
	Kind   string `json:"kind"` // setting, domain, account, alias, access, sending, relay, route, journal
	Name   string `json:"name"`
	Field  string `json:"field,omitempty"`
	From   any    `json:"from"`
	To     any    `json:"to"`
	Remark string `json:"remark,omitempty"`
}

func (s *Service) documentShow(ctx context.Context, req DocumentAt) (Document, error) {
	var doc directory.Document
	var err error
	if req.Version == nil {
		doc, err = s.dir.Document(ctx)
	} else {
		doc, err = s.dir.DocumentAt(ctx, *req.Version)
	}
	if err != nil {
		return Document{}, err
	}
	return shownDocument(doc), nil
}

func shownDocument(doc directory.Document) Document {
	out := Document{
		Version: doc.Version, Settings: doc.Settings, Domains: make([]DocumentDomain, len(doc.Domains)),
		Accounts: make([]DocumentAccount, len(doc.Accounts)), Aliases: make([]DocumentAlias, len(doc.Aliases)),
		Access: doc.Access, Sending: doc.Sending,
		Relays: doc.Relays, Routes: doc.Routes, Journals: doc.Journals,
	}
	for i, d := range doc.Domains {
		shown := shownDomain(d)
		out.Domains[i] = DocumentDomain{Name: shown.Name, CatchAll: shown.CatchAll, Postmaster: shown.Postmaster, MaxAccounts: shown.MaxAccounts, AliasOf: shown.AliasOf, Subaddress: shown.Subaddress, Except: shown.Except}
	}
	for i, a := range doc.Accounts {
		out.Accounts[i] = DocumentAccount{
			Address: a.Address.Unicode(), Name: a.Name, Admin: a.Admin, Suspended: a.Suspended, Language: a.Language,
			QuotaBytes: a.QuotaBytes, QuotaMessages: a.QuotaMessages,
			Forward: shownAddresses(a.Forward.To), ForwardCopy: a.Forward.Copy, ForwardPaused: a.Forward.Paused,
		}
	}
	for i, a := range doc.Aliases {
		shown := shownAlias(a)
		out.Aliases[i] = DocumentAlias{
			Address: shown.Address, Targets: shown.Targets, Senders: shown.Senders, Allowed: shown.Allowed, Owner: shown.Owner, Hidden: shown.Hidden,
		}
	}
	return out
}

func (s *Service) documentApply(ctx context.Context, req Application) (Applied, error) {
	want, err := req.Document.parse()
	if err != nil {
		return Applied{}, err
	}
	return s.apply(ctx, want, req)
}

func (s *Service) documentRollback(ctx context.Context, req Rollback) (Applied, error) {
	want, err := s.dir.DocumentAt(ctx, req.Version)
	if err != nil {
		return Applied{}, err
	}
	return s.apply(ctx, want, Application{Base: req.Base, DryRun: req.DryRun, DeleteMail: req.DeleteMail})
}

func (s *Service) apply(ctx context.Context, want directory.Document, req Application) (Applied, error) {
	plan, err := s.dir.Plan(ctx, want)
	if err != nil {
		return Applied{}, err
	}
	out := Applied{Version: plan.Base(), Changes: make([]DocumentChange, len(plan.Changes))}
	for i, c := range plan.Changes {
		out.Changes[i] = DocumentChange{Act: string(c.Act), Kind: c.Kind, Name: c.Name, Field: c.Field, From: c.From, To: c.To, Remark: c.Remark}
	}
	if req.Base >= 0 && req.Base != plan.Base() {
		return Applied{}, Errorf(Conflict, "something changed meanwhile: version %d, not %d; look at the difference again", plan.Base(), req.Base)
	}
	if req.DryRun || len(plan.Changes) == 0 {
		return out, nil
	}
	if out.Version, err = s.dir.Apply(ctx, plan, req.DeleteMail); err != nil {
		return Applied{}, err
	}
	s.log.Info("configuration applied", "version", out.Version, "changes", len(out.Changes), "actor", actor(ctx))
	return out, nil
}

// parse reads the addresses of a document.
func (doc Document) parse() (directory.Document, error) {
	out := directory.Document{
		Settings: doc.Settings, Access: doc.Access, Sending: doc.Sending,
		MailRules: directory.MailRules{Relays: doc.Relays, Routes: doc.Routes, Journals: doc.Journals},
	}
	if doc.Domains != nil {
		out.Domains = make([]directory.Domain, len(doc.Domains))
	}
	for i, d := range doc.Domains {
		row, err := Domain{Name: d.Name, CatchAll: d.CatchAll, Postmaster: d.Postmaster, MaxAccounts: d.MaxAccounts, AliasOf: d.AliasOf, Subaddress: d.Subaddress, Except: d.Except}.row()
		if err != nil {
			return out, inList("domains", i, err)
		}
		out.Domains[i] = row
	}
	if doc.Accounts != nil {
		out.Accounts = make([]directory.DocumentAccount, len(doc.Accounts))
	}
	for i, a := range doc.Accounts {
		owner, err := address.Parse(a.Address)
		if err != nil {
			return out, inList("accounts", i, addressError("address", err))
		}
		forward, err := Forward{To: a.Forward, Copy: a.ForwardCopy, Paused: a.ForwardPaused}.row()
		if err != nil {
			return out, inList("accounts", i, addressError("forward", err))
		}
		out.Accounts[i] = directory.DocumentAccount{
			Forward: forward,
			Address: owner, Name: a.Name, Admin: a.Admin, Suspended: a.Suspended, Language: a.Language,
			QuotaBytes: a.QuotaBytes, QuotaMessages: a.QuotaMessages,
		}
	}
	if doc.Aliases != nil {
		out.Aliases = make([]directory.Alias, len(doc.Aliases))
	}
	for i, a := range doc.Aliases {
		row, err := Alias{Address: a.Address, Targets: a.Targets, Senders: a.Senders, Allowed: a.Allowed, Owner: a.Owner, Hidden: a.Hidden}.row()
		if err != nil {
			return out, inList("aliases", i, err)
		}
		out.Aliases[i] = row
	}
	return out, nil
}

// actor is who asks, for the log.
func actor(ctx context.Context) string { return directory.Actor(ctx) }

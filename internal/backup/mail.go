package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"waxwing/internal/store"
)

// Account is an account as a backup has it, with its mailboxes and without its mail.
type Account struct {
	ID            int64
	Key           string // of its address
	Local, Domain string
	Name          string
	Language      string
	Admin         bool
	Suspended     bool
	QuotaBytes    int64
	QuotaMessages int64
	Password      string // hash
	Created       time.Time
	ModSeq        int64
	LastValidity  uint32
	Mailboxes     []Mailbox // by name
	Subscriptions []string
	Holds         []store.Hold // in force
}

// Mailbox is a mailbox as a backup has it.
type Mailbox struct {
	ID          int64
	Name, Role  string
	UIDValidity uint32
	UIDNext     uint32
	Messages    int64
	Keywords    []string // by number
}

// Message is an entry as a backup has it.
type Message struct {
	Mailbox  int64
	UID      uint32
	ID       int64
	Flags    store.Flags
	Keywords uint64 // set of numbers
	Date     time.Time
	UIDL     string
	Subject  string // base subject
	Content  store.ContentInfo
}

// each calls fn with the rows of a table.
func (r *Reader) each(ctx context.Context, table string, fn func(r *record)) error {
	for row, err := range r.Rows(ctx, table, 0) {
		if err != nil {
			return err
		}
		rec := &record{Record: row}
		if fn(rec); rec.err != nil {
			return fmt.Errorf("backup %s: table %s: %w", r.ID, table, rec.err)
		}
	}
	return nil
}

// Domains lists the domains of a backup with their policies.
func (r *Reader) Domains(ctx context.Context) (list []store.DirectoryDomain, policies map[string]store.DomainPolicy, err error) {
	err = r.each(ctx, "directory_domain", func(r *record) {
		list = append(list, store.DirectoryDomain{
			Name: r.text("name"), CatchAll: r.text("catch_all"), Postmaster: r.text("postmaster"), MaxAccounts: int(r.int("max_accounts")),
		})
	})
	policies = make(map[string]store.DomainPolicy)
	if err == nil {
		err = r.each(ctx, "domain_policy", func(r *record) {
			p := store.DomainPolicy{
				Domain: r.text("domain"), QuotaOctets: r.int("quota_octets"), QuotaMessages: r.int("quota_messages"),
				TrashDays: r.int("trash_days"), JunkDays: r.int("junk_days"), MailDays: r.int("mail_days"),
			}
			policies[p.Domain] = p
		})
	}
	return list, policies, err
}

// Aliases lists the aliases of a backup.
func (r *Reader) Aliases(ctx context.Context) ([]store.DirectoryAlias, error) {
	var list []store.DirectoryAlias
	at := make(map[string]int)
	err := r.each(ctx, "directory_address", func(r *record) {
		if r.Values[max(r.at("account_id"), 0)] == nil {
			at[r.text("address_key")] = len(list)
			list = append(list, store.DirectoryAlias{Key: r.text("address_key"), Local: r.text("local_part"), Domain: r.text("domain")})
		}
	})
	if err == nil {
		err = r.each(ctx, "directory_target", func(r *record) { // in order of position
			if i, ok := at[r.text("address_key")]; ok {
				list[i].Targets = append(list[i].Targets, store.DirectoryTarget{Address: r.text("target"), Key: r.text("target_key")})
			}
		})
	}
	return list, err
}

// Accounts lists the accounts of a backup that are wanted, by the keys of their addresses and their domains.
func (r *Reader) Accounts(ctx context.Context, want func(key, domain string) bool) ([]Account, error) {
	found := make(map[int64]*Account)
	err := r.each(ctx, "directory_address", func(r *record) {
		if r.Values[max(r.at("account_id"), 0)] == nil || !want(r.text("address_key"), r.text("domain")) {
			return
		}
		id := r.int("account_id")
		found[id] = &Account{ID: id, Key: r.text("address_key"), Local: r.text("local_part"), Domain: r.text("domain")}
	})
	if err != nil {
		return nil, err
	}
	for table, fn := range map[string]func(a *Account, r *record){
		"directory_account": (*Account).directory,
		"mail_account": func(a *Account, r *record) {
			a.ModSeq, a.LastValidity = r.int("modseq"), uint32(r.int("last_validity"))
		},
		"subscription": func(a *Account, r *record) { a.Subscriptions = append(a.Subscriptions, r.text("name")) },
		"mail_hold":    (*Account).hold,
		"mailbox": func(a *Account, r *record) {
			a.Mailboxes = append(a.Mailboxes, Mailbox{
				ID: r.int("mailbox_id"), Name: r.text("name"), Role: r.text("role"), UIDValidity: uint32(r.int("uid_validity")),
				UIDNext: uint32(r.int("uid_next")), Messages: r.int("messages"),
			})
		},
	} {
		if err := r.eachOf(ctx, table, found, fn); err != nil {
			return nil, err
		}
	}
	if err := r.eachOf(ctx, "keyword", found, (*Account).keyword); err != nil {
		return nil, err
	}
	var list []Account
	for _, a := range found {
		slices.SortFunc(a.Mailboxes, func(x, y Mailbox) int { return cmp.Compare(x.Name, y.Name) })
		list = append(list, *a)
	}
	slices.SortFunc(list, func(x, y Account) int { return cmp.Compare(x.Key, y.Key) })
	return list, nil
}

// eachOf calls fn with the rows of a table that belong to some accounts.
func (r *Reader) eachOf(ctx context.Context, table string, of map[int64]*Account, fn func(a *Account, r *record)) error {
	return r.each(ctx, table, func(r *record) {
		if a := of[r.int("account_id")]; a != nil {
			fn(a, r)
		}
	})
}

func (a *Account) directory(r *record) {
	a.Name, a.Language, a.Password = r.text("name"), r.text("language"), r.text("password")
	a.Admin, a.Suspended = r.int("admin") != 0, r.int("suspended") != 0
	a.QuotaBytes, a.QuotaMessages = r.int("quota_bytes"), r.int("quota_messages")
	a.Created = time.UnixMicro(r.int("created")).UTC()
}

func (a *Account) hold(r *record) {
	if r.int("ended") == 0 {
		a.Holds = append(a.Holds, store.Hold{Since: time.Unix(r.int("since"), 0).UTC(), Actor: r.text("actor"), Reason: r.text("reason")})
	}
}

// maxKeywords is how many keywords an entry has room for.
const maxKeywords = 64

func (a *Account) keyword(r *record) {
	for i := range a.Mailboxes {
		m := &a.Mailboxes[i]
		n := r.int("number")
		if m.ID != r.int("mailbox_id") || n < 0 || n >= maxKeywords {
			continue
		}
		for int64(len(m.Keywords)) <= n {
			m.Keywords = append(m.Keywords, "")
		}
		m.Keywords[n] = r.text("name")
	}
}

// Named gives the names of a message's keywords.
func (m *Mailbox) Named(set uint64) (names []string) {
	for n, name := range m.Keywords {
		if set&(1<<n) != 0 && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Messages reads the entries of some accounts that are wanted, by account, in order of mailbox and UID. It holds them all in
// memory, and reads the tables of entries and messages once.
func (r *Reader) Messages(ctx context.Context, of []Account, want func(account, mailbox int64, uid uint32) bool) (map[int64][]Message, error) {
	accounts := make(map[int64]*Account)
	for i := range of {
		accounts[of[i].ID] = &of[i]
	}
	out := make(map[int64][]Message)
	named := make(map[int64][]*Message) // by id: one message may have many entries
	err := r.eachOf(ctx, "entry", accounts, func(a *Account, r *record) {
		m := Message{
			Mailbox: r.int("mailbox_id"), UID: uint32(r.int("uid")), ID: r.int("message_id"), Flags: store.Flags(r.int("flags")),
			Keywords: uint64(r.int("keywords")), Date: time.Unix(r.int("internal_date"), 0).UTC(),
		}
		if want(a.ID, m.Mailbox, m.UID) {
			out[a.ID] = append(out[a.ID], m)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, list := range out {
		for i := range list {
			named[list[i].ID] = append(named[list[i].ID], &list[i])
		}
	}
	contents := make(map[int64][]*Message)
	err = r.eachOf(ctx, "message", accounts, func(_ *Account, r *record) {
		list := named[r.int("message_id")]
		if len(list) == 0 {
			return
		}
		uidl, _ := r.Values[max(r.at("uidl"), 0)].(string)
		raw, _ := r.Values[max(r.at("summary"), 0)].([]byte)
		summary, _ := store.ReadSummary(raw) // what it says is shown, and made anew from the message
		for _, m := range list {
			m.UIDL, m.Subject = uidl, summary.BaseSubject
			contents[r.int("blob_id")] = append(contents[r.int("blob_id")], m)
		}
	})
	if err != nil {
		return nil, err
	}
	for c, err := range r.Contents(ctx) {
		if err != nil {
			return nil, err
		}
		for _, m := range contents[c.ID] {
			m.Content = c
		}
	}
	return out, nil
}

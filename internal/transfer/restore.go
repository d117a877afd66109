package transfer

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/backup"
	"waxwing/internal/control"
	"waxwing/internal/store"
)

// RestoreOptions says what of a backup comes back.
type RestoreOptions struct {
	Carrier control.Carrier
	Reader  *backup.Reader

	Domain  string // all accounts and aliases of a domain, and the domain; or
	Account string // an account, or
	Folder  string // one folder of it, by the name that it has in the backup, or
	UID     uint32 // one message of that folder

	DryRun   bool
	Listed   int                                  // how many messages the result of a dry run lists; 0: all
	Progress func(folder string, done, all int64) // messages of this run
	Batch    int                                  // messages of one transaction; 200
}

// RestoreResult is what came back, or would come.
type RestoreResult struct {
	Backup   string            `json:"backup"`
	DryRun   bool              `json:"dry_run"`
	Messages int64             `json:"messages"`
	Octets   int64             `json:"octets"`
	There    int64             `json:"there"` // messages that are still there
	Accounts []RestoredAccount `json:"accounts"`
	Domain   string            `json:"domain,omitempty"` // that was made
	Aliases  []string          `json:"aliases"`
	List     []RestoredMessage `json:"list,omitempty"` // of a dry run
	Damaged  []string          `json:"damaged"`        // messages that the backup can't give
	Warnings []string          `json:"warnings"`
}

// RestoredAccount is an account that got something.
type RestoredAccount struct {
	Address  string           `json:"address"`
	Made     bool             `json:"made"` // it was gone
	Messages int64            `json:"messages"`
	There    int64            `json:"there"`
	Folders  []RestoredFolder `json:"folders"`
}

// RestoredFolder is a folder that got something.
type RestoredFolder struct {
	Name     string `json:"name"`         // in the backup
	As       string `json:"as,omitempty"` // its name here, when it is another
	Made     bool   `json:"made"`         // it was gone: UIDs and UIDVALIDITY are those of the backup
	Messages int64  `json:"messages"`
	There    int64  `json:"there"`
}

// RestoredMessage is a message by what names it in the backup.
type RestoredMessage struct {
	Account string    `json:"account"`
	Folder  string    `json:"folder"`
	UID     uint32    `json:"uid"`
	Size    int64     `json:"size"`
	Date    time.Time `json:"date"`
	Subject string    `json:"subject"`
}

// Bounds of a restore.
const (
	restoreGroup  = 200_000 // messages of the accounts that are looked at together
	restoreBatch  = 200
	restoreOctets = 16 << 20
)

// restorer is one run.
type restorer struct {
	RestoreOptions
	out  RestoreResult
	done int64 // messages that were sent, or that an earlier run had sent
	all  int64
}

// Restore brings back into a server what it lacks of a backup. What is there is never touched, and what is still there is
// not brought back: see missing. Broken off, the same call goes on.
func Restore(ctx context.Context, o RestoreOptions) (RestoreResult, error) {
	r := &restorer{RestoreOptions: o}
	if r.Batch <= 0 || r.Batch > restoreBatch {
		r.Batch = restoreBatch
	}
	r.out = RestoreResult{
		Backup: o.Reader.ID, DryRun: o.DryRun, Accounts: []RestoredAccount{}, Aliases: []string{}, Damaged: []string{}, Warnings: []string{},
	}
	if err := r.run(ctx); err != nil {
		return r.out, fmt.Errorf("restore: %w", err)
	}
	return r.out, nil
}

func (r *restorer) run(ctx context.Context) error {
	want, err := r.selection()
	if err != nil {
		return err
	}
	accounts, err := r.Reader.Accounts(ctx, want)
	if err != nil {
		return err
	}
	if len(accounts) == 0 && r.Domain == "" {
		return control.Errorf(control.NotFound, "backup %s has no account %s", r.Reader.ID, r.Account)
	}
	if r.Domain != "" {
		if err := r.beginDomain(ctx); err != nil {
			return err
		}
	}
	for len(accounts) > 0 {
		n, messages := 0, int64(0)
		for n < len(accounts) && (n == 0 || messages+sizeOf(&accounts[n]) <= restoreGroup) {
			messages += sizeOf(&accounts[n])
			n++
		}
		if err := r.group(ctx, accounts[:n]); err != nil {
			return err
		}
		accounts = accounts[n:]
	}
	return r.endDirectory(ctx)
}

// selection says which accounts are wanted.
func (r *restorer) selection() (func(key, domain string) bool, error) {
	if r.Domain != "" {
		name, err := address.ParseDomain(r.Domain)
		if err != nil {
			return nil, control.Errorf(control.Invalid, "domain %q: %w", r.Domain, err)
		}
		r.Domain = name
		return func(_, domain string) bool { return domain == name }, nil
	}
	a, err := address.Parse(r.Account)
	if err != nil {
		return nil, control.Errorf(control.Invalid, "account %q: %w", r.Account, err)
	}
	return func(key, _ string) bool { return key == a.Key() }, nil
}

// sizeOf is how many messages an account has.
func sizeOf(a *backup.Account) (n int64) {
	for _, m := range a.Mailboxes {
		n += m.Messages
	}
	return n
}

// backedFolder is a mailbox of the backup with the place that its mail goes to.
type backedFolder struct {
	*backup.Mailbox
	home  *control.Mailbox // nil: it is gone
	comes []*backup.Message
	there int64
}

// group brings back some accounts.
func (r *restorer) group(ctx context.Context, accounts []backup.Account) error {
	wanted := make(map[[2]int64]bool)
	for i := range accounts {
		a := &accounts[i]
		for _, m := range a.Mailboxes {
			wanted[[2]int64{a.ID, m.ID}] = r.Folder == "" || m.Name == r.Folder
		}
	}
	mail, err := r.Reader.Messages(ctx, accounts, func(account, mailbox int64, uid uint32) bool {
		return wanted[[2]int64{account, mailbox}] && (r.UID == 0 || uid == r.UID)
	})
	if err != nil {
		return err
	}
	for i := range accounts {
		a := &accounts[i]
		if err := r.account(ctx, a, mail[a.ID]); err != nil {
			return fmt.Errorf("%s: %w", addressOf(a), err)
		}
	}
	return nil
}

func addressOf(a *backup.Account) string {
	return address.Address{Local: a.Local, Domain: a.Domain}.String()
}

// account brings back what one account lacks.
func (r *restorer) account(ctx context.Context, a *backup.Account, mail []backup.Message) error {
	folders, err := r.folders(a, mail)
	if err != nil {
		return err
	}
	home, err := r.home(ctx, a)
	if err != nil {
		return err
	}
	for _, f := range folders {
		f.home = homeOf(f.Mailbox, home)
	}
	if home.There {
		if err := r.missing(ctx, home, folders); err != nil {
			return err
		}
	}
	for _, f := range folders {
		r.all += int64(len(f.comes))
	}
	out := RestoredAccount{Address: addressOf(a), Made: !home.There, Folders: []RestoredFolder{}}
	r.list(out.Address, folders)
	if !r.DryRun {
		if err := r.bring(ctx, a, home, folders); err != nil {
			return err
		}
	}
	for _, f := range folders {
		one := RestoredFolder{Name: f.Name, Made: f.home == nil, Messages: int64(len(f.comes)), There: f.there}
		if f.home != nil && f.home.Name != f.Name {
			one.As = f.home.Name
		}
		out.Messages, out.There = out.Messages+one.Messages, out.There+one.There
		for _, m := range f.comes {
			r.out.Octets += m.Content.Size
		}
		if one.Made || one.Messages > 0 || r.Folder != "" {
			out.Folders = append(out.Folders, one)
		}
	}
	r.out.Messages, r.out.There = r.out.Messages+out.Messages, r.out.There+out.There
	r.out.Accounts = append(r.out.Accounts, out)
	return r.quota(ctx, a, home, folders)
}

// folders are the mailboxes that are wanted, with their mail.
func (r *restorer) folders(a *backup.Account, mail []backup.Message) ([]*backedFolder, error) {
	var list []*backedFolder
	byID := make(map[int64]*backedFolder)
	for i := range a.Mailboxes {
		m := &a.Mailboxes[i]
		if r.Folder == "" || m.Name == r.Folder {
			f := &backedFolder{Mailbox: m}
			list, byID[m.ID] = append(list, f), f
		}
	}
	for i := range mail {
		m := &mail[i]
		f := byID[m.Mailbox]
		if f == nil {
			continue
		}
		if m.Content.ID == 0 || r.Reader.Damaged(m.Content.Sum) || m.Content.Size > control.MaxMessage {
			r.damaged(a, f, m, store.ErrCorrupt)
			continue
		}
		f.comes = append(f.comes, m)
	}
	switch {
	case r.Folder != "" && len(list) == 0:
		return nil, control.Errorf(control.NotFound, "backup %s has no folder %q of the account", r.Reader.ID, r.Folder)
	case r.UID != 0 && len(mail) == 0:
		return nil, control.Errorf(control.NotFound, "backup %s has no message with UID %d in folder %q", r.Reader.ID, r.UID, r.Folder)
	}
	return list, nil
}

func (r *restorer) damaged(a *backup.Account, f *backedFolder, m *backup.Message, err error) {
	if len(r.out.Damaged) < maxProblems {
		r.out.Damaged = append(r.out.Damaged, fmt.Sprintf("%s, %s, UID %d: %v", addressOf(a), f.Name, m.UID, err))
	}
}

// home asks the server what there is of the account.
func (r *restorer) home(ctx context.Context, a *backup.Account) (control.Home, error) {
	req := control.ReturnTo{Address: addressOf(a), Backup: r.Reader.ID, DryRun: true, ModSeq: a.ModSeq, LastValidity: a.LastValidity}
	home, err := control.ReturnBegin.Call(ctx, r.Carrier, req)
	if r.DryRun && r.out.Domain != "" && control.KindOf(err) == control.NotFound {
		return home, nil // the domain would be made
	}
	if err == nil && !home.There && r.Folder != "" {
		err = control.Errorf(control.NotFound, "the account is gone: bring it back with --account alone")
	}
	if err != nil || r.DryRun {
		return home, err
	}
	req.DryRun = false
	return control.ReturnBegin.Call(ctx, r.Carrier, req)
}

// homeOf finds the mailbox of the backup on the server: the same one, whatever it is called now, or one of its name.
func homeOf(m *backup.Mailbox, home control.Home) *control.Mailbox {
	for _, same := range []func(x control.Mailbox) bool{
		func(x control.Mailbox) bool { return x.ID == m.ID && x.UIDValidity == m.UIDValidity },
		func(x control.Mailbox) bool { return x.Name == m.Name },
	} {
		if i := slices.IndexFunc(home.Mailboxes, same); i >= 0 {
			return &home.Mailboxes[i]
		}
	}
	return nil
}

// identity is what tells a message from others: its octets and its INTERNALDATE.
type identity struct {
	sum  string
	date int64
}

func identityOf(m *backup.Message) identity {
	return identity{hex.EncodeToString(m.Content.Sum[:]), m.Date.Unix()}
}

// missing leaves in each folder what doesn't stand in it any more. For a whole account a message is still there in whichever
// folder it stands: it was moved. Messages that are alike are counted.
func (r *restorer) missing(ctx context.Context, home control.Home, folders []*backedFolder) error {
	left := make(map[int64]map[identity]int)
	for i := range home.Mailboxes {
		m := &home.Mailboxes[i]
		if r.Folder != "" && !slices.ContainsFunc(folders, func(f *backedFolder) bool { return f.home == m }) {
			continue
		}
		has, err := r.holdings(ctx, home.ID, m.ID)
		if err != nil {
			return err
		}
		left[m.ID] = has
	}
	for _, f := range folders {
		if f.home != nil {
			f.spare(left[f.home.ID])
		}
	}
	if r.Folder != "" {
		return nil
	}
	elsewhere := make(map[identity]int)
	for _, has := range left {
		for id, n := range has {
			elsewhere[id] += n
		}
	}
	for _, f := range folders {
		f.spare(elsewhere)
	}
	return nil
}

// spare takes out of a folder what stands in a list, and out of the list what it took.
func (f *backedFolder) spare(has map[identity]int) {
	var comes []*backup.Message
	for _, m := range f.comes {
		if id := identityOf(m); has[id] > 0 {
			has[id]--
			f.there++
			continue
		}
		comes = append(comes, m)
	}
	f.comes = comes
}

func (r *restorer) holdings(ctx context.Context, account, mailbox int64) (map[identity]int, error) {
	out := make(map[identity]int)
	page := control.HoldingsPage{Account: account, Mailbox: mailbox}
	for {
		got, err := control.ReturnHoldings.Call(ctx, r.Carrier, page)
		if err != nil || len(got.Entries) == 0 {
			return out, err
		}
		for _, e := range got.Entries {
			out[identity{e.SHA256, e.Date}]++
			page.After = e.UID
		}
	}
}

// list says what would come.
func (r *restorer) list(owner string, folders []*backedFolder) {
	if !r.DryRun {
		return
	}
	for _, f := range folders {
		for _, m := range f.comes {
			if r.Listed > 0 && len(r.out.List) >= r.Listed {
				return
			}
			r.out.List = append(r.out.List, RestoredMessage{Account: owner, Folder: f.Name, UID: m.UID, Size: m.Content.Size, Date: m.Date, Subject: m.Subject})
		}
	}
}

// quota warns when an account has, or would have, more than it may.
func (r *restorer) quota(ctx context.Context, a *backup.Account, home control.Home, folders []*backedFolder) error {
	quotaBytes, quotaMessages, bytes, messages := a.QuotaBytes, a.QuotaMessages, int64(0), int64(0)
	if home.There || !r.DryRun {
		now, err := control.AccountShow.Call(ctx, r.Carrier, control.AccountRef{Address: addressOf(a)})
		if err != nil {
			return err
		}
		quotaBytes, quotaMessages, bytes, messages = now.QuotaBytes, now.QuotaMessages, now.Usage.Bytes, now.Usage.Messages
	}
	if r.DryRun {
		for _, f := range folders {
			for _, m := range f.comes {
				bytes, messages = bytes+m.Content.Size, messages+1
			}
		}
	}
	if quotaBytes > 0 && bytes > quotaBytes || quotaMessages > 0 && messages > quotaMessages {
		r.out.Warnings = append(r.out.Warnings, fmt.Sprintf("%s is beyond its quota with %d octets and %d messages: it gets no new mail until there is room", addressOf(a), bytes, messages))
	}
	return nil
}

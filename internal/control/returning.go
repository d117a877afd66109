package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/backup"
	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// Operations by which mail of a backup returns to this server. Whoever holds the identity reads the backup and sends what is
// wanted in pieces: neither identity nor repository ever come here. See store.Returning for what happens to it.
var (
	ReturnBegin    = operation("return.begin", (*Service).returnBegin)
	ReturnHoldings = operation("return.holdings", (*Service).returnHoldings)
	ReturnMailbox  = operation("return.mailbox", (*Service).returnMailbox)
	ReturnMessages = upload("return.messages", (*Service).returnMessages)
	ReturnFinish   = operation("return.finish", (*Service).returnFinish)
)

// ReturnTo names the account that mail of a backup returns to.
type ReturnTo struct {
	Address string `json:"address"`
	Backup  string `json:"backup"`
	DryRun  bool   `json:"dry_run,omitempty"` // begin nothing
	// Of the account in the backup, for one that is gone.
	ModSeq       int64  `json:"mod_seq,omitempty"`
	LastValidity uint32 `json:"last_validity,omitempty"`
}

// Home is where mail returns to.
type Home struct {
	ID        int64              `json:"id"`              // 0: the account is gone, and nothing was begun
	Token     string             `json:"token,omitempty"` // for what follows; who begins later ends the right of others, on whatever node
	There     bool               `json:"there"`           // the account is one of this server
	Created   time.Time          `json:"created,omitzero"`
	Mailboxes []Mailbox          `json:"mailboxes"`
	Returning []ReturningMailbox `json:"returning"` // that an earlier run began
}

// ReturningMailbox is a mailbox that returns unseen, with its UIDs and UIDVALIDITY.
type ReturningMailbox struct {
	ID          int64    `json:"id"` // given by the server
	Name        string   `json:"name"`
	Role        string   `json:"role,omitempty"`
	Subscribed  bool     `json:"subscribed,omitempty"`
	UIDValidity uint32   `json:"uid_validity"`
	UIDNext     uint32   `json:"uid_next"` // in the backup
	Keywords    []string `json:"keywords,omitempty"`
	Last        uint32   `json:"last"` // the highest UID that is in
}

func shownReturning(r store.ReturningMailbox) ReturningMailbox {
	return ReturningMailbox{
		ID: int64(r.ID), Name: r.Name, Role: string(r.Role), Subscribed: r.Subscribed, UIDValidity: r.UIDValidity, UIDNext: uint32(r.UIDNext),
		Keywords: r.Keywords, Last: uint32(r.Last),
	}
}

// ReturnRef names a return that was begun.
type ReturnRef struct {
	ID     int64  `json:"id"`
	Token  string `json:"token"`
	Backup string `json:"backup"`
}

// right is what a command may do that began to bring mail back.
func (r ReturnRef) right() store.ReturnRight {
	return store.ReturnRight{Account: store.AccountID(r.ID), Token: r.Token}
}

// returned says what an error of a return means to whoever asked.
func returned(err error) error {
	if errors.Is(err, store.ErrRight) {
		return Errorf(Conflict, "another restore into this account has begun: let it end, or run the command again, it goes on")
	}
	return err
}

func (s *Service) returnBegin(ctx context.Context, req ReturnTo) (Home, error) {
	owner, err := parseAddress("address", req.Address)
	if err != nil {
		return Home{}, err
	}
	if req.Backup == "" {
		return Home{}, &Error{Kind: Invalid, Field: "backup", Text: "backup: must be named"}
	}
	out := Home{Mailboxes: []Mailbox{}, Returning: []ReturningMailbox{}}
	a, err := s.dir.Account(ctx, owner)
	switch {
	case err == nil:
		out.ID, out.There, out.Created = int64(a.ID), true, a.Created.UTC()
		if out.Mailboxes, err = s.mailboxes(ctx, a.ID); err != nil {
			return Home{}, err
		}
	case !errors.Is(err, directory.ErrNotFound):
		return Home{}, err
	default:
		if err := s.mayReturn(ctx, owner); err != nil || req.DryRun {
			return out, err
		}
		id, err := s.store.BeginReturn(ctx, store.ReturningAccount{
			Key: owner.Key(), Source: req.Backup, ModSeq: store.ModSeq(max(req.ModSeq, 0)) + backup.JumpModSeqs,
			LastValidity: backup.AheadValidity(req.LastValidity, s.clock()),
		})
		if err != nil {
			return Home{}, err
		}
		out.ID = int64(id)
	}
	if req.DryRun {
		return out, nil
	}
	right, err := s.store.TakeReturn(ctx, store.AccountID(out.ID))
	if err != nil {
		return Home{}, err
	}
	out.Token = right.Token
	list, err := s.store.Returning(ctx, store.AccountID(out.ID), req.Backup)
	for _, r := range list {
		out.Returning = append(out.Returning, shownReturning(r))
	}
	return out, err
}

// mayReturn refuses an address that an account can't have now.
func (s *Service) mayReturn(ctx context.Context, owner address.Address) error {
	if _, err := s.dir.Domain(owner.Domain); err != nil {
		return err
	}
	alias, err := s.dir.IsAlias(ctx, owner)
	if err == nil && alias {
		err = Errorf(Conflict, "%s is an alias now: remove it first, so that the account can return", owner)
	}
	return err
}

// HoldingsPage asks for the entries of a mailbox in order of UID.
type HoldingsPage struct {
	Account int64  `json:"account"`
	Mailbox int64  `json:"mailbox"`
	After   uint32 `json:"after,omitempty"`
}

// Holdings is a page of entries; it is the last one when it is empty.
type Holdings struct {
	Entries []Holding `json:"entries"`
}

// Holding is an entry with what tells its message from others.
type Holding struct {
	UID    uint32 `json:"uid"`
	Date   int64  `json:"date"`   // INTERNALDATE, seconds since 1970
	SHA256 string `json:"sha256"` // of the message
}

// holdingsPage is how many entries one page has.
const holdingsPage = 5000

// returnHoldings lists what is there, so that it isn't brought back. What a command that was killed has sent is in, or will
// never be.
func (s *Service) returnHoldings(ctx context.Context, req HoldingsPage) (Holdings, error) {
	limited, cancel := context.WithTimeout(ctx, ensureWithin)
	defer cancel()
	if err := s.appends.wait(limited, appendTarget{store.AccountID(req.Account), store.MailboxID(req.Mailbox)}); err != nil {
		return Holdings{}, Errorf(Unavailable, "another command is putting messages there: %w", err)
	}
	list, err := s.store.Holdings(ctx, store.AccountID(req.Account), store.MailboxID(req.Mailbox), store.UID(req.After), holdingsPage)
	out := Holdings{Entries: make([]Holding, len(list))}
	for i, h := range list {
		out.Entries[i] = Holding{UID: uint32(h.UID), Date: h.InternalDate.Unix(), SHA256: hex.EncodeToString(h.Sum[:])}
	}
	return out, err
}

// NewReturning asks for a mailbox to return, or finds it.
type NewReturning struct {
	ReturnRef
	Mailbox ReturningMailbox `json:"mailbox"`
}

func (s *Service) returnMailbox(ctx context.Context, req NewReturning) (ReturningMailbox, error) {
	m := req.Mailbox
	next, ok := backup.AheadUID(m.UIDNext)
	if !ok {
		return ReturningMailbox{}, Errorf(Conflict, "mailbox %s: it has given out nearly all UIDs that there are and can't return", m.Name)
	}
	r, err := s.store.ReturnMailbox(ctx, req.right(), req.Backup, store.ReturningMailbox{
		Name: m.Name, Role: store.Role(m.Role), Subscribed: m.Subscribed, UIDValidity: m.UIDValidity, UIDNext: store.UID(next), Keywords: m.Keywords,
	})
	return shownReturning(r), returned(err)
}

// Returns brings messages, all or none. Their octets follow each other in the body.
type Returns struct {
	ReturnRef
	Mailbox  int64             `json:"mailbox"`
	Messages []ReturnedMessage `json:"messages"`
}

// ReturnedMessage is a message of a backup.
type ReturnedMessage struct {
	NewMessage
	UID    uint32 `json:"uid"` // in the backup
	SHA256 string `json:"sha256"`
	// The account and the message in the backup: a mailbox that returns keeps the ids that POP3 knows its messages by.
	WasAccount int64 `json:"was_account,omitempty"`
	WasMessage int64 `json:"was_message,omitempty"`
}

// Returned tells what came of it.
type Returned struct {
	UIDs []uint32 `json:"uids"` // of the messages that are new, in their order
}

func (s *Service) returnMessages(ctx context.Context, req Returns, body io.Reader) (out Returned, err error) {
	target := appendTarget{store.AccountID(req.ID), store.MailboxID(req.Mailbox)}
	defer s.appends.begin(target)()
	list := make([]NewMessage, len(req.Messages))
	for i, m := range req.Messages {
		list[i] = m.NewMessage
		if m.UIDL == "" && m.WasMessage != 0 {
			list[i].UIDL = s.store.GUID(store.AccountID(m.WasAccount), store.MessageID(m.WasMessage))
		}
	}
	batch, end, err := s.takeBatch(list, body)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return Returned{}, err
	}
	msgs := make([]store.ReturningMessage, len(batch))
	for i, m := range req.Messages {
		msgs[i] = store.ReturningMessage{NewMessage: batch[i], UID: store.UID(m.UID)}
		sum, err := hex.DecodeString(m.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return Returned{}, &Error{Kind: Invalid, Field: "sha256", Text: "sha256: 64 hexadecimal digits"}
		}
		copy(msgs[i].Sum[:], sum)
	}
	placed, err := s.store.Return(ctx, req.right(), target.mailbox, msgs)
	for _, p := range placed {
		out.UIDs = append(out.UIDs, uint32(p.UID))
	}
	return out, returned(err)
}

// ReturnEnd shows what has returned. Account is set for one that was gone.
type ReturnEnd struct {
	ReturnRef
	Account *BackedAccount `json:"account,omitempty"`
}

// BackedAccount is an account as a backup has it. Its right to administer doesn't return.
type BackedAccount struct {
	Address       string    `json:"address"`
	Name          string    `json:"name,omitempty"`
	Language      string    `json:"language"`
	Suspended     bool      `json:"suspended,omitempty"`
	PasswordHash  string    `json:"password_hash,omitempty"`
	QuotaBytes    int64     `json:"quota_bytes"` // 0: none
	QuotaMessages int64     `json:"quota_messages"`
	Created       time.Time `json:"created"`
	Subscriptions []string  `json:"subscriptions,omitempty"`
	Holds         []Hold    `json:"holds,omitempty"` // in force
}

// ReturnEnded tells which mailboxes are back.
type ReturnEnded struct {
	Mailboxes []ReturnedBox `json:"mailboxes"`
}

// ReturnedBox is a mailbox that is back; Was is the name that it had, where another has that now.
type ReturnedBox struct {
	Mailbox
	Was string `json:"was,omitempty"`
}

func (s *Service) returnFinish(ctx context.Context, req ReturnEnd) (ReturnEnded, error) {
	out := ReturnEnded{Mailboxes: []ReturnedBox{}}
	if req.Account == nil {
		done, err := s.store.FinishReturn(ctx, req.right())
		for _, m := range done {
			out.Mailboxes = append(out.Mailboxes, ReturnedBox{shownMailbox(m.Mailbox), m.Was})
		}
		return out, returned(err)
	}
	b := req.Account
	owner, err := parseAddress("address", b.Address)
	if err != nil {
		return out, err
	}
	r := directory.Returned{
		Right: req.right(), Address: owner, Name: b.Name, Language: b.Language, Suspended: b.Suspended, PasswordHash: b.PasswordHash,
		QuotaBytes: b.QuotaBytes, QuotaMessages: b.QuotaMessages, Created: b.Created, Subscriptions: b.Subscriptions,
	}
	for _, h := range b.Holds {
		r.Holds = append(r.Holds, store.Hold{Since: h.Since, Actor: h.By, Reason: h.Reason})
	}
	if err := s.dir.ReturnAccount(ctx, r); err != nil {
		return out, returned(err)
	}
	s.log.Info("account brought back from a backup", "account", owner.String(), "backup", req.Backup, "by", directory.Actor(ctx))
	list, err := s.mailboxes(ctx, r.Right.Account)
	for _, m := range list {
		out.Mailboxes = append(out.Mailboxes, ReturnedBox{Mailbox: m})
	}
	return out, err
}

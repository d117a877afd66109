package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// Operations on what users deleted, on legal holds, and on policies of domains.
var (
	AccountDeleted = operation("account.deleted", (*Service).accountDeleted)
	AccountRestore = operation("account.restore", (*Service).accountRestore)
	AccountPurge   = operation("account.purge", (*Service).accountPurge)
	AccountHold    = operation("account.hold", (*Service).accountHold)
	AccountHolds   = operation("account.holds", (*Service).accountHolds)

	DomainPolicySet  = operation("domain.policy", (*Service).domainPolicySet)
	DomainPolicyShow = operation("domain.policy.show", (*Service).domainPolicyShow)
)

// DeletedSelection selects what of an account was deleted and can be restored; what is given must all fit.
type DeletedSelection struct {
	Address  string    `json:"address"`
	Since    time.Time `json:"since,omitzero"`     // deleted then or later
	Mailbox  string    `json:"mailbox,omitempty"`  // the last name of their mailbox
	Messages []string  `json:"messages,omitempty"` // ids as DeletedMessage has them
}

// DeletedPage asks for a page of deleted mail.
type DeletedPage struct {
	DeletedSelection
	After string `json:"after,omitempty"` // the Next of the page before
	Limit int    `json:"limit,omitempty"`
}

// Deleted is a page of deleted mail in the order of deletion, with the mailboxes that were deleted.
type Deleted struct {
	Messages  []DeletedMessage `json:"messages"`
	Mailboxes []DeletedMailbox `json:"mailboxes"`
	Next      string           `json:"next,omitempty"`
}

// DeletedMessage is a message that can be restored.
type DeletedMessage struct {
	ID           string    `json:"id"` // for Messages of a DeletedSelection
	Mailbox      string    `json:"mailbox"`
	Size         int64     `json:"size"`
	Subject      string    `json:"subject"`
	InternalDate time.Time `json:"internal_date"`
	Deleted      time.Time `json:"deleted"`
	By           string    `json:"by"`
}

// DeletedMailbox is a mailbox that can be made again.
type DeletedMailbox struct {
	Name    string    `json:"name"`
	Deleted time.Time `json:"deleted"`
	By      string    `json:"by"`
}

func expungedID(id store.ExpungedID) string { return fmt.Sprintf("%d.%d", id.Mailbox, id.UID) }

func parseExpungedID(text string) (store.ExpungedID, error) {
	box, uid, ok := strings.Cut(text, ".")
	b, err := strconv.ParseInt(box, 10, 64)
	u, uerr := strconv.ParseUint(uid, 10, 32)
	if !ok || err != nil || uerr != nil || b <= 0 || u == 0 {
		return store.ExpungedID{}, &Error{Kind: Invalid, Field: "messages", Text: fmt.Sprintf("message %.40q: an id looks like 3.17, see `waxwing account deleted`", text)}
	}
	return store.ExpungedID{Mailbox: store.MailboxID(b), UID: store.UID(u)}, nil
}

// cursor is where a page of deleted mail ends.
func cursor(e store.Expunged) string {
	return strconv.FormatInt(e.At.Unix(), 10) + "." + expungedID(e.ExpungedID)
}

func (p DeletedPage) query() (store.ExpungedQuery, error) {
	q := store.ExpungedQuery{Since: p.Since, Mailbox: p.Mailbox, Limit: p.Limit}
	if q.Limit <= 0 || q.Limit > maxPage {
		q.Limit = maxPage
	}
	if p.After == "" {
		return q, nil
	}
	at, id, _ := strings.Cut(p.After, ".")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return q, &Error{Kind: Invalid, Field: "after", Text: "after: not the end of a page"}
	}
	q.AfterAt = time.Unix(seconds, 0)
	q.After, err = parseExpungedID(id)
	return q, err
}

func (s *Service) accountDeleted(ctx context.Context, req DeletedPage) (Deleted, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Deleted{}, err
	}
	q, err := req.query()
	if err != nil {
		return Deleted{}, err
	}
	list, err := s.store.Expunged(ctx, a.ID, q)
	if err != nil {
		return Deleted{}, err
	}
	out := Deleted{Messages: make([]DeletedMessage, len(list)), Mailboxes: []DeletedMailbox{}}
	if len(list) == q.Limit {
		out.Next = cursor(list[len(list)-1])
	}
	subjects, err := s.subjects(ctx, a.ID, list)
	if err != nil {
		return Deleted{}, err
	}
	for i, e := range list {
		out.Messages[i] = DeletedMessage{
			ID: expungedID(e.ExpungedID), Mailbox: e.Name, Size: e.Size, Subject: subjects[e.Message],
			InternalDate: e.InternalDate, Deleted: e.At, By: e.Actor,
		}
	}
	if req.After != "" {
		return out, nil
	}
	boxes, err := s.store.DeletedMailboxes(ctx, a.ID)
	for _, b := range boxes {
		if !b.At.Before(req.Since) && (req.Mailbox == "" || req.Mailbox == b.Name) {
			out.Mailboxes = append(out.Mailboxes, DeletedMailbox{Name: b.Name, Deleted: b.At, By: b.Actor})
		}
	}
	return out, err
}

// subjects reads the subjects of messages, without Re: and the like. Those that can't be read are left out.
func (s *Service) subjects(ctx context.Context, acct store.AccountID, list []store.Expunged) (map[store.MessageID]string, error) {
	ids := make([]store.MessageID, 0, len(list))
	for _, e := range list {
		ids = append(ids, e.Message)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	out := make(map[store.MessageID]string, len(ids))
	err := s.store.Summaries(ctx, acct, ids, func(id store.MessageID, m *store.Summary) error {
		out[id] = m.BaseSubject
		return nil
	})
	if errors.Is(err, store.ErrCorrupt) {
		err = nil
	}
	return out, err
}

// Restore asks for deleted mail to come back.
type Restore struct {
	DeletedSelection
	DryRun bool `json:"dry_run,omitempty"`
}

// Restored tells what came back, or would.
type Restored struct {
	Messages  int      `json:"messages"`
	Octets    int64    `json:"octets"`
	Mailboxes []string `json:"mailboxes"` // that messages went to, or that were made again
	DryRun    bool     `json:"dry_run,omitempty"`
}

// selected lists what a selection names. Ids that are given and name nothing are an error.
func (s *Service) selected(ctx context.Context, acct store.AccountID, sel DeletedSelection) ([]store.Expunged, error) {
	wanted := make(map[store.ExpungedID]bool, len(sel.Messages))
	for _, text := range sel.Messages {
		id, err := parseExpungedID(text)
		if err != nil {
			return nil, err
		}
		wanted[id] = true
	}
	q := store.ExpungedQuery{Since: sel.Since, Mailbox: sel.Mailbox, Limit: maxPage}
	var out []store.Expunged
	for {
		page, err := s.store.Expunged(ctx, acct, q)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			if len(sel.Messages) == 0 || wanted[e.ExpungedID] {
				out = append(out, e)
				delete(wanted, e.ExpungedID)
			}
		}
		if len(page) < q.Limit {
			break
		}
		last := page[len(page)-1]
		q.After, q.AfterAt = last.ExpungedID, last.At
	}
	for id := range wanted {
		return nil, Errorf(NotFound, "message %s is not among the deleted ones", expungedID(id))
	}
	return out, nil
}

func idsOf(list []store.Expunged) (ids []store.ExpungedID, octets int64) {
	for _, e := range list {
		ids = append(ids, e.ExpungedID)
		octets += e.Size
	}
	return ids, octets
}

func (s *Service) accountRestore(ctx context.Context, req Restore) (Restored, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Restored{}, err
	}
	list, err := s.selected(ctx, a.ID, req.DeletedSelection)
	if err != nil {
		return Restored{}, err
	}
	ids, octets := idsOf(list)
	out := Restored{Messages: len(ids), Octets: octets, Mailboxes: []string{}, DryRun: req.DryRun}
	boxes, err := s.mailboxesToRestore(ctx, a, req.DeletedSelection)
	if err != nil {
		return Restored{}, err
	}
	for _, e := range list {
		out.Mailboxes = append(out.Mailboxes, e.Name)
	}
	for _, b := range boxes {
		out.Mailboxes = append(out.Mailboxes, b.Name)
	}
	slices.Sort(out.Mailboxes)
	out.Mailboxes = slices.Compact(out.Mailboxes)
	if req.DryRun {
		return out, nil
	}
	for _, b := range boxes {
		if _, err := s.store.RestoreMailbox(ctx, a.ID, b.ID); err != nil {
			return Restored{}, err
		}
	}
	done, err := s.store.Restore(ctx, a.ID, ids)
	if err != nil {
		return Restored{}, fmt.Errorf("after %d messages: %w", len(done), err)
	}
	s.log.Info("deleted mail restored", "account", a.Address.String(), "messages", len(done), "by", directory.Actor(ctx))
	return out, nil
}

// mailboxesToRestore are the deleted mailboxes that a selection names: none when it names messages.
func (s *Service) mailboxesToRestore(ctx context.Context, a directory.Account, sel DeletedSelection) ([]store.DeletedMailbox, error) {
	if len(sel.Messages) > 0 {
		return nil, nil
	}
	boxes, err := s.store.DeletedMailboxes(ctx, a.ID)
	return slices.DeleteFunc(boxes, func(b store.DeletedMailbox) bool {
		return b.At.Before(sel.Since) || sel.Mailbox != "" && sel.Mailbox != b.Name
	}), err
}

// Purge asks for deleted mail to go for good, before its time.
type Purge struct {
	DeletedSelection
	Confirm string `json:"confirm"` // the address once more
}

// Purged tells what is gone.
type Purged struct {
	Messages int   `json:"messages"`
	Octets   int64 `json:"octets"`
}

func (s *Service) accountPurge(ctx context.Context, req Purge) (Purged, error) {
	if req.Confirm == "" || req.Confirm != req.Address {
		return Purged{}, &Error{Kind: Invalid, Field: "confirm", Text: "confirm: must repeat the address: what is purged can't be brought back"}
	}
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Purged{}, err
	}
	list, err := s.selected(ctx, a.ID, req.DeletedSelection)
	if err != nil {
		return Purged{}, err
	}
	ids, octets := idsOf(list)
	n, err := s.store.PurgeExpunged(ctx, a.ID, ids)
	if n > 0 {
		s.log.Info("deleted mail purged", "account", a.Address.String(), "messages", n, "by", directory.Actor(ctx))
	}
	return Purged{Messages: n, Octets: octets}, err
}

// HoldChange puts an account under a legal hold, or ends it.
type HoldChange struct {
	Address string `json:"address"`
	On      bool   `json:"on"`
	Reason  string `json:"reason"`
}

// Holds is the legal holds of an account, the newest first.
type Holds struct {
	Address string `json:"address"`
	Held    bool   `json:"held"`
	Holds   []Hold `json:"holds"`
}

// Hold is one legal hold.
type Hold struct {
	Since       time.Time `json:"since"`
	By          string    `json:"by"`
	Reason      string    `json:"reason"`
	Ended       time.Time `json:"ended,omitzero"`
	EndedBy     string    `json:"ended_by,omitempty"`
	EndedReason string    `json:"ended_reason,omitempty"`
}

// maxReason bounds the reason of a hold, in octets.
const maxReason = 1000

func (s *Service) accountHold(ctx context.Context, req HoldChange) (Holds, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Holds{}, err
	}
	if strings.TrimSpace(req.Reason) == "" || len(req.Reason) > maxReason {
		return Holds{}, &Error{Kind: Invalid, Field: "reason", Text: fmt.Sprintf("reason: 1 to %d octets", maxReason)}
	}
	if err := s.store.SetHold(store.WithActor(ctx, directory.Actor(ctx)), a.ID, req.On, req.Reason); err != nil {
		switch {
		case errors.Is(err, store.ErrExists):
			return Holds{}, Errorf(Conflict, "%s is held already", req.Address)
		case errors.Is(err, store.ErrNotFound):
			return Holds{}, Errorf(Conflict, "%s is not held", req.Address)
		}
		return Holds{}, err
	}
	s.log.Info("legal hold", "account", a.Address.String(), "on", req.On, "reason", req.Reason, "by", directory.Actor(ctx))
	return s.accountHolds(ctx, AccountRef{req.Address})
}

func (s *Service) accountHolds(ctx context.Context, req AccountRef) (Holds, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Holds{}, err
	}
	list, held, err := s.store.Holds(ctx, a.ID)
	out := Holds{Address: a.Address.Unicode(), Held: held, Holds: make([]Hold, len(list))}
	for i, h := range list {
		out.Holds[i] = Hold{Since: h.Since, By: h.Actor, Reason: h.Reason, Ended: h.Ended, EndedBy: h.EndedBy, EndedReason: h.EndedReason}
	}
	return out, err
}

// DomainPolicy is what holds for the accounts of a domain, and what they use together.
type DomainPolicy struct {
	Domain        string `json:"domain"`
	QuotaBytes    int64  `json:"quota_bytes"` // of all accounts together; 0: none
	QuotaMessages int64  `json:"quota_messages"`
	TrashDays     int64  `json:"trash_days"` // -1: the setting's; 0: never
	JunkDays      int64  `json:"junk_days"`
	MailDays      int64  `json:"mail_days"` // in any mailbox; 0: for ever
	Usage         *Usage `json:"usage,omitempty"`
}

// DomainPolicyChange changes the fields that are not nil.
type DomainPolicyChange struct {
	Domain        string `json:"domain"`
	QuotaBytes    *int64 `json:"quota_bytes,omitempty"`
	QuotaMessages *int64 `json:"quota_messages,omitempty"`
	TrashDays     *int64 `json:"trash_days,omitempty"`
	JunkDays      *int64 `json:"junk_days,omitempty"`
	MailDays      *int64 `json:"mail_days,omitempty"`
}

// maxPolicyDays bounds the days of a policy.
const maxPolicyDays = 36_500

func (s *Service) domainPolicySet(ctx context.Context, req DomainPolicyChange) (DomainPolicy, error) {
	d, err := s.dir.Domain(req.Domain)
	if err != nil {
		return DomainPolicy{}, err
	}
	p, err := s.domainPolicy(ctx, d.Name)
	if err != nil {
		return DomainPolicy{}, err
	}
	for _, f := range []struct {
		name      string
		to        *int64
		from      *int64
		low, high int64
	}{
		{"quota_bytes", &p.QuotaOctets, req.QuotaBytes, 0, 1 << 60},
		{"quota_messages", &p.QuotaMessages, req.QuotaMessages, 0, 1 << 60},
		{"trash_days", &p.TrashDays, req.TrashDays, -1, maxPolicyDays},
		{"junk_days", &p.JunkDays, req.JunkDays, -1, maxPolicyDays},
		{"mail_days", &p.MailDays, req.MailDays, 0, maxPolicyDays},
	} {
		if f.from == nil {
			continue
		}
		if *f.from < f.low || *f.from > f.high {
			return DomainPolicy{}, &Error{Kind: Invalid, Field: f.name, Text: fmt.Sprintf("%s: %d to %d", f.name, f.low, f.high)}
		}
		*f.to = *f.from
	}
	if err := s.store.SetDomainPolicy(ctx, p); err != nil {
		return DomainPolicy{}, err
	}
	s.log.Info("policy of a domain changed", "domain", d.Name, "by", directory.Actor(ctx))
	return s.domainPolicyShow(ctx, DomainRef{d.Name})
}

func (s *Service) domainPolicy(ctx context.Context, name string) (store.DomainPolicy, error) {
	list, err := s.store.DomainPolicies(ctx)
	for _, p := range list {
		if p.Domain == name {
			return p, err
		}
	}
	return store.DomainPolicy{Domain: name, TrashDays: -1, JunkDays: -1}, err
}

func (s *Service) domainPolicyShow(ctx context.Context, req DomainRef) (DomainPolicy, error) {
	d, err := s.dir.Domain(req.Name)
	if err != nil {
		return DomainPolicy{}, err
	}
	p, err := s.domainPolicy(ctx, d.Name)
	if err != nil {
		return DomainPolicy{}, err
	}
	u, err := s.store.DomainUse(ctx, d.Name)
	return DomainPolicy{
		Domain: d.Name, QuotaBytes: p.QuotaOctets, QuotaMessages: p.QuotaMessages, TrashDays: p.TrashDays, JunkDays: p.JunkDays,
		MailDays: p.MailDays, Usage: &Usage{Bytes: u.Bytes, Messages: u.Messages},
	}, err
}

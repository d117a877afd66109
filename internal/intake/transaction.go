package intake

import (
	"context"
	"errors"
	"slices"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/mailrule"
	"waxwing/internal/milter"
	"waxwing/internal/routing"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// Transaction is one message on its way in: MAIL, RCPT, the octets, Commit. It belongs to one goroutine.
type Transaction struct {
	in       *Intake
	peer     Peer
	internal bool // made by this server: Submit
	traceID  string
	set      directory.Settings

	begun     bool
	mail      smtp.Mail
	terms     terms
	rcpts     []recipient // as accepted
	locals    []local
	accounts  map[store.AccountID]bool // in locals, once there are several
	remotes   []store.QueueRecipient
	ways      []way // how each of remotes is sent
	journals  []*mailrule.Journal
	elsewhere map[string]bool   // keys of the addresses in remotes
	forwards  []address.Address // addresses of ours that lead to other servers

	milters    *milter.Run // nil when none is asked
	given      []smtp.Rcpt // with milters: recipients as they were given
	discard    bool        // a milter wants the message taken and thrown away
	milterHold string      // why a milter wants the message kept back; "" when it isn't

	spool *Spool
}

// recipient is one RCPT that was accepted.
type recipient struct {
	to     address.Address
	notify smtp.Notify
	orcpt  string
	since  bool   // RRVS was given
	action string // what a notification of success says of it; "" when the queue will say it
}

// local is one mailbox that gets a copy.
type local struct {
	language string // of the account
	account  store.AccountID
	role     store.Role
	address  string          // of the account
	to       address.Address // the recipient that led here first
	filed    string          // where scripts had it filed; "": where it goes by itself
}

// Begin starts a transaction. Abort ends it in any case, Commit too.
func (in *Intake) Begin(p Peer) *Transaction {
	return &Transaction{in: in, peer: p, set: in.opts.Directory.Settings()}
}

// Abort drops the message and all that was held for it. It may be called more than once and after Commit.
func (t *Transaction) Abort() {
	if t.spool != nil {
		t.spool.free()
		t.spool = nil
	}
	t.milters.Close()
	t.milters, t.given, t.discard, t.milterHold = nil, nil, false, ""
	t.begun, t.mail, t.terms = false, smtp.Mail{}, terms{}
	t.rcpts, t.locals, t.accounts = nil, nil, nil
	t.remotes, t.ways, t.elsewhere, t.forwards, t.journals = nil, nil, nil, nil, nil
}

// user tells whether the rules for users of ours apply.
func (t *Transaction) user() bool { return t.peer.Identity != nil && !t.internal }

// Mail holds the rules for the sender. Refusals: 503 out of order, 530 on submission without signing in, 552 5.3.4 too
// large, 452 4.3.1 no room, 553 5.7.1 not the user's own address, 451 4.3.0 the directory failed, and those of setTerms.
func (t *Transaction) Mail(ctx context.Context, m smtp.Mail) error {
	switch {
	case t.begun:
		return replyOrder
	case t.peer.Submission && t.peer.Identity == nil && !t.internal: // RFC 6409, section 4.3
		return smtp.Errorf(530, "5.7.0", "sign in first")
	case m.Size > t.set.MessageSize: // RFC 1870, section 6.1
		return smtp.Errorf(552, "5.3.4", "message too large: at most %d octets", t.set.MessageSize)
	case !t.in.roomFor(m.Size):
		return replyFull
	}
	// A null reverse-path is what notifications have: a user's program may send one, and Commit holds that it is one.
	if t.user() && !m.From.IsNull() {
		owns, err := t.in.opts.Directory.Owns(ctx, t.peer.Identity.Account, m.From)
		if err != nil {
			return t.directoryFailed(err, m.From)
		}
		if !owns { // RFC 6409, section 6.1
			return smtp.Errorf(553, "5.7.1", "<%s> is not an address of yours to send as", m.From)
		}
	}
	if err := t.setTerms(&m); err != nil {
		return err
	}
	if err := t.showSender(ctx, &m); err != nil {
		return err
	}
	t.begun, t.mail = true, m
	return nil
}

// held is why the mail of the user is kept in the queue, "" when it isn't.
func (t *Transaction) held() string {
	if f := t.in.opts.Held; f != nil && t.user() {
		return f(t.peer.Identity.Account)
	}
	return ""
}

func (t *Transaction) directoryFailed(err error, a address.Address) *smtp.Reply {
	if errors.Is(err, directory.ErrExpansion) {
		t.in.log.Error("address expands too far", "address", a.String(), "error", err)
		return replyExpansion
	}
	t.in.log.Error("directory failed", "address", a.String(), "error", err)
	return replyDirectory
}

// Rcpt holds the rules for one recipient. Refusals: 503 out of order, 452 4.5.3 too many, 550 5.7.1 no relaying, 550
// 5.1.1 no such mailbox, 550 5.2.1 suspended, 452 4.2.2 over quota, 552 5.2.2 larger than the whole quota, 553 5.6.7 needs
// SMTPUTF8, 550 5.7.17 and 5.7.18 another owner than asked for, 451 4.2.1 a mail bomb, 451 4.3.0 the directory or the store failed.
func (t *Transaction) Rcpt(ctx context.Context, r smtp.Rcpt) error {
	if !t.begun || t.spool != nil {
		return replyOrder
	}
	if len(t.rcpts) >= t.set.Recipients || len(t.locals)+len(t.remotes) >= t.in.limits.Targets || !t.domainsLeft(r.To) {
		return smtp.Errorf(452, "4.5.3", "too many recipients: send the rest in another message")
	}
	route, err := t.in.opts.Routing.Route(ctx, routing.Request{To: r.To, From: t.sender()})
	if err != nil {
		return t.directoryFailed(err, r.To)
	}
	if route.Refusal != nil {
		return route.Refusal
	}
	switch route.Status {
	case directory.OK:
		if refusal := t.validSince(r.To, route, r.ValidSince.Since); refusal != nil {
			return refusal
		}
		if err = t.quota(ctx, route); err == nil {
			err = t.surplus(ctx, r.To, route)
		}
	case directory.NotLocal:
		if err = t.mayRelay(&r); err == nil {
			err = t.suppressed(ctx, &r)
		}
	case directory.Suspended:
		err = smtp.Errorf(550, "5.2.1", "<%s>: mailbox disabled", r.To)
	default:
		err = unknownMailbox(r.To)
	}
	if err == nil {
		err = t.showRecipient(ctx, &r)
	}
	if err != nil {
		return err
	}
	t.accept(r, route)
	return nil
}

// sender is who sends, for routing.
func (t *Transaction) sender() directory.Sender {
	s := directory.Sender{Address: t.mail.From, Ours: t.internal}
	if t.peer.Identity != nil {
		s.Account = t.peer.Identity.Account
	}
	return s
}

// unknownMailbox refuses an address of ours that stands for nothing. One that asks for a further hop (user%elsewhere,
// elsewhere!user, "user@elsewhere") is told what is wrong with it: nothing here ever takes such an address apart.
func unknownMailbox(to address.Address) *smtp.Reply {
	if strings.ContainsAny(to.Local, "%!@") {
		return smtp.Errorf(550, "5.7.1", "<%s>: relaying denied", to)
	}
	return smtp.Errorf(550, "5.1.1", "<%s>: no such mailbox here", to)
}

// mayRelay holds who may send to other servers: users of ours, and this server.
func (t *Transaction) mayRelay(r *smtp.Rcpt) error {
	switch {
	case r.To.Domain == "": // a bare name; <postmaster> only without any account
		return smtp.Errorf(550, "5.1.1", "<%s>: no such mailbox here", r.To)
	case t.peer.Identity == nil && !t.internal:
		return smtp.Errorf(550, "5.7.1", "<%s>: relaying denied", r.To)
	case r.To.Domain[0] == '[' && !t.in.opts.AddressLiterals:
		return smtp.Errorf(550, "5.1.2", "<%s>: no mail is sent to address literals", r.To)
	case !r.To.ASCII() && !t.mail.UTF8:
		if !t.peer.Submission && !t.internal { // RFC 6531, section 3.4
			return smtp.Errorf(553, "5.6.7", "<%s>: needs SMTPUTF8", r.To)
		}
		t.mail.UTF8 = true // mail programs forget the parameter
	}
	return nil
}

// suppressed refuses an address that nothing is sent to any more, where the settings say so: 550 5.7.1. Else the queue sees to it.
func (t *Transaction) suppressed(ctx context.Context, r *smtp.Rcpt) error {
	if !t.set.SuppressRefuse || t.internal || t.in.opts.Suppressed == nil {
		return nil
	}
	if why := t.in.opts.Suppressed(ctx, r.To.String(), t.mail.From.Domain); why != "" {
		return smtp.Errorf(550, "5.7.1", "<%s>: %s", r.To, why)
	}
	return nil
}

// quota holds that the accounts of a recipient, and their domains, have room for what the sender declared. One full member of a group
// doesn't keep the others from their mail: groups fill a mailbox up to twice its quota.
func (t *Transaction) quota(ctx context.Context, route routing.Route) error {
	share := int64(1)
	if len(route.Targets) > 1 {
		share = 2
	}
	for _, target := range route.Targets {
		if target.Account == nil {
			continue
		}
		u, err := t.in.opts.Store.Usage(ctx, target.Account.ID)
		if err != nil {
			t.in.log.Error("quota can't be read", "account", int64(target.Account.ID), "error", err)
			return replyStore
		}
		if u.QuotaBytes > 0 && t.mail.Size > u.QuotaBytes*share {
			return smtp.Errorf(552, "5.2.2", "message larger than the whole mailbox may be")
		}
		if u.QuotaBytes > 0 && u.Bytes+max(t.mail.Size, 1) > u.QuotaBytes*share ||
			u.QuotaMessages > 0 && u.Messages >= u.QuotaMessages*share {
			return replyQuota
		}
		if d := u.Domain; d.QuotaBytes > 0 && d.Bytes+max(t.mail.Size, 1) > d.QuotaBytes || d.QuotaMessages > 0 && d.Messages >= d.QuotaMessages {
			return replyDomainQuota
		}
	}
	return nil
}

// accept adds a recipient and its targets. An account or address gets one copy however often it is named, also through
// aliases: many recipients that lead to one address must not multiply its mail.
func (t *Transaction) accept(r smtp.Rcpt, route routing.Route) {
	rc := recipient{to: r.To, notify: r.Notify, orcpt: r.ORcpt, since: !r.ValidSince.IsZero()}
	notify := r.Notify
	// A group is where the sender's interest in success ends (RFC 3461, section 5.2.7): the expansion is reported.
	if len(route.Targets) > 1 {
		rc.action = "expanded"
		if notify&smtp.NotifySuccess != 0 {
			if notify &^= smtp.NotifySuccess; notify == 0 {
				notify = smtp.NotifyNever
			}
		}
	}
	if (!t.terms.hold.IsZero() || t.held() != "") && route.Status == directory.OK { // where it leads is found when it is released
		rc.action = ""
		t.addRemote(r.To, store.QueueRecipient{
			To: r.To.String(), Domain: store.LocalDestination, Notify: uint8(r.Notify), ORcpt: r.ORcpt, ValidSince: r.ValidSince.String(),
		}, way{})
		t.rcpts = append(t.rcpts, rc)
		return
	}
	t.noteJournals(r.To, route)
	for _, target := range route.Targets {
		if target.Account != nil {
			if rc.action == "" {
				rc.action = "delivered"
			}
			mailbox := target.Account.Address.String()
			t.tellRoute(r.To.String(), mailbox, routing.Sender{})
			t.addLocal(local{account: target.Account.ID, role: target.Role, address: mailbox, to: r.To, language: target.Account.Language})
			continue
		}
		t.tellRoute(r.To.String(), target.Remote.String(), target.Sender)
		w := way{sender: target.Sender, by: target.By}
		q := store.QueueRecipient{
			To: target.Remote.String(), Domain: target.Queue, Notify: uint8(notify), ORcpt: originalRecipient(r, route),
			ValidSince: onwards(r, route),
		}
		if w.sender.Owner { // a list ends what the sender asked to be told: RFC 3461, section 5.2.7.3
			q.Notify = uint8(smtp.NotifyDefault)
		}
		t.addRemote(target.Remote, q, w)
	}
	t.rcpts = append(t.rcpts, rc)
}

// originalRecipient is the ORCPT that goes on: what the sender gave, or the address that an alias replaced (RFC 3461,
// section 5.2.7.1).
func originalRecipient(r smtp.Rcpt, route routing.Route) string {
	if r.ORcpt != "" || !route.Expanded {
		return r.ORcpt
	}
	if r.To.ASCII() {
		return "rfc822;" + r.To.String()
	}
	return "utf-8;" + r.To.String()
}

// onwards is the RRVS that goes on. An address of ours that leads elsewhere was checked here: where it leads is its owner's
// choice (RFC 7293, section 5.4).
func onwards(r smtp.Rcpt, route routing.Route) string {
	if route.Status != directory.NotLocal {
		return ""
	}
	return r.ValidSince.String()
}

func (t *Transaction) addRemote(to address.Address, q store.QueueRecipient, w way) {
	key := to.Key()
	if t.elsewhere[key] {
		return
	}
	if t.elsewhere == nil {
		t.elsewhere = make(map[string]bool)
	}
	t.elsewhere[key] = true
	t.remotes, t.ways = append(t.remotes, q), append(t.ways, w)
	if !w.by.IsNull() && !slices.Contains(t.forwards, w.by) {
		t.forwards = append(t.forwards, w.by)
	}
}

func (t *Transaction) addLocal(l local) {
	if len(t.locals) < 8 {
		for _, have := range t.locals {
			if have.account == l.account {
				return
			}
		}
		t.locals = append(t.locals, l)
		return
	}
	if t.accounts == nil {
		t.accounts = make(map[store.AccountID]bool, 2*len(t.locals))
		for _, have := range t.locals {
			t.accounts[have.account] = true
		}
	}
	if !t.accounts[l.account] {
		t.accounts[l.account] = true
		t.locals = append(t.locals, l)
	}
}

// Spool gives where the octets of the message go, the same one each time. Refusals: 503 out of order, 554 5.5.1 no
// recipients, 452 4.3.1 no room.
func (t *Transaction) Spool() (*Spool, error) {
	switch {
	case t.spool != nil:
		return t.spool, nil
	case !t.begun:
		return nil, replyOrder
	case len(t.rcpts) == 0:
		return nil, smtp.Errorf(554, "5.5.1", "no valid recipients")
	case !t.in.roomFor(max(t.mail.Size, 1)), t.in.spooled.Load() >= t.in.limits.SpoolBytes:
		return nil, replyFull
	}
	t.spool = newSpool(t.in, t.set.MessageSize)
	return t.spool, nil
}

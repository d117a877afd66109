package intake

import (
	"bytes"
	"context"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/guard/surge"
	"waxwing/internal/message"
	"waxwing/internal/routing"
	"waxwing/internal/store"
)

// Surge notices mail bombs: *surge.Watch. It is asked once for each mailbox.
type Surge interface {
	Deferred(ctx context.Context, acct store.AccountID, from address.Address) bool
	Aside(ctx context.Context, a surge.Arrival) bool
	Sent(acct store.AccountID, recipients int)
}

var replySurge = reply(451, "4.2.1", "the mailbox gets far more mail than usual now, try again later")

// watched tells a message that may be part of a bomb: one from elsewhere.
func (t *Transaction) watched() bool {
	v := t.peer.Visitor
	return t.in.opts.Surge != nil && !t.internal && t.peer.Identity == nil && !t.peer.Remote.Addr().IsLoopback() &&
		(v == nil || !v.Trusted && !v.Exempt)
}

// surplus refuses a recipient for now whose mailbox is under a bomb and has mail of strangers wait. A group is not kept from
// its mail by one member, nor are those who write to a postmaster.
func (t *Transaction) surplus(ctx context.Context, to address.Address, route routing.Route) error {
	if !t.watched() || len(route.Targets) != 1 || route.Targets[0].Account == nil || directory.IsRole(to) {
		return nil
	}
	if t.in.opts.Surge.Deferred(ctx, route.Targets[0].Account.ID, t.mail.From) {
		return replySurge
	}
	return nil
}

// setAside puts copies that are surplus of a bomb into the folder for them.
func (t *Transaction) setAside(ctx context.Context, h message.Header) {
	if !t.watched() {
		return
	}
	kind := kindOf(h)
	for i := range t.locals {
		l := &t.locals[i]
		if l.role == store.RoleInbox && t.in.opts.Surge.Aside(ctx, surge.Arrival{Account: l.account, From: t.mail.From, Kind: kind}) {
			l.role = store.RoleSurge
		}
	}
}

// folder is what the mailbox of a copy is called when it has to be made; "" is what the store calls it.
func (t *Transaction) folder(l local) string {
	switch {
	case l.role != store.RoleSurge:
		return ""
	case l.language == "zh":
		return t.set.Stranger.SurgeChinese
	}
	return t.set.Stranger.SurgeFolder
}

// kindOf tells newsletters, confirmations and notices by what they bear (RFC 2369, 2919, 3834), and letters.
func kindOf(h message.Header) surge.Kind {
	for i := range h {
		f := &h[i]
		switch {
		case f.Is("List-Unsubscribe"), f.Is("List-Id"), f.Is("List-Post"), f.Is("Feedback-ID"),
			f.Is("Auto-Submitted") && !bytes.HasPrefix(bytes.ToLower(f.Unfolded()), []byte("no")),
			f.Is("Precedence") && !bytes.EqualFold(bytes.TrimSpace(f.Unfolded()), []byte("first-class")):
			return surge.Lists
		}
	}
	return surge.Letters
}

// countSent tells how much a user has sent.
func (t *Transaction) countSent() {
	if t.in.opts.Surge != nil && t.user() && len(t.remotes) > 0 {
		t.in.opts.Surge.Sent(t.peer.Identity.Account, len(t.remotes))
	}
}

package intake

import (
	"context"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/message"
	"waxwing/internal/routing"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// Offer is what the settings allow senders to ask for, for EHLO.
type Offer struct {
	Hold     time.Duration // FUTURERELEASE, users only; 0: not offered
	Domains  int           // domains of one message's recipients, for LIMITS (RFC 9422); 0: no limit
	Priority int           // highest MT-PRIORITY of users; strangers get 0
}

// Offer gives what senders may ask for now.
func (in *Intake) Offer() Offer {
	set := in.opts.Directory.Settings()
	return Offer{
		Hold:    time.Duration(set.HoldDays) * 24 * time.Hour,
		Domains: set.RecipientDomains, Priority: set.Priority,
	}
}

// PriorityFor lowers what a sender asks for to what it may have (RFC 6710, section 4.1): anybody may be less urgent.
func (o Offer) PriorityFor(user bool, asked int) int {
	if !user {
		return min(asked, 0)
	}
	return min(asked, o.Priority)
}

// terms are what the sender asked of the delivery, in moments of this server's clock.
type terms struct {
	hold     time.Time // not before
	by       time.Time // late after
	mode     smtp.DeliverBy
	priority int
}

// setTerms reads the terms of MAIL. Refusals: 555 5.5.4 not offered here, 501 5.5.4 held too long or until a time that has
// passed, 555 5.5.4 less time than is offered.
func (t *Transaction) setTerms(m *smtp.Mail) error {
	offer := t.in.Offer()
	now := t.in.opts.Clock()
	t.terms = terms{priority: offer.PriorityFor(t.user() || t.internal, m.Priority)}
	if m.HoldFor > 0 || !m.HoldUntil.IsZero() {
		if offer.Hold == 0 || !t.user() && !t.internal {
			return smtp.UnknownMailParam()
		}
		t.terms.hold = m.HoldUntil
		if m.HoldFor > 0 {
			t.terms.hold = now.Add(m.HoldFor)
		}
		if t.terms.hold.After(now.Add(offer.Hold)) { // RFC 4865, section 4
			return smtp.Errorf(501, "5.5.4", "messages are held for %d seconds at most", int64(offer.Hold/time.Second))
		}
		if !t.terms.hold.After(now) {
			return smtp.Errorf(501, "5.5.4", "that time has passed")
		}
	}
	if m.By.Mode == 0 {
		return nil
	}
	span := time.Duration(m.By.Seconds) * time.Second
	if m.By.Mode == smtp.ByReturn && span < smtp.MinDeliverBy { // RFC 2852, section 4
		return smtp.Errorf(555, "5.5.4", "BY asks for less than %d seconds", int64(smtp.MinDeliverBy/time.Second))
	}
	from := now
	if !t.terms.hold.IsZero() { // the time counts from the release
		from = t.terms.hold
	}
	t.terms.by, t.terms.mode = from.Add(span), m.By
	return nil
}

// applyTerms puts the terms into the row of the queue.
func (t *Transaction) applyTerms(m *store.QueueMessage) {
	m.HoldUntil, m.DeliverBy, m.ByMode, m.Priority = t.terms.hold, t.terms.by, t.terms.mode.Letters(), t.terms.priority
}

// domainsLeft tells whether a recipient fits into the limit on domains (RFC 9422, section 4.3).
func (t *Transaction) domainsLeft(to address.Address) bool {
	most := t.set.RecipientDomains
	if most <= 0 {
		return true
	}
	seen := map[string]bool{to.Domain: true}
	for i := range t.rcpts {
		seen[t.rcpts[i].to.Domain] = true
	}
	return len(seen) <= most
}

// validSince holds that a mailbox of ours has had its owner since the time that RRVS says (RFC 7293, section 5.1). Role
// addresses belong to whoever does the work.
func (t *Transaction) validSince(to address.Address, route routing.Route, since time.Time) *smtp.Reply {
	if since.IsZero() || directory.IsRole(to) {
		return nil
	}
	if d, err := t.in.opts.Directory.Domain(to.Domain); err == nil && since.Before(d.Created) {
		return smtp.Errorf(550, "5.7.18", "<%s>: the owner of the domain has changed since then", to)
	}
	for _, target := range route.Targets {
		if target.Account != nil && since.Before(target.Account.Created) {
			return smtp.Errorf(550, "5.7.17", "<%s>: the owner of the mailbox has changed since then", to)
		}
	}
	return nil
}

// checkValidSince holds the header field Require-Recipient-Valid-Since for recipients that had no RRVS of their own (RFC
// 7293, section 5.2). A field that can't be read or names nobody of this message says nothing.
func (t *Transaction) checkValidSince(ctx context.Context, h message.Header) error {
	for i := range h {
		if !h[i].Is("Require-Recipient-Valid-Since") {
			continue
		}
		who, when, ok := strings.Cut(string(h[i].Unfolded()), ";")
		to, err := address.Parse(strings.Trim(strings.TrimSpace(who), "<>"))
		since, dated := message.ParseDate([]byte(when))
		if !ok || err != nil || !dated {
			continue
		}
		for _, rc := range t.rcpts {
			if rc.since || rc.to.Key() != to.Key() {
				continue
			}
			route, err := t.in.opts.Routing.Route(ctx, routing.Request{To: rc.to, From: t.sender()})
			if err != nil {
				return t.directoryFailed(err, rc.to)
			}
			if refusal := t.validSince(rc.to, route, since); refusal != nil {
				return refusal
			}
		}
	}
	return nil
}

// headerPriority takes the priority from the header field MT-Priority of a user's message when MAIL had none (RFC 6758).
func (t *Transaction) headerPriority(h message.Header) {
	if t.mail.HasPriority || !t.user() {
		return
	}
	if v := h.Values("MT-Priority"); len(v) == 1 {
		word, _, _ := strings.Cut(strings.TrimSpace(string(v[0])), " ")
		if n, ok := smtp.ParsePriority(word); ok {
			t.terms.priority = t.in.Offer().PriorityFor(true, n)
		}
	}
}

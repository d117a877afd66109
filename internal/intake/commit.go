package intake

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"waxwing/internal/digest"
	"waxwing/internal/message"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// Commit holds the rules of the content, adds the trace fields, and commits all copies in one transaction. When it
// returns without an error the message is on stable storage and the server is responsible for it; with a *smtp.Reply
// nothing of it was kept. It ends the transaction either way.
func (t *Transaction) Commit(ctx context.Context) (Receipt, error) {
	defer t.Abort()
	delivery, part, err := t.prepare(ctx)
	if err != nil {
		return Receipt{}, err
	}
	if t.discard {
		return t.discarded(t.traceID), nil
	}
	mark := t.peer.Trail.Mark()
	if note := t.notification(ctx, delivery.Content, part); note != nil {
		defer note.Abort()
		delivery.Also = append(append(delivery.Also, note.delivery), note.delivery.Also...) // scripts may have made more of it
	}
	t.tell(part, &delivery)
	delivery.Trace = t.peer.Trail.Row()
	done, err := t.in.opts.Store.Deliver(ctx, delivery)
	if err != nil {
		t.peer.Trail.Rewind(mark)
		t.in.log.Error("message could not be stored", "trace", t.traceID, "error", err)
		return Receipt{}, storeReply(err)
	}
	t.peer.Trail.Committed(delivery.Trace)
	t.in.log.Info("message accepted", "trace", t.traceID, "from", t.mail.From.String(), "recipients", len(t.rcpts),
		"local", len(t.locals), "remote", len(t.remotes), "size", delivery.Content.Size(), "remote_address", t.peer.Remote.Addr())
	t.countSent()
	return Receipt{TraceID: t.traceID, Queue: done.Queue, Local: len(t.locals), Remote: len(t.remotes)}, nil
}

// prepare holds the rules of the content and makes the delivery of the message, but for its trace.
func (t *Transaction) prepare(ctx context.Context) (store.Delivery, *message.Part, error) {
	if t.spool == nil || len(t.rcpts) == 0 {
		return store.Delivery{}, nil, replyOrder
	}
	if t.spool.err != nil {
		return store.Delivery{}, nil, t.spool.err
	}
	part, err := t.parse()
	if err != nil {
		return store.Delivery{}, nil, err
	}
	if err := t.check(ctx, part); err != nil {
		return store.Delivery{}, nil, err
	}
	t.headerPriority(part.Header)
	t.setAside(ctx, part.Header)
	now := t.in.opts.Clock()
	t.traceID = t.id()
	if part, err = t.showMessage(ctx, part, t.traceID, now); err != nil || t.discard {
		return store.Delivery{}, part, err
	}
	reports, err := t.journal(ctx)
	if err != nil {
		return store.Delivery{}, nil, err
	}
	content := t.compose(part, t.traceID, now)

	delivery := store.Delivery{
		Content: content,
		Summary: digest.Make(part, content, content.Size()),
		Local:   make([]store.NewEntry, 0, len(t.locals)),
	}
	delivery.Queue, delivery.More = t.split(t.queueMessage(part, content.Size(), t.traceID, now))
	if err := t.filter(ctx, part, content, t.traceID, now, &delivery); err != nil {
		return store.Delivery{}, nil, err
	}
	for _, g := range reports {
		d, err := t.report(g, part, content, t.traceID, now)
		if err != nil {
			return store.Delivery{}, nil, err
		}
		delivery.Also = append(delivery.Also, d)
	}
	t.holdBack(&delivery)
	return delivery, part, nil
}

// queueMessage makes the row for the remote recipients, nil without any.
func (t *Transaction) queueMessage(part *message.Part, size int64, id string, now time.Time) *store.QueueMessage {
	if len(t.remotes) == 0 {
		return nil
	}
	m := &store.QueueMessage{
		TraceID: id, From: t.mail.From.String(), Body: string(smtp.Body7Bit), UTF8: t.needsUTF8(part), Ret: t.mail.Ret, EnvID: t.mail.EnvID,
		Size: size, Created: now, Recipients: t.remotes, Description: description(part), TLS: uint8(t.needsTLS(part)),
	}
	if t.peer.Identity != nil {
		m.Account = t.peer.Identity.Account
	}
	// What the next server must be able to take is what the message is, not what the sender said.
	if t.spool.seen.Facts().Eight() || m.UTF8 {
		m.Body = string(smtp.Body8Bit)
	}
	t.applyTerms(m)
	held := t.held()
	for i := range m.Recipients {
		m.Recipients[i].State = store.QueueWaiting
		if held != "" {
			m.Recipients[i].State, m.Recipients[i].HeldFor = store.QueueHeld, held
		}
		m.Recipients[i].NextAttempt = now
	}
	return m
}

// needsTLS is what the sender asks of the connections ahead. REQUIRETLS goes before the field that asks for less (RFC 8689,
// section 4.1); a field that doesn't say "No" exactly says nothing (section 3).
func (t *Transaction) needsTLS(part *message.Part) smtp.TLSNeed {
	if t.mail.TLS == smtp.TLSRequired {
		return smtp.TLSRequired
	}
	found := smtp.TLSDefault
	for _, f := range part.Header {
		if !f.Is("TLS-Required") {
			continue
		}
		if found != smtp.TLSDefault || !strings.EqualFold(string(f.Unfolded()), "no") {
			return smtp.TLSDefault
		}
		found = smtp.TLSOptional
	}
	return found
}

// needsUTF8 tells whether the message can only go to servers with SMTPUTF8 (RFC 6531, section 3.1). An 8-bit header that
// came without the parameter is sent as it came; what this server made says by its content what it needs.
func (t *Transaction) needsUTF8(part *message.Part) bool {
	if !t.mail.From.ASCII() {
		return true
	}
	for i := range t.remotes {
		if !isASCII([]byte(t.remotes[i].To)) {
			return true
		}
	}
	if !t.mail.UTF8 && !t.internal {
		return false
	}
	eight := false
	part.Walk(func(p *message.Part) bool {
		for i := range p.Header {
			eight = eight || !isASCII(p.Header[i].Raw)
		}
		return !eight
	})
	return eight
}

// description is the subject for those who look at the queue, on one line.
func description(part *message.Part) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, part.Header.Text("Subject"))
	const most = 100
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i]
		}
	}
	return s
}

// isReply tells a refusal from a failure.
func isReply(err error) bool {
	var r *smtp.Reply
	return errors.As(err, &r)
}

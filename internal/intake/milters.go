package intake

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/message"
	"waxwing/internal/milter"
	"waxwing/internal/routing"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/trace"
)

// showSender asks the milters about the client and the sender. What this server makes itself is not shown to them.
func (t *Transaction) showSender(ctx context.Context, m *smtp.Mail) error {
	if t.internal || t.in.opts.Milters == nil {
		return nil
	}
	client := milter.Client{
		ID: t.id(), Remote: t.peer.Remote, HELO: t.peer.HELO, TLS: t.peer.TLS, Submission: t.peer.Submission, Trail: t.peer.Trail,
		Trusted: t.peer.Visitor != nil && t.peer.Visitor.Trusted,
	}
	if id := t.peer.Identity; id != nil {
		client.Login, client.Mechanism = id.Address.String(), id.Mechanism
	}
	t.milters = t.in.opts.Milters.Begin(client)
	err := t.milters.Mail(ctx, m.From.String(), milter.Declared(m.Size, string(m.Body)))
	return t.kept(err)
}

// kept takes out of an answer that the message is to be thrown away: the client hears of it no more than of its delivery.
func (t *Transaction) kept(err error) error {
	if errors.Is(err, milter.ErrDiscard) {
		t.discard = true
		return nil
	}
	return err
}

// showRecipient asks the milters about a recipient that may be used.
func (t *Transaction) showRecipient(ctx context.Context, r *smtp.Rcpt) error {
	if t.milters == nil || t.discard {
		return nil
	}
	if err := t.kept(t.milters.Rcpt(ctx, r.To.String(), nil)); err != nil {
		return err
	}
	t.given = append(t.given, *r)
	return nil
}

// showMessage shows the message to the milters as it will be sent, and applies what they want changed.
func (t *Transaction) showMessage(ctx context.Context, part *message.Part, id string, now time.Time) (*message.Part, error) {
	if t.milters == nil || t.discard {
		return part, nil
	}
	part.Header = t.asSent(part.Header, id, now)
	body := io.NewSectionReader(t.spool, part.BodyOffset, t.spool.size-part.BodyOffset)
	c, err := t.milters.Message(ctx, part.Header, body)
	if err != nil {
		return part, err
	}
	if t.discard = c.Discard; c.Discard {
		return part, nil
	}
	t.milterHold = c.Hold
	if err := t.reaim(ctx, &c); err != nil {
		return part, err
	}
	if c.From != nil {
		if from, err := address.Parse(*c.From); err == nil || *c.From == "" {
			t.mail.From = from
		} else {
			t.in.log.Warn("a milter names a sender that is no address", "trace", id, "sender", *c.From)
		}
	}
	part.Header = c.Header
	if !c.MIME {
		return part, nil
	}
	return t.rewritten(c.Header, c.Body, body)
}

// asSent is the header with the fields that will be added and without those that will go, so that a milter signs what is sent.
func (t *Transaction) asSent(h message.Header, id string, now time.Time) message.Header {
	added, _ := message.ParseHeader(t.appendMissing(nil, h, id, now))
	for i := range h {
		if f := &h[i]; f.Name != "" && !t.drops(f) {
			added = append(added, *f)
		}
	}
	return added
}

// rewritten reads the message anew, with another header that says how to read it or with another body.
func (t *Transaction) rewritten(h message.Header, replaced []byte, body io.Reader) (*message.Part, error) {
	out := newSpool(t.in, t.set.MessageSize)
	var err error
	write := func(b []byte) {
		if err == nil {
			_, err = out.Write(b)
		}
	}
	for i := range h {
		write(h[i].Raw)
	}
	write([]byte("\r\n"))
	if replaced != nil {
		write(replaced)
	} else if err == nil {
		_, err = out.ReadFrom(body)
	}
	if err != nil {
		out.free()
		if isReply(err) {
			return nil, err
		}
		t.in.log.Error("a message that a milter changed can't be kept", "error", err)
		return nil, replyStore
	}
	t.spool.free()
	t.spool = out
	return t.parse()
}

// reaim changes the recipients as milters want: where they lead is found anew.
func (t *Transaction) reaim(ctx context.Context, c *milter.Changes) error {
	if len(c.Add) == 0 && len(c.Remove) == 0 {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(t.given), func(r smtp.Rcpt) bool {
		return slices.ContainsFunc(c.Remove, func(gone string) bool {
			a, err := address.Parse(gone)
			return err == nil && a.Key() == r.To.Key()
		})
	})
	for _, text := range c.Add {
		to, err := address.Parse(text)
		if err != nil {
			t.in.log.Warn("a milter adds a recipient that is no address", "recipient", text)
			continue
		}
		list = append(list, smtp.Rcpt{To: to})
	}
	t.rcpts, t.locals, t.accounts = nil, nil, nil
	t.remotes, t.ways, t.elsewhere, t.forwards = nil, nil, nil, nil
	for _, r := range list {
		route, err := t.in.opts.Routing.Route(ctx, routing.Request{To: r.To, From: t.sender()})
		if err != nil {
			return t.directoryFailed(err, r.To)
		}
		if route.Status == directory.OK || route.Status == directory.NotLocal {
			t.accept(r, route)
		}
	}
	t.discard = len(t.rcpts) == 0
	return nil
}

// discarded ends a message that milters want thrown away. Its sender hears that it was taken; the trace tells the truth.
func (t *Transaction) discarded(id string) Receipt {
	t.peer.Trail.Add(trace.Step{Kind: trace.Accept, Outcome: trace.Dropped, Reason: "a milter wants it taken and thrown away", Reply: "250 2.0.0 ok " + id})
	t.peer.Trail.Keep()
	t.in.log.Warn("message thrown away as a milter wants", "trace", id, "from", t.mail.From.String(), "recipients", len(t.given))
	return Receipt{TraceID: id}
}

// holdBack keeps a message that a milter wants held: outgoing copies wait in the queue until they are released, copies in
// mailboxes here go to the junk folder.
func (t *Transaction) holdBack(d *store.Delivery) {
	if t.milterHold == "" {
		return
	}
	for i := range d.Local {
		d.Local[i].Mailbox, d.Local[i].Role, d.Local[i].Name = 0, store.RoleJunk, ""
	}
	for i := range t.locals {
		t.locals[i].role = store.RoleJunk
	}
	queued := d.More
	if d.Queue != nil {
		queued = append(queued[:len(queued):len(queued)], d.Queue)
	}
	for _, m := range queued {
		for i := range m.Recipients {
			m.Recipients[i].State, m.Recipients[i].HeldFor = store.QueueHeld, t.milterHold
		}
	}
}

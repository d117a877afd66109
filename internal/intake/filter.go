package intake

import (
	"context"
	"errors"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/digest"
	"waxwing/internal/message"
	"waxwing/internal/sieve"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// redirectedField marks what a script has sent on, with the account: by it loops are found.
const redirectedField = "X-Sieve-Redirected-From"

// filtering turns what scripts decide into a delivery.
type filtering struct {
	t       *Transaction
	part    *message.Part
	content store.Content
	id      string
	now     time.Time
	d       *store.Delivery

	forms   map[*message.Field]*store.Delivery // of headers that scripts have edited
	rejects []sieve.Reject
	kept    bool // somebody gets the message
}

// filter runs the scripts of the mailboxes that the message goes to, and fills in the delivery. An error is a refusal of the
// message: every script rejects it, or scripts can't be read now.
func (t *Transaction) filter(ctx context.Context, part *message.Part, content store.Content, id string, now time.Time, d *store.Delivery) error {
	f := &filtering{t: t, part: part, content: content, id: id, now: now, d: d, kept: len(t.remotes) > 0}
	for i := range t.locals {
		l := &t.locals[i]
		plain := store.NewEntry{Account: l.account, Role: l.role, Name: t.folder(*l), InternalDate: now, IgnoreQuota: true}
		if t.in.filters == nil || l.role != store.RoleInbox {
			f.file(d, plain)
			continue
		}
		scripts, err := t.in.filters.of(ctx, l.account, &t.set)
		if err != nil {
			t.in.log.Error("filter scripts can't be read", "account", int64(l.account), "error", err)
			return replyStore
		}
		if len(scripts) == 0 {
			f.file(d, plain)
			continue
		}
		if err := f.run(ctx, l, plain, scripts); err != nil {
			return err
		}
	}
	if len(f.rejects) > 0 && !f.kept && !t.internal {
		return smtp.Errorf(550, "5.7.1", "%s", replyText(f.rejects[0].Reason))
	}
	for _, r := range f.rejects {
		if err := f.sendRefusal(r); err != nil {
			return err
		}
	}
	f.finish()
	return nil
}

func (f *filtering) file(d *store.Delivery, e store.NewEntry) {
	f.kept = true
	d.Local = append(d.Local, e)
}

// run runs the scripts of one mailbox.
func (f *filtering) run(ctx context.Context, l *local, plain store.NewEntry, scripts []*sieve.Script) error {
	own, err := address.Parse(l.address)
	if err != nil {
		f.file(f.d, plain)
		return nil
	}
	in := f.t.sieveInput(l, own)
	in.Message, in.Content, in.Size = f.part, f.content, f.content.Size()
	result := sieve.Run(ctx, scripts, in)
	if result.Err != nil {
		if ctx.Err() != nil {
			return replyStore
		}
		f.t.in.log.Warn("filter script failed, the message is kept", "trace", f.id, "account", int64(l.account), "error", result.Err)
	}
	l.filed = "discarded"
	for _, m := range result.Seen {
		f.remember(l.account, m.Key, m.For)
	}
	for _, a := range result.Actions {
		if err := f.act(ctx, l, own, plain, a); err != nil {
			return err
		}
	}
	return nil
}

func (f *filtering) remember(acct store.AccountID, key string, keep time.Duration) {
	f.d.Sieve = append(f.d.Sieve, store.SieveMemory{Account: acct, Key: key, Expires: f.now.Add(keep)})
}

// act turns one action into a part of the delivery.
func (f *filtering) act(ctx context.Context, l *local, own address.Address, plain store.NewEntry, a sieve.Action) error {
	switch a := a.(type) {
	case sieve.Keep:
		plain.Flags, plain.Keywords = flagsOf(a.Flags)
		return f.fileAs(l, plain, string(l.role), a.Header)
	case sieve.FileInto:
		e, folder, err := f.place(ctx, l, plain, a)
		if err != nil {
			return err
		}
		e.Flags, e.Keywords = flagsOf(a.Flags)
		return f.fileAs(l, e, folder, a.Header)
	case sieve.Redirect:
		return f.redirect(l, own, plain, a)
	case sieve.Reject:
		l.filed = "rejected"
		f.rejects = append(f.rejects, a)
	case sieve.Vacation:
		if a.Every > 0 {
			seen, err := f.t.in.filters.scripts.SieveSeen(ctx, l.account, a.Key)
			if err != nil {
				return replyStore
			}
			if seen {
				return nil
			}
			f.remember(l.account, a.Key, a.Every)
		}
		return f.sendVacation(own, a)
	case sieve.Notify:
		return f.sendNotice(own, a)
	}
	return nil
}

// place finds the mailbox to file into: the INBOX when there is none.
func (f *filtering) place(ctx context.Context, l *local, plain store.NewEntry, a sieve.FileInto) (store.NewEntry, string, error) {
	host := sieveHost{f.t.in.filters.scripts, l.account}
	var box store.Mailbox
	var err error
	if a.Use != "" {
		box, err = host.byUse(ctx, a.Use)
	}
	if box.ID == 0 && err == nil {
		box, err = host.scripts.Mailbox(ctx, l.account, a.Mailbox)
		if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
	}
	if err != nil {
		f.t.in.log.Error("mailbox can't be looked up", "account", int64(l.account), "error", err)
		return plain, "", replyStore
	}
	e := plain
	if box.ID != 0 {
		e.Mailbox, e.Role = box.ID, ""
		return e, box.Name, nil
	}
	if name, err := store.CleanName(a.Mailbox); a.Create && err == nil {
		e.Name, e.Role, e.Create = name, "", true
		return e, name, nil
	}
	f.t.in.log.Info("mailbox of a filter script isn't there, the message is kept", "trace", f.id, "account", int64(l.account))
	return plain, string(l.role), nil
}

// fileAs files the message with a header, nil for its own.
func (f *filtering) fileAs(l *local, e store.NewEntry, folder string, h message.Header) error {
	d, err := f.form(h)
	if err != nil {
		return err
	}
	if l.filed == "" || l.filed == "discarded" {
		l.filed = folder
	} else {
		l.filed += ", " + folder
	}
	f.file(d, e)
	return nil
}

// form is the delivery of the message with an edited header, which is a message of its own.
func (f *filtering) form(h message.Header) (*store.Delivery, error) {
	if len(h) == 0 {
		return f.d, nil
	}
	if d := f.forms[&h[0]]; d != nil {
		return d, nil
	}
	var b []byte
	for i := range h {
		b = append(b, h[i].Raw...)
		if n := len(b); n < 2 || b[n-2] != '\r' || b[n-1] != '\n' {
			b = append(b, "\r\n"...)
		}
	}
	content := message.Splice(append(b, "\r\n"...), f.content, f.part.BodyOffset, f.content.Size())
	part, err := message.Parse(content, content.Size(), message.DefaultLimits)
	if err != nil {
		return nil, replyStore
	}
	if f.forms == nil {
		f.forms = map[*message.Field]*store.Delivery{}
	}
	d := &store.Delivery{Content: content, Summary: digest.Make(part, content, content.Size())}
	f.forms[&h[0]] = d
	return d, nil
}

// finish puts the other forms of the message beside it.
func (f *filtering) finish() {
	for _, d := range f.forms {
		if len(d.Local) > 0 || d.Queue != nil {
			f.d.Also = append(f.d.Also, *d)
		}
	}
}

// redirect sends the message on. What was sent on by this account before goes round: it is kept.
func (f *filtering) redirect(l *local, own address.Address, plain store.NewEntry, a sieve.Redirect) error {
	for _, v := range f.part.Header.Values(redirectedField) {
		if strings.EqualFold(string(v), own.String()) {
			f.t.in.log.Info("a redirected message has come back, it is kept", "trace", f.id, "account", int64(l.account))
			return f.fileAs(l, plain, string(l.role), nil)
		}
	}
	d, err := f.form(a.Header)
	if err != nil {
		return err
	}
	from := f.t.mail.From
	if !from.IsNull() && !f.t.local(from) {
		from = own // the next server's look at SPF must hold
	}
	m := f.queued(from, []address.Address{a.To}, d.Content.Size())
	m.Prefix = []byte(redirectedField + ": " + own.String() + "\r\n")
	m.Description = description(f.part)
	m.UTF8 = m.UTF8 || f.t.mail.UTF8
	m.TLS = uint8(f.t.needsTLS(f.part))
	if d.Queue == nil {
		d.Queue = m
	} else {
		d.More = append(d.More, m)
	}
	l.filed, f.kept = "redirected", true
	return nil
}

// local tells whether an address is of a domain of ours.
func (t *Transaction) local(a address.Address) bool {
	_, err := t.in.opts.Directory.Domain(a.Domain)
	return err == nil
}

// queued is a row of the queue. Where an address here leads is found when its turn comes.
func (f *filtering) queued(from address.Address, to []address.Address, size int64) *store.QueueMessage {
	m := &store.QueueMessage{TraceID: f.id, From: from.String(), Body: string(smtp.Body8Bit), Size: size, Created: f.now, UTF8: !from.ASCII()}
	for _, a := range to {
		r := store.QueueRecipient{To: a.String(), Domain: a.Domain, State: store.QueueWaiting, NextAttempt: f.now}
		if f.t.local(a) {
			r.Domain = store.LocalDestination
		}
		m.UTF8 = m.UTF8 || !a.ASCII()
		m.Recipients = append(m.Recipients, r)
	}
	return m
}

// replyText makes the reason of a script fit for an SMTP reply.
func replyText(s string) string {
	const most = 300
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\r' || r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
	if s = strings.Join(strings.Fields(s), " "); s == "" {
		return "the recipient refuses this message"
	}
	return s[:min(len(s), most)]
}

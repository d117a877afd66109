package intake

import (
	"context"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/trace"
)

// Notice is that a message was delivered here and that its sender asked to be told (RFC 3461, section 4.1: SUCCESS).
type Notice struct {
	TraceID    string
	From       string // who is told; never empty
	EnvID      string
	Ret        string // "", FULL or HDRS
	UTF8       bool   // SMTPUTF8 was given
	Arrived    time.Time
	Recipients []NoticeRecipient
	Content    store.Content // the message as it was stored; only until Delivered returns
	HeaderSize int64         // octets of its header with the blank line
	Account    store.AccountID
}

// NoticeRecipient is one recipient that a notice is about.
type NoticeRecipient struct {
	To     string
	ORcpt  string
	Action string // "delivered", or "expanded" for a group (RFC 3464, section 2.3.3)
}

// Notifier writes delivery status notifications. It is called before the commit that delivers both the message and the
// notification; it must be quick, and an error is logged: the message is delivered either way.
type Notifier interface {
	Delivered(n Notice) (raw []byte, err error)
}

// note is a notification that is to be committed together with the message that it is about.
type note struct {
	*Transaction
	delivery store.Delivery
}

// notification tells the sender about the recipients for which success was asked for; nil when there is nothing to tell. A
// notification that can't be made or sent keeps no mail from its recipients.
func (t *Transaction) notification(ctx context.Context, content store.Content, part *message.Part) *note {
	notifier := t.in.notifier.Load()
	if notifier == nil || t.mail.From.IsNull() {
		return nil
	}
	var list []NoticeRecipient
	for _, r := range t.rcpts {
		if r.notify&smtp.NotifySuccess != 0 && r.action != "" {
			list = append(list, NoticeRecipient{To: r.to.String(), ORcpt: r.orcpt, Action: r.action})
		}
	}
	if len(list) == 0 {
		return nil
	}
	n := Notice{
		TraceID: t.traceID, From: t.mail.From.String(), EnvID: t.mail.EnvID, Ret: t.mail.Ret, UTF8: t.mail.UTF8,
		Arrived: t.in.opts.Clock(), Recipients: list, Content: content, HeaderSize: part.BodyOffset,
	}
	if t.peer.Identity != nil {
		n.Account = t.peer.Identity.Account
	}
	raw, err := (*notifier).Delivered(n)
	if err == nil {
		var made *note
		if made, err = t.in.prepareNote(trace.WithCause(ctx, t.traceID), t.mail.From, raw); err == nil {
			t.peer.Trail.Add(trace.Step{Kind: trace.Report, Data: []trace.Pair{{Name: trace.OtherID, Value: made.traceID}}})
			return made
		}
	}
	t.in.log.Error("notification of success could not be made", "trace", t.traceID, "error", err)
	return nil
}

// prepareNote takes a notification in up to its commit.
func (in *Intake) prepareNote(ctx context.Context, to address.Address, raw []byte) (*note, error) {
	trail := in.opts.Trace.Trail()
	defer trail.Close()
	t := in.Begin(Peer{Trail: trail})
	t.internal = true
	n := &note{Transaction: t}
	in.tellOrigin(ctx, trail, address.Address{}, []address.Address{to})
	err := t.fill(ctx, address.Address{}, []address.Address{to}, raw)
	var part *message.Part
	if err == nil {
		n.delivery, part, err = t.prepare(ctx)
	}
	if err != nil {
		t.Abort()
		return nil, err
	}
	t.tell(part, &n.delivery)
	n.delivery.Trace = trail.Row()
	return n, nil
}

package intake

import (
	"context"
	"time"

	"waxwing/internal/message"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
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

// Notifier makes delivery status notifications. It is called after the message was committed and before the sender is
// answered; it must be quick, and an error is logged: the message is delivered either way.
type Notifier interface {
	Delivered(ctx context.Context, n Notice) error
}

// notify tells the sender about the recipients for which success was asked for.
func (t *Transaction) notify(ctx context.Context, id string, now time.Time, content store.Content, part *message.Part) {
	notifier := t.in.notifier.Load()
	if notifier == nil || t.mail.From.IsNull() {
		return
	}
	var list []NoticeRecipient
	for _, r := range t.rcpts {
		if r.notify&smtp.NotifySuccess != 0 && r.action != "" {
			list = append(list, NoticeRecipient{To: r.to.String(), ORcpt: r.orcpt, Action: r.action})
		}
	}
	if len(list) == 0 {
		return
	}
	n := Notice{
		TraceID: id, From: t.mail.From.String(), EnvID: t.mail.EnvID, Ret: t.mail.Ret, UTF8: t.mail.UTF8, Arrived: now,
		Recipients: list, Content: content, HeaderSize: part.BodyOffset,
	}
	if t.peer.Identity != nil {
		n.Account = t.peer.Identity.Account
	}
	if err := (*notifier).Delivered(context.WithoutCancel(ctx), n); err != nil {
		t.in.log.Error("notification of success could not be sent", "trace", id, "error", err)
	}
}

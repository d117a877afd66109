package intake

import (
	"bytes"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/digest"
	"waxwing/internal/message"
	"waxwing/internal/sieve"
	"waxwing/internal/store"
)

// What scripts have this server write: answers, notifications and refusals. All have the null reverse-path and say that a
// program made them (RFC 3834), and are committed with the message that they are about.

// sendVacation answers the sender (RFC 5230, section 5).
func (f *filtering) sendVacation(own address.Address, v sieve.Vacation) error {
	subject := v.Subject
	if subject == "" {
		subject = "Auto: " + f.part.Header.Text("Subject")
	}
	body := message.PlainText(v.Reason)
	if v.MIME {
		if e := entityOf(v.Reason); e != nil {
			body = e
		}
	}
	return f.send(own, v.From, []address.Address{v.To}, subject, "auto-replied", "", body)
}

// sendNotice sends a notification (RFC 5436).
func (f *filtering) sendNotice(own address.Address, n sieve.Notify) error {
	subject, body := n.Subject, n.Body
	if subject == "" {
		subject = "New mail: " + f.part.Header.Text("Subject")
	}
	if body == "" {
		body = "From: " + f.part.Header.Text("From") + "\nSubject: " + f.part.Header.Text("Subject") + "\n"
	}
	return f.send(own, n.From, n.To, subject, "auto-notified", n.Importance, message.PlainText(body))
}

// sendRefusal tells the sender that one of the recipients refuses the message, which others have got (RFC 5429, section 2.1).
func (f *filtering) sendRefusal(r sieve.Reject) error {
	if f.t.mail.From.IsNull() {
		return nil
	}
	own := address.Address{Local: "MAILER-DAEMON", Domain: f.t.in.opts.Hostname}
	return f.send(own, "", []address.Address{f.t.mail.From}, "Refused: "+f.part.Header.Text("Subject"), "auto-replied", "", message.PlainText(
		"A recipient of your message refuses it:\n您的邮件被一位收件人拒收：\n\n"+r.Reason+"\n"))
}

// send adds a message to the delivery.
func (f *filtering) send(own address.Address, from string, to []address.Address, subject, auto, importance string, body *message.Entity) error {
	b := message.NewBuilder()
	b.Date(f.now)
	sender := message.Address{Local: own.Local, Domain: own.Domain}
	if list := message.ParseAddressList([]byte(from), 1); len(list) == 1 && f.owns(own, list[0]) {
		sender = list[0]
	}
	b.Addresses("From", sender)
	list := make([]message.Address, len(to))
	for i, a := range to {
		list[i] = message.Address{Local: a.Local, Domain: a.Domain}
	}
	b.Addresses("To", list...)
	b.Text("Subject", subject)
	b.MessageID(f.t.in.opts.Hostname)
	b.Raw("Auto-Submitted", auto)
	b.Raw("X-Auto-Response-Suppress", "All")
	if importance == "1" || importance == "3" {
		b.Raw("Importance", map[string]string{"1": "high", "3": "low"}[importance])
	}
	if ids := message.MessageIDs(f.part.Header.Get("Message-ID")); auto == "auto-replied" && len(ids) == 1 && len(ids[0]) < 250 {
		b.Raw("In-Reply-To", "<"+ids[0]+">")
		b.Raw("References", "<"+ids[0]+">")
	}
	b.Body(body)
	raw, err := b.Bytes()
	if err != nil { // a script made it of what can't stand in a message: the mail itself must not suffer
		f.t.in.log.Warn("an answer of a filter script can't be written", "trace", f.id, "error", err)
		return nil
	}
	m := f.queued(address.Address{}, to, int64(len(raw)))
	m.Description = subject
	content := bytes.NewReader(raw)
	f.d.Also = append(f.d.Also, store.Delivery{
		Content: content, Summary: digest.Make(message.ParseBytes(raw), content, int64(len(raw))), Queue: m,
	})
	return nil
}

// owns tells whether a script may send as an address: that of its account, or one in the same domain.
func (f *filtering) owns(own address.Address, a message.Address) bool {
	return strings.EqualFold(a.Domain, own.Domain) && strings.EqualFold(a.Local, own.Local)
}

// entityOf reads a MIME entity that a script gives, of text; nil when it is none.
func entityOf(reason string) *message.Entity {
	raw := []byte(reason)
	p := message.ParseBytes(raw)
	if p.Type != "text" {
		return nil
	}
	var text strings.Builder
	buf := make([]byte, 4096)
	r := p.Text(bytes.NewReader(raw))
	for {
		n, err := r.Read(buf)
		text.Write(buf[:n])
		if err != nil || text.Len() > 1<<20 {
			return message.TextOf("text/"+p.Subtype, text.String())
		}
	}
}

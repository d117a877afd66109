package intake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/digest"
	"waxwing/internal/directory"
	"waxwing/internal/mailrule"
	"waxwing/internal/message"
	"waxwing/internal/routing"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// A journal gets a message once, however many of its recipients it is about, and in the transaction that takes the message in:
// what is accepted is journalled. Copies and reports have the null reverse-path: no sender is ever told what became of them.

// noteJournals notes the journals that a recipient falls under, by its own address or by that of a mailbox where it leads.
func (t *Transaction) noteJournals(to address.Address, route routing.Route) {
	rules := t.in.opts.Directory.RuleSet()
	if !rules.HasJournals() {
		return
	}
	from := address.Address{}
	if t.user() || t.internal { // what a stranger writes as sender says nothing of who sent it
		from = t.mail.From
	}
	t.addJournals(rules.Journals(from, to), to)
	for _, target := range route.Targets {
		if target.Account != nil {
			t.addJournals(rules.Journals(from, target.Account.Address), to)
		}
	}
}

func (t *Transaction) addJournals(list []*mailrule.Journal, to address.Address) {
	for _, j := range list {
		if j.Address().Key() == to.Key() {
			continue // mail to the journal itself
		}
		for _, have := range t.journals {
			if have.Form == j.Form && have.Address().Key() == j.Address().Key() {
				j = nil
				break
			}
		}
		if j != nil {
			t.journals = append(t.journals, j)
		}
	}
}

// journal adds the copies that journals get to the recipients of the message, and returns where reports go.
func (t *Transaction) journal(ctx context.Context) (reports []goal, err error) {
	for _, j := range t.journals {
		route, err := t.in.opts.Routing.Route(ctx, routing.Request{To: j.Address(), From: directory.Sender{Ours: true}})
		if err != nil {
			return nil, t.directoryFailed(err, j.Address())
		}
		if route.Refusal != nil || len(route.Targets) == 0 {
			t.in.log.Error("a journal takes no mail: nothing is accepted that it must have", "journal", j.Name, "to", j.To)
			return nil, smtp.Errorf(451, "4.3.5", "the journal of this message can't be written now, try again later")
		}
		if j.Form == mailrule.FormReport {
			reports = append(reports, goal{j, route.Targets})
			continue
		}
		for _, target := range route.Targets {
			if target.Account != nil {
				t.addLocal(local{account: target.Account.ID, role: target.Role, address: target.Account.Address.String()})
			} else {
				t.addRemote(target.Remote, journalled(target), way{sender: routing.Sender{Replaced: true}})
			}
		}
	}
	return reports, nil
}

// goal is where a report goes.
type goal struct {
	*mailrule.Journal
	targets []routing.Target
}

func journalled(target routing.Target) store.QueueRecipient {
	return store.QueueRecipient{To: target.Remote.String(), Domain: target.Queue, Notify: uint8(smtp.NotifyNever)}
}

// report makes the delivery of a report: a message with the facts of the envelope and the message itself attached.
func (t *Transaction) report(g goal, part *message.Part, content store.Content, id string, now time.Time) (store.Delivery, error) {
	raw := t.reportContent(g, part, content, id, now)
	limits := message.DefaultLimits
	limits.HeaderBytes = 2 * t.in.limits.HeaderBytes
	own, err := message.Parse(raw, raw.Size(), limits)
	if err != nil {
		t.in.log.Error("a journal's report can't be read", "trace", id, "error", err)
		return store.Delivery{}, replyStore
	}
	d := store.Delivery{Content: raw, Summary: digest.Make(own, raw, raw.Size())}
	queued := &store.QueueMessage{
		TraceID: id, Body: string(smtp.Body7Bit), Size: raw.Size(), Created: now, Description: "journal " + g.Name, UTF8: t.needsUTF8(part),
	}
	if t.spool.seen.Facts().Eight() || queued.UTF8 || t.named8() {
		queued.Body = string(smtp.Body8Bit)
	}
	for _, target := range g.targets {
		if target.Account != nil {
			d.Local = append(d.Local, store.NewEntry{Account: target.Account.ID, Role: target.Role, InternalDate: now, IgnoreQuota: true})
			continue
		}
		r := journalled(target)
		r.State, r.NextAttempt = store.QueueWaiting, now
		queued.Recipients = append(queued.Recipients, r)
	}
	if len(queued.Recipients) > 0 {
		d.Queue = queued
	}
	return d, nil
}

// named8 tells whether an address of the envelope isn't ASCII.
func (t *Transaction) named8() bool {
	eight := !t.mail.From.ASCII()
	for i := range t.rcpts {
		eight = eight || !t.rcpts[i].to.ASCII()
	}
	return eight
}

// reportContent writes a report. Its header repeats the trace of the message, so that one that comes back to be journalled again
// ends at the limit of hops like any message that goes round.
func (t *Transaction) reportContent(g goal, part *message.Part, content store.Content, id string, now time.Time) store.Content {
	boundary := "journal-" + id + "-" + g.Name
	host := t.in.opts.Hostname
	var b bytes.Buffer
	for i := range part.Header {
		if f := &part.Header[i]; f.Is("Received") {
			b.Write(f.Raw)
		}
	}
	fmt.Fprintf(&b, "From: Journal <postmaster@%s>\r\nTo: <%s>\r\n", host, g.To)
	subject := strings.ToValidUTF8(description(part), "?")
	fmt.Fprintf(&b, "Subject: %s\r\n", mime.QEncoding.Encode("utf-8", "Journal: "+subject))
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <journal.%s.%s@%s>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n", now.Format(dateFormat), id, g.Name, host)
	fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n", boundary)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", boundary)
	fmt.Fprintf(&b, "Journal: %s\r\nTrace: %s\r\nTime: %s\r\n", g.Name, id, now.UTC().Format(time.RFC3339))
	if t.peer.Remote.IsValid() {
		fmt.Fprintf(&b, "Client: %s\r\n", t.peer.Remote.Addr())
	}
	fmt.Fprintf(&b, "Signed in: %v\r\nSender: <%s>\r\n", t.peer.Identity != nil, t.mail.From)
	for i := range t.rcpts {
		fmt.Fprintf(&b, "Recipient: <%s>\r\n", t.rcpts[i].to)
	}
	encoding := "7bit"
	if t.spool.seen.Facts().Eight() {
		encoding = "8bit"
	}
	fmt.Fprintf(&b, "\r\n--%s\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: %s\r\nContent-Disposition: attachment\r\n\r\n", boundary, encoding)
	return tailed{message.Splice(b.Bytes(), content, 0, content.Size()), "\r\n--" + boundary + "--\r\n"}
}

// tailed is a content with some octets behind it.
type tailed struct {
	store.Content
	tail string
}

// Size implements store.Content.
func (c tailed) Size() int64 { return c.Content.Size() + int64(len(c.tail)) }

// ReadAt implements store.Content.
func (c tailed) ReadAt(b []byte, off int64) (int, error) {
	n, own := 0, c.Content.Size()
	if off < own {
		m := min(int64(len(b)), own-off)
		var err error
		if n, err = c.Content.ReadAt(b[:m], off); n < int(m) {
			return n, err
		}
	}
	if n == len(b) {
		return n, nil
	}
	m, err := strings.NewReader(c.tail).ReadAt(b[n:], off+int64(n)-own)
	if err == nil && off+int64(n+m) == c.Size() && n+m < len(b) {
		err = io.EOF
	}
	return n + m, err
}

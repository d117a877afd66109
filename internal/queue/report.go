package queue

import (
	"context"
	"errors"
	"io"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/intake"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/trace"
	"waxwing/internal/transport"
)

// reportPatience is how long after the end of a message's life its sender is still told, when that does not work at once.
const reportPatience = 24 * time.Hour

// maxHeaderReturned bounds the header that a notification brings back.
const maxHeaderReturned = 64 << 10

// report tells the sender what finally became of recipients, and removes their rows when that is committed.
func (q *Queue) report(ctx context.Context, domain string, m *store.QueueMessage, rs []store.QueueRecipient) {
	var failed, relayed []store.QueueRecipient
	for _, r := range rs {
		if r.Outcome == store.QueueRelayed {
			relayed = append(relayed, r)
		} else {
			failed = append(failed, r)
		}
	}
	now := q.o.Clock()
	results := make([]store.QueueResult, 0, len(rs))
	for _, group := range []struct {
		kind Kind
		rs   []store.QueueRecipient
	}{{Failed, failed}, {Relayed, relayed}} {
		if len(group.rs) == 0 {
			continue
		}
		done := q.tell(ctx, m, group.kind, group.rs, now)
		for _, r := range group.rs {
			res := resultFor(m.ID, domain, r)
			res.Done = done || now.After(m.Expires.Add(reportPatience)) && q.mayExpire(now)
			res.NextAttempt = now.Add(q.backoff(r.Attempts))
			if res.Done && !done {
				q.o.Logger.Error("queue: a notification was given up", "trace", m.TraceID, "queue", m.ID, "from", m.From, "to", r.To)
			}
			results = append(results, res)
		}
	}
	q.finish(ctx, results)
}

// warn tells the sender that recipients still wait; false when that could not be done now.
func (q *Queue) warn(ctx context.Context, m *store.QueueMessage, rs []store.QueueRecipient, now time.Time) bool {
	return q.tell(ctx, m, Delayed, rs, now)
}

// tell makes and injects one notification about recipients of one message. It is true when nothing is left to do: also
// when the sender can't be told at all.
func (q *Queue) tell(ctx context.Context, m *store.QueueMessage, kind Kind, rs []store.QueueRecipient, now time.Time) bool {
	log := q.o.Logger.With("kind", kind.String(), "trace", m.TraceID, "queue", m.ID, "from", m.From)
	if m.From == "" { // never about a notification: RFC 3461, section 6.2
		return true
	}
	to, err := address.Parse(m.From)
	if err != nil {
		log.Error("queue: the sender can't be told, its address can't be read", "error", err)
		return true
	}
	n := Notification{
		Kind: kind, Hostname: q.o.Hostname, To: to, Now: now, TraceID: m.TraceID, EnvID: m.EnvID, Arrived: m.Created,
		Expires: m.Expires, UTF8: m.UTF8,
	}
	for _, r := range rs {
		n.Recipients = append(n.Recipients, q.described(kind, r))
	}
	if blob, err := q.o.Store.OpenBlobID(ctx, m.Blob); err == nil {
		err = q.attach(&n, m, kind, blob)
		_ = blob.Close() // it was only read
		if err != nil {
			log.Warn("queue: the message that a notification is about can't be read", "error", err)
		}
	} else {
		log.Warn("queue: the message that a notification is about can't be opened", "error", err)
	}
	raw, err := n.Compose()
	if err != nil {
		log.Error("queue: a notification can't be made", "error", err)
		return true
	}
	err = q.o.Injector.Inject(trace.WithCause(ctx, m.TraceID), to, raw)
	var refusal *smtp.Reply
	switch {
	case err == nil:
		q.counters.reports.Add(1)
		if q.o.Metrics.Report != nil {
			q.o.Metrics.Report(kind)
		}
		log.Info("queue: notification sent", "recipients", len(rs))
		return true
	case errors.As(err, &refusal) && refusal.Permanent():
		log.Warn("queue: the sender of a message takes no notification", "error", err)
		return true
	}
	log.Error("queue: a notification can't be sent now", "error", err)
	return false
}

// described is a recipient's row as a notification needs it.
func (q *Queue) described(kind Kind, r store.QueueRecipient) NotifiedRecipient {
	status, ok := smtp.ParseEnhanced(r.LastStatus)
	switch {
	case kind == Relayed:
		status = smtp.Enhanced{Class: 2, Subject: status.Subject, Detail: status.Detail}
	case !ok && r.Outcome == store.QueueFailed:
		status = smtp.Enhanced{Class: 5}
	case !ok || r.Outcome == store.QueueExpired && status.Subject == 0:
		status = smtp.Enhanced{Class: 4, Subject: 4, Detail: 7} // RFC 3463, section 3.5: delivery time expired
	}
	return NotifiedRecipient{
		To: r.To, ORcpt: r.ORcpt, Status: status, Diagnostic: r.LastError, Host: r.LastHost, LastAttempt: r.LastAttempt,
		Expired: r.Outcome == store.QueueExpired,
	}
}

// attach adds the header or the whole of the original, as the sender asked (RET; RFC 3461, section 6.2 h: the whole only
// for failures). What was sent with REQUIRETLS is never returned whole (RFC 8689, section 5).
func (q *Queue) attach(n *Notification, m *store.QueueMessage, kind Kind, blob store.Blob) error {
	whole, err := outgoing(m, blob)
	if err != nil {
		return err
	}
	if kind == Failed && m.Ret == "FULL" && smtp.TLSNeed(m.TLS) != smtp.TLSRequired && whole.Size() <= q.p.MaxReturn {
		raw := make([]byte, whole.Size())
		if _, err := io.ReadFull(io.NewSectionReader(whole, 0, whole.Size()), raw); err == nil {
			n.Original, n.Whole = raw, true
			return nil
		}
	}
	n.Original = headerOf(whole, whole.Size())
	return nil
}

// headerOf reads the header of a message, without its blank line; a longer one is cut at a line.
func headerOf(r io.ReaderAt, size int64) []byte {
	buf := make([]byte, min(size, maxHeaderReturned))
	n, _ := io.ReadFull(io.NewSectionReader(r, 0, size), buf) // as much as can be read
	header := cutHeader(buf[:n], int64(n) < size)
	return header[returnPath(header):]
}

// Delivered writes to the sender of a message that it came into mailboxes here (it implements intake.Notifier).
func (q *Queue) Delivered(in intake.Notice) ([]byte, error) {
	to, err := address.Parse(in.From)
	if err != nil {
		return nil, err
	}
	n := Notification{
		Kind: Delivered, Hostname: q.o.Hostname, To: to, Now: q.o.Clock(), TraceID: in.TraceID, EnvID: in.EnvID,
		Arrived: in.Arrived, UTF8: in.UTF8, Original: headerOf(in.Content, min(in.HeaderSize, in.Content.Size())),
	}
	for _, r := range in.Recipients {
		n.Recipients = append(n.Recipients, NotifiedRecipient{
			To: r.To, ORcpt: r.ORcpt, Status: smtp.Enhanced{Class: 2, Subject: 1, Detail: 5}, Action: r.Action,
		})
	}
	raw, err := n.Compose()
	if err != nil {
		return nil, err
	}
	q.counters.reports.Add(1)
	if q.o.Metrics.Report != nil {
		q.o.Metrics.Report(Delivered)
	}
	return raw, nil
}

var _ intake.Notifier = (*Queue)(nil)

var _ Link = (*transport.Link)(nil)

package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/bounce"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

// work goes through one unit and returns the link that it used, if any.
func (q *Queue) work(ctx context.Context, w store.QueueWork, link Link) Link {
	alive, done := q.o.Store.WhileLeased(ctx)
	defer done()
	leased := q.o.Clock()
	for i := range w.Messages {
		m := &w.Messages[i]
		now := q.o.Clock()
		rest, resting := q.resting(w.Domain)
		paused := q.isPaused(w.Domain)
		if !resting && !paused {
			rest = q.takeToken(w.Domain)
			resting = !rest.IsZero()
		}
		if q.running.Err() != nil || alive.Err() != nil || resting || paused {
			q.giveBack(ctx, w, i, rest)
			return link
		}
		if now.Sub(leased) > q.p.Lease/3 || now.Before(leased) {
			if err := q.extend(ctx, w, i, now); err != nil { // the lease may run out: better to do less than to do twice
				q.o.Logger.Error("queue: leases can't be extended", "destination", w.Domain, "error", err)
				q.giveBack(ctx, w, i, time.Time{})
				return link
			}
			leased = now
		}
		link = q.message(ctx, alive, w.Domain, m, link)
	}
	return link
}

// giveBack ends the leases of the messages from i on, untried.
func (q *Queue) giveBack(ctx context.Context, w store.QueueWork, i int, next time.Time) {
	if next.IsZero() {
		next = q.o.Clock()
	}
	var results []store.QueueResult
	for _, m := range w.Messages[i:] {
		for _, r := range m.Recipients {
			res := resultFor(m.ID, w.Domain, r)
			res.Unattempted, res.NextAttempt = true, next
			results = append(results, res)
		}
	}
	q.finish(ctx, results)
	if next.After(q.o.Clock()) {
		if err := q.o.Store.QueueRest(context.WithoutCancel(ctx), w.Domain, next); err != nil {
			q.o.Logger.Error("queue: a destination can't be rested", "destination", w.Domain, "error", err)
		}
	}
}

func (q *Queue) extend(ctx context.Context, w store.QueueWork, i int, now time.Time) error {
	var leased []store.QueueRecipient
	for _, m := range w.Messages[i:] {
		leased = append(leased, m.Recipients...)
	}
	lost, err := q.o.Store.QueueExtend(ctx, leased, now.Add(q.p.Lease))
	if err == nil && lost > 0 {
		err = fmt.Errorf("%d of %d were lost", lost, len(leased))
	}
	return err
}

func resultFor(id store.QueueID, domain string, r store.QueueRecipient) store.QueueResult {
	return store.QueueResult{
		Message: id, ID: r.ID, Domain: domain, Lane: r.Lane, Lease: r.Lease, Outcome: r.Outcome,
		LastError: r.LastError, LastStatus: r.LastStatus, LastHost: r.LastHost, Category: r.Category, Provider: r.Provider, Pool: r.Pool,
		DelayWarned: r.DelayWarned,
	}
}

// finish commits results. They must not be lost, for what was delivered would be delivered again: while the store has
// trouble it is asked again and again, until the attempts' context ends.
func (q *Queue) finish(ctx context.Context, results []store.QueueResult) {
	if len(results) == 0 {
		return
	}
	for wait := time.Second; ; wait = min(2*wait, poll) {
		err := q.commit(ctx, results)
		if err == nil || errors.Is(err, store.ErrClosed) || !q.sleep(ctx, wait) {
			return // after an error the leases run out, and all of it is tried again
		}
	}
}

// commit tries once to commit results.
func (q *Queue) commit(ctx context.Context, results []store.QueueResult) error {
	lost, err := q.o.Store.QueueFinish(context.WithoutCancel(ctx), q.o.Clock(), results)
	if err != nil {
		q.o.Logger.Error("queue: results can't be committed", "recipients", len(results), "error", err)
	} else if lost > 0 {
		q.counters.lost.Add(int64(lost))
		q.o.Logger.Warn("queue: leases were lost before their attempt ended", "recipients", lost)
	}
	return err
}

// message deals with one message: recipients whose outcome is decided are reported, the others are tried. The attempt ends with
// alive, what it brought is committed under ctx.
func (q *Queue) message(ctx, alive context.Context, domain string, m *store.QueueMessage, link Link) Link {
	var open, decided []store.QueueRecipient
	for _, r := range m.Recipients {
		if r.Outcome == store.QueueOpen {
			open = append(open, r)
		} else {
			decided = append(decided, r)
		}
	}
	if len(decided) > 0 {
		q.report(ctx, domain, m, decided)
	}
	if len(open) > 0 && tooLate(m, q.o.Clock()) {
		q.settle(ctx, domain, m, open, overdueResults(len(open)), 0)
		return link
	}
	if open = q.withheld(ctx, domain, m, open); len(open) == 0 {
		return link
	}
	if reason := q.damaged(m, open); reason != "" {
		q.aside(ctx, m, open, reason)
		return link
	}
	content, err := q.o.Store.OpenQueued(ctx, m)
	if err != nil {
		q.unreadable(ctx, domain, m, open, err)
		return link
	}
	defer func() { _ = content.Close() }() // it was only read
	whole, err := outgoing(m, content)
	if err != nil {
		q.unreadable(ctx, domain, m, open, err)
		return link
	}
	from, wait := q.chooseSource(m, domain, viaOf(link), q.o.Clock())
	if wait { // for the next day of the warm-up plan
		q.untried(ctx, domain, m, open, nextDay(q.o.Clock()).Add(q.jitter(q.p.RetryMin)))
		return link
	}
	if link == nil || !link.Retarget(domain, from.via) {
		if link != nil {
			link.Close()
		}
		link = q.o.Transport.Link(domain, from.via)
	}
	out := &transport.Message{
		From: m.From, Body: smtp.BodyType(m.Body), UTF8: m.UTF8, Ret: m.Ret, EnvID: m.EnvID, TLS: smtp.TLSNeed(m.TLS), Content: whole,
		DeliverBy: m.DeliverBy, By: smtp.ParseByLetters(m.ByMode), Priority: m.Priority,
	}
	for _, r := range open {
		out.Recipients = append(out.Recipients, transport.Recipient{
			To: r.To, Notify: smtp.Notify(r.Notify), ORcpt: r.ORcpt, ValidSince: r.ValidSince,
		})
	}
	began := q.o.Clock()
	actx, cancel := context.WithTimeout(alive, q.p.Lease*2/3) // the lease must outlast the attempt
	results := link.Deliver(actx, out)
	cancel()
	for i := range open {
		open[i].Pool = from.pool
	}
	q.settle(ctx, domain, m, open, results, q.o.Clock().Sub(began))
	return link
}

// damaged tells what is wrong with rows that could be read but can't have been written like this.
func (q *Queue) damaged(m *store.QueueMessage, rs []store.QueueRecipient) string {
	if m.From != "" {
		if _, err := address.Parse(m.From); err != nil {
			return fmt.Sprintf("the reverse-path is no address: %v", err)
		}
	}
	for _, r := range rs {
		if _, err := address.Parse(r.To); err != nil {
			return fmt.Sprintf("the forward-path of recipient %d is no address: %v", r.ID, err)
		}
	}
	return ""
}

func (q *Queue) aside(ctx context.Context, m *store.QueueMessage, rs []store.QueueRecipient, reason string) {
	ids := make([]store.RecipientID, len(rs))
	for i, r := range rs {
		ids[i] = r.ID
	}
	if err := q.o.Store.QueueSetAside(context.WithoutCancel(ctx), ids, reason); err != nil {
		q.o.Logger.Error("queue: a damaged message can't be set aside", "queue", m.ID, "trace", m.TraceID, "error", err)
		return
	}
	q.setAside(len(ids), reason, "queue", m.ID, "trace", m.TraceID)
}

// unreadable deals with content that can't be read: damaged content is set aside, anything else may pass.
func (q *Queue) unreadable(ctx context.Context, domain string, m *store.QueueMessage, rs []store.QueueRecipient, err error) {
	if errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound) {
		q.aside(ctx, m, rs, fmt.Sprintf("the content can't be read: %v", err))
		return
	}
	q.o.Logger.Error("queue: content can't be read now", "queue", m.ID, "trace", m.TraceID, "error", err)
	q.untried(ctx, domain, m, rs, q.o.Clock().Add(q.backoff(rs[0].Attempts)))
}

// untried gives recipients back until a later time, as if they had not been taken.
func (q *Queue) untried(ctx context.Context, domain string, m *store.QueueMessage, rs []store.QueueRecipient, next time.Time) {
	results := make([]store.QueueResult, len(rs))
	for i, r := range rs {
		results[i] = resultFor(m.ID, domain, r)
		results[i].Unattempted = true
		results[i].NextAttempt = next
	}
	q.finish(ctx, results)
}

// settle commits what an attempt brought.
func (q *Queue) settle(ctx context.Context, domain string, m *store.QueueMessage, rs []store.QueueRecipient, results []transport.Result, took time.Duration) {
	now := q.o.Clock()
	var commit []store.QueueResult
	var late []store.QueueRecipient // of whose delay the sender is to be told
	rest := time.Time{}
	for i, r := range rs {
		tr := &results[i]
		if tr.Err != nil && (errors.Is(tr.Err, store.ErrCorrupt) || errors.Is(tr.Err, store.ErrNotFound)) {
			q.aside(ctx, m, rs[i:i+1], fmt.Sprintf("the content can't be read: %v", tr.Err))
			continue
		}
		v := verdict(tr)
		rest = q.adapt(domain, tr, v, rest)
		res := q.judge(m, domain, r, tr, v, now)
		if !res.Done && res.Outcome == store.QueueOpen && q.isLate(m, r, now) {
			res.DelayWarned = true
			r.LastError, r.LastStatus, r.LastHost, r.LastAttempt = res.LastError, res.LastStatus, res.LastHost, now
			late = append(late, r)
		}
		q.count(m, r, tr, res, took)
		if tr.Status == transport.Delivered && res.Done {
			q.delivered(ctx, res)
			continue
		}
		commit = append(commit, res)
	}
	if len(late) > 0 && !q.warn(ctx, m, late, now) {
		for i := range commit { // the sender is told after the next attempt
			commit[i].DelayWarned = commit[i].DelayWarned && wasWarned(rs, commit[i].ID)
		}
	}
	q.finish(ctx, commit)
	if rest.After(now) {
		if err := q.o.Store.QueueRest(context.WithoutCancel(ctx), domain, rest); err != nil {
			q.o.Logger.Error("queue: a destination can't be rested", "destination", domain, "error", err)
		}
	}
}

func wasWarned(rs []store.QueueRecipient, id store.RecipientID) bool {
	for _, r := range rs {
		if r.ID == id {
			return r.DelayWarned
		}
	}
	return false
}

// judge turns the result of an attempt into what becomes of the row. Where the sender must be told, the outcome is
// committed first and the row is due at once: the next worker that takes it makes the report.
func (q *Queue) judge(m *store.QueueMessage, domain string, r store.QueueRecipient, tr *transport.Result, v bounce.Verdict, now time.Time) store.QueueResult {
	res := resultFor(m.ID, domain, r)
	res.NextAttempt = now
	res.LastError, res.LastStatus, res.LastHost = tr.Message, tr.Enhanced.String(), where(tr)
	res.Category, res.Provider = string(v.Category), v.Provider
	res.To, res.Failure = r.To, q.failure(m, tr, v)
	notify := smtp.Notify(r.Notify)
	switch {
	case tr.Status == transport.Delivered:
		asked := notify&smtp.NotifySuccess != 0 && !tr.Notifies || tr.Relayed && notify != smtp.NotifyNever
		if asked && m.From != "" {
			res.Outcome = store.QueueRelayed
		} else {
			res.Done = true
		}
		return res
	case tr.Status == transport.Failed:
		res.Outcome = store.QueueFailed
	case !now.Before(m.Expires) && q.mayExpire(now):
		res.Outcome = store.QueueExpired
	default:
		res.NextAttempt = nextTry(m, now, now.Add(q.backoff(r.Attempts)))
		return res
	}
	if m.From == "" || notify&smtp.NotifyNever != 0 || (notify != smtp.NotifyDefault && notify&smtp.NotifyFailure == 0) {
		res.Done = true
	}
	return res
}

// verdict is what the result of an attempt is about.
func verdict(tr *transport.Result) bounce.Verdict {
	if tr.Status == transport.Delivered {
		return bounce.Verdict{Provider: bounce.Provider(tr.Host)}
	}
	text := tr.Reply
	if text == "" {
		text = tr.Message
	}
	return bounce.Classify(bounce.Reply{Code: tr.Code, Enhanced: tr.Enhanced, Text: text, Stage: tr.Stage, Host: tr.Host})
}

// isLate tells whether the sender is to be told that a recipient still waits (RFC 3461, section 4.1: DELAY).
func (q *Queue) isLate(m *store.QueueMessage, r store.QueueRecipient, now time.Time) bool {
	notify := smtp.Notify(r.Notify)
	return !r.DelayWarned && m.From != "" && q.overdue(m, now) &&
		(notify == smtp.NotifyDefault || notify&smtp.NotifyDelay != 0)
}

// where names the server of a result, for the row, the report and the log.
func where(tr *transport.Result) string {
	if tr.Host == "" || !tr.IP.IsValid() {
		return tr.Host
	}
	if strings.HasPrefix(tr.Host, "[") {
		return tr.Host
	}
	return tr.Host + " [" + tr.IP.Addr().Unmap().String() + "]"
}

// count keeps the numbers and writes the log line that tells the life of a recipient.
func (q *Queue) count(m *store.QueueMessage, r store.QueueRecipient, tr *transport.Result, res store.QueueResult, took time.Duration) {
	q.tellAttempt(m, r, tr, res, took)
	status := tr.Status.String()
	switch {
	case tr.Status == transport.Delivered:
		q.counters.delivered.Add(1)
	case tr.Status == transport.Failed:
		q.counters.failed.Add(1)
	case res.Outcome == store.QueueExpired:
		status = "expired"
		q.counters.expired.Add(1)
	default:
		q.counters.deferred.Add(1)
	}
	if q.o.Metrics.Attempt != nil {
		q.o.Metrics.Attempt(tr.Status, took)
	}
	if q.o.Metrics.Failed != nil && tr.Status == transport.Failed && m.Account != 0 {
		q.o.Metrics.Failed(m.Account)
	}
	if q.o.Metrics.Outcome != nil {
		q.o.Metrics.Outcome(tr.Status, res.Category, res.Provider)
	}
	args := []any{
		"status", status, "trace", m.TraceID, "queue", m.ID, "from", m.From, "to", r.To, "host", where(tr), "stage", tr.Stage,
		"reply", tr.Message, "code", tr.Enhanced.String(), "policy", tr.TLS.Policy, "tls", tr.TLS.String(), "attempt", r.Attempts, "took", took,
	}
	if !res.Done && res.Outcome == store.QueueOpen {
		args = append(args, "next", res.NextAttempt)
	}
	if res.Category != "" {
		args = append(args, "category", res.Category, "provider", res.Provider)
	}
	if tr.TLS.Problem != "" {
		args = append(args, "tls_problem", tr.TLS.Problem)
	}
	q.o.Logger.Info("queue: attempt", args...)
}

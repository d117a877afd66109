package queue

import (
	"context"
	"fmt"
	"time"

	"waxwing/internal/bounce"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

// withheld deals with recipients that are not tried: those of senders that are paused are held, those that are suppressed fail. It
// returns the others.
func (q *Queue) withheld(ctx context.Context, domain string, m *store.QueueMessage, rs []store.QueueRecipient) []store.QueueRecipient {
	sender := senderDomain(m.From)
	if what := PauseFrom + sender; sender != "" && q.rules.Load().isPaused(what) {
		results := make([]store.QueueResult, len(rs))
		for i, r := range rs {
			results[i] = resultFor(m.ID, domain, r)
			results[i].Unattempted, results[i].HoldFor = true, what
		}
		q.finish(ctx, results)
		return nil
	}
	var open, dead []store.QueueRecipient
	var why []transport.Result
	for _, r := range rs {
		x, suppressed, err := q.o.Store.QueueSuppressed(ctx, r.To, sender, q.o.Clock())
		if err != nil { // mail goes on: the server there will say what it thinks
			q.o.Logger.Error("queue: suppressed addresses can't be looked at", "error", err)
		}
		if !suppressed {
			open = append(open, r)
			continue
		}
		dead = append(dead, r)
		why = append(why, transport.Result{
			Status: transport.Failed, Enhanced: smtp.Enhanced{Class: 5, Subject: 7, Detail: 1}, Message: SuppressedText(x), Stage: bounce.StageSuppressed,
		})
	}
	if len(dead) > 0 {
		q.settle(ctx, domain, m, dead, why, 0)
	}
	return open
}

// SuppressedText says why nothing is sent to an address.
func SuppressedText(x store.Suppression) string {
	return fmt.Sprintf("nothing is sent to this address since %s: %s", x.Since.UTC().Format(time.DateOnly), x.Reason)
}

// failure is what a result says about its address; nil when it says nothing against it.
func (q *Queue) failure(m *store.QueueMessage, tr *transport.Result, v bounce.Verdict) *store.QueueFailure {
	if tr.Status != transport.Failed || v.Action != bounce.Hard || m.From == "" {
		return nil
	}
	p := q.o.Suppress()
	if p.After <= 0 {
		return nil
	}
	return &store.QueueFailure{Sender: senderDomain(m.From), Reason: tr.Message, After: p.After, Within: p.Within, For: p.For}
}

// adapt takes in what a result says about the next hop, and returns until when the destination rests, rest when it says nothing.
func (q *Queue) adapt(domain string, tr *transport.Result, v bounce.Verdict, rest time.Time) time.Time {
	if tr.Host != "" {
		q.learnProvider(domain, v.Provider)
	}
	switch {
	case tr.Unreachable:
		return q.unreachable(domain)
	case v.Action == bounce.PutOff && tr.Host != "":
		if until := q.putOff(domain); until.After(rest) {
			return until
		}
	case tr.Host != "" && tr.Err == nil:
		q.reached(domain)
	}
	return rest
}

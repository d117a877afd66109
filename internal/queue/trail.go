package queue

import (
	"strconv"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/trace"
	"waxwing/internal/transport"
)

// tellAttempt adds an attempt to the trace of its message.
func (q *Queue) tellAttempt(m *store.QueueMessage, r store.QueueRecipient, tr *transport.Result, res store.QueueResult, took time.Duration) {
	if q.o.Trace == nil {
		return
	}
	step := trace.Step{
		At: q.o.Clock(), Kind: trace.Attempt, Outcome: outcomeOf(tr, res), Address: r.To, Host: tr.Host,
		Data: []trace.Pair{
			{Name: "attempt", Value: strconv.Itoa(r.Attempts)},
			{Name: "took", Value: took.Round(time.Millisecond).String()},
			{Name: trace.QueueID, Value: strconv.FormatInt(int64(m.ID), 10)},
		},
	}
	if isReply(tr.Message) {
		step.Reply = tr.Message
	} else {
		step.Reason = tr.Message
	}
	if tr.IP.IsValid() {
		step.Remote = tr.IP.String()
	}
	add := func(name, value string) {
		if value != "" {
			step.Data = append(step.Data, trace.Pair{Name: name, Value: value})
		}
	}
	add("code", tr.Enhanced.String())
	add("stage", tr.Stage)
	add("category", res.Category)
	if res.Category != "" {
		add("provider", res.Provider)
	}
	add("tls", tr.TLS.String())
	add("tls-problem", tr.TLS.Problem)
	if step.Outcome == trace.Deferred {
		add(trace.NextTry, res.NextAttempt.UTC().Format(time.RFC3339))
	}
	q.o.Trace.Record(m.TraceID, step)
}

// outcomeOf is what an attempt decided about its recipient.
func outcomeOf(tr *transport.Result, res store.QueueResult) trace.Outcome {
	switch {
	case tr.Status == transport.Delivered:
		return trace.Delivered
	case tr.Status == transport.Failed:
		return trace.Bounced
	case res.Outcome == store.QueueExpired:
		return trace.Expired
	}
	return trace.Deferred
}

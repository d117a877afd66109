package control

import (
	"context"
	"strconv"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/trace"
)

// Operations on traces: what became of messages.
var (
	TraceFind   = operation("trace.find", (*Service).traceFind)
	TraceShow   = operation("trace.show", (*Service).traceShow)
	TraceFollow = operation("trace.follow", (*Service).traceFollow)
)

// TraceQuery asks for traces: all that is set must fit.
type TraceQuery struct {
	Address   string    `json:"address,omitempty"` // of anybody
	From      string    `json:"from,omitempty"`
	To        string    `json:"to,omitempty"`
	Domain    string    `json:"domain,omitempty"`
	MessageID string    `json:"message_id,omitempty"`
	Host      string    `json:"host,omitempty"`
	Remote    string    `json:"remote,omitempty"` // IP address
	Status    []string  `json:"status,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Before    string    `json:"before,omitempty"` // the next of the page before
	Limit     int       `json:"limit,omitempty"`
}

// TracePage is a page of traces, the newest first.
type TracePage struct {
	Traces []TraceSummary `json:"traces"`
	Next   string         `json:"next,omitempty"` // to be given as Before; "" at the end
}

// TraceSummary is a trace in short.
type TraceSummary struct {
	ID        string      `json:"id"`
	Time      time.Time   `json:"time"`
	Remote    string      `json:"remote,omitempty"`
	From      string      `json:"from"` // "" for the null reverse-path, or none
	To        []string    `json:"to,omitempty"`
	MessageID string      `json:"message_id,omitempty"`
	Subject   string      `json:"subject,omitempty"`
	Size      int64       `json:"size,omitempty"`
	Fates     []TraceFate `json:"fates,omitempty"`
}

// TraceFate is what became of one recipient.
type TraceFate struct {
	Address string    `json:"address,omitempty"` // "" for the whole message or connection
	Status  string    `json:"status"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason,omitempty"`
	Reply   string    `json:"reply,omitempty"`
}

// TraceStep is one step.
type TraceStep struct {
	Time    time.Time         `json:"time"`
	Kind    string            `json:"kind"`
	Status  string            `json:"status,omitempty"` // "" when the step decided nothing
	Address string            `json:"address,omitempty"`
	Host    string            `json:"host,omitempty"`
	Remote  string            `json:"remote,omitempty"`
	Reason  string            `json:"reason,omitempty"`
	Reply   string            `json:"reply,omitempty"`
	Data    map[string]string `json:"data,omitempty"`
}

// TraceStory is a whole trace.
type TraceStory struct {
	TraceSummary
	Steps []TraceStep    `json:"steps"`
	Queue *QueuedMessage `json:"queue,omitempty"` // what still waits of it
}

// TraceRef names a trace.
type TraceRef struct {
	ID string `json:"id"`
}

func summaryOf(t *trace.Trace) TraceSummary {
	out := TraceSummary{
		ID: t.ID, Time: t.Began(), Remote: t.Remote(), From: t.Sender(), To: t.Recipients(),
		MessageID: t.Fact(trace.MessageID), Subject: t.Fact(trace.Subject),
	}
	out.Size, _ = strconv.ParseInt(t.Fact(trace.Size), 10, 64) // 0 when it isn't known
	for _, f := range t.Fates() {
		out.Fates = append(out.Fates, TraceFate{
			Address: f.Address, Status: f.Outcome.String(), Time: f.Step.At, Reason: f.Step.Reason, Reply: f.Step.Reply,
		})
	}
	return out
}

func shownStep(s *trace.Step) TraceStep {
	out := TraceStep{
		Time: s.At, Kind: s.Kind.String(), Address: s.Address, Host: s.Host, Remote: s.Remote, Reason: s.Reason, Reply: s.Reply,
	}
	if s.Outcome != trace.Passed {
		out.Status = s.Outcome.String()
	}
	for _, p := range s.Data {
		if out.Data == nil {
			out.Data = make(map[string]string, len(s.Data))
		}
		out.Data[p.Name] = p.Value
	}
	return out
}

func (q *TraceQuery) filter() (trace.Filter, error) {
	f := trace.Filter{
		Address: q.Address, From: q.From, To: q.To, Domain: q.Domain, MessageID: q.MessageID, Host: q.Host, Remote: q.Remote,
		Since: q.Since, Until: q.Until, Before: q.Before, Limit: q.Limit,
	}
	for _, name := range q.Status {
		o, ok := trace.ParseOutcome(name)
		if !ok {
			return f, &Error{Kind: Invalid, Field: "status", Text: "status: one of delivered, junked, rejected, deferred, bounced, held, expired, waiting, dropped"}
		}
		f.Outcomes = append(f.Outcomes, o)
	}
	if q.Before != "" {
		if _, ok := trace.TimeOf(q.Before); !ok {
			return f, &Error{Kind: Invalid, Field: "before", Text: "before: no id of a trace"}
		}
	}
	return f, nil
}

func (s *Service) traceFind(ctx context.Context, req TraceQuery) (TracePage, error) {
	f, err := req.filter()
	if err != nil {
		return TracePage{}, err
	}
	page, err := trace.Find(ctx, s.store, f)
	if err != nil {
		return TracePage{}, err
	}
	out := TracePage{Traces: make([]TraceSummary, len(page.Traces)), Next: page.Next}
	for i := range page.Traces {
		out.Traces[i] = summaryOf(&page.Traces[i])
	}
	return out, nil
}

func (s *Service) traceShow(ctx context.Context, req TraceRef) (TraceStory, error) {
	t, err := trace.Load(ctx, s.store, req.ID)
	if err != nil {
		return TraceStory{}, err
	}
	out := TraceStory{TraceSummary: summaryOf(&t), Steps: make([]TraceStep, len(t.Steps))}
	for i := range t.Steps {
		out.Steps[i] = shownStep(&t.Steps[i])
	}
	out.Queue = s.stillQueued(ctx, &t)
	return out, nil
}

// stillQueued is what waits of a message in the queue, nil when nothing does.
func (s *Service) stillQueued(ctx context.Context, t *trace.Trace) *QueuedMessage {
	for i := range t.Steps {
		id, err := strconv.ParseInt(t.Steps[i].Get(trace.QueueID), 10, 64)
		if err != nil {
			continue
		}
		m, err := s.store.QueueMessage(ctx, store.QueueID(id))
		if err != nil || m.TraceID != t.ID {
			return nil // it has gone; a damaged row is shown by `queue list`
		}
		shown := shownQueued(m)
		return &shown
	}
	return nil
}

// TraceFollowing asks for what happens after a place.
type TraceFollowing struct {
	Place int64 `json:"place"` // -1: now
}

// TraceHappenings is what happened.
type TraceHappenings struct {
	Happenings []TraceHappening `json:"happenings"`
	Place      int64            `json:"place"`            // to go on from
	Missed     int64            `json:"missed,omitempty"` // more happened than could be shown
}

// TraceHappening is steps of one trace.
type TraceHappening struct {
	ID    string      `json:"id"`
	Steps []TraceStep `json:"steps"`
}

// followWait is how long a question waits for something to happen.
const followWait = 20 * time.Second

func (s *Service) traceFollow(ctx context.Context, req TraceFollowing) (TraceHappenings, error) {
	if s.trace == nil {
		return TraceHappenings{}, Errorf(Unavailable, "the server is not running: nothing happens that could be followed")
	}
	ctx, cancel := context.WithTimeout(ctx, followWait)
	defer cancel()
	if req.Place < 0 {
		cancel() // only the place is wanted
	}
	list, place, missed, err := s.trace.Follow(ctx, req.Place)
	if err != nil {
		return TraceHappenings{}, err
	}
	out := TraceHappenings{Happenings: make([]TraceHappening, len(list)), Place: place, Missed: missed}
	for i, h := range list {
		out.Happenings[i] = TraceHappening{ID: h.ID, Steps: make([]TraceStep, len(h.Steps))}
		for k := range h.Steps {
			out.Happenings[i].Steps[k] = shownStep(&h.Steps[k])
		}
	}
	return out, nil
}

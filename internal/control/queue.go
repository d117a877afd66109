package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"waxwing/internal/bounce"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

// Operations on the queue of outgoing mail.
var (
	QueueList   = operation("queue.list", (*Service).queueList)
	QueueShow   = operation("queue.show", (*Service).queueShow)
	QueueChange = operation("queue.change", (*Service).queueChange)
	QueueCount  = operation("queue.count", (*Service).queueCount)
)

// Selection selects recipients of queued messages: fields that are set must all fit.
type Selection struct {
	IDs    []int64 `json:"ids,omitempty"`    // of messages
	Domain string  `json:"domain,omitempty"` // destination
	From   string  `json:"from,omitempty"`   // reverse-path, "<>" for the null one
	To     string  `json:"to,omitempty"`
	State  string  `json:"state,omitempty"` // waiting, leased, held, damaged

	Account      string        `json:"account,omitempty"` // address of the account that submitted it
	SenderDomain string        `json:"sender_domain,omitempty"`
	Answer       string        `json:"answer,omitempty"` // words in the last answer
	Category     string        `json:"category,omitempty"`
	Provider     string        `json:"provider,omitempty"`
	Pool         string        `json:"pool,omitempty"`
	Older        time.Duration `json:"older,omitempty"` // the message came at least so long ago
	Younger      time.Duration `json:"younger,omitempty"`
	Larger       int64         `json:"larger,omitempty"` // octets of the message, at least
	Smaller      int64         `json:"smaller,omitempty"`
}

// filter is what a selection selects.
func (s *Service) filter(ctx context.Context, sel Selection) (store.QueueFilter, error) {
	f := sel.filter()
	if err := sel.check(); err != nil || sel.Account == "" {
		return f, err
	}
	a, err := s.account(ctx, sel.Account)
	f.Account = a.ID
	return f, err
}

func (s Selection) filter() store.QueueFilter {
	f := store.QueueFilter{
		Domain: s.Domain, From: s.From, To: s.To, State: store.QueueState(s.State),
		SenderDomain: s.SenderDomain, Text: s.Answer, Category: s.Category, Provider: s.Provider, Pool: s.Pool, Larger: s.Larger, Smaller: s.Smaller,
	}
	if s.Older > 0 {
		f.Before = time.Now().Add(-s.Older)
	}
	if s.Younger > 0 {
		f.After = time.Now().Add(-s.Younger)
	}
	for _, id := range s.IDs {
		f.IDs = append(f.IDs, store.QueueID(id))
	}
	return f
}

func (s Selection) check() error {
	switch store.QueueState(s.State) {
	case "", store.QueueWaiting, store.QueueLeased, store.QueueHeld, store.QueueDamaged:
	default:
		return &Error{Kind: Invalid, Field: "state", Text: "state: one of waiting, leased, held, damaged"}
	}
	if s.Category != "" && !slices.Contains(bounce.Categories(), bounce.Category(s.Category)) {
		return &Error{Kind: Invalid, Field: "category", Text: fmt.Sprintf("category: one of %v", bounce.Categories())}
	}
	if s.Older < 0 || s.Younger < 0 || s.Larger < 0 || s.Smaller < 0 {
		return &Error{Kind: Invalid, Field: "older", Text: "ages and sizes: 0 or more"}
	}
	return nil
}

// QueuePage asks for messages in the queue, oldest first.
type QueuePage struct {
	Selection
	After int64 `json:"after,omitempty"`
	Limit int   `json:"limit,omitempty"`
}

// QueuedMessages is a page of the queue.
type QueuedMessages struct {
	Messages []QueuedMessage `json:"messages"`
	Next     int64           `json:"next,omitempty"` // to be given as After; 0 at the end
}

// QueuedMessage is one message on its way out.
type QueuedMessage struct {
	ID         int64             `json:"id"`
	Trace      string            `json:"trace"`
	From       string            `json:"from"` // "" for the null reverse-path
	Size       int64             `json:"size"`
	Account    int64             `json:"account,omitempty"`  // that submitted it
	Priority   int               `json:"priority,omitempty"` // -9 to 9
	Subject    string            `json:"subject,omitempty"`
	Created    time.Time         `json:"created"`
	Expires    time.Time         `json:"expires"`
	Recipients []QueuedRecipient `json:"recipients"`
}

// QueuedRecipient is one recipient who hasn't got the message yet.
type QueuedRecipient struct {
	ID          int64     `json:"id"`
	To          string    `json:"to"`
	Domain      string    `json:"domain"`
	State       string    `json:"state"`
	Attempts    int       `json:"attempts"`
	NextAttempt time.Time `json:"next_attempt,omitzero"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	LastHost    string    `json:"last_host,omitempty"`
	LastError   string    `json:"last_error,omitempty"` // what the remote server said, word for word
	LastStatus  string    `json:"last_status,omitempty"`
	Category    string    `json:"category,omitempty"` // what that was about
	Provider    string    `json:"provider,omitempty"` // who runs that server
	Pool        string    `json:"pool,omitempty"`     // of source addresses that it was tried from
	HeldFor     string    `json:"held_for,omitempty"` // why it is held, when no administrator did it
}

func shownQueued(m store.QueueMessage) QueuedMessage {
	out := QueuedMessage{
		ID: int64(m.ID), Trace: m.TraceID, From: m.From, Size: m.Size, Account: int64(m.Account), Priority: m.Priority, Subject: m.Description,
		Created: m.Created.UTC(), Expires: m.Expires.UTC(), Recipients: make([]QueuedRecipient, len(m.Recipients)),
	}
	for i, r := range m.Recipients {
		out.Recipients[i] = QueuedRecipient{
			ID: int64(r.ID), To: r.To, Domain: r.Domain, State: string(r.State), Attempts: r.Attempts,
			NextAttempt: utc(r.NextAttempt), LastAttempt: utc(r.LastAttempt), LastHost: r.LastHost, LastError: r.LastError,
			LastStatus: r.LastStatus, Category: r.Category, Provider: r.Provider, Pool: r.Pool, HeldFor: r.HeldFor,
		}
	}
	return out
}

// utc keeps the zero time zero in JSON.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func (s *Service) queueList(ctx context.Context, req QueuePage) (QueuedMessages, error) {
	f, err := s.filter(ctx, req.Selection)
	if err != nil {
		return QueuedMessages{}, err
	}
	page, next, err := s.store.QueueList(ctx, f, store.QueueID(req.After), req.Limit)
	if err != nil {
		return QueuedMessages{}, err
	}
	out := QueuedMessages{Messages: make([]QueuedMessage, len(page)), Next: int64(next)}
	for i, m := range page {
		out.Messages[i] = shownQueued(m)
	}
	return out, nil
}

// QueueRef names one queued message.
type QueueRef struct {
	ID int64 `json:"id"`
}

func (s *Service) queueShow(ctx context.Context, req QueueRef) (QueuedMessage, error) {
	m, err := s.store.QueueMessage(ctx, store.QueueID(req.ID))
	if err != nil {
		return QueuedMessage{}, err
	}
	return shownQueued(m), nil
}

// QueueAct is what may be done to queued messages.
type QueueAct string

// The acts.
const (
	QueueRetry   QueueAct = "retry"   // try again at once
	QueueHold    QueueAct = "hold"    // keep until released
	QueueRelease QueueAct = "release" // try held ones again
	QueueDrop    QueueAct = "drop"    // give up, telling the sender when Report is set
	QueueBounce  QueueAct = "bounce"  // give up and tell the sender
	QueueReroute QueueAct = "reroute" // send by another server
)

// QueueRequest does an act to the selected recipients.
type QueueRequest struct {
	Selection
	Act    QueueAct `json:"act"`
	All    bool     `json:"all,omitempty"`    // allow an empty selection, that is the whole queue
	Report bool     `json:"report,omitempty"` // drop: send a failure report to the sender
	Reason string   `json:"reason,omitempty"` // drop, bounce: stands in the report
	Host   string   `json:"host,omitempty"`   // reroute: host or host:port; "" as the address says
	DryRun bool     `json:"dry_run,omitempty"`
}

// Changed tells how many recipients an act concerned.
type Changed struct {
	Recipients int             `json:"recipients"`
	DryRun     bool            `json:"dry_run,omitempty"`
	Sample     []QueuedMessage `json:"sample,omitempty"` // of a dry run: the first few messages
}

// queueSample is how many messages a dry run shows.
const queueSample = 5

// everyState is how the whole queue is selected where an empty selection is refused.
var everyState = []store.QueueState{store.QueueWaiting, store.QueueLeased, store.QueueHeld, store.QueueDamaged}

func (s *Service) queueChange(ctx context.Context, req QueueRequest) (Changed, error) {
	f, err := s.filter(ctx, req.Selection)
	if err != nil {
		return Changed{}, err
	}
	filters := []store.QueueFilter{f}
	if req.All && filters[0].Empty() {
		filters = filters[:0]
		for _, state := range everyState {
			filters = append(filters, store.QueueFilter{State: state})
		}
	}
	apply, err := s.queueAct(ctx, req)
	if err != nil {
		return Changed{}, err
	}
	out := Changed{DryRun: req.DryRun}
	for _, f := range filters {
		var n int
		if req.DryRun {
			var sample []store.QueueMessage
			n, sample, err = s.store.QueueSelected(ctx, f, queueSample-len(out.Sample))
			for _, m := range sample {
				out.Sample = append(out.Sample, shownQueued(m))
			}
		} else {
			n, err = apply(f)
		}
		out.Recipients += n
		if err != nil {
			return out, err
		}
	}
	if !req.DryRun {
		s.log.Info("queue changed", "act", req.Act, "recipients", out.Recipients, "actor", actor(ctx))
	}
	return out, nil
}

// queueAct is what an act does to the recipients of a filter.
func (s *Service) queueAct(ctx context.Context, req QueueRequest) (func(store.QueueFilter) (int, error), error) {
	switch req.Act {
	case QueueRetry:
		return func(f store.QueueFilter) (int, error) { return s.store.QueueRetry(ctx, f) }, nil
	case QueueHold:
		return func(f store.QueueFilter) (int, error) { return s.store.QueueHold(ctx, f) }, nil
	case QueueRelease:
		return func(f store.QueueFilter) (int, error) { return s.store.QueueRelease(ctx, f) }, nil
	case QueueDrop, QueueBounce:
		report := req.Report || req.Act == QueueBounce
		return func(f store.QueueFilter) (int, error) { return s.store.QueueDrop(ctx, f, report, req.Reason) }, nil
	case QueueReroute:
		way := ""
		if req.Host != "" {
			var ok bool
			if way, ok = transport.Way(req.Host); !ok {
				return nil, &Error{Kind: Invalid, Field: "host", Text: "host: a name or address, with a port behind a colon or without: mx.example.org, 192.0.2.1:2525, [2001:db8::1]:25"}
			}
		}
		return func(f store.QueueFilter) (int, error) { return s.store.QueueReroute(ctx, f, way) }, nil
	}
	return nil, &Error{Kind: Invalid, Field: "act", Text: "act: one of retry, hold, release, drop, bounce, reroute"}
}

// QueueCounts describes the queue.
type QueueCounts struct {
	Messages     int       `json:"messages"`
	Waiting      int       `json:"waiting"`
	Leased       int       `json:"leased"`
	Held         int       `json:"held"`
	Damaged      int       `json:"damaged"`
	Destinations int       `json:"destinations"`
	Oldest       time.Time `json:"oldest,omitzero"`
}

func (s *Service) queueCount(ctx context.Context, _ Done) (QueueCounts, error) {
	c, err := s.store.QueueCounts(ctx)
	if err != nil {
		return QueueCounts{}, err
	}
	return QueueCounts{
		Messages: c.Messages, Waiting: c.Waiting, Leased: c.Leased, Held: c.Held, Damaged: c.Damaged,
		Destinations: c.Destinations, Oldest: utc(c.Oldest),
	}, nil
}

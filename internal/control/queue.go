package control

import (
	"context"
	"time"

	"waxwing/internal/store"
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
}

func (s Selection) filter() store.QueueFilter {
	f := store.QueueFilter{Domain: s.Domain, From: s.From, To: s.To, State: store.QueueState(s.State)}
	for _, id := range s.IDs {
		f.IDs = append(f.IDs, store.QueueID(id))
	}
	return f
}

func (s Selection) check() error {
	switch store.QueueState(s.State) {
	case "", store.QueueWaiting, store.QueueLeased, store.QueueHeld, store.QueueDamaged:
		return nil
	}
	return &Error{Kind: Invalid, Field: "state", Text: "state: one of waiting, leased, held, damaged"}
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
	if err := req.check(); err != nil {
		return QueuedMessages{}, err
	}
	page, next, err := s.store.QueueList(ctx, req.filter(), store.QueueID(req.After), req.Limit)
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
)

// QueueRequest does an act to the selected recipients.
type QueueRequest struct {
	Selection
	Act    QueueAct `json:"act"`
	All    bool     `json:"all,omitempty"`    // allow an empty selection, that is the whole queue
	Report bool     `json:"report,omitempty"` // drop: send a failure report to the sender
	Reason string   `json:"reason,omitempty"` // drop: stands in the report
}

// Changed tells how many recipients an act concerned.
type Changed struct {
	Recipients int `json:"recipients"`
}

// everyState is how the whole queue is selected where an empty selection is refused.
var everyState = []store.QueueState{store.QueueWaiting, store.QueueLeased, store.QueueHeld, store.QueueDamaged}

func (s *Service) queueChange(ctx context.Context, req QueueRequest) (Changed, error) {
	if err := req.check(); err != nil {
		return Changed{}, err
	}
	filters := []store.QueueFilter{req.filter()}
	if req.All && filters[0].Empty() {
		filters = filters[:0]
		for _, state := range everyState {
			filters = append(filters, store.QueueFilter{State: state})
		}
	}
	var out Changed
	for _, f := range filters {
		var n int
		var err error
		switch req.Act {
		case QueueRetry:
			n, err = s.store.QueueRetry(ctx, f)
		case QueueHold:
			n, err = s.store.QueueHold(ctx, f)
		case QueueRelease:
			n, err = s.store.QueueRelease(ctx, f)
		case QueueDrop:
			n, err = s.store.QueueDrop(ctx, f, req.Report, req.Reason)
		default:
			return out, &Error{Kind: Invalid, Field: "act", Text: "act: one of retry, hold, release, drop"}
		}
		out.Recipients += n
		if err != nil {
			return out, err
		}
	}
	s.log.Info("queue changed", "act", req.Act, "recipients", out.Recipients, "actor", actor(ctx))
	return out, nil
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

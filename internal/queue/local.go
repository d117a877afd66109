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
	"waxwing/internal/transport"
)

// Releaser takes in what was held back for mailboxes here: *intake.Intake is one.
type Releaser interface {
	Release(ctx context.Context, m smtp.Mail, rcpts []smtp.Rcpt, content io.Reader) ([]error, error)
}

var _ Releaser = (*intake.Intake)(nil)

// WithLocal makes a Carrier that brings messages for store.LocalDestination into mailboxes here, and all others by c.
func WithLocal(c Carrier, in Releaser, clock func() time.Time) Carrier { return local{c, in, clock} }

type local struct {
	Carrier
	in    Releaser
	clock func() time.Time
}

func (l local) Link(destination string, via transport.Via) Link {
	if destination == store.LocalDestination {
		return &localLink{local: l}
	}
	return l.Carrier.Link(destination, via)
}

func (l local) NextHop(destination string) string {
	if destination == store.LocalDestination {
		return destination
	}
	return l.Carrier.NextHop(destination)
}

func (l local) Concurrency(destination string) int {
	if destination == store.LocalDestination {
		return 0
	}
	return l.Carrier.Concurrency(destination)
}

// localLink delivers here. It has no connection to keep.
type localLink struct {
	local
	used time.Time
}

func (l *localLink) Open() bool         { return false }
func (l *localLink) Via() transport.Via { return transport.Via{} }
func (l *localLink) Used() time.Time    { return l.used }
func (l *localLink) Close()             {}

func (l *localLink) Retarget(destination string, _ transport.Via) bool {
	return destination == store.LocalDestination
}

// Deliver hands the message to the intake as if it came now: what its recipients lead to may have changed meanwhile.
func (l *localLink) Deliver(ctx context.Context, m *transport.Message) []transport.Result {
	l.used = l.clock()
	mail := smtp.Mail{Body: m.Body, UTF8: m.UTF8, Ret: m.Ret, EnvID: m.EnvID, Size: m.Content.Size()}
	results := make([]transport.Result, len(m.Recipients))
	rcpts := make([]smtp.Rcpt, len(m.Recipients))
	var err error
	if m.From != "" {
		mail.From, err = address.Parse(m.From)
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		rcpts[i] = smtp.Rcpt{Notify: r.Notify, ORcpt: r.ORcpt}
		rcpts[i].ValidSince, _ = smtp.ParseValidSince(r.ValidSince)
		if rcpts[i].To, err = address.Parse(r.To); err != nil {
			break
		}
	}
	var refused []error
	if err == nil {
		refused, err = l.in.Release(ctx, mail, rcpts, io.NewSectionReader(m.Content, 0, m.Content.Size()))
	}
	for i := range results {
		if err == nil && refused[i] == nil {
			results[i] = transport.Result{
				Status: transport.Delivered, Enhanced: smtp.Enhanced{Class: 2, Subject: 1, Detail: 5}, Message: "delivered here",
				Stage: "local", Notifies: true,
			}
			continue
		}
		results[i] = localResult(errors.Join(err, at(refused, i)))
	}
	return results
}

func at(list []error, i int) error {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// localResult is what a refusal by the intake means for the row.
func localResult(err error) transport.Result {
	r := transport.Result{
		Status: transport.Deferred, Enhanced: smtp.Enhanced{Class: 4, Subject: 3}, Message: err.Error(), Stage: "local",
	}
	var refusal *smtp.Reply
	if errors.As(err, &refusal) {
		r.Enhanced, r.Message = refusal.Enhanced, refusal.Error()
		if refusal.Permanent() {
			r.Status = transport.Failed
		}
	}
	return r
}

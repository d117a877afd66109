package queue

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

func TestAMessageIsHeldBackUntilItsTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	id := r.add("x@b.test", func(m *store.QueueMessage) { m.HoldUntil = begin.Add(48 * time.Hour) })
	r.add("y@b.test", nil)
	r.run()
	r.until("the other message is delivered", func() bool { return r.counts().Messages == 1 })
	m, err := r.store.QueueMessage(t.Context(), id)
	if err != nil || !m.HoldUntil.Equal(begin.Add(48*time.Hour)) || !m.Expires.Equal(begin.Add(7*24*time.Hour)) {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := r.store.QueueRebase(t.Context(), begin); err != nil { // as after a clock that was set back
		t.Fatal(err)
	}
	r.advance(47 * time.Hour)
	r.add("z@c.test", nil)
	r.until("the scheduler has looked", func() bool { return r.counts().Messages == 1 })
	if n, err := r.q.Drop(t.Context(), store.QueueFilter{IDs: []store.QueueID{id}}, false, "the sender thought better of it"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if !r.empty() {
		t.Error("it is still there")
	}
	r.add("x@b.test", func(m *store.QueueMessage) { m.HoldUntil = begin.Add(48 * time.Hour) })
	r.advance(2 * time.Hour)
	r.until("it is sent in its time", r.empty)
}

func TestAMessageThatIsLateGoesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(deferred))
	r.add("x@b.test", func(m *store.QueueMessage) { m.DeliverBy, m.ByMode = begin.Add(7*time.Minute), "R" })
	r.run()
	r.until("it was tried", func() bool { return len(r.c.attempts()) == 1 })
	r.advance(7 * time.Minute)
	r.until("it is given up", r.empty)
	if n := len(r.c.attempts()); n != 1 {
		t.Errorf("tried %d times", n)
	}
	report := strings.Join(r.in.notifications(), "")
	if !strings.Contains(report, "Status: 5.4.7") || !strings.Contains(report, "Action: failed") {
		t.Errorf("reported %s", report)
	}
}

func TestTheSenderHearsInTimeThatItsMessageIsLate(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.answers(always(deferred))
	r.add("x@b.test", func(m *store.QueueMessage) { m.DeliverBy, m.ByMode = begin.Add(7*time.Minute), "N" })
	r.run()
	r.until("it was tried", func() bool { return len(r.c.attempts()) == 1 })
	r.advance(7 * time.Minute)
	r.until("the sender is told", func() bool { return len(r.in.notifications()) == 1 })
	if report := r.in.notifications()[0]; !strings.Contains(report, "Action: delayed") {
		t.Errorf("reported %s", report)
	}
	if r.empty() {
		t.Error("it was given up")
	}
}

func TestTheSenderHearsThatNobodyWatchesTheTime(t *testing.T) {
	t.Parallel()
	for notify, reports := range map[smtp.Notify]int{smtp.NotifyDefault: 1, smtp.NotifyFailure: 1, smtp.NotifyNever: 0} {
		r := newRig(t, nil)
		passed := notified
		passed.Relayed = true
		r.answers(always(passed))
		r.add("x@b.test", func(m *store.QueueMessage) {
			m.DeliverBy, m.ByMode, m.Recipients[0].Notify = begin.Add(time.Hour), "NT", uint8(notify)
		})
		r.run()
		r.until("it is gone", r.empty)
		if got := r.in.notifications(); len(got) != reports || reports == 1 && !strings.Contains(got[0], "Action: relayed") {
			t.Errorf("NOTIFY %v: %q", notify, got)
		}
	}
}

// mailroom is a Releaser that notes what it gets.
type mailroom struct {
	mu     sync.Mutex
	got    []string
	refuse error
}

func (m *mailroom) Release(_ context.Context, mail smtp.Mail, rcpts []smtp.Rcpt, content io.Reader) ([]error, error) {
	raw, err := io.ReadAll(content)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, errors.Join(m.refuse, err)
	}
	refused := make([]error, len(rcpts))
	for i, r := range rcpts {
		if r.To.Local == "gone" {
			refused[i] = smtp.Errorf(550, "5.1.1", "no such mailbox")
			continue
		}
		m.got = append(m.got, mail.From.String()+" "+r.To.String()+" "+string(raw[:7]))
	}
	return refused, err
}

func TestHeldMailForMailboxesHereIsReleased(t *testing.T) {
	t.Parallel()
	room := &mailroom{refuse: errors.New("the store is away")}
	r := newRig(t, nil)
	r.rebuild(func(o *Options) { o.Transport = WithLocal(r.c, room, r.now) })
	r.add("b@here.test gone@here.test", func(m *store.QueueMessage) {
		m.HoldUntil = begin.Add(time.Hour)
		for i := range m.Recipients {
			m.Recipients[i].Domain = store.LocalDestination
		}
	})
	r.run()
	r.advance(time.Hour)
	r.until("it was tried", func() bool { s, err := r.q.Stats(t.Context()); return err == nil && s.Deferred == 2 })
	room.mu.Lock()
	room.refuse = nil
	room.mu.Unlock()
	r.advance(time.Hour)
	r.until("it is gone", r.empty)
	if len(room.got) != 1 || room.got[0] != "a@here.test b@here.test From: a" {
		t.Errorf("released %q", room.got)
	}
	if got := r.in.notifications(); len(got) != 1 || !strings.Contains(got[0], "5.1.1") {
		t.Errorf("reported %q", got)
	}
	if n := len(r.c.attempts()); n != 0 {
		t.Errorf("%d attempts over the network", n)
	}
}

// attempts are the deliveries that were tried.
func (c *carrier) attempts() []sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent[:len(c.sent):len(c.sent)]
}

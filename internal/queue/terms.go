package queue

import (
	"time"

	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/transport"
)

// tooLate tells a message that was to be delivered in time or not at all, and is late (RFC 2852, section 4.1.3).
func tooLate(m *store.QueueMessage, now time.Time) bool {
	return smtp.ParseByLetters(m.ByMode).Mode == smtp.ByReturn && !now.Before(m.DeliverBy)
}

// overdueResults are the results of recipients of a message that is too late.
func overdueResults(n int) []transport.Result {
	out := make([]transport.Result, n)
	for i := range out {
		out[i] = transport.Result{
			Status: transport.Failed, Enhanced: smtp.Enhanced{Class: 5, Subject: 4, Detail: 7}, Stage: "schedule",
			Message: "the time that the sender set for the delivery is over",
		}
	}
	return out
}

// nextTry moves an attempt that would come after the moment that the sender set to that moment: it is when the message is
// returned, or its sender told.
func nextTry(m *store.QueueMessage, now, next time.Time) time.Time {
	if m.ByMode != "" && m.DeliverBy.After(now) && next.After(m.DeliverBy) {
		return m.DeliverBy
	}
	return next
}

// overdue tells whether a message waits for so long that its sender is to hear of it: since the moment that the sender
// set (RFC 2852, section 4.1.3), or for as long as the policy says. What was late when it came is told of as any other.
func (q *Queue) overdue(m *store.QueueMessage, now time.Time) bool {
	if m.ByMode != "" && m.DeliverBy.After(m.Created) {
		return !now.Before(m.DeliverBy)
	}
	begin := m.Created
	if m.HoldUntil.After(begin) {
		begin = m.HoldUntil
	}
	return q.p.DelayWarning > 0 && now.Sub(begin) >= q.p.DelayWarning
}

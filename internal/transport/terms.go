package transport

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/message"
	"waxwing/internal/smtp"
)

// What a sender asked of a delivery goes on to servers that offer the extension. What becomes of it with the others is
// said by RFC 2852 (DELIVERBY), RFC 6710 (MT-PRIORITY: it ends here) and RFC 7293 (RRVS).

// inTime tells whether this server may have the message as far as BY goes: one that must come in time or not at all goes
// to no server that doesn't promise it (RFC 2852, section 4.1.4).
func (s *session) inTime(m *Message) *failure {
	if m.By.Mode != smtp.ByReturn {
		return nil
	}
	left := s.timeLeft(m)
	switch {
	case left <= 0:
		return permanently("MAIL", 4, 7, "the time that the sender set for the delivery is over")
	case !s.ext.deliverBy:
		return permanently("MAIL", 3, 3, "the message must be delivered in time, which the server does not promise (DELIVERBY)")
	case left < s.ext.minBy:
		return permanently("MAIL", 4, 7, "%d seconds are left for the delivery, the server wants %d", left, s.ext.minBy)
	}
	return nil
}

// timeLeft is how many seconds the message has, negative when it is late.
func (s *session) timeLeft(m *Message) int64 {
	return int64(m.DeliverBy.Sub(s.t.opts.Clock()) / time.Second)
}

// tellsRelayed tells whether the sender hears that the message was passed on: because it asked for a trace, or because
// nobody watches the time from here on (RFC 2852, sections 4.1.4 and 4.1.5).
func (s *session) tellsRelayed(m *Message) bool {
	return m.By.Mode != 0 && (m.By.Trace || !s.ext.deliverBy)
}

// termsOfMail writes the parameters of MAIL.
func (s *session) termsOfMail(b *strings.Builder, m *Message) {
	if m.By.Mode != 0 && s.ext.deliverBy {
		by := m.By
		by.Seconds = s.timeLeft(m)
		b.WriteString(" BY=" + by.String())
	}
	if m.Priority != 0 && s.ext.priority {
		b.WriteString(" MT-PRIORITY=" + strconv.Itoa(m.Priority))
	}
}

// validSince decides about a recipient with RRVS at a server that doesn't know it (RFC 7293, section 5.3): the message
// goes with a header field in its place, in a transaction of its own, or not at all.
func (s *session) validSince(r *Recipient) (alone bool, f *failure) {
	v, ok := smtp.ParseValidSince(r.ValidSince)
	switch {
	case !ok || s.ext.rrvs:
		return false, nil
	case v.Continue:
		return true, nil
	}
	return false, permanently("RCPT", 7, 19, "%s does not tell whether the mailbox has changed hands (RRVS), which the sender wants to know", s.host.describe(s.addr))
}

// before puts header fields in front of the message.
func (env *envelope) before(field string) {
	body := env.body
	env.body = func() io.Reader { return io.MultiReader(strings.NewReader(field), body()) }
	env.size += int64(len(field))
}

func validSinceField(r *Recipient) string {
	v, _ := smtp.ParseValidSince(r.ValidSince)
	return fmt.Sprintf("Require-Recipient-Valid-Since: %s;\r\n\t%s\r\n", r.To, message.FormatDate(v.Since))
}

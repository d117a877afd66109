package smtpserver

import (
	"strconv"
	"unicode/utf8"

	"waxwing/internal/guard"
	"waxwing/internal/smtp"
	"waxwing/internal/trace"
)

// cmdMail begins a transaction.
func (s *session) cmdMail(args []byte) error {
	if s.messages >= s.srv.limits.Messages { // RFC 9422, section 4: MAILMAX
		s.end(421, "4.7.0", "too many messages in one session, connect again")
		return nil
	}
	m, refusal := smtp.ParseMail(args)
	if refusal == nil && m.TLS == smtp.TLSRequired && s.tls == nil { // RFC 8689, section 4.1
		refusal = smtp.Errorf(530, "5.7.10", "REQUIRETLS needs TLS here too")
	}
	if refusal != nil {
		s.reply(refusal)
		s.blame()
		return nil
	}
	s.visitor.From, s.visitor.UTF8 = m.From, m.UTF8
	s.noteMail(&m)
	ctx, cancel := s.begin(s.srv.limits.Command)
	defer cancel()
	if r, err := s.ask(ctx, guard.Mail); r != nil || err != nil {
		return s.turnedAway(r, err)
	}
	tx := s.srv.opts.Intake.Begin(s.peer())
	s.tx, s.mail = tx, m // from here on a panic aborts it
	if err := tx.Mail(ctx, m); err != nil {
		_ = s.refused(err, "mail")
		s.abort()
		s.refusal()
		return nil
	}
	s.txBegun = s.srv.opts.Clock()
	s.noteSender()
	if p := s.srv.opts.Intake.Offer().PriorityFor(s.identity != nil, m.Priority); p < m.Priority { // RFC 6710, section 4.1
		s.say(250, "2.3.6", "sender ok, with priority "+strconv.Itoa(p))
		return nil
	}
	s.say(250, "2.1.0", "sender ok")
	return nil
}

// cmdRcpt adds a recipient. One that is refused leaves the others as they are.
func (s *session) cmdRcpt(args []byte) error {
	if s.bdat { // RFC 3030, section 2: the message has begun
		s.bad(503, "5.5.1", "no recipients after BDAT")
		return nil
	}
	r, refusal := smtp.ParseRcpt(args)
	if refusal == nil && !s.mail.UTF8 && !isASCII(args) { // RFC 6531, section 3.5
		refusal = smtp.Errorf(553, "5.6.7", "that address needs SMTPUTF8")
	}
	if refusal != nil {
		s.reply(refusal)
		s.blame()
		return nil
	}
	s.about.Address = r.To.String()
	if s.rcpts >= s.srv.opts.Intake.MaxRecipients() {
		// RFC 5321, section 4.5.3.1.10: the sender sends the others in another transaction. It may have pipelined them
		// all, and must not lose by that those that were taken.
		s.say(452, "4.5.3", "too many recipients, send the rest in another message")
		if s.surplus++; s.surplus > maxSurplus {
			s.refusal()
		}
		return nil
	}
	s.visitor.To = r.To
	ctx, cancel := s.begin(s.srv.limits.Command)
	if r, err := s.ask(ctx, guard.Rcpt); r != nil || err != nil {
		cancel()
		return s.turnedAway(r, err)
	}
	err := s.tx.Rcpt(ctx, r)
	cancel()
	if err != nil {
		_ = s.refused(err, "rcpt")
		s.refusal()
	} else {
		s.rcpts++
		s.story.Add(trace.Step{Kind: trace.Recipient, Address: s.about.Address})
		s.say(250, "2.1.5", "recipient ok")
	}
	return s.told(guard.Recipient, err)
}

// turnedAway answers a sender or recipient that the guard refused.
func (s *session) turnedAway(r *smtp.Reply, err error) error {
	if r != nil {
		s.reply(r)
		s.refusal()
	}
	return err
}

// maxSurplus is how many recipients too many a session may name before they count as refused.
const maxSurplus = 100_000

// refusal counts a refused sender or recipient: a list with dead addresses is normal, a search for live ones is not.
func (s *session) refusal() {
	if s.refusals++; s.refusals >= s.srv.limits.Refusals && !s.ending {
		s.end(421, "4.7.0", "too many refused addresses, closing the connection")
	}
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

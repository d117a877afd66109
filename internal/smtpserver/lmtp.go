package smtpserver

import (
	"net/netip"

	"waxwing/internal/smtp"
)

// LMTP (RFC 2033) is SMTP for the last hop: LHLO in place of EHLO, and behind the end of a message a reply for each
// recipient that was taken. A message is committed for all of them at once, before the first of these replies: they differ
// only where a recipient's own account decides.

func onLMTP(s *session) bool  { return s.mode == LMTP }
func notLMTP(s *session) bool { return s.mode != LMTP }

// trustsLMTP tells whether a peer may speak LMTP here: through a socket of this machine's file system, from this machine
// itself, or from the networks that the configuration names.
func (srv *Server) trustsLMTP(a netip.Addr) bool {
	if !a.IsValid() || a.IsLoopback() {
		return true
	}
	for _, p := range srv.opts.LMTPClients {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// answers writes the same reply for each recipient of a message that is not taken by LMTP, else once.
func (s *session) answers(reason error, stage string) *smtp.Reply {
	r := s.refused(reason, stage)
	if s.mode == LMTP {
		for n := 1; n < s.rcpts && !s.ending; n++ {
			s.reply(r)
		}
	}
	return r
}

// taken says that a message is committed, for each recipient on its own by LMTP.
func (s *session) taken(traceID string) {
	n := 1
	if s.mode == LMTP {
		n = s.rcpts
	}
	b := append(s.buf[:0], "250 2.0.0 ok "...)
	b = append(b, traceID...)
	b = append(b, '\r', '\n')
	for range n {
		_, _ = s.conn.Write(b) // the error is sticky
	}
	s.keep(b)
}

package smtpserver

import (
	"crypto/tls"
	"net"
	"strconv"
	"strings"

	"waxwing/internal/guard"
	"waxwing/internal/listen"
	"waxwing/internal/smtp"
	"waxwing/internal/trace"
	"waxwing/internal/wire"
)

// steps are the kinds of steps that commands stand for in a trace.
var steps = map[string]trace.Kind{
	"HELO": trace.Hello, "EHLO": trace.Hello, "LHLO": trace.Hello, "STARTTLS": trace.TLS, "AUTH": trace.SignIn, "MAIL": trace.Sender, "RCPT": trace.Recipient,
	"DATA": trace.Content, "BDAT": trace.Content,
}

// step is the kind of step that a command stands for.
func (c *command) step() trace.Kind {
	if k, ok := steps[c.verb]; ok {
		return k
	}
	return trace.Command
}

// note adds a step to what is open: the message, or else the connection.
func (s *session) note(step trace.Step) {
	if s.story != nil {
		s.story.Add(step)
		return
	}
	s.trail.Add(step)
}

// answered counts a reply, and notes a refusal and what the command that was refused is about.
func (s *session) answered(code int, line []byte) {
	if f := s.srv.opts.Metrics.Answer; f != nil {
		f(s.mode, s.verb, code)
	}
	if code < 400 || s.trail == nil {
		return
	}
	step := s.about
	if step.Kind == 0 {
		step.Kind = trace.Connect
	}
	step.Outcome, step.Reply = trace.OfReply(code), strings.TrimSpace(string(line))
	s.note(step)
}

// noteConnection begins the connection's trail.
func (s *session) noteConnection() {
	s.trail.Add(trace.Step{
		At: s.started, Kind: trace.Connect, Remote: s.remote.String(),
		Data: []trace.Pair{{Name: "listener", Value: s.mode.String()}, {Name: "local", Value: s.conn.LocalAddr().String()}},
	})
}

// noteHello notes the name that the peer gave itself.
func (s *session) noteHello() {
	s.trail.Add(trace.Step{Kind: trace.Hello, Host: s.helo})
}

// noteTLS notes a handshake.
func (s *session) noteTLS(state tls.ConnectionState, err error) {
	if err != nil {
		s.trail.Add(trace.Step{Kind: trace.TLS, Outcome: trace.Rejected, Reason: "the handshake failed: " + err.Error()})
		return
	}
	s.trail.Add(trace.Step{Kind: trace.TLS, Data: []trace.Pair{
		{Name: "version", Value: tls.VersionName(state.Version)}, {Name: "cipher", Value: tls.CipherSuiteName(state.CipherSuite)},
	}})
}

// noteSignIn notes who signed in.
func (s *session) noteSignIn(mechanism string) {
	s.trail.Add(trace.Step{Kind: trace.SignIn, Address: s.identity.Address.String(), Data: []trace.Pair{{Name: "mechanism", Value: mechanism}}})
}

// noteMail begins the message's trail. The connection's goes on without it.
func (s *session) noteMail(m *smtp.Mail) {
	s.about.Address = m.From.String()
	s.story.Close() // of a sender that was refused
	s.story = s.trail.Message()
}

// noteSender notes a sender that was taken.
func (s *session) noteSender() {
	if s.story == nil {
		return
	}
	step := trace.Step{Kind: trace.Sender, Address: s.mail.From.String()}
	if s.mail.From.IsNull() {
		step.Reason = "null sender: a notification"
	}
	if s.mail.Size > 0 {
		step.Data = append(step.Data, trace.Pair{Name: "declared-size", Value: strconv.FormatInt(s.mail.Size, 10)})
	}
	s.story.Add(step)
}

// noteLost notes a connection that broke inside of a transaction: its sender may believe that the message was sent.
func (s *session) noteLost(err error) {
	if s.story == nil {
		return
	}
	reason := "the connection ended in the middle of a transaction"
	if wire.Timeout(err) {
		reason = "the peer was too slow in the middle of a transaction"
	}
	s.story.Add(trace.Step{
		Kind: trace.End, Outcome: trace.Deferred, Reason: reason,
		Data: []trace.Pair{{Name: "error", Value: err.Error()}, {Name: "octets", Value: strconv.FormatInt(s.sink.size, 10)}},
	})
}

// noteVerdict notes what the guard decided, if it did.
func (s *session) noteVerdict(v guard.Verdict) guard.Verdict {
	if v.Reply == nil && v.Delay <= 0 || s.trail == nil {
		return v
	}
	step := trace.Step{Kind: trace.Check, Reason: v.Reason, Address: s.about.Address, Data: []trace.Pair{{Name: "check", Value: v.Check}}}
	if v.Reply != nil {
		step.Outcome = trace.OfReply(v.Reply.Code)
	} else {
		step.Data = append(step.Data, trace.Pair{Name: "delay", Value: v.Delay.String()})
	}
	s.note(step)
	return v
}

// noteRefused records a connection that is not served.
func (srv *Server) noteRefused(nc net.Conn, mode Mode, why listen.Reason) {
	t := srv.opts.Trace.Trail()
	t.Add(trace.Step{
		Kind: trace.Connect, Outcome: trace.Deferred, Remote: nc.RemoteAddr().String(), Reason: refusals[why],
		Data: []trace.Pair{{Name: "listener", Value: mode.String()}, {Name: "limit", Value: string(why)}},
	})
	t.Close()
}

package smtpserver

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"waxwing/internal/guard"
	"waxwing/internal/smtp"
)

// greet says 220, unless a stranger on port 25 talks first. A mail server waits for the greeting (RFC 5321, section
// 4.3.1); what doesn't wait sends spam, or speaks another protocol. Its octets are on the way before ours are, so that a
// short wait finds it out at any distance. The guard may refuse the peer, or ask for a longer wait.
func (s *session) greet(d guard.Verdict) error {
	if d.Reply != nil {
		s.reply(d.Reply)
		s.ending, s.lingers = true, true
		return nil
	}
	if s.mode == LMTP && !s.srv.trustsLMTP(s.remote.Addr()) {
		s.end(554, "5.7.1", "LMTP is for trusted clients only")
		return nil
	}
	wait := max(s.srv.limits.Early, d.Delay)
	if s.mode == MX && wait > 0 && !s.mayXClient && !s.remote.Addr().IsLoopback() && !s.visitor.Trusted {
		early, err := s.conn.Early(wait)
		if err != nil {
			return err
		}
		if early {
			s.srv.log.Info("session refused: the peer talked before the greeting", "remote", s.remote.String())
			s.end(554, "5.5.1", "talking before the greeting is not allowed")
			return s.told(guard.Early, nil)
		}
	}
	protocol := " ESMTP"
	if s.mode == LMTP {
		protocol = " LMTP"
	}
	s.say(220, "", s.srv.opts.Hostname+protocol)
	return nil
}

// maxHello is the longest name of a host, as text.
const maxHello = 255

// hello keeps the name that the peer gives itself. It is checked only for what could do harm in a header or a log:
// RFC 5321, section 4.1.4, forbids refusing mail because the name is wrong, and real clients send all kinds.
func (s *session) hello(args []byte, esmtp bool) (bool, error) {
	name := string(bytes.Trim(args, " "))
	if !isHelloName(name) {
		s.bad(501, "5.5.4", "a host name or address literal is needed")
		return false, nil
	}
	s.abort() // RFC 5321, section 4.1.4: as RSET
	if s.helo != "" && !s.idled() {
		return false, nil
	}
	before, extended := s.helo, s.esmtp
	s.helo, s.esmtp = name, esmtp
	s.noteHello()
	ctx, cancel := s.begin(s.srv.limits.Command)
	defer cancel()
	r, err := s.ask(ctx, guard.Helo)
	if r != nil {
		s.helo, s.esmtp = before, extended
		s.reply(r)
		s.refusal()
	}
	return r == nil && err == nil, err
}

func isHelloName(name string) bool {
	bad := func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) || unicode.IsSpace(r) }
	return name != "" && len(name) <= maxHello && strings.IndexFunc(name, bad) < 0
}

func (s *session) cmdHelo(args []byte) error {
	ok, err := s.hello(args, false)
	if ok {
		s.say(250, "", s.srv.opts.Hostname)
	}
	return err
}

func (s *session) cmdEhlo(args []byte) error {
	if ok, err := s.hello(args, true); !ok {
		return err
	}
	var text strings.Builder
	text.WriteString(s.srv.opts.Hostname)
	offer := func(keyword func(*session) (string, bool)) {
		if word, ok := keyword(s); ok {
			text.WriteString("\n" + word)
		}
	}
	for _, e := range extensions {
		offer(e)
	}
	for i := range commands {
		if commands[i].ehlo != nil {
			offer(commands[i].ehlo)
		}
	}
	s.reply(&smtp.Reply{Code: 250, Text: text.String()})
	return nil
}

// cmdStartTLS is RFC 3207. All that the peer said before is forgotten, what it had pipelined is thrown away.
func (s *session) cmdStartTLS([]byte) error {
	s.say(220, "2.0.0", "ready for TLS")
	if !s.startTLS() {
		return errEnd
	}
	s.helo, s.esmtp, s.identity = "", false, nil
	return nil
}

// startTLS does the handshake. After a failure nothing can be said any more. No transaction is open then: a server that
// shuts down doesn't wait for it.
func (s *session) startTLS() bool {
	err := s.conn.StartTLS(s.srv.pool.Drain(), s.srv.tlsFor(s.mode))
	state, _ := s.conn.TLS()
	if f := s.srv.opts.Metrics.TLS; f != nil {
		f(s.mode, state.Version, err == nil)
	}
	s.noteTLS(state, err)
	if err != nil {
		s.srv.log.Info("TLS handshake failed", "remote", s.remote.String(), "mode", s.mode.String(), "error", err)
		return false
	}
	s.tls = &state
	return true
}

func (s *session) cmdRset([]byte) error {
	s.abort()
	s.say(250, "2.0.0", "ok")
	return nil
}

func (s *session) cmdNoop([]byte) error {
	s.say(250, "2.0.0", "ok")
	return nil
}

// cmdVrfy tells nothing, as RFC 5321, section 3.5.3, allows: who has a mailbox here is learned at RCPT, where it counts.
func (s *session) cmdVrfy(args []byte) error {
	if len(bytes.TrimSpace(args)) == 0 {
		s.bad(501, "5.5.4", "an address is needed")
		return nil
	}
	s.say(252, "2.1.5", "send some mail, I'll try my best")
	return nil
}

// cmdOff answers what this server never does: to show the members of a list (EXPN; RFC 5321, section 7.3), and to send what
// waits for somebody to whoever says that name (ETRN, RFC 1985; TURN).
func (s *session) cmdOff([]byte) error {
	s.say(502, "5.5.1", "that command is turned off here")
	return nil
}

func (s *session) cmdHelp([]byte) error {
	var verbs []string
	for i := range commands {
		if commands[i].in(s) && !commands[i].off {
			verbs = append(verbs, commands[i].verb)
		}
	}
	s.reply(smtp.Errorf(214, "2.0.0", "%s", strings.Join(verbs, " ")))
	return nil
}

func (s *session) cmdQuit([]byte) error {
	s.end(221, "2.0.0", "bye")
	return nil
}

package smtpserver

import (
	"fmt"
	"strings"
	"time"

	"waxwing/internal/smtp"
)

// need is what must be true before a command is run.
type need uint8

const (
	needTLS    need = 1 << iota // on submission
	needAuth                    // on submission
	needHello                   // HELO or EHLO was said
	needNoMail                  // outside of a transaction
	needMail                    // inside one
	needRcpt                    // with a recipient
)

// command is a row of the table from which commands are run, EHLO's keywords made and HELP answered.
type command struct {
	verb   string
	needs  need
	noArgs bool
	idle   bool                                // has no effect on mail: counted
	off    bool                                // known, and never done here
	when   func(s *session) bool               // nil: always; where false the verb is unknown
	ehlo   func(s *session) (string, bool)     // its keyword, nil for none
	run    func(s *session, args []byte) error // an error is fatal
}

func (c *command) in(s *session) bool { return c.when == nil || c.when(s) }

// commands is filled by init, as HELP and EHLO refer to it.
var commands []command

func init() {
	commands = []command{
		{verb: "HELO", when: notLMTP, run: (*session).cmdHelo},
		{verb: "EHLO", when: notLMTP, run: (*session).cmdEhlo},
		{verb: "LHLO", when: onLMTP, run: (*session).cmdEhlo},
		{verb: "STARTTLS", needs: needNoMail, noArgs: true, when: mayStartTLS, ehlo: keyword("STARTTLS", mayStartTLS), run: (*session).cmdStartTLS},
		{verb: "AUTH", needs: needTLS | needHello | needNoMail, when: onSubmission, ehlo: authKeyword, run: (*session).cmdAuth},
		{verb: "XCLIENT", needs: needNoMail, when: mayXClient, ehlo: keyword("XCLIENT ADDR PORT HELO NAME PROTO DESTADDR DESTPORT REVERSE_NAME", mayXClient), run: (*session).cmdXClient},
		{verb: "MAIL", needs: needTLS | needHello | needAuth | needNoMail, run: (*session).cmdMail},
		{verb: "RCPT", needs: needTLS | needHello | needAuth | needMail, run: (*session).cmdRcpt},
		{verb: "DATA", run: (*session).cmdData},
		{verb: "BDAT", when: notLMTP, ehlo: keyword("CHUNKING", notLMTP), run: (*session).cmdBdat},
		{verb: "RSET", noArgs: true, idle: true, run: (*session).cmdRset},
		{verb: "NOOP", idle: true, run: (*session).cmdNoop},
		{verb: "VRFY", idle: true, run: (*session).cmdVrfy},
		{verb: "EXPN", idle: true, off: true, run: (*session).cmdOff},
		{verb: "ETRN", idle: true, off: true, run: (*session).cmdOff},
		{verb: "TURN", idle: true, off: true, run: (*session).cmdOff},
		{verb: "HELP", idle: true, run: (*session).cmdHelp},
		{verb: "QUIT", noArgs: true, run: (*session).cmdQuit},
	}
}

// extensions are the keywords that no command of their own stands behind.
var extensions = []func(s *session) (string, bool){
	keyword("PIPELINING", nil),
	func(s *session) (string, bool) { return fmt.Sprintf("SIZE %d", s.srv.opts.Intake.MaxSize()), true },
	keyword("8BITMIME", nil),
	keyword("BINARYMIME", notLMTP),
	keyword("SMTPUTF8", nil),
	keyword("DSN", nil),
	keyword("ENHANCEDSTATUSCODES", nil),
	func(s *session) (string, bool) { // RFC 2852
		return fmt.Sprintf("DELIVERBY %d", int(smtp.MinDeliverBy/time.Second)), true
	},
	func(s *session) (string, bool) { // RFC 4865
		hold := s.srv.opts.Intake.Offer().Hold
		until := s.srv.opts.Clock().Add(hold)
		return fmt.Sprintf("FUTURERELEASE %d %s", int64(hold/time.Second), smtp.FormatTime(until)), onSubmission(s) && hold > 0
	},
	keyword("MT-PRIORITY", nil),
	keyword("RRVS", nil),
	keyword("REQUIRETLS", inTLS), // RFC 8689
	func(s *session) (string, bool) { // RFC 9422
		in := s.srv.opts.Intake
		text := fmt.Sprintf("LIMITS MAILMAX=%d RCPTMAX=%d", s.srv.limits.Messages, in.MaxRecipients())
		if n := in.Offer().Domains; n > 0 {
			text += fmt.Sprintf(" RCPTDOMAINMAX=%d", n)
		}
		return text, true
	},
}

func keyword(word string, when func(*session) bool) func(*session) (string, bool) {
	return func(s *session) (string, bool) { return word, when == nil || when(s) }
}

func mayStartTLS(s *session) bool  { return s.tls == nil && s.srv.opts.TLS != nil }
func inTLS(s *session) bool        { return s.tls != nil }
func onSubmission(s *session) bool { return s.mode.forUsers() }
func mayXClient(s *session) bool   { return s.mayXClient }

// authKeyword offers the mechanisms inside TLS on submission, and nothing anywhere else.
func authKeyword(s *session) (string, bool) {
	if !s.mode.forUsers() || s.tls == nil || s.identity != nil {
		return "", false
	}
	mechanisms := s.srv.opts.Auth.Mechanisms(true)
	return "AUTH " + strings.Join(mechanisms, " "), len(mechanisms) > 0
}

// lookup finds the row of a verb, in any case.
func lookup(word []byte) *command {
	if len(word) < 4 || len(word) > 8 {
		return nil
	}
	var upper [8]byte
	for i, b := range word {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper[i] = b
	}
	for i := range commands {
		if commands[i].verb == string(upper[:len(word)]) {
			return &commands[i]
		}
	}
	return nil
}

package pop3server

import (
	"bytes"
	"strings"
)

// arity says whether a command has arguments.
type arity uint8

const (
	noArgs arity = iota
	mayHaveArgs
	needsArgs
)

// command is a row of the table from which commands are run and the answer to CAPA is made.
type command struct {
	name   string
	states states
	args   arity
	capa   func(s *session) string             // its line in the answer to CAPA, "" for none now
	run    func(s *session, args []byte) error // sends its +OK itself; a refusal or an error is answered by the caller
}

func always(line string) func(*session) string { return func(*session) string { return line } }

// commands is filled by init, as CAPA refers to it.
var commands []command

func init() {
	commands = []command{
		{name: "CAPA", states: anyState, run: (*session).capa},
		{name: "STLS", states: authorization, capa: stlsCapability, run: (*session).stls},
		{name: "UTF8", states: authorization, capa: always("UTF8 USER"), run: (*session).setUTF8},
		{name: "USER", states: authorization, args: needsArgs, capa: userCapability, run: (*session).userName},
		{name: "PASS", states: authorization, args: needsArgs, run: (*session).pass},
		{name: "AUTH", states: authorization, args: mayHaveArgs, capa: saslCapability, run: (*session).authenticate},
		{name: "STAT", states: transaction, run: (*session).stat},
		{name: "LIST", states: transaction, args: mayHaveArgs, run: (*session).list},
		{name: "UIDL", states: transaction, args: mayHaveArgs, capa: always("UIDL"), run: (*session).uidl},
		{name: "RETR", states: transaction, args: needsArgs, run: (*session).retrieve},
		{name: "TOP", states: transaction, args: needsArgs, capa: always("TOP"), run: (*session).top},
		{name: "DELE", states: transaction, args: needsArgs, run: (*session).dele},
		{name: "RSET", states: transaction, run: (*session).rset},
		{name: "LAST", states: transaction, run: (*session).lastSeen},
		{name: "NOOP", states: transaction, run: (*session).noop},
		{name: "QUIT", states: anyState, run: (*session).quit},
	}
}

// extensions are the capabilities that no command of their own stands behind.
var extensions = []string{
	"RESP-CODES",             // RFC 2449, section 6.4
	"AUTH-RESP-CODE",         // RFC 3206, section 6
	"PIPELINING",             // RFC 2449, section 6.6
	"EXPIRE NEVER",           // RFC 2449, section 6.7
	"IMPLEMENTATION Waxwing", // RFC 2449, section 6.9; versions help attackers only
}

// lookup finds the row of a line's keyword, in any case, and its arguments.
func lookup(line []byte) (*command, []byte) {
	word, args, _ := bytes.Cut(line, []byte(" "))
	if len(word) < 3 || len(word) > 4 {
		return nil, nil
	}
	var upper [4]byte
	for i, b := range word {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper[i] = b
	}
	for i := range commands {
		if commands[i].name == string(upper[:len(word)]) {
			return &commands[i], args
		}
	}
	return nil, nil
}

// capa is CAPA, RFC 2449, section 5.
func (s *session) capa([]byte) error {
	s.put("+OK Capability list follows\r\n")
	for i := range commands {
		if c := &commands[i]; c.capa != nil {
			if line := c.capa(s); line != "" {
				s.put(line, "\r\n")
			}
		}
	}
	for _, line := range extensions {
		s.put(line, "\r\n")
	}
	s.put(".\r\n")
	return nil
}

func (s *session) onTLS() bool {
	_, on := s.conn.TLS()
	return on
}

func stlsCapability(s *session) string {
	if s.state == authorization && !s.onTLS() && s.srv.opt.TLS != nil {
		return "STLS"
	}
	return ""
}

func userCapability(s *session) string {
	if s.onTLS() {
		return "USER"
	}
	return ""
}

func saslCapability(s *session) string {
	if m := s.srv.opt.Auth.Mechanisms(s.onTLS()); s.onTLS() && len(m) > 0 {
		return "SASL " + strings.Join(m, " ")
	}
	return ""
}

// setUTF8 is UTF8, RFC 6856, section 2.
func (s *session) setUTF8([]byte) error {
	s.utf8 = true
	s.put("+OK UTF-8 it is\r\n")
	return nil
}

// noop is NOOP, RFC 1939, section 5.
func (s *session) noop([]byte) error {
	s.put("+OK\r\n")
	return nil
}

// number reads a number of a message or of lines. It has at most nine digits, so that arithmetic on it is safe.
func number(b []byte) (int, bool) {
	b = bytes.TrimRight(b, " ")
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

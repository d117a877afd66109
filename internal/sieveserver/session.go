package sieveserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/wire"
)

// states of a session, RFC 5804, section 1.1. A bit set, for the command table.
type states uint8

const (
	stranger states = 1 << iota
	user

	anyState = stranger | user
)

// session is one connection. All of it belongs to the goroutine of run.
type session struct {
	srv         *Server
	conn        *wire.Conn
	log         *slog.Logger
	ctx         context.Context
	implicitTLS bool

	state    states
	ending   bool // no further command is read
	werr     error
	octets   int         // received before login
	tries    int         // failed logins
	errors   int         // malformed commands in a row
	timer    *time.Timer // cuts the connection when login takes too long
	identity *auth.Identity
}

// Conn is the session's connection, for the pool.
func (s *session) Conn() *wire.Conn { return s.conn }

// Run is the life of the session.
func (s *session) Run() {
	m := &s.srv.opt.Metrics
	if m.Sessions != nil {
		m.Sessions(+1)
	}
	s.log = s.log.With("protocol", "managesieve", "peer", s.conn.RemoteAddr().String())
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(s.srv.pool.Context())
	s.timer = time.AfterFunc(s.srv.opt.Limits.TimeBefore, func() { _ = s.conn.Abort() })
	defer func() {
		// A defect of one session must not take the server down.
		if p := recover(); p != nil {
			s.log.Error("session ended by a panic", "panic", p, "stack", string(debug.Stack()))
			if m.Panic != nil {
				m.Panic()
			}
		}
		s.timer.Stop()
		cancel()
		_ = s.conn.Close()
		if m.Sessions != nil {
			m.Sessions(-1)
		}
	}()
	if s.implicitTLS && !s.handshake() {
		return
	}
	s.capabilities()
	s.put("OK \"ManageSieve ready\"\r\n")
	err := s.loop()
	if ferr := s.conn.Flush(); err == nil {
		err = ferr
	}
	if err == nil {
		// The peer may have sent more: without reading it, closing would take the last reply away from it.
		s.conn.Linger(64<<10, time.Second)
	} else if !errors.Is(err, io.EOF) {
		s.log.Debug("session ended", "error", err)
	}
}

func (s *session) handshake() bool {
	if err := s.conn.StartTLS(s.ctx, s.srv.opt.TLS); err != nil {
		s.log.Debug("TLS handshake failed", "error", err)
		s.werr = err
		return false
	}
	return true
}

// loop reads and runs commands until the session ends; an error means that nothing can be sent any more.
func (s *session) loop() error {
	for !s.ending && s.werr == nil {
		if s.conn.Buffered() == 0 {
			woken, err := s.conn.Wait()
			if err != nil {
				return s.lost(err)
			}
			if woken { // only Shutdown wakes
				s.put("BYE (TRYLATER) \"The server is going down\"\r\n")
				return s.werr
			}
		}
		if err := s.command(); err != nil {
			return err
		}
		if s.srv.pool.Draining() {
			s.put("BYE (TRYLATER) \"The server is going down\"\r\n")
			return s.werr
		}
	}
	return s.werr
}

// lost ends a session that can't be read on. When the peer can still be told why, it is; nil is returned then.
func (s *session) lost(err error) error {
	s.ending = true
	switch {
	case errors.Is(err, errTooMuch):
		s.put("BYE \"Too much before login\"\r\n")
	case errors.Is(err, wire.ErrLineTooLong), errors.Is(err, wire.ErrTooLarge):
		s.put("BYE \"Too long\"\r\n")
	case errors.Is(err, wire.ErrBareNewline):
		s.put("BYE \"CR or LF outside of CRLF\"\r\n")
	case wire.Timeout(err):
		s.put("BYE (TRYLATER) \"Idle for too long\"\r\n")
	default:
		return err
	}
	return s.werr
}

// errTooMuch ends a session that sends too many octets before login.
var errTooMuch = errors.New("sieveserver: too many octets before login")

// line reads a line of the client.
func (s *session) line() ([]byte, error) {
	line, err := s.conn.ReadLine()
	if err != nil {
		return nil, &inputError{err}
	}
	return line, s.count(len(line) + 2)
}

// count counts octets before login.
func (s *session) count(n int) error {
	if s.state == stranger {
		if s.octets += n; s.octets > s.srv.opt.Limits.OctetsBefore {
			return &inputError{errTooMuch}
		}
	}
	return nil
}

// put sends strings.
func (s *session) put(parts ...string) {
	for _, p := range parts {
		if s.werr == nil {
			_, s.werr = s.conn.WriteString(p)
		}
	}
}

// ok answers a command that was done. code is empty or a response code with its brackets and a space.
func (s *session) ok(code, text string) { s.put("OK ", code, quote(text), "\r\n") }

// quote writes a quoted string; what can't stand in one becomes a space.
func quote(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, s)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// command reads, runs and answers one command.
func (s *session) command() error {
	start := time.Now()
	c, args, err := s.read()
	if errors.As(err, new(*inputError)) {
		return s.lost(errors.Unwrap(err))
	}
	name := "unknown"
	if c != nil {
		name = c.name
	}
	if err == nil {
		err = s.perform(c, args)
	}
	if m := s.srv.opt.Metrics.Command; m != nil {
		m(name, err == nil, time.Since(start))
	}
	if err == nil {
		s.errors = 0
		return s.werr
	}
	return s.answerError(name, err)
}

// perform checks a command against the state of the session and runs it.
func (s *session) perform(c *command, args []string) error {
	switch {
	case c.states&s.state == 0 && s.state == stranger:
		return refuse("Log in first")
	case c.states&s.state == 0:
		return refuse("Already logged in")
	}
	return c.run(s, args)
}

// answerError answers NO; refusals count against the session, failures of the server are logged.
func (s *session) answerError(name string, err error) error {
	var r *refusal
	switch {
	case s.werr != nil:
		return s.werr
	case errors.As(err, &r):
		s.put("NO ", r.code, quote(r.text), "\r\n")
		return s.countError(r)
	case s.ctx.Err() != nil, errors.Is(err, context.Canceled):
		return fmt.Errorf("sieveserver: %s given up: %w", name, context.Canceled)
	case errors.As(err, new(*inputError)):
		return s.lost(errors.Unwrap(err))
	}
	s.log.Error("command failed", "command", name, "error", err)
	s.put("NO (TRYLATER) \"Not possible now, try again later\"\r\n")
	return s.werr
}

// countError ends a session that only makes errors: it is no mail client.
func (s *session) countError(r *refusal) error {
	if r.fair {
		return s.werr
	}
	s.errors++
	limit := s.srv.opt.Limits.Errors
	if s.state == stranger {
		limit = min(limit, 5)
	}
	if s.errors >= limit {
		s.bye("Too many errors")
	}
	return s.werr
}

func (s *session) bye(text string) {
	if !s.ending {
		s.ending = true
		s.put("BYE ", quote(text), "\r\n")
	}
}

// inputError is an error of reading: the session cannot go on.
type inputError struct{ err error }

func (e *inputError) Error() string { return "sieveserver: read: " + e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// refusal is a NO that is no failure of the server. code is empty or a response code with its brackets and a space.
type refusal struct {
	code, text string
	fair       bool // a client may well run into it: it does not count as an error
}

func (r *refusal) Error() string { return r.code + r.text }

func refuse(text string) error { return &refusal{text: text} }

func refuseFair(code, text string) error { return &refusal{code: code, text: text, fair: true} }

var errSyntax = refuse("Malformed command")

package imapserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/store"
	"waxwing/internal/wire"
)

// session is one connection. Everything in it belongs to the goroutine of run, but for idling.
type session struct {
	srv         *Server
	conn        *wire.Conn
	log         *slog.Logger
	ctx         context.Context
	implicitTLS bool

	state    states
	ending   bool // no further command is read
	startTLS bool // the handshake follows the answer
	werr     error
	p        parser
	buf      *[]byte // scratch of the command under way, from scratchPool

	// Before login.
	octets int         // received
	tries  int         // failed logins
	bads   int         // BAD answers in a row
	timer  *time.Timer // cuts the connection when login takes too long

	// After login.
	identity  *auth.Identity
	acct      store.AccountID
	condstore bool // the client knows MODSEQ (RFC 7162, section 3.1)

	// In the selected state.
	view     *store.View
	mbox     store.MailboxID
	readOnly bool
	exists   int // messages that the client was told of
	recent   int // recent ones that the client was told of

	idling atomic.Bool // a notice of the store may wake the connection
}

var scratchPool = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// scratch gives the command's scratch buffer, empty. What is made of it goes to write before the next scratch.
func (s *session) scratch() []byte {
	if s.buf == nil {
		s.buf = scratchPool.Get().(*[]byte)
	}
	return (*s.buf)[:0]
}

// write sends b, which may come from scratch: growth is kept for the next use.
func (s *session) write(b []byte) {
	if s.buf != nil && cap(b) > cap(*s.buf) {
		*s.buf = b[:0]
	}
	if s.werr == nil {
		_, s.werr = s.conn.Write(b)
	}
}

// send sends octets that are not of scratch.
func (s *session) send(b []byte) {
	if s.werr == nil {
		_, s.werr = s.conn.Write(b)
	}
}

// put sends strings.
func (s *session) put(parts ...string) {
	for _, p := range parts {
		if s.werr == nil {
			_, s.werr = s.conn.WriteString(p)
		}
	}
}

func (s *session) untagged(r reply) { s.write(appendStatus(s.scratch(), "*", r)) }

// release gives the scratch buffer back, so that an idle session holds none.
func (s *session) release() {
	s.p = parser{}
	if s.buf == nil {
		return
	}
	const keep = 256 << 10
	if cap(*s.buf) <= keep {
		scratchPool.Put(s.buf)
	}
	s.buf = nil
}

// Conn is the session's connection, for the pool.
func (s *session) Conn() *wire.Conn { return s.conn }

// Run is the life of the session.
func (s *session) Run() {
	hooks := &s.srv.opt.Hooks
	if hooks.SessionOpened != nil {
		hooks.SessionOpened()
	}
	s.log = s.log.With("protocol", "imap", "peer", s.conn.RemoteAddr().String())
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(s.srv.pool.Context())
	s.timer = time.AfterFunc(s.srv.opt.Limits.TimeBefore, func() { _ = s.conn.Abort() })
	defer func() {
		// A defect of one session must not take the server down.
		if p := recover(); p != nil {
			s.log.Error("session ended by a panic", "panic", p, "stack", string(debug.Stack()))
			if hooks.Panic != nil {
				hooks.Panic()
			}
		}
		s.timer.Stop()
		s.closeView()
		cancel()
		s.release()
		_ = s.conn.Close()
		if hooks.SessionClosed != nil {
			hooks.SessionClosed()
		}
	}()
	if s.implicitTLS {
		if err := s.conn.StartTLS(s.ctx, s.srv.opt.TLS); err != nil {
			s.log.Debug("TLS handshake failed", "error", err)
			return
		}
	}
	s.put("* OK [CAPABILITY ", s.capabilities(), "] ", s.srv.opt.Hostname, " IMAP4rev1 ready\r\n")
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

// loop reads and runs commands until the session ends; an error means that nothing can be sent any more.
func (s *session) loop() error {
	for !s.ending {
		s.release()
		if s.conn.Buffered() == 0 {
			if err := s.conn.Flush(); err != nil {
				return err
			}
			woken, err := s.conn.Wait()
			if err != nil {
				return s.lost(err)
			}
			if woken {
				s.byeIfClosing()
				continue
			}
		}
		if err := s.command(); err != nil {
			return err
		}
		if s.startTLS {
			if err := s.handshake(); err != nil {
				return err
			}
		}
		s.byeIfClosing()
	}
	return s.werr
}

// byeIfClosing ends the session when the server shuts down, or when its account may not be signed in any more.
func (s *session) byeIfClosing() {
	if !s.ending && s.srv.pool.Evicted(s) {
		s.untagged(reply{statusBye, "", "This account has been signed out by the server"})
		s.ending = true
	}
	if s.srv.pool.Draining() && !s.ending {
		s.untagged(reply{statusBye, "UNAVAILABLE", "Server is shutting down"})
		s.ending = true
	}
}

// lost looks at an error of reading. When the peer can still be told why, it is; nil is returned then.
func (s *session) lost(err error) error {
	s.ending = true
	switch {
	case errors.Is(err, wire.ErrLineTooLong):
		// What followed the line is unknown: it may have announced a literal. Nothing after it can be trusted.
		s.untagged(reply{statusBye, "", "Command line too long"})
	case errors.Is(err, wire.ErrBareNewline):
		s.untagged(reply{statusBye, "", "CR or LF outside of CRLF"})
	case errors.Is(err, wire.ErrTooLarge):
		s.untagged(reply{statusBye, "", "Refused literal too large"})
	case errors.Is(err, errTooMuch):
		s.untagged(reply{statusBye, "", "Too much before login"})
	case wire.Timeout(err):
		s.untagged(reply{statusBye, "", "Timeout"})
	default:
		return err
	}
	return s.werr
}

// errTooMuch ends a session that sends too many octets before login.
var errTooMuch = errors.New("imapserver: too many octets before login")

// inputError is an error of reading inside a command: the session cannot go on, whatever the command was.
type inputError struct{ err error }

func (e *inputError) Error() string { return "imapserver: read command: " + e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// count adds octets received before login.
func (s *session) count(n int64) error {
	if s.state != notAuthenticated {
		return nil
	}
	if n > int64(s.srv.opt.Limits.OctetsBefore-s.octets) {
		return &inputError{errTooMuch}
	}
	s.octets += int(n)
	return nil
}

// line implements lineSource.
func (s *session) line() ([]byte, error) {
	line, err := s.conn.ReadLine()
	if err != nil {
		return nil, &inputError{err}
	}
	if err := s.count(int64(len(line) + 2)); err != nil {
		return nil, err
	}
	return line, nil
}

// literal implements lineSource.
func (s *session) literal(n int64, sync bool) ([]byte, error) {
	if err := s.count(n); err != nil {
		return nil, err
	}
	if sync {
		s.put("+ Ready\r\n")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.conn.Literal(n), b); err != nil {
		return nil, &inputError{err}
	}
	return b, nil
}

// resync discards what the peer is sending of a command that was given up: after each line that announces a literal
// without waiting, the literal and the line after it (RFC 7888, section 4).
func (s *session) resync(line []byte) error {
	limit := s.srv.opt.MessageSize()
	for {
		n, sync, found := trailingLiteral(line)
		if !found || sync {
			return nil
		}
		if err := s.count(n); err != nil {
			return err
		}
		if err := s.conn.Drain(n, limit); err != nil {
			return &inputError{err}
		}
		limit -= n
		var err error
		if line, err = s.line(); err != nil {
			return err
		}
	}
}

// command reads, runs and answers one command. An error ends the session without a word.
func (s *session) command() error {
	line, err := s.line()
	if err != nil {
		return s.lost(err)
	}
	start := time.Now()
	tag, cmd, req, err := s.parseCommand(line)
	var r reply
	if err == nil {
		r, err = req.run(s.ctx, s)
	}
	if cmd != nil && cmd.tell != tellNothing && s.view != nil && !s.ending && !isInput(err) {
		s.tell(cmd.tell == tellAll)
	}
	return s.finish(tag, cmd, r, err, start)
}

func isInput(err error) bool {
	var in *inputError
	return errors.As(err, &in)
}

// parseCommand reads a command; when that fails, what the peer still sends of it has been discarded.
func (s *session) parseCommand(line []byte) (tag string, cmd *command, req request, err error) {
	p := &s.p
	budget := s.srv.opt.Limits.Literal
	if s.state == notAuthenticated {
		budget = min(budget, s.srv.opt.Limits.LineBefore)
	}
	p.reset(s, line, budget)
	if tag = p.tag(); !p.ok() {
		tag = "*"
	}
	p.space()
	name := p.word("a command")
	if name == "UID" {
		p.space()
		name = "UID " + p.word("a command")
	}
	if p.ok() {
		if cmd = commandTable[name]; cmd == nil {
			p.refuse(bad("Unknown command"))
		} else if err := s.allowed(cmd); err != nil {
			p.refuse(err)
		} else {
			req = cmd.make()
			req.parse(p)
		}
	}
	if p.err == nil {
		return tag, cmd, req, nil
	}
	if !isInput(p.err) {
		if err := s.resync(p.line); err != nil {
			return tag, cmd, nil, err
		}
	}
	return tag, cmd, nil, p.err
}

// allowed tells whether a command may be given in the present state.
func (s *session) allowed(cmd *command) error {
	if cmd.states&s.state != 0 {
		return nil
	}
	switch {
	case s.state == notAuthenticated:
		return bad("Log in first")
	case cmd.states == notAuthenticated:
		return bad("Already logged in")
	default:
		return bad("Select a mailbox first")
	}
}

// finish writes the tagged answer and keeps the accounts of errors.
func (s *session) finish(tag string, cmd *command, r reply, err error, start time.Time) error {
	name := "unknown"
	if cmd != nil {
		name = cmd.name
	}
	var in *inputError
	switch {
	case errors.As(err, &in):
		return s.lost(in.err)
	case errors.Is(err, errEnd):
		s.ending = true
		return s.werr
	case s.werr != nil:
		return s.werr
	case s.ctx.Err() != nil || errors.Is(err, context.Canceled):
		return fmt.Errorf("imapserver: %s given up: %w", name, context.Canceled)
	case err != nil:
		var internal bool
		if r, internal = replyTo(err); internal {
			s.log.Error("command failed", "command", name, "account", s.acct, "mailbox", s.mbox, "error", err)
		}
	}
	if r.status == "" {
		r.status = statusOK
	}
	if r.text == "" {
		r.text = name + " completed"
	}
	s.write(appendStatus(s.scratch(), tag, r))
	if hook := s.srv.opt.Hooks.Command; hook != nil {
		hook(name, string(r.status), time.Since(start))
	}
	s.countBad(r.status)
	return s.werr
}

// countBad ends a session that only makes errors: it is no mail client. Before login five are enough.
func (s *session) countBad(st status) {
	if st != statusBad {
		s.bads = 0
		return
	}
	s.bads++
	limit := s.srv.opt.Limits.Errors
	if s.state == notAuthenticated {
		limit = min(limit, 5)
	}
	if s.bads >= limit && !s.ending {
		s.untagged(reply{statusBye, "", "Too many errors"})
		s.ending = true
	}
}

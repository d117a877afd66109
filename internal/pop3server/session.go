package pop3server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/wire"
)

// states of a session, RFC 1939, section 3; the UPDATE state is the run of QUIT. A bit set, for the command table.
type states uint8

const (
	authorization states = 1 << iota
	transaction

	anyState = authorization | transaction
)

// session is one connection. All of it belongs to the goroutine of run.
type session struct {
	srv         *Server
	conn        *wire.Conn
	log         *slog.Logger
	ctx         context.Context
	implicitTLS bool

	state  states
	ending bool // no further command is read
	werr   error
	buf    *[]byte // of the message being sent, from bufferPool
	text   [64]byte

	// Before login.
	octets int         // received
	tries  int         // failed logins
	errors int         // malformed commands in a row
	timer  *time.Timer // cuts the connection when login takes too long
	user   string      // of USER, until PASS
	utf8   bool        // the client gave UTF8

	// After login.
	identity *auth.Identity
	drop     *maildrop
}

// bufferPool keeps buffers for messages of ordinary size.
var bufferPool = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}

// keepBuffer is the largest buffer that goes back to the pool.
const keepBuffer = 256 << 10

// message borrows the session's buffer for one message.
func (s *session) message() []byte {
	if s.buf == nil {
		s.buf = bufferPool.Get().(*[]byte) //nolint:forcetypeassert // only these are put in
	}
	return (*s.buf)[:0]
}

// keep lets a buffer that had to grow serve the next message.
func (s *session) keep(b []byte) {
	if s.buf != nil && cap(b) > cap(*s.buf) {
		*s.buf = b[:0]
	}
}

// release gives the buffer back, so that a waiting session holds none.
func (s *session) release() {
	if s.buf == nil {
		return
	}
	if cap(*s.buf) <= keepBuffer {
		bufferPool.Put(s.buf)
	}
	s.buf = nil
}

// Conn is the session's connection, for the pool.
func (s *session) Conn() *wire.Conn { return s.conn }

// Run is the life of the session.
func (s *session) Run() {
	m := &s.srv.opt.Metrics
	if m.Sessions != nil {
		m.Sessions(+1)
	}
	s.log = s.log.With("protocol", "pop3", "peer", s.conn.RemoteAddr().String())
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
		s.closeDrop()
		cancel()
		s.release()
		_ = s.conn.Close()
		if m.Sessions != nil {
			m.Sessions(-1)
		}
	}()
	if s.implicitTLS {
		if err := s.conn.StartTLS(s.ctx, s.srv.opt.TLS); err != nil {
			s.log.Debug("TLS handshake failed", "error", err)
			return
		}
	}
	// No "<...>" in the greeting: that would offer APOP.
	s.put("+OK ", s.srv.opt.Hostname, " POP3 ready\r\n")
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
	for !s.ending && s.werr == nil {
		if s.conn.Buffered() == 0 {
			s.release()
			if err := s.conn.Flush(); err != nil {
				return err
			}
			woken, err := s.conn.Wait()
			if err != nil {
				return s.lost(err)
			}
			if woken { // only Shutdown and Evict wake; there is no unasked word in POP3
				return nil
			}
		}
		if err := s.command(); err != nil {
			return err
		}
		if s.srv.pool.Draining() || s.srv.pool.Evicted(s) {
			return s.werr
		}
	}
	return s.werr
}

// lost looks at an error of reading. When the peer can still be told why, it is; nil is returned then.
func (s *session) lost(err error) error {
	s.ending = true
	switch {
	case errors.Is(err, errTooMuch):
		s.put("-ERR Too much before login\r\n")
	case errors.Is(err, wire.ErrLineTooLong):
		s.put("-ERR Line too long\r\n")
	case errors.Is(err, wire.ErrBareNewline):
		s.put("-ERR CR or LF outside of CRLF\r\n")
	case wire.Timeout(err):
		// RFC 1939, section 3: the autologout closes the connection without a word and without deleting.
		return err
	default:
		return err
	}
	return s.werr
}

var (
	// errTooMuch ends a session that sends too many octets before login.
	errTooMuch = errors.New("pop3server: too many octets before login")
	// errEnd ends a session whose answer can't be completed: the end of a message that is cut must never be sent.
	errEnd = errors.New("pop3server: answer broken off")
)

// line reads a line of the client.
func (s *session) line() ([]byte, error) {
	line, err := s.conn.ReadLine()
	if err != nil {
		return nil, err
	}
	if s.state == authorization {
		if s.octets += len(line) + 2; s.octets > s.srv.opt.Limits.OctetsBefore {
			return nil, errTooMuch
		}
	}
	return line, nil
}

// put sends strings.
func (s *session) put(parts ...string) {
	for _, p := range parts {
		if s.werr == nil {
			_, s.werr = s.conn.WriteString(p)
		}
	}
}

// number sends a number.
func (s *session) number(n int64) {
	if s.werr == nil {
		_, s.werr = s.conn.Write(strconv.AppendInt(s.text[:0], n, 10))
	}
}

// command reads, runs and answers one command.
func (s *session) command() error {
	line, err := s.line()
	if err != nil {
		if errors.Is(err, wire.ErrLineTooLong) && !wire.Fatal(err) && s.state == transaction {
			s.put("-ERR Line too long\r\n") // the line was discarded to its end
			return s.countError(errSyntax)
		}
		return s.lost(err)
	}
	start := time.Now()
	c, args := lookup(line)
	name := "unknown"
	if c == nil {
		err = refuse("Unknown command")
	} else {
		name = c.name
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
func (s *session) perform(c *command, args []byte) error {
	switch {
	case c.states&s.state == 0 && s.state == authorization:
		return refuse("Log in first")
	case c.states&s.state == 0:
		return refuse("Already logged in")
	}
	if len(args) == 0 && c.args == needsArgs {
		return refuse("Argument missing")
	}
	if len(args) > 0 && c.args == noArgs {
		return refuse("No argument allowed")
	}
	return c.run(s, args)
}

// answerError sends -ERR; refusals count against the session, failures of the server are logged.
func (s *session) answerError(name string, err error) error {
	var r *refusal
	switch {
	case s.werr != nil:
		return s.werr
	case errors.Is(err, errEnd):
		return err
	case errors.As(err, &r):
		s.put("-ERR ", r.code, r.text, "\r\n")
		return s.countError(err)
	case s.ctx.Err() != nil, errors.Is(err, context.Canceled):
		return fmt.Errorf("pop3server: %s given up: %w", name, context.Canceled)
	case errors.As(err, new(*inputError)):
		return s.lost(errors.Unwrap(err))
	}
	s.log.Error("command failed", "command", name, "error", err)
	s.put("-ERR [SYS/TEMP] Not possible now, try again later\r\n")
	return s.werr
}

// countError ends a session that only makes errors: it is no mail client.
func (s *session) countError(err error) error {
	var r *refusal
	if errors.As(err, &r) && r.fair {
		return s.werr
	}
	s.errors++
	limit := s.srv.opt.Limits.Errors
	if s.state == authorization {
		limit = min(limit, 5)
	}
	if s.errors >= limit {
		s.ending = true
	}
	return s.werr
}

// inputError is an error of reading inside a command: the session cannot go on.
type inputError struct{ err error }

func (e *inputError) Error() string { return "pop3server: read: " + e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// refusal is a -ERR that is no failure of the server. code is empty or a response code with its brackets and a space.
type refusal struct {
	code, text string
	fair       bool // a client may well run into it: it does not count as an error
}

func (r *refusal) Error() string { return r.code + r.text }

func refuse(text string) error { return &refusal{text: text} }

func refuseFair(code, text string) error { return &refusal{code: code, text: text, fair: true} }

var errSyntax = refuse("Malformed command")

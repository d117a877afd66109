package smtpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/guard"
	"waxwing/internal/intake"
	"waxwing/internal/smtp"
	"waxwing/internal/trace"
	"waxwing/internal/wire"
)

// session is one connection. Its goroutine owns all of it; others only call conn.Wake and conn.Abort.
type session struct {
	srv     *Server
	ctx     context.Context // of this session, a child of the server's
	mode    Mode
	conn    *wire.Conn
	started time.Time
	remote  netip.AddrPort
	local   netip.AddrPort

	tls        *tls.ConnectionState // nil on plaintext
	helo       string               // "" before HELO or EHLO
	esmtp      bool
	identity   *auth.Identity
	mayXClient bool

	trail *trace.Trail // of the connection
	story *trace.Trail // of the message, nil outside of a transaction
	about trace.Step   // what the command that runs is about
	verb  string       // of the command that runs

	tx       Transaction // nil outside of a transaction
	mail     smtp.Mail
	txBegun  time.Time
	rcpts    int
	bdat     bool // a chunk of the message has come by BDAT
	sink     sink // where the message goes
	bodyLost bool // DATA was refused: what comes next must be a command, or the peer is sending its message

	messages, errors, idle, refusals, authFailures int

	guard   Guard
	visitor *guard.Visitor // what the guard knows of this session; nil before the greeting

	surplus int // recipients over the limit of one message

	ending  bool // no more commands are read
	lingers bool // the peer may still be sending
	buf     []byte
}

// errEnd ends a session after its last reply was written.
var errEnd = errors.New("smtpserver: session over")

// Conn is the session's connection, for the pool.
func (s *session) Conn() *wire.Conn { return s.conn }

// Run serves the session to its end. A panic is a defect of this server: it costs this session and no other.
func (s *session) Run() {
	if f := s.srv.opts.Metrics.Sessions; f != nil {
		f(s.mode, 1)
		defer f(s.mode, -1)
	}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(s.srv.pool.Context())
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			s.crashed(p)
		}
		s.close()
	}()
	if err := s.open(); err != nil {
		s.fail(err)
		return
	}
	for !s.ending {
		if err := s.next(); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *session) crashed(p any) {
	s.srv.log.Error("session crashed", "remote", s.remote.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if f := s.srv.opts.Metrics.Panic; f != nil {
		f(s.mode)
	}
	s.end(421, "4.3.0", "internal error, try again later")
}

// close frees everything. The last reply goes out before the socket is closed, and isn't lost to octets that nobody
// reads any more.
func (s *session) close() {
	defer func() { _ = s.conn.Close() }() // what had to go out is flushed before
	s.release()
	s.trail.Close()
	if f := s.srv.opts.Metrics.Ended; f != nil {
		f(s.mode, s.srv.opts.Clock().Sub(s.started))
	}
	if s.lingers && s.srv.pool.Context().Err() == nil {
		s.conn.Linger(lingerOctets, lingerTime)
		return
	}
	_ = s.conn.Flush() // the peer may be gone: nothing more can be done for it
}

// release aborts the transaction. It may be what crashed the session, and must not crash the server.
func (s *session) release() {
	defer func() {
		if p := recover(); p != nil {
			s.crashed(p)
		}
	}()
	s.leave()
	s.abort()
}

const (
	lingerOctets = 256 << 10
	lingerTime   = time.Second
)

// fail ends a session that can't be read on. The peer is told why, as far as it still listens.
func (s *session) fail(err error) {
	s.noteLost(err)
	s.about = trace.Step{Kind: trace.End}
	switch {
	case wire.Timeout(err):
		s.end(421, "4.4.2", "too slow, closing the connection")
	case errors.Is(err, wire.ErrLineTooLong), errors.Is(err, wire.ErrBareNewline), errors.Is(err, wire.ErrTooLarge):
		s.end(421, "4.7.0", "too much to read past, closing the connection")
	}
	s.srv.log.Debug("session ended by the peer", "remote", s.remote.String(), "error", err)
}

// next reads one command and answers it. An error is fatal.
func (s *session) next() error {
	if s.mustEnd() { // a Wake may have been spent inside a transaction
		return nil
	}
	if s.conn.Buffered() == 0 {
		if _, err := s.conn.Wait(); err != nil {
			return err
		}
		if s.mustEnd() {
			return nil
		}
	}
	line, err := s.conn.ReadLine()
	if wire.Fatal(err) {
		return err
	}
	if told := s.told(guard.Command, nil); told != nil || s.ending {
		return told
	}
	errorsBefore := s.errors
	switch {
	case errors.Is(err, wire.ErrLineTooLong):
		s.bad(500, "5.5.2", "line too long")
	case err != nil:
		s.bad(500, "5.5.2", "CR or LF outside of a line end")
	default:
		if err := s.dispatch(line); err != nil {
			return err
		}
	}
	if s.errors > errorsBefore && !s.ending {
		return s.told(guard.Bad, nil)
	}
	return nil
}

// mustEnd tells the peer 421 when the session has no more time.
func (s *session) mustEnd() bool {
	now := s.srv.opts.Clock()
	switch {
	case s.tx == nil && s.srv.pool.Draining():
		s.end(421, "4.3.2", "shutting down, try again later")
	case s.identity != nil && s.srv.pool.Evicted(s):
		s.end(421, "4.7.0", "this account has been signed out by the server")
	case s.tx == nil && now.Sub(s.started) > s.srv.limits.Session:
		s.end(421, "4.4.2", "session too long, connect again")
	case s.tx != nil && now.Sub(s.txBegun) > s.srv.limits.Transaction:
		s.end(421, "4.4.2", "transaction too long, closing the connection")
	}
	return s.ending
}

// dispatch finds the command of a line, checks what its row in the table asks for, and runs it.
func (s *session) dispatch(line []byte) error {
	word, args := line, []byte(nil)
	if sp := bytes.IndexByte(line, ' '); sp >= 0 {
		word, args = line[:sp], line[sp:]
	}
	cmd := lookup(word)
	lost := s.bodyLost
	s.bodyLost = false
	switch {
	case cmd == nil && lost:
		s.end(421, "5.5.1", "that is no command: a refused message must not be sent")
		return nil
	case cmd == nil && isHTTP(word):
		s.end(421, "5.5.1", "this is not a web server")
		return nil
	case cmd == nil || !cmd.in(s):
		s.about, s.verb = trace.Step{Kind: trace.Command, Reason: string(word)}, "other"
		s.bad(500, "5.5.2", "unknown command")
		return nil
	case cmd.noArgs && len(bytes.TrimLeft(args, " ")) > 0:
		s.bad(501, "5.5.4", "no parameters allowed")
		return nil
	}
	if cmd.needs != 0 && !s.has(cmd.needs) {
		return nil
	}
	if cmd.idle && !s.idled() {
		return nil
	}
	s.about, s.verb = trace.Step{Kind: cmd.step()}, cmd.verb
	if s.about.Kind == trace.Command {
		s.about.Reason = cmd.verb
	}
	return cmd.run(s, args)
}

// isHTTP tells the verbs by which a browser, led here by a hostile page, would begin.
func isHTTP(word []byte) bool {
	switch string(word) {
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH":
		return true
	}
	return false
}

var (
	replyNeedTLS    = smtp.Errorf(530, "5.7.0", "must issue STARTTLS first")
	replyNeedHello  = smtp.Errorf(503, "5.5.1", "say EHLO first")
	replyNeedAuth   = smtp.Errorf(530, "5.7.0", "authentication required")
	replyNeedNoMail = smtp.Errorf(503, "5.5.1", "not allowed inside a transaction")
	replyNeedMail   = smtp.Errorf(503, "5.5.1", "MAIL first")
	replyNeedRcpt   = smtp.Errorf(554, "5.5.1", "no valid recipients")
)

// lacks checks the conditions of a command in the order in which a peer can meet them, and returns the reply for the
// first one that isn't met.
func (s *session) lacks(n need) *smtp.Reply {
	switch {
	case n&needTLS != 0 && s.mode.forUsers() && s.tls == nil:
		return replyNeedTLS
	case n&needHello != 0 && s.helo == "":
		return replyNeedHello
	case n&needAuth != 0 && s.mode.forUsers() && s.identity == nil:
		return replyNeedAuth
	case n&needNoMail != 0 && s.tx != nil:
		return replyNeedNoMail
	case n&needMail != 0 && s.tx == nil:
		return replyNeedMail
	case n&needRcpt != 0 && s.rcpts == 0:
		return replyNeedRcpt
	}
	return nil
}

// has answers and counts a command whose conditions aren't met.
func (s *session) has(n need) bool {
	r := s.lacks(n)
	if r == nil {
		return true
	}
	s.reply(r)
	s.blame()
	return false
}

// say writes one reply of fixed text.
func (s *session) say(code int, enhanced, text string) {
	b := s.buf[:0]
	b = append(b, byte('0'+code/100), byte('0'+code/10%10), byte('0'+code%10), ' ')
	if enhanced != "" {
		b = append(b, enhanced...)
		b = append(b, ' ')
	}
	b = append(b, text...)
	b = append(b, '\r', '\n')
	_, _ = s.conn.Write(b) // the error is sticky: the next read tells it
	s.answered(code, b)
	s.keep(b)
}

// reply writes a reply of somebody else; a 421 ends the session (RFC 5321, section 3.8).
func (s *session) reply(r *smtp.Reply) {
	b := r.Append(s.buf[:0], s.mail.UTF8)
	_, _ = s.conn.Write(b)
	s.answered(r.Code, b)
	s.keep(b)
	if r.Code == 421 {
		s.ending, s.lingers = true, true
	}
}

// keep keeps a small buffer for the next reply; the session holds none while it is idle for long texts.
func (s *session) keep(b []byte) {
	if cap(b) <= 256 {
		s.buf = b[:0]
	}
}

// end says a last reply.
func (s *session) end(code int, enhanced, text string) {
	s.say(code, enhanced, text)
	s.ending, s.lingers = true, code != 221
}

// bad answers a bad command and counts it.
func (s *session) bad(code int, enhanced, text string) {
	s.say(code, enhanced, text)
	s.blame()
}

func (s *session) blame() {
	if s.errors++; s.errors >= s.srv.limits.Errors && !s.ending {
		s.end(421, "4.7.0", "too many errors, closing the connection")
	}
}

// idled counts a command that brings no mail along. Beyond the limit each counts as a bad one; it is false when that
// has ended the session.
func (s *session) idled() bool {
	if s.idle++; s.idle <= s.srv.limits.Idle {
		return true
	}
	if s.errors++; s.errors < s.srv.limits.Errors {
		return true
	}
	s.end(421, "4.7.0", "too many commands without a message, closing the connection")
	return false
}

// refused answers with what a stage returned: a reply for the peer, or a failure of this server that is logged. It gives
// what was answered.
func (s *session) refused(err error, stage string) *smtp.Reply {
	var r *smtp.Reply
	if !errors.As(err, &r) || r.Code < 400 || r.Code > 599 {
		s.srv.log.Error("smtp stage failed", "stage", stage, "remote", s.remote.String(), "error", err)
		r = smtp.Errorf(451, "4.3.0", "temporary failure, try again later")
	}
	s.reply(r)
	return r
}

// begin gives the context of one command: it ends when the peer leaves, when the time for the server's own work is up,
// or when the server must stop.
func (s *session) begin(d time.Duration) (context.Context, context.CancelFunc) {
	return s.conn.WatchPeerFor(s.ctx, d)
}

// abort ends the transaction, if there is one.
func (s *session) abort() {
	tx := s.tx
	s.tx, s.mail, s.rcpts, s.bdat, s.sink = nil, smtp.Mail{}, 0, false, sink{}
	s.story.Close()
	s.story = nil
	if tx != nil {
		tx.Abort()
	}
}

func (s *session) peer() intake.Peer {
	return intake.Peer{
		Remote:     s.remote,
		Local:      s.local,
		HELO:       s.helo,
		ESMTP:      s.esmtp,
		TLS:        s.tls,
		Identity:   s.identity,
		Submission: s.mode.forUsers(),
		LMTP:       s.mode == LMTP,
		Visitor:    s.visitor,
		Trail:      s.story,
	}
}

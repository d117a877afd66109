package imapserver

import (
	"context"
	"encoding/base64"
	"errors"

	"waxwing/internal/auth"
)

// maxCredential bounds a login name, a password and one SASL response.
const maxCredential = 4 << 10

// startTLSRequest is STARTTLS, RFC 3501, section 6.2.1.
type startTLSRequest struct{}

func (*startTLSRequest) parse(p *parser) { p.end() }

func (*startTLSRequest) run(_ context.Context, s *session) (reply, error) {
	if _, on := s.conn.TLS(); on {
		return reply{}, bad("TLS is already on")
	}
	if s.srv.opt.TLS == nil {
		return reply{}, no("", "TLS is not available")
	}
	// The handshake begins behind the tagged answer.
	s.startTLS = true
	return ok("", "Begin TLS negotiation now"), nil
}

// handshake turns TLS on after the answer to STARTTLS. What the peer sent in plaintext behind the command is
// discarded by the wire, and nothing that was said before counts.
func (s *session) handshake() error {
	s.startTLS = false
	s.release()
	if err := s.conn.StartTLS(s.ctx, s.srv.opt.TLS); err != nil {
		s.log.Debug("TLS handshake failed", "error", err)
		return err
	}
	return nil
}

// loginRequest is LOGIN, RFC 3501, section 6.2.3.
type loginRequest struct{ user, password string }

func (r *loginRequest) parse(p *parser) {
	p.space()
	r.user = p.astring(maxCredential)
	p.space()
	r.password = p.astring(maxCredential)
	p.end()
}

func (r *loginRequest) run(_ context.Context, s *session) (reply, error) {
	if _, on := s.conn.TLS(); !on {
		return reply{}, no("PRIVACYREQUIRED", "Begin TLS first")
	}
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	password := []byte(r.password)
	r.password = ""
	id, err := s.srv.opt.Auth.Password(ctx, s.attempt(), r.user, password)
	clear(password)
	return s.loggedIn(ctx, "LOGIN", id, err)
}

func (s *session) attempt() auth.Attempt {
	_, on := s.conn.TLS()
	return auth.Attempt{Protocol: "imap", Remote: s.conn.RemoteAddr(), TLS: on}
}

// loggedIn ends a login of either kind.
func (s *session) loggedIn(ctx context.Context, mechanism string, id *auth.Identity, err error) (reply, error) {
	if hook := s.srv.opt.Hooks.LoggedIn; hook != nil {
		hook(mechanism, err == nil)
	}
	if err != nil {
		return reply{}, s.loginFailed(ctx, err)
	}
	s.timer.Stop()
	s.identity, s.acct = id, id.Account
	s.srv.pool.Own(s, int64(id.Account))
	s.state = authenticated
	s.bads = 0
	s.log = s.log.With("account", int64(id.Account))
	lim := s.conn.Limits()
	lim.Line, lim.Idle = s.srv.opt.Limits.Line, s.srv.opt.Limits.Idle
	s.conn.SetLimits(lim)
	return ok("CAPABILITY "+s.capabilities(), "Logged in"), nil
}

// loginFailed says as little as it can: not whether the account exists, nor what was wrong.
func (s *session) loginFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Canceled
	}
	if errors.Is(err, auth.ErrTemporary) || errors.Is(err, auth.ErrBusy) {
		return no("UNAVAILABLE", "Logging in is not possible now, try again later")
	}
	if errors.Is(err, auth.ErrThrottled) {
		s.tries++
		s.byeAfterTries()
		return no("UNAVAILABLE", "Too many failures, try again later")
	}
	if errors.Is(err, auth.ErrMechanism) {
		return no("", "Mechanism not offered")
	}
	if errors.Is(err, auth.ErrAborted) {
		return bad("Cancelled")
	}
	if errors.Is(err, auth.ErrMalformed) {
		s.tries++
		s.byeAfterTries()
		return bad("Response not understood")
	}
	if !errors.Is(err, auth.ErrCredentials) {
		s.log.Error("login failed", "error", err)
		return no("UNAVAILABLE", "Logging in is not possible now, try again later")
	}
	s.tries++
	s.byeAfterTries()
	return no("AUTHENTICATIONFAILED", "Authentication failed")
}

// byeAfterTries ends a session that guesses. BYE goes out before the tagged answer, as RFC 3501, section 7.1.5 has it.
func (s *session) byeAfterTries() {
	if s.tries >= s.srv.opt.Limits.Tries {
		s.untagged(reply{statusBye, "", "Too many failed logins"})
		s.ending = true
	}
}

// authenticateRequest is AUTHENTICATE, RFC 3501, section 6.2.2, with the initial response of RFC 4959.
type authenticateRequest struct {
	mechanism string
	initial   []byte
	given     bool
}

func (r *authenticateRequest) parse(p *parser) {
	p.space()
	r.mechanism = p.word("a mechanism")
	if p.ok() && p.take(' ') && p.pos < len(p.line) {
		// Only base64 is taken: should the line end in a literal header, it is refused as such.
		start := p.pos
		for p.pos < len(p.line) && isBase64(p.line[p.pos]) {
			p.pos++
		}
		r.initial = append([]byte(nil), p.line[start:p.pos]...)
		r.given = len(r.initial) > 0
	}
	p.end()
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '='
}

func (r *authenticateRequest) run(_ context.Context, s *session) (reply, error) {
	if _, on := s.conn.TLS(); !on {
		return reply{}, no("PRIVACYREQUIRED", "Begin TLS first")
	}
	var response []byte
	if r.given {
		var err error
		if response, err = auth.Decode(r.initial); err != nil {
			return s.loggedIn(s.ctx, r.mechanism, nil, err)
		}
	}
	ex, err := s.srv.opt.Auth.Start(s.ctx, s.attempt(), r.mechanism)
	if err != nil {
		return s.loggedIn(s.ctx, r.mechanism, nil, err)
	}
	id, err := s.exchange(ex, response, r.given)
	if isInput(err) {
		return reply{}, err
	}
	return s.loggedIn(s.ctx, r.mechanism, id, err)
}

// maxRounds bounds the challenges of one exchange.
const maxRounds = 10

// exchange carries challenges and responses between the peer and the mechanism.
func (s *session) exchange(ex auth.Exchange, response []byte, given bool) (*auth.Identity, error) {
	for range maxRounds {
		challenge, id, err := s.next(ex, response, given)
		if err != nil || id != nil {
			return id, err
		}
		b := append(s.scratch(), "+ "...)
		b = base64.StdEncoding.AppendEncode(b, challenge)
		s.write(append(b, '\r', '\n'))
		line, err := s.line()
		if err != nil {
			return nil, err
		}
		if response, err = auth.Decode(line); err != nil {
			if rerr := s.resync(line); rerr != nil {
				return nil, rerr
			}
			return nil, err
		}
		given = true
	}
	return nil, auth.ErrMalformed
}

// next takes one step of a mechanism, given up when the peer leaves: hashing a password may have to wait its turn.
func (s *session) next(ex auth.Exchange, response []byte, given bool) ([]byte, *auth.Identity, error) {
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	if !given {
		response = nil
	}
	return ex.Next(ctx, response)
}

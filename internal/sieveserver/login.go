package sieveserver

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"waxwing/internal/auth"
)

var errNeedTLS = refuseFair("(ENCRYPT-NEEDED) ", "Begin TLS first: STARTTLS")

// startTLS is STARTTLS, RFC 5804, section 2.2. What the peer sent in plaintext behind it is discarded by the wire, and the
// capabilities are told once more.
func (s *session) startTLS([]string) error {
	if _, on := s.conn.TLS(); on {
		return refuse("TLS is already on")
	}
	if s.srv.opt.TLS == nil {
		return refuse("TLS is not available")
	}
	s.ok("", "Begin TLS negotiation now")
	if s.werr != nil || !s.handshake() {
		return s.werr
	}
	s.capabilities()
	s.ok("", "TLS is on")
	return nil
}

func (s *session) attempt() auth.Attempt {
	_, on := s.conn.TLS()
	return auth.Attempt{Protocol: "managesieve", Remote: s.conn.RemoteAddr(), TLS: on}
}

// authenticate is AUTHENTICATE, RFC 5804, section 2.1.
func (s *session) authenticate(args []string) error {
	if _, on := s.conn.TLS(); !on {
		return errNeedTLS
	}
	mechanism := strings.ToUpper(args[0])
	var response []byte
	if len(args) > 1 {
		var err error
		if response, err = auth.Decode([]byte(args[1])); err != nil {
			return s.signedIn(s.ctx, mechanism, nil, err)
		}
	}
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	ex, err := s.srv.opt.Auth.Start(ctx, s.attempt(), mechanism)
	cancel()
	if err != nil {
		return s.signedIn(s.ctx, mechanism, nil, err)
	}
	id, err := s.exchange(ex, response)
	if errors.As(err, new(*inputError)) || errors.As(err, new(*refusal)) {
		return err
	}
	return s.signedIn(s.ctx, mechanism, id, err)
}

// maxRounds bounds the challenges of one exchange.
const maxRounds = 10

// exchange carries challenges and responses, which are strings in base64, between the peer and the mechanism.
func (s *session) exchange(ex auth.Exchange, response []byte) (*auth.Identity, error) {
	for range maxRounds {
		challenge, id, err := s.next(ex, response)
		if err != nil || id != nil {
			return id, err
		}
		s.put(quote(base64.StdEncoding.EncodeToString(challenge)), "\r\n")
		text, err := s.response()
		if err != nil {
			return nil, err
		}
		if response, err = auth.Decode([]byte(text)); err != nil {
			return nil, err
		}
	}
	return nil, auth.ErrMalformed
}

// response reads one string of the client.
func (s *session) response() (string, error) {
	line, err := s.line()
	if err != nil {
		return "", err
	}
	args, p := appendArguments(nil, string(line))
	if p.literal && len(args) == 0 {
		text, err := s.literal(p.size, auth.MaxLine)
		if err != nil {
			return "", err
		}
		if line, err = s.line(); err != nil {
			return "", err
		}
		if len(line) > 0 {
			return "", errSyntax
		}
		return text, nil
	}
	if p.bad || p.literal || len(args) != 1 {
		return "", errSyntax
	}
	return args[0], nil
}

// next takes one step of a mechanism, given up when the peer leaves: hashing a password may have to wait its turn.
func (s *session) next(ex auth.Exchange, response []byte) ([]byte, *auth.Identity, error) {
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	return ex.Next(ctx, response)
}

// signedIn ends a login, well or not.
func (s *session) signedIn(ctx context.Context, mechanism string, id *auth.Identity, err error) error {
	known := mechanism
	if errors.Is(err, auth.ErrMechanism) {
		known = "unknown" // names from strangers are no labels
	}
	if m := s.srv.opt.Metrics.SignIn; m != nil {
		m(known, err == nil)
	}
	if err != nil {
		return s.signInFailed(ctx, err)
	}
	s.timer.Stop()
	s.identity, s.state = id, user
	s.log = s.log.With("account", int64(id.Account))
	lim := s.conn.Limits()
	lim.Line, lim.Idle = s.srv.opt.Limits.Line, s.srv.opt.Limits.Idle
	s.conn.SetLimits(lim)
	s.ok("", "Logged in")
	return nil
}

// signInFailed says as little as it can: not whether the account exists, nor what was wrong.
func (s *session) signInFailed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Canceled
	case errors.Is(err, auth.ErrTemporary), errors.Is(err, auth.ErrBusy):
		return refuseFair("(TRYLATER) ", "Logging in is not possible now, try again later")
	case errors.Is(err, auth.ErrMechanism):
		return refuse("Mechanism not offered")
	case errors.Is(err, auth.ErrAborted):
		return refuse("Cancelled")
	case errors.Is(err, auth.ErrThrottled):
		defer s.countTry()
		return refuseFair("(TRYLATER) ", "Too many failures, try again later")
	case errors.Is(err, auth.ErrMalformed):
		defer s.countTry()
		return refuse("Response not understood")
	case errors.Is(err, auth.ErrCredentials):
		defer s.countTry()
		return refuseFair("", "Wrong user name or password")
	}
	return err
}

// countTry ends a session that guesses.
func (s *session) countTry() {
	if s.tries++; s.tries >= s.srv.opt.Limits.Tries {
		s.ending = true
	}
}

package pop3server

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf8"

	"waxwing/internal/auth"
)

// maxName bounds a login name and a mechanism's name.
const maxName = 1000

var errNeedTLS = refuseFair("", "Begin TLS first: STLS")

// stls is STLS, RFC 2595, section 4. What the peer sent in plaintext behind it is discarded by the wire, and nothing
// that was said before counts.
func (s *session) stls([]byte) error {
	switch {
	case s.onTLS():
		return refuse("TLS is already on")
	case s.srv.opt.TLS == nil:
		return refuse("TLS is not available")
	case s.utf8: // RFC 6856, section 2.1
		return refuse("Not after UTF8")
	}
	s.put("+OK Begin TLS negotiation\r\n")
	if s.werr != nil {
		return s.werr
	}
	s.user = ""
	if err := s.conn.StartTLS(s.ctx, s.srv.opt.TLS); err != nil {
		s.log.Debug("TLS handshake failed", "error", err)
		s.werr = err
		return err
	}
	return nil
}

// userName is USER, RFC 1939, section 7. The answer is the same for every name.
func (s *session) userName(args []byte) error {
	if !s.onTLS() {
		return errNeedTLS
	}
	if len(args) > maxName || !utf8.Valid(args) || bytes.IndexByte(args, 0) >= 0 {
		return refuse("No user name")
	}
	s.user = string(args)
	s.put("+OK Send PASS\r\n")
	return nil
}

// pass is PASS, RFC 1939, section 7: all behind the first space is the password, spaces too.
func (s *session) pass(args []byte) error {
	if !s.onTLS() {
		return errNeedTLS
	}
	if s.user == "" {
		return refuse("Send USER first")
	}
	user := s.user
	s.user = ""
	password := bytes.Clone(args)
	clear(args) // the connection's buffer
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	id, err := s.srv.opt.Auth.Password(ctx, s.attempt(), user, password)
	clear(password)
	return s.signedIn(ctx, "USER", id, err)
}

func (s *session) attempt() auth.Attempt {
	return auth.Attempt{Protocol: "pop3", Remote: s.conn.RemoteAddr(), TLS: s.onTLS()}
}

// authenticate is AUTH, RFC 5034. Without an argument it lists the mechanisms, as some clients ask (RFC 1734's practice).
func (s *session) authenticate(args []byte) error {
	if !s.onTLS() {
		return errNeedTLS
	}
	if len(args) == 0 {
		s.put("+OK Mechanisms follow\r\n")
		for _, m := range s.srv.opt.Auth.Mechanisms(true) {
			s.put(m, "\r\n")
		}
		s.put(".\r\n")
		return nil
	}
	word, initial, given := bytes.Cut(args, []byte(" "))
	if len(word) > maxName {
		return errSyntax
	}
	mechanism := strings.ToUpper(string(word))
	var response []byte
	if given {
		var err error
		if response, err = auth.Decode(initial); err != nil {
			return s.signedIn(s.ctx, mechanism, nil, err)
		}
		if response == nil {
			response = []byte{} // "=" is an empty response, which is not the same as none
		}
	}
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	ex, err := s.srv.opt.Auth.Start(ctx, s.attempt(), mechanism)
	cancel()
	if err != nil {
		return s.signedIn(s.ctx, mechanism, nil, err)
	}
	id, err := s.exchange(ex, response)
	if errors.As(err, new(*inputError)) {
		return err
	}
	return s.signedIn(s.ctx, mechanism, id, err)
}

// maxRounds bounds the challenges of one exchange.
const maxRounds = 10

// exchange carries challenges and responses between the peer and the mechanism.
func (s *session) exchange(ex auth.Exchange, response []byte) (*auth.Identity, error) {
	for range maxRounds {
		challenge, id, err := s.next(ex, response)
		if err != nil || id != nil {
			return id, err
		}
		s.put("+ ", base64.StdEncoding.EncodeToString(challenge), "\r\n")
		line, err := s.line()
		if err != nil {
			return nil, &inputError{err}
		}
		if response, err = auth.Decode(line); err != nil {
			return nil, err
		}
		if response == nil {
			response = []byte{}
		}
	}
	return nil, auth.ErrMalformed
}

// next takes one step of a mechanism, given up when the peer leaves: hashing a password may have to wait its turn.
func (s *session) next(ex auth.Exchange, response []byte) ([]byte, *auth.Identity, error) {
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	return ex.Next(ctx, response)
}

// signedIn ends a login of either kind: with the maildrop locked and listed, or with an error.
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
	drop, err := s.srv.openDrop(ctx, id.Account)
	if err != nil {
		return err
	}
	s.timer.Stop()
	s.identity, s.drop = id, drop
	s.srv.pool.Own(s, int64(id.Account))
	s.state = transaction
	s.log = s.log.With("account", int64(id.Account))
	lim := s.conn.Limits()
	lim.Line, lim.Idle = s.srv.opt.Limits.Line, s.srv.opt.Limits.Idle
	s.conn.SetLimits(lim)
	s.put("+OK Logged in, ")
	s.number(int64(len(drop.items)))
	s.put(" messages\r\n")
	return nil
}

// signInFailed says as little as it can: not whether the account exists, nor what was wrong (RFC 3206 for the codes).
func (s *session) signInFailed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Canceled
	case errors.Is(err, auth.ErrTemporary), errors.Is(err, auth.ErrBusy):
		return refuseFair("[SYS/TEMP] ", "Logging in is not possible now, try again later")
	case errors.Is(err, auth.ErrMechanism):
		return refuse("Mechanism not offered")
	case errors.Is(err, auth.ErrAborted):
		return refuse("Cancelled")
	case errors.Is(err, auth.ErrThrottled):
		s.countTry()
		return refuseFair("[SYS/TEMP] ", "Too many failures, try again later")
	case errors.Is(err, auth.ErrMalformed):
		s.countTry()
		return refuse("Response not understood")
	case errors.Is(err, auth.ErrCredentials):
		s.countTry()
		return refuseFair("[AUTH] ", "Wrong user name or password")
	}
	return err
}

// countTry ends a session that guesses.
func (s *session) countTry() {
	if s.tries++; s.tries >= s.srv.opt.Limits.Tries {
		s.ending = true
	}
}

package smtpserver

import (
	"bytes"
	"encoding/base64"
	"errors"

	"waxwing/internal/auth"
	"waxwing/internal/guard"
	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

// cmdAuth is RFC 4954. The table has seen to it that TLS is on.
func (s *session) cmdAuth(args []byte) error {
	fields := bytes.Fields(args)
	switch {
	case s.identity != nil:
		s.bad(503, "5.5.1", "already authenticated")
		return nil
	case len(fields) == 0 || len(fields) > 2:
		s.bad(501, "5.5.4", "expected AUTH mechanism [initial-response]")
		return nil
	}
	mechanism := string(bytes.ToUpper(fields[0]))
	at := auth.Attempt{Protocol: "smtp", Listener: s.mode.String(), Remote: s.remote, TLS: s.tls != nil}
	exchange, err := s.srv.opts.Auth.Start(s.ctx, at, mechanism)
	if err != nil {
		return s.authRefused(mechanism, err)
	}
	var response []byte
	if len(fields) == 2 {
		if response, err = auth.Decode(fields[1]); err != nil {
			return s.authRefused(mechanism, err)
		}
	}
	s.conn.SetLimits(s.authLimits())
	defer s.conn.SetLimits(s.srv.wire)
	return s.exchange(mechanism, exchange, response)
}

func (s *session) authLimits() wire.Limits {
	lim := s.srv.wire
	lim.Line = maxAuthLine
	return lim
}

// exchange runs a mechanism to its end: challenges go out in base64, responses come back so.
func (s *session) exchange(mechanism string, exchange auth.Exchange, response []byte) error {
	for rounds := 0; rounds < maxAuthRounds; rounds++ {
		challenge, id, err := s.step(exchange, response)
		switch {
		case err != nil:
			return s.authRefused(mechanism, err)
		case id != nil:
			s.identity = id
			if r, err := s.ask(s.ctx, guard.SignedIn); r != nil || err != nil {
				s.identity = nil
				return s.turnedAway(r, err)
			}
			s.srv.pool.Own(s, int64(id.Account))
			s.signIn(mechanism, true)
			s.noteSignIn(mechanism)
			s.say(235, "2.7.0", "authentication succeeded")
			return nil
		}
		s.say(334, "", base64.StdEncoding.EncodeToString(challenge))
		line, err := s.conn.ReadLine()
		switch {
		case wire.Fatal(err):
			return err
		case errors.Is(err, wire.ErrLineTooLong):
			s.bad(500, "5.5.6", "line too long")
			return nil
		case err != nil:
			s.bad(500, "5.5.2", "CR or LF outside of a line end")
			return nil
		}
		if response, err = auth.Decode(line); err != nil {
			return s.authRefused(mechanism, err)
		}
	}
	return s.authRefused(mechanism, auth.ErrMalformed)
}

// maxAuthRounds is more than any mechanism takes.
const maxAuthRounds = 10

func (s *session) step(exchange auth.Exchange, response []byte) ([]byte, *auth.Identity, error) {
	ctx, cancel := s.begin(s.srv.limits.Command)
	defer cancel()
	return exchange.Next(ctx, response)
}

func (s *session) signIn(mechanism string, ok bool) {
	if f := s.srv.opts.Metrics.SignIn; f != nil {
		f(s.mode, mechanism, ok)
	}
}

var authRefusals = []struct {
	err   error
	reply *smtp.Reply
}{
	{auth.ErrCredentials, smtp.Errorf(535, "5.7.8", "authentication failed")},
	{auth.ErrAborted, smtp.Errorf(501, "5.7.0", "authentication cancelled")},
	{auth.ErrMalformed, smtp.Errorf(501, "5.5.2", "malformed authentication")},
	{auth.ErrMechanism, smtp.Errorf(504, "5.5.4", "no such mechanism")},
	{auth.ErrTLS, smtp.Errorf(538, "5.7.11", "encryption required")},
	{auth.ErrBusy, smtp.Errorf(454, "4.7.0", "too busy, try again later")},
	{auth.ErrThrottled, smtp.Errorf(454, "4.7.0", "too many failures, try again later")},
}

// authRefused answers a sign-in that failed: a wrong password and a wrong name alike.
func (s *session) authRefused(mechanism string, err error) error {
	r := smtp.Errorf(454, "4.7.0", "authentication is not possible now, try again later")
	known := false
	for _, row := range authRefusals {
		if errors.Is(err, row.err) {
			r, known = row.reply, true
			break
		}
	}
	if !known {
		s.srv.log.Error("smtp stage failed", "stage", "auth", "remote", s.remote.String(), "error", err)
	}
	s.reply(r)
	if r.Code == 535 {
		s.signIn(mechanism, false)
	}
	if r.Temporary() {
		return nil
	}
	if s.authFailures++; s.authFailures >= s.srv.limits.AuthFailures {
		s.end(421, "4.7.0", "too many failed authentications")
	} else {
		s.blame()
	}
	if r.Code == 535 {
		return s.told(guard.NotSigned, r)
	}
	return nil
}

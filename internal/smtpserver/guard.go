package smtpserver

import (
	"context"
	"errors"
	"time"

	"waxwing/internal/guard"
	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

// Guard is the front door, asked at each stage of a session: *guard.Guard.
type Guard interface {
	Ask(ctx context.Context, stage guard.Stage, v *guard.Visitor) guard.Verdict
}

// openDoor lets everybody in.
type openDoor struct{}

func (openDoor) Ask(context.Context, guard.Stage, *guard.Visitor) guard.Verdict {
	return guard.Verdict{}
}

// open asks about the connection and greets. On the port with TLS from the first octet on nothing can be said before the
// handshake, and none is made for a peer that is refused.
func (s *session) open() error {
	d := s.enter()
	if s.mode == Submissions && (d.Reply != nil || !s.startTLS()) {
		return errEnd
	}
	return s.greet(d)
}

// enter makes the visitor of a session and asks about it. Every visitor that entered leaves.
func (s *session) enter() guard.Verdict {
	s.leave()
	s.visitor = &guard.Visitor{Listener: guard.Listener(s.mode.String()), Remote: s.remote, Local: s.local}
	return s.noteVerdict(s.guard.Ask(s.ctx, guard.Connect, s.visitor))
}

func (s *session) leave() {
	if v := s.visitor; v != nil {
		s.visitor = nil
		s.guard.Ask(s.ctx, guard.End, v)
	}
}

// ask asks about a stage within a command's context and lets the peer wait. A refusal is returned for the caller to answer;
// a fatal error says that the peer has gone.
func (s *session) ask(ctx context.Context, stage guard.Stage) (*smtp.Reply, error) {
	if s.visitor == nil {
		return nil, nil
	}
	d := s.inform(ctx, stage)
	if d.Delay > 0 {
		if err := s.pause(ctx, d.Delay); err != nil {
			return nil, err
		}
	}
	return d.Reply, nil
}

// inform brings the visitor up to date and asks.
func (s *session) inform(ctx context.Context, stage guard.Stage) guard.Verdict {
	v := s.visitor
	v.TLS, v.HELO, v.ESMTP = s.tls != nil, s.helo, s.esmtp
	v.Pipelined = s.conn.Buffered() > 0
	v.Recipients, v.Refused, v.Errors = s.rcpts, s.refusals, s.errors
	if s.identity != nil {
		v.Account, v.Login = s.identity.Account, s.identity.Address
	}
	return s.noteVerdict(s.guard.Ask(ctx, stage, v))
}

// told tells the guard of what has happened; a refusal then ends the session.
func (s *session) told(stage guard.Stage, outcome error) error {
	if s.visitor == nil {
		return nil
	}
	s.visitor.Outcome = outcome
	d := s.inform(s.ctx, stage)
	if d.Reply != nil && !s.ending {
		s.end(421, d.Reply.Enhanced.String(), d.Reply.Text)
	}
	if d.Delay <= 0 || s.ending {
		return nil
	}
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	return s.pause(ctx, d.Delay)
}

// pause lets time pass: what was answered before goes out, and no buffer is held. It ends early when the server stops.
func (s *session) pause(ctx context.Context, d time.Duration) error {
	if err := s.conn.Rest(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.srv.pool.Drain().Done():
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), wire.ErrPeerGone) {
			return wire.ErrPeerGone
		}
	}
	return nil
}

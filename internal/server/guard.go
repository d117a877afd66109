package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/directory"
	"waxwing/internal/guard"
	"waxwing/internal/store"
	"waxwing/internal/telemetry"
)

// buildGuard makes the front door. The order of the checks is the order in which they are asked.
func (s *Server) buildGuard(m *metrics) *guard.Guard {
	s.parts.access = guard.NewAccess(s.state.Directory, loopbackOnly(s.cfg))
	checks := append([]guard.Check{
		s.parts.access.Check(),
		guard.NewLoad(s.state.Directory, guard.Node(s.state.Store.Waiting), time.Now).Check(),
		guard.NewLimits(s.state.Directory, time.Now).Check(),
		s.parts.sending.Check(),
	}, s.parts.door.checks()...)
	checks = append(checks, guard.NewManners(s.state.Directory).Check())
	return guard.New(guard.Options{Logger: telemetry.Bounded(s.log.With("part", "guard"), time.Now), Decided: m.decided}, checks...)
}

// decided counts what the guard decides.
func (m *metrics) decided(stage guard.Stage, _ *guard.Visitor, d guard.Verdict) {
	act := "delay"
	switch {
	case d.Reply != nil && d.Reply.Permanent():
		act = "refuse"
	case d.Reply != nil:
		act = "defer"
	}
	m.guard.WithLabelValues(d.Check, stage.String(), act).Inc()
}

// admitsTo tells which peers a listener takes.
func (s *Server) admitsTo(l guard.Listener) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return s.parts.access.Admits(l, a) }
}

// admitsSignIn holds an account's own access rules.
func (s *Server) admitsSignIn(at auth.Attempt, acct directory.Account) bool {
	listener := guard.Listener(at.Listener)
	if listener == "" {
		listener = guard.Listener(at.Protocol)
	}
	ok, reason := s.parts.access.List().SignIn(listener, acct.Address.Key(), at.Remote.Addr())
	if !ok {
		s.log.Warn("sign-in refused by the account's access rules", "account", acct.Address.String(), "listener", string(listener),
			"remote", at.Remote.Addr().String(), "reason", reason)
	} else if !s.parts.access.Exempt(at.Remote.Addr()) {
		s.parts.sending.SignedIn(context.Background(), acct.ID, acct.Address.String(), at.Remote.Addr())
	}
	return ok
}

// pool is the sessions of one protocol.
type pool interface {
	Owners() []int64
	Evict(owner int64) int
}

// evicting is how often it is looked whether signed-in accounts may still be; lateSignIn is how long after a change a
// sign-in that was decided before it may still arrive.
const (
	evicting   = time.Second
	lateSignIn = 30 * time.Second
)

// runEvictor ends the sessions of accounts that are suspended or gone, in all protocols, until ctx ends.
func (s *Server) runEvictor(ctx context.Context) {
	tick := time.NewTicker(evicting)
	defer tick.Stop()
	seen, since := s.state.Directory.Settings().Version, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if version := s.state.Directory.Settings().Version; version != seen {
				seen, since = version, now
			}
			if now.Sub(since) <= lateSignIn {
				s.evictSuspended(ctx)
			}
		}
	}
}

func (s *Server) pools() []pool {
	return []pool{s.parts.smtp.Pool(), s.parts.imap.Pool(), s.parts.pop3.Pool()}
}

func (s *Server) evictSuspended(ctx context.Context) {
	var owners []int64
	for _, p := range s.pools() {
		owners = append(owners, p.Owners()...)
	}
	slices.Sort(owners)
	for _, owner := range slices.Compact(owners) {
		acct, err := s.state.Directory.AccountByID(ctx, store.AccountID(owner))
		if err == nil && !acct.Suspended || err != nil && !errors.Is(err, directory.ErrNotFound) {
			continue
		}
		if n := s.evict(owner); n > 0 {
			s.log.Info("sessions ended: the account is suspended or removed", "account", owner, "sessions", n)
		}
	}
}

// evict ends the sessions of an account on this node.
func (s *Server) evict(owner int64) (n int) {
	for _, p := range s.pools() {
		n += p.Evict(owner)
	}
	return n
}

package server

import (
	"sync"

	"waxwing/internal/tlspolicy"
	"waxwing/internal/transport"
	"waxwing/internal/transport/sts"
)

// tlsPolicies gives the administrator's table of how connections must be protected. It is read anew when the setting has
// changed.
func (s *Server) tlsPolicies() func() (*tlspolicy.Table, error) {
	var mu sync.Mutex
	var text string
	table, err := tlspolicy.Parse(text)
	return func() (*tlspolicy.Table, error) {
		now := s.state.Directory.Settings().TLSPolicies
		mu.Lock()
		defer mu.Unlock()
		if now != text {
			text = now
			table, err = tlspolicy.Parse(text)
		}
		return table, err
	}
}

// buildPolicies makes what the transport is told about the protection of connections. A server that nobody reaches from
// outside is a test bed, whose web servers may be on loopback too.
func (s *Server) buildPolicies(o *transport.Options) (err error) {
	s.parts.sts, err = sts.New(sts.Options{
		Store: s.state.Store, Resolver: s.parts.resolver, RootCAs: o.RootCAs, Port: s.cfg.Transport.MTASTSPort,
		Private: loopbackOnly(s.cfg) != nil, Logger: s.log.With("part", "sts"),
	})
	o.Policies, o.STS = s.tlsPolicies(), s.parts.sts
	return err
}

package server

import (
	"context"
	"strings"
	"sync"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/intake"
	"waxwing/internal/tlspolicy"
	"waxwing/internal/transport"
	"waxwing/internal/transport/sts"
	"waxwing/internal/transport/tlsreport"
	"waxwing/internal/transport/web"
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

// reportTime bounds the sending of one report over HTTPS.
const reportTime = time.Minute

// buildPolicies makes what the transport is told about the protection of connections, and who is told what came of it. A
// server that nobody reaches from outside is a test bed, whose web servers may be on loopback too.
func (s *Server) buildPolicies(o *transport.Options, in *intake.Intake) (err error) {
	private := loopbackOnly(s.cfg) != nil
	s.parts.sts, err = sts.New(sts.Options{
		Store: s.state.Store, Resolver: s.parts.resolver, RootCAs: o.RootCAs, Port: s.cfg.Transport.MTASTSPort,
		Private: private, Logger: s.log.With("part", "sts"),
	})
	if err != nil {
		return err
	}
	s.parts.reports, err = tlsreport.New(tlsreport.Options{
		Store: s.state.Store, Resolver: s.parts.resolver, Hostname: s.cfg.Hostname, Contact: s.reporter, Logger: s.log.With("part", "tlsreport"),
		Client: web.New(web.Options{Resolver: s.parts.resolver, Timeout: reportTime, RootCAs: o.RootCAs, Private: private}),
		Mail: func(ctx context.Context, to address.Address, raw []byte) error {
			_, err := in.Submit(ctx, address.Address{}, []address.Address{to}, raw)
			return err
		},
	})
	o.Policies, o.STS = s.tlsPolicies(), s.parts.sts
	if err == nil {
		o.Report = s.parts.reports.Take
	}
	return err
}

// reporter is who stands behind reports about TLS: the postmaster of the domain that this host's name is in, or of the first
// domain. Nobody does without a domain, or when reports are off.
func (s *Server) reporter() (address.Address, bool) {
	domains := s.state.Directory.Domains()
	if len(domains) == 0 || s.state.Directory.Settings().TLSReports != "on" {
		return address.Address{}, false
	}
	own := domains[0].Name
	for _, d := range domains {
		if s.cfg.Hostname == d.Name || strings.HasSuffix(s.cfg.Hostname, "."+d.Name) {
			own = d.Name
			break
		}
	}
	return address.Address{Local: "postmaster", Domain: own}, true
}

package main

import (
	"strings"
	"time"

	"waxwing/internal/control"
	"waxwing/internal/mtasts"
	"waxwing/internal/server"
)

type tlsCommand struct {
	Policy  tlsPolicy  `cmd:"" help:"How connections to other servers must be protected, by the recipient's domain."`
	Records tlsRecords `cmd:"" help:"Print the DNS records and the MTA-STS policy that a domain should publish."`
	Reports tlsReports `cmd:"" help:"Read the reports that other servers sent about TLS with this one."`
}

type tlsPolicy struct {
	Set    tlsPolicySet    `cmd:"" help:"Make or replace the entry of a domain."`
	Remove tlsPolicyRemove `cmd:"" help:"Remove the entry of a domain: what the domain itself publishes holds again."`
	List   tlsPolicyList   `cmd:"" help:"List the entries."`
}

type tlsPolicySet struct {
	Domain string   `arg:"" help:"The domain; .DOMAIN for all below it, * for all others."`
	Level  string   `required:"" enum:"auto,none,may,encrypt,verify,secure,dane,dane-only" help:"${enum}." placeholder:"LEVEL"`
	Match  []string `help:"With verify and secure: a name that the certificate may be for instead; .NAME for all below it. May be given several times." placeholder:"NAME"`
}

func (c *tlsPolicySet) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		p, err := control.TLSPolicySet.Call(s.ctx, k, control.TLSPolicy{Domain: c.Domain, Level: c.Level, Match: c.Match})
		if err != nil {
			return err
		}
		return s.print(p, func(w *printer) { w.row("set", p.Domain, p.Level, strings.Join(p.Match, " ")) })
	})
}

type tlsPolicyRemove struct {
	Domain string `arg:"" help:"The domain, as it stands in the list."`
}

func (c *tlsPolicyRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.TLSPolicyRemove.Call(s.ctx, k, control.DomainRef{Name: c.Domain}); err != nil {
			return err
		}
		return s.print(map[string]string{"removed": c.Domain}, func(w *printer) { w.row("removed", c.Domain) })
	})
}

type tlsPolicyList struct{}

func (c *tlsPolicyList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		list, err := control.TLSPolicyList.Call(s.ctx, k, control.Done{})
		if err != nil {
			return err
		}
		return s.print(list.Policies, func(w *printer) {
			w.row("DOMAIN", "LEVEL", "MATCH")
			for _, p := range list.Policies {
				w.row(p.Domain, p.Level, strings.Join(p.Match, " "))
			}
		})
	})
}

type tlsRecords struct {
	Domain string        `arg:"" help:"The domain."`
	Mode   string        `enum:"enforce,testing,none" default:"enforce" help:"Mode of the MTA-STS policy: ${enum}."`
	MaxAge time.Duration `default:"168h" help:"How long other servers keep the policy." placeholder:"DURATION"`
}

func (c *tlsRecords) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	out, err := server.TLSRecords(cfg, c.Domain, mtasts.Mode(c.Mode), c.MaxAge)
	if err != nil {
		return err
	}
	return s.print(out, func(w *printer) {
		for _, r := range out.Records {
			w.line("; " + r.Why)
			w.line(r.Name + " IN " + r.Type + " " + r.Value)
		}
		w.line("; the policy, as text/plain at " + out.PolicyURL)
		w.line(strings.ReplaceAll(strings.TrimSuffix(out.Policy, "\r\n"), "\r\n", "\n"))
	})
}

type tlsReports struct {
	List tlsReportsList `cmd:"" help:"List the reports in the mailboxes of an account, the newest first."`
	Show tlsReportsShow `cmd:"" help:"Show a report."`
}

type tlsReportsList struct {
	Account string        `required:"" help:"Account that the reports go to." placeholder:"ADDRESS"`
	Since   time.Duration `help:"Only those that came within this time." placeholder:"DURATION"`
	Limit   int           `default:"100" help:"At most so many." placeholder:"N"`
}

func (c *tlsReportsList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		page := control.TLSReportPage{Account: c.Account, Limit: c.Limit}
		if c.Since > 0 {
			page.Since = time.Now().Add(-c.Since)
		}
		list, err := control.TLSReportList.Call(s.ctx, k, page)
		if err != nil {
			return err
		}
		return s.print(list.Reports, func(w *printer) {
			w.row("ID", "CAME", "FROM", "DOMAINS", "DAY", "SUCCESSFUL", "FAILED", "PROBLEM")
			for _, r := range list.Reports {
				w.row(r.ID, r.Came.Format(timeFormat), r.Organization, strings.Join(r.Domains, " "), r.Start.Format(time.DateOnly), r.Successful, r.Failed, r.Problem)
			}
		})
	})
}

type tlsReportsShow struct {
	ID      int64  `arg:"" help:"Number of the report in the list."`
	Account string `required:"" help:"Account that the report went to." placeholder:"ADDRESS"`
}

func (c *tlsReportsShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		r, err := control.TLSReportShow.Call(s.ctx, k, control.MessageRef{Account: c.Account, ID: c.ID})
		if err != nil {
			return err
		}
		return s.print(r, func(w *printer) {
			w.row("from", r.Organization, r.Contact)
			w.row("id", r.ID)
			w.row("time", r.Range.Start.Format(time.RFC3339), r.Range.End.Format(time.RFC3339))
			for _, p := range r.Policies {
				w.row("policy", p.Policy.Domain, p.Policy.Type, strings.Join(p.Policy.String, "; "), strings.Join(p.Policy.MXHost, " "))
				w.row("successful", p.Summary.Successful)
				w.row("failed", p.Summary.Failed)
				for _, f := range p.Failures {
					w.row("failure", f.Sessions, f.Type, f.Host, f.ReceiverIP, "from "+f.SendingIP, f.Code, f.More)
				}
			}
		})
	})
}

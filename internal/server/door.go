package server

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/config"
	"waxwing/internal/directory"
	"waxwing/internal/dns"
	"waxwing/internal/guard"
	"waxwing/internal/guard/contacts"
	"waxwing/internal/guard/dnslist"
	"waxwing/internal/guard/greylist"
	"waxwing/internal/guard/stranger"
	"waxwing/internal/guard/surge"
	"waxwing/internal/telemetry"
)

// door is what judges strangers who bring mail.
type door struct {
	lists    *dnslist.Checker
	grey     *greylist.List
	contacts *contacts.Book
	judge    *stranger.Door
	probing  *stranger.Probing
	surge    *surge.Watch
}

// newDoor makes it. It asks the settings each time, so that a change takes effect at once.
func (s *Server) newDoor(resolver *dns.Resolver) {
	st, log := s.state.Store, telemetry.Bounded(s.log.With("part", "door"), time.Now)
	settings := func() directory.StrangerSettings { return s.state.Directory.Settings().Stranger }
	policy := func() greylist.Policy {
		set := settings()
		return greylist.Policy{Delay: set.Delay(), Known: set.Known()}
	}
	asked := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_dns_list_queries_total", Help: "Questions to DNS lists, by what came of them."}, []string{"list", "outcome"})
	d := &door{
		lists: dnslist.New(dnslist.Options{
			Resolver: resolver, Logger: log, Asked: func(list, outcome string) { asked.WithLabelValues(list, outcome).Inc() },
		}),
		grey:     greylist.New(greylist.Options{Store: st, Logger: log, Lead: st.Leads, Policy: policy}),
		contacts: contacts.New(contacts.Options{Store: st, Logger: log, Lead: st.Leads}),
		probing:  stranger.NewProbing(time.Now, func() int { return settings().ProbingLimit }),
	}
	d.judge = stranger.New(stranger.Options{
		Resolver: resolver, Lists: d.lists, Grey: d.grey, Contacts: d.contacts, Hostname: s.cfg.Hostname, Local: s.state.Directory.Local,
		Settings: func() stranger.Settings {
			set := settings()
			return stranger.Settings{
				RefuseScore: set.RefuseScore, GreylistScore: set.GreylistScore, Hello: stranger.Mode(set.Hello),
				Reverse: set.Reverse == string(stranger.Weigh), Sender: stranger.Mode(set.Sender), Greylist: stranger.Mode(set.Greylist),
				Policy: greylist.Policy{Delay: set.Delay(), Known: set.Known()},
			}
		},
	})
	surges := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_mail_bombs_total", Help: "Mail bombs against mailboxes that began, by what they are made of."}, []string{"kind"})
	teller := &surgeTeller{
		notices: notices{store: st, dir: s.state.Directory, hostname: s.cfg.Hostname, clock: time.Now}, log: s.log.With("part", "surge"),
		count: func(kind string) { surges.WithLabelValues(kind).Inc() },
	}
	d.surge = surge.New(surge.Options{
		Store: st, Contacts: d.contacts, Logger: log, Happened: teller.happened,
		Policy: func() surge.Policy {
			set := settings()
			return surge.Policy{Action: surge.Action(set.SurgeAction), Least: set.SurgeLeast, Factor: set.SurgeFactor}
		},
	})
	s.reg.MustRegister(asked, surges, offLists{d.lists})
	s.parts.door = d
}

// offLists reports the DNS lists that are switched off.
type offLists struct{ lists *dnslist.Checker }

func (o offLists) gauge() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "waxwing_dns_list_off", Help: "1 for a DNS list that is switched off because it answers everything, refuses to answer or is dead."}, []string{"list"})
}

// Describe implements prometheus.Collector.
func (o offLists) Describe(ch chan<- *prometheus.Desc) { o.gauge().Describe(ch) }

// Collect implements prometheus.Collector.
func (o offLists) Collect(ch chan<- prometheus.Metric) {
	gauge := o.gauge()
	for _, l := range o.lists.Status() {
		gauge.WithLabelValues(l.List.Name).Set(truth(l.Off != ""))
	}
	gauge.Collect(ch)
}

// checks are its links of the guard's chain.
func (d *door) checks() []guard.Check {
	return append([]guard.Check{d.contacts.Check(), d.probing.Check()}, d.judge.Checks()...)
}

// runDoor starts what works in the background.
func (s *Server) runDoor() {
	d := s.parts.door
	s.state.onSettings(func(now directory.Settings) { d.lists.Configure(now.Stranger.Lists()) })
	s.goBackground(d.lists.Run)
	s.goBackground(d.grey.Run)
	s.goBackground(d.contacts.Run)
	s.goBackground(d.surge.Run)
}

// close writes what the last sessions have brought.
func (d *door) close() error {
	d.lists.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(d.grey.Flush(ctx), d.contacts.Flush(ctx), d.surge.Flush(ctx))
}

// DNSLists is what is known of the DNS lists in use.
func (s *Server) DNSLists() []dnslist.Status { return s.parts.door.lists.Status() }

func newResolver(cfg *config.Config, log *slog.Logger) (*dns.Resolver, error) {
	return dns.New(dns.Options{
		Servers: cfg.DNS.Resolvers, TrustAD: cfg.DNS.Trusted, Timeout: cfg.DNS.Timeout.Std(), Logger: log.With("part", "dns"),
	})
}

// tryList asks a DNS list by hand. It uses a resolver of its own, that remembers nothing.
func (s *State) tryList(ctx context.Context, l dnslist.List, a netip.Addr, domain string) (dnslist.Tried, error) {
	r, err := newResolver(s.cfg, s.log)
	if err != nil {
		return dnslist.Tried{}, err
	}
	defer r.Close()
	c := dnslist.New(dnslist.Options{Resolver: r, Logger: s.log})
	defer c.Close()
	return c.Try(ctx, l, a, domain), nil
}

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"waxwing/internal/control"
)

// pausedFlags say what is paused.
type pausedFlags struct {
	To   string `help:"Mail to this domain." placeholder:"DOMAIN"`
	From string `help:"Mail of senders of this domain." placeholder:"DOMAIN"`
	All  bool   `help:"All outgoing mail."`
}

type queuePause struct {
	pausedFlags
	Reason string `help:"Shown in the list."`
	List   bool   `help:"List what is paused."`
}

func (c *queuePause) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if c.List {
			return listRules(s, k, func(r control.OutgoingRules) any { return r.Pauses }, func(p *printer, r control.OutgoingRules) {
				p.row("PAUSED", "SINCE", "REASON")
				for _, x := range r.Pauses {
					p.row(pausedName(x), clock(x.Since), x.Reason)
				}
			})
		}
		req := control.QueuePaused{To: c.To, From: c.From, All: c.All, Reason: c.Reason}
		if _, err := control.QueuePause.Call(s.ctx, k, req); err != nil {
			return err
		}
		return s.print(req, func(p *printer) { p.row("paused", pausedName(req)) })
	})
}

func pausedName(x control.QueuePaused) string {
	switch {
	case x.To != "":
		return "to " + x.To
	case x.From != "":
		return "from " + x.From
	}
	return "all"
}

type queueResume struct {
	pausedFlags
}

func (c *queueResume) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		req := control.QueuePaused{To: c.To, From: c.From, All: c.All}
		done, err := control.QueueResume.Call(s.ctx, k, req)
		if err != nil {
			return err
		}
		return s.print(done, func(p *printer) { p.row("resumed", pausedName(req)) })
	})
}

// listRules prints a part of the rules.
func listRules(s *session, k control.Carrier, part func(control.OutgoingRules) any, print func(*printer, control.OutgoingRules)) error {
	rules, err := control.QueueRules.Call(s.ctx, k, control.Done{})
	if err != nil {
		return err
	}
	return s.print(part(rules), func(p *printer) { print(p, rules) })
}

type queueLimits struct {
	Set    queueLimitSet    `cmd:"" help:"Set the limits of a destination."`
	List   queueLimitList   `cmd:"" help:"List destinations with limits of their own."`
	Remove queueLimitRemove `cmd:"" help:"Let a destination have what all have."`
}

type queueLimitSet struct {
	Domain        string `arg:"" help:"The destination."`
	Concurrency   int    `help:"Connections at a time, of each node; 0: as for all." placeholder:"N"`
	PerMinute     int    `help:"Messages a minute, of each node; 0: any number." placeholder:"N"`
	PerConnection int    `help:"Messages a connection; 0: as for all." placeholder:"N"`
}

func (c *queueLimitSet) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		req := control.QueueLimit{Destination: c.Domain, Concurrency: c.Concurrency, PerMinute: c.PerMinute, PerConnection: c.PerConnection}
		if _, err := control.QueueLimitSet.Call(s.ctx, k, req); err != nil {
			return err
		}
		return s.print(req, func(p *printer) { p.row("set", c.Domain) })
	})
}

type queueLimitList struct{}

func (c *queueLimitList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		return listRules(s, k, func(r control.OutgoingRules) any { return r.Limits }, func(p *printer, r control.OutgoingRules) {
			p.row("DESTINATION", "CONNECTIONS", "PER MINUTE", "PER CONNECTION")
			for _, x := range r.Limits {
				p.row(x.Destination, orDash(x.Concurrency), orDash(x.PerMinute), orDash(x.PerConnection))
			}
		})
	})
}

func orDash(n int) any {
	if n == 0 {
		return "-"
	}
	return n
}

type queueLimitRemove struct {
	Domain string `arg:"" help:"The destination."`
}

func (c *queueLimitRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.QueueLimitRemove.Call(s.ctx, k, control.Named{Name: c.Domain}); err != nil {
			return err
		}
		return s.print(control.Named{Name: c.Domain}, func(p *printer) { p.row("removed", c.Domain) })
	})
}

type queuePool struct {
	Add    queuePoolAdd    `cmd:"" help:"Make or replace a pool of source addresses."`
	List   queuePoolList   `cmd:"" help:"List pools, with what was sent today."`
	Remove queuePoolRemove `cmd:"" help:"Remove a pool."`
	Warmup queuePoolWarmup `cmd:"" help:"Begin, change or end the warm-up plan of a pool."`
}

type queuePoolAdd struct {
	Name        string   `arg:"" help:"Name of the pool."`
	Addresses   []string `arg:"" help:"Local addresses; with =NAME behind one, that name is said in EHLO."`
	Account     []string `help:"Mail of this account." placeholder:"ADDRESS"`
	Sender      []string `help:"Mail of senders of this domain." placeholder:"DOMAIN"`
	Destination []string `help:"Mail to this domain; * for all." placeholder:"DOMAIN"`
	Fallback    string   `help:"Pool for what this one may not send; without one it waits." placeholder:"NAME"`
}

func (c *queuePoolAdd) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		req := control.QueuePool{Name: c.Name, Accounts: c.Account, Senders: c.Sender, Destinations: c.Destination, Fallback: c.Fallback}
		for _, a := range c.Addresses {
			ip, name, _ := strings.Cut(a, "=")
			req.Addresses = append(req.Addresses, control.PoolSource{Address: ip, Name: name})
		}
		old, err := findPool(s, k, c.Name)
		if err == nil {
			req.Warmup = old.Warmup
		} else if control.KindOf(err) != control.NotFound {
			return err
		}
		if _, err := control.QueuePoolSet.Call(s.ctx, k, req); err != nil {
			return err
		}
		return s.print(req, func(p *printer) { p.row("set", c.Name) })
	})
}

// findPool reads one pool.
func findPool(s *session, k control.Carrier, name string) (control.QueuePool, error) {
	rules, err := control.QueueRules.Call(s.ctx, k, control.Done{})
	if err != nil {
		return control.QueuePool{}, err
	}
	for _, p := range rules.Pools {
		if p.Name == name {
			return p, nil
		}
	}
	return control.QueuePool{}, control.Errorf(control.NotFound, "there is no pool %s", name)
}

type queuePoolList struct{}

func (c *queuePoolList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		return listRules(s, k, func(r control.OutgoingRules) any { return r.Pools }, func(p *printer, r control.OutgoingRules) {
			p.row("POOL", "ADDRESS", "EHLO", "FOR", "FALLBACK", "A DAY", "SENT TODAY")
			for _, x := range r.Pools {
				day := "-"
				if x.Warmup != nil && x.Warmup.Today >= 0 {
					day = fmt.Sprint(x.Warmup.Today)
				}
				for _, a := range x.Addresses {
					var sent []string
					for _, provider := range slices.Sorted(maps.Keys(a.Sent)) {
						sent = append(sent, fmt.Sprintf("%s %d", provider, a.Sent[provider]))
					}
					p.row(x.Name, a.Address, a.Name, strings.Join(slices.Concat(x.Accounts, x.Senders, x.Destinations), " "), x.Fallback, day, strings.Join(sent, ", "))
				}
			}
		})
	})
}

type queuePoolRemove struct {
	Name string `arg:"" help:"Name of the pool."`
}

func (c *queuePoolRemove) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		if _, err := control.QueuePoolRemove.Call(s.ctx, k, control.Named{Name: c.Name}); err != nil {
			return err
		}
		return s.print(control.Named{Name: c.Name}, func(p *printer) { p.row("removed", c.Name) })
	})
}

type queuePoolWarmup struct {
	Name   string  `arg:"" help:"Name of the pool."`
	First  int     `help:"Messages on the first day, of each address to each provider." default:"50"`
	Growth float64 `help:"Factor from day to day, 1.01 to 10." default:"1.5"`
	Until  int     `help:"From so many messages a day on there is no limit any more." default:"50000"`
	Begin  string  `help:"First day, as 2026-01-31; today when it is not given." placeholder:"DATE"`
	End    bool    `help:"End the plan: the addresses may send any number."`
}

func (c *queuePoolWarmup) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		pool, err := findPool(s, k, c.Name)
		if err != nil {
			return err
		}
		pool.Warmup = nil
		if !c.End {
			pool.Warmup = &control.PoolWarmup{First: c.First, Growth: c.Growth, Until: c.Until}
			if c.Begin != "" {
				if pool.Warmup.Begin, err = time.Parse(time.DateOnly, c.Begin); err != nil {
					return usagef("--begin: a date like 2026-01-31")
				}
			}
		}
		if _, err := control.QueuePoolSet.Call(s.ctx, k, pool); err != nil {
			return err
		}
		return s.print(pool, func(p *printer) { p.row("set", c.Name) })
	})
}

package main

import (
	"runtime/debug"
	"time"

	"waxwing/internal/control"
	"waxwing/internal/doctor"
)

type doctorCommand struct {
	Sample int `help:"Messages, chosen at random, to be read whole." default:"100" placeholder:"N"`
}

func (c *doctorCommand) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	var findings []doctor.Finding
	subject := doctor.Subject{Config: cfg, Sample: c.Sample, BuiltAt: builtAt()}
	show := func(f doctor.Finding) {
		findings = append(findings, f)
		if !s.json {
			printFinding(s, f)
		}
	}
	err = s.withConfig(cfg, func(k control.Carrier) error {
		subject.Carrier = k
		doctor.Examine(s.ctx, subject, show)
		return nil
	})
	if subject.Carrier == nil {
		// The store can't be opened: all else is examined all the more.
		subject.Problem = err
		doctor.Examine(s.ctx, subject, show)
		err = nil
	}
	if err != nil {
		return err
	}
	worst := doctor.OK
	for _, f := range findings {
		if f.Status == doctor.Fail || worst == doctor.OK {
			worst = f.Status
		}
	}
	if s.json {
		if err := s.print(map[string]any{"status": worst, "findings": findings}, nil); err != nil {
			return err
		}
	}
	if worst == doctor.Fail {
		return quietError{exitFailed}
	}
	return s.ctx.Err()
}

// printFinding writes a finding at once: some take seconds.
func printFinding(s *session, f doctor.Finding) {
	_ = s.print(nil, func(p *printer) { // a reader that went away shows in the next write
		p.line(string(f.Status) + "\t" + f.Check + ": " + plain(f.Seen))
		if f.Status != doctor.OK {
			p.line("\twhy: " + plain(f.Why))
			if f.Fix != "" {
				p.line("\tfix: " + plain(f.Fix))
			}
		}
	})
}

// builtAt is the time of the commit that the program was built from; zero when it isn't known.
func builtAt() time.Time {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, set := range b.Settings {
		if set.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, set.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

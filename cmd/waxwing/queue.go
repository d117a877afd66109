package main

import (
	"fmt"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/control"
)

type queueCommand struct {
	List    queueList    `cmd:"" help:"List messages on their way out, oldest first."`
	Show    queueShow    `cmd:"" help:"Show one message with what remote servers said."`
	Retry   queueRetry   `cmd:"" help:"Try again at once."`
	Hold    queueHold    `cmd:"" help:"Keep until released."`
	Release queueRelease `cmd:"" help:"Let held messages go on."`
	Drop    queueDrop    `cmd:"" help:"Give up messages."`
	Bounce  queueBounce  `cmd:"" help:"Give up messages and tell their senders."`
	Reroute queueReroute `cmd:"" help:"Send by another server."`

	Pause    queuePause    `cmd:"" help:"Stop sending to a domain, from a domain, or at all, until it is resumed."`
	Resume   queueResume   `cmd:"" help:"Go on with what was paused."`
	Limits   queueLimits   `cmd:"" help:"Look after the limits of destinations."`
	Pool     queuePool     `cmd:"" help:"Look after pools of source addresses."`
	Suppress queueSuppress `cmd:"" help:"Look after addresses that nothing is sent to."`
}

// selectFlags select recipients of queued messages; those given must all fit.
type selectFlags struct {
	IDs         []int64 `arg:"" optional:"" name:"id" help:"Messages, by the id that the list shows."`
	Destination string  `help:"Only for this domain." placeholder:"DOMAIN"`
	From        string  `help:"Only from this sender; <> for reports." placeholder:"ADDRESS"`
	To          string  `help:"Only to this recipient." placeholder:"ADDRESS"`
	State       string  `help:"Only in this state: waiting, leased, held or damaged." placeholder:"STATE"`

	FromDomain string        `help:"Only from senders of this domain." placeholder:"DOMAIN"`
	Account    string        `help:"Only submitted by this account." placeholder:"ADDRESS"`
	Answer     string        `help:"Only with these words in the last answer." placeholder:"TEXT"`
	Category   string        `help:"Only when the last answer was about this, as show says." placeholder:"NAME"`
	Provider   string        `help:"Only when the last server belongs to this provider." placeholder:"NAME"`
	Tried      string        `name:"pool" help:"Only when last tried from this pool." placeholder:"NAME"`
	Older      time.Duration `help:"Only messages at least this old." placeholder:"1h"`
	Younger    time.Duration `help:"Only messages at most this old." placeholder:"1h"`
	Larger     int64         `help:"Only messages of at least so many octets." placeholder:"N"`
	Smaller    int64         `help:"Only messages of at most so many octets." placeholder:"N"`
}

func (f selectFlags) selection() control.Selection {
	return control.Selection{
		IDs: f.IDs, Domain: f.Destination, From: f.From, To: f.To, State: f.State, SenderDomain: f.FromDomain, Account: f.Account, Answer: f.Answer,
		Category: f.Category, Provider: f.Provider, Pool: f.Tried, Older: f.Older, Younger: f.Younger, Larger: f.Larger, Smaller: f.Smaller,
	}
}

type queueList struct {
	selectFlags
	Limit int `help:"Messages at most; 0 for all." default:"0"`
}

func (c *queueList) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		all := []control.QueuedMessage{}
		req := control.QueuePage{Selection: c.selection()}
		for {
			page, err := control.QueueList.Call(s.ctx, k, req)
			if err != nil {
				return err
			}
			all = append(all, page.Messages...)
			if c.Limit > 0 && len(all) >= c.Limit {
				all = all[:c.Limit]
				break
			}
			if req.After = page.Next; req.After == 0 {
				break
			}
		}
		return s.print(all, func(p *printer) {
			if len(all) == 0 {
				p.line("the queue is empty")
				return
			}
			p.row("ID", "AGE", "SIZE", "FROM", "TO", "STATE", "TRIES", "NEXT", "LAST ANSWER")
			for _, m := range all {
				for _, r := range m.Recipients {
					p.row(m.ID, time.Since(m.Created).Round(time.Second), config.Size(m.Size).Human(), sender(m.From), r.To, r.State, r.Attempts, clock(r.NextAttempt), shorten(r.LastError, 60))
				}
			}
		})
	})
}

func sender(from string) string {
	if from == "" {
		return "<>"
	}
	return from
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(timeFormat)
}

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

type queueShow struct {
	ID int64 `arg:"" help:"The id that the list shows."`
}

func (c *queueShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		m, err := control.QueueShow.Call(s.ctx, k, control.QueueRef{ID: c.ID})
		if err != nil {
			return err
		}
		return s.print(m, func(p *printer) {
			p.row("id", m.ID)
			p.row("trace", m.Trace)
			p.row("from", sender(m.From))
			p.row("subject", m.Subject)
			p.row("size", config.Size(m.Size).Human())
			p.row("created", clock(m.Created))
			p.row("given up at", clock(m.Expires))
			if m.Priority != 0 {
				p.row("priority", m.Priority)
			}
			for _, r := range m.Recipients {
				p.line("")
				p.row("to", r.To)
				p.row("state", r.State)
				p.row("tries", r.Attempts)
				p.row("last", clock(r.LastAttempt))
				p.row("next", clock(r.NextAttempt))
				p.row("host", r.LastHost)
				p.row("answer", r.LastError)
				if r.Category != "" {
					p.row("about", r.Category+" ("+r.Provider+")")
				}
				if r.HeldFor != "" {
					p.row("held for", r.HeldFor)
				}
				if r.Pool != "" {
					p.row("pool", r.Pool)
				}
			}
		})
	})
}

// change does an act to a selection and prints how many recipients it concerned.
func change(s *session, req control.QueueRequest) error {
	return s.with(func(k control.Carrier) error {
		done, err := control.QueueChange.Call(s.ctx, k, req)
		if err != nil {
			return err
		}
		if done.Recipients == 0 {
			return control.Errorf(control.NotFound, "nothing in the queue fits")
		}
		return s.print(done, func(p *printer) {
			if !done.DryRun {
				p.row(req.Act, done.Recipients, "recipients")
				return
			}
			p.line(fmt.Sprintf("%s would concern %d recipients; nothing was changed", req.Act, done.Recipients))
			for _, m := range done.Sample {
				for _, r := range m.Recipients[:min(len(m.Recipients), 5)] {
					p.row(m.ID, time.Since(m.Created).Round(time.Second), config.Size(m.Size).Human(), sender(m.From), r.To, r.State, shorten(r.LastError, 60))
				}
			}
		})
	})
}

// allFlag allows an act on the whole queue.
type allFlag struct {
	All    bool `help:"The whole queue."`
	DryRun bool `help:"Only count, and show a few."`
}

type queueRetry struct {
	selectFlags
	allFlag
}

func (c *queueRetry) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueRetry, All: c.All, DryRun: c.DryRun})
}

type queueHold struct {
	selectFlags
	allFlag
}

func (c *queueHold) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueHold, All: c.All, DryRun: c.DryRun})
}

type queueRelease struct {
	selectFlags
	allFlag
}

func (c *queueRelease) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueRelease, All: c.All, DryRun: c.DryRun})
}

type queueDrop struct {
	selectFlags
	allFlag
	Silent bool   `help:"Don't tell the senders. Otherwise each gets a report that the message was not delivered."`
	Reason string `help:"Stands in the report." default:"dropped by an administrator"`
}

func (c *queueDrop) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueDrop, All: c.All, DryRun: c.DryRun, Report: !c.Silent, Reason: c.Reason})
}

type queueBounce struct {
	selectFlags
	allFlag
	Reason string `help:"Stands in the report." default:"returned by an administrator"`
}

func (c *queueBounce) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueBounce, All: c.All, DryRun: c.DryRun, Reason: c.Reason})
}

type queueReroute struct {
	selectFlags
	allFlag
	ToHost string `help:"Server to send by, with a port behind a colon or without; empty: as the address says." required:"" placeholder:"HOST"`
}

func (c *queueReroute) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueReroute, All: c.All, DryRun: c.DryRun, Host: c.ToHost})
}

package main

import (
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
}

// selectFlags select recipients of queued messages; those given must all fit.
type selectFlags struct {
	IDs         []int64 `arg:"" optional:"" name:"id" help:"Messages, by the id that the list shows."`
	Destination string  `help:"Only for this domain." placeholder:"DOMAIN"`
	From        string  `help:"Only from this sender; <> for reports." placeholder:"ADDRESS"`
	To          string  `help:"Only to this recipient." placeholder:"ADDRESS"`
	State       string  `help:"Only in this state: waiting, leased, held or damaged." placeholder:"STATE"`
}

func (f selectFlags) selection() control.Selection {
	return control.Selection{IDs: f.IDs, Domain: f.Destination, From: f.From, To: f.To, State: f.State}
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
		return s.print(done, func(p *printer) { p.row(req.Act, done.Recipients, "recipients") })
	})
}

// allFlag allows an act on the whole queue.
type allFlag struct {
	All bool `help:"The whole queue."`
}

type queueRetry struct {
	selectFlags
	allFlag
}

func (c *queueRetry) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueRetry, All: c.All})
}

type queueHold struct {
	selectFlags
	allFlag
}

func (c *queueHold) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueHold, All: c.All})
}

type queueRelease struct {
	selectFlags
	allFlag
}

func (c *queueRelease) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueRelease, All: c.All})
}

type queueDrop struct {
	selectFlags
	allFlag
	Silent bool   `help:"Don't tell the senders. Otherwise each gets a report that the message was not delivered."`
	Reason string `help:"Stands in the report." default:"dropped by an administrator"`
}

func (c *queueDrop) Run(s *session) error {
	return change(s, control.QueueRequest{Selection: c.selection(), Act: control.QueueDrop, All: c.All, Report: !c.Silent, Reason: c.Reason})
}

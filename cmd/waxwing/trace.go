package main

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/trace"
)

type traceCommand struct {
	Find   traceFind   `cmd:"" help:"Find messages, refused ones too, the newest first."`
	Show   traceShow   `cmd:"" help:"Tell the story of one message."`
	Follow traceFollow `cmd:"" help:"Show what happens to messages as it happens, until Ctrl-C."`
}

type traceFind struct {
	What      string   `arg:"" optional:"" help:"An address, a domain, an IP address, a Message-ID, or the id of a trace."`
	From      string   `help:"Only from this sender." placeholder:"ADDRESS"`
	To        string   `help:"Only to this recipient, as given or as an alias led to it." placeholder:"ADDRESS"`
	Domain    string   `help:"Only with an address of this domain." placeholder:"DOMAIN"`
	MessageID string   `help:"Only with this Message-ID." placeholder:"ID"`
	Host      string   `help:"Only from or to the server of this name." placeholder:"NAME"`
	Remote    string   `help:"Only from or to this IP address." placeholder:"ADDRESS"`
	Status    []string `help:"Only with a recipient of whom this is true now: delivered, junked, rejected, deferred, bounced, held, expired, waiting or dropped. May be given more than once." placeholder:"STATUS"`
	Since     string   `help:"Not older than this: a time like 2026-11-22T15:04, or so long ago, like 90m, 12h or 3d." placeholder:"TIME"`
	Until     string   `help:"Not newer than this." placeholder:"TIME"`
	Limit     int      `help:"Traces at most." default:"50"`
	After     string   `help:"Go on after this trace, the last one of the page before." placeholder:"ID"`
}

// query turns the flags into a question.
func (c *traceFind) query(now time.Time) (q control.TraceQuery, err error) {
	q = control.TraceQuery{
		From: strings.Trim(c.From, "<>"), To: strings.Trim(c.To, "<>"), Domain: c.Domain, MessageID: c.MessageID, Host: c.Host, Remote: c.Remote,
		Status: c.Status, Before: c.After, Limit: c.Limit,
	}
	what := c.What
	switch _, err := netip.ParseAddr(what); {
	case what == "":
	case err == nil:
		q.Remote = what
	case strings.HasPrefix(what, "<"):
		q.MessageID = what
	case strings.Contains(what, "@"):
		q.Address = what
	default:
		q.Domain = what
	}
	if q.Since, err = parseTime("--since", c.Since, now); err != nil {
		return q, err
	}
	q.Until, err = parseTime("--until", c.Until, now)
	return q, err
}

// parseTime reads a time, or how long ago it was.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 36_500 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, usagef("%s: %q is no time: write 2026-11-22, 2026-11-22T15:04 (UTC), or 90m, 12h, 3d for so long ago", flag, text)
}

// byID is the trace that the argument names, "" when it names none.
func (c *traceFind) byID() string {
	id := strings.ToUpper(c.What)
	if _, ok := trace.TimeOf(id); ok {
		return id
	}
	return ""
}

func (c *traceFind) Run(s *session) error {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	return s.with(func(k control.Carrier) error {
		var page control.TracePage
		if id := c.byID(); id != "" {
			story, err := control.TraceShow.Call(s.ctx, k, control.TraceRef{ID: id})
			if err != nil {
				return err
			}
			page.Traces = []control.TraceSummary{story.TraceSummary}
		} else if page, err = findTraces(s, k, q); err != nil {
			return err
		}
		return s.print(page, func(p *printer) {
			if len(page.Traces) == 0 {
				p.line("nothing was found")
				return
			}
			p.row("TIME", "ID", "FROM", "TO", "STATUS", "WHY")
			for _, t := range page.Traces {
				printSummary(p, &t)
			}
			if page.Next != "" {
				p.line("more: --after " + page.Next)
			}
		})
	})
}

// findTraces asks until a page is full: one may be short because many were looked at in vain.
func findTraces(s *session, k control.Carrier, q control.TraceQuery) (all control.TracePage, err error) {
	limit := q.Limit
	if limit <= 0 {
		return all, usagef("--limit: 1 or more")
	}
	all.Traces = []control.TraceSummary{}
	for {
		q.Limit = min(limit-len(all.Traces), 200)
		page, err := control.TraceFind.Call(s.ctx, k, q)
		if err != nil {
			return all, err
		}
		all.Traces = append(all.Traces, page.Traces...)
		all.Next, q.Before = page.Next, page.Next
		if page.Next == "" || len(all.Traces) >= limit {
			return all, nil
		}
	}
}

// printSummary writes a line for each recipient, or one for a trace without any.
func printSummary(p *printer, t *control.TraceSummary) {
	if len(t.Fates) == 0 {
		p.row(clock(t.Time), t.ID, sender(t.From), strings.Join(t.To, " "), "open", "")
	}
	for _, f := range t.Fates {
		to := f.Address
		if to == "" || to == t.From && len(t.To) == 0 {
			to = strings.Join(t.To, " ")
		}
		if to == "" {
			to = "-"
		}
		from := sender(t.From)
		if t.From == "" && len(t.To) == 0 {
			from = t.Remote
		}
		p.row(clock(t.Time), t.ID, from, shorten(to, 60), f.Status, shorten(why(f.Reply, f.Reason), 80))
	}
}

func why(reply, reason string) string {
	if reply == "" {
		return reason
	}
	return reply
}

type traceShow struct {
	ID string `arg:"" help:"The id that find shows, that stands in Received, and that the answer to the message gave."`
}

func (c *traceShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		story, err := control.TraceShow.Call(s.ctx, k, control.TraceRef{ID: c.ID})
		if err != nil {
			return err
		}
		return s.print(story, func(p *printer) { printStory(p, &story) })
	})
}

func printStory(p *printer, t *control.TraceStory) {
	p.row("trace", t.ID)
	p.row("begun", clock(t.Time))
	p.row("from", sender(t.From))
	for _, to := range t.To {
		p.row("to", to)
	}
	for _, fact := range [][2]string{{"message-id", t.MessageID}, {"subject", t.Subject}} {
		if fact[1] != "" {
			p.row(fact[0], fact[1])
		}
	}
	if t.Size > 0 {
		p.row("size", config.Size(t.Size).Human())
	}
	for _, f := range t.Fates {
		p.row("became", strings.TrimSpace(f.Address+" "+f.Status))
	}
	p.line("")
	last := t.Time
	for i := range t.Steps {
		step := &t.Steps[i]
		p.row(step.Time.UTC().Format("2006-01-02 15:04:05.000"), "+"+step.Time.Sub(last).Round(time.Millisecond).String(), tell(step))
		last = step.Time
	}
	p.line("")
	p.line(plain(next(t)))
}

// next says what happens to the message from now on.
func next(t *control.TraceStory) string {
	if t.Queue == nil {
		for _, f := range t.Fates {
			if f.Status == trace.Waiting.String() || f.Status == trace.Deferred.String() && f.Address != "" && accepted(t) {
				return "What next: nothing waits in the queue any more, and what became of it was not written down."
			}
		}
		return "What next: nothing, this is the end of it."
	}
	var b strings.Builder
	b.WriteString("What next:")
	for _, r := range t.Queue.Recipients {
		b.WriteString(" " + r.To + " ")
		switch r.State {
		case "held":
			b.WriteString("is held: `waxwing queue release " + strconv.FormatInt(t.Queue.ID, 10) + "` lets it go on;")
		case "leased":
			b.WriteString("is being tried now;")
		case "damaged":
			b.WriteString("was set aside because its row or the message can't be read;")
		default:
			b.WriteString("is tried at " + clock(r.NextAttempt) + ", and given up at " + clock(t.Queue.Expires) + ";")
		}
	}
	return strings.TrimSuffix(b.String(), ";") + " (queue " + strconv.FormatInt(t.Queue.ID, 10) + ")."
}

func accepted(t *control.TraceStory) bool {
	for i := range t.Steps {
		if t.Steps[i].Kind == trace.Accept.String() {
			return true
		}
	}
	return false
}

type traceFollow struct {
	What string `arg:"" optional:"" help:"Only what is about this address, domain, IP address, or trace."`
}

// maxFollowed bounds the traces that a filtered follow remembers.
const maxFollowed = 10_000

func (c *traceFollow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		place := control.TraceFollowing{Place: -1}
		wanted := map[string]bool{}
		s.say("following; Ctrl-C ends")
		for {
			got, err := control.TraceFollow.Call(s.ctx, k, place)
			if s.ctx.Err() != nil {
				return nil // Ctrl-C is how it ends
			}
			if err != nil {
				return err
			}
			place.Place = got.Place
			if got.Missed > 0 {
				s.say("%d steps came too fast to be shown", got.Missed)
			}
			if len(wanted) > maxFollowed {
				clear(wanted)
			}
			for _, h := range got.Happenings {
				if !c.about(&h) && !wanted[h.ID] {
					continue
				}
				wanted[h.ID] = true
				if err := s.printHappening(&h); err != nil {
					return err
				}
			}
		}
	})
}

// about tells whether something is wanted.
func (c *traceFollow) about(h *control.TraceHappening) bool {
	if c.What == "" || strings.EqualFold(h.ID, c.What) {
		return true
	}
	for i := range h.Steps {
		step := &h.Steps[i]
		for _, text := range []string{step.Address, step.Host, step.Remote, step.Data[trace.Target]} {
			if strings.EqualFold(text, c.What) || strings.HasSuffix(strings.ToLower(text), "@"+strings.ToLower(c.What)) || strings.HasPrefix(text, c.What+":") {
				return true
			}
		}
	}
	return false
}

func (s *session) printHappening(h *control.TraceHappening) error {
	if s.json { // a line each, for programs that read as it comes
		return json.NewEncoder(s.out).Encode(h)
	}
	return s.print(nil, func(p *printer) {
		for i := range h.Steps {
			step := &h.Steps[i]
			p.row(step.Time.UTC().Format("15:04:05.000"), h.ID, tell(step))
		}
	})
}

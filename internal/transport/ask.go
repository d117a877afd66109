package transport

import (
	"context"
	"net/netip"
)

// Ask asks the servers of a destination whether they take a recipient: it goes as far as RCPT, with the null reverse-path, and
// sends nothing. The result is what the first server said that could be asked.
func (t *Transport) Ask(ctx context.Context, destination, to string) Result {
	l := t.Link(destination)
	defer l.Close()
	d := &delivery{m: &Message{Recipients: []Recipient{{To: to}}}, results: make([]Result, 1), pending: 1, ask: true}
	scope, f := t.scope(destination, d.m.TLS)
	if f != nil {
		return f.result(host{}, netip.AddrPort{}, TLSInfo{})
	}
	l.walk(ctx, d, scope)
	d.finish()
	return d.results[0]
}

// ask says MAIL and RCPT, and takes both back.
func (s *session) ask(d *delivery) *failure {
	s.sent++
	r, f := s.command("MAIL", s.t.opts.Timeouts.Command, "MAIL FROM:<>")
	if f == nil && r.class() != 2 {
		f = s.refused("MAIL", r)
	}
	if f != nil {
		return f
	}
	to := &d.m.Recipients[0]
	if r, f = s.command("RCPT", s.t.opts.Timeouts.Command, s.rcptCommand(to, !ascii(to.To))); f != nil {
		return f
	}
	d.decide(0, s.resultOf("RCPT", r))
	s.reset()
	return nil
}

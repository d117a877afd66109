package transport

import (
	"context"
	"net/netip"
	"time"

	"waxwing/internal/smtp"
)

// Link is a way to one destination that keeps its connection between messages. It belongs to one goroutine at a time;
// Close it.
type Link struct {
	t           *Transport
	destination string
	via         Via
	s           *session
	used        time.Time
}

// Link makes a way to a destination: a domain in A-labels, or an address literal. It connects when it must.
func (t *Transport) Link(destination string) *Link {
	return &Link{t: t, destination: destination}
}

// Open tells whether the link holds a connection that can be used for another message.
func (l *Link) Open() bool { return l.s != nil && !l.s.dead }

// Retarget lets the link be used for another destination with the same next hop, by the same way.
func (l *Link) Retarget(destination string, v Via) bool {
	if v != l.via || l.t.NextHop(destination) != l.t.NextHop(l.destination) {
		return false
	}
	l.destination = destination
	return true
}

// Used is when the link was last used.
func (l *Link) Used() time.Time { return l.used }

// Close ends the connection politely, and at once when ctx has ended.
func (l *Link) Close() {
	if l.s != nil {
		l.s.quit()
		l.s = nil
	}
}

// Deliver tries to deliver m to all its recipients and returns a result for each, in their order. It goes through the
// servers of the destination until every recipient is decided: taken, refused for good, or put off (4xx) by maxOffers of
// them, for a server that greylists or is full says nothing about those behind it. A message whose end was not answered
// may have been taken: it is offered nowhere else in this attempt.
func (l *Link) Deliver(ctx context.Context, m *Message) []Result {
	d, f := newDelivery(m)
	defer d.release()
	defer func() { l.used = l.t.opts.Clock() }()
	if f != nil {
		d.all(f)
		return d.results
	}
	scope, f := l.t.scope(l.destination, m.TLS)
	if f != nil {
		d.all(f)
		return d.results
	}
	if l.s != nil && l.s.scope != scope { // what it was opened under is not what this message needs
		l.Close()
	}
	if l.s != nil {
		l.run(ctx, d) // the server may have closed an idle connection: what that leaves pending goes to a fresh one
		if d.pending == 0 {
			return d.results
		}
		d.forget()
	}
	l.walk(ctx, d, scope)
	d.finish()
	return d.results
}

// walk goes through hosts and addresses. Addresses that lately took no connection come after all others.
func (l *Link) walk(ctx context.Context, d *delivery, scope string) {
	hosts, domain, f := l.t.hosts(ctx, l.destination)
	var plan *plan
	if f == nil {
		plan, f = l.t.plan(ctx, domain, d.m.TLS, hosts)
	}
	if f != nil {
		d.note(f, host{}, netip.AddrPort{}, TLSInfo{})
		return
	}
	type place struct {
		h      host
		addr   netip.AddrPort
		demand *demand
	}
	var later []place
	tried := 0
	try := func(p place) (done bool) {
		if d.open(p.addr) == 0 { // it has said what it has to say
			return false
		}
		tried++
		l.Close() // the server before has put off what is left
		s, f := l.t.connect(ctx, domain, p.h, p.addr, p.demand)
		if f != nil {
			if p.h.smart != nil && f.permanent { // a smart host that won't talk to us is no fault of the message
				f.permanent, f.enhanced.Class = false, 4
			}
			d.note(f, p.h, p.addr, TLSInfo{Policy: p.demand.policy})
			return ctx.Err() != nil
		}
		s.scope = scope
		l.s = s
		l.run(ctx, d)
		return d.pending == 0 || ctx.Err() != nil
	}
	for _, h := range hosts.list {
		h.via = l.via
		addrs, where, f := l.t.addresses(ctx, h)
		var demand *demand
		if f == nil {
			demand, f = l.t.demand(ctx, plan, h, where)
		}
		if f != nil {
			d.note(f, h, netip.AddrPort{}, TLSInfo{})
			if f.self && h.smart == nil { // those behind it would send the mail back here: RFC 5321, section 5.1
				break
			}
			continue
		}
		for _, a := range addrs {
			if tried+len(later) >= maxAddresses {
				break
			}
			if !l.via.reaches(a) {
				d.note(temporarily("connect", 4, 1, "%s can't be reached from %s", h.describe(a), l.via.Address), h, a, TLSInfo{})
				continue
			}
			p := place{h, a, demand}
			if l.t.down.is(a, l.t.opts.Clock()) {
				later = append(later, p)
			} else if try(p) {
				return
			}
		}
	}
	for _, p := range later {
		if try(p) {
			return
		}
	}
}

// run sends d over the session that is open, in as many transactions as it takes.
func (l *Link) run(ctx context.Context, d *delivery) {
	s := l.s
	stop := s.bind(ctx)
	for d.open(s.addr) > 0 && !s.dead {
		if f := s.transact(d); f != nil {
			d.note(f, s.host, s.addr, s.tls)
			if !s.dead && f.stage == "MAIL" { // this server won't have the message now; another may
				s.quit()
			}
			break
		}
		if s.spent() {
			break
		}
	}
	stop()
	if s.dead {
		s.abandon()
		l.s = nil
	} else if s.spent() {
		l.Close()
	}
}

// spent tells that a session has carried as many messages as it may.
func (s *session) spent() bool {
	most := s.t.reuse(s.host.via)
	if s.ext.mailMax > 0 {
		most = min(most, s.ext.mailMax)
	}
	return s.sent >= most
}

// delivery is the state of one call of Deliver.
type delivery struct {
	m       *Message
	content *content
	results []Result
	pending int
	put     map[int]putOff // by recipient: what it was put off with
	last    []Result       // why nothing was decided yet: the last failure of a host
	soft    bool           // some failure was temporary
	ask     bool           // nothing is sent: see Transport.Ask
}

// putOff is that servers refused a recipient for now.
type putOff struct {
	Result     // by the last of them
	offers int // how many they are
}

// maxOffers is how many servers may put a recipient off in one attempt before it waits for the next attempt.
const maxOffers = 2

func newDelivery(m *Message) (*delivery, *failure) {
	d := &delivery{m: m, results: make([]Result, len(m.Recipients)), pending: len(m.Recipients)}
	c, f := openContent(m)
	d.content = c
	return d, f
}

func (d *delivery) release() {
	if d.content != nil {
		d.content.release()
	}
}

// decide sets the result of one recipient.
func (d *delivery) decide(i int, r Result) {
	if d.results[i].Status == Pending {
		d.pending--
	}
	d.results[i] = r
}

// waits tells whether a recipient is still to be offered to the server at an address.
func (d *delivery) waits(i int, addr netip.AddrPort) bool {
	return d.results[i].Status == Pending && (d.put[i].offers == 0 || d.put[i].IP != addr)
}

// open counts the recipients that are still to be offered to the server at an address.
func (d *delivery) open(addr netip.AddrPort) int {
	n := 0
	for i := range d.results {
		if d.waits(i, addr) {
			n++
		}
	}
	return n
}

// settle takes in what a server said about a recipient: a refusal for now leaves it to the next server.
func (d *delivery) settle(i int, r Result) {
	if r.Status == Deferred && r.Code/100 == 4 {
		if n := d.put[i].offers + 1; n < maxOffers {
			if d.put == nil {
				d.put = make(map[int]putOff, 1)
			}
			d.put[i] = putOff{r, n}
			return
		}
	}
	d.decide(i, r)
}

// all decides all pending recipients by one failure.
func (d *delivery) all(f *failure) {
	for i := range d.results {
		if d.results[i].Status == Pending {
			d.decide(i, f.result(host{}, netip.AddrPort{}, TLSInfo{}))
		}
	}
}

// note remembers a failure that left recipients undecided.
func (d *delivery) note(f *failure, h host, addr netip.AddrPort, info TLSInfo) {
	if f.permanent && d.soft { // the reason for hope is the one to report
		return
	}
	d.soft = d.soft || !f.permanent
	d.last = append(d.last[:0], f.result(h, addr, info))
}

// forget drops what a reused connection's end left behind.
func (d *delivery) forget() { d.last, d.soft = nil, false }

// finish decides what no server decided: by what one said about the recipient itself, or else by what kept all of them
// from being asked. That is final only when all of them refused for good.
func (d *delivery) finish() {
	r := temporarily("resolve", 4, 4, "no server of the destination could be tried").result(host{}, netip.AddrPort{}, TLSInfo{})
	if len(d.last) > 0 {
		r = d.last[0]
	}
	for i := range d.results {
		switch {
		case d.results[i].Status != Pending:
		case d.put[i].offers > 0:
			d.decide(i, d.put[i].Result)
		default:
			d.decide(i, r)
		}
	}
}

// result turns a failure into the result of a recipient.
func (f *failure) result(h host, addr netip.AddrPort, info TLSInfo) Result {
	r := Result{
		Status: Deferred, Enhanced: f.enhanced, Message: f.message, Stage: f.stage, Host: h.name, IP: addr, TLS: info,
		Unreachable: f.unreachable, Err: f.local,
	}
	if f.permanent {
		r.Status = Failed
	}
	if f.reply != nil {
		r.Code, r.Reply = f.reply.code, f.reply.raw
	}
	return r
}

// resultOf turns a reply about one recipient into its result.
func (s *session) resultOf(stage string, rep *reply) Result {
	r := Result{
		Code: rep.code, Reply: rep.raw, Message: rep.raw, Enhanced: rep.enhanced, Stage: stage,
		Host: s.host.name, IP: s.addr, TLS: s.tls,
	}
	switch rep.class() {
	case 2:
		r.Status = Delivered
		r.Notifies = s.ext.dsn
	case 5:
		r.Status = Failed
	default:
		r.Status = Deferred
	}
	if r.Enhanced == (smtp.Enhanced{}) {
		r.Enhanced.Class = max(2, rep.class())
		if rep.class() == 3 {
			r.Enhanced.Class = 4
		}
	}
	return r
}

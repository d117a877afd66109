package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/dns"
	"waxwing/internal/smtp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a transport that is tested. No test waits for its end: see impatient.
const patience = 2 * time.Minute

// rig makes a transport that reaches the servers under their names.
func rig(t *testing.T, servers map[string]*server, change func(*Options)) *Transport {
	t.Helper()
	o := Options{
		Hostname: "me.test",
		Resolver: fakeDNS{},
		Hosts:    map[string][]netip.AddrPort{},
		Shuffle:  func(int, func(int, int)) {},
		Timeouts: Timeouts{
			Connect: patience, Greeting: patience, Command: patience, DataInit: patience, DataBlock: patience, DataEnd: patience,
			Quit: patience, TLS: patience,
		},
	}
	hung := map[string]<-chan struct{}{}
	for name, s := range servers {
		o.Hosts[name] = []netip.AddrPort{s.addr()}
		hung[s.addr().String()] = s.hung
	}
	o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil || hung[addr] == nil {
			return nc, err
		}
		return newImpatient(nc, hung[addr]), nil
	}
	if change != nil {
		change(&o)
	}
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

const simple = "From: a@me.test\r\nSubject: hello\r\n\r\n.dot first\r\nbody\r\n"

func mail(to ...string) *Message {
	m := &Message{From: "a@me.test", Content: text(simple)}
	for _, r := range to {
		m.Recipients = append(m.Recipients, Recipient{To: r})
	}
	return m
}

// deliver sends one message over a link of its own.
func deliver(t *testing.T, tr *Transport, destination string, m *Message) []Result {
	t.Helper()
	l := tr.Link(destination)
	defer l.Close()
	return l.Deliver(t.Context(), m)
}

// brief writes results as "status code x.y.z stage".
func brief(rs []Result) string {
	var out []string
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%s %d %d.%d.%d %s", r.Status, r.Code, r.Enhanced.Class, r.Enhanced.Subject, r.Enhanced.Detail, r.Stage))
	}
	return strings.Join(out, "; ")
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	m := mail("x@b.test", "y@b.test")
	rs := deliver(t, tr, "b.test", m)
	if got := brief(rs); got != "delivered 250 2.0.0 end of data; delivered 250 2.0.0 end of data" {
		t.Error(got)
	}
	if rs[0].Reply != "250 2.0.0 queued as ABC" || rs[0].Host != "b.test" || rs[0].IP != s.addr() || !rs[0].Notifies {
		t.Errorf("result %+v", rs[0])
	}
	lines, bodies := s.seen()
	want := []string{
		"EHLO me.test", "MAIL FROM:<a@me.test> SIZE=53", "RCPT TO:<x@b.test>", "RCPT TO:<y@b.test>", "DATA", "QUIT",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("commands %q, want %q", lines, want)
	}
	if len(bodies) != 1 || bodies[0] != simple {
		t.Errorf("bodies %q", bodies)
	}
}

func TestRepliesAtEachStage(t *testing.T) {
	t.Parallel()
	const two = "x@b.test y@b.test"
	for _, tc := range []struct {
		name    string
		change  func(*server)
		want    string
		message string // part of the explanation
	}{
		{"greeting 4xx", func(s *server) { s.greet = "450 4.3.2 busy" }, "deferred 450 4.3.2 greeting", "busy"},
		{"greeting 421", func(s *server) { s.greet = "421 4.3.2 closing" }, "deferred 421 4.3.2 greeting", "closing"},
		{"greeting 554", func(s *server) { s.greet = "554 no mail here" }, "failed 554 5.0.0 greeting", "no mail"},
		{"greeting 521", func(s *server) { s.greet = "521 no mail here" }, "failed 521 5.0.0 greeting", "no mail"},
		{"greeting is no SMTP", func(s *server) { s.greet = "HTTP/1.1 400 Bad" }, "deferred 0 4.5.0 greeting", "makes no sense"},
		{"greeting of two codes", func(s *server) { s.greet = "220-a\n250 b" }, "deferred 0 4.5.0 greeting", "makes no sense"},
		{"greeting without end", func(s *server) { s.greet = strings.Repeat("220-a\n", 500) + "220 b" }, "deferred 0 4.5.0 greeting", "more than"},
		{"greeting too long", func(s *server) { s.greet = "220 " + strings.Repeat("a", 100_000) }, "deferred 0 4.4.2 greeting", "too long"},
		{"greeting never comes", func(s *server) { s.greet = "hang" }, "deferred 0 4.4.2 greeting", "in time"},
		{"closes at once", func(s *server) { s.greet = "close" }, "deferred 0 4.4.2 greeting", "closed"},
		{"EHLO 4xx", func(s *server) { s.answers["EHLO"] = "451 later" }, "deferred 451 4.0.0 EHLO", "later"},
		{"EHLO closes", func(s *server) { s.answers["EHLO"] = "close" }, "deferred 0 4.4.2 EHLO", "closed"},
		{"no EHLO", func(s *server) { s.answers["EHLO"] = "500 what?" }, "delivered 250 2.0.0 end of data", ""},
		{"neither EHLO nor HELO", func(s *server) { s.answers["EHLO"], s.answers["HELO"] = "500 what?", "550 go away" }, "failed 550 5.0.0 HELO", "go away"},
		{"MAIL 4xx", func(s *server) { s.answers["MAIL"] = "451 4.7.1 greylisted" }, "deferred 451 4.7.1 MAIL", "greylisted"},
		{"MAIL 5xx", func(s *server) { s.answers["MAIL"] = "550 5.7.1 bad sender" }, "failed 550 5.7.1 MAIL", "bad sender"},
		{"MAIL hangs", func(s *server) { s.answers["MAIL"] = "hang" }, "deferred 0 4.4.2 MAIL", "in time"},
		{"MAIL closes", func(s *server) { s.answers["MAIL"] = "close" }, "deferred 0 4.4.2 MAIL", "closed"},
		{"MAIL 354", func(s *server) { s.answers["MAIL"] = "354 what" }, "deferred 354 4.0.0 MAIL", "unexpected"},
		{"RCPT 4xx", func(s *server) { s.answers["RCPT"] = "450 4.2.1 mailbox busy" }, "deferred 450 4.2.1 RCPT", "busy"},
		{"RCPT 5xx", func(s *server) { s.answers["RCPT"] = "550-5.1.1 no\n550 5.1.1 such user" }, "failed 550 5.1.1 RCPT", "550-5.1.1 no\n550 5.1.1 such user"},
		{"RCPT partly", func(s *server) { s.answers["RCPT TO:<y"] = "550 5.1.1 no" }, "delivered 250 2.0.0 end of data; failed 550 5.1.1 RCPT", ""},
		{"RCPT partly later", func(s *server) { s.answers["RCPT TO:<x"] = "451 no" }, "deferred 451 4.0.0 RCPT; delivered 250 2.0.0 end of data", ""},
		{"RCPT 421", func(s *server) { s.answers["RCPT TO:<y"] = "421 4.7.0 too many" }, "deferred 421 4.7.0 RCPT", "too many"},
		{"RCPT closes", func(s *server) { s.answers["RCPT TO:<y"] = "close" }, "deferred 0 4.4.2 RCPT", "closed"},
		{"RCPT refused, then closes", func(s *server) { s.answers["RCPT TO:<x"], s.answers["RCPT TO:<y"] = "550 5.1.1 no", "close" }, "failed 550 5.1.1 RCPT; deferred 0 4.4.2 RCPT", ""},
		{"DATA 4xx", func(s *server) { s.answers["DATA"] = "451 4.3.0 later" }, "deferred 451 4.3.0 DATA", "later"},
		{"DATA 5xx", func(s *server) { s.answers["DATA"] = "554 5.7.1 no" }, "failed 554 5.7.1 DATA", "no"},
		{"DATA hangs", func(s *server) { s.answers["DATA"] = "hang" }, "deferred 0 4.4.2 DATA", "in time"},
		{"DATA 250", func(s *server) { s.answers["DATA"] = "250 ok" }, "deferred 250 4.0.0 DATA", "unexpected"},
		{"end 4xx", func(s *server) { s.answers["."] = "452 4.3.1 full" }, "deferred 452 4.3.1 end of data", "full"},
		{"end 5xx", func(s *server) { s.answers["."] = "554 5.6.0 spam" }, "failed 554 5.6.0 end of data", "spam"},
		{"end 421", func(s *server) { s.answers["."] = "421 4.3.0 down" }, "deferred 421 4.3.0 end of data", "down"},
		{"end closes", func(s *server) { s.answers["."] = "close" }, "deferred 0 4.4.2 end of data", "closed"},
		{"end hangs", func(s *server) { s.answers["."] = "hang" }, "deferred 0 4.4.2 end of data", "in time"},
		{"wrong class in enhanced code", func(s *server) { s.answers["."] = "550 4.1.1 x" }, "failed 550 5.0.0 end of data", ""},
	} {
		for _, pipelining := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, pipelining %v", tc.name, pipelining), func(t *testing.T) {
				t.Parallel()
				s := newServer(t, func(s *server) {
					if !pipelining {
						s.ehlo = nil
					}
					tc.change(s)
				})
				tr := rig(t, map[string]*server{"b.test": s}, nil)
				rs := deliver(t, tr, "b.test", mail(strings.Fields(two)...))
				want := tc.want
				if !strings.Contains(want, ";") {
					want += "; " + want
				}
				if got := brief(rs); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				if !strings.Contains(rs[1].Message, tc.message) {
					t.Errorf("message %q, want %q in it", rs[1].Message, tc.message)
				}
			})
		}
	}
}

func TestHostsAreTriedInOrder(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		first      func(*server)
		want       string
		secondGets bool
	}{
		{"first takes it", nil, "delivered 250 2.0.0 end of data", false},
		{"first is closed", func(s *server) { s.greet = "close" }, "delivered 250 2.0.0 end of data", true},
		{"first says 421", func(s *server) { s.greet = "421 later" }, "delivered 250 2.0.0 end of data", true},
		{"first says 554", func(s *server) { s.greet = "554 no" }, "delivered 250 2.0.0 end of data", true},
		{"first defers MAIL", func(s *server) { s.answers["MAIL"] = "451 later" }, "delivered 250 2.0.0 end of data", true},
		{"first refuses the recipient", func(s *server) { s.answers["RCPT"] = "550 no" }, "failed 550 5.0.0 RCPT", false},
		{"first greylists the recipient", func(s *server) { s.answers["RCPT"] = "450 no" }, "delivered 250 2.0.0 end of data", true},
		{"first defers DATA", func(s *server) { s.answers["DATA"] = "451 no" }, "delivered 250 2.0.0 end of data", true},
		{"first defers the message", func(s *server) { s.answers["."] = "452 4.3.1 full" }, "delivered 250 2.0.0 end of data", true},
		{"first drops after the dot", func(s *server) { s.answers["."] = "close" }, "deferred 0 4.4.2 end of data", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, b := newServer(t, tc.first), newServer(t, nil)
			tr := rig(t, map[string]*server{"a.test": a, "c.test": b}, func(o *Options) {
				o.Resolver = fakeDNS{mx: map[string]dns.MX{"b.test": mx("a.test", "c.test")}}
			})
			if got := brief(deliver(t, tr, "b.test", mail("x@b.test"))); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if _, bodies := b.seen(); (len(bodies) == 1) != tc.secondGets {
				t.Errorf("the second host got %d messages", len(bodies))
			}
		})
	}
}

func TestWhereMailCannotGo(t *testing.T) {
	t.Parallel()
	refuse := func(err error) map[string]error {
		return map[string]error{"b.test": &dns.Error{Name: "b.test", Type: "MX", Err: err}}
	}
	for _, tc := range []struct {
		name, destination, want string
		dns                     fakeDNS
		self                    bool
	}{
		{"null MX", "b.test", "failed 0 5.1.10 resolve", fakeDNS{err: refuse(dns.ErrNullMX)}, false},
		{"no domain", "b.test", "failed 0 5.1.2 resolve", fakeDNS{err: refuse(dns.ErrNotFound)}, false},
		{"DNS timeout", "b.test", "deferred 0 4.4.3 resolve", fakeDNS{err: refuse(dns.ErrTimeout)}, false},
		{"SERVFAIL", "b.test", "deferred 0 4.4.3 resolve", fakeDNS{err: refuse(dns.ErrServFail)}, false},
		{"bogus", "b.test", "deferred 0 4.4.3 resolve", fakeDNS{err: refuse(dns.ErrBogus)}, false},
		{"no address", "b.test", "failed 0 5.4.4 resolve", fakeDNS{}, false},
		{"no MX has an address", "b.test", "failed 0 5.4.4 resolve", fakeDNS{mx: map[string]dns.MX{"b.test": mx("a.test", "c.test")}}, false},
		{"one MX can't be looked up", "b.test", "deferred 0 4.4.3 resolve", fakeDNS{mx: map[string]dns.MX{"b.test": mx("a.test", "c.test")}, err: map[string]error{"a.test": &dns.Error{Err: dns.ErrTimeout}}}, false},
		{"this host is the best MX", "b.test", "failed 0 5.4.6 resolve", fakeDNS{mx: map[string]dns.MX{"b.test": mx("me.test", "c.test")}}, false},
		{"this host equals the best MX", "b.test", "failed 0 5.4.6 resolve", fakeDNS{mx: map[string]dns.MX{"b.test": mx("a.test", "=me.test", "c.test")}}, false},
		{"its address is ours", "b.test", "failed 0 5.4.6 resolve", fakeDNS{ip: map[string][]string{"b.test": {"127.0.0.1"}}}, true},
		{"a literal is ours", "[127.0.0.1]", "failed 0 5.4.6 resolve", fakeDNS{}, true},
		{"literal of nothing", "[nonsense]", "failed 0 5.1.2 resolve", fakeDNS{}, false},
		{"literal without an end", "[127.0.0.1", "failed 0 5.1.2 resolve", fakeDNS{}, false},
		{"literal with a zone", "[IPv6:fe80::1%lo]", "failed 0 5.1.2 resolve", fakeDNS{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := rig(t, nil, func(o *Options) {
				o.Resolver = tc.dns
				if tc.self {
					o.IsSelf = func(a netip.AddrPort) bool { return a.Port() == 25 }
				}
			})
			if got := brief(deliver(t, tr, tc.destination, mail("x@b.test"))); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

func TestListIsCutAtThisHost(t *testing.T) {
	t.Parallel()
	a, c := newServer(t, func(s *server) { s.greet = "421 later" }), newServer(t, nil)
	tr := rig(t, map[string]*server{"a.test": a, "c.test": c}, func(o *Options) {
		o.Resolver = fakeDNS{mx: map[string]dns.MX{"b.test": mx("a.test", "ME.test.", "c.test")}}
		o.OwnNames = []string{"me.test."}
		o.Resolver = fakeDNS{mx: map[string]dns.MX{"b.test": mx("a.test", "me.test", "c.test")}}
	})
	if got := brief(deliver(t, tr, "b.test", mail("x@b.test"))); got != "deferred 421 4.0.0 greeting" {
		t.Error(got)
	}
	if c.connections() != 0 {
		t.Error("a host behind our own preference was tried")
	}
}

func TestEqualPreferenceIsShuffled(t *testing.T) {
	t.Parallel()
	tr := rig(t, nil, func(o *Options) {
		o.Shuffle = func(n int, swap func(int, int)) {
			for i := range n / 2 {
				swap(i, n-1-i)
			}
		}
	})
	hosts, f := tr.order("b.test", mx("a", "b", "=c", "=d", "e"))
	if f != nil {
		t.Fatal(f)
	}
	var names []string
	for _, h := range hosts {
		names = append(names, h.name)
	}
	if got := strings.Join(names, ""); got != "adcbe" {
		t.Errorf("order %s", got)
	}
}

func TestAddressLiteralAndPort(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, nil, func(o *Options) { o.Port = int(s.addr().Port()) })
	if got := brief(deliver(t, tr, "[127.0.0.1]", mail("x@[127.0.0.1]"))); got != "delivered 250 2.0.0 end of data" {
		t.Error(got)
	}
}

func TestAllAddressesAreTriedAndDeadOnesLast(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	gone := newServer(t, nil)
	deadAddr := gone.addr()
	_ = gone.l.Close()
	now := time.Now()
	tr := rig(t, nil, func(o *Options) {
		o.Hosts["b.test"] = []netip.AddrPort{deadAddr, s.addr()}
		o.Clock = func() time.Time { return now }
	})
	if got := brief(deliver(t, tr, "b.test", mail("x@b.test"))); got != "delivered 250 2.0.0 end of data" {
		t.Error(got)
	}
	if !tr.down.is(deadAddr, now) || tr.down.is(s.addr(), now) {
		t.Error("which address is down was not remembered")
	}
	if tr.down.is(deadAddr, now.Add(downTime+time.Second)) {
		t.Error("an address stays down for ever")
	}
	tr2 := rig(t, nil, func(o *Options) { o.Hosts["b.test"] = []netip.AddrPort{deadAddr} })
	rs := deliver(t, tr2, "b.test", mail("x@b.test"))
	if got := brief(rs); got != "deferred 0 4.4.1 connect" || !rs[0].Unreachable {
		t.Errorf("%s, unreachable %v", got, rs[0].Unreachable)
	}
	if got := brief(deliver(t, tr2, "b.test", mail("x@b.test"))); got != "deferred 0 4.4.1 connect" {
		t.Errorf("%s: an address that was down was not tried again", got)
	}
}

func TestConnectionIsReused(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) { s.ehlo = append(s.ehlo, "LIMITS MAILMAX=3 RCPTMAX=2") })
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	l := tr.Link("b.test")
	defer l.Close()
	for i := range 4 {
		if got := brief(l.Deliver(t.Context(), mail("x@b.test"))); got != "delivered 250 2.0.0 end of data" {
			t.Fatal(i, got)
		}
	}
	if n := s.connections(); n != 2 { // MAILMAX=3
		t.Errorf("%d connections for 4 messages", n)
	}
}

func TestIdleConnectionClosedByTheServerIsNoFailure(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	l := tr.Link("b.test")
	defer l.Close()
	l.Deliver(t.Context(), mail("x@b.test"))
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	if got := brief(l.Deliver(t.Context(), mail("x@b.test"))); got != "delivered 250 2.0.0 end of data" {
		t.Error(got)
	}
	if n := s.connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestRecipientsAreSplitByTheServersLimit(t *testing.T) {
	t.Parallel()
	var to []string
	for i := range 7 {
		to = append(to, fmt.Sprintf("r%d@b.test", i))
	}
	for _, tc := range []struct {
		name   string
		change func(*server)
		mails  int
	}{
		{"LIMITS", func(s *server) { s.ehlo = append(s.ehlo, "LIMITS RCPTMAX=3") }, 3},
		{"none stated", func(*server) {}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, tc.change)
			tr := rig(t, map[string]*server{"b.test": s}, nil)
			for i, r := range deliver(t, tr, "b.test", mail(to...)) {
				if r.Status != Delivered {
					t.Errorf("recipient %d: %s", i, r.Message)
				}
			}
			if _, bodies := s.seen(); len(bodies) != tc.mails || s.connections() != 1 {
				t.Errorf("%d transactions on %d connections, want %d on one", len(bodies), s.connections(), tc.mails)
			}
		})
	}
}

func TestTooManyRecipientsGoInTheNextTransaction(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"452 4.5.3 too many", "452 too many", "552 5.5.3 too many"} {
		s := newServer(t, func(s *server) { s.answers["RCPT TO:<y"] = answer })
		tr := rig(t, map[string]*server{"b.test": s}, nil)
		rs := deliver(t, tr, "b.test", mail("x@b.test", "y@b.test"))
		// The second transaction has y alone, which gets nowhere: only then it is deferred or failed by its own reply.
		if rs[0].Status != Delivered || rs[1].Status == Delivered || rs[1].Stage != "RCPT" {
			t.Errorf("%s: %s", answer, brief(rs))
		}
		lines, _ := s.seen()
		if n := strings.Count(strings.Join(lines, "\n"), "RCPT TO:<y"); n != 2 {
			t.Errorf("%s: y was tried %d times", answer, n)
		}
	}
}

func TestSMTPUTF8IsNeededOnlyWhereItIs(t *testing.T) {
	t.Parallel()
	utf8 := []string{"SMTPUTF8", "8BITMIME", "PIPELINING"}
	for _, tc := range []struct {
		name   string
		from   string
		header string
		to     []string
		ehlo   []string
		want   string
		param  bool
	}{
		{"ASCII all over", "a@me.test", "S: x", []string{"x@b.test"}, nil, "delivered 250 2.0.0 end of data", false},
		{"ASCII all over, offered", "a@me.test", "S: x", []string{"x@b.test"}, utf8, "delivered 250 2.0.0 end of data", false},
		{"sender", "用户@me.test", "S: x", []string{"x@b.test"}, nil, "failed 0 5.6.7 MAIL", false},
		{"sender, offered", "用户@me.test", "S: x", []string{"x@b.test"}, utf8, "delivered 250 2.0.0 end of data", true},
		{"header", "a@me.test", "S: 主题", []string{"x@b.test"}, []string{"8BITMIME"}, "failed 0 5.6.7 MAIL", false},
		{"header, offered", "a@me.test", "S: 主题", []string{"x@b.test"}, utf8, "delivered 250 2.0.0 end of data", true},
		{"one recipient", "a@me.test", "S: x", []string{"x@b.test", "用户@b.test"}, nil, "delivered 250 2.0.0 end of data; failed 0 5.6.7 RCPT", false},
		{"one recipient, offered", "a@me.test", "S: x", []string{"x@b.test", "用户@b.test"}, utf8, "delivered 250 2.0.0 end of data; delivered 250 2.0.0 end of data", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(s *server) { s.ehlo = tc.ehlo })
			tr := rig(t, map[string]*server{"b.test": s}, nil)
			m := mail(tc.to...)
			m.From, m.UTF8, m.Content = tc.from, true, text(tc.header+"\r\n\r\nx\r\n")
			if got := brief(deliver(t, tr, "b.test", m)); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			lines, _ := s.seen()
			if got := strings.Contains(strings.Join(lines, "\n"), "SMTPUTF8"); got != tc.param {
				t.Errorf("SMTPUTF8 sent: %v", got)
			}
		})
	}
}

func TestDSNParametersArePassedOn(t *testing.T) {
	t.Parallel()
	m := mail("x@b.test")
	m.Ret, m.EnvID = "HDRS", "QQ+314 =x"
	m.Recipients[0].Notify = smtp.NotifySuccess | smtp.NotifyDelay
	m.Recipients[0].ORcpt = "rfc822;o+1@b.test"
	for _, tc := range []struct {
		ehlo     []string
		mail     string
		rcpt     string
		notifies bool
	}{
		{[]string{"DSN"}, "MAIL FROM:<a@me.test> RET=HDRS ENVID=QQ+2B314+20+3Dx", "RCPT TO:<x@b.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o+2B1@b.test", true},
		{nil, "MAIL FROM:<a@me.test>", "RCPT TO:<x@b.test>", false},
	} {
		s := newServer(t, func(s *server) { s.ehlo = tc.ehlo })
		tr := rig(t, map[string]*server{"b.test": s}, nil)
		rs := deliver(t, tr, "b.test", m)
		lines, _ := s.seen()
		if lines[1] != tc.mail || lines[2] != tc.rcpt || rs[0].Notifies != tc.notifies {
			t.Errorf("%q, notifies %v", lines, rs[0].Notifies)
		}
	}
	for in, want := range map[string]string{
		"utf-8;用@b.test": `utf-8;\x{7528}@b.test`, `utf-8;a\b+c@x`: `utf-8;a\x{5C}b\x{2B}c@x`, "rfc822;用@b": "", "nonsense": "", ";x": "",
		"rfc822;" + strings.Repeat("=", 300): "",
	} {
		if got := originalRecipient(in, false); got != want {
			t.Errorf("ORCPT %q = %q, want %q", in, got, want)
		}
	}
	if got := originalRecipient("utf-8;用@b.test", true); got != "utf-8;用@b.test" {
		t.Errorf("ORCPT = %q", got)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) { s.ehlo = []string{"SIZE 20"} })
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	if got := brief(deliver(t, tr, "b.test", mail("x@b.test"))); got != "failed 0 5.3.4 MAIL" {
		t.Error(got)
	}
}

func TestLargeMailGoesInChunks(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) { s.ehlo = []string{"CHUNKING"} })
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	m := mail("x@b.test")
	body := simple + strings.Repeat(".0123456789abcdef\r\n", 600_000)
	m.Content = text(body)
	if got := brief(deliver(t, tr, "b.test", m)); got != "delivered 250 2.0.0 end of data" {
		t.Fatal(got)
	}
	_, bodies := s.seen()
	if len(bodies) != 2 || strings.Join(bodies, "") != body {
		t.Errorf("%d chunks, whole %v", len(bodies), strings.Join(bodies, "") == body)
	}
}

func TestEarlyRefusalIsHeard(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) { s.ehlo = []string{"CHUNKING"}; s.answers["."] = "552 5.3.4 too big" })
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	m := mail("x@b.test")
	m.Content = text(strings.Repeat("0123456789abcdef\r\n", 600_000))
	if got := brief(deliver(t, tr, "b.test", m)); got != "failed 552 5.3.4 end of data" {
		t.Error(got)
	}
}

// broken is content that ends before its size.
type broken struct{ Content }

var errDisk = errors.New("disk")

func (b broken) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestUnreadableContentIsNoFaultOfTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	m := mail("x@b.test")
	m.Content = broken{m.Content}
	rs := deliver(t, tr, "b.test", m)
	if rs[0].Status != Deferred || !errors.Is(rs[0].Err, errDisk) || s.connections() != 0 {
		t.Errorf("%s, %v", brief(rs), rs[0].Err)
	}
}

func TestBareNewlinesAreNeverSent(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"a: b\r\n\r\nx\ny\r\n", "a: b\r\n\r\nx\ry\r\n", "a: b\r\n\r\nx\r", "a: b\r\n\r\nx\r\n.\r\r\n"} {
		s := newServer(t, nil)
		tr := rig(t, map[string]*server{"b.test": s}, nil)
		m := mail("x@b.test")
		m.Content = text(body)
		if got := brief(deliver(t, tr, "b.test", m)); got != "failed 0 5.6.0 MAIL" {
			t.Errorf("%q: %s", body, got)
		}
	}
	s := newServer(t, nil)
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	m := mail("x@b.test>\r\nDATA")
	if got := brief(deliver(t, tr, "b.test", m)); got != "failed 0 5.1.3 RCPT" {
		t.Error(got)
	}
}

func TestCancelEndsTheAttempt(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) { s.answers["MAIL"] = "wait" })
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	l := tr.Link("b.test")
	done := make(chan []Result)
	go func() { done <- l.Deliver(ctx, mail("x@b.test")) }()
	for {
		if lines, _ := s.seen(); len(lines) > 1 {
			break
		}
		time.Sleep(time.Millisecond) // polls for the event that the server saw MAIL
	}
	cancel()
	if rs := <-done; rs[0].Status != Deferred {
		t.Error(brief(rs))
	}
	l.Close()
}

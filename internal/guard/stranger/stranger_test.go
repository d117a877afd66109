package stranger_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/dns"
	"waxwing/internal/dns/dnstest"
	"waxwing/internal/guard"
	"waxwing/internal/guard/contacts"
	"waxwing/internal/guard/dnslist"
	"waxwing/internal/guard/greylist"
	"waxwing/internal/guard/stranger"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

const zone = `
	1.2.0.192.in-addr.arpa.     300 IN PTR mx.good.test.
	mx.good.test.               300 IN A   192.0.2.1
	good.test.                  300 IN MX  10 mx.good.test.
	2.2.0.192.in-addr.arpa.     300 IN PTR liar.test.
	liar.test.                  300 IN A   192.0.2.99
	addressed.test.             300 IN A   192.0.2.3
	nullmx.test.                300 IN MX  0 .
	empty.test.                 300 IN TXT "nothing for mail"
	mx.example.test.            300 IN A   198.51.100.1
	example.test.               300 IN A   192.0.2.80
	bl.test.                    300 IN SOA ns.bl.test. root.bl.test. 1 2 3 4 60
	2.0.0.127.bl.test.          300 IN A   127.0.0.2
	2.2.0.192.bl.test.          300 IN A   127.0.0.2
	2.2.0.192.bl.test.          300 IN TXT "see https://bl.test/192.0.2.2"
	9.2.0.192.bl.test.          300 IN A   127.0.0.4
	wl.test.                    300 IN SOA ns.wl.test. root.wl.test. 1 2 3 4 60
	2.0.0.127.wl.test.          300 IN A   127.0.0.2
	9.2.0.192.wl.test.          300 IN A   127.0.0.2
	dom.test.                   300 IN SOA ns.dom.test. root.dom.test. 1 2 3 4 60
	test.dom.test.              300 IN A   127.0.1.2
	good.test.dom.test.         300 IN A   127.0.1.2
`

// house is a front door with its DNS.
type house struct {
	*guard.Guard
	dns   *dnstest.Server
	lists *dnslist.Checker
	book  *contacts.Book

	mu  sync.Mutex
	set stranger.Settings
	now time.Time
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) step(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *house) settings() stranger.Settings {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.set
}

func (h *house) change(fn func(*stranger.Settings)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn(&h.set)
}

func build(t *testing.T, lists ...string) *house {
	t.Helper()
	h := &house{dns: dnstest.New(t, zone), now: time.Now()}
	h.set = stranger.Settings{
		RefuseScore: 10, GreylistScore: 3, Hello: stranger.Refuse, Reverse: true, Sender: stranger.On, Greylist: stranger.Suspicious,
		Policy: greylist.Policy{Delay: 5 * time.Minute, Known: 36 * 24 * time.Hour},
	}
	r, err := dns.New(dns.Options{Servers: []string{h.dns.Addr()}, Timeout: time.Second, Rounds: 1, Clock: h.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	h.lists = dnslist.New(dnslist.Options{Resolver: r, Clock: h.clock})
	t.Cleanup(h.lists.Close)
	all, err := dnslist.ParseAll(lists)
	if err != nil {
		t.Fatal(err)
	}
	h.lists.Configure(all)
	h.lists.ProveDue(t.Context())
	var st forgetful
	h.book = contacts.New(contacts.Options{Store: st, Clock: h.clock})
	door := stranger.New(stranger.Options{
		Resolver: r, Lists: h.lists, Contacts: h.book, Hostname: "mx.example.test", Settings: h.settings,
		Grey:  greylist.New(greylist.Options{Store: st, Clock: h.clock}),
		Local: func(domain string) bool { return domain == "example.test" },
	})
	probing := stranger.NewProbing(h.clock, func() int { return 20 })
	h.Guard = guard.New(guard.Options{}, append([]guard.Check{h.book.Check(), probing.Check()}, door.Checks()...)...)
	return h
}

// forgetful is a store without rows: what is in memory must do.
type forgetful struct{}

func (forgetful) GreyRows(context.Context, ...string) ([]store.GreyRow, error)        { return nil, nil }
func (forgetful) SaveGreyRows(context.Context, []store.GreyRow, time.Time) error      { return nil }
func (forgetful) ExpireGreyRows(context.Context, time.Time, time.Time) (int64, error) { return 0, nil }
func (forgetful) SaveContacts(context.Context, []store.Contact) error                 { return nil }
func (forgetful) ExpireContacts(context.Context, time.Time, int) error                { return nil }

func (forgetful) Wrote(context.Context, store.AccountID, string) (time.Time, error) {
	return time.Time{}, nil
}

func parse(t *testing.T, text string) address.Address {
	t.Helper()
	if text == "" {
		return address.Address{}
	}
	a, err := address.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// call plays a session up to one recipient, and gives the answer to it, "" for none.
func (h *house) call(t *testing.T, client, helo, from, to string) (string, *guard.Visitor) {
	t.Helper()
	v := &guard.Visitor{
		Listener: guard.MX, Remote: netip.AddrPortFrom(netip.MustParseAddr(client), 4711),
		Local: netip.MustParseAddrPort("198.51.100.1:25"),
	}
	h.Ask(t.Context(), guard.Connect, v)
	v.HELO = helo
	h.Ask(t.Context(), guard.Helo, v)
	v.From = parse(t, from)
	if d := h.Ask(t.Context(), guard.Mail, v); d.Reply != nil {
		t.Fatalf("refused at MAIL: %v", d.Reply)
	}
	answer := h.rcpt(t, v, to)
	return answer, v
}

func (h *house) rcpt(t *testing.T, v *guard.Visitor, to string) string {
	t.Helper()
	v.To = parse(t, to)
	if d := h.Ask(t.Context(), guard.Rcpt, v); d.Reply != nil {
		if d.Reason == "" {
			t.Errorf("%v without a reason", d.Reply)
		}
		return d.Reply.Error()
	}
	return ""
}

func TestStrangersAreJudged(t *testing.T) {
	t.Parallel()
	const good, li = "a@good.test", "li@example.test"
	for _, row := range []struct {
		name                   string
		client, helo, from, to string
		answer                 string // it begins so and holds what follows "…"; "" for none
		score                  int
		change                 func(*stranger.Settings)
	}{
		{name: "an honest client", client: "192.0.2.1", helo: "mx.good.test", from: good, to: li},
		{name: "a client without a name", client: "192.0.2.3", helo: "mx.good.test", from: good, to: li, answer: "451 4.7.1 greylisted, try again in 5 minutes", score: 3},
		{name: "a name that doesn't lead back", client: "192.0.2.2", helo: "mx.good.test", from: good, to: li, answer: "554 5.7.1 …listed by bl.test (see https://bl.test/192.0.2.2)", score: 12},
		{name: "the same to postmaster", client: "192.0.2.2", helo: "mx.good.test", from: good, to: "PostMaster@example.test"},
		{name: "listed and allowed", client: "192.0.2.9", helo: "mx.good.test", from: good, to: li, score: 13},
		{name: "HELO is this server", client: "192.0.2.1", helo: "MX.example.test", from: good, to: li, answer: "550 5.7.1 HELO is mx.example.test", score: 5},
		{name: "HELO is a domain of this server", client: "192.0.2.1", helo: "example.test", from: good, to: li, answer: "550 5.7.1 HELO is example.test", score: 5},
		{name: "HELO is a domain of this server and true", client: "192.0.2.80", helo: "example.test", from: good, to: li, answer: "451 ", score: 3},
		{name: "HELO is this server's address", client: "192.0.2.1", helo: "[198.51.100.1]", from: good, to: li, answer: "550 5.7.1 HELO is this server's address", score: 5},
		{name: "lies only weigh", client: "192.0.2.1", helo: "mx.example.test", from: good, to: li, answer: "451 ", score: 5, change: func(s *stranger.Settings) { s.Hello = stranger.Weigh }},
		{name: "HELO is not looked at", client: "192.0.2.1", helo: "mx.example.test", from: good, to: li, change: func(s *stranger.Settings) { s.Hello = stranger.Off }},
		{name: "HELO is the client's address", client: "192.0.2.1", helo: "[192.0.2.1]", from: good, to: li, score: 1},
		{name: "HELO is another's address", client: "192.0.2.1", helo: "192.0.2.5", from: good, to: li, answer: "451 ", score: 3},
		{name: "HELO does not exist", client: "192.0.2.1", helo: "nowhere.good.test", from: good, to: li, score: 1},
		{name: "HELO has no domain", client: "192.0.2.1", helo: "laptop", from: good, to: li, score: 2},
		{name: "HELO is no name", client: "192.0.2.1", helo: "a b?", from: good, to: li, answer: "451 ", score: 3},
		{name: "a sender with an address and no MX", client: "192.0.2.1", helo: "mx.good.test", from: "a@addressed.test", to: li},
		{name: "a sender without MX and address", client: "192.0.2.1", helo: "mx.good.test", from: "a@empty.test", to: li, answer: "550 5.1.8 the sender's domain empty.test"},
		{name: "a sender that does not exist", client: "192.0.2.1", helo: "mx.good.test", from: "a@nowhere.test", to: li, answer: "550 5.1.8 "},
		{name: "a sender that takes no mail", client: "192.0.2.1", helo: "mx.good.test", from: "a@nullmx.test", to: li, answer: "550 5.7.27 "},
		{name: "senders are not looked at", client: "192.0.2.1", helo: "mx.good.test", from: "a@nullmx.test", to: li, change: func(s *stranger.Settings) { s.Sender = stranger.Off }},
		{name: "a bounce", client: "192.0.2.1", helo: "mx.good.test", to: li},
		{name: "loopback", client: "127.0.0.1", helo: "mx.example.test", from: "a@nullmx.test", to: li},
		{name: "a private address", client: "10.1.2.3", helo: "mx.example.test", from: "a@nullmx.test", to: li},
		{name: "everybody is greylisted", client: "192.0.2.1", helo: "mx.good.test", from: good, to: li, answer: "451 ", change: func(s *stranger.Settings) { s.Greylist = stranger.All }},
		{name: "nobody is greylisted", client: "192.0.2.3", helo: "mx.good.test", from: good, to: li, score: 3, change: func(s *stranger.Settings) { s.Greylist = stranger.Off }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t, "bl.test", "wl.test allow")
			if row.change != nil {
				h.change(row.change)
			}
			got, v := h.call(t, row.client, row.helo, row.from, row.to)
			begin, holds, _ := strings.Cut(row.answer, "…")
			if !strings.HasPrefix(got, begin) || !strings.Contains(got, holds) || (got == "") != (row.answer == "") {
				t.Errorf("answer %q, want %q", got, row.answer)
			}
			if v.Score() != row.score {
				t.Errorf("score %d, want %d: %+v", v.Score(), row.score, v.Findings)
			}
		})
	}
}

func TestListsOfDomainsCount(t *testing.T) {
	t.Parallel()
	h := build(t, "dom.test of=sender,ptr,helo weight=4")
	got, v := h.call(t, "192.0.2.1", "mx.good.test", "a@good.test", "li@example.test")
	if !strings.HasPrefix(got, "451 ") || v.Score() != 4 {
		t.Errorf("%q, %+v", got, v.Findings)
	}
	// The next message of the session has another sender: what was held against the first is not held against it.
	v.From = parse(t, "b@addressed.test")
	h.Ask(t.Context(), guard.Mail, v)
	if got := h.rcpt(t, v, "li@example.test"); got != "" || v.Score() != 0 {
		t.Errorf("%q, %+v", got, v.Findings)
	}
}

func TestADeadDNSRefusesNobody(t *testing.T) {
	t.Parallel()
	h := build(t, "bl.test timeout=200ms")
	h.dns.Fail("*", dnstest.Fault{Rcode: "SERVFAIL"})
	got, v := h.call(t, "192.0.2.2", "mx.example.test", "a@unknown.test", "li@example.test")
	if !strings.HasPrefix(got, "450 4.1.8 ") || v.Score() != 0 {
		t.Errorf("%q, %+v", got, v.Findings)
	}
	h.change(func(s *stranger.Settings) { s.Sender = stranger.Definite })
	if got, v := h.call(t, "192.0.2.2", "mx.example.test", "a@unknown.test", "li@example.test"); got != "" || v.Score() != 0 {
		t.Errorf("%q, %+v", got, v.Findings)
	}
	h.dns.Heal()
	// The same session may go on: its next message is looked up anew.
	h.change(func(s *stranger.Settings) { s.Sender = stranger.On })
	h.dns.Fail("good.test", dnstest.Fault{Rcode: "SERVFAIL", Times: 1})
	got, v = h.call(t, "192.0.2.1", "mx.good.test", "a@good.test", "li@example.test")
	for range 3 { // the look-up that was begun at MAIL may have met the fault
		h.Ask(t.Context(), guard.Mail, v)
		got = h.rcpt(t, v, "li@example.test")
	}
	if got != "" {
		t.Errorf("%q", got)
	}
}

func TestGreylistedStrangerPassesLaterAndContactsAtOnce(t *testing.T) {
	t.Parallel()
	h := build(t)
	call := func(from string) string {
		got, v := h.call(t, "192.0.2.3", "mx.good.test", from, "li@example.test")
		h.Ask(t.Context(), guard.End, v)
		return got
	}
	if got := call("a@good.test"); !strings.HasPrefix(got, "451 4.7.1 greylisted") {
		t.Fatalf("%q", got)
	}
	// A user writes to one, who then isn't delayed.
	user := &guard.Visitor{Listener: guard.Submission, Account: store.AccountID(1), To: parse(t, "Friend@good.test"), Exempt: true}
	h.Ask(t.Context(), guard.Recipient, user)
	if got := call("friend@good.test"); got != "" {
		t.Errorf("a contact: %q", got)
	}
	h.step(5 * time.Minute)
	if got := call("a@good.test"); got != "" {
		t.Errorf("the second time: %q", got)
	}
	if got := call("b@addressed.test"); got != "" {
		t.Errorf("from a network that is known: %q", got)
	}
}

func TestWhoProbesForAddressesLearnsNothing(t *testing.T) {
	t.Parallel()
	h := build(t)
	unknown := smtp.Errorf(550, "5.1.1", "no such mailbox here")
	ask := func(client, to string, outcome error) guard.Verdict {
		t.Helper()
		v := &guard.Visitor{Listener: guard.MX, Remote: netip.AddrPortFrom(netip.MustParseAddr(client), 1), From: parse(t, "a@good.test"), To: parse(t, to), HELO: "mx.good.test"}
		d := h.Ask(t.Context(), guard.Rcpt, v)
		if d.Reply == nil {
			v.Outcome = outcome
			h.Ask(t.Context(), guard.Recipient, v)
		}
		h.Ask(t.Context(), guard.End, v)
		return d
	}
	var slow time.Duration
	for i := range 20 {
		d := ask("192.0.2.1", "x"+strings.Repeat("y", i)+"@example.test", unknown)
		if d.Reply != nil {
			t.Fatalf("refused after %d: %v", i, d.Reply)
		}
		if d.Delay < slow {
			t.Errorf("the answers get faster: %v after %v", d.Delay, slow)
		}
		slow = d.Delay
	}
	if slow < 2*time.Second {
		t.Errorf("the last answer waits %v", slow)
	}
	blocked := func(client, to string, want bool) {
		t.Helper()
		d := ask(client, to, nil)
		if got := d.Reply != nil && strings.HasPrefix(d.Reply.Error(), "450 4.7.1 too many unknown"); got != want {
			t.Errorf("%s to %s: %v", client, to, d.Reply)
		}
	}
	blocked("192.0.2.1", "li@example.test", true) // one that exists
	blocked("192.0.2.1", "none@example.test", true)
	blocked("192.0.2.1", "postmaster@example.test", false)
	blocked("192.0.2.1", "abuse@example.test", false)
	h.step(2 * time.Hour)
	blocked("192.0.2.1", "li@example.test", false)
	// Many addresses of one network count together, each with a few.
	for i := range 130 {
		ask(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}).String(), "none@example.test", unknown)
	}
	d := ask("203.0.113.200", "li@example.test", nil)
	if d.Reply == nil {
		t.Error("a network that probes from many addresses is let in")
	}
}

func TestMessagesThatAreTakenMakeUpForDeadAddresses(t *testing.T) {
	t.Parallel()
	h := build(t)
	v := &guard.Visitor{Listener: guard.MX, Remote: netip.MustParseAddrPort("192.0.2.1:1"), From: parse(t, "list@good.test"), HELO: "mx.good.test"}
	for range 100 {
		v.To, v.Outcome = parse(t, "gone@example.test"), nil
		if d := h.Ask(t.Context(), guard.Rcpt, v); d.Reply != nil || d.Delay > 0 {
			t.Fatalf("%+v", d)
		}
		v.Outcome = smtp.Errorf(550, "5.1.1", "no such mailbox here")
		h.Ask(t.Context(), guard.Recipient, v)
		v.Outcome = nil
		h.Ask(t.Context(), guard.Message, v)
	}
}

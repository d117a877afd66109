package dnslist_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waxwing/internal/dns"
	"waxwing/internal/dns/dnstest"
	"waxwing/internal/guard/dnslist"
)

const zone = `
	bl.test.                       300 IN SOA ns.bl.test. root.bl.test. 1 2 3 4 60
	2.0.0.127.bl.test.             300 IN A   127.0.0.2
	7.2.0.192.bl.test.             300 IN A   127.0.0.4
	7.2.0.192.bl.test.             300 IN A   127.0.0.10
	7.2.0.192.bl.test.             300 IN TXT "spam\009source, see https://bl.test/ \195\164"
	1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test. 300 IN A 127.0.0.4
	wl.test.                       300 IN SOA ns.wl.test. root.wl.test. 1 2 3 4 60
	2.0.0.127.wl.test.             300 IN A   127.0.0.2
	7.2.0.192.wl.test.             300 IN A   127.0.0.2
	dom.test.                      300 IN SOA ns.dom.test. root.dom.test. 1 2 3 4 60
	test.dom.test.                 300 IN A   127.0.1.2
	bad.example.dom.test.          300 IN A   127.0.1.2
	*.all.test.                    300 IN A   127.0.0.2
	*.parked.test.                 300 IN A   192.0.2.80
	*.refuses.test.                300 IN A   127.255.255.254
`

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func checker(t *testing.T, lists ...string) (*dnslist.Checker, *dnstest.Server, *clock) {
	t.Helper()
	s := dnstest.New(t, zone)
	cl := &clock{now: time.Now()}
	r, err := dns.New(dns.Options{Servers: []string{s.Addr()}, Timeout: 500 * time.Millisecond, Rounds: 1, Clock: cl.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	c := dnslist.New(dnslist.Options{Resolver: r, Clock: cl.Now})
	t.Cleanup(c.Close)
	all, err := dnslist.ParseAll(lists)
	if err != nil {
		t.Fatal(err)
	}
	c.Configure(all)
	c.ProveDue(t.Context())
	return c, s, cl
}

var listed = netip.MustParseAddr("192.0.2.7")

func TestWeightsOfAnswersAddUp(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		list   string
		weight int
	}{
		{"bl.test", dnslist.DefaultWeight},
		{"bl.test weight=3", 3},
		{"bl.test 127.0.0.4=5", 5},
		{"bl.test 127.0.0.4=5 127.0.0.10-11=2", 7},
		{"bl.test 127.0.0.2-20=4", 4},
		{"bl.test mask:2=6", 6},
		{"bl.test mask:1=6", 0},
		{"bl.test 127.0.0.9=5", 0},
	} {
		c, _, _ := checker(t, row.list)
		got := 0
		for _, l := range c.Address(t.Context(), listed) {
			got += l.Weight
		}
		if got != row.weight {
			t.Errorf("%s: weight %d, want %d", row.list, got, row.weight)
		}
		if other := c.Address(t.Context(), netip.MustParseAddr("192.0.2.8")); len(other) > 0 {
			t.Errorf("%s lists another address: %+v", row.list, other)
		}
	}
}

func TestSeveralListsAreAskedAndExplained(t *testing.T) {
	t.Parallel()
	c, s, _ := checker(t, "bl.test weight=4", "wl.test allow", "dom.test of=helo,sender weight=2")
	got := c.Address(t.Context(), listed)
	if len(got) != 2 || got[0].List != "bl.test" || got[0].Allow || !got[1].Allow {
		t.Fatalf("listings %+v", got)
	}
	if text := c.Explain(t.Context(), got[0]); text != "spam source, see https://bl.test/" {
		t.Errorf("text %q", text)
	}
	if got := c.Address(t.Context(), netip.MustParseAddr("2001:db8::1")); len(got) != 1 {
		t.Errorf("IPv6: %+v", got)
	}
	before := len(s.Queries())
	if c.Address(t.Context(), listed); len(s.Queries()) != before {
		t.Error("an answer within its TTL was asked for again")
	}
	if got := c.Domain(t.Context(), dnslist.Sender, "bad.example"); len(got) != 1 || got[0].Weight != 2 {
		t.Errorf("domain: %+v", got)
	}
	if got := c.Domain(t.Context(), dnslist.Reverse, "bad.example"); len(got) != 0 {
		t.Errorf("a list that is not asked about names of addresses was: %+v", got)
	}
}

func TestBrokenListsAreSwitchedOff(t *testing.T) {
	t.Parallel()
	c, s, cl := checker(t, "all.test", "parked.test", "refuses.test", "nothing.test", "bl.test")
	if got := c.Address(t.Context(), listed); len(got) != 1 || got[0].List != "bl.test" {
		t.Errorf("listings %+v", got)
	}
	for i, want := range []string{"everything", "outside", "refuses", "test entry", ""} {
		if off := c.Status()[i].Off; want == "" && off != "" || !strings.Contains(off, want) {
			t.Errorf("list %d is off because %q, want %q", i, off, want)
		}
	}
	before := s.Count("7.2.0.192.all.test", "A")
	if c.Address(t.Context(), listed); s.Count("7.2.0.192.all.test", "A") != before {
		t.Error("a list that is off was asked")
	}
	// It is mended, and comes back by itself.
	s.Remove("*.all.test")
	if err := s.Add("2.0.0.127.all.test. 300 IN A 127.0.0.2\n7.2.0.192.all.test. 300 IN A 127.0.0.2"); err != nil {
		t.Fatal(err)
	}
	cl.step(6 * time.Minute) // past the TTL of what it said
	c.ProveDue(t.Context())
	if got := c.Address(t.Context(), listed); len(got) != 2 {
		t.Errorf("after its return: %+v, %+v", got, c.Status())
	}
}

func TestListThatDiesCostsNoMailAndComesBack(t *testing.T) {
	t.Parallel()
	c, s, cl := checker(t, "bl.test timeout=200ms")
	s.Fail("*", dnstest.Fault{Rcode: "SERVFAIL"})
	for i := range 5 {
		if got := c.Address(t.Context(), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})); len(got) != 0 {
			t.Fatalf("listings of a dead list: %+v", got)
		}
	}
	if off := c.Status()[0].Off; !strings.Contains(off, "answer") {
		t.Fatalf("off because %q", off)
	}
	s.Heal()
	cl.step(2 * time.Minute)
	c.ProveDue(t.Context())
	if got := c.Address(t.Context(), listed); len(got) != 1 {
		t.Errorf("after its return: %+v", got)
	}
	// A list that began to refuse is off at its first such answer.
	if err := s.Set("9.2.0.192.bl.test. 300 IN A 127.255.255.254"); err != nil {
		t.Fatal(err)
	}
	if got := c.Address(t.Context(), netip.MustParseAddr("192.0.2.9")); len(got) != 0 || !strings.Contains(c.Status()[0].Off, "refuses") {
		t.Errorf("%+v, %+v", got, c.Status())
	}
}

func TestRunProvesNewLists(t *testing.T) {
	t.Parallel()
	c, _, _ := checker(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	l, err := dnslist.Parse("bl.test timeout=10s")
	if err != nil {
		t.Fatal(err)
	}
	c.Configure([]dnslist.List{l})
	if got := c.Address(t.Context(), listed); len(got) != 1 { // waits for the proof
		t.Errorf("listings %+v, %+v", got, c.Status())
	}
	cancel()
	<-done
}

func TestTryTellsAboutOneList(t *testing.T) {
	t.Parallel()
	c, _, _ := checker(t)
	bl, _ := dnslist.Parse("bl.test")
	got := c.Try(t.Context(), bl, listed, "")
	if got.Fault != "" || got.Listing == nil || got.Listing.Answer != "127.0.0.4,127.0.0.10" || !strings.HasPrefix(got.Text, "spam source") {
		t.Errorf("%+v", got)
	}
	all, _ := dnslist.Parse("all.test")
	if got := c.Try(t.Context(), all, listed, ""); !strings.Contains(got.Fault, "everything") {
		t.Errorf("%+v", got)
	}
}

func TestParseRefusesWhatIsNoList(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "zone", "[192.0.2.1]", "bl.test weight=-1", "bl.test weight=1000", "bl.test of=everything", "bl.test of=address,helo",
		"bl.test timeout=1h", "bl.test 127.0.0.2", "bl.test 192.0.2.1=4", "bl.test 127.255.255.1=4", "bl.test 127.0.0.9-2=1",
		"bl.test mask:0=1", "bl.test name=a/b", "bl.test allow=yes", strings.Repeat("a.", 100) + "test",
	} {
		if l, err := dnslist.Parse(text); err == nil {
			t.Errorf("%q was taken: %v", text, l)
		}
	}
	if _, err := dnslist.ParseAll([]string{"bl.test", "bl.test weight=2"}); err == nil {
		t.Error("a list stands there twice")
	}
}

func TestTextOfAListIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		words := []string{rapid.StringMatching(`[a-z]{1,10}\.test`).Draw(t, "zone")}
		for _, w := range []string{"allow", "of=helo,ptr", "weight=7", "127.0.0.10-127.0.0.11=3", "mask:6=2", "timeout=1.5s", "name=mine", "probe=known.example"} {
			if rapid.Bool().Draw(t, w) {
				words = append(words, w)
			}
		}
		text := strings.Join(words, " ")
		l, err := dnslist.Parse(text)
		if err != nil || l.String() != text {
			t.Fatalf("%q became %q, %v", text, l.String(), err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("zen.example.org of=helo weight=4 127.0.0.2=8 mask:4=3 timeout=2s")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := dnslist.Parse(text)
		if err != nil {
			return
		}
		again, err := dnslist.Parse(l.String())
		if err != nil || again.String() != l.String() {
			t.Errorf("%q became %q and then %q, %v", text, l.String(), again.String(), err)
		}
	})
}

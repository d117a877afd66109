package guard

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/smtp"
)

// settled are settings that a test sets.
type settled struct {
	mu  sync.Mutex
	set directory.Settings
}

func standard() *settled { return &settled{set: directory.DefaultSettings()} }

func (s *settled) Settings() directory.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

func (s *settled) change(fn func(*directory.Settings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.set)
}

func (s *settled) limit(l directory.Limit, n int64) {
	s.change(func(set *directory.Settings) { set.Guard.Limits[l] = n })
}

func door(s Settings, clock func() time.Time) *Guard {
	return New(Options{}, NewAccess(s, nil).Check(), NewLimits(s, clock).Check(), NewManners(s).Check())
}

func visitor(addr string) *Visitor {
	return &Visitor{Listener: MX, Remote: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)}
}

func mailbox(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEachLimitRefusesWithItsReason(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		limit  directory.Limit
		stages []Stage // asked again and again
		want   string
	}{
		{directory.OpenPerNetwork, []Stage{Connect}, "421 4.7.0 too many connections from your network (at most 3 at one time), try again later"},
		{directory.ConnectionsPerAddress, []Stage{Connect, End}, "421 4.7.0 too many connections from your address (at most 3 a minute), try again later"},
		{directory.ConnectionsPerNetwork, []Stage{Connect, End}, "421 4.7.0 too many connections from your network (at most 3 a minute), try again later"},
		{directory.CommandsPerAddress, []Stage{Command}, "421 4.7.0 too many commands from your address (at most 3 a minute), try again later"},
		{directory.ErrorsPerAddress, []Stage{Bad, Connect}, "421 4.7.0 too many errors from your address (at most 3 a minute), try again later"},
		{directory.ErrorsPerNetwork, []Stage{NotSigned, Connect}, "421 4.7.0 too many errors from your network (at most 3 a minute), try again later"},
		{directory.MessagesPerAddress, []Stage{Mail}, "450 4.7.1 too many messages from your address (at most 3 an hour), try again later"},
		{directory.MessagesPerNetwork, []Stage{Mail}, "450 4.7.1 too many messages from your network (at most 3 an hour), try again later"},
		{directory.MessagesPerSender, []Stage{Mail}, "450 4.7.1 too many messages from <a@b.test> (at most 3 an hour), try again later"},
		{directory.MessagesPerRecipient, []Stage{Rcpt}, "450 4.2.1 too many messages to <li@our.test> (at most 3 an hour), try again later"},
		{directory.RecipientsPerAddress, []Stage{Rcpt}, "450 4.7.1 too many recipients from your address (at most 3 an hour), try again later"},
		{directory.RecipientsPerNetwork, []Stage{Rcpt}, "450 4.7.1 too many recipients from your network (at most 3 an hour), try again later"},
		{directory.RecipientsPerSender, []Stage{Rcpt}, "450 4.7.1 too many recipients from <a@b.test> (at most 3 an hour), try again later"},
		{directory.OctetsPerAddress, []Stage{Message, Data}, "451 4.7.1 too many octets from your address (at most 3 an hour), try again later"},
		{directory.OctetsPerNetwork, []Stage{Message, Data}, "451 4.7.1 too many octets from your network (at most 3 an hour), try again later"},
	} {
		t.Run(tc.limit.Name(), func(t *testing.T) {
			t.Parallel()
			set, clock := standard(), &hand{}
			set.limit(tc.limit, 3)
			g := door(set, clock.now)
			var refusal *smtp.Reply
			rounds := 0
			for ; refusal == nil && rounds < 10; rounds++ {
				v := visitor("192.0.2.1")
				v.From, v.To, v.Octets = mailbox(t, "a@b.test"), mailbox(t, "li@our.test"), 1
				for _, stage := range tc.stages {
					if d := g.Ask(t.Context(), stage, v); d.Reply != nil {
						refusal = d.Reply
					}
				}
			}
			if refusal == nil || refusal.Error() != tc.want {
				t.Fatalf("refused with %v, want %s", refusal, tc.want)
			}
			if rounds < 3 || rounds > 4 {
				t.Errorf("refused in round %d", rounds)
			}
			// Others are not concerned, and the exempt and trusted are not asked.
			for _, free := range []func(*Visitor){
				func(v *Visitor) {
					v.Remote = netip.MustParseAddrPort("203.0.113.1:1")
					v.To = mailbox(t, "other@our.test")
					v.From.Local = "x"
				},
				func(v *Visitor) { v.Exempt = true },
				func(v *Visitor) { v.Trusted = true },
			} {
				v := visitor("192.0.2.1")
				v.From, v.To = mailbox(t, "a@b.test"), mailbox(t, "li@our.test")
				free(v)
				stage := tc.stages[len(tc.stages)-1]
				if stage == End || stage == Connect {
					stage = Connect
					if v.Exempt || v.Trusted {
						continue // these are found out at Connect itself
					}
				}
				if d := g.Ask(t.Context(), stage, v); d.Reply != nil {
					t.Errorf("also refused: %+v: %v", v, d.Reply)
				}
			}
		})
	}
}

func TestUsersAreNotCountedByTheirAddress(t *testing.T) {
	t.Parallel()
	set, clock := standard(), &hand{}
	for _, l := range []directory.Limit{directory.MessagesPerAddress, directory.RecipientsPerNetwork, directory.MessagesPerRecipient, directory.OctetsPerAddress} {
		set.limit(l, 1)
	}
	g := door(set, clock.now)
	for range 5 {
		v := visitor("192.0.2.1")
		v.Listener, v.Account, v.Octets = Submission, 7, 100
		for _, stage := range []Stage{Mail, Rcpt, Data, Message} {
			if d := g.Ask(t.Context(), stage, v); d.Reply != nil {
				t.Fatalf("a user is refused at %s: %v", stage, d.Reply)
			}
		}
	}
}

func TestExemptNetworksAreASetting(t *testing.T) {
	t.Parallel()
	set, clock := standard(), &hand{}
	set.limit(directory.ConnectionsPerAddress, 1)
	g := door(set, clock.now)
	refused := func() bool { return g.Ask(t.Context(), Connect, visitor("198.51.100.3")).Reply != nil }
	if refused() || !refused() {
		t.Fatal("the limit does not hold")
	}
	set.change(func(s *directory.Settings) { s.Guard.Exempt = "198.51.100.0/24 2001:db8::/32" })
	if refused() {
		t.Error("an exempt network is refused")
	}
	set.change(func(s *directory.Settings) { s.Guard.Exempt = "" })
	if !refused() {
		t.Error("a network that is no longer exempt is not refused")
	}
}

func TestWhoHasBroughtMailIsNotDelayed(t *testing.T) {
	t.Parallel()
	set, clock := standard(), &hand{}
	g := door(set, clock.now)
	delay := func() time.Duration { return g.Ask(t.Context(), Connect, visitor("192.0.2.1")).Delay }
	if delay() == 0 {
		t.Fatal("a stranger is not delayed")
	}
	v := visitor("192.0.2.1")
	v.Outcome = smtp.Errorf(550, "5.7.1", "no")
	g.Ask(t.Context(), Message, v)
	if delay() == 0 {
		t.Error("a refused message makes a friend")
	}
	v.Outcome = nil
	g.Ask(t.Context(), Message, v)
	if delay() != 0 {
		t.Error("who has brought mail is delayed")
	}
	g.Ask(t.Context(), Early, v)
	if delay() == 0 {
		t.Error("who talked too early is still a friend")
	}
}

func TestTheTarpitGrowsWithErrors(t *testing.T) {
	t.Parallel()
	set, clock := standard(), &hand{}
	g := door(set, clock.now)
	var got []string
	for _, errors := range []int{1, 5, 6, 7, 100} {
		v := visitor("192.0.2.1")
		v.Errors = errors
		got = append(got, g.Ask(t.Context(), Bad, v).Delay.String())
	}
	if want := "0s 0s 500ms 1s 10s"; strings.Join(got, " ") != want {
		t.Errorf("delays %v, want %s", got, want)
	}
}

func TestPipeliningTooEarlyIsRefused(t *testing.T) {
	t.Parallel()
	set, clock := standard(), &hand{}
	g := door(set, clock.now)
	v := visitor("192.0.2.1")
	v.Pipelined = true
	if d := g.Ask(t.Context(), Helo, v); d.Reply == nil || d.Reply.Code != 421 {
		t.Errorf("%+v", d)
	}
	set.change(func(s *directory.Settings) { s.Guard.Pipelining = directory.AllowIt })
	if d := g.Ask(t.Context(), Helo, v); d.Reply != nil {
		t.Errorf("%+v", d)
	}
}

func TestTheGuardUnderARace(t *testing.T) {
	t.Parallel()
	set := standard()
	g := door(set, time.Now)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				v := visitor(fmt.Sprintf("192.0.2.%d", j%7))
				v.From, v.To = address.Address{Local: "a", Domain: "b.test"}, address.Address{Local: "li", Domain: "our.test"}
				for stage := Connect; stage < stages; stage++ {
					g.Ask(t.Context(), stage, v)
				}
				if j%50 == i {
					set.change(func(s *directory.Settings) {
						s.Rules = &directory.Rules{Access: []directory.AccessRule{{Subject: "192.0.2.3", Action: directory.Deny}}}
					})
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAMessageThroughTheGuard(b *testing.B) {
	set := standard()
	for _, l := range directory.Limits() {
		set.limit(l, 1<<50)
	}
	g := door(set, time.Now)
	v := visitor("192.0.2.1")
	v.From, v.To = address.Address{Local: "a", Domain: "b.test"}, address.Address{Local: "li", Domain: "our.test"}
	b.ReportAllocs()
	for b.Loop() {
		for _, stage := range []Stage{Command, Mail, Command, Rcpt, Recipient, Command, Data, Message} {
			g.Ask(b.Context(), stage, v)
		}
	}
}

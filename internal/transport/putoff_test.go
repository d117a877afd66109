package transport

import (
	"strings"
	"testing"

	"waxwing/internal/dns"
)

// TestPutOffRecipientIsOfferedToTheNextServer holds what a refusal for now at one of several servers leads to.
func TestPutOffRecipientIsOfferedToTheNextServer(t *testing.T) {
	t.Parallel()
	later := func(s *server) { s.answers["RCPT TO:<x"] = "450 4.2.0 later" }
	nobody := func(s *server) { s.answers["RCPT"], s.answers["DATA"] = "450 4.2.0 later", "554 5.5.1 no recipients" }
	never := func(s *server) { s.answers["RCPT"], s.answers["DATA"] = "550 5.1.1 no", "554 5.5.1 no recipients" }
	closed := func(s *server) { s.greet = "close" }
	for _, tc := range []struct {
		name    string
		servers [3]func(*server)
		want    string // of x and y
		taken   [3]int // messages
	}{
		{
			"the others are taken",
			[3]func(*server){later, nil, nil},
			"delivered 250 2.0.0 end of data; delivered 250 2.0.0 end of data",
			[3]int{1, 1, 0},
		},
		{
			"by two of three",
			[3]func(*server){later, nobody, nil},
			"deferred 450 4.2.0 RCPT; delivered 250 2.0.0 end of data",
			[3]int{1, 0, 0},
		},
		{
			"the others can't be reached",
			[3]func(*server){later, closed, closed},
			"deferred 450 4.2.0 RCPT; delivered 250 2.0.0 end of data",
			[3]int{1, 0, 0},
		},
		{
			"the next refuses for good",
			[3]func(*server){later, never, nil},
			"failed 550 5.1.1 RCPT; delivered 250 2.0.0 end of data",
			[3]int{1, 0, 0},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			names := []string{"1.test", "2.test", "3.test"}
			servers := map[string]*server{}
			for i, name := range names {
				servers[name] = newServer(t, tc.servers[i])
			}
			tr := rig(t, servers, func(o *Options) {
				o.Resolver = fakeDNS{mx: map[string]dns.MX{"b.test": mx(names...)}}
			})
			if got := brief(deliver(t, tr, "b.test", mail("x@b.test", "y@b.test"))); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			for i, name := range names {
				if _, bodies := servers[name].seen(); len(bodies) != tc.taken[i] {
					t.Errorf("%s got %d messages, want %d", name, len(bodies), tc.taken[i])
				}
			}
		})
	}
}

// TestPutOffOnAnOpenConnectionIsNotAskedAgain goes on with the server behind the one that has answered.
func TestPutOffOnAnOpenConnectionIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	first := newServer(t, func(s *server) { s.answers["RCPT TO:<x"] = "450 4.2.0 later" })
	second := newServer(t, nil)
	l := rig(t, map[string]*server{"1.test": first, "2.test": second}, func(o *Options) {
		o.Resolver = fakeDNS{mx: map[string]dns.MX{"b.test": mx("1.test", "2.test")}}
	}).Link("b.test")
	defer l.Close()
	if got := brief(l.Deliver(t.Context(), mail("y@b.test"))); got != "delivered 250 2.0.0 end of data" {
		t.Error(got)
	}
	want := "delivered 250 2.0.0 end of data; delivered 250 2.0.0 end of data"
	if got := brief(l.Deliver(t.Context(), mail("x@b.test", "y@b.test"))); got != want {
		t.Error(got)
	}
	lines, _ := first.seen()
	if n := strings.Count(strings.Join(lines, "\n"), "RCPT TO:<x@"); n != 1 || first.connections() != 1 {
		t.Errorf("the first server was asked %d times over %d connections", n, first.connections())
	}
}

// TestPutOffByTheOnlyServerKeepsTheConnection saves greylisting sites from a connection a message.
func TestPutOffByTheOnlyServerKeepsTheConnection(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) {
		s.answers["RCPT"], s.answers["DATA"] = "450 4.2.0 later", "554 5.5.1 no valid recipients"
	})
	l := rig(t, map[string]*server{"b.test": s}, nil).Link("b.test")
	defer l.Close()
	for range 2 {
		if got := brief(l.Deliver(t.Context(), mail("x@b.test"))); got != "deferred 450 4.2.0 RCPT" {
			t.Error(got)
		}
	}
	lines, _ := s.seen()
	rcpts := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "RCPT") {
			rcpts++
		}
	}
	if s.connections() != 1 || rcpts != 2 {
		t.Errorf("%d connections and %d RCPT for two messages", s.connections(), rcpts)
	}
}

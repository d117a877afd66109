package routing_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/mailrule"
	"waxwing/internal/routing"
)

// next is the next server of relay domains.
type next struct {
	mu    sync.Mutex
	asked []string
	down  bool
}

func (n *next) Ask(_ context.Context, destination string, to address.Address) (routing.Verdict, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, destination+" "+to.String())
	switch {
	case n.down:
		return routing.Unasked, "no connection"
	case strings.HasPrefix(to.Local, "known"):
		return routing.Taken, "250 2.1.5 yes"
	}
	return routing.Unknown, "550 5.1.1 no\r\n such user"
}

func (r *rig) route1(rt mailrule.Route) {
	r.Helper()
	r.ok(r.dir.SaveRoute(r.Context(), rt, false))
}

func (r *rig) relay(rl mailrule.Relay) {
	r.Helper()
	r.ok(r.dir.SaveRelay(r.Context(), rl, false))
}

func TestRoutesByRule(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.alias("away@example.test", directory.Group{}, "x@far.test", "y@bad.test", "anna@example.test")
	r.alias("bad@example.test", directory.Group{}, "y@shut.test")
	r.route1(mailrule.Route{Name: "all", Hosts: []string{"smart.test"}})
	r.route1(mailrule.Route{Name: "office", From: "example.test", Hosts: []string{"office.test"}})
	r.route1(mailrule.Route{Name: "void", To: "bad.test", Action: "discard"})
	r.route1(mailrule.Route{Name: "shut", To: "shut.test", Action: "reject", Text: "not from here"})
	r.route1(mailrule.Route{Name: "noreply", To: "noreply@example.test", Action: "discard"})
	r.route1(mailrule.Route{Name: "split", To: "bo@example.test", Hosts: []string{"other.test"}})
	anna := directory.Sender{Address: r.addr("anna@example.test"), Account: r.ids["anna@example.test"]}
	stranger := directory.Sender{Address: r.addr("s@strange.test")}
	for _, tt := range []struct {
		from           directory.Sender
		to, want, hops string
	}{
		{stranger, "anna@example.test", "ok [anna@example.test]", ""}, // a wide route is none for mail that stays here
		{anna, "anna@example.test", "ok [anna@example.test]", ""},
		{stranger, "u@out.test", "not local u@out.test", "out.test"},
		{anna, "u@out.test", "not local u@out.test", "route:office/out.test"},
		{anna, "u@bad.test", "ok", ""},
		{stranger, "u@bad.test", "not local u@bad.test", "bad.test"}, // whether it may relay comes first
		{anna, "u@shut.test", "5.7.1", ""},
		{stranger, "noreply@example.test", "ok", ""},
		{stranger, "bo@example.test", "ok bo@example.test", "route:split/example.test"},
		{anna, "away@example.test", "ok x@far.test [anna@example.test]", "route:office/far.test "},
		{anna, "bad@example.test", "5.7.1", ""},
	} {
		got := r.route(tt.from, tt.to)
		var hops []string
		for _, target := range got.Targets {
			hops = append(hops, target.Queue)
		}
		if form(got) != tt.want || strings.Join(hops, " ") != tt.hops {
			t.Errorf("%s to %s: %s by %q, want %s by %s", tt.from.Address, tt.to, form(got), hops, tt.want, tt.hops)
		}
	}
	if got := r.to("s@strange.test", "u%far.test@example.test"); form(got) != "no mailbox" {
		t.Errorf("a further hop: %s", form(got))
	}
	r.ok(r.dir.RemoveRule(r.Context(), directory.RouteRule, "split"))
	if got := form(r.route(stranger, "bo@example.test")); got != "ok [bo@example.test]" {
		t.Errorf("without the route: %s", got)
	}
}

func TestRelayDomains(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	n := &next{}
	r.Router = routing.New(routing.Options{Directory: r.dir, Keys: r.keys, Asker: n, Clock: func() time.Time { return r.now }})
	r.relay(mailrule.Relay{Domain: "ask.test"})
	r.relay(mailrule.Relay{Domain: "open.test", AcceptDown: true})
	r.relay(mailrule.Relay{Domain: "list.test", Check: "list", Recipients: []string{"a", "b@list.test"}})
	r.relay(mailrule.Relay{Domain: "any.test", Check: "none"})
	r.relay(mailrule.Relay{Domain: "own.test", Check: "list", Recipients: []string{"else"}})
	r.route1(mailrule.Route{Name: "all", Hosts: []string{"smart.test"}})
	check := func(to, want string) {
		t.Helper()
		got := r.to("s@strange.test", to)
		if form(got) != want {
			t.Errorf("%s: %s, want %s", to, form(got), want)
		}
		if len(got.Targets) > 0 && got.Targets[0].Account == nil && (!got.Passes || got.Targets[0].Sender.Replaced) {
			t.Errorf("%s: %+v", to, got)
		}
	}
	check("known@ask.test", "ok known@ask.test")
	check("KNOWN@ask.test", "ok KNOWN@ask.test")
	check("nobody@ask.test", "5.1.1")
	check("nobody@ask.test", "5.1.1")
	check("A@list.test", "ok A@list.test")
	check("c@list.test", "no mailbox")
	check("c@any.test", "ok c@any.test")
	check("carol@own.test", "ok [carol@own.test]") // who is here goes before who is there
	check("else@own.test", "ok else@own.test")
	check("nobody@own.test", "no mailbox")
	for _, local := range []string{"known%far.test", "far.test!known", `"known@far.test"`} {
		check(local+"@ask.test", "no mailbox")
		check(local+"@any.test", "no mailbox")
	}
	if want := []string{"ask.test known@ask.test", "ask.test nobody@ask.test"}; !slices.Equal(n.asked, want) {
		t.Errorf("asked %q, want %q", n.asked, want)
	}
	n.down = true
	check("known2@ask.test", "4.4.1")
	check("known2@open.test", "ok known2@open.test")
	check("known@ask.test", "ok known@ask.test") // it is remembered
	r.now = r.now.Add(16 * time.Minute)
	check("nobody@ask.test", "4.4.1") // so was this, for a shorter time
	r.now = r.now.Add(6 * time.Hour)
	check("known@ask.test", "4.4.1")
	n.down = false
	r.now = r.now.Add(time.Minute)
	check("known@ask.test", "ok known@ask.test")
	got := r.to("s@strange.test", "nobody@ask.test")
	if strings.ContainsAny(got.Refusal.Text, "\r\n") || !strings.Contains(got.Refusal.Text, "no") {
		t.Errorf("the refusal says %q", got.Refusal.Text)
	}
}

func TestManyAskForOneRecipientOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	n := &next{}
	r.Router = routing.New(routing.Options{Directory: r.dir, Asker: n, Clock: func() time.Time { return noon }})
	r.relay(mailrule.Relay{Domain: "ask.test"})
	n.mu.Lock() // nobody is answered before all have asked, or have found that somebody does
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := r.to("s@strange.test", "known@ask.test"); form(got) != "ok known@ask.test" {
				t.Error(form(got))
			}
		})
	}
	n.mu.Unlock()
	wg.Wait()
	if len(n.asked) != 1 {
		t.Errorf("asked %d times", len(n.asked))
	}
}

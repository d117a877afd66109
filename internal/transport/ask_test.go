package transport

import (
	"errors"
	"slices"
	"sync"
	"testing"
)

func TestAsk(t *testing.T) {
	t.Parallel()
	s := newServer(t, nil)
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	if r := tr.Ask(t.Context(), "b.test", "x@b.test"); r.Status != Delivered || r.Stage != "RCPT" {
		t.Errorf("asked about x: %+v", r)
	}
	lines, bodies := s.seen()
	if want := []string{"EHLO me.test", "MAIL FROM:<>", "RCPT TO:<x@b.test>", "RSET", "QUIT"}; !slices.Equal(lines, want) || len(bodies) != 0 {
		t.Errorf("commands %q, want %q; %d bodies", lines, want, len(bodies))
	}
	if r := tr.Ask(t.Context(), "nowhere.test", "x@nowhere.test"); r.Status == Delivered || r.Stage == "RCPT" {
		t.Errorf("asked nobody: %+v", r)
	}
}

func TestWaysByRule(t *testing.T) {
	t.Parallel()
	first, second := newServer(t, nil), newServer(t, nil)
	s := newServer(t, nil)
	failure := errors.New("the password can't be read")
	var lock sync.Mutex
	way, fails := Onward{}, error(nil)
	tr := rig(t, map[string]*server{"b.test": s, "one.test": first, "two.test": second}, func(o *Options) {
		o.Find = func(destination string) (Onward, error) {
			lock.Lock()
			defer lock.Unlock()
			w := way
			if w.Domain == "" {
				w.Domain = destination
			}
			return w, fails
		}
	})
	set := func(w Onward, err error) {
		lock.Lock()
		defer lock.Unlock()
		way, fails = w, err
	}
	send := func(want string) {
		t.Helper()
		if got := brief(deliver(t, tr, "route:x/b.test", mail("x@b.test"))); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	const done = "delivered 250 2.0.0 end of data"
	hop := func(s *server, name string) *SmartHost {
		return &SmartHost{Host: name, Port: int(s.addr().Port()), TLS: TLSOpportunistic}
	}
	set(Onward{Found: true, Domain: "b.test"}, nil)
	send(done)
	set(Onward{Found: true, Domain: "b.test", Hosts: []*SmartHost{{Host: "127.0.0.1", Port: 1, TLS: TLSOpportunistic}, hop(second, "two.test")}}, nil)
	send(done)
	set(Onward{Domain: "b.test"}, failure)
	send("deferred 0 4.3.5 resolve")
	for name, want := range map[*server]int{first: 0, second: 1, s: 1} {
		if _, bodies := name.seen(); len(bodies) != want {
			t.Errorf("%d messages, want %d", len(bodies), want)
		}
	}
	set(Onward{Found: true, Domain: "b.test", Hosts: []*SmartHost{{Host: "a.test", Port: 1, Username: "u"}}}, nil)
	with := tr.NextHop("b.test")
	set(Onward{Found: true, Domain: "b.test", Hosts: []*SmartHost{{Host: "a.test", Port: 1, Username: "v"}}}, nil)
	if tr.NextHop("b.test") == with {
		t.Error("two who sign in differently share connections")
	}
}

package mailrule_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waxwing/internal/address"
	"waxwing/internal/mailrule"
)

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	if s == "" {
		return address.Address{}
	}
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func route(t testing.TB, name, to, from string) mailrule.Route {
	t.Helper()
	r, err := mailrule.Route{Name: name, To: to, From: from, Hosts: []string{name + ".hop.test"}}.Clean()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheRouteThatSaysMostCounts(t *testing.T) {
	t.Parallel()
	set := mailrule.Compile(nil, []mailrule.Route{
		route(t, "all", "", ""), route(t, "ours", "", "Example.test"), route(t, "boss", "", "boss@example.test"),
		route(t, "far", "far.test", ""), route(t, "sub", ".far.test", ""), route(t, "deep", ".a.far.test", ""), route(t, "one", "X@far.test", ""),
		route(t, "far-ours", "far.test", "example.test"),
	}, nil)
	for _, tt := range []struct{ from, to, want, queue string }{
		{"s@strange.test", "u@out.test", "all", "out.test"},
		{"", "u@out.test", "all", "out.test"},
		{"a@example.test", "u@out.test", "ours", "route:ours/out.test"},
		{"BOSS@example.test", "u@out.test", "boss", "route:boss/out.test"},
		{"a@example.test", "u@far.test", "far-ours", "route:far-ours/far.test"},
		{"s@strange.test", "u@far.test", "far", "far.test"},
		{"s@strange.test", "x@far.test", "one", "route:one/far.test"},
		{"s@strange.test", "u@b.far.test", "sub", "b.far.test"},
		{"s@strange.test", "u@b.a.far.test", "deep", "b.a.far.test"},
		{"a@example.test", "u@b.far.test", "sub", "b.far.test"}, // the recipient goes before the sender
		{"s@strange.test", "u@notfar.test", "all", "notfar.test"},
	} {
		to := addr(t, tt.to)
		r := set.Route(addr(t, tt.from), to)
		if r == nil || r.Name != tt.want {
			t.Errorf("%s to %s: %+v, want %s", tt.from, tt.to, r, tt.want)
			continue
		}
		queue := set.Destination(r, to)
		found, domain := set.Find(queue)
		if queue != tt.queue || found != r || domain != to.Domain {
			t.Errorf("%s to %s waits under %s, which leads to %+v and %s", tt.from, tt.to, queue, found, domain)
		}
	}
	none := mailrule.Compile(nil, nil, nil)
	if r, domain := none.Find("route:gone/far.test"); r != nil || domain != "far.test" {
		t.Errorf("a route that is gone: %+v, %s", r, domain)
	}
	if r := none.Route(addr(t, "a@b.test"), addr(t, "c@d.test")); r != nil || none.Destination(r, addr(t, "c@d.test")) != "d.test" {
		t.Error("without rules")
	}
}

func TestWhatARuleMaySay(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("h", 201)
	for name, r := range map[string]mailrule.Route{
		"name":         {Name: "A b", Hosts: []string{"h.test"}},
		"to":           {Name: "a", To: "x y", Hosts: []string{"h.test"}},
		"from":         {Name: "a", From: "*.test", Hosts: []string{"h.test"}},
		"action":       {Name: "a", Action: "bounce"},
		"hosts":        {Name: "a"},
		"hosts twice":  {Name: "a", Hosts: []string{"h.test", "H.test"}},
		"hosts port":   {Name: "a", Hosts: []string{"h.test:0"}},
		"hosts many":   {Name: "a", Hosts: strings.Split(strings.Repeat("h ", 11), " ")},
		"hosts beside": {Name: "a", Action: "mx", Hosts: []string{"h.test"}},
		"text":         {Name: "a", Action: "reject"},
		"text long":    {Name: "a", Action: "reject", Text: long},
		"text lines":   {Name: "a", Action: "reject", Text: "no\r\n250 yes"},
		"tls":          {Name: "a", Hosts: []string{"h.test"}, TLS: "none"},
		"tls login":    {Name: "a", Hosts: []string{"h.test"}, TLS: "opportunistic", Username: "u", PasswordFile: "/p"},
		"password":     {Name: "a", Hosts: []string{"h.test"}, Username: "u"},
		"path":         {Name: "a", Hosts: []string{"h.test"}, Username: "u", PasswordFile: "p"},
	} {
		var field *mailrule.FieldError
		if _, err := r.Clean(); !errors.As(err, &field) {
			t.Errorf("route, %s: %v", name, err)
		}
	}
	for name, r := range map[string]mailrule.Relay{
		"domain": {Domain: "[192.0.2.1]"}, "check": {Domain: "a.test", Check: "guess"}, "list": {Domain: "a.test", Recipients: []string{"u"}},
		"foreign": {Domain: "a.test", Check: "list", Recipients: []string{"u@b.test"}}, "down": {Domain: "a.test", Check: "none", AcceptDown: true},
		"tls": {Domain: "a.test", TLS: "starttls"},
	} {
		if _, err := r.Clean(); err == nil {
			t.Errorf("relay, %s: is taken", name)
		}
	}
	for name, j := range map[string]mailrule.Journal{
		"of": {Name: "a", Of: "", To: "j@a.test"}, "to": {Name: "a", Of: "*", To: "j"}, "itself": {Name: "a", Of: "J@a.test", To: "j@a.test"},
		"flow": {Name: "a", Of: "*", To: "j@a.test", Flow: "in"}, "form": {Name: "a", Of: "*", To: "j@a.test", Form: "zip"},
	} {
		if _, err := j.Clean(); err == nil {
			t.Errorf("journal, %s: is taken", name)
		}
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]mailrule.Host{
		"mx.a.test": {Name: "mx.a.test"}, "MX.a.test:26": {Name: "mx.a.test", Port: 26}, "192.0.2.1:2525": {Name: "192.0.2.1", Port: 2525},
		"[2001:db8::1]:25": {Name: "2001:db8::1", Port: 25}, "2001:db8::1": {Name: "2001:db8::1"}, "[2001:db8::1]": {Name: "2001:db8::1"},
	} {
		if got, err := mailrule.ParseHost(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":25", "a b", "a.test:x", "a.test:70000", "[::1%eth0]:25", "a..test"} {
		if got, err := mailrule.ParseHost(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestJournalsFit(t *testing.T) {
	t.Parallel()
	var list []mailrule.Journal
	for _, j := range []mailrule.Journal{
		{Name: "all", Of: "*", To: "j@a.test"}, {Name: "in", Of: "a.test", Flow: "received", To: "j@a.test"}, {Name: "out", Of: "u@a.test", Flow: "sent", To: "j@a.test"},
	} {
		clean, err := j.Clean()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, clean)
	}
	set := mailrule.Compile(nil, nil, list)
	for _, tt := range []struct{ from, to, want string }{
		{"u@a.test", "x@b.test", "all out"}, {"x@b.test", "u@a.test", "all in"}, {"u@a.test", "v@a.test", "all in out"}, {"", "x@b.test", "all"},
	} {
		var got []string
		for _, j := range set.Journals(addr(t, tt.from), addr(t, tt.to)) {
			got = append(got, j.Name)
			if j.Address().String() != "j@a.test" {
				t.Errorf("goes to %s", j.Address())
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s to %s: %v, want %s", tt.from, tt.to, got, tt.want)
		}
	}
}

func TestDestinationsLeadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SampledFrom([]string{"*", "a.test", ".test", ".a.test", "b.a.test", "u@a.test", "v@b.a.test"})
		var routes []mailrule.Route
		for i := range rapid.IntRange(0, 6).Draw(t, "n") {
			r, err := mailrule.Route{Name: string(rune('a' + i)), To: pattern.Draw(t, "to"), From: pattern.Draw(t, "from"), Action: "mx"}.Clean()
			if err != nil {
				t.Fatal(err)
			}
			routes = append(routes, r)
		}
		set := mailrule.Compile(nil, routes, nil)
		name := rapid.SampledFrom([]string{"u@a.test", "v@b.a.test", "w@c.b.a.test", "x@other.example"})
		from, err := address.Parse(name.Draw(t, "sender"))
		if err != nil {
			t.Fatal(err)
		}
		to, err := address.Parse(name.Draw(t, "recipient"))
		if err != nil {
			t.Fatal(err)
		}
		r := set.Route(from, to)
		found, domain := set.Find(set.Destination(r, to))
		if found != r || domain != to.Domain {
			t.Fatalf("%s to %s takes %+v, and waits where %+v is taken for %s", from, to, r, found, domain)
		}
	})
}

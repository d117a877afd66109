package routing_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
	"waxwing/internal/routing"
	"waxwing/internal/store"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// keys is what the store keeps of SRS.
type keys struct{ err error }

func (k *keys) SRSKeys(context.Context) ([]store.SRSKey, error) {
	return []store.SRSKey{{ID: 1, Secret: bytes.Repeat([]byte{7}, 32)}}, k.err
}

// rig is a router over a directory of example.test and own.test.
type rig struct {
	*testing.T
	*routing.Router
	dir  *directory.Directory
	repo *directorytest.Memory
	keys *keys
	now  time.Time
	ids  map[string]store.AccountID
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, repo: directorytest.NewMemory(), keys: &keys{}, now: noon, ids: map[string]store.AccountID{}}
	var err error
	r.dir, err = directory.New(t.Context(), r.repo, directory.Options{})
	r.ok(err)
	for _, d := range []string{"example.test", "own.test"} {
		_, err = r.dir.AddDomain(t.Context(), directory.Domain{Name: d})
		r.ok(err)
	}
	for _, name := range []string{"anna@example.test", "bo@example.test", "carol@own.test"} {
		a, err := r.dir.AddAccount(t.Context(), directory.NewAccount{Address: r.addr(name)})
		r.ok(err)
		r.ids[name] = a.ID
	}
	r.Router = routing.New(routing.Options{Directory: r.dir, Keys: r.keys, Clock: func() time.Time { return r.now }})
	return r
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) addr(s string) address.Address {
	r.Helper()
	if s == "" {
		return address.Address{}
	}
	a, err := address.Parse(s)
	r.ok(err)
	return a
}

func (r *rig) addrs(list ...string) []address.Address {
	r.Helper()
	var out []address.Address
	for _, s := range list {
		out = append(out, r.addr(s))
	}
	return out
}

func (r *rig) alias(name string, group directory.Group, to ...string) {
	r.Helper()
	r.ok(r.dir.AddAlias(r.Context(), directory.Alias{Address: r.addr(name), Targets: r.addrs(to...), Group: group}))
}

func (r *rig) forward(name string, f directory.Forward, to ...string) {
	r.Helper()
	f.To = r.addrs(to...)
	r.ok(r.dir.SetForward(r.Context(), r.ids[name], f))
}

// to routes a message of a stranger.
func (r *rig) to(from, to string) routing.Route {
	r.Helper()
	return r.route(directory.Sender{Address: r.addr(from)}, to)
}

func (r *rig) route(from directory.Sender, to string) routing.Route {
	r.Helper()
	route, err := r.Route(r.Context(), routing.Request{To: r.addr(to), From: from})
	r.ok(err)
	return route
}

// form writes a route on one line: refusal or status, and where it leads.
func form(r routing.Route) string {
	if r.Refusal != nil {
		return r.Refusal.Enhanced.String()
	}
	out := []string{r.Status.String()}
	for _, t := range r.Targets {
		text := t.Remote.String()
		if t.Account != nil {
			text = "[" + t.Account.Address.String() + "]"
			if t.Detail != "" {
				text += "/" + t.Detail
			}
		}
		if t.Sender.Replaced {
			sender := t.Sender.Address.String()
			if i := strings.IndexByte(sender, '='); i > 0 && strings.HasPrefix(sender, "SRS") {
				sender = sender[:5] + sender[strings.LastIndexByte(sender, '@'):]
			}
			text += " from " + sender
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.alias("away@example.test", directory.Group{}, "x@far.test")
	r.alias("both@example.test", directory.Group{}, "bo@example.test", "x@far.test", "away@example.test")
	r.alias("list@example.test", directory.Group{Owner: r.addr("bo@example.test"), Hidden: true}, "x@far.test", "anna@example.test")
	r.forward("carol@own.test", directory.Forward{Copy: true}, "c@far.test", "bo@example.test")
	for _, tt := range []struct{ from, to, want string }{
		{"s@strange.test", "x@far.test", "not local x@far.test"},
		{"s@strange.test", "anna+tag@example.test", "ok [anna@example.test]/tag"},
		{"s@strange.test", "nobody@example.test", "no mailbox"},
		{"s@strange.test", "away@example.test", "ok x@far.test from SRS0=@example.test"},
		{"anna@example.test", "away@example.test", "ok x@far.test"},
		{"", "away@example.test", "ok x@far.test"},
		{"s@strange.test", "both@example.test", "ok [bo@example.test] x@far.test from SRS0=@example.test"},
		{"s@strange.test", "list@example.test", "ok x@far.test from bo@example.test [anna@example.test]"},
		{"", "list@example.test", "ok x@far.test [anna@example.test]"},
		{"s@strange.test", "carol@own.test", "ok c@far.test from SRS0=@own.test [bo@example.test] [carol@own.test]"},
		{strings.Repeat("a", 60) + "@strange.test", "away@example.test", "ok x@far.test from away@example.test"},
		{"SRS0=aaaa=bb=first.test=u@strange.test", "away@example.test", "ok x@far.test from SRS1=@example.test"},
	} {
		if got := form(r.to(tt.from, tt.to)); got != tt.want {
			t.Errorf("%s to %s: %s, want %s", tt.from, tt.to, got, tt.want)
		}
	}
}

func TestFailuresOfForwardedMailGoBackToItsSender(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.alias("away@example.test", directory.Group{}, "x@far.test")
	r.alias("local@example.test", directory.Group{}, "y@far.test")
	sender := r.to("s@strange.test", "away@example.test").Targets[0].Sender.Address.String()
	if got := r.to("", sender); form(got) != "ok s@strange.test" || !got.Passes {
		t.Errorf("a notification: %s, %v", form(got), got.Why)
	}
	if got := form(r.to("", strings.ToUpper(sender))); got != "ok S@strange.test" {
		t.Errorf("in capitals: %s", got)
	}
	for name, tt := range map[string]struct{ from, to string }{
		"no notification": {"spam@strange.test", sender},
		"another sender":  {"", strings.Replace(sender, "strange.test", "victim.test", 1)},
		"no hash":         {"", "SRS0=victim.test=u@example.test"},
		"the other form":  {"", "SRS1=AAAAAAAA=victim.test==BBBB=CC=x.test=u@example.test"},
	} {
		if got := r.to(tt.from, tt.to); form(got) != "5.7.1" || len(got.Targets) != 0 {
			t.Errorf("%s: %s", name, form(got))
		}
	}
	if got := form(r.to("", strings.Replace(sender, "@example.test", "@elsewhere.test", 1))); !strings.HasPrefix(got, "not local") {
		t.Errorf("at a domain that isn't ours: %s", got)
	}
	r.now = noon.Add(22 * 24 * time.Hour)
	if got := form(r.to("", sender)); got != "5.7.1" {
		t.Errorf("22 days later: %s", got)
	}
}

func TestWhoMaySendToAGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.alias("members@example.test", directory.Group{Senders: directory.MemberSenders}, "anna@example.test", "inner@example.test", "ext@far.test")
	r.alias("inner@example.test", directory.Group{}, "carol@own.test")
	r.alias("staff@example.test", directory.Group{Senders: directory.DomainSenders}, "anna@example.test")
	r.alias("listed@example.test", directory.Group{Senders: directory.ListedSenders, Allowed: []string{"boss@far.test", "friends.test", "bo@example.test"}}, "anna@example.test")
	signed := func(name string) directory.Sender {
		return directory.Sender{Address: r.addr(name), Account: r.ids[name]}
	}
	stranger := func(name string) directory.Sender { return directory.Sender{Address: r.addr(name)} }
	for _, tt := range []struct {
		from directory.Sender
		to   string
		may  bool
	}{
		{signed("anna@example.test"), "members@example.test", true},
		{signed("carol@own.test"), "members@example.test", true},
		{signed("bo@example.test"), "members@example.test", false},
		{stranger("anna@example.test"), "members@example.test", false}, // anyone can write it
		{stranger("ext@far.test"), "members@example.test", true},
		{stranger("other@far.test"), "members@example.test", false},
		{stranger(""), "members@example.test", false},
		{directory.Sender{Ours: true}, "members@example.test", true},
		{signed("bo@example.test"), "staff@example.test", true},
		{signed("carol@own.test"), "staff@example.test", false},
		{stranger("bo@example.test"), "staff@example.test", false},
		{stranger("BOSS@far.test"), "listed@example.test", true},
		{stranger("any@friends.test"), "listed@example.test", true},
		{stranger("any@sub.friends.test"), "listed@example.test", false},
		{signed("bo@example.test"), "listed@example.test", true},
		{stranger("bo@example.test"), "listed@example.test", false},
		{signed("anna@example.test"), "listed+tag@example.test", false},
	} {
		got := r.route(tt.from, tt.to)
		if may := got.Refusal == nil && len(got.Targets) > 0; may != tt.may {
			t.Errorf("%+v to %s: %s", tt.from, tt.to, form(got))
		} else if !may && form(got) != "5.7.2" {
			t.Errorf("%+v to %s is refused with %s", tt.from, tt.to, form(got))
		}
	}
}

func TestAFailureOfTheStoreIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.alias("away@example.test", directory.Group{}, "x@far.test")
	failure := errors.New("store down")
	r.keys.err = failure
	if _, err := r.Route(t.Context(), routing.Request{To: r.addr("away@example.test"), From: directory.Sender{Address: r.addr("s@strange.test")}}); !errors.Is(err, failure) {
		t.Errorf("no keys: %v", err)
	}
	r.keys.err = nil
	r.to("s@strange.test", "away@example.test")
	r.keys.err, r.now = failure, noon.Add(time.Hour)
	r.to("s@strange.test", "away@example.test") // with the keys that are known
	r.repo.Fail(failure)
	if _, err := r.Route(t.Context(), routing.Request{To: r.addr("unknown@example.test")}); !errors.Is(err, failure) {
		t.Errorf("no directory: %v", err)
	}
}

package guard

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waxwing/internal/address"
	"waxwing/internal/directory"
)

func rules(t testing.TB, lines ...string) *AccessList {
	t.Helper()
	var out []directory.AccessRule
	for _, line := range lines { // action subject [listener [scope]]
		w := append(strings.Fields(line), "", "")
		r := directory.AccessRule{Action: directory.AccessAction(w[0]), Subject: w[1], Listener: w[2], For: w[3]}
		if r.Listener == "*" {
			r.Listener = ""
		}
		out = append(out, r)
	}
	return CompileAccess(out)
}

func TestTheNarrowestRuleCounts(t *testing.T) {
	t.Parallel()
	l := rules(t,
		"deny all submission", "deny 192.0.2.0/24", "allow 192.0.2.128/25", "deny 192.0.2.130/32", "trust 192.0.2.131/32",
		"allow 192.0.2.0/24 imap", "deny 2001:db8::/32", "allow 2001:db8:1::/48")
	for _, tc := range []struct {
		listener Listener
		addr     string
		want     directory.AccessAction // "" for no rule
	}{
		{MX, "192.0.2.1", "deny"},
		{MX, "::ffff:192.0.2.1", "deny"},
		{MX, "192.0.2.129", "allow"},
		{MX, "192.0.2.130", "deny"},
		{MX, "192.0.2.131", "trust"},
		{IMAP, "192.0.2.1", "allow"},
		{IMAP, "192.0.2.130", "deny"}, // a longer prefix before a listener's own rule
		{MX, "198.51.100.1", ""},
		{Submission, "198.51.100.1", "deny"},
		{Submissions, "198.51.100.1", ""},
		{MX, "2001:db8::1", "deny"},
		{MX, "2001:db8:1::1", "allow"},
		{MX, "fe80::1%eth0", ""},
	} {
		r, _ := l.Network(tc.listener, "", netip.MustParseAddr(tc.addr))
		if r.Action != tc.want {
			t.Errorf("%s from %s: %q by %q, want %q", tc.listener, tc.addr, r.Action, r.Subject, tc.want)
		}
	}
}

func TestSendersAndHostsAreFoundByDomain(t *testing.T) {
	t.Parallel()
	l := rules(t, "deny sender:spam.example", "allow sender:good.spam.example", "deny sender:li@good.spam.example", "deny helo:bad.example * our.test")
	for from, want := range map[string]directory.AccessAction{
		"a@spam.example": "deny", "a@sub.spam.example": "deny", "a@good.spam.example": "allow", "LI@good.spam.example": "deny",
		"a@notspam.example": "", "a@example": "",
	} {
		a, err := address.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		if r, _ := l.Sender(MX, "", a); r.Action != want {
			t.Errorf("%s: %q, want %q", from, r.Action, want)
		}
	}
	if _, ok := l.Sender(MX, "", address.Address{}); ok {
		t.Error("a rule speaks of the null sender")
	}
	if r, _ := l.Helo(MX, "our.test", "Mail.BAD.example"); r.Action != directory.Deny {
		t.Error("the host's rule for our.test is not found")
	}
	if _, ok := l.Helo(MX, "", "mail.bad.example"); ok {
		t.Error("a rule for one domain holds for all")
	}
}

func TestAnAccountsOwnRulesLimitFromWhereItSignsIn(t *testing.T) {
	t.Parallel()
	l := rules(t, "allow 192.0.2.0/24 * li@our.test", "allow all submission li@our.test", "deny 198.51.100.0/24 * wang@our.test")
	for _, tc := range []struct {
		listener      Listener
		account, addr string
		want          bool
	}{
		{IMAP, "li@our.test", "192.0.2.9", true},
		{IMAP, "li@our.test", "203.0.113.1", false},
		{Submission, "li@our.test", "203.0.113.1", true},
		{IMAP, "wang@our.test", "198.51.100.7", false},
		{IMAP, "wang@our.test", "203.0.113.1", true},
		{IMAP, "zhao@our.test", "203.0.113.1", true},
	} {
		if ok, why := l.SignIn(tc.listener, tc.account, netip.MustParseAddr(tc.addr)); ok != tc.want {
			t.Errorf("%s by %s from %s: %v (%s)", tc.account, tc.listener, tc.addr, ok, why)
		}
	}
}

// TestNetworkAgreesWithALookAtEveryRule compares the list with the definition.
func TestNetworkAgreesWithALookAtEveryRule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var list []directory.AccessRule
		have := map[string]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			a := netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 3).Draw(t, "b")), byte(rapid.IntRange(0, 255).Draw(t, "c"))})
			p, _ := a.Prefix(rapid.IntRange(0, 32).Draw(t, "bits"))
			r := directory.AccessRule{Subject: p.String(), Action: directory.Deny, Listener: rapid.SampledFrom([]string{"", "mx", "imap"}).Draw(t, "l")}
			if have[r.Subject+r.Listener] {
				continue
			}
			have[r.Subject+r.Listener] = true
			list = append(list, r)
		}
		l := CompileAccess(list)
		a := netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 3).Draw(t, "x")), byte(rapid.IntRange(0, 255).Draw(t, "y"))})
		var want directory.AccessRule
		best := -1
		for _, r := range list {
			p := netip.MustParsePrefix(r.Subject)
			rank := 2 * p.Bits()
			if r.Listener == "mx" {
				rank++
			}
			if p.Contains(a) && (r.Listener == "" || r.Listener == "mx") && rank > best {
				best, want = rank, r
			}
		}
		if got, _ := l.Network(MX, "", a); got != want {
			t.Fatalf("%s: %+v, want %+v", a, got, want)
		}
	})
}

func BenchmarkAccessOfTenThousandRules(b *testing.B) {
	var list []directory.AccessRule
	for i := range 10_000 {
		list = append(list, directory.AccessRule{Subject: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}).String() + "/32", Action: directory.Deny})
	}
	l := CompileAccess(list)
	a := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		l.Network(MX, "", a)
	}
}

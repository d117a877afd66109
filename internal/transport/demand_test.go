package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/mtasts"
	"waxwing/internal/smtp"
	"waxwing/internal/tlspolicy"
)

// tlsaFor is the record 3 1 1 of a server's certificate, authentic.
func tlsaFor(t *testing.T, c *tls.Config) dns.TLSAs {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return dns.TLSAs{Answer: dns.Answer{Secure: true}, Records: []dns.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: sum[:]}}}
}

func secure(hosts ...string) dns.MX {
	m := mx(hosts...)
	m.Secure = true
	return m
}

type fakeSTS struct {
	policy STSPolicy
	err    error
}

func (f fakeSTS) Policy(context.Context, string) (STSPolicy, error) { return f.policy, f.err }

func table(t *testing.T, text string) func() (*tlspolicy.Table, error) {
	t.Helper()
	parsed, err := tlspolicy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return func() (*tlspolicy.Table, error) { return parsed, nil }
}

// outcomes collects what is reported.
type outcomes struct {
	mu   sync.Mutex
	list []string
}

func (o *outcomes) take(x Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, strings.TrimSpace(x.Type+" "+x.Failure))
}

// TestDemands holds checks 12 and 13: what a policy forbids is put off and never sent in plaintext. The servers are b.test's
// mx.b.test; each takes mail in plaintext from whoever doesn't ask for more.
func TestDemands(t *testing.T) {
	t.Parallel()
	roots, good := authority(t, "mx.b.test")
	_, other := authority(t, "mx.b.test") // of an authority that nobody knows
	otherRoots, wrong := authority(t, "elsewhere.test")
	_ = otherRoots
	right, bad := tlsaFor(t, other), tlsaFor(t, good)
	unusable := dns.TLSAs{Answer: dns.Answer{Secure: true}, Records: []dns.TLSA{{Usage: 1, Selector: 1, Matching: 1, Data: make([]byte, 32)}}}
	forged := right
	forged.Secure = false
	enforce := STSPolicy{Found: true, Policy: mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"*.b.test"}}}
	testing1 := STSPolicy{Found: true, Policy: mtasts.Policy{Mode: mtasts.Testing, MX: []string{"*.b.test"}}}
	foreign := STSPolicy{Found: true, Policy: mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.c.test"}}}
	const sent = "delivered 250 2.0.0 end of data"
	bogus := &dns.Error{Name: "x", Type: "TLSA", Err: dns.ErrBogus}
	type world struct {
		tls      *tls.Config // of the server; nil: it offers none
		insecure bool        // the MX record
		tlsa     dns.TLSAs
		tlsaErr  error
		sts      STSPolicy
		stsErr   error
		table    string
		needs    smtp.TLSNeed
		offers   string // a further keyword
	}
	for _, tc := range []struct {
		what   string
		w      world
		want   string
		policy string
		told   string
	}{
		{"no policy, no TLS", world{}, sent, "opportunistic", "no-policy-found starttls-not-supported"},
		{"no policy, any certificate", world{tls: wrong}, sent, "opportunistic", "no-policy-found"},

		{"DANE fits", world{tls: other, tlsa: right}, sent, "dane", "tlsa"},
		{"DANE doesn't fit", world{tls: other, tlsa: bad}, "deferred 0 4.7.5 STARTTLS", "dane", "tlsa validation-failure"},
		{"DANE, STARTTLS stripped", world{tlsa: right}, "deferred 0 4.7.4 STARTTLS", "dane", "tlsa starttls-not-supported"},
		{"DANE, records not usable, TLS", world{tls: wrong, tlsa: unusable}, sent, "dane (no usable record: encrypt)", "tlsa"},
		{"DANE, records not usable, no TLS", world{tlsa: unusable}, "deferred 0 4.7.4 STARTTLS", "dane (no usable record: encrypt)", "tlsa starttls-not-supported"},
		{"TLSA bogus", world{tls: other, tlsaErr: bogus}, "deferred 0 4.7.5 policy", "", "tlsa dnssec-invalid"},
		{"TLSA times out", world{tls: other, tlsaErr: &dns.Error{Err: dns.ErrTimeout}}, "deferred 0 4.7.5 policy", "", ""},
		{"TLSA not signed", world{tls: good, tlsa: forged}, sent, "opportunistic", "no-policy-found"},
		{"MX not signed", world{tls: good, insecure: true, tlsa: bad, tlsaErr: bogus}, sent, "opportunistic", "no-policy-found"},
		{"DANE goes before MTA-STS", world{tls: other, tlsa: right, sts: foreign}, sent, "dane", "tlsa"},
		{"a failing DANE is not saved by MTA-STS", world{tls: good, tlsa: right, sts: enforce}, "deferred 0 4.7.5 STARTTLS", "dane", "tlsa validation-failure"},

		{"MTA-STS fits", world{tls: good, sts: enforce, insecure: true}, sent, "mta-sts enforce", "sts"},
		{"MTA-STS, certificate of nobody", world{tls: other, sts: enforce}, "deferred 0 4.7.5 STARTTLS", "mta-sts enforce", "sts certificate-not-trusted"},
		{"MTA-STS, another name", world{tls: wrong, sts: enforce}, "deferred 0 4.7.5 STARTTLS", "mta-sts enforce", "sts certificate-host-mismatch"},
		{"MTA-STS, STARTTLS stripped", world{sts: enforce}, "deferred 0 4.7.4 STARTTLS", "mta-sts enforce", "sts starttls-not-supported"},
		{"MTA-STS names other hosts", world{tls: good, sts: foreign}, "deferred 0 4.7.0 policy", "", "sts validation-failure"},
		{"MTA-STS testing, certificate of nobody", world{tls: other, sts: testing1}, sent, "mta-sts testing", "sts certificate-not-trusted"},
		{"MTA-STS testing, no TLS", world{sts: testing1}, sent, "mta-sts testing", "sts starttls-not-supported"},
		{"MTA-STS policy can't be fetched", world{tls: good, sts: STSPolicy{Problem: "sts-policy-fetch-error"}}, sent, "opportunistic", "sts sts-policy-fetch-error, no-policy-found"},
		{"MTA-STS can't be looked up in a signed zone", world{tls: good, stsErr: bogus}, "deferred 0 4.7.5 policy", "", ""},
		{"MTA-STS can't be looked up elsewhere", world{tls: good, insecure: true, stsErr: bogus}, sent, "opportunistic", "no-policy-found"},

		{"encrypt without TLS", world{table: "b.test encrypt"}, "deferred 0 4.7.4 STARTTLS", "encrypt (tls.policies)", "no-policy-found starttls-not-supported"},
		{"encrypt", world{tls: wrong, table: "b.test encrypt"}, sent, "encrypt (tls.policies)", "no-policy-found"},
		{"verify", world{tls: good, table: "* verify"}, sent, "verify (tls.policies)", "no-policy-found"},
		{"verify, another name", world{tls: wrong, table: "* verify"}, "deferred 0 4.7.5 STARTTLS", "verify (tls.policies)", "no-policy-found certificate-host-mismatch"},
		{"verify, a name that may be", world{tls: good, table: "b.test verify match=mx.b.test"}, sent, "verify (tls.policies)", "no-policy-found"},
		{"secure", world{tls: good, table: "b.test secure"}, sent, "secure (tls.policies)", "no-policy-found"},
		{"secure, another name", world{tls: good, table: "b.test secure match=.c.test"}, "deferred 0 4.7.5 STARTTLS", "secure (tls.policies)", "no-policy-found certificate-host-mismatch"},
		{"may passes over DANE", world{tls: other, tlsa: bad, table: "b.test may"}, sent, "opportunistic", "no-policy-found"},
		{"none", world{tls: good, tlsa: bad, table: "b.test none"}, sent, "none (tls.policies)", ""},
		{"dane-only without records", world{tls: good, table: "b.test dane-only"}, "deferred 0 4.7.5 policy", "", "tlsa dane-required"},
		{"dane-only, not usable", world{tls: good, tlsa: unusable, table: "b.test dane-only"}, "deferred 0 4.7.5 policy", "", "tlsa tlsa-invalid"},
		{"dane-only fits", world{tls: other, tlsa: right, table: "b.test dane-only"}, sent, "dane", "tlsa"},
		{"dane without records passes over MTA-STS", world{tls: other, sts: enforce, table: "b.test dane"}, sent, "opportunistic", "no-policy-found"},
		{"auto for one among all", world{tls: other, tlsa: right, table: "* encrypt; b.test auto"}, sent, "dane", "tlsa"},

		{"TLS-Required: No passes over DANE", world{tlsa: right, needs: smtp.TLSOptional}, sent, "opportunistic (TLS-Required: No)", "no-policy-found starttls-not-supported"},
		{"TLS-Required: No passes over MTA-STS", world{tls: other, sts: enforce, needs: smtp.TLSOptional}, sent, "opportunistic (TLS-Required: No)", "no-policy-found"},
		{"TLS-Required: No against the administrator", world{table: "b.test encrypt", needs: smtp.TLSOptional}, "deferred 0 4.7.4 STARTTLS", "encrypt (tls.policies)", "no-policy-found starttls-not-supported"},
		{"TLS-Required: No against dane-only", world{tls: other, tlsa: bad, table: "b.test dane-only", needs: smtp.TLSOptional}, "deferred 0 4.7.5 STARTTLS", "dane", "tlsa validation-failure"},

		{"REQUIRETLS with DANE", world{tls: other, tlsa: right, needs: smtp.TLSRequired, offers: "REQUIRETLS"}, sent, "requiretls, dane", "tlsa"},
		{"REQUIRETLS with a signed MX", world{tls: good, needs: smtp.TLSRequired, offers: "REQUIRETLS"}, sent, "requiretls, opportunistic", "no-policy-found"},
		{"REQUIRETLS with MTA-STS", world{tls: good, insecure: true, sts: testing1, needs: smtp.TLSRequired, offers: "REQUIRETLS"}, sent, "requiretls, mta-sts testing", "sts"},
		{"REQUIRETLS, certificate of nobody", world{tls: other, needs: smtp.TLSRequired, offers: "REQUIRETLS"}, "deferred 0 4.7.5 STARTTLS", "requiretls, opportunistic", "no-policy-found certificate-not-trusted"},
		{"REQUIRETLS, hosts not authentic", world{tls: good, insecure: true, needs: smtp.TLSRequired, offers: "REQUIRETLS"}, "failed 0 5.7.10 policy", "", ""},
		{"REQUIRETLS not offered", world{tls: good, needs: smtp.TLSRequired}, "failed 0 5.7.30 EHLO", "requiretls, opportunistic", "no-policy-found"},
		{"REQUIRETLS, STARTTLS stripped", world{needs: smtp.TLSRequired, offers: "REQUIRETLS"}, "deferred 0 4.7.4 STARTTLS", "requiretls, opportunistic", "no-policy-found starttls-not-supported"},
		{"REQUIRETLS against none", world{tls: good, table: "* none", needs: smtp.TLSRequired, offers: "REQUIRETLS"}, "failed 0 5.7.10 policy", "", ""},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(s *server) {
				s.tls = tc.w.tls
				if tc.w.offers != "" {
					s.ehlo = append(s.ehlo, tc.w.offers)
				}
			})
			m := secure("mx.b.test")
			m.Secure = !tc.w.insecure
			zone := fakeDNS{mx: map[string]dns.MX{"b.test": m}, tlsa: map[string]dns.TLSAs{}, err: map[string]error{}}
			var seen outcomes
			tr := rig(t, map[string]*server{"mx.b.test": s}, func(o *Options) {
				name := fmt.Sprintf("_%d._tcp.mx.b.test", 25)
				if len(tc.w.tlsa.Records) > 0 {
					zone.tlsa[name] = tc.w.tlsa
				}
				if tc.w.tlsaErr != nil {
					zone.err[name] = tc.w.tlsaErr
				}
				o.Resolver, o.RootCAs, o.Policies, o.Report = zone, roots, table(t, tc.w.table), seen.take
				o.STS = fakeSTS{tc.w.sts, tc.w.stsErr}
			})
			msg := mail("x@b.test")
			msg.TLS = tc.w.needs
			rs := deliver(t, tr, "b.test", msg)
			if got := brief(rs); got != tc.want || rs[0].TLS.Policy != tc.policy {
				t.Errorf("%s under %q, want %s under %q: %s", got, rs[0].TLS.Policy, tc.want, tc.policy, rs[0].Message)
			}
			if told := strings.Join(seen.list, ", "); told != tc.told {
				t.Errorf("reported %q, want %q", told, tc.told)
			}
			lines, bodies := s.seen()
			if tc.want != sent && (len(bodies) > 0 || strings.Contains(strings.Join(lines, "\n"), "MAIL")) {
				t.Errorf("mail went out all the same: %q", lines)
			}
			if tc.want == sent && strings.Contains(strings.Join(lines, "\n"), " REQUIRETLS") != (tc.w.needs == smtp.TLSRequired) {
				t.Errorf("REQUIRETLS on MAIL: %q", lines)
			}
		})
	}
}

// TestNamesOfTLSARecords holds RFC 7672, section 2.2.3: records are looked for where the zones are signed, at the end of an
// alias first.
func TestNamesOfTLSARecords(t *testing.T) {
	t.Parallel()
	_, cert := authority(t, "mx.b.test")
	right, wrong := tlsaFor(t, cert), tlsaFor(t, cert)
	wrong.Records = []dns.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}
	for _, tc := range []struct {
		what  string
		where dns.Answer // of the host's address
		alias dns.Answer // of the host's name
		tlsa  map[string]dns.TLSAs
		want  string
	}{
		{"no alias, signed", dns.Answer{Secure: true, Name: "mx.b.test"}, dns.Answer{}, map[string]dns.TLSAs{"mx.b.test": right}, "dane"},
		{"no alias, not signed", dns.Answer{Name: "mx.b.test"}, dns.Answer{}, map[string]dns.TLSAs{"mx.b.test": right}, ""},
		{"the alias's end", dns.Answer{Secure: true, Name: "host.c.test"}, dns.Answer{}, map[string]dns.TLSAs{"host.c.test": right, "mx.b.test": wrong}, "dane"},
		{"its beginning when the end has none", dns.Answer{Secure: true, Name: "host.c.test"}, dns.Answer{}, map[string]dns.TLSAs{"mx.b.test": right}, "dane"},
		{"the end is not signed", dns.Answer{Name: "host.c.test"}, dns.Answer{Secure: true, Name: "host.c.test"}, map[string]dns.TLSAs{"host.c.test": wrong, "mx.b.test": right}, "dane"},
		{"nothing is signed", dns.Answer{Name: "host.c.test"}, dns.Answer{Name: "host.c.test"}, map[string]dns.TLSAs{"host.c.test": wrong, "mx.b.test": right}, ""},
	} {
		zone := fakeDNS{tlsa: map[string]dns.TLSAs{}, alias: map[string]dns.Answer{"mx.b.test": tc.alias}}
		for name, r := range tc.tlsa {
			zone.tlsa["_25._tcp."+name] = r
		}
		tr := rig(t, nil, func(o *Options) { o.Resolver = zone })
		d, f := tr.dane(t.Context(), &plan{domain: "b.test", secure: true}, host{name: "mx.b.test", port: 25}, tc.where)
		switch {
		case f != nil:
			t.Errorf("%s: %v", tc.what, f)
		case d == nil:
			if tc.want != "" {
				t.Errorf("%s: no DANE", tc.what)
			}
		default:
			leaf, err := x509.ParseCertificate(cert.Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := d.check(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}); err != nil || d.policy != tc.want {
				t.Errorf("%s: %q, %v", tc.what, d.policy, err)
			}
		}
	}
}

// TestASessionIsNotUsedUnderAnotherDemand: a connection that was opened for a message without needs carries none that has
// some, nor mail under a table that was changed meanwhile.
func TestASessionIsNotUsedUnderAnotherDemand(t *testing.T) {
	t.Parallel()
	roots, good := authority(t, "b.test")
	s := newServer(t, func(s *server) { s.tls, s.ehlo = good, append(s.ehlo, "REQUIRETLS") })
	now, _ := table(t, "")()
	tr := rig(t, map[string]*server{"b.test": s}, func(o *Options) {
		o.Resolver, o.RootCAs = fakeDNS{mx: map[string]dns.MX{"b.test": secure("b.test")}}, roots
		o.Policies = func() (*tlspolicy.Table, error) { return now, nil }
	})
	l := tr.Link("b.test")
	defer l.Close()
	for i, step := range []struct {
		needs       smtp.TLSNeed
		table       string
		connections int
	}{{0, "", 1}, {0, "", 1}, {smtp.TLSRequired, "", 2}, {smtp.TLSRequired, "", 2}, {0, "", 3}, {0, "* verify", 4}} {
		now, _ = table(t, step.table)()
		m := mail("x@b.test")
		m.TLS = step.needs
		if rs := l.Deliver(t.Context(), m); rs[0].Status != Delivered || s.connections() != step.connections {
			t.Errorf("step %d: %s on %d connections, want %d", i, brief(rs), s.connections(), step.connections)
		}
	}
	tr.opts.Policies = func() (*tlspolicy.Table, error) { return nil, errors.New("unreadable") }
	if rs := l.Deliver(t.Context(), mail("x@b.test")); brief(rs) != "deferred 0 4.3.5 policy" {
		t.Errorf("a table that can't be read: %s", brief(rs))
	}
}

// TestDANEDoesNotAskForTheTime: an expired certificate that its own record names is good (RFC 7672, section 3.1.1).
func TestDANEDoesNotAskForTheTime(t *testing.T) {
	t.Parallel()
	_, cert := authority(t, "b.test")
	s := newServer(t, func(s *server) { s.tls = cert })
	tr := rig(t, map[string]*server{"b.test": s}, func(o *Options) {
		o.Resolver = fakeDNS{mx: map[string]dns.MX{"b.test": secure("b.test")}, tlsa: map[string]dns.TLSAs{"_25._tcp.b.test": tlsaFor(t, cert)}}
		o.Clock = func() time.Time { return time.Now().Add(48 * time.Hour) }
	})
	if rs := deliver(t, tr, "b.test", mail("x@b.test")); rs[0].Status != Delivered || !rs[0].TLS.Verified {
		t.Errorf("%s: %+v", brief(rs), rs[0].TLS)
	}
}

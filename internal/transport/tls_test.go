package transport

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

func TestOpportunisticTLS(t *testing.T) {
	t.Parallel()
	roots, good := authority(t, "b.test")
	_, wrong := authority(t, "other.test")
	for _, tc := range []struct {
		name           string
		change         func(*server)
		used, verified bool
		problem        string
		connections    int
	}{
		{"verified", func(s *server) { s.tls = good }, true, true, "", 1},
		{"not verified", func(s *server) { s.tls = wrong }, true, false, "certificate", 1},
		{"not offered", func(*server) {}, false, false, "not offered", 1},
		{"refused", func(s *server) { s.tls = good; s.answers["STARTTLS"] = "454 4.7.0 not now" }, false, false, "not now", 1},
		{"handshake broken", func(s *server) { s.noTLS = true }, false, false, "handshake", 2},
		{"closes at STARTTLS", func(s *server) { s.tls = good; s.answers["STARTTLS"] = "close" }, false, false, "closed", 2},
		{"only old versions", func(s *server) {
			s.tls = &tls.Config{Certificates: good.Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		}, false, false, "handshake", 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, tc.change)
			tr := rig(t, map[string]*server{"b.test": s}, func(o *Options) { o.RootCAs = roots })
			rs := deliver(t, tr, "b.test", mail("x@b.test"))
			i := rs[0].TLS
			if rs[0].Status != Delivered || i.Used != tc.used || i.Verified != tc.verified || !strings.Contains(i.Problem, tc.problem) {
				t.Errorf("%s: %+v", brief(rs), i)
			}
			if i.Used && (i.Version < tls.VersionTLS12 || i.Cipher == 0 || i.Fingerprint == "" || len(i.Names) != 1) {
				t.Errorf("details: %+v", i)
			}
			if n := s.connections(); n != tc.connections {
				t.Errorf("%d connections, want %d", n, tc.connections)
			}
			if tc.used {
				lines, _ := s.seen()
				if lines[1] != "STARTTLS" || lines[2] != "EHLO me.test" {
					t.Errorf("commands %q: EHLO must be said again", lines)
				}
			}
		})
	}
}

func TestInjectionBehindSTARTTLSEndsTheAttempt(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) { s.inject = true })
	tr := rig(t, map[string]*server{"b.test": s}, nil)
	rs := deliver(t, tr, "b.test", mail("x@b.test"))
	if rs[0].Status != Deferred || s.connections() != 1 {
		t.Errorf("%s on %d connections", brief(rs), s.connections())
	}
	if _, bodies := s.seen(); len(bodies) != 0 {
		t.Error("mail was sent all the same")
	}
}

func TestFailingTLSIsRememberedForAWhile(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(s *server) { s.noTLS = true })
	now := time.Now()
	tr := rig(t, map[string]*server{"b.test": s}, func(o *Options) { o.Clock = func() time.Time { return now } })
	deliver(t, tr, "b.test", mail("x@b.test"))
	deliver(t, tr, "b.test", mail("x@b.test"))
	if n := s.connections(); n != 3 {
		t.Errorf("%d connections for two messages, want 2 and 1", n)
	}
	now = now.Add(bareTime + time.Second)
	deliver(t, tr, "b.test", mail("x@b.test"))
	if n := s.connections(); n != 5 {
		t.Errorf("%d connections, want another two", n)
	}
}

func TestSmartHost(t *testing.T) {
	t.Parallel()
	roots, good := authority(t, "smart.test")
	_, wrong := authority(t, "other.test")
	plain := "AUTH PLAIN AHVzZXIAcMOkc3M="
	for _, tc := range []struct {
		name   string
		smart  SmartHost
		change func(*server)
		want   string
		auth   string
	}{
		{"verified, PLAIN", SmartHost{Username: "user", Password: []byte("päss")}, func(s *server) {
			s.tls = good
			s.ehlo = []string{"AUTH LOGIN PLAIN"}
			s.answers["AUTH"] = "235 2.7.0 ok"
		}, "delivered 250 2.0.0 end of data", plain},
		{"LOGIN", SmartHost{Username: "user", Password: []byte("pw")}, func(s *server) {
			s.tls = good
			s.ehlo = []string{"AUTH=LOGIN"}
			s.answers["AUTH LOGIN"], s.answers["dXNlcg=="], s.answers["cHc="] = "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 ok"
		}, "delivered 250 2.0.0 end of data", "AUTH LOGIN"},
		{"wrong password", SmartHost{Username: "user", Password: []byte("päss")}, func(s *server) {
			s.tls = good
			s.ehlo = []string{"AUTH PLAIN"}
			s.answers["AUTH"] = "535 5.7.8 no"
		}, "deferred 535 4.7.8 AUTH", plain},
		{"not verified", SmartHost{Username: "user", Password: []byte("pw")}, func(s *server) { s.tls = wrong; s.ehlo = []string{"AUTH PLAIN"} }, "deferred 0 4.7.5 STARTTLS", ""},
		{"no TLS", SmartHost{Username: "user", Password: []byte("pw")}, func(s *server) { s.ehlo = []string{"AUTH PLAIN"} }, "deferred 0 4.7.4 STARTTLS", ""},
		{"TLS refused", SmartHost{}, func(s *server) { s.tls = good; s.answers["STARTTLS"] = "454 no" }, "deferred 454 4.7.4 STARTTLS", ""},
		{"no mechanism", SmartHost{Username: "user"}, func(s *server) { s.tls = good; s.ehlo = []string{"AUTH GSSAPI"} }, "deferred 0 4.7.4 AUTH", ""},
		{"refuses us", SmartHost{}, func(s *server) { s.greet = "554 who are you" }, "deferred 554 4.0.0 greeting", ""},
		{"opportunistic", SmartHost{TLS: TLSOpportunistic}, func(s *server) { s.noTLS = true }, "delivered 250 2.0.0 end of data", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, tc.change)
			tc.smart.Host = "smart.test"
			tr := rig(t, map[string]*server{"smart.test": s}, func(o *Options) { o.SmartHost, o.RootCAs = &tc.smart, roots })
			rs := deliver(t, tr, "anywhere.test", mail("x@anywhere.test"))
			if got := brief(rs); got != tc.want {
				t.Errorf("%s, want %s (%s)", got, tc.want, rs[0].Message)
			}
			lines, _ := s.seen()
			auth := ""
			for _, l := range lines {
				if strings.HasPrefix(l, "AUTH") {
					auth = l
				}
			}
			if auth != tc.auth {
				t.Errorf("AUTH line %q, want %q", auth, tc.auth)
			}
			if strings.Contains(rs[0].Message, "cHc=") || strings.Contains(rs[0].Message, "pw") {
				t.Error("the password leaks into the message")
			}
		})
	}
}

func TestSmartHostWithImplicitTLS(t *testing.T) {
	t.Parallel()
	roots, good := authority(t, "smart.test")
	s := newServer(t, func(s *server) { s.first = good })
	tr := rig(t, map[string]*server{"smart.test": s}, func(o *Options) {
		o.SmartHost, o.RootCAs = &SmartHost{Host: "smart.test", TLS: TLSImplicit}, roots
	})
	rs := deliver(t, tr, "anywhere.test", mail("x@anywhere.test"))
	if got := brief(rs); got != "delivered 250 2.0.0 end of data" || !rs[0].TLS.Verified {
		t.Errorf("%s %+v", got, rs[0].TLS)
	}
}

func TestOptionsThatWouldSendAPasswordUnprotectedAreRefused(t *testing.T) {
	t.Parallel()
	for _, h := range []*SmartHost{
		{Host: "a.test", TLS: TLSOpportunistic, Username: "u"}, {Host: ""}, {Host: "a.test", TLS: "none"}, {Host: "a.test", Port: 70000},
	} {
		if _, err := New(Options{Hostname: "me.test", Resolver: fakeDNS{}, SmartHost: h}); err == nil {
			t.Errorf("%+v was taken", h)
		}
		if _, err := New(Options{Hostname: "me.test", Resolver: fakeDNS{}, Routes: map[string]*SmartHost{"x": h}}); err == nil {
			t.Errorf("route %+v was taken", h)
		}
	}
}

func TestRoutesOverrideTheSmartHost(t *testing.T) {
	t.Parallel()
	tr := rig(t, nil, func(o *Options) {
		o.SmartHost = &SmartHost{Host: "Smart.test", Concurrency: 7}
		o.Routes = map[string]*SmartHost{"direct.test": nil, "other.test": {Host: "o.test", TLS: TLSImplicit}}
	})
	for dest, want := range map[string]string{"x.test": "smart.test:587", "direct.test": "direct.test", "other.test": "o.test:465"} {
		if got := tr.NextHop(dest); got != want {
			t.Errorf("next hop of %s is %s, want %s", dest, got, want)
		}
	}
	if tr.Concurrency("x.test") != 7 || tr.Concurrency("direct.test") != 0 {
		t.Error("concurrency of routes")
	}
}

package system

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"waxwing/internal/porttest"
	"waxwing/test/rig"
)

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test authority"}, NotBefore: time.Now().Add(-72 * time.Hour),
		NotAfter: time.Now().Add(72 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// issue makes a certificate that ends so long from now, and the data of its record 3 1 1.
func (a *authority) issue(t *testing.T, left time.Duration, names ...string) (*tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(left),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, fmt.Sprintf("%x", sum)
}

// target is a domain with one server, to which mail is sent.
type target struct {
	name   string // of the domain, without its zone
	signed bool
	cert   *tls.Certificate // nil: no STARTTLS
	tlsa   string           // data of a record 3 1 1; "": none
	spoil  string           // the type of a set of records whose signature is broken
	sts    string           // the policy, "" for none
	want   string           // the policy under which the mail goes, or the code with which it waits
}

// targets is the mail servers of several domains, all on one port.
type targets struct {
	mu   sync.Mutex
	mail map[string][]string // by domain: the options of MAIL that were seen
}

func (s *targets) NewSession(*smtp.Conn) (smtp.Session, error) { return &targetSession{all: s}, nil }

func (s *targets) got(domain string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mail[domain])
}

type targetSession struct {
	all     *targets
	options string
	domain  string
}

func (s *targetSession) Mail(_ string, o *smtp.MailOptions) error {
	s.options = "plain"
	if o.RequireTLS {
		s.options = "REQUIRETLS"
	}
	return nil
}

func (s *targetSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	_, s.domain, _ = strings.Cut(to, "@")
	return nil
}

func (s *targetSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.all.mail[s.domain] = append(s.all.mail[s.domain], s.options)
	return nil
}

func (s *targetSession) Reset()        {}
func (s *targetSession) Logout() error { return nil }

// serve starts a mail server at an address.
func (s *targets) serve(t *testing.T, address string, cert *tls.Certificate) {
	t.Helper()
	srv := smtp.NewServer(s)
	srv.Domain, srv.EnableREQUIRETLS = "target.example", true
	if cert != nil {
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

// TestOutboundSecurity holds checks 12 and 13 with the targets of email-security-scans.org: servers that must get no mail,
// since DANE, MTA-STS or an administrator forbid it, stand beside those that must. The resolver is Debian's unbound over
// zones that are signed here.
func TestOutboundSecurity(t *testing.T) {
	known, unknown := newAuthority(t), newAuthority(t)
	const day = 24 * time.Hour
	mxName := func(name string, signed bool) string {
		if signed {
			return "mx-" + name + ".signed.example"
		}
		return "mx-" + name + ".plain.example"
	}
	good := func(a *authority, left time.Duration, name string, signed bool) (*tls.Certificate, string) {
		return a.issue(t, left, mxName(name, signed))
	}
	self, right := good(unknown, day, "dane", true)
	old, oldRight := good(unknown, -day, "expired", true)
	other, otherRight := good(unknown, day, "other", true)
	trusted, _ := good(known, day, "sts", false)
	stranger, _ := good(unknown, day, "sts-stranger", false)
	trustedMX, _ := good(known, day, "sts-mx", false)
	wrong := strings.Repeat("ab", 32)
	enforce := func(mode, mx string) string {
		return "version: STSv1\r\nmode: " + mode + "\r\nmx: " + mx + "\r\nmax_age: 86400\r\n"
	}
	list := []target{
		{name: "dane", signed: true, cert: self, tlsa: right, want: "dane"},
		{name: "expired", signed: true, cert: old, tlsa: oldRight, want: "dane"},
		{name: "nodane", signed: true, cert: other, want: "opportunistic"},
		{name: "wrong", signed: true, cert: other, tlsa: wrong, want: "4.7.5"},
		{name: "stripped", signed: true, tlsa: otherRight, want: "4.7.4"},
		{name: "bogus", signed: true, cert: other, tlsa: otherRight, spoil: "TLSA", want: "4.7.5"},
		{name: "bogusmx", signed: true, cert: other, tlsa: otherRight, spoil: "MX", want: "4.4.3"},
		{name: "bogusaddress", signed: true, cert: other, tlsa: otherRight, spoil: "A", want: "4.4.3"},
		{name: "unsigned", cert: other, tlsa: wrong, want: "opportunistic"},
		{name: "bare", want: "opportunistic"},
		{name: "sts", cert: trusted, sts: enforce("enforce", "mx-sts.plain.example"), want: "mta-sts enforce"},
		{name: "sts-stranger", cert: stranger, sts: enforce("enforce", "*.plain.example"), want: "4.7.5"},
		{name: "sts-mx", cert: trustedMX, sts: enforce("enforce", "elsewhere.example"), want: "4.7.0"},
		{name: "sts-stripped", sts: enforce("enforce", "*.plain.example"), want: "4.7.4"},
		{name: "sts-testing", cert: stranger, sts: enforce("testing", "*.plain.example"), want: "mta-sts testing"},
		{name: "sts-broken", cert: stranger, sts: "no policy", want: "opportunistic"},
		{name: "strict", want: "4.7.4"},
	}
	ports, err := porttest.Reserve(2)
	if err != nil {
		t.Fatal(err)
	}
	box := &targets{mail: map[string][]string{}}
	signed, plain := rig.Zone{Name: "signed.example", Signed: true}, rig.Zone{Name: "plain.example"}
	policies := map[string]string{}
	for i, x := range list {
		z := &plain
		if x.signed {
			z = &signed
		}
		ip, domain, mx := fmt.Sprintf("127.0.7.%d", i+1), x.name+"."+z.Name, mxName(x.name, x.signed)
		box.serve(t, net.JoinHostPort(ip, strconv.Itoa(ports[0])), x.cert)
		z.Text += fmt.Sprintf("%s. 0 IN MX 10 %s.\n%[2]s. 0 IN A %s\n", domain, mx, ip)
		if x.tlsa != "" {
			z.Text += fmt.Sprintf("_%d._tcp.%s. 0 IN TLSA 3 1 1 %s\n", ports[0], mx, x.tlsa)
		}
		switch x.spoil {
		case "MX":
			z.Spoil = append(z.Spoil, domain+". MX")
		case "A":
			z.Spoil = append(z.Spoil, mx+". A")
		case "TLSA":
			z.Spoil = append(z.Spoil, fmt.Sprintf("_%d._tcp.%s. TLSA", ports[0], mx))
		}
		if x.sts != "" {
			z.Text += fmt.Sprintf("_mta-sts.%s. 0 IN TXT \"v=STSv1; id=1\"\nmta-sts.%[1]s. 0 IN A 127.0.0.1\n", domain)
			policies["mta-sts."+domain] = x.sts
		}
	}
	servePolicies(t, known, ports[1], policies)
	dir := t.TempDir()
	unbound, err := rig.StartUnbound(t.Context(), dir, signed, plain)
	if err != nil {
		t.Fatal(err)
	}
	defer unbound.Stop()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: known.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	n := node(t, rig.WaxwingOptions{Edit: func(toml string) string {
		return toml + fmt.Sprintf("\n[dns]\nresolvers = [%q]\n\n[transport]\nport = %d\nmta_sts_port = %d\nca_file = %q\n", unbound.Address, ports[0], ports[1], ca)
	}})
	if _, err := n.Command(t.Context(), nil, "tls", "policy", "set", "strict.plain.example", "--level", "encrypt", "--dir", n.Dir); err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		to := "x@" + domainOf(x)
		if err := submit(t, n, ada, []string{to}, letter(ada.Address, to, x.name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range list {
		t.Run(x.name, func(t *testing.T) { judgeTarget(t, n, box, x) })
	}
	t.Run("after the policy is gone", func(t *testing.T) {
		if _, err := n.Command(t.Context(), nil, "tls", "policy", "remove", "strict.plain.example", "--dir", n.Dir); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Command(t.Context(), nil, "queue", "retry", "--destination", "strict.plain.example", "--dir", n.Dir); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "mail to strict.plain.example", func() bool { return len(box.got("strict.plain.example")) == 1 })
	})
	t.Run("what senders ask for", func(t *testing.T) { askForTLS(t, n, box) })
}

func domainOf(x target) string {
	if x.signed {
		return x.name + ".signed.example"
	}
	return x.name + ".plain.example"
}

// judgeTarget waits until a first attempt was made, and holds what came of it.
func judgeTarget(t *testing.T, n *rig.Node, box *targets, x target) {
	domain := domainOf(x)
	if !strings.HasPrefix(x.want, "4.") {
		waitFor(t, "mail to "+domain, func() bool { return len(box.got(domain)) == 1 })
		waitFor(t, "the log of it", func() bool {
			return strings.Contains(logLine(n, "to=x@"+domain), "status=delivered") && strings.Contains(logLine(n, "to=x@"+domain), policyField(x.want))
		})
		return
	}
	waitFor(t, domain+" put off with "+x.want, func() bool {
		out, err := n.Command(t.Context(), nil, "queue", "list", "--destination", domain, "--json", "--dir", n.Dir)
		return err == nil && strings.Contains(out, `"`+x.want+`"`)
	})
	if got := box.got(domain); len(got) != 0 {
		t.Errorf("%s got mail %d times", domain, len(got))
	}
}

// policyField is how the log writes a policy.
func policyField(policy string) string {
	if strings.Contains(policy, " ") {
		policy = strconv.Quote(policy)
	}
	return "policy=" + policy
}

// logLine is the newest line of the log about an attempt that holds a text.
func logLine(n *rig.Node, text string) string {
	found := ""
	for line := range strings.SplitSeq(n.Log(), "\n") {
		if strings.Contains(line, "queue: attempt") && strings.Contains(line, text) {
			found = line
		}
	}
	return found
}

// servePolicies serves MTA-STS policies by the name of their host.
func servePolicies(t *testing.T, ca *authority, port int, policies map[string]string) {
	t.Helper()
	names := make([]string, 0, len(policies))
	for name := range policies {
		names = append(names, name)
	}
	cert, _ := ca.issue(t, 24*time.Hour, names...)
	l, err := net.Listen("tcp", rig.Loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		ReadHeaderTimeout: time.Minute,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{*cert}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name, _, _ := strings.Cut(r.Host, ":")
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, policies[name]) // whoever went away needs it no more
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.ServeTLS(l, "", "") // ends with Close
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

// askForTLS sends with REQUIRETLS and with "TLS-Required: No" (RFC 8689).
func askForTLS(t *testing.T, n *rig.Node, box *targets) {
	send := func(to, header string, required bool) {
		t.Helper()
		c, err := smtp.DialStartTLS(n.Submission, trust(t, n.CAFile))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Auth(sasl.NewPlainClient("", ada.Address, ada.Password)); err != nil {
			t.Fatal(err)
		}
		if err := c.Mail(ada.Address, &smtp.MailOptions{RequireTLS: required}); err != nil {
			t.Fatal(err)
		}
		if err := c.Rcpt(to, nil); err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, header+string(letter(ada.Address, to, "asked"))); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	send("y@dane.signed.example", "", true)
	waitFor(t, "mail with REQUIRETLS", func() bool { return slices.Contains(box.got("dane.signed.example"), "REQUIRETLS") })
	send("y@bare.plain.example", "", true)
	dsn := strings.ReplaceAll(string(waitForMail(t, n, ada, "INBOX", 1)[0].body), "\r\n ", " ")
	if !strings.Contains(dsn, "Status: 5.7.10") || len(box.got("bare.plain.example")) != 1 {
		t.Errorf("REQUIRETLS to a server that nobody vouches for: %s", dsn)
	}
	send("y@stripped.signed.example", "TLS-Required: No\r\n", false)
	waitFor(t, "mail that asks for less", func() bool { return len(box.got("stripped.signed.example")) == 1 })
	var queued []json.RawMessage
	out, err := n.Command(t.Context(), nil, "queue", "list", "--destination", "stripped.signed.example", "--json", "--dir", n.Dir)
	if err != nil || json.Unmarshal([]byte(out), &queued) != nil || len(queued) != 1 {
		t.Errorf("the message that asks for nothing no longer waits: %v\n%s", err, out)
	}
}

package transport

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/wire"
)

// server is a scripted SMTP server: it answers each command by its verb, from answers where there is one.
type server struct {
	l       net.Listener
	ehlo    []string          // keywords
	answers map[string]string // by "VERB" or "VERB arg-prefix": a reply, "close" to hang up, "wait" to stay silent, "hang" to do so till the client gives up
	greet   string
	tls     *tls.Config
	first   *tls.Config // TLS before the greeting
	noTLS   bool        // breaks off when a handshake begins
	inject  bool        // sends octets behind the consent to STARTTLS

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool
	lines []string // every command
	mail  []string // every body taken
	count int      // connections
	stop  chan struct{}
	hung  chan struct{} // closed when it hangs
	once  sync.Once
}

func newServer(t testing.TB, change func(*server)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		l: l, greet: "220 mx.test ESMTP", answers: map[string]string{}, conns: map[net.Conn]bool{}, stop: make(chan struct{}), hung: make(chan struct{}),
		ehlo: []string{"PIPELINING", "8BITMIME", "SIZE 10000000", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"},
	}
	if change != nil {
		change(s)
	}
	if s.first != nil {
		s.l = tls.NewListener(l, s.first)
	}
	s.wg.Go(s.accept)
	t.Cleanup(func() {
		close(s.stop)
		_ = l.Close()
		s.mu.Lock()
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

func (s *server) addr() netip.AddrPort { return s.l.Addr().(*net.TCPAddr).AddrPort() }

func (s *server) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.count++
		s.mu.Unlock()
		s.wg.Go(func() {
			s.serve(c)
			_ = c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *server) seen() (lines, mail []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...), append([]string(nil), s.mail...)
}

func (s *server) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// script finds the scripted answer to a line; the longest prefix wins.
func (s *server) script(line string) string {
	best, out := -1, ""
	for k, v := range s.answers {
		if strings.HasPrefix(strings.ToUpper(line), strings.ToUpper(k)) && len(k) > best {
			best, out = len(k), v
		}
	}
	return out
}

func (s *server) serve(c net.Conn) {
	if s.greet == "hang" {
		s.hang()
		return
	}
	say := func(text string) {
		_, _ = io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
	}
	if s.greet == "close" {
		return
	}
	say(s.greet)
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		answer := s.script(line)
		switch answer {
		case "close":
			return
		case "hang":
			s.hang()
			return
		case "wait":
			<-s.stop
			return
		}
		switch verb {
		case "EHLO":
			if answer == "" {
				answer = "250-mx.test\n"
				for _, k := range s.ehlo {
					answer += "250-" + k + "\n"
				}
				if s.tls != nil || s.noTLS || s.inject {
					answer += "250-STARTTLS\n"
				}
				answer += "250 HELP"
			}
			say(answer)
		case "STARTTLS":
			if answer != "" {
				say(answer)
				continue
			}
			if s.inject {
				say("220 go\n250 injected")
				continue
			}
			say("220 go")
			if s.noTLS {
				return
			}
			tc := tls.Server(c, s.tls)
			if tc.Handshake() != nil {
				return
			}
			c = tc
			in = bufio.NewReader(c)
		case "DATA":
			if answer == "" {
				answer = "354 go"
			}
			say(answer)
			if !strings.HasPrefix(answer, "354") {
				continue
			}
			var body strings.Builder
			for {
				l, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				body.WriteString(strings.TrimPrefix(l, "."))
			}
			if !s.end(body.String(), say) {
				return
			}
		case "BDAT":
			var n int
			var last string
			_, _ = fmt.Sscanf(line, "BDAT %d %s", &n, &last)
			body := make([]byte, n)
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}
			if !s.end(string(body), say) {
				return
			}
		case "QUIT":
			say("221 bye")
			return
		default:
			if answer == "" {
				answer = "250 2.0.0 ok"
				if verb == "RCPT" {
					answer = "250 2.1.5 ok"
				}
			}
			say(answer)
		}
	}
}

// hang stays silent until the test ends; an impatient client gives up.
func (s *server) hang() {
	s.once.Do(func() { close(s.hung) })
	<-s.stop
}

// impatient is a client's end whose time for reading is over as soon as the server hangs: so a test of silence neither
// waits nor takes a slow answer for none.
type impatient struct {
	net.Conn
	hung   <-chan struct{}
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex // between the end of the time and a new deadline
	over   bool
}

func newImpatient(nc net.Conn, hung <-chan struct{}) *impatient {
	c := &impatient{Conn: nc, hung: hung, closed: make(chan struct{})}
	go func() {
		select {
		case <-c.hung:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.over = true
			_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
		case <-c.closed:
		}
	}()
	return c
}

// Read still takes what came before the end.
func (c *impatient) Read(p []byte) (n int, err error) {
	n, err = c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over || !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(fd uintptr) { n, err = syscall.Read(int(fd), p) }); cerr != nil {
		return 0, cerr
	}
	if err != nil || n <= 0 { // nothing is there
		return 0, wire.ErrTooSlow // a deadline that fired too soon would be waited for again
	}
	return n, nil
}

func (c *impatient) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		t = time.Unix(1, 0)
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *impatient) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// end answers a body.
func (s *server) end(body string, say func(string)) bool {
	answer := s.answers["."]
	switch answer {
	case "close":
		return false
	case "hang":
		s.hang()
		return false
	case "":
		answer = "250 2.0.0 queued as ABC"
	}
	s.mu.Lock()
	if strings.HasPrefix(answer, "2") {
		s.mail = append(s.mail, body)
	}
	s.mu.Unlock()
	say(answer)
	return true
}

// fakeDNS answers from maps; names that are not there don't exist.
type fakeDNS struct {
	mx  map[string]dns.MX
	ip  map[string][]string
	err map[string]error

	tlsa  map[string]dns.TLSAs
	alias map[string]dns.Answer
}

func (f fakeDNS) MX(_ context.Context, domain string) (dns.MX, error) {
	if err := f.err[domain]; err != nil {
		return dns.MX{}, err
	}
	if mx, ok := f.mx[domain]; ok {
		return mx, nil
	}
	return dns.MX{Hosts: []dns.Exchanger{{Host: domain}}, Implicit: true}, nil
}

func (f fakeDNS) IP(_ context.Context, name string) (dns.IPs, error) {
	if err := f.err[name]; err != nil {
		return dns.IPs{}, err
	}
	var out dns.IPs
	for _, a := range f.ip[name] {
		out.Addrs = append(out.Addrs, netip.MustParseAddr(a))
	}
	if len(out.Addrs) == 0 {
		return out, &dns.Error{Name: name, Type: "A", Err: dns.ErrNoData}
	}
	return out, nil
}

func (f fakeDNS) TLSA(_ context.Context, name string) (dns.TLSAs, error) {
	if err := f.err[name]; err != nil {
		return dns.TLSAs{}, err
	}
	if r, ok := f.tlsa[name]; ok {
		return r, nil
	}
	return dns.TLSAs{}, &dns.Error{Name: name, Type: "TLSA", Err: dns.ErrNotFound}
}

func (f fakeDNS) Alias(_ context.Context, name string) (dns.Answer, error) {
	if a, ok := f.alias[name]; ok {
		return a, nil
	}
	return dns.Answer{}, &dns.Error{Name: name, Type: "CNAME", Err: dns.ErrNoData}
}

// content makes a Content of a text.
func text(s string) Content { return strings.NewReader(s) }

func mx(hosts ...string) dns.MX {
	var m dns.MX
	for i, h := range hosts {
		name, same := strings.CutPrefix(h, "=")
		pref := uint16(10 * (i + 1))
		if same {
			pref = m.Hosts[i-1].Preference
		}
		m.Hosts = append(m.Hosts, dns.Exchanger{Host: name, Preference: pref})
	}
	return m
}

// authority is a CA for tests with one server certificate.
func authority(t *testing.T, names ...string) (*x509.CertPool, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, DNSNames: names,
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	caCert, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, caCert, &leafKey.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(caCert)
	return pool, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: leafKey}}}
}

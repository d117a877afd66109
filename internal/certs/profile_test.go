package certs

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// keyringFor makes a keyring with one certificate for host, of ECDSA or RSA.
func keyringFor(t *testing.T, host string, rsaKey bool) (*Keyring, Pair) {
	t.Helper()
	certPEM, keyPEM, err := SelfSigned([]string{host}, time.Now())
	if rsaKey {
		certPEM, keyPEM, err = selfSignedRSA(host)
	}
	if err != nil {
		t.Fatal(err)
	}
	pair := writePair(t, t.TempDir(), certPEM, keyPEM)
	k, err := Open([]Pair{pair}, discard)
	if err != nil {
		t.Fatal(err)
	}
	return k, pair
}

func selfSignedRSA(host string) (certPEM, keyPEM []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

func writePair(t *testing.T, dir string, certPEM, keyPEM []byte) Pair {
	t.Helper()
	p := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for name, data := range map[string][]byte{p.Cert: certPEM, p.Key: keyPEM} {
		if err := os.WriteFile(name+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// probe sends one hand-made ClientHello to a server of cfg and tells what it chose: the version and suite of its
// ServerHello, or ok false when it answered with an alert or hung up.
func probe(cfg *tls.Config, hello []byte) (version, suite uint16, compression byte, ok bool) {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn := tls.Server(server, cfg)
		_ = conn.Handshake() // the probe looks at the wire, and most probes fail
		server.Close()
	}()
	defer func() { client.Close(); <-done }()
	_ = client.SetDeadline(time.Now().Add(2 * time.Minute))
	go func() { _, _ = client.Write(hello) }()
	head := make([]byte, 5)
	if _, err := io.ReadFull(client, head); err != nil || head[0] != 22 {
		return 0, 0, 0, false
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(client, body); err != nil || body[0] != 2 {
		return 0, 0, 0, false
	}
	version = binary.BigEndian.Uint16(body[4:])
	rest := body[4+2+32:]
	rest = rest[1+int(rest[0]):] // session id
	suite, compression, rest = binary.BigEndian.Uint16(rest), rest[2], rest[3:]
	if len(rest) >= 2 { // supported_versions in a TLS 1.3 ServerHello holds the true version
		for ext := rest[2:]; len(ext) >= 4; {
			n := int(binary.BigEndian.Uint16(ext[2:]))
			if binary.BigEndian.Uint16(ext) == 43 {
				version = binary.BigEndian.Uint16(ext[4:])
			}
			ext = ext[4+n:]
		}
	}
	return version, suite, compression, true
}

// clientHello makes a ClientHello (RFC 5246, section 7.4.1.2 and RFC 8446, section 4.1.2) that offers exactly these.
func clientHello(t *testing.T, version uint16, suiteList []uint16, compressions []byte) []byte {
	t.Helper()
	share, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var ext bytes.Buffer
	put := func(kind uint16, data []byte) {
		ext.Write(binary.BigEndian.AppendUint16(nil, kind))
		ext.Write(binary.BigEndian.AppendUint16(nil, uint16(len(data))))
		ext.Write(data)
	}
	put(10, []byte{0, 6, 0, 29, 0, 23, 0, 24})                 // supported_groups: x25519, P-256, P-384
	put(11, []byte{1, 0})                                      // ec_point_formats: uncompressed
	put(13, []byte{0, 12, 4, 3, 8, 4, 4, 1, 2, 1, 2, 3, 8, 7}) // signature_algorithms, SHA-1 among them
	put(23, nil)                                               // extended_master_secret
	put(65281, []byte{0})                                      // renegotiation_info
	if version == tls.VersionTLS13 {
		put(43, []byte{2, 3, 4}) // supported_versions
		put(51, append([]byte{0, 36, 0, 29, 0, 32}, share.PublicKey().Bytes()...))
	}
	legacy := min(version, tls.VersionTLS12)
	body := binary.BigEndian.AppendUint16(nil, legacy)
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	body = append(body, random...)
	body = append(body, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(2*len(suiteList)))
	for _, s := range suiteList {
		body = binary.BigEndian.AppendUint16(body, s)
	}
	body = append(body, byte(len(compressions)))
	body = append(body, compressions...)
	body = binary.BigEndian.AppendUint16(body, uint16(ext.Len()))
	body = append(body, ext.Bytes()...)
	msg := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

// everySuite is all code points that IANA has given to TLS suites, and their neighbours.
func everySuite() []uint16 {
	var out []uint16
	for _, r := range [][2]int{{0x0000, 0x00ff}, {0x1300, 0x130a}, {0xc000, 0xc1ff}, {0xcc00, 0xccff}, {0xd000, 0xd00a}} {
		for s := r[0]; s <= r[1]; s++ {
			if s != 0x00ff { // a signal, not a suite
				out = append(out, uint16(s))
			}
		}
	}
	return out
}

// Checks 1, 2 and 4: every suite on every version against both kinds of certificate.
func TestOnlyEphemeralAEADSuitesAreTaken(t *testing.T) {
	t.Parallel()
	want := map[bool][]uint16{
		false: {0xc02b, 0xc02c, 0xcca9},
		true:  {0xc02f, 0xc030, 0xcca8},
	}
	for _, rsaKey := range []bool{false, true} {
		k, _ := keyringFor(t, "mx.example.test", rsaKey)
		cfg := k.ServerConfig(WithoutTickets)
		for _, version := range []uint16{0x0300, tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("rsa=%v version=%#04x", rsaKey, version), func(t *testing.T) {
				t.Parallel()
				var taken []uint16
				for _, s := range everySuite() {
					v, got, _, ok := probe(cfg, clientHello(t, version, []uint16{s}, []byte{0}))
					if !ok {
						continue
					}
					if v != version || got != s {
						t.Errorf("offered %#04x of %#04x, the server chose %#04x of %#04x", s, version, got, v)
					}
					taken = append(taken, s)
				}
				var expect []uint16
				switch version {
				case tls.VersionTLS12:
					expect = want[rsaKey]
				case tls.VersionTLS13:
					expect = []uint16{0x1301, 0x1302, 0x1303}
				}
				if !slices.Equal(taken, expect) {
					t.Errorf("taken: %#04x, want %#04x", taken, expect)
				}
			})
		}
	}
}

// Check 4: compression is not chosen although it is offered first.
func TestCompressionIsNeverChosen(t *testing.T) {
	t.Parallel()
	k, _ := keyringFor(t, "mx.example.test", false)
	_, _, compression, ok := probe(k.ServerConfig(WithTickets), clientHello(t, tls.VersionTLS12, []uint16{0xc02b}, []byte{1, 0}))
	if !ok || compression != 0 {
		t.Errorf("compression %d, ok %v", compression, ok)
	}
}

// Check 3.
func TestKeyExchangeGroups(t *testing.T) {
	t.Parallel()
	k, _ := keyringFor(t, "mx.example.test", false)
	for _, c := range []struct {
		name  string
		offer []tls.CurveID
		want  tls.CurveID
	}{
		{"hybrid", []tls.CurveID{tls.X25519MLKEM768}, tls.X25519MLKEM768},
		{"hybrid preferred", []tls.CurveID{tls.CurveP256, tls.X25519, tls.X25519MLKEM768}, tls.X25519MLKEM768},
		{"x25519", []tls.CurveID{tls.X25519}, tls.X25519},
		{"P-256", []tls.CurveID{tls.CurveP256}, tls.CurveP256},
		{"P-384", []tls.CurveID{tls.CurveP384}, tls.CurveP384},
		{"P-521 is not offered", []tls.CurveID{tls.CurveP521}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			state, err := handshake(t, k.ServerConfig(WithTickets), &tls.Config{InsecureSkipVerify: true, CurvePreferences: c.offer, MinVersion: tls.VersionTLS13}) //nolint:gosec // the group is judged, not the certificate
			if c.want == 0 {
				if err == nil {
					t.Errorf("handshake succeeded with %v", state.CurveID)
				}
				return
			}
			if err != nil || state.CurveID != c.want {
				t.Errorf("group %v, %v, want %v", state.CurveID, err, c.want)
			}
		})
	}
}

// handshake runs one over a pipe; the server sends an octet after it so that the client reads any tickets.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(b, server)
		_, err := conn.Write([]byte("x"))
		_ = conn.Close()
		done <- err
	}()
	conn := tls.Client(a, client)
	_ = a.SetDeadline(time.Now().Add(2 * time.Minute))
	_, err := conn.Read(make([]byte, 1))
	state := conn.ConnectionState()
	_ = a.Close()
	return state, errors.Join(err, <-done)
}

// ticketCounter counts the sessions that a client could resume.
type ticketCounter struct{ n int }

func (c *ticketCounter) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *ticketCounter) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.n++
	}
}

// golang/go#70232: Microsoft's servers break off a STARTTLS handshake with a ticket.
func TestTicketsAreSentOnlyWhereAllowed(t *testing.T) {
	t.Parallel()
	k, _ := keyringFor(t, "mx.example.test", false)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tickets := range []Tickets{WithTickets, WithoutTickets} {
			counter := &ticketCounter{}
			_, err := handshake(t, k.ServerConfig(tickets), &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.test", MinVersion: version, MaxVersion: version, ClientSessionCache: counter}) //nolint:gosec // tickets are judged
			if err != nil {
				t.Fatal(err)
			}
			if got := counter.n > 0; got != bool(tickets) {
				t.Errorf("version %#04x: tickets %v, want %v", version, got, bool(tickets))
			}
		}
	}
}

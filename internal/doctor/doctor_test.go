package doctor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/certs"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/dns/dnstest"
	"waxwing/internal/porttest"
	"waxwing/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runningCarrier says of a carrier that a server answers it.
type runningCarrier struct{ control.Carrier }

func (runningCarrier) Running() bool { return true }

// subject is a server in order: what each test spoils is all that its check may find.
func subject(t *testing.T) Subject {
	t.Helper()
	b := controltest.New(t, nil)
	cfg := config.Default()
	cfg.Hostname, cfg.DataDir = "mx.example.test", b.Dir
	cfg.Spool.DiskReserve = 1
	return Subject{Config: &cfg, Carrier: control.Direct(b.Service), Sample: 10, Clock: time.Now}
}

func only(t *testing.T, got []result, want Status, seen string) {
	t.Helper()
	if len(got) != 1 || got[0].status != want || !strings.Contains(got[0].seen, seen) {
		t.Errorf("found %+v, want %s with %q", got, want, seen)
		return
	}
	if want != OK && got[0].fix == "" {
		t.Errorf("no fix for %q", got[0].seen)
	}
}

func TestSpaceIsJudgedByTheReserve(t *testing.T) {
	t.Parallel()
	s := subject(t)
	only(t, runSpace(t.Context(), s), OK, "free at")
	s.Config.Spool.DiskReserve = 1 << 60
	only(t, runSpace(t.Context(), s), Fail, "in reserve")
	s.Config.DataDir = filepath.Join(s.Config.DataDir, "nowhere")
	only(t, runSpace(t.Context(), s), Fail, "can't be read")
}

func TestDiskIsMeasuredAndLeftClean(t *testing.T) {
	t.Parallel()
	s := subject(t)
	before, err := os.ReadDir(s.Config.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	got := runSpeed(t.Context(), s)
	if len(got) != 1 || !strings.Contains(got[0].seen, "is safe after") {
		t.Errorf("found %+v", got)
	}
	after, err := os.ReadDir(s.Config.DataDir)
	if err != nil || len(after) != len(before) {
		t.Errorf("%d files before, %d after, %v", len(before), len(after), err)
	}
	s.Config.DataDir = filepath.Join(s.Config.DataDir, "nowhere")
	only(t, runSpeed(t.Context(), s), Fail, "failed")
}

// issue makes a certificate that a throw-away authority has signed.
func issue(t *testing.T, name string, from, until time.Time) config.Certificate {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, NotBefore: from, NotAfter: until}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: until}
	leafKey := key()
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), key())
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return writePair(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func writePair(t *testing.T, cert, key []byte) config.Certificate {
	t.Helper()
	dir := t.TempDir()
	c := config.Certificate{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	if err := errors.Join(os.WriteFile(c.Cert, cert, 0o600), os.WriteFile(c.Key, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCertificatesAreJudgedByDatesNamesAndIssuer(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	cert, key, err := certs.SelfSigned([]string{"mx.example.test"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cert config.Certificate
		want Status
		seen string
	}{
		{"self-signed", writePair(t, cert, key), Warn, "self-signed"},
		{"unknown authority", issue(t, "mx.example.test", now.Add(-day), now.Add(90*day)), Warn, "unknown authority"},
		{"expired", issue(t, "mx.example.test", now.Add(-90*day), now.Add(-day)), Fail, "expired"},
		{"not yet valid", issue(t, "mx.example.test", now.Add(day), now.Add(90*day)), Fail, "not valid yet"},
		{"another name", issue(t, "other.example.test", now.Add(-day), now.Add(90*day)), Fail, "not for the host name mx.example.test"},
		{"soon", issue(t, "mx.example.test", now.Add(-day), now.Add(20*day)), Warn, "expires in 20 days"},
		{"very soon", issue(t, "mx.example.test", now.Add(-day), now.Add(2*day)), Fail, "expires in 2 days"},
		{"missing", config.Certificate{Cert: "nowhere", Key: "nowhere"}, Fail, "can't be used"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := config.Default()
			cfg.Hostname, cfg.Certificates = "mx.example.test", []config.Certificate{c.cert}
			only(t, runCertificates(t.Context(), Subject{Config: &cfg, Clock: func() time.Time { return now }}), c.want, c.seen)
		})
	}
	cfg := config.Default()
	only(t, runCertificates(t.Context(), Subject{Config: &cfg, Clock: time.Now}), Fail, "no certificate")
}

func TestResolversAreAsked(t *testing.T) {
	t.Parallel()
	srv := dnstest.New(t, "")
	s := subject(t)
	s.Config.DNS.Timeout = config.Duration(time.Minute)
	s.Config.DNS.Resolvers = []string{srv.Addr()}
	only(t, runResolvers(t.Context(), s), OK, "answers in")
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s.Config.DNS.Timeout = config.Duration(200 * time.Millisecond)
	s.Config.DNS.Resolvers = []string{silent.LocalAddr().String()}
	only(t, runResolvers(t.Context(), s), Fail, "does not answer")
}

func TestClockBehindWhatHappenedIsFound(t *testing.T) {
	t.Parallel()
	s := subject(t)
	s.BuiltAt = time.Now().Add(time.Hour)
	only(t, runClock(t.Context(), s), Fail, "before this program was built")
	s.BuiltAt = time.Time{}
	s.Clock = func() time.Time { return time.Now().Add(-time.Hour) }
	only(t, runClock(t.Context(), s), Fail, "was written at")
	s.Clock = time.Now
	if got := runClock(t.Context(), s); len(got) != 1 || got[0].status == Fail {
		t.Errorf("a clock in order: %+v", got)
	}
}

func TestListenersAreConnectedToOrTriedToBind(t *testing.T) {
	t.Parallel()
	ports, err := porttest.Reserve(1) // stays free when nobody listens on it
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])))
	if err != nil {
		t.Fatal(err)
	}
	s := subject(t)
	s.Config.Listeners = []config.Listener{{Address: l.Addr().String(), Protocol: config.IMAP, TLS: config.Implicit}}
	only(t, runListeners(t.Context(), s), Fail, "another program has this port")
	s.Carrier = runningCarrier{s.Carrier}
	only(t, runListeners(t.Context(), s), OK, "takes connections")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	only(t, runListeners(t.Context(), s), Fail, "can't be reached")
	s.Carrier = nil
	only(t, runListeners(t.Context(), s), OK, "is free to be bound")
}

func TestQueueIsJudgedByAgeAndDamage(t *testing.T) {
	t.Parallel()
	b := controltest.New(t, nil)
	s := Subject{Carrier: control.Direct(b.Service), Clock: time.Now}
	only(t, runQueue(t.Context(), s), OK, "empty")
	_, err := b.Store.Deliver(t.Context(), store.Delivery{Content: bytes.NewReader([]byte("S: x\r\n\r\n")), Queue: &store.QueueMessage{
		TraceID: "x", Size: 8, Recipients: []store.QueueRecipient{{To: "r@remote.test", Domain: "remote.test"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	only(t, runQueue(t.Context(), s), OK, "1 messages to 1 destinations")
	s.Clock = func() time.Time { return time.Now().Add(5 * time.Hour) }
	only(t, runQueue(t.Context(), s), Warn, "the oldest waits for 5h")
}

func TestServerStateIsTold(t *testing.T) {
	t.Parallel()
	s := subject(t)
	only(t, runServer(t.Context(), s), Warn, "stopped")
	s.Carrier = runningCarrier{s.Carrier}
	only(t, runServer(t.Context(), s), Fail, "does not tell its state")
	s.Carrier, s.Problem = nil, errors.New("locked")
	only(t, runServer(t.Context(), s), Fail, "locked")
	if got := runSample(t.Context(), s); len(got) != 1 || got[0].status != Fail {
		t.Errorf("sample without a store: %+v", got)
	}
}

func TestExamineReportsEachCheckAndEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := subject(t)
	s.Config.DNS.Resolvers, s.Config.DNS.Timeout = []string{"127.0.0.1:1"}, config.Duration(100*time.Millisecond)
	seen := map[string]bool{}
	Examine(t.Context(), s, func(f Finding) {
		seen[f.Check] = true
		if f.Seen == "" || f.Why == "" {
			t.Errorf("%s says too little: %+v", f.Check, f)
		}
	})
	for _, c := range checks {
		if !seen[c.name] && c.name != "listeners" { // there are none
			t.Errorf("%s reports nothing", c.name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	Examine(ctx, s, func(Finding) { n++; cancel() })
	if n > 2 {
		t.Errorf("%d findings after the end of the context", n)
	}
}

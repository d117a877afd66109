package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

var discard = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSelfSignedCertificateIsP256ForItsNames(t *testing.T) {
	t.Parallel()
	now := time.Now()
	certPEM, keyPEM, err := SelfSigned([]string{"mx.example.test", "localhost", "127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := pair.Leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key is %T", pair.Leaf.PublicKey)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for name, ok := range map[string]bool{"mx.example.test": true, "localhost": true, "127.0.0.1": true, "other.test": false} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now})
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if life := pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore); life > 825*24*time.Hour {
		t.Errorf("valid for %v", life)
	}
	if _, _, err := SelfSigned(nil, now); err == nil {
		t.Error("a certificate without names was made")
	}
}

func TestReloadTakesAGoodPairAndKeepsTheOldOverABadOne(t *testing.T) {
	t.Parallel()
	k, pair := keyringFor(t, "old.example.test", false)
	cfg := k.ServerConfig(WithTickets)
	shown := func() string {
		state, err := handshake(t, cfg, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the name is compared
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].DNSNames[0]
	}
	if shown() != "old.example.test" {
		t.Fatalf("shown: %s", shown())
	}
	oldKey, err := os.ReadFile(pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := SelfSigned([]string{"new.example.test"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := pair.Cert[:len(pair.Cert)-len("/cert.pem")]
	for what, files := range map[string][2][]byte{
		"half a certificate":    {certPEM[:len(certPEM)/2], keyPEM},
		"a key of another pair": {certPEM, oldKey},
		"empty files":           {nil, nil},
	} {
		writePair(t, dir, files[0], files[1])
		if n, err := k.Reload(); err == nil || n != 0 {
			t.Errorf("%s: Reload gives %d, %v", what, n, err)
		}
		if shown() != "old.example.test" {
			t.Errorf("%s: shown: %s", what, shown())
		}
	}
	writePair(t, dir, certPEM, keyPEM)
	if n, err := k.Reload(); err != nil || n != 1 {
		t.Errorf("Reload gives %d, %v", n, err)
	}
	if shown() != "new.example.test" {
		t.Errorf("shown after reload: %s", shown())
	}
	if n, err := k.Reload(); err != nil || n != 0 {
		t.Errorf("Reload of the same files gives %d, %v", n, err)
	}
}

func TestWatchTakesUpReplacedFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, pair := keyringFor(t, "old.example.test", false)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); k.Watch(ctx, time.Minute) }()
		certPEM, keyPEM, err := SelfSigned([]string{"new.example.test"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		writePair(t, pair.Cert[:len(pair.Cert)-len("/cert.pem")], certPEM, keyPEM)
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if got := k.Certificates()[0].Leaf.DNSNames[0]; got != "new.example.test" {
			t.Errorf("in use: %s", got)
		}
		cancel()
		<-done
	})
}

func TestCertificateIsChosenByName(t *testing.T) {
	t.Parallel()
	_, a := keyringFor(t, "a.example.test", false)
	_, b := keyringFor(t, "b.example.test", false)
	k, err := Open([]Pair{a, b}, discard)
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{"a.example.test": "a.example.test", "b.example.test": "b.example.test", "c.example.test": "a.example.test", "": "a.example.test"} {
		state, err := handshake(t, k.ServerConfig(WithTickets), &tls.Config{InsecureSkipVerify: true, ServerName: asked}) //nolint:gosec // the name is compared
		if err != nil {
			t.Fatal(err)
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("asked for %q, got %s, want %s", asked, got, want)
		}
	}
}

func TestOpenRefusesWhatCannotServe(t *testing.T) {
	t.Parallel()
	_, a := keyringFor(t, "a.example.test", false)
	_, b := keyringFor(t, "b.example.test", false)
	for name, pairs := range map[string][]Pair{"none": nil, "missing": {{"nowhere.pem", "nokey.pem"}}, "mismatch": {{a.Cert, b.Key}}} {
		if _, err := Open(pairs, discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

package dane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"waxwing/internal/dns"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate signed by parent, or by itself.
func issue(t *testing.T, parent *pair, edit func(*x509.Certificate)) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), BasicConstraintsValid: true,
	}
	edit(c)
	up, signer := c, crypto.Signer(key)
	if parent != nil {
		up, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, up, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &pair{c, key}
}

func ca(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.Subject.CommonName = true, x509.KeyUsageCertSign, "Test CA"
}

func record(usage, selector, matching uint8, c *x509.Certificate) dns.TLSA {
	data := c.Raw
	if selector == SelectorSPKI {
		data = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case MatchSHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case MatchSHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return dns.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
}

func TestEveryKindOfRecordFitsItsCertificateAndNoOther(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, ca)
	leaf := issue(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"mx.example.test"} })
	other := issue(t, nil, func(c *x509.Certificate) { c.DNSNames = []string{"mx.example.test"} })
	otherRoot := issue(t, nil, ca)
	chain := []*x509.Certificate{leaf.cert, root.cert}
	names := []string{"mx.example.test"}
	for _, usage := range []uint8{UsageTA, UsageEE} {
		right, wrong := root.cert, otherRoot.cert
		if usage == UsageEE {
			right, wrong = leaf.cert, other.cert
		}
		for _, selector := range []uint8{SelectorCert, SelectorSPKI} {
			for _, matching := range []uint8{MatchFull, MatchSHA256, MatchSHA512} {
				good, bad := record(usage, selector, matching, right), record(usage, selector, matching, wrong)
				if err := New([]dns.TLSA{good}).Verify(chain, names, now); err != nil {
					t.Errorf("%d %d %d: %v", usage, selector, matching, err)
				}
				if err := New([]dns.TLSA{bad}).Verify(chain, names, now); !errors.Is(err, ErrMismatch) {
					t.Errorf("%d %d %d of another certificate: %v", usage, selector, matching, err)
				}
				if err := New([]dns.TLSA{bad, good}).Verify(chain, names, now); err != nil {
					t.Errorf("%d %d %d beside a wrong one: %v", usage, selector, matching, err)
				}
			}
		}
	}
}

func TestATrustAnchorInTheRecordNeedNotBeInTheChain(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, ca)
	leaf := issue(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"mx.example.test"} })
	for _, selector := range []uint8{SelectorCert, SelectorSPKI} {
		set := New([]dns.TLSA{record(UsageTA, selector, MatchFull, root.cert)})
		if err := set.Verify([]*x509.Certificate{leaf.cert}, []string{"mx.example.test"}, now); err != nil {
			t.Errorf("selector %d: %v", selector, err)
		}
		stranger := issue(t, nil, func(c *x509.Certificate) { c.DNSNames = []string{"mx.example.test"} })
		if err := set.Verify([]*x509.Certificate{stranger.cert}, []string{"mx.example.test"}, now); !errors.Is(err, ErrMismatch) {
			t.Errorf("selector %d, a certificate of nobody: %v", selector, err)
		}
	}
}

func TestTimeAndNameCountForTrustAnchorsOnly(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, ca)
	expired := issue(t, root, func(c *x509.Certificate) {
		c.DNSNames, c.NotAfter = []string{"mx.example.test"}, now.Add(-time.Minute)
	})
	foreign := issue(t, root, func(c *x509.Certificate) { c.DNSNames = []string{"elsewhere.test"} })
	common := issue(t, root, func(c *x509.Certificate) { c.Subject.CommonName = "mx.example.test" })
	wild := issue(t, root, func(c *x509.Certificate) { c.Subject.CommonName = "*.example.test" })
	for _, tc := range []struct {
		what  string
		leaf  *pair
		usage uint8
		want  error
	}{
		{"expired, its own record", expired, UsageEE, nil},
		{"expired, below an anchor", expired, UsageTA, ErrExpired},
		{"another name, its own record", foreign, UsageEE, nil},
		{"another name, below an anchor", foreign, UsageTA, ErrName},
		{"common name alone, below an anchor", common, UsageTA, nil},
		{"wildcard in the common name", wild, UsageTA, nil},
	} {
		of := root.cert
		if tc.usage == UsageEE {
			of = tc.leaf.cert
		}
		err := New([]dns.TLSA{record(tc.usage, SelectorSPKI, MatchSHA256, of)}).Verify([]*x509.Certificate{tc.leaf.cert, root.cert}, []string{"example.test", "mx.example.test"}, now)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.what, err, tc.want)
		}
	}
}

func TestUnusableRecords(t *testing.T) {
	t.Parallel()
	leaf := issue(t, nil, func(*x509.Certificate) {})
	good := record(UsageEE, SelectorSPKI, MatchSHA256, leaf.cert)
	for what, edit := range map[string]func(*dns.TLSA){
		"PKIX-TA": func(r *dns.TLSA) { r.Usage = 0 }, "PKIX-EE": func(r *dns.TLSA) { r.Usage = 1 },
		"private usage": func(r *dns.TLSA) { r.Usage = 255 }, "unknown selector": func(r *dns.TLSA) { r.Selector = 2 },
		"unknown matching": func(r *dns.TLSA) { r.Matching = 3 }, "short digest": func(r *dns.TLSA) { r.Data = r.Data[:31] },
		"no certificate": func(r *dns.TLSA) { r.Matching = 0 },
	} {
		r := good
		edit(&r)
		if New([]dns.TLSA{r}).Usable() {
			t.Errorf("%s: usable", what)
		}
	}
	if !New([]dns.TLSA{good}).Usable() || New(nil).Usable() {
		t.Error("a good record is not usable, or none is")
	}
}

// TestTheStrongestDigestCounts holds RFC 7671, section 9: a weaker digest can't stand in for a stronger one that is wrong.
func TestTheStrongestDigestCounts(t *testing.T) {
	t.Parallel()
	leaf, other := issue(t, nil, func(*x509.Certificate) {}), issue(t, nil, func(*x509.Certificate) {})
	set := New([]dns.TLSA{record(UsageEE, 1, MatchSHA256, leaf.cert), record(UsageEE, 1, MatchSHA512, other.cert)})
	if err := set.Verify([]*x509.Certificate{leaf.cert}, nil, now); !errors.Is(err, ErrMismatch) {
		t.Errorf("SHA-256 counted beside SHA-512: %v", err)
	}
	set = New([]dns.TLSA{record(UsageEE, 0, MatchSHA256, leaf.cert), record(UsageEE, 1, MatchSHA512, other.cert)})
	if err := set.Verify([]*x509.Certificate{leaf.cert}, nil, now); err != nil {
		t.Errorf("another selector: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(uint8(2), uint8(1), uint8(0), []byte("x"))
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		leaf := &x509.Certificate{Raw: []byte("leaf"), RawSubjectPublicKeyInfo: []byte("key")}
		set := New([]dns.TLSA{{Usage: usage, Selector: selector, Matching: matching, Data: data}})
		if set.Verify([]*x509.Certificate{leaf}, []string{"a.test"}, now) == nil {
			t.Error("a certificate that is none was accepted")
		}
	})
}

// Package dane judges the certificate of a mail server by the TLSA records of its name: pure functions over records and
// certificates. It asks no DNS and opens no connection; whether the records may be believed (DNSSEC) is for the caller to
// know.
//
// Mail uses the usages DANE-TA(2) and DANE-EE(3) alone (RFC 7672, section 3.1). Records of other kinds are not usable; a
// set without a usable record still says that the server speaks TLS, which is then demanded without looking at the
// certificate (RFC 7672, section 2.2).
//
//	set := dane.New(records)
//	if set.Usable() { err = set.Verify(state.PeerCertificates, names, time.Now()) }
//
// It serves RFC 6698, 7671 and 7672.
package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing/internal/dns"
)

// The values of the fields of a TLSA record that mail uses (RFC 7218).
const (
	UsageTA uint8 = 2 // a trust anchor in the chain
	UsageEE uint8 = 3 // the server's own certificate

	SelectorCert uint8 = 0 // the whole certificate
	SelectorSPKI uint8 = 1 // its public key

	MatchFull   uint8 = 0
	MatchSHA256 uint8 = 1
	MatchSHA512 uint8 = 2
)

// Why a certificate does not fit; errors.Is finds them.
var (
	ErrMismatch = errors.New("no TLSA record fits the certificate")
	ErrName     = errors.New("the certificate is for another name")
	ErrExpired  = errors.New("the certificate is not valid at this time")
)

// maxRecords bounds the records of one name that are looked at, and maxChain the certificates of a server.
const (
	maxRecords = 64
	maxChain   = 16
)

// Set is the usable records of one name.
type Set struct {
	records []dns.TLSA
	all     int
}

// New picks the usable records. Of several digests of the same kind only the strongest counts (RFC 7671, section 9).
func New(records []dns.TLSA) Set {
	s := Set{all: len(records)}
	type kind struct{ usage, selector uint8 }
	best := map[kind]uint8{}
	for _, r := range records[:min(len(records), maxRecords)] {
		if !usable(r) {
			continue
		}
		s.records = append(s.records, r)
		k := kind{r.Usage, r.Selector}
		best[k] = max(best[k], r.Matching)
	}
	kept := s.records[:0]
	for _, r := range s.records {
		if r.Matching == MatchFull || r.Matching == best[kind{r.Usage, r.Selector}] {
			kept = append(kept, r)
		}
	}
	s.records = kept
	return s
}

// usable holds RFC 7672, section 3.1.3 (PKIX usages are not), and that the data can fit anything at all.
func usable(r dns.TLSA) bool {
	if r.Usage != UsageTA && r.Usage != UsageEE || r.Selector > SelectorSPKI {
		return false
	}
	switch r.Matching {
	case MatchSHA256:
		return len(r.Data) == sha256.Size
	case MatchSHA512:
		return len(r.Data) == sha512.Size
	case MatchFull:
		var err error
		if r.Selector == SelectorSPKI {
			_, err = x509.ParsePKIXPublicKey(r.Data)
		} else {
			_, err = x509.ParseCertificate(r.Data)
		}
		return err == nil
	}
	return false
}

// Usable tells whether a certificate can be judged by the set.
func (s Set) Usable() bool { return len(s.records) > 0 }

// String describes the set for the log.
func (s Set) String() string {
	return fmt.Sprintf("%d TLSA records, %d usable", s.all, len(s.records))
}

// Verify judges the chain of a server, its own certificate first. names are those that a certificate below a trust anchor
// may be for; DANE-EE asks neither for a name nor for the time (RFC 7672, sections 3.1.1 and 3.1.2).
func (s Set) Verify(chain []*x509.Certificate, names []string, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: there is none", ErrMismatch)
	}
	chain = chain[:min(len(chain), maxChain)]
	for _, r := range s.records {
		if r.Usage == UsageEE && fits(r, chain[0]) {
			return nil
		}
	}
	err := ErrMismatch
	for _, r := range s.records {
		if r.Usage != UsageTA {
			continue
		}
		for _, anchor := range anchors(r, chain) {
			failed := below(anchor, chain, names, now)
			if failed == nil {
				return nil
			}
			err = failed
		}
	}
	return err
}

// fits tells whether a record names a certificate.
func fits(r dns.TLSA, c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == SelectorSPKI {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case MatchSHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case MatchSHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}

// anchors are the certificates by which a record lets a chain be trusted: those of the chain that it names, and with a
// whole certificate or key in the record also what that has signed (RFC 7671, section 5.2).
func anchors(r dns.TLSA, chain []*x509.Certificate) []*x509.Certificate {
	var out []*x509.Certificate
	for _, c := range chain {
		if fits(r, c) {
			out = append(out, c)
		}
	}
	if r.Matching != MatchFull || len(out) > 0 {
		return out
	}
	if r.Selector == SelectorCert {
		c, err := x509.ParseCertificate(r.Data)
		if err != nil {
			return nil
		}
		return []*x509.Certificate{c}
	}
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return nil
	}
	signer := &x509.Certificate{PublicKey: key}
	for _, c := range chain {
		if signer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			out = append(out, c)
		}
	}
	return out
}

// below verifies that the chain leads up to the anchor, is valid now, and is for one of the names.
func below(anchor *x509.Certificate, chain []*x509.Certificate, names []string, now time.Time) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
	o.Roots.AddCert(anchor)
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(o); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return fmt.Errorf("%w: %w", ErrExpired, err)
		}
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	for _, name := range names {
		if named(chain[0], name) {
			return nil
		}
	}
	return fmt.Errorf("%w: not for %s", ErrName, strings.Join(names, ", "))
}

// named tells whether a certificate is for a host: by its alternative names, or without any by its common name (RFC 7672,
// section 3.2.3).
func named(c *x509.Certificate, name string) bool {
	if len(c.DNSNames) > 0 {
		return c.VerifyHostname(name) == nil
	}
	common := strings.ToLower(c.Subject.CommonName)
	name = strings.ToLower(name)
	if rest, ok := strings.CutPrefix(common, "*."); ok {
		label, parent, found := strings.Cut(name, ".")
		return found && label != "" && rest != "" && parent == rest
	}
	return common != "" && common == name
}

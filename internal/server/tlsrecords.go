package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/certs"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/mtasts"
)

// PublishedRecord is one DNS record that a domain should have, so that other servers can tell this one from an impostor.
type PublishedRecord struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
	Why   string `json:"why"`
}

// PublishedTLS is all that a domain should publish about TLS.
type PublishedTLS struct {
	Domain    string            `json:"domain"`
	Records   []PublishedRecord `json:"records"`
	PolicyURL string            `json:"policy_url"` // where the policy belongs
	Policy    string            `json:"policy"`
}

// TLSRecords says what a domain should publish, by this node's host name and certificates.
func TLSRecords(cfg *config.Config, domain string, mode mtasts.Mode, age time.Duration) (PublishedTLS, error) {
	name, err := address.ParseDomain(domain)
	if err != nil {
		return PublishedTLS{}, control.Errorf(control.Invalid, "%s: not a domain", domain)
	}
	pairs := make([]certs.Pair, len(cfg.Certificates))
	for i, c := range cfg.Certificates {
		pairs[i] = certs.Pair{Cert: c.Cert, Key: c.Key}
	}
	keys, err := certs.Open(pairs, slog.New(slog.DiscardHandler))
	if err != nil {
		return PublishedTLS{}, err
	}
	out := PublishedTLS{Domain: name, PolicyURL: "https://mta-sts." + name + mtasts.Path}
	for _, c := range keys.Certificates() {
		if c.Leaf.VerifyHostname(cfg.Hostname) != nil {
			continue
		}
		sum := sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)
		r := PublishedRecord{
			Name: "_25._tcp." + cfg.Hostname + ".", Type: "TLSA", Value: "3 1 1 " + hex.EncodeToString(sum[:]),
			Why: "DANE (RFC 7672): the key of the certificate; the zone must be signed, and a new key published before it is used",
		}
		if !slices.Contains(out.Records, r) {
			out.Records = append(out.Records, r)
		}
	}
	if len(out.Records) == 0 {
		return PublishedTLS{}, control.Errorf(control.Invalid, "no certificate of %s is for its host name %s: other servers could not verify it", cfg.Path, cfg.Hostname)
	}
	policy, err := mtasts.ParsePolicy(mtasts.Policy{Mode: mode, MX: []string{cfg.Hostname}, Age: age}.String())
	if err != nil {
		return PublishedTLS{}, control.Errorf(control.Invalid, "%w", err)
	}
	out.Policy = policy.String()
	id := sha256.Sum256([]byte(out.Policy)) // so it changes with the policy, as RFC 8461, section 3.1, asks
	out.Records = append(
		out.Records,
		PublishedRecord{Name: "_mta-sts." + name + ".", Type: "TXT", Value: fmt.Sprintf(`"v=STSv1; id=%x;"`, id[:10]), Why: "MTA-STS (RFC 8461): there is a policy, and when it changes"},
		PublishedRecord{Name: "_smtp._tls." + name + ".", Type: "TXT", Value: fmt.Sprintf(`"v=TLSRPTv1; rua=mailto:postmaster@%s"`, name), Why: "TLSRPT (RFC 8460): where other servers report failures to"},
	)
	return out, nil
}

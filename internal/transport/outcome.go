package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"

	"waxwing/internal/dane"
)

// The types of policies of RFC 8460, section 4.2.
const (
	TypeTLSA = "tlsa"
	TypeSTS  = "sts"
	TypeNone = "no-policy-found"
)

// The result types of RFC 8460, section 4.3, that are used in several places.
const (
	failValidation = "validation-failure"
	failStartTLS   = "starttls-not-supported"
)

// PolicyKey is the policy that a session was held to. Lists are joined by line ends, so that it can be a key.
type PolicyKey struct {
	Type    string // "": nothing is reported
	Strings string
	Hosts   string
}

var noPolicy = PolicyKey{Type: TypeNone}

// Outcome is what came of one TLS session, or of the attempt at one, for the reports of RFC 8460.
type Outcome struct {
	PolicyKey
	Domain  string // of the recipients
	Host    string
	IP      netip.Addr
	Local   netip.Addr
	Failure string // result type, "" for success
	Code    string // failure-reason-code
}

// tell reports an outcome. The words of errors stay here: they may say what is no business of another domain.
func (t *Transport) tell(o Outcome) {
	if t.opts.Report != nil && o.Type != "" && o.Domain != "" && o.Domain[0] != '[' {
		o.Strings, o.Hosts = bounded(o.Strings), bounded(o.Hosts)
		t.opts.Report(o)
	}
}

// maxReported bounds what an Outcome says of a policy, in octets.
const maxReported = 2 << 10

// bounded cuts a list at the end of a line.
func bounded(list string) string {
	if len(list) <= maxReported {
		return list
	}
	return list[:max(0, strings.LastIndexByte(list[:maxReported], '\n'))]
}

// told reports the outcome of this session; failed is "" for success.
func (s *session) told(failed string) {
	o := Outcome{PolicyKey: s.demand.report, Domain: s.domain, Host: s.host.name, IP: s.addr.Addr().Unmap(), Local: s.conn.LocalAddr().Addr().Unmap(), Failure: failed}
	s.t.tell(o)
}

// settled reports how a session that uses TLS came out. A certificate that isn't valid is a failure under a policy that
// asks for a valid one, even where mail goes on all the same.
func (s *session) settled() {
	if s.demand.pkix && s.demand.report.Type == TypeSTS && !s.tls.Verified {
		s.told(resultType(s.problem))
		return
	}
	s.told("")
}

// resultType names a failure to accept a certificate as RFC 8460, section 4.3.1, does.
func resultType(err error) string {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var alert tls.AlertError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired, errors.Is(err, dane.ErrExpired):
		return "certificate-expired"
	case errors.As(err, &name), errors.Is(err, dane.ErrName):
		return "certificate-host-mismatch"
	case errors.As(err, &authority):
		return "certificate-not-trusted"
	case errors.As(err, &alert):
		return failValidation
	}
	return failValidation
}

package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"

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

// policyKey is the policy that a session was held to. Lists are joined by line ends, so that it can be a key.
type policyKey struct {
	Type    string // "": nothing is reported
	Strings string
	Hosts   string
}

var noPolicy = policyKey{Type: TypeNone}

// Outcome is what came of one TLS session, or of the attempt at one, for the reports of RFC 8460.
type Outcome struct {
	policyKey
	Domain  string // of the recipients
	Host    string
	IP      netip.Addr
	Local   netip.Addr
	Failure string // result type, "" for success
	Code    string // failure-reason-code
	Detail  string // additional-information
}

// tell reports an outcome; f, unless nil, says in words what happened.
func (t *Transport) tell(o Outcome, f *failure) {
	if t.opts.Report == nil || o.Type == "" || o.Domain == "" || o.Domain[0] == '[' {
		return
	}
	if f != nil && o.Detail == "" {
		o.Detail = f.message
	}
	t.opts.Report(o)
}

// told reports the outcome of this session; failed is "" for success.
func (s *session) told(failed string, f *failure) {
	o := Outcome{policyKey: s.demand.report, Domain: s.domain, Host: s.host.name, IP: s.addr.Addr().Unmap(), Local: s.conn.LocalAddr().Addr().Unmap(), Failure: failed}
	s.t.tell(o, f)
}

// settled reports how a session that uses TLS came out. A certificate that isn't valid is a failure under a policy that
// asks for a valid one, even where mail goes on all the same.
func (s *session) settled() {
	if s.demand.pkix && s.demand.report.Type == TypeSTS && !s.tls.Verified {
		s.told(resultType(s.problem), &failure{message: s.tls.Problem})
		return
	}
	s.told("", nil)
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

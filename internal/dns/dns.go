// Package dns asks the configured resolvers the questions that mail has: MX, addresses, TXT, PTR and TLSA. It is a stub
// resolver: it does not recurse and does not validate signatures itself. Whether an answer was authenticated by DNSSEC
// is believed only from a resolver that is trusted (on loopback, or declared so), because the AD bit is no more than a
// claim of whoever sent the packet (RFC 6840, section 5.7; RFC 7672, section 2.2).
//
// Answers are cached for their TTL, down to 0 (RFC 2181, section 8), negative ones as RFC 2308 says. Questions that are
// asked at the same time are asked once. Errors tell what mail must know: that a name or a record does not exist
// (permanent), or that nobody could say (temporary).
//
//	r, err := dns.New(dns.Options{Servers: []string{"127.0.0.1:53"}})
//	mx, err := r.MX(ctx, "example.org")
//
// It serves RFC 1035, 2308, 5321 (section 5.1), 6698, 6891, 7505 and 7766.
package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Kinds of failure; errors.Is finds them in an *Error.
var (
	ErrNotFound  = errors.New("no such name")                         // NXDOMAIN: permanent
	ErrNoData    = errors.New("no such record")                       // the name exists without this type: permanent
	ErrNullMX    = errors.New("the domain takes no mail (null MX)")   // RFC 7505: permanent
	ErrName      = errors.New("not a domain name")                    // permanent
	ErrTimeout   = errors.New("no resolver answered in time")         // temporary
	ErrServFail  = errors.New("the resolver could not find out")      // SERVFAIL and other codes: temporary
	ErrBogus     = errors.New("DNSSEC validation failed")             // RFC 8914 codes 5 to 12: temporary
	ErrMalformed = errors.New("the answer makes no sense")            // temporary
	ErrBusy      = errors.New("too many questions under way")         // temporary
	ErrClosed    = errors.New("the resolver is closed")               // temporary
	errTruncated = errors.New("answer truncated")                     // internal: ask again over TCP
	errFormat    = errors.New("resolver refused the EDNS extensions") // internal: ask again without
)

// Error is a failed lookup.
type Error struct {
	Name string // what was asked, as given
	Type string // "MX", "A", ...
	Err  error  // one of the kinds above
	Info string // server and detail; for the log
}

func (e *Error) Error() string {
	s := fmt.Sprintf("dns: %s %s: %v", e.Type, e.Name, e.Err)
	if e.Info != "" {
		s += " (" + e.Info + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Temporary tells that the same question may be answered later.
func (e *Error) Temporary() bool {
	switch e.Err {
	case ErrNotFound, ErrNoData, ErrNullMX, ErrName:
		return false
	}
	return true
}

// Temporary tells whether err may go away by itself: anything but a definite "does not exist".
func Temporary(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Temporary()
	}
	return err != nil
}

// Answer is what every lookup also says.
type Answer struct {
	Secure bool          // authenticated by DNSSEC, said by a trusted resolver, along the whole chain of aliases
	TTL    time.Duration // how long it may be kept; 0 for not at all
	Name   string        // the owner after aliases, lower case, without trailing dot
}

// Exchanger is one host that takes mail for a domain.
type Exchanger struct {
	Host       string // lower case, without trailing dot
	Preference uint16
}

// MX is the answer to an MX lookup.
type MX struct {
	Answer
	Hosts    []Exchanger // sorted by preference, then name
	Implicit bool        // the domain has no MX but may have addresses: it is its own exchanger (RFC 5321, section 5.1)
}

// IPs is the answer to an address lookup.
type IPs struct {
	Answer
	Addrs []netip.Addr // IPv6 first, otherwise in the order given
}

// Texts is the answer to a TXT lookup: the strings of a record are joined (RFC 7208, section 3.3).
type Texts struct {
	Answer
	Texts []string
}

// Names is the answer to a PTR lookup.
type Names struct {
	Answer
	Names []string
}

// TLSA is one TLSA record, RFC 6698, section 2.1.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// TLSAs is the answer to a TLSA lookup.
type TLSAs struct {
	Answer
	Records []TLSA
}

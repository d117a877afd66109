// Package transport carries a message to another mail server: it finds the servers of a destination, speaks SMTP to
// them as a client, uses TLS where it can, and reports word for word what each said about each recipient.
//
// It keeps nothing: which messages wait, when they are tried again, and what their senders are told is the work of
// package queue. An answer that is missing or makes no sense is always a temporary failure; a recipient counts as
// delivered only after a 2xx reply to the end of the data.
//
//	t, err := transport.New(transport.Options{Hostname: "mx.example.test", Resolver: resolver})
//	link := t.Link("example.org")
//	defer link.Close()
//	results := link.Deliver(ctx, message)
//
// How a connection must be protected is decided for each host before it is made (demand.go): by the administrator's table,
// by DANE, by MTA-STS, and by what the sender asked for (REQUIRETLS). What a demand forbids is put off or refused, never
// sent in another way.
//
// It serves RFC 5321 (client side, with the choice of hosts of section 5.1), RFC 1870, 2920, 3030, 3207, 3461, 4954,
// 6152, 6531, 6710, 7293, 7435, 7504, 7505, 7672, 8461 (client side), 8689, 2852 and 9422.
package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/smtp"
	"waxwing/internal/tlspolicy"
)

// Resolver is what transport asks of the DNS; *dns.Resolver is one.
type Resolver interface {
	MX(ctx context.Context, domain string) (dns.MX, error)
	IP(ctx context.Context, host string) (dns.IPs, error)
	TLSA(ctx context.Context, name string) (dns.TLSAs, error)
	Alias(ctx context.Context, name string) (dns.Answer, error)
}

// TLSMode says how a smart host is spoken to.
type TLSMode string

const (
	TLSRequired      TLSMode = "starttls"      // STARTTLS, verified, or nothing is sent
	TLSImplicit      TLSMode = "implicit"      // TLS from the first octet, verified (RFC 8314, section 3.3)
	TLSOpportunistic TLSMode = "opportunistic" // STARTTLS when it works, as with any other server
)

// SmartHost is a server that takes mail for destinations in place of theirs.
type SmartHost struct {
	Host        string  // name or address; a name is looked up for addresses only, not for MX
	Port        int     // default 587, or 465 with TLSImplicit
	TLS         TLSMode // default TLSRequired
	Username    string  // "" for none; else TLS must be required
	Password    []byte
	Concurrency int    // connections at a time, 0: as for any destination
	LMTP        bool   // it is spoken to by LMTP (RFC 2033)
	Socket      string // path of its socket in the file system, in place of Host and Port; with LMTP only
}

// Timeouts bound each stage; zero ones are set to the values of RFC 5321, section 4.5.3.2.
type Timeouts struct {
	Connect   time.Duration // 30 s
	Greeting  time.Duration // 5 min
	Command   time.Duration // 5 min: EHLO, MAIL, RCPT, AUTH
	DataInit  time.Duration // 2 min: DATA to 354
	DataBlock time.Duration // 3 min: each write of the body
	DataEnd   time.Duration // 10 min: the final dot to its answer
	Quit      time.Duration // 5 s: nothing hangs on this answer
	TLS       time.Duration // 60 s: the handshake
}

// Options configure a Transport.
type Options struct {
	Hostname  string                    // own name in EHLO
	OwnNames  []string                  // further names of this server, for the detection of mail loops
	IsSelf    func(netip.AddrPort) bool // tells an address that this server itself listens on; may be nil
	Resolver  Resolver
	Port      int                              // of other servers, default 25
	Policies  func() (*tlspolicy.Table, error) // of the administrator; nil: none
	STS       STS                              // policies of other domains (MTA-STS); nil: none are asked for
	Report    func(Outcome)                    // is told what came of each TLS session; nil: nobody. It must be quick
	Hosts     map[string][]netip.AddrPort      // fixed addresses of hosts, asked before the DNS
	SmartHost *SmartHost                       // for all destinations without a route of their own
	Routes    map[string]*SmartHost            // by destination; nil value: by MX in spite of SmartHost
	// Find gives the way of a destination by rules that may change; it is asked before Routes. An error puts mail off.
	Find     func(destination string) (Onward, error)
	Timeouts Timeouts
	RootCAs  *x509.CertPool // nil: those of the system
	MaxReuse int            // messages over one connection, default 100
	MaxRcpts int            // recipients in one transaction, default 100; LIMITS of the server may lower it
	NoIPv6   bool
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	Clock    func() time.Time
	Shuffle  func(n int, swap func(i, j int)) // order of hosts of equal preference; default random
	Logger   *slog.Logger
}

// Transport delivers. It is safe for concurrent use.
type Transport struct {
	opts Options
	own  map[string]bool
	down downtime
	mu   sync.Mutex           // guards bare
	bare map[string]time.Time // hosts whose TLS failed, and until when they are spoken to without
}

// New checks the options and makes a Transport.
func New(o Options) (*Transport, error) {
	if o.Hostname == "" || o.Resolver == nil {
		return nil, errors.New("transport: a host name and a resolver are needed")
	}
	if err := o.SmartHost.check(); err != nil {
		return nil, err
	}
	for dest, r := range o.Routes {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("%w (route of %s)", err, dest)
		}
	}
	if o.Port == 0 {
		o.Port = 25
	}
	if o.MaxReuse <= 0 {
		o.MaxReuse = 100
	}
	if o.MaxRcpts <= 0 {
		o.MaxRcpts = 100 // every server must take as many: RFC 5321, section 4.5.3.1.8
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 60 * time.Second}).DialContext
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Shuffle == nil {
		o.Shuffle = mrand.Shuffle
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Timeouts.setDefaults()
	t := &Transport{opts: o, own: map[string]bool{}, bare: map[string]time.Time{}}
	for _, name := range append([]string{o.Hostname}, o.OwnNames...) {
		t.own[strings.ToLower(strings.TrimSuffix(name, "."))] = true
	}
	return t, nil
}

func (h *SmartHost) check() error {
	if h == nil {
		return nil
	}
	switch h.TLS {
	case "", TLSRequired, TLSImplicit:
	case TLSOpportunistic:
		if h.Username != "" {
			return fmt.Errorf("transport: smart host %s: a password needs TLS mode %q or %q", h.Host, TLSRequired, TLSImplicit)
		}
	default:
		return fmt.Errorf("transport: smart host %s: unknown TLS mode %q", h.Host, h.TLS)
	}
	if h.Socket != "" {
		if !h.LMTP || h.Host != "" || h.Port != 0 {
			return fmt.Errorf("transport: socket %s: a socket is for LMTP, and stands in place of host and port", h.Socket)
		}
		return nil
	}
	if h.LMTP && h.Port == 0 {
		return fmt.Errorf("transport: LMTP host %s: a port is needed (RFC 2033 gives none)", h.Host)
	}
	if h.Host == "" || h.Port < 0 || h.Port > 65535 {
		return fmt.Errorf("transport: smart host %q port %d: not a place to connect to", h.Host, h.Port)
	}
	return nil
}

func (h *SmartHost) port() int {
	switch {
	case h.Port != 0:
		return h.Port
	case h.TLS == TLSImplicit:
		return 465
	}
	return 587
}

func (o *Timeouts) setDefaults() {
	for _, d := range []struct {
		v *time.Duration
		n time.Duration
	}{
		{&o.Connect, 30 * time.Second},
		{&o.Greeting, 5 * time.Minute},
		{&o.Command, 5 * time.Minute},
		{&o.DataInit, 2 * time.Minute},
		{&o.DataBlock, 3 * time.Minute},
		{&o.DataEnd, 10 * time.Minute},
		{&o.Quit, 5 * time.Second},
		{&o.TLS, time.Minute},
	} {
		if *d.v <= 0 {
			*d.v = d.n
		}
	}
}

// Onward is where mail for a destination goes.
type Onward struct {
	Found  bool
	Domain string       // of the recipients
	Hosts  []*SmartHost // in order; none: by MX
}

// route is the way of a destination.
type route struct {
	domain string
	hosts  []*SmartHost // none: by MX
}

func (t *Transport) route(destination string) (route, error) {
	if h := way(destination); h != nil {
		return route{destination, []*SmartHost{h}}, nil
	}
	domain := destination
	if t.opts.Find != nil {
		way, err := t.opts.Find(destination)
		if err != nil || way.Found {
			return route{way.Domain, way.Hosts}, err
		}
		domain = way.Domain
	}
	h, ok := t.opts.Routes[domain]
	if !ok {
		h = t.opts.SmartHost
	}
	if h == nil {
		return route{domain: domain}, nil
	}
	return route{domain, []*SmartHost{h}}, nil
}

// NextHop names where mail for a destination goes first: destinations with the same next hop share connections and the
// limit on them.
func (t *Transport) NextHop(destination string) string {
	r, err := t.route(destination)
	if err != nil || len(r.hosts) == 0 {
		return cmp.Or(r.domain, destination)
	}
	var b strings.Builder
	for i, h := range r.hosts {
		if i > 0 {
			b.WriteByte(' ')
		}
		if h.Username != "" {
			b.WriteString(h.Username + "@")
		}
		if h.Socket != "" {
			b.WriteString("unix:" + h.Socket)
			continue
		}
		fmt.Fprintf(&b, "%s:%d", strings.ToLower(h.Host), h.port())
	}
	return b.String()
}

// Concurrency is how many connections a next hop's route allows at a time, 0 when it says nothing.
func (t *Transport) Concurrency(destination string) int {
	r, err := t.route(destination)
	if err != nil || len(r.hosts) == 0 {
		return 0
	}
	return r.hosts[0].Concurrency
}

// Content is the octets of a message; store.Content is one.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Message is what is to be delivered.
type Message struct {
	From       string // reverse-path as SMTP writes it, "" for null
	Body       smtp.BodyType
	UTF8       bool
	Ret        string
	EnvID      string
	TLS        smtp.TLSNeed
	DeliverBy  time.Time      // when it is late, with By
	By         smtp.DeliverBy // its mode and trace; Seconds count from DeliverBy
	Priority   int            // MT-PRIORITY
	Content    Content
	Recipients []Recipient
}

// Recipient is one forward-path with its DSN parameters.
type Recipient struct {
	To     string
	Notify smtp.Notify
	ORcpt  string

	ValidSince string // RRVS, "" for none
}

// Status is what became of a recipient.
type Status uint8

const (
	Pending   Status = iota // not decided yet; no result that is handed out has it
	Delivered               // a server took it
	Deferred                // may be tried again
	Failed                  // will not do
)

func (s Status) String() string {
	return [...]string{"pending", "delivered", "deferred", "failed"}[s]
}

// Result is what became of one recipient, with what is needed to explain it.
type Result struct {
	Status   Status
	Enhanced smtp.Enhanced // of the reply, or the closest that fits what happened here
	Code     int           // of the reply, 0 when no server said anything
	Reply    string        // the reply word for word, a line a "\n"; "" when no server said anything
	Message  string        // for people: the reply, or what happened here
	Stage    string        // "resolve", "connect", "greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "end of data"
	Host     string        // name of the server that spoke last
	IP       netip.AddrPort
	TLS      TLSInfo
	// Notifies tells that the server took over the DSN parameters: it sends what the sender asked for.
	Notifies bool
	// Relayed tells that the sender is to hear that the message went on, whatever else it asked for (DELIVERBY).
	Relayed bool
	// Unreachable tells that no server of the destination could be spoken to at all, or that it asked to be left alone
	// (421): reason to let the destination rest.
	Unreachable bool
	// Err is set when the stored message itself could not be read: it wraps the store's error.
	Err error
}

// TLSInfo records how a connection was protected.
type TLSInfo struct {
	Used        bool
	Policy      string // what decided how it had to be protected: "dane", "mta-sts", "opportunistic", ...
	Version     uint16 // as in crypto/tls
	Cipher      uint16
	Verified    bool   // chain and name
	Problem     string // why it was not verified, or why TLS was not used
	Subject     string // of the server's certificate
	Issuer      string
	Names       []string
	Fingerprint string // SHA-256 of the certificate
	NotAfter    time.Time
}

func (i TLSInfo) String() string {
	if !i.Used {
		return "plaintext"
	}
	v := "unverified"
	if i.Verified {
		v = "verified"
	}
	return fmt.Sprintf("%s %s %s", tls.VersionName(i.Version), tls.CipherSuiteName(i.Cipher), v)
}

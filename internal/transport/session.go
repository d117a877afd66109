package transport

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

// session is one SMTP connection, ready for MAIL.
type session struct {
	t    *Transport
	conn *wire.Conn
	host host
	addr netip.AddrPort
	ext  extensions
	tls  TLSInfo

	domain  string // of the destination
	demand  *demand
	scope   string // see Transport.scope
	problem error  // why the certificate was not verified

	sent int  // transactions begun
	dead bool // nothing more can be said on it
}

// connect opens a session with one address of a host. Where TLS is opportunistic and fails, it starts again without
// (RFC 7435, section 3): plaintext is what would have been used anyway.
func (t *Transport) connect(ctx context.Context, domain string, h host, addr netip.AddrPort, d *demand) (*session, *failure) {
	next := func(problem string) *session {
		return &session{t: t, domain: domain, host: h, addr: addr, demand: d, tls: TLSInfo{Policy: d.policy, Problem: problem}}
	}
	switch {
	case d.never:
		return next("not wanted").open(ctx, false)
	case d.plain && t.bareNow(h.name):
		return next("the last handshake failed").open(ctx, false)
	}
	s, f := next("").open(ctx, true)
	if f != nil && f.stage == "STARTTLS" && d.plain && ctx.Err() == nil {
		t.opts.Logger.Info("transport: TLS failed, going on without", "host", h.name, "address", addr, "error", f.message)
		t.setBare(h.name)
		return next(f.message).open(ctx, false)
	}
	return s, f
}

// open connects and goes through greeting, EHLO, STARTTLS and AUTH.
func (s *session) open(ctx context.Context, useTLS bool) (*session, *failure) {
	t, h, addr := s.t, s.host, s.addr
	dctx, cancel := context.WithTimeout(ctx, t.opts.Timeouts.Connect)
	network, place := h.place(addr)
	nc, err := t.dial(dctx, h.via, network, place)
	cancel()
	if err != nil {
		if ctx.Err() == nil && addr.IsValid() {
			t.down.mark(addr, t.opts.Clock().Add(downTime))
		}
		f := temporarily("connect", 4, 1, "no connection to %s: %v", h.describe(addr), netError(err))
		f.unreachable = true
		return nil, f
	}
	t.down.clear(addr)
	s.conn = wire.New(nc, wire.Limits{Line: maxReplyLine, LineTime: t.opts.Timeouts.Command})
	stop := s.bind(ctx)
	defer stop()
	if f := s.begin(ctx, useTLS); f != nil {
		s.abandon()
		return nil, f
	}
	return s, nil
}

func (h host) describe(addr netip.AddrPort) string {
	if !addr.IsValid() {
		_, path := h.place(addr)
		return path
	}
	if addr.Port() == 25 {
		return h.name + " [" + addr.Addr().String() + "]"
	}
	return h.name + " [" + addr.Addr().String() + "]:" + strconv.Itoa(int(addr.Port()))
}

// netError leaves out what the message says already.
func netError(err error) error {
	var oe *net.OpError
	if errors.As(err, &oe) && oe.Err != nil {
		return oe.Err
	}
	return err
}

// bind cuts the connection when ctx ends, until stop is called.
func (s *session) bind(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = s.conn.Abort() })
}

// limit sets how long the next answer may take.
func (s *session) limit(d time.Duration) {
	lim := s.conn.Limits()
	lim.Idle, lim.Read, lim.Write = d, d, s.t.opts.Timeouts.DataBlock
	lim.Handshake = s.t.opts.Timeouts.TLS
	s.conn.SetLimits(lim)
}

func (s *session) begin(ctx context.Context, useTLS bool) *failure {
	to := &s.t.opts.Timeouts
	smart := s.host.smart
	if smart != nil && smart.TLS == TLSImplicit {
		s.limit(to.Greeting)
		if f := s.handshake(ctx); f != nil {
			return f
		}
	}
	s.limit(to.Greeting)
	greeting, err := readReply(s.conn)
	if err != nil {
		return s.broken("greeting", err)
	}
	if greeting.class() != 2 {
		return s.refused("greeting", greeting)
	}
	if f := s.hello(); f != nil {
		return f
	}
	required := !s.demand.plain
	switch {
	case s.tls.Used:
	case !useTLS:
	case s.ext.starttls:
		if f := s.startTLS(ctx, required); f != nil {
			return f
		}
	case required:
		f := temporarily("STARTTLS", 7, 4, "%s does not offer TLS, which is required for it (%s)", s.host.name, s.demand.policy)
		s.told(failStartTLS)
		return f
	default:
		s.tls.Problem = "not offered"
		s.told(failStartTLS)
	}
	if s.tls.Used {
		s.settled()
	}
	if s.demand.needs == smtp.TLSRequired && !s.ext.requireTLS { // RFC 8689, section 4.2.1
		return permanently("EHLO", 7, 30, "the sender requires TLS on the whole way, and %s does not offer REQUIRETLS", s.host.name)
	}
	if smart != nil && smart.Username != "" {
		return s.authenticate(smart)
	}
	return nil
}

// hello says EHLO, or HELO to a server that does not know it (RFC 5321, section 3.2).
func (s *session) hello() *failure {
	if s.lmtp() {
		return s.lhlo()
	}
	name := s.t.name(s.host.via)
	r, f := s.command("EHLO", s.t.opts.Timeouts.Command, "EHLO "+name)
	if f != nil {
		return f
	}
	switch r.class() {
	case 2:
		s.ext = parseEHLO(r.lines)
		return nil
	case 5:
		if r.code == 521 || r.code == 554 { // RFC 7504: no mail here at all
			return s.refused("EHLO", r)
		}
	default:
		return s.refused("EHLO", r)
	}
	s.ext = extensions{}
	if r, f = s.command("HELO", s.t.opts.Timeouts.Command, "HELO "+name); f != nil {
		return f
	}
	if r.class() != 2 {
		return s.refused("HELO", r)
	}
	return nil
}

// startTLS asks for TLS and says EHLO again: what was offered before may have come from anyone (RFC 3207, section 4.2).
func (s *session) startTLS(ctx context.Context, required bool) *failure {
	r, f := s.command("STARTTLS", s.t.opts.Timeouts.Command, "STARTTLS")
	if f != nil {
		return f
	}
	if r.code != 220 {
		if required {
			f := s.refused("STARTTLS", r)
			f.permanent, f.enhanced = false, smtp.Enhanced{Class: 4, Subject: 7, Detail: 4} // the message is not to blame
			s.told(failStartTLS)
			return f
		}
		s.tls.Problem = "refused: " + r.raw
		return nil
	}
	if f := s.handshake(ctx); f != nil {
		return f
	}
	return s.hello()
}

// handshake does the client's side of TLS and records what came of it. The certificate decides only where the demand checks
// it: elsewhere plaintext would be the alternative, so any certificate is better than none.
func (s *session) handshake(ctx context.Context) *failure {
	check, required := s.demand.check, !s.demand.plain
	name := strings.Trim(s.host.name, "[]")
	if s.demand.sni != "" {
		name = s.demand.sni
	}
	cfg := &tls.Config{
		ServerName:         name,
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection below does it, and keeps the result
		VerifyConnection: func(cs tls.ConnectionState) error {
			if check == nil {
				s.record(cs, s.t.verify(cs, hostName(s.host)))
				return nil
			}
			err := check(cs)
			s.record(cs, err)
			return err
		},
	}
	if required { // elsewhere the suites are Go's own: an old one is better than none
		cfg.CipherSuites = []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		}
	}
	err := s.conn.ClientTLS(ctx, cfg)
	switch {
	case err == nil:
		s.tls.Used = true
		return nil
	case errors.Is(err, wire.ErrInjected):
		f := temporarily("inject", 7, 5, "%s sent octets in plaintext behind its consent to TLS", s.host.name)
		return f // no fallback: somebody tampers with the connection
	}
	f := temporarily("STARTTLS", 7, 5, "TLS handshake with %s failed: %v", s.host.name, err)
	f.unreachable = required
	if s.problem != nil && check != nil {
		err = s.problem
	}
	s.told(resultType(err))
	s.tls = TLSInfo{Policy: s.demand.policy}
	return f
}

// hostName is what the certificate of a host must be for.
func hostName(h host) string {
	if ip, ok := literal(h.name); ok {
		return ip.String()
	}
	return strings.Trim(h.name, "[]")
}

// verify holds that a certificate is valid and, unless name is empty, for this name.
func (t *Transport) verify(cs tls.ConnectionState, name string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	o := x509.VerifyOptions{
		Roots:         t.opts.RootCAs,
		DNSName:       name,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   t.opts.Clock(),
	}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}

func (s *session) record(cs tls.ConnectionState, err error) {
	s.tls = TLSInfo{Version: cs.Version, Cipher: cs.CipherSuite, Verified: err == nil, Policy: s.demand.policy}
	s.problem = err
	if err != nil {
		s.tls.Problem = err.Error()
	}
	if len(cs.PeerCertificates) > 0 {
		c := cs.PeerCertificates[0]
		sum := sha256.Sum256(c.Raw)
		s.tls.Subject, s.tls.Issuer = printable([]byte(c.Subject.String())), printable([]byte(c.Issuer.String()))
		s.tls.Names = c.DNSNames[:min(len(c.DNSNames), 20)]
		s.tls.Fingerprint, s.tls.NotAfter = hex.EncodeToString(sum[:]), c.NotAfter
	}
}

// authenticate signs in by PLAIN (RFC 4616) or LOGIN, on a connection whose certificate was verified: New and handshake
// see to that, and it is checked once more, since the password hangs on it.
func (s *session) authenticate(smart *SmartHost) *failure {
	if !s.tls.Used || !s.tls.Verified {
		return temporarily("AUTH", 7, 11, "no password is sent to %s without verified TLS", s.host.name)
	}
	offered := func(name string) bool {
		for _, m := range s.ext.auth {
			if m == name {
				return true
			}
		}
		return false
	}
	b64 := base64.StdEncoding.EncodeToString
	var steps []string
	switch {
	case offered("PLAIN"):
		steps = []string{"AUTH PLAIN " + b64([]byte("\x00"+smart.Username+"\x00"+string(smart.Password)))}
	case offered("LOGIN"):
		steps = []string{"AUTH LOGIN", b64([]byte(smart.Username)), b64(smart.Password)}
	default:
		return temporarily("AUTH", 7, 4, "%s offers no mechanism that can be used: %s", s.host.name, strings.Join(s.ext.auth, " "))
	}
	for i, step := range steps {
		r, f := s.command("AUTH", s.t.opts.Timeouts.Command, step)
		if f != nil {
			return f
		}
		last := i == len(steps)-1
		if last && r.code == 235 {
			return nil
		}
		if last || r.code != 334 {
			// Whatever the code: a wrong password in the configuration is no reason to bounce mail.
			f := s.refused("AUTH", r)
			f.permanent = false
			f.enhanced.Class = 4
			f.unreachable = true
			return f
		}
	}
	return nil
}

// command sends one line and reads the reply to it.
func (s *session) command(stage string, timeout time.Duration, line string) (*reply, *failure) {
	if err := s.writeLine(line); err != nil {
		return nil, s.broken(stage, err)
	}
	s.limit(timeout)
	r, err := readReply(s.conn)
	if err != nil {
		return nil, s.broken(stage, err)
	}
	return r, nil
}

// writeLine buffers a command. A control character in it would be someone's attempt to smuggle a second one.
func (s *session) writeLine(line string) error {
	for i := range len(line) {
		if line[i] < 0x20 || line[i] == 0x7f {
			return errControl
		}
	}
	s.limit(s.t.opts.Timeouts.Command)
	if _, err := s.conn.WriteString(line); err != nil {
		return err
	}
	_, err := s.conn.WriteString("\r\n")
	return err
}

var errControl = errors.New("a control character in a command")

// broken turns an error of the connection into a failure; the session is over.
func (s *session) broken(stage string, err error) *failure {
	s.dead = true
	var f *failure
	switch {
	case errors.Is(err, errReply):
		f = temporarily(stage, 5, 0, "%s: %v", s.host.describe(s.addr), err)
	case errors.Is(err, errControl):
		f = permanently(stage, 1, 3, "%v", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f = temporarily(stage, 4, 2, "%s closed the connection at %s", s.host.describe(s.addr), stage)
	case wire.Timeout(err):
		f = temporarily(stage, 4, 2, "%s did not answer in time at %s", s.host.describe(s.addr), stage)
	default:
		f = temporarily(stage, 4, 2, "the connection with %s broke at %s: %v", s.host.describe(s.addr), stage, netError(err))
	}
	f.unreachable = beforeMail(stage)
	return f
}

// refused turns a negative reply into a failure of the whole session or transaction.
func (s *session) refused(stage string, r *reply) *failure {
	f := &failure{stage: stage, reply: r, message: r.raw, enhanced: r.enhanced, permanent: r.class() == 5}
	if f.enhanced.Class == 0 || f.enhanced.Class == 2 {
		f.enhanced.Class = 4
		if f.permanent {
			f.enhanced.Class = 5
		}
	}
	if r.class() != 4 && r.class() != 5 { // 2xx or 3xx where none belongs
		f.message = "unexpected reply: " + r.raw
		s.dead = true
	}
	if r.code == 421 || r.code == 521 {
		s.dead = true
		f.unreachable = r.code == 421
	}
	if beforeMail(stage) {
		f.unreachable = true
	}
	return f
}

// beforeMail tells the stages of which a failure says that the server takes no mail at all now.
func beforeMail(stage string) bool {
	return stage == "greeting" || stage == "EHLO" || stage == "HELO" || stage == "LHLO"
}

// abandon cuts the connection.
func (s *session) abandon() {
	s.dead = true
	_ = s.conn.Close() // nothing is lost by an error here
}

// quit says goodbye, waits shortly for the answer (RFC 5321, section 4.1.1.10), and closes.
func (s *session) quit() {
	if !s.dead && s.writeLine("QUIT") == nil {
		s.limit(s.t.opts.Timeouts.Quit)
		_, _ = readReply(s.conn) // whatever it is, the session is over
	}
	s.abandon()
}

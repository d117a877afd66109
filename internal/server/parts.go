package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/certs"
	"waxwing/internal/config"
	"waxwing/internal/dns"
	"waxwing/internal/guard"
	"waxwing/internal/imapserver"
	"waxwing/internal/intake"
	"waxwing/internal/listen"
	"waxwing/internal/pop3server"
	"waxwing/internal/queue"
	"waxwing/internal/routing"
	"waxwing/internal/sieveserver"
	"waxwing/internal/smtpserver"
	"waxwing/internal/telemetry"
	"waxwing/internal/trace"
	"waxwing/internal/transport"
	"waxwing/internal/transport/sts"
	"waxwing/internal/transport/tlsreport"
)

// parts are what the server is made of above the store.
type parts struct {
	resolver *dns.Resolver
	queue    *queue.Queue
	smtp     *smtpserver.Server
	imap     *imapserver.Server
	pop3     *pop3server.Server
	sieve    *sieveserver.Server
	quotas   *quotaWarner
	sts      *sts.Policies
	reports  *tlsreport.Reporter
	trace    *trace.Recorder
	door     *door

	stopTrace func() // nil before it runs
	access    *guard.Access
	sending   *guard.Sending
	alarms    chan guard.Alarm
	tellAlarm func(context.Context) // until its context ends
}

func (p *parts) close() error {
	if p.stopTrace != nil {
		p.stopTrace()
		p.stopTrace = nil
	}
	var err error
	if p.door != nil {
		err = p.door.close()
		p.door = nil
	}
	if p.sending != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err = errors.Join(err, p.sending.Flush(ctx))
		cancel()
		p.sending = nil
	}
	if p.resolver != nil {
		p.resolver.Close()
		p.resolver = nil
	}
	return err
}

// build makes the parts from the ground up.
func (s *Server) build(ctx context.Context) error {
	m := newMetrics(s.reg)
	if err := s.newTrace(); err != nil {
		return err
	}
	registerSearch(s.reg, s.state.search.Status)
	s.registerNodes()
	registerQueue(s.reg, s.state.Store.QueueCounts, time.Now)
	s.parts.quotas = &quotaWarner{
		notices: notices{store: s.state.Store, dir: s.state.Directory, hostname: s.cfg.Hostname, clock: time.Now}, log: s.log.With("part", "quota"),
		told: func(level int64) { m.quota.WithLabelValues(strconv.FormatInt(level, 10)).Inc() },
	}
	if err := s.buildSending(ctx, m); err != nil {
		return err
	}
	checker, err := auth.New(s.state.Directory, auth.Options{
		Logger: telemetry.Bounded(s.log.With("part", "auth"), time.Now), Concurrency: s.cfg.Limits.PasswordHashings,
		Throttle: auth.ThrottleOptions{Exempt: loopbackOnly(s.cfg)}, Admit: s.admitsSignIn,
	})
	if err != nil {
		return err
	}
	if s.parts.resolver, err = newResolver(s.cfg, s.log); err != nil {
		return err
	}
	s.newDoor(s.parts.resolver)
	next := new(asker)
	router := routing.New(routing.Options{Directory: s.state.Directory, Keys: s.state.Store, Asker: next, Logger: s.log.With("part", "routing")})
	in, err := intake.New(intake.Options{
		Store: s.state.Store, Directory: s.state.Directory, Routing: router, Scripts: s.state.Store,
		Hostname: s.cfg.Hostname, SpoolDir: s.cfg.Spool.Dir, Logger: s.log.With("part", "intake"), Trace: s.parts.trace, Milters: s.newMilters(m),
		Suppressed: s.suppressed, Held: s.parts.sending.Held, Surge: s.parts.door.surge,
		Limits: intake.Limits{
			Hops: s.cfg.Limits.Hops, SpoolBytes: int64(s.cfg.Spool.MaxBytes), Reserve: int64(s.cfg.Spool.DiskReserve),
		},
	})
	if err != nil {
		return err
	}
	s.parts.tellAlarm = func(ctx context.Context) { s.runAlarms(ctx, in) }
	if err := s.buildOutbound(in, m, next); err != nil {
		return err
	}
	door := s.buildGuard(m)
	limits := s.cfg.Limits
	s.parts.smtp = smtpserver.New(smtpserver.Options{
		Hostname: s.cfg.Hostname, Intake: smtpserver.Bind(in), Auth: checker, TLS: s.keys.ServerConfig(certs.WithTickets),
		Limits:  smtpserver.Limits{Sessions: limits.Sessions, SessionsPerPeer: limits.SessionsPerPeer, Early: -1}, // the guard's
		Guard:   door,
		XClient: s.cfg.XClients(), LMTPClients: s.cfg.LMTPClients(), Logger: telemetry.Bounded(s.log.With("part", "smtp"), time.Now), Metrics: m.smtp(),
		Trace: s.parts.trace,
	})
	s.parts.imap = imapserver.New(imapserver.Options{
		Store: s.state.Store, Auth: checker, TLS: s.keys.ServerConfig(certs.WithoutTickets), Hostname: s.cfg.Hostname,
		Limits: imapserver.Limits{Sessions: limits.Sessions, SessionsPerPeer: limits.SessionsPerPeer}, MessageSize: in.MaxSize,
		Logger: telemetry.Bounded(s.log.With("part", "imap"), time.Now), Hooks: m.imap(), SpoolDir: s.cfg.Spool.Dir, Admit: s.admitsTo(guard.IMAP),
	})
	s.parts.pop3 = pop3server.New(pop3server.Options{
		Store: s.state.Store, Auth: checker, TLS: s.keys.ServerConfig(certs.WithoutTickets), Hostname: s.cfg.Hostname,
		Limits: pop3server.Limits{Sessions: limits.Sessions, SessionsPerPeer: limits.SessionsPerPeer},
		Logger: telemetry.Bounded(s.log.With("part", "pop3"), time.Now), Metrics: m.pop3(), Admit: s.admitsTo(guard.POP3),
	})
	s.parts.sieve = sieveserver.New(sieveserver.Options{
		Store: s.state.Store, Auth: checker, TLS: s.keys.ServerConfig(certs.WithoutTickets), Settings: s.state.Directory.Settings,
		Limits: sieveserver.Limits{Sessions: limits.Sessions, SessionsPerPeer: limits.SessionsPerPeer},
		Logger: telemetry.Bounded(s.log.With("part", "sieve"), time.Now), Metrics: m.sieve(),
	})
	return nil
}

// loopbackOnly tells who is exempt from limits and delays, those after failed sign-ins too: on a server that listens on loopback
// alone, everyone who comes from there. A client that XCLIENT names counts by its own address.
func loopbackOnly(cfg *config.Config) func(netip.Addr) bool {
	for _, l := range cfg.Listeners {
		if !config.Loopback(l.Address) && config.UnixPath(l.Address) == "" {
			return nil
		}
	}
	return func(a netip.Addr) bool { return a.Unmap().IsLoopback() }
}

// buildOutbound makes the way out: resolver, transport and queue.
func (s *Server) buildOutbound(in *intake.Intake, m *metrics, next *asker) error {
	options, err := transportOptions(s.cfg)
	if err != nil {
		return err
	}
	options.Resolver, options.Logger = s.parts.resolver, s.log.With("part", "transport")
	options.IsSelf = s.isSelf
	if err := s.buildPolicies(&options, in); err != nil {
		return err
	}
	options.Find = (&ways{dir: s.state.Directory}).find
	out, err := transport.New(options)
	if err != nil {
		return err
	}
	next.out.Store(out)
	s.parts.queue, err = s.newQueue(in, out, m)
	return err
}

// transportOptions turns the configuration of the way out into the transport's.
func transportOptions(cfg *config.Config) (transport.Options, error) {
	t := cfg.Transport
	o := transport.Options{Hostname: cfg.Hostname, Port: t.Port, Routes: map[string]*transport.SmartHost{}}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return o, fmt.Errorf("transport.ca_file: %w", err)
		}
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM(pem) {
			return o, fmt.Errorf("transport.ca_file: %s holds no certificate", t.CAFile)
		}
	}
	for domain, hop := range t.Routes {
		route, err := routeTo(hop)
		if err != nil {
			return o, fmt.Errorf("transport.routes.%s: %w", domain, err)
		}
		if domain == "*" {
			o.SmartHost = route
			continue
		}
		o.Routes[strings.ToLower(domain)] = route
	}
	if h := t.SmartHost; h != nil {
		host, port, err := splitHop(h.Address)
		if err != nil {
			return o, fmt.Errorf("transport.smart_host.address: %w", err)
		}
		o.SmartHost = &transport.SmartHost{Host: host, Port: port, TLS: transport.TLSMode(h.TLS), Username: h.Username}
		if h.PasswordFile != "" {
			text, err := os.ReadFile(h.PasswordFile)
			if err != nil {
				return o, fmt.Errorf("transport.smart_host.password_file: %w", err)
			}
			o.SmartHost.Password = []byte(strings.TrimRight(string(text), "\r\n"))
		}
	}
	return o, nil
}

// routeTo reads a value of transport.routes: "host:port", "lmtp:host:port" or "lmtp:unix:/path".
func routeTo(hop string) (*transport.SmartHost, error) {
	hop, lmtp := strings.CutPrefix(hop, "lmtp:")
	route := &transport.SmartHost{TLS: transport.TLSOpportunistic, LMTP: lmtp, Socket: config.UnixPath(hop)}
	if route.Socket != "" {
		return route, nil
	}
	var err error
	route.Host, route.Port, err = splitHop(hop)
	return route, err
}

// splitHop cuts "host:port", which the configuration has checked.
func splitHop(hop string) (host string, port int, err error) {
	i := strings.LastIndexByte(hop, ':')
	if i < 0 {
		return "", 0, errors.New("not host:port")
	}
	port, err = strconv.Atoi(hop[i+1:])
	return strings.Trim(hop[:i], "[]"), port, err
}

// isSelf tells an address that this server listens on for mail: what leads there would loop.
func (s *Server) isSelf(a netip.AddrPort) bool {
	for _, l := range s.listening {
		if l.Protocol != config.SMTP && l.Protocol != config.Submission {
			continue
		}
		bound, err := netip.ParseAddrPort(l.listener.Addr().String())
		switch {
		case err != nil || bound.Port() != a.Port():
		case bound.Addr().Unmap() == a.Addr().Unmap(), bound.Addr().IsUnspecified() && ofThisHost(a.Addr()):
			return true
		}
	}
	return false
}

// ofThisHost tells an address that a listener on all addresses takes connections for.
func ofThisHost(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false // the loop ends at the count of hops all the same
	}
	for _, o := range own {
		if p, err := netip.ParsePrefix(o.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

// serve takes connections on one listener until the sessions are shut down.
func (s *Server) serve(l listening) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		var err error
		switch {
		case l.Protocol == config.SMTP:
			err = s.parts.smtp.Serve(l.listener, smtpserver.MX)
		case l.Protocol == config.Submission && l.TLS == config.Implicit:
			err = s.parts.smtp.Serve(l.listener, smtpserver.Submissions)
		case l.Protocol == config.Submission:
			err = s.parts.smtp.Serve(l.listener, smtpserver.Submission)
		case l.Protocol == config.LMTP:
			err = s.parts.smtp.Serve(l.listener, smtpserver.LMTP)
		case l.Protocol == config.IMAP:
			err = s.parts.imap.Serve(l.listener, l.TLS == config.Implicit)
		case l.Protocol == config.POP3:
			err = s.parts.pop3.Serve(l.listener, l.TLS == config.Implicit)
		case l.Protocol == config.Sieve:
			err = s.parts.sieve.Serve(l.listener, l.TLS == config.Implicit)
		}
		if err != nil && !closed(err) {
			s.fail(fmt.Errorf("%s on %s: %w", l.Protocol, l.Address, err))
		}
	}()
}

// closed tells the end of a listener that Shutdown brought.
func closed(err error) bool {
	return errors.Is(err, listen.ErrClosed)
}

// shutdownSessions takes no connections any more and lets commands under way finish until ctx ends. That sessions had to
// be cut off is said in the log and is no failure: nothing that was answered is lost by it.
func (s *Server) shutdownSessions(ctx context.Context) error {
	shut := []struct {
		name string
		fn   func(context.Context) error
	}{{"smtp", s.parts.smtp.Shutdown}, {"imap", s.parts.imap.Shutdown}, {"pop3", s.parts.pop3.Shutdown}, {"sieve", s.parts.sieve.Shutdown}}
	errs := make([]error, len(shut))
	var wg sync.WaitGroup
	for i, p := range shut {
		wg.Go(func() {
			err := p.fn(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				s.log.Warn("sessions were cut off at the end of the grace", "part", p.name)
				err = nil
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

const (
	maxTTL         = 24 * time.Hour  // longer ones are cut (RFC 8767, section 4, advises a cap)
	maxNegativeTTL = 3 * time.Hour   // RFC 2308, section 5
	maxAliases     = 8               // CNAMEs followed for one question
	maxInFlight    = 512             // questions on the network at a time
	maxRecords     = 1000            // of one answer that are kept
	defaultTimeout = 3 * time.Second // for one try at one server
	defaultRounds  = 2
)

// Options say where to ask. The zero value asks the servers of /etc/resolv.conf.
type Options struct {
	Servers    []string                                                // "host:port" with an IP address; empty: those of ResolvConf
	ResolvConf string                                                  // default /etc/resolv.conf
	TrustAD    bool                                                    // believe the AD bit of every server, not only of those on loopback
	Timeout    time.Duration                                           // for one try at one server, default 3 s
	Rounds     int                                                     // how often the list of servers is gone through, default 2
	CacheCount int                                                     // answers kept, default 20,000; negative for none
	CacheBytes int                                                     // and their octets, default 32 MiB
	Clock      func() time.Time                                        // default time.Now
	Logger     *slog.Logger                                            // default: silent
	Dial       func(context.Context, string, string) (net.Conn, error) // default net.Dialer
}

// Resolver asks and remembers. It is safe for concurrent use; Close it to end what it started.
type Resolver struct {
	opts    Options
	servers []server
	cache   *cache
	slots   chan struct{} // one token a question on the network

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	flights map[question]*flight
	closed  bool
}

type server struct {
	addr    string
	trusted bool
}

// question is what is asked and cached.
type question struct {
	name  string // lower case, with trailing dot
	qtype uint16
}

// flight is a question under way, with those who wait for it. When the last of them gives up, it is given up too.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	result  *result
	err     error
}

// New makes a resolver.
func New(o Options) (*Resolver, error) {
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if len(o.Servers) == 0 {
		cc, err := mdns.ClientConfigFromFile(o.ResolvConf)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("dns: read resolvers from %s: %w", o.ResolvConf, err)
		}
		if cc != nil {
			for _, s := range cc.Servers {
				o.Servers = append(o.Servers, net.JoinHostPort(s, cc.Port))
			}
		}
		if len(o.Servers) == 0 { // resolv.conf(5): without any, the local machine is asked
			o.Servers = []string{"127.0.0.1:53"}
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Rounds <= 0 {
		o.Rounds = defaultRounds
	}
	if o.CacheCount == 0 {
		o.CacheCount = 20_000
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 32 << 20
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	r := &Resolver{
		opts:    o,
		cache:   newCache(o.CacheCount, o.CacheBytes),
		slots:   make(chan struct{}, maxInFlight),
		flights: map[question]*flight{},
	}
	for _, s := range o.Servers {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, fmt.Errorf("dns: resolver %q: want an IP address and a port: %w", s, err)
		}
		r.servers = append(r.servers, server{addr: s, trusted: o.TrustAD || ap.Addr().Unmap().IsLoopback()})
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Servers lists where the resolver asks, as "host:port".
func (r *Resolver) Servers() []string {
	out := make([]string, len(r.servers))
	for i, s := range r.servers {
		out[i] = s.addr
	}
	return out
}

// Close ends the questions under way and waits for them.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
}

// Flush forgets all cached answers.
func (r *Resolver) Flush() { r.cache.flush() }

// lookup answers one question from the cache, from a flight under way, or from the network.
func (r *Resolver) lookup(ctx context.Context, q question) (*result, error) {
	if res, ok := r.cache.get(q, r.opts.Clock()); ok {
		return res, res.err
	}
	f, err := r.join(q)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		r.leave(q, f)
		if f.err != nil {
			return nil, f.err
		}
		return f.result, f.result.err
	case <-ctx.Done():
		r.leave(q, f)
		return nil, failure(q, ErrTimeout, context.Cause(ctx).Error())
	}
}

// join finds the flight of q or starts it.
func (r *Resolver) join(q question) (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, failure(q, ErrClosed, "")
	}
	if f := r.flights[q]; f != nil {
		f.waiters++
		return f, nil
	}
	select {
	case r.slots <- struct{}{}:
	default:
		return nil, failure(q, ErrBusy, "")
	}
	ctx, cancel := context.WithCancel(r.ctx)
	f := &flight{done: make(chan struct{}), cancel: cancel, waiters: 1}
	r.flights[q] = f
	r.wg.Go(func() { r.fly(ctx, q, f) })
	return f, nil
}

// leave tells that one waiter needs f no more.
func (r *Resolver) leave(q question, f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.waiters--
	if f.waiters == 0 {
		f.cancel()
		if r.flights[q] == f { // a cancelled flight must not be joined
			delete(r.flights, q)
		}
	}
}

// fly asks the network and publishes the answer.
func (r *Resolver) fly(ctx context.Context, q question, f *flight) {
	f.result, f.err = r.ask(ctx, q)
	if f.err == nil {
		r.cache.put(q, f.result, r.opts.Clock())
	}
	<-r.slots
	r.mu.Lock()
	if r.flights[q] == f {
		delete(r.flights, q)
	}
	r.mu.Unlock()
	close(f.done)
}

// ask goes through the servers until one gives a usable answer.
func (r *Resolver) ask(ctx context.Context, q question) (*result, error) {
	err := failure(q, ErrTimeout, "")
	for range r.opts.Rounds {
		for _, s := range r.servers {
			msg, xerr := r.try(ctx, s, q)
			if ctx.Err() != nil {
				return nil, err
			}
			if xerr != nil {
				err = classify(q, s, xerr)
				r.opts.Logger.Debug("dns: a resolver did not answer", "server", s.addr, "name", q.name, "type", mdns.TypeToString[q.qtype], "error", xerr)
				continue
			}
			res, verr := digest(q, msg, s.trusted && msg.AuthenticatedData)
			if verr == nil {
				return res, nil
			}
			verr.Info = s.addr + joinInfo(verr.Info)
			err = verr
			if errors.Is(verr, ErrBogus) { // the other servers see the same broken signatures
				return nil, err
			}
		}
	}
	return nil, err
}

func joinInfo(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

// classify turns a failure of the exchange into an *Error.
func classify(q question, s server, err error) *Error {
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return failure(q, ErrTimeout, s.addr)
	case errors.Is(err, ErrMalformed):
		return failure(q, ErrMalformed, s.addr+": "+err.Error())
	}
	return failure(q, ErrServFail, s.addr+": "+err.Error())
}

func failure(q question, kind error, info string) *Error {
	name := q.name
	if len(name) > 1 {
		name = name[:len(name)-1]
	}
	return &Error{Name: name, Type: mdns.TypeToString[q.qtype], Err: kind, Info: info}
}

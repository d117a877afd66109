// Package server builds the whole mail server from a configuration and runs it: it is the only package that knows all
// others. It opens the store, makes the parts and ties them together, starts the listeners, keeps house, and ends in
// an order that loses nothing.
//
// It holds no rules of mail; those are in the packages that it puts together.
//
//	srv, err := server.New(ctx, cfg, server.Options{Log: log, Level: &level})
//	err = srv.Run(ctx) // until ctx ends
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/certs"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/telemetry"
)

// Options of a server beside its configuration.
type Options struct {
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log; set anew from the configuration on reload
	Ready   func(Ready)    // called once, when all listeners take connections
}

// Ready says where connections are taken.
type Ready struct {
	Listeners []control.Listener
	Metrics   string // address, "" for none
}

// Server is one node.
type Server struct {
	cfg     *config.Config
	opts    Options
	log     *slog.Logger
	started time.Time

	state   *State
	keys    *certs.Keyring
	reg     *prometheus.Registry
	health  *telemetry.Health
	parts   parts
	socket  net.Listener
	control *control.Serving
	page    *telemetry.Page

	listening []listening
	failed    chan error // a listener or a part that ended by itself

	background       context.Context // of the certificate watch, the queue and housekeeping
	cancelBackground context.CancelFunc
	work             sync.WaitGroup
	reloading        sync.Mutex
}

// New opens everything and binds all addresses. Nothing is served yet; what it opened is closed by Run, or by Close when
// Run is not called.
func New(ctx context.Context, cfg *config.Config, o Options) (s *Server, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Level == nil {
		o.Level = &slog.LevelVar{}
	}
	s = &Server{
		cfg: cfg, opts: o, log: o.Log, started: time.Now(),
		reg: telemetry.NewRegistry(o.Version), health: telemetry.NewHealth(time.Now),
		failed: make(chan error, 1),
	}
	s.background, s.cancelBackground = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	pairs := make([]certs.Pair, len(cfg.Certificates))
	for i, c := range cfg.Certificates {
		pairs[i] = certs.Pair{Cert: c.Cert, Key: c.Key}
	}
	if s.keys, err = certs.Open(pairs, s.log.With("part", "tls")); err != nil {
		return s, err
	}
	opened := s.notifyStarting(startBeat)
	s.state, err = OpenState(ctx, cfg, s.log)
	opened()
	if err != nil {
		return s, err
	}
	if err = s.build(ctx); err != nil {
		return s, err
	}
	if s.listening, err = bindAll(ctx, cfg); err != nil {
		return s, err
	}
	if s.socket, err = control.ListenSocket(cfg.DataDir); err != nil {
		return s, err
	}
	return s, nil
}

// Run serves until ctx ends or a part fails, then takes no new mail, lets what is under way finish within the
// configured grace, and closes everything.
func (s *Server) Run(ctx context.Context) error {
	if err := s.start(); err != nil {
		return errors.Join(err, s.Close())
	}
	stopNotify := s.notifyReady()
	s.log.Info("ready", "version", s.opts.Version, "hostname", s.cfg.Hostname, "listeners", addresses(s.listeners()), "pid", os.Getpid(), "encryption", describeKeys(s.state.Keys))
	if s.opts.Ready != nil {
		r := Ready{Listeners: s.listeners()}
		if s.page != nil {
			r.Metrics = s.page.Addr().String()
		}
		s.opts.Ready(r)
	}
	var failure error
	select {
	case <-ctx.Done():
		s.log.Info("stopping: no new mail is taken")
	case failure = <-s.failed:
		s.log.Error("stopping: a part failed", "error", failure)
	}
	stopNotify()
	err := errors.Join(failure, s.stop())
	s.log.Info("stopped", "clean", err == nil)
	return err
}

// start serves on what New bound.
func (s *Server) start() error {
	if a := s.cfg.Metrics.Address; a != "" {
		page, err := telemetry.Serve(a, s.reg, s.health, s.log.With("part", "metrics"))
		if err != nil {
			return control.Errorf(control.Unavailable, "metrics.address in %s: %w", s.cfg.Path, bindError(err))
		}
		s.page = page
	}
	s.control = s.state.Control(s).Serve(s.socket)
	s.socket = nil
	s.runTrace()
	s.goBackground(func(ctx context.Context) { s.keys.Watch(ctx, certificateLook) })
	s.goBackground(s.watch)
	s.goBackground(s.state.Store.Lead)
	s.goBackground(s.followDirectory)
	s.goBackground(s.housekeep)
	s.goBackground(s.parts.quotas.run)
	s.goBackground(s.scrub)
	s.goBackground(s.backups)
	s.goBackground(s.runQueue)
	s.goBackground(s.runEvictor)
	s.goBackground(s.runSending)
	s.goBackground(s.parts.tellAlarm)
	s.runDoor()
	s.goBackground(s.parts.sts.Run)
	s.goBackground(s.parts.reports.Run)
	for _, l := range s.listening {
		s.serve(l)
	}
	return nil
}

// certificateLook is how often the certificates' files are looked at.
const certificateLook = time.Minute

// goBackground runs fn until the server stops.
func (s *Server) goBackground(fn func(ctx context.Context)) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		fn(s.background)
	}()
}

// fail ends the server because of a part that can't go on.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// stop ends what start began: the sessions, so that mail under way is committed, and beside them the queue and
// housekeeping; last the store. All of it shares one grace: what sessions still commit for the queue waits in the store.
func (s *Server) stop() error {
	grace, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.ShutdownGrace.Std())
	defer cancel()
	s.cancelBackground()
	err := s.shutdownSessions(grace)
	s.work.Wait()
	return errors.Join(err, s.Close())
}

// Close frees all that New opened. After Run it has been called.
func (s *Server) Close() error {
	var errs []error
	s.cancelBackground()
	for _, l := range s.listening {
		if err := l.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.listening = nil
	soon, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.control != nil {
		errs = append(errs, s.control.Close(soon), control.RemoveSocket(s.cfg.DataDir))
		s.control = nil
	}
	if s.socket != nil {
		errs = append(errs, s.socket.Close(), control.RemoveSocket(s.cfg.DataDir))
		s.socket = nil
	}
	if s.page != nil {
		errs = append(errs, s.page.Close(soon))
		s.page = nil
	}
	s.work.Wait()
	errs = append(errs, s.parts.close())
	if s.state != nil {
		errs = append(errs, s.state.Close())
		s.state = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close server: %w", err)
	}
	return nil
}

// Status is what `waxwing` and the console show of a running server.
func (s *Server) Status() control.Status {
	conditions, well := s.health.Conditions()
	return control.Status{
		Version: s.opts.Version, PID: os.Getpid(), Hostname: s.cfg.Hostname, Started: s.started.UTC(),
		Listeners: s.listeners(), Well: well, Conditions: conditions,
	}
}

// Reload reads the certificates and the log level again. Everything else in waxwing.toml takes a restart. On an error
// what is in use stays.
func (s *Server) Reload(context.Context) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	changed, err := s.keys.Reload()
	if err != nil {
		s.log.Error("certificates can't be reloaded, the old ones stay in use", "error", err)
	} else {
		s.log.Info("certificates read again", "changed", changed)
	}
	fresh, cerr := config.Load(s.cfg.Path)
	if cerr != nil {
		s.log.Error("configuration can't be reloaded, the old one stays in use", "error", cerr)
		return errors.Join(err, cerr)
	}
	s.opts.Level.Set(fresh.Log.Level)
	s.log.Info("configuration read again", "level", fresh.Log.Level)
	level := fresh.Log.Level
	if fresh.Log.Level = s.cfg.Log.Level; !reflect.DeepEqual(fresh, s.cfg) {
		s.log.Warn("waxwing.toml has changes that take a restart: only certificates' files and log.level are taken up now", "level", level)
	}
	return err
}

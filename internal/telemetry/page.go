package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Page serves /metrics and /healthz on a loopback listener.
type Page struct {
	server   *http.Server
	listener net.Listener
	done     chan struct{}
}

// Serve listens on address, which must be a loopback one: the figures tell who writes to whom and how much.
func Serve(address string, reg *prometheus.Registry, health *Health, log *slog.Logger) (*Page, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("metrics: %s is not a loopback address", l.Addr()), l.Close())
	}
	p := &Page{
		listener: l,
		done:     make(chan struct{}),
		server: &http.Server{
			Handler:           Handler(reg, health, log),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       5 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}
	go func() {
		defer close(p.done)
		if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics listener stopped", "error", err)
		}
	}()
	return p, nil
}

// Addr is where the page is served.
func (p *Page) Addr() net.Addr { return p.listener.Addr() }

// Close ends the listener and waits for requests under way until ctx ends.
func (p *Page) Close(ctx context.Context) error {
	err := p.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, p.server.Close())
	}
	<-p.done
	return err
}

// Handler answers /metrics, and /healthz with 200 or 503 and the conditions as JSON.
func Handler(reg *prometheus.Registry, health *Health, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		list, well := health.Conditions()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if !well {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"well": well, "conditions": list}); err != nil {
			log.Debug("health page not sent", "error", err)
		}
	})
	return onlyLocalNames(mux)
}

// onlyLocalNames refuses a request whose Host is a name of somebody else: a web page could otherwise read this one
// through a browser on this machine, by a name that it lets resolve to loopback.
func onlyLocalNames(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		if _, err := netip.ParseAddr(host); err != nil && !strings.EqualFold(host, "localhost") {
			http.Error(w, "unknown host", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

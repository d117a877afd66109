package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/trace"
)

// newTrace makes the recorder of what became of messages.
func (s *Server) newTrace() error {
	r, err := trace.New(trace.Options{
		Store: s.state.Store, Logger: s.log.With("part", "trace"), Alive: s.background,
		Retention: func() time.Duration {
			return time.Duration(s.state.Directory.Settings().TraceDays) * 24 * time.Hour
		},
	})
	if err != nil {
		return err
	}
	s.parts.trace, s.state.Trace = r, r
	registerTrace(s.reg, r.Stats)
	return nil
}

// runTrace starts the recorder. It ends last of all parts, as the others still tell it what became of messages.
func (s *Server) runTrace() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.parts.trace.Run(ctx) })
	s.parts.stopTrace = func() {
		cancel()
		wg.Wait()
	}
}

func registerTrace(reg *prometheus.Registry, stats func() trace.Stats) {
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waxwing_trace_rows_total", Help: "Rows of traces written beside those of deliveries."},
			func() float64 { return float64(stats().Written) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waxwing_trace_shed_total", Help: "Rows of traces dropped because the store could not keep pace, or too much was refused."},
			func() float64 { return float64(stats().Shed) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waxwing_trace_failures_total", Help: "Transactions of traces that failed and were tried again."},
			func() float64 { return float64(stats().Failed) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_trace_waiting_rows", Help: "Rows of traces that wait to be written."},
			func() float64 { return float64(stats().Waiting) }),
	)
}

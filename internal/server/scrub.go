package server

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/sqlitefile"
	"waxwing/internal/store"
)

// scrubLook is how often the scrub looks whether there is something to do.
const scrubLook = time.Minute

// scrub reads all stored mail again and again, slowly, so that damage is known before somebody needs the message.
func (s *Server) scrub(ctx context.Context) {
	damaged := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waxwing_store_damaged_contents", Help: "Contents of messages that are known to be damaged."})
	read := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waxwing_scrub_octets", Help: "Octets of stored mail that the scrub has read in this round."})
	finished := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waxwing_scrub_round_seconds", Help: "When the last whole round of the scrub began, in seconds since 1970; 0 before the first."})
	s.reg.MustRegister(damaged, read, finished,
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waxwing_database_pages_mended_total", Help: "Reads of pages of the databases in which one wrong octet was put right."},
			func() float64 { return float64(sqlitefile.Found().Mended) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waxwing_database_pages_damaged_total", Help: "Reads of pages of the databases that failed since more was wrong."},
			func() float64 { return float64(sqlitefile.Found().Broken) }))
	tick := time.NewTicker(scrubLook)
	defer tick.Stop()
	for {
		st, err := s.scrubRound(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Error("the scrub can't go on, it is tried again", "error", err)
		} else {
			damaged.Set(float64(st.Damaged))
			read.Set(float64(st.Octets))
			if !st.Finished.IsZero() {
				finished.Set(float64(st.Finished.Unix()))
			}
			s.health.Set("stored mail", scrubProblem(st))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// scrubRound goes on with the scrub as long as there is something to read.
func (s *Server) scrubRound(ctx context.Context) (store.ScrubStatus, error) {
	lead, done := s.state.Store.WhileLeading(ctx) // of several nodes one does it
	defer done()
	for lead.Err() == nil {
		rate := s.state.Directory.Settings().ScrubRate
		if rate <= 0 {
			break
		}
		more, err := s.state.Store.ScrubStep(lead, rate)
		if err != nil && lead.Err() == nil {
			return store.ScrubStatus{}, err
		}
		if err != nil || !more {
			break
		}
	}
	return s.state.Store.Scrub(ctx)
}

func scrubProblem(st store.ScrubStatus) error {
	if st.Broken > 0 {
		return fmt.Errorf("%d pages of the database are damaged: `waxwing store verify` says what is harmed; bring it back from a backup", st.Broken)
	}
	if st.Damaged == 0 {
		return nil
	}
	return fmt.Errorf("%d messages are damaged: `waxwing store verify` says whose; bring them back from a backup", st.Damaged)
}

package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// followDirectory reads domains and settings again, and forgets addresses, when another node changed them.
func (s *Server) followDirectory(ctx context.Context) {
	changed := make(chan struct{}, 1)
	stop := s.state.Store.WatchDirectory(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		for s.state.Directory.Refresh(ctx) != nil { // what is known stays until it can be read
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// registerNodes reports what this node is among the others on its database.
func (s *Server) registerNodes() {
	st := s.state.Store
	s.reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_node_leader", Help: "1 on the node that keeps house for all nodes on the database, 0 on the others."},
			func() float64 { return truth(st.Leads()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_node_seen", Help: "1 while this node could say lately that it lives; at 0 it sends no mail, since others take over what it had begun."},
			func() float64 { return truth(st.Seen()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_node_hears", Help: "1 while this node is told of what others do; at 0 it looks for it each second."},
			func() float64 { return truth(st.Hears()) }),
	)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

package server

import (
	"context"
	"time"

	"waxwing/internal/intake"
	"waxwing/internal/queue"
	"waxwing/internal/transport"
)

// newQueue makes the scheduler of outgoing mail. Its notifications come in by way of intake, as any mail does.
func (s *Server) newQueue(in *intake.Intake, out *transport.Transport, m *metrics) (*queue.Queue, error) {
	t := s.cfg.Transport
	q, err := queue.New(queue.Options{
		Store: s.state.Store, Transport: queue.WithLocal(queue.Over(out), in, time.Now), Injector: queue.Through(in), Hostname: s.cfg.Hostname,
		Node: s.state.Store.Node(),
		Policy: queue.Policy{
			RetryMin: t.FirstRetry.Std(), RetryMax: t.MaxRetry.Std(), DelayWarning: t.WarnAfter.Std(),
			Workers: t.Concurrency, Concurrency: t.PerDestination,
			// Attempts under way end before the grace of the whole server does, so that what became of them is written.
			Grace: s.cfg.Limits.ShutdownGrace.Std() * 2 / 3,
		},
		Logger: s.log.With("part", "queue"), Metrics: s.queueHooks(m), Suppress: s.suppress, Trace: s.parts.trace,
	})
	if err != nil {
		return nil, err
	}
	registerSending(s.reg, q.Load)
	in.SetNotifier(q) // success notifications of local deliveries are written where all others are
	return q, nil
}

// runQueue runs the scheduler until the server stops. When it fails by itself the server ends, to be started anew.
func (s *Server) runQueue(ctx context.Context) {
	began := time.Now()
	if err := s.parts.queue.Run(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("the queue stopped", "after", time.Since(began), "error", err)
		s.fail(err)
	}
}

// suppress is when nothing is sent to an address any more, as the settings say now.
func (s *Server) suppress() queue.SuppressPolicy {
	const day = 24 * time.Hour
	set := s.state.Directory.Settings()
	return queue.SuppressPolicy{
		After: set.SuppressFailures, Within: time.Duration(set.SuppressDays) * day, For: time.Duration(set.SuppressForDays) * day,
	}
}

// suppressed tells why nothing is sent to an address, "" when it is. When the store can't tell, the queue looks again.
func (s *Server) suppressed(ctx context.Context, to, sender string) string {
	x, found, err := s.state.Store.QueueSuppressed(ctx, to, sender, time.Now())
	if err != nil || !found {
		return ""
	}
	return queue.SuppressedText(x)
}

// queueHooks are the metrics, and what failed for the check of what users send.
func (s *Server) queueHooks(m *metrics) queue.Metrics {
	hooks := m.queue()
	hooks.Failed = s.parts.sending.Failed
	return hooks
}

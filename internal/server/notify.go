package server

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyReady tells systemd that the server is ready, and beats its watchdog while the store answers (sd_notify(3),
// sd_watchdog_enabled(3)). Without systemd it does nothing. The function that it returns tells that the server stops, from when
// on systemd expects no beat any more.
func (s *Server) notifyReady() (stopping func()) {
	s.tell(daemon.SdNotifyReady)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("watchdog of systemd is not understood", "error", err)
	}
	if interval > 0 {
		s.goBackground(func(ctx context.Context) { s.beat(ctx, interval/3) })
	}
	return func() { s.tell(daemon.SdNotifyStopping) }
}

func (s *Server) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("systemd is not told", "state", state, "error", err)
	}
}

// beat tells the watchdog that the server lives, as long as the store answers readers and writers: a store that hangs is
// what a restart mends. A beat that took as long as it may is followed by the next well within the watchdog's interval.
func (s *Server) beat(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if s.alive(ctx, every) {
			s.tell(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

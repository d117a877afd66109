package server

import (
	"context"
	"fmt"
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

// How much more time systemd is asked for while the store is opened, and how often.
const (
	startTime = time.Minute
	startBeat = 15 * time.Second
)

// notifyStarting asks systemd for time until the function that it returns is called: an upgrade that rewrites a large store takes
// longer than a start may (TimeoutStartSec= in systemd.service(5)), and one that is killed begins again with the next start.
func (s *Server) notifyStarting(every time.Duration) (opened func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			s.tell(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startTime.Microseconds()))
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
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

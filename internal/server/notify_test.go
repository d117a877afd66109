package server

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/store"
)

// patience is how long a test waits for what must come: a busy machine takes its time.
const patience = 2 * time.Minute

// systemd plays the one of the machine: it returns a function that waits for what it is told, "" for nothing.
func systemd(t *testing.T) (told func(within time.Duration) string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	return func(within time.Duration) string {
		t.Helper()
		buf := make([]byte, 200)
		if err := l.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		k, err := l.Read(buf)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:k])
	}
}

const moreTime = "EXTEND_TIMEOUT_USEC=60000000"

// A start that takes long, since an upgrade rewrites the store, asks systemd for time again and again, and no longer when it is over.
func TestALongStartAsksForTime(t *testing.T) {
	told := systemd(t)
	opened := (&Server{log: discard}).notifyStarting(time.Millisecond)
	for range 3 {
		if got := told(patience); got != moreTime {
			t.Fatalf("told: %q", got)
		}
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		opened()
	}()
	for running := true; running; { // the socket holds few messages
		told(time.Millisecond)
		select {
		case <-over:
			running = false
		default:
		}
	}
	for told(time.Millisecond) != "" {
		continue // what was sent before
	}
	if got := told(100 * time.Millisecond); got != "" {
		t.Errorf("behind the end: %q", got)
	}
}

// The watchdog of systemd is told that all is well only while the store's writer answers.
func TestWatchdogIsNotToldWhileTheWriterHangs(t *testing.T) {
	told := systemd(t)
	t.Setenv("WATCHDOG_USEC", "300000")
	n := start(t, newNode(t, nil))
	if got := told(patience); got != moreTime {
		t.Fatalf("first: %q", got)
	}
	if got := told(patience); got != "READY=1" {
		t.Fatalf("then: %q", got)
	}
	for range 3 {
		if got := told(patience); got != "WATCHDOG=1" {
			t.Fatalf("told: %q", got)
		}
	}
	held, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- n.state.Store.Write(context.Background(), func(*store.Tx) error {
			close(held)
			<-release
			return errors.New("nothing to write")
		})
	}()
	<-held
	if n.alive(t.Context(), 50*time.Millisecond) {
		t.Error("a writer that hangs counts as alive")
	}
	for told(time.Millisecond) != "" {
		continue // what was sent before
	}
	beats := 0
	for got := told(time.Second); got != ""; got = told(time.Second) {
		if beats++; beats > 1 { // one may have been on its way
			t.Fatalf("while the writer hangs: %q", got)
		}
	}
	close(release)
	<-done
	if got := told(patience); got != "WATCHDOG=1" {
		t.Errorf("once it answers again: %q", got)
	}
	go func() { done <- n.stop() }()
	got := told(patience)
	for got == "WATCHDOG=1" {
		got = told(patience)
	}
	if err := <-done; err != nil || got != "STOPPING=1" {
		t.Errorf("at the end: %q, %v", got, err)
	}
	if got := told(time.Millisecond); got != "" {
		t.Errorf("behind the end: %q", got)
	}
}

// A peer that makes up names of mechanisms must not make figures without end.
func TestLabelsAreNotWhatPeersSay(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	for _, name := range []string{"PLAIN", "plain", "x1", "x2", "x3", ""} {
		m.signIn("imap", name, false)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "waxwing_sign_ins_total" && len(f.GetMetric()) != 2 {
			t.Errorf("%d figures: %v", len(f.GetMetric()), f.GetMetric())
		}
	}
}

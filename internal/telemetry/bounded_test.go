package telemetry_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"waxwing/internal/telemetry"
)

func TestLinesThatPeersCauseAreBounded(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	now := time.Unix(1_800_000_000, 0)
	log := telemetry.Bounded(telemetry.NewLogger(&out, "text", &slog.LevelVar{}), func() time.Time { return now })
	lines := func(text string) int {
		n := strings.Count(out.String(), "msg="+text)
		out.Reset()
		return n
	}
	peer := log.With("remote", "192.0.2.1").WithGroup("g")
	for range 10_000 {
		peer.Info("flood")
	}
	log.Info("another")
	if n := strings.Count(out.String(), "msg=another"); n != 1 {
		t.Errorf("a text is bounded by another's lines: %d", n)
	}
	if n := lines("flood"); n != 100 {
		t.Errorf("%d lines at once", n)
	}
	now = now.Add(2 * time.Second)
	for range 1000 {
		peer.Info("flood")
	}
	if !strings.Contains(out.String(), "left_out=9900") {
		t.Errorf("what was left out isn't told: %.300s", out.String())
	}
	if n := lines("flood"); n != 10 {
		t.Errorf("%d lines after two seconds", n)
	}
	now = now.Add(time.Hour)
	for range 1000 {
		log.Info("flood")
	}
	if n := lines("flood"); n != 100 {
		t.Errorf("%d lines after an hour", n)
	}
	for i := range 10_000 { // texts that are made of what peers say
		log.Info(fmt.Sprintf("text-%d", i))
	}
	if n := lines("text-"); n > 1000 {
		t.Errorf("%d lines of 10,000 texts", n)
	}
}

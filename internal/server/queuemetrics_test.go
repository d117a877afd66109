package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/queue"
	"waxwing/internal/store"
)

func TestMetricsTellTheLengthAndAgeOfTheQueue(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)
	counts := store.QueueCounts{Messages: 3, Waiting: 4, Held: 1, Oldest: now.Add(-90 * time.Second)}
	asked := 0
	var failure error
	reg := prometheus.NewRegistry()
	registerQueue(reg, func(context.Context) (store.QueueCounts, error) { asked++; return counts, failure }, func() time.Time { return now })
	expect := func(messages, oldest float64, times int) {
		t.Helper()
		if got := metric(t, reg, "waxwing_queue_messages"); got != messages {
			t.Errorf("messages: %v, want %v", got, messages)
		}
		if got := metric(t, reg, "waxwing_queue_oldest_seconds"); got != oldest {
			t.Errorf("oldest: %v, want %v", got, oldest)
		}
		if asked != times {
			t.Errorf("counted %d times, want %d", asked, times)
		}
	}
	expect(3, 90, 1)
	states := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "waxwing_queue_recipients" {
				states[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	if len(states) != 4 || states["waiting"] != 4 || states["held"] != 1 || states["leased"] != 0 || states["damaged"] != 0 {
		t.Errorf("recipients: %v", states)
	}
	now = now.Add(queueFiguresFresh)
	failure = errors.New("no database")
	expect(3, 100, 2) // the last count stands
	failure, counts = nil, store.QueueCounts{}
	now = now.Add(queueFiguresFresh)
	expect(0, 0, 3)
}

func TestReportsAreCountedByTheirKind(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	newMetrics(reg).queue().Report(queue.Delayed)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "waxwing_queue_reports_total" {
			if got := f.GetMetric()[0].GetLabel()[0].GetValue(); got != "delayed" {
				t.Errorf("kind %q", got)
			}
			return
		}
	}
	t.Error("no report was counted")
}

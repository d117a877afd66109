package server

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/config"
	"waxwing/internal/digest"
	"waxwing/internal/message"
	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// file appends a message to the first account's INBOX.
func file(t *testing.T, st *store.Store, text string) {
	t.Helper()
	c := strings.NewReader(text)
	root, err := message.Parse(c, c.Size(), message.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	_, err = st.Deliver(t.Context(), store.Delivery{
		Content: c, Summary: digest.Make(root, c, c.Size()), Local: []store.NewEntry{{Account: 1, Role: store.RoleInbox}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// indexed waits until as many messages are indexed since the start.
func indexed(t *testing.T, state *State, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for state.search.Status().Indexed < n {
		if ctx.Err() != nil {
			t.Fatalf("the index stands still: %+v", state.search.Status())
		}
		runtime.Gosched()
	}
}

func TestTheSearchIndexComesBackWhenItsFileIsDeleted(t *testing.T) {
	t.Parallel()
	cfg := newNode(t, func(*config.Config) {})
	for n := range int64(2) {
		state, err := OpenState(t.Context(), cfg, discard)
		if err != nil {
			t.Fatal(err)
		}
		file(t, state.Store, "Subject: =?utf-8?B?5oKo55qE55S15a2Q5Y+R56Wo?=\r\n\r\nbody\r\n")
		indexed(t, state, n+1)
		if hits := state.Store.Candidates(t.Context(), 1, []byte("发票"), search.Subject); hits == nil || len(hits.IDs) != int(n+1) {
			t.Errorf("found %+v", hits)
		}
		if err := state.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(cfg.DataDir, searchName)
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", fi, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMetricsTellHowFarTheSearchIndexIs(t *testing.T) {
	t.Parallel()
	state, err := OpenState(t.Context(), newNode(t, func(*config.Config) {}), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	}()
	reg := prometheus.NewRegistry()
	registerSearch(reg, state.search.Status)
	file(t, state.Store, "Subject: one\r\n\r\n")
	indexed(t, state, 1)
	for name, want := range map[string]float64{
		"waxwing_search_indexed_total": 1, "waxwing_search_lag_messages": 0, "waxwing_search_rebuilds_total": 0,
	} {
		if got := metric(t, reg, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// metric reads a metric without labels.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() // it is one of the two
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

func TestLoggerWritesTheFormatAndFollowsTheLevel(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	var level slog.LevelVar
	log := NewLogger(&b, "json", &level)
	log.Debug("hidden")
	level.Set(slog.LevelDebug)
	log.Debug("shown", "k", "v\nforged=1")
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("not one JSON object: %v: %s", err, b.String())
	}
	if line["msg"] != "shown" || line["k"] != "v\nforged=1" || !strings.HasSuffix(line["time"].(string), "Z") {
		t.Errorf("line: %s", b.String())
	}
	b.Reset()
	NewLogger(&b, "text", &level).Info("one", "k", "v\nforged=1")
	if strings.Count(b.String(), "\n") != 1 || !strings.Contains(b.String(), `k="v\nforged=1"`) {
		t.Errorf("a value made a line of its own: %q", b.String())
	}
}

func TestHealthPageTellsProblemsAndSinceWhen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := NewHealth(func() time.Time { return now })
	handler := Handler(NewRegistry("test"), h, discard)
	get := func(path, host string) (status int, body string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	h.Set("disk", nil)
	if status, body := get("/healthz", "127.0.0.1:9325"); status != 200 || !strings.Contains(body, `"well":true`) {
		t.Errorf("well: %d %s", status, body)
	}
	now = now.Add(time.Minute)
	h.Set("disk", errors.New("no space"))
	since := now
	now = now.Add(time.Minute)
	h.Set("disk", errors.New("no space at all"))
	status, body := get("/healthz", "localhost")
	if status != 503 || !strings.Contains(body, "no space at all") || !strings.Contains(body, since.Format(time.RFC3339)) {
		t.Errorf("unwell: %d %s", status, body)
	}
	h.Set("disk", nil)
	if status, _ := get("/healthz", "[::1]:9325"); status != 200 {
		t.Errorf("well again: %d", status)
	}
	if status, body := get("/metrics", "127.0.0.1"); status != 200 || !strings.Contains(body, `waxwing_build_info{version="test"} 1`) || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d %.200s", status, body)
	}
	if status, _ := get("/metrics", "rebound.example.com"); status != http.StatusMisdirectedRequest {
		t.Errorf("a foreign name is answered with %d", status)
	}
}

func TestServeListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	h := NewHealth(time.Now)
	if p, err := Serve("0.0.0.0:0", NewRegistry("test"), h, discard); err == nil {
		_ = p.Close(t.Context())
		t.Error("a listener open to the network was made")
	}
	p, err := Serve("127.0.0.1:0", NewRegistry("test"), h, discard)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + p.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		t.Errorf("status %d, %v", resp.StatusCode, err)
	}
	resp.Body.Close()
	if err := p.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

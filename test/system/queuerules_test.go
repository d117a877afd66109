package system

import (
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"

	"waxwing/test/rig"
)

// TestOutgoingRulesOnTheRunningServer pauses, reroutes, suppresses, limits and sends from a pool, all with the server running.
func TestOutgoingRulesOnTheRunningServer(t *testing.T) {
	var box inbox
	var open atomic.Bool
	answer := func(command string) string {
		switch {
		case strings.Contains(command, "dead@"):
			return "550 5.1.1 no such user"
		case strings.HasPrefix(command, "MAIL") && !open.Load():
			return "451 4.7.1 greylisted"
		}
		return ""
	}
	sink, err := rig.StartSinkAt("127.0.0.1:0", answer, box.at("first"))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	other, err := rig.StartSinkAt("127.0.0.1:0", nil, box.at("other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Stop()
	n := node(t, rig.WaxwingOptions{Relay: sink.Address})
	command := func(args ...string) string {
		t.Helper()
		out, err := n.Command(t.Context(), nil, append([]string{"queue"}, append(args, "--dir", n.Dir, "--json")...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	send := func(to, token string) {
		t.Helper()
		if err := submit(t, n, ada, []string{to}, letter(ada.Address, to, token)); err != nil {
			t.Fatal(err)
		}
	}
	waiting := func(answer string) bool { return strings.Contains(command("list"), answer) }

	send("x@far.example", "token-reroute")
	waitFor(t, "it was put off", func() bool { return waiting(`"category": "greylist"`) || waiting(`"category":"greylist"`) })
	var dry struct {
		Recipients int
		DryRun     bool `json:"dry_run"`
		Sample     []any
	}
	out := command("reroute", "--answer", "Greylisted", "--category", "greylist", "--to-host", other.Address, "--dry-run")
	if err := json.Unmarshal([]byte(out), &dry); err != nil || dry.Recipients != 1 || !dry.DryRun || len(dry.Sample) != 1 {
		t.Fatalf("dry run: %s, %v", out, err)
	}
	command("reroute", "--answer", "Greylisted", "--to-host", other.Address)
	if got := box.find(t, "token-reroute"); got.at != "other" {
		t.Errorf("taken at %s", got.at)
	}

	open.Store(true)
	command("pause", "--to", "far.example", "--reason", "test")
	send("x@far.example", "token-paused")
	send("x@near.example", "token-near")
	box.find(t, "token-near")
	if out := command("pause", "--list"); !strings.Contains(out, "far.example") {
		t.Errorf("paused: %s", out)
	}
	if rows := command("list", "--destination", "far.example"); !strings.Contains(rows, "waiting") {
		t.Errorf("listed: %s", rows)
	}
	command("resume", "--to", "far.example")
	box.find(t, "token-paused")

	command("pool", "add", "main", "127.0.0.1=out.here.example", "--destination", "*")
	command("limits", "set", "far.example", "--concurrency", "2", "--per-minute", "600")
	open.Store(false)
	send("y@far.example", "token-pool")
	waitFor(t, "it was tried from the pool", func() bool { return strings.Contains(command("list", "--pool", "main"), "y@far.example") })
	open.Store(true)
	command("retry", "--pool", "main")
	box.find(t, "token-pool")

	command("suppress", "add", "gone@far.example", "--reason", "left long ago")
	send("gone@far.example", "token-gone")
	waitFor(t, "it has failed", func() bool { return !waiting("gone@far.example") })
	for _, got := range box.all() {
		if strings.Contains(got.body, "token-gone") {
			t.Error("mail was sent to a suppressed address")
		}
	}
	if out := command("suppress", "list"); !strings.Contains(out, "left long ago") {
		t.Errorf("suppressed: %s", out)
	}
	command("suppress", "remove", "gone@far.example")
	send("gone@far.example", "token-back")
	box.find(t, "token-back")
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxwing/internal/durable/ordeal"
)

func TestTheLineSumsAllTests(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "ledger")
	ledger := `{"Test":"TestB","Seed":7,"Kills":2,"Duplicates":1}` + "\n" + `{"Test":"TestA","Seed":7,"Cuts":3,"Faults":4}` + "\n"
	if err := os.WriteFile(name, []byte(ledger), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := read(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := report(all)
	if want := "2 kills, 3 power cuts, 4 faults: 0 lost, 0 partial, 1 duplicates; seeds 7"; lines[0] != want {
		t.Errorf("got %s, want %s", lines[0], want)
	}
	if len(lines) != 3 || !strings.Contains(lines[1], "TestA, seed 7: 0 kills, 3 power cuts") {
		t.Errorf("lines %q", lines)
	}
	if err := verdict(all); err != nil {
		t.Error(err)
	}
}

func TestWhatProvesNothingOrSomethingBadIsAnError(t *testing.T) {
	t.Parallel()
	for name, all := range map[string][]ordeal.Outcome{
		"nothing ran":  nil,
		"nothing done": {{Test: "TestA"}},
		"lost":         {{Test: "TestA", Kills: 1, Lost: 1}},
		"partial":      {{Test: "TestA", Kills: 1, Partial: 1}},
		"failed":       {{Test: "TestA", Kills: 1}, {Test: "TestB", Kills: 1, Failed: true}},
	} {
		if verdict(all) == nil {
			t.Errorf("%s is no error", name)
		}
	}
	if _, err := read(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no ledger: %v", err)
	}
}

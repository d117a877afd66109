package main

import (
	"strings"
	"testing"
)

func TestAShortRunPrintsEachFigure(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	o := options{dir: t.TempDir(), seconds: 0.05, rounds: 1, inFlight: 4, size: 1000, messages: 100}
	if err := run(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bare append", "durable deliveries", "ratio", "start with 10100 messages", "newest 50 of   10000", "newest 50 of     100", "all entries of           100", "flags of 10000 messages"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

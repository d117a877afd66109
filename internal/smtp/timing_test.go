package smtp

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDeliverByAsItIsSent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := DeliverBy{
			Seconds: rapid.Int64Range(-maxBySeconds, maxBySeconds).Draw(t, "seconds"),
			Mode:    rapid.SampledFrom([]ByMode{ByNotify, ByReturn}).Draw(t, "mode"), Trace: rapid.Bool().Draw(t, "trace"),
		}
		got, ok := parseDeliverBy(want.String())
		if late := want.Mode == ByReturn && want.Seconds <= 0; ok == late || ok && got != want {
			t.Fatalf("%q became %+v, %v", want.String(), got, ok)
		}
	})
}

func TestValidSinceAsItIsSent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := ValidSince{Since: time.Unix(rapid.Int64Range(1, 1<<35).Draw(t, "since"), 0).UTC(), Continue: rapid.Bool().Draw(t, "continue")}
		if got, ok := ParseValidSince(want.String()); !ok || got != want {
			t.Fatalf("%q became %+v, %v", want.String(), got, ok)
		}
	})
}

func TestHoldParameters(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in    string
		held  time.Duration
		until time.Time
		code  int
	}{
		{in: " FROM:<a@b.test> HOLDFOR=3600", held: time.Hour},
		{in: " FROM:<a@b.test> HOLDUNTIL=2026-12-24T18:00:00Z", until: time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)},
		{in: " FROM:<a@b.test> holduntil=2026-12-24t18:00:00z", until: time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)},
		{in: " FROM:<a@b.test> HOLDFOR=1 HOLDUNTIL=2026-12-24T18:00:00Z", code: 501},
		{in: " FROM:<a@b.test> HOLDUNTIL=2026-12-24T18:00:00Z HOLDFOR=1", code: 501},
		{in: " FROM:<a@b.test> HOLDFOR=0", code: 501},
		{in: " FROM:<a@b.test> HOLDFOR=-1", code: 501},
		{in: " FROM:<a@b.test> HOLDFOR=1000000000", code: 501},
		{in: " FROM:<a@b.test> HOLDUNTIL=tomorrow", code: 501},
		{in: " FROM:<a@b.test> HOLDFOR", code: 501},
	} {
		m, refusal := ParseMail([]byte(tc.in))
		if !checkRefusal(t, refusal, tc.code, "5.5.4") && (m.HoldFor != tc.held || !m.HoldUntil.Equal(tc.until)) {
			t.Errorf("%s: %v, %v", tc.in, m.HoldFor, m.HoldUntil)
		}
	}
}

func TestPriorityValues(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int{"0": 0, "9": 9, "-9": -9, "-1": -1} {
		if n, ok := ParsePriority(s); !ok || n != want {
			t.Errorf("%s became %d, %v", s, n, ok)
		}
	}
	for _, s := range []string{"", "-", "10", "-10", "+1", "-0", "a", "1 "} {
		if n, ok := ParsePriority(s); ok {
			t.Errorf("%q became %d", s, n)
		}
	}
}

package store

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLanesByPriorityAndVolume(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ priority, before, want int }{
		{0, 0, 1},
		{0, 9, 1},
		{0, 10, 2},
		{0, 99, 2},
		{0, 100, 3},
		{0, 1000, 4},
		{0, 10_000, 5},
		{0, 10_000_000, 5},
		{1, 10_000, laneUrgent},
		{9, 0, laneUrgent},
		{-1, 0, laneLow},
		{-9, 10_000, laneLow},
	} {
		if got := laneOf(c.priority, c.before); got != c.want {
			t.Errorf("priority %d after %d: lane %d, want %d", c.priority, c.before, got, c.want)
		}
	}
	var v volumes
	at := time.UnixMilli(1_700_000_000_000)
	for range 1000 {
		v.add("flood", at)
	}
	if n := v.add("letter", at); n != 0 {
		t.Errorf("a quiet sender has %d before it", n)
	}
	if n := v.add("flood", at.Add(volumeHalf)); n != 500 {
		t.Errorf("after a while %d of 1000 are remembered", n)
	}
	for i := range 3 * maxVolumes {
		v.add(fmt.Sprint(i), at)
	}
	if n := len(v.of); n > maxVolumes {
		t.Errorf("%d senders are remembered", n)
	}
	for from, want := range map[string]string{"a@B.test": "b.test", "": "", "x": "x"} {
		if got := senderOf(&QueueMessage{From: from}); got != want {
			t.Errorf("sender of %q is %q", from, got)
		}
	}
}

// TestTurnsLeaveNobodyBehind: whatever lanes are ready and however much each takes, one that stays ready is served before the
// others have taken more than their shares allow, and it gets its share.
func TestTurnsLeaveNobodyBehind(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s turns
		patient := rapid.IntRange(0, laneCount-1).Draw(t, "patient")
		since, taken := 0, map[int]int{}
		for range rapid.IntRange(1, 500).Draw(t, "rounds") {
			ready := rapid.IntRange(0, 1<<laneCount-1).Draw(t, "ready") | 1<<patient
			n := rapid.IntRange(1, 50).Draw(t, "taken")
			lane := s.next(func(l int) bool { return ready&(1<<l) != 0 })
			s.charge(lane, n)
			taken[lane] += n
			if lane == patient {
				since, taken = 0, map[int]int{}
				continue
			}
			since++
			// While it waits its pass stands still, at most one turn of its own above that of any other.
			for other, got := range taken {
				if int64(got)*laneCost[other] > 50*laneCost[patient]+50*laneCost[other] {
					t.Fatalf("lane %d took %d while lane %d waited for %d rounds", other, got, patient, since)
				}
			}
		}
	})
}

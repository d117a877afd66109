package backup

import (
	"fmt"
	"testing"

	"waxwing/internal/store"
)

// TestQueuedMailOfAWholeRestore looks at what becomes of queued mail, and of the contents that it alone named.
func TestQueuedMailOfAWholeRestore(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(4)
	rows := func(columns []string, list ...[]any) (out []store.Record) {
		for _, v := range list {
			out = append(out, store.Record{Columns: columns, Values: v})
		}
		return out
	}
	m.tables["queue_message"] = rows([]string{"id", "blob_id"}, []any{int64(1), int64(3)})
	m.tables["queue_recipient"] = rows([]string{"id", "message_id", "domain", "state", "next_attempt", "lease_until", "lease_owner"},
		[]any{int64(1), int64(1), "b.test", "waiting", int64(70), int64(0), ""},
		[]any{int64(2), int64(1), "a.test", "leased", int64(90), int64(95), "x"},
		[]any{int64(3), int64(1), "b.test", "waiting", int64(60), int64(0), ""},
		[]any{int64(4), int64(1), "c.test", "held", int64(50), int64(0), ""})
	m.tables["queue_destination"] = rows([]string{"domain", "due", "not_before"}, []any{"a.test", int64(1), int64(2)})
	out := g.back(t, m)
	for fate, want := range map[QueueFate]string{
		"":           "1 messages, held held held held, [], 4 contents",
		HoldQueue:    "1 messages, held held held held, [], 4 contents",
		ReleaseQueue: "1 messages, waiting waiting waiting held, [a.test 1 90 0 b.test 1 60 0], 4 contents",
		DropQueue:    "0 messages, , [], 3 contents",
	} {
		a := &Ahead{Reader: g.reader(t, out.ID), At: m.at, Queue: fate}
		messages, contents, states, due := 0, 0, "", []any{}
		for _, table := range []string{"queue_message", "queue_recipient", "queue_destination"} {
			for r, err := range a.Rows(t.Context(), table, 0) {
				if err != nil {
					t.Fatal(err)
				}
				switch table {
				case "queue_message":
					messages++
				case "queue_recipient":
					if states += fmt.Sprint(r.Values[3], " "); r.Values[5] != int64(0) || r.Values[6] != "" {
						t.Errorf("%s: a lease is left: %v", fate, r.Values)
					}
				default:
					due = append(due, r.Values...)
				}
			}
		}
		for c, err := range a.Contents(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if contents++; c.Refs != 1 {
				t.Errorf("%s: content %d has %d references", fate, c.ID, c.Refs)
			}
		}
		if len(states) > 0 {
			states = states[:len(states)-1]
		}
		if got := fmt.Sprintf("%d messages, %s, %v, %d contents", messages, states, due, contents); got != want {
			t.Errorf("%q: %s, want %s", fate, got, want)
		}
	}
}

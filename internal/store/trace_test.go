package store_test

import (
	"fmt"
	"strings"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

func TestADeliveryWritesItsTrace(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		storetest.Account(t, s, 1)
		row := store.TraceRow{ID: "A", Part: 7, Steps: []byte("steps"), Queued: func(b []byte, id store.QueueID) []byte {
			return fmt.Appendf(b, " queue %d", id)
		}}
		done, err := s.Deliver(t.Context(), store.Delivery{
			Content: strings.NewReader("x"), Local: []store.NewEntry{{Account: 1}}, Trace: row,
			Queue: &store.QueueMessage{From: "a@here.test", Recipients: []store.QueueRecipient{rcpt("a@b.test")}},
		})
		if err != nil {
			t.Fatal(err)
		}
		rows, err := s.Trace(t.Context(), "A")
		if want := fmt.Sprintf("steps queue %d", done.Queue); err != nil || len(rows) != 1 || rows[0].Part != 7 || string(rows[0].Steps) != want {
			t.Errorf("%+v, %v; want %q", rows, err, want)
		}
		_, err = s.Deliver(t.Context(), store.Delivery{
			Content: strings.NewReader("y"), Local: []store.NewEntry{{Account: 99}}, Trace: store.TraceRow{ID: "B", Steps: []byte("x")},
		})
		if rows, terr := s.Trace(t.Context(), "B"); err == nil || terr != nil || len(rows) != 0 {
			t.Errorf("a delivery that failed (%v) left %+v, %v", err, rows, terr)
		}
	})
}

func TestTracesAreListedAndGo(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		var rows []store.TraceRow
		var index []store.TraceIndex
		for i := range 2500 {
			rows = append(rows, store.TraceRow{ID: fmt.Sprintf("%06d", i), Part: int64(i), Steps: []byte("s")})
			index = append(index, store.TraceIndex{Bucket: int64(i / 1000), Part: int64(i), Traces: 1, IDs: []byte("x"), Words: []byte("w")})
		}
		if err := s.TraceWrite(ctx, rows, index, 100); err != nil {
			t.Fatal(err)
		}
		if ids, err := s.TraceIDs(ctx, "000010", "000020", 3); err != nil || fmt.Sprint(ids) != "[000019 000018 000017]" {
			t.Errorf("%v, %v", ids, err)
		}
		if got, err := s.TraceAfter(ctx, "002490", 5); err != nil || len(got) != 5 || got[0].ID != "002491" {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := s.TraceBetween(ctx, 10, 13, 5); err != nil || len(got) != 2 || got[0].Part != 11 {
			t.Errorf("%v, %v", got, err)
		}
		if buckets, err := s.TraceScattered(ctx, 600, 2); err != nil || fmt.Sprint(buckets) != "[0 1]" {
			t.Errorf("%v, %v", buckets, err)
		}
		if err := s.TraceExpire(ctx, "002400", 2); err != nil {
			t.Fatal(err)
		}
		ids, err := s.TraceIDs(ctx, "", "~", 1000)
		if err != nil || len(ids) != 100 {
			t.Errorf("%d are left, %v", len(ids), err)
		}
		if first, last, ok, err := s.TraceBuckets(ctx); first != 2 || last != 2 || !ok || err != nil {
			t.Errorf("%d to %d, %v, %v", first, last, ok, err)
		}
		if id, indexed, err := s.TraceNewest(ctx); id != "002499" || !indexed || err != nil {
			t.Errorf("%s, %v, %v", id, indexed, err)
		}
	})
}

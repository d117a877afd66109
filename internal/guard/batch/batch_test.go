package batch_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waxwing/internal/guard/batch"
)

func TestWorkIsDoneInItsRhythm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var lead atomic.Bool
		var flushed, expired atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			batch.Run(ctx, batch.Work{
				Name: "test", Every: time.Minute, Lead: lead.Load, Logger: slog.New(slog.DiscardHandler),
				Flush:  func(ctx context.Context) error { flushed.Add(1); return errors.Join(errors.New("fails"), ctx.Err()) },
				Expire: func(context.Context) error { expired.Add(1); return nil },
			})
		}()
		time.Sleep(10*batch.Beat + time.Millisecond)
		synctest.Wait()
		if flushed.Load() != 10 || expired.Load() != 0 {
			t.Errorf("%d times written, %d times expired", flushed.Load(), expired.Load())
		}
		lead.Store(true)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if expired.Load() != 3 {
			t.Errorf("%d times expired", expired.Load())
		}
		before := flushed.Load()
		cancel()
		<-done
		if flushed.Load() != before+1 {
			t.Error("nothing was written at the end")
		}
	})
}

func TestPartsUpToTheFirstThatFails(t *testing.T) {
	t.Parallel()
	list := make([]int, 2*batch.Size+5)
	for i := range list {
		list[i] = i
	}
	var got []int
	if left, err := batch.InParts(list, func(p []int) error { got = append(got, p...); return nil }); err != nil || left != nil || !slices.Equal(got, list) {
		t.Errorf("%d written, %d left, %v", len(got), len(left), err)
	}
	n := 0
	left, err := batch.InParts(list, func([]int) error {
		if n++; n == 2 {
			return errors.New("fails")
		}
		return nil
	})
	if err == nil || len(left) != batch.Size+5 || left[0] != batch.Size {
		t.Errorf("%d left, %v", len(left), err)
	}
}

package queue

import (
	"context"
	"sync"

	"waxwing/internal/store"
)

// maxOutcomes bounds the deliveries that were answered and are not committed: a store that can't write stops the
// sending, and a crash sends no more than these twice.
const maxOutcomes = 128

// delivered hands over that a server took a message for a recipient. The worker goes on with its next message, while the
// rows go with those of other workers in one transaction.
func (q *Queue) delivered(ctx context.Context, res store.QueueResult) {
	select {
	case q.outcomes <- res:
	case <-ctx.Done(): // the store has trouble and the grace is over
		q.finish(ctx, []store.QueueResult{res})
	}
}

// commitOutcomes commits deliveries until no worker is left, at once and all that have come in meanwhile together: an
// outcome waits for nothing but the commit before it. When that fails each goes on alone, so that a row that can't be
// written keeps no other from its end; with all slots taken by such rows the sending stops.
func (q *Queue) commitOutcomes(ctx context.Context) {
	var alone sync.WaitGroup
	defer alone.Wait()
	slots := make(chan struct{}, maxOutcomes)
	batch := make([]store.QueueResult, 0, maxOutcomes)
	for res := range q.outcomes {
		batch = append(batch[:0], res)
		for more := true; more && len(batch) < maxOutcomes; {
			select {
			case res, ok := <-q.outcomes:
				if more = ok; ok {
					batch = append(batch, res)
				}
			default:
				more = false
			}
		}
		if q.commit(ctx, batch) == nil {
			continue
		}
		for _, res := range batch {
			slots <- struct{}{} // finish ends with ctx at the latest
			alone.Go(func() {
				defer func() { <-slots }()
				q.finish(ctx, []store.QueueResult{res})
			})
		}
	}
}

package trace

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// BenchmarkDelivery is a delivery of 10 KB into one of 100 mailboxes with 32 under way: the processor time of the whole
// process for each, with traces and their words, and without.
func BenchmarkDelivery(b *testing.B) {
	for _, traced := range []bool{false, true} {
		b.Run(fmt.Sprintf("traced=%v", traced), func(b *testing.B) {
			s := storetest.New(b)
			for a := range 100 {
				storetest.Account(b, s, store.AccountID(a+1))
			}
			var r *Recorder
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan struct{})
			if traced {
				r, _ = New(Options{Store: s})
				go func() {
					defer close(ended)
					r.Run(ctx)
				}()
			} else {
				close(ended)
			}
			var n atomic.Int64
			tail := strings.Repeat("The quick brown fox jumps over the lazy dog.\r\n", 220)
			b.SetParallelism(16)
			b.ResetTimer()
			before := processor()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := n.Add(1)
					row := trailOf(r, i)
					d := store.Delivery{
						Content: strings.NewReader(fmt.Sprintf("Subject: %d\r\n\r\n%s", i, tail)), Trace: row.Row(),
						Local: []store.NewEntry{{Account: store.AccountID(i%100 + 1), Role: store.RoleInbox, IgnoreQuota: true}},
					}
					if _, err := s.Deliver(b.Context(), d); err != nil {
						b.Error(err)
					}
					row.Committed(d.Trace)
				}
			})
			cancel()
			<-ended
			b.ReportMetric(float64((processor()-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// trailOf is what a message of an ordinary session leaves.
func trailOf(r *Recorder, i int64) *Trail {
	conn := r.Trail()
	conn.Add(Step{Kind: Connect, Remote: fmt.Sprintf("192.0.2.%d:4711", i%250), Data: []Pair{{"listener", "mx"}, {"local", "192.0.2.251:25"}}})
	conn.Add(Step{Kind: Hello, Host: "mail.remote.test"})
	m := conn.Message()
	m.Add(Step{Kind: Sender, Address: fmt.Sprintf("someone%d@remote.test", i)})
	m.Add(Step{Kind: Recipient, Address: fmt.Sprintf("user%d@example.test", i%100)})
	m.Add(Step{Kind: Content, Data: []Pair{{Size, "10240"}, {MessageID, fmt.Sprintf("%d@remote.test", i)}}})
	m.Add(Step{Kind: Mailbox, Outcome: Delivered, Address: fmt.Sprintf("user%d@example.test", i%100), Data: []Pair{{Folder, "inbox"}}})
	m.Add(Step{Kind: Accept, Reply: "250 2.0.0 ok " + m.ID()})
	return m
}

// processor is the processor time of this process so far.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

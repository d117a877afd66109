package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/durable"
	"waxwing/internal/store"
)

// deliveryAccounts is how many accounts the deliveries go to, in turn.
const deliveryAccounts = 100

// letter makes a content that no other has: half text, half as good as random.
func letter(n, size int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := fmt.Appendf(make([]byte, 0, size+64), "From: a@example.test\r\nSubject: %d\r\n\r\n", n)
	for len(b) < size/2 {
		b = append(b, "The quick brown fox jumps over the lazy dog, again and again.\r\n"...)
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for len(b) < size {
		b = append(b, alphabet[r.IntN(64)])
	}
	return b[:size]
}

// summary is of the usual size.
func summary(n int) store.Summary {
	return store.Summary{
		HeaderSize: 600, SentAt: time.Unix(1_700_000_000, 0), MessageID: fmt.Sprintf("%d@example.test", n),
		Envelope: bytes.Repeat([]byte("e"), 400), BodyStructure: bytes.Repeat([]byte("b"), 200),
		BaseSubject: "quarterly figures", Preview: "The quick brown fox jumps over the lazy dog.",
	}
}

// pace is how often a second something was done, and what processor time each took, the making of its content included.
type pace struct {
	rate float64
	cost time.Duration
}

// measure runs do from n goroutines until the time is over.
func measure(ctx context.Context, n int, length time.Duration, do func(context.Context) error) (pace, error) {
	before, err := processorTime()
	if err != nil {
		return pace{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	end := began.Add(length)
	var done atomic.Int64
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for ctx.Err() == nil && time.Now().Before(end) {
				if errs[i] = do(ctx); errs[i] != nil {
					cancel()
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	after, err := processorTime()
	p := pace{float64(done.Load()) / took.Seconds(), (after - before) / time.Duration(max(1, done.Load()))}
	return p, errors.Join(append(errs, err, context.Cause(ctx))...)
}

// deliver puts distinct messages into the store; next goes on from turn to turn.
func deliver(ctx context.Context, s *store.Store, next *int, o options, length time.Duration) (pace, error) {
	var n atomic.Int64
	n.Store(int64(*next))
	p, err := measure(ctx, o.inFlight, length, func(ctx context.Context) error {
		i := int(n.Add(1))
		_, err := s.Deliver(ctx, store.Delivery{
			Content: bytes.NewReader(letter(i, o.size)), Summary: summary(i), Local: []store.NewEntry{{Account: store.AccountID(i%deliveryAccounts + 1)}},
		})
		return err
	})
	*next = int(n.Load())
	return p, err
}

// appender is the ceiling: one file that is allocated ahead, and one goroutine that writes and syncs what waits.
type appender struct {
	f              durable.File
	off, allocated int64
	jobs           chan job
}

type job struct {
	content []byte
	done    chan error
}

// step is how far the file is allocated ahead, as packs are.
const step = 16 << 20

func (a *appender) run() {
	var buf []byte
	for j := range a.jobs {
		batch := append([]job(nil), j)
		for more := true; more; {
			select {
			case j, ok := <-a.jobs:
				if more = ok; ok {
					batch = append(batch, j)
				}
			default:
				more = false
			}
		}
		buf = buf[:0]
		for _, j := range batch {
			buf = append(buf, j.content...)
		}
		err := a.append(buf)
		for _, j := range batch {
			j.done <- err
		}
	}
}

func (a *appender) append(b []byte) error {
	for a.off+int64(len(b)) > a.allocated {
		if err := a.f.Allocate(a.allocated, step); err != nil {
			return err
		}
		a.allocated += step
	}
	if _, err := a.f.WriteAt(b, a.off); err != nil {
		return err
	}
	a.off += int64(len(b))
	return a.f.Sync()
}

// ceiling appends the same octets with as many waiting, and nothing else.
func ceiling(ctx context.Context, name string, o options, length time.Duration) (p pace, err error) {
	f, err := durable.OS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return pace{}, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	a := &appender{f: f, jobs: make(chan job, o.inFlight)}
	var loop sync.WaitGroup
	loop.Go(a.run)
	var n atomic.Int64
	p, err = measure(ctx, o.inFlight, length, func(context.Context) error {
		j := job{letter(int(n.Add(1)), o.size), make(chan error, 1)} // made here too: its making is no work of the disk
		a.jobs <- j
		return <-j.done
	})
	close(a.jobs)
	loop.Wait()
	return p, err
}

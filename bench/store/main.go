// Command store measures the embedded store beside what the disk could do at best. It prints durable deliveries a second
// beside a bare group-fsync append of the same octets with the same concurrency in the same directory, in turns, and the
// ratio, and the processor time of each; then how a large mailbox opens beside a small one, how long the store takes to start, and the processor time of
// flags on 10,000 messages. Ratios of one run compare; figures of two machines, or of a busy one, do not.
//
//	go run ./bench/store                       with 1,000,000 messages: some minutes
//	go run ./bench/store -messages 0           deliveries alone
//	go run ./bench/store -cpuprofile cpu.out   and where their time goes
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/sqlite"
)

// options of a run.
type options struct {
	dir      string
	seconds  float64
	rounds   int
	inFlight int
	size     int
	messages int
	profile  string
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "directory on the disk to measure; by default a temporary one")
	flag.Float64Var(&o.seconds, "seconds", 4, "length of each turn")
	flag.IntVar(&o.rounds, "rounds", 3, "turns of each kind")
	flag.IntVar(&o.inFlight, "inflight", 32, "deliveries at the same time")
	flag.IntVar(&o.size, "size", 10_000, "octets of a message")
	flag.IntVar(&o.messages, "messages", 1_000_000, "messages in the large mailbox; 0 leaves it out")
	flag.StringVar(&o.profile, "cpuprofile", "", "file for a profile of the deliveries")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/store:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "waxwing-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := deliveries(ctx, out, dir, o); err != nil {
		return err
	}
	if o.messages == 0 {
		return nil
	}
	return mailboxes(ctx, out, filepath.Join(dir, "large"), o.messages)
}

// deliveries takes turns, so that both sides meet the same weather, and prints the medians.
func deliveries(ctx context.Context, out io.Writer, dir string, o options) error {
	s, err := openStore(ctx, filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := accounts(ctx, s, deliveryAccounts); err != nil {
		return err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	length := time.Duration(o.seconds * float64(time.Second))
	var bare, durable []pace
	var ratio []float64
	next := 0
	for range o.rounds {
		a, err := ceiling(ctx, filepath.Join(dir, "bare"), o, length)
		if err != nil {
			return err
		}
		d, err := deliver(ctx, s, &next, o, length)
		if err != nil {
			return err
		}
		bare, durable, ratio = append(bare, a), append(durable, d), append(ratio, d.rate/a.rate)
	}
	fmt.Fprintf(out, "%d octets, %d in flight, medians of %d turns of %s\n", o.size, o.inFlight, o.rounds, length)
	const line = "  %-33s %8.0f /s  %4d µs of processor time each\n"
	a, d := medianPace(bare), medianPace(durable)
	fmt.Fprintf(out, line, "bare append with group fdatasync", a.rate, a.cost.Microseconds())
	fmt.Fprintf(out, line, "durable deliveries", d.rate, d.cost.Microseconds())
	fmt.Fprintf(out, "  ratio                             %8.0f %%\n", 100*median(ratio))
	return nil
}

func medianPace(paces []pace) pace {
	var rates, costs []float64
	for _, p := range paces {
		rates, costs = append(rates, p.rate), append(costs, float64(p.cost))
	}
	return pace{median(rates), time.Duration(median(costs))}
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// openStore opens an embedded store as the server does, without encryption and the index of text.
func openStore(ctx context.Context, dir string) (*store.Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := sqlite.Open(ctx, filepath.Join(dir, "waxwing.db"), sqlite.Options{})
	if err != nil {
		return nil, err
	}
	packs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "packs")})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return store.Open(ctx, store.Options{DB: db, Blobs: store.Packs(packs)})
}

func accounts(ctx context.Context, s *store.Store, n int) error {
	return s.Write(ctx, func(tx *store.Tx) error {
		for i := range n {
			if err := s.CreateAccountState(tx, store.AccountID(i+1), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestGuessingSlowsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{})
		begin := time.Now()
		guesses, refused := 0, 0
		for time.Since(begin) < time.Hour {
			switch err := f.try("192.0.2.1", "anna@example.test", fmt.Sprintf("guess %d", guesses)); {
			case errors.Is(err, ErrCredentials):
				guesses++
			case errors.Is(err, ErrThrottled):
				refused++
				time.Sleep(time.Second)
			default:
				t.Fatal(err)
			}
		}
		if guesses < 6 || guesses > 40 || refused == 0 {
			t.Errorf("%d guesses and %d refusals in an hour", guesses, refused)
		}
	})
}

func TestOwnerElsewhereIsNotSlowedDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{})
		for range 50 {
			_ = f.try("192.0.2.1", "anna@example.test", "guess")
		}
		begin := time.Now()
		for _, ip := range []string{"198.51.100.7", "2001:db8::1", "192.0.3.1"} {
			if err := f.try(ip, "anna@example.test", "right password"); err != nil {
				t.Errorf("from %s: %v", ip, err)
			}
		}
		if err := f.try("192.0.2.1", "bo@example.test", "other password"); err != nil {
			t.Errorf("another account from the attacker's network: %v", err)
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("owners waited %v", d)
		}
	})
}

func TestNeighboursAndAliasesCountTogether(t *testing.T) {
	t.Parallel()
	for name, sources := range map[string][]string{
		"IPv4 /24": {"192.0.2.1", "192.0.2.77", "192.0.2.254", "::ffff:192.0.2.9"},
		"IPv6 /64": {"2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:0:1:2:3:4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, Options{})
				logins := []string{"anna@example.test", "ANNA@example.test", "info@example.test"}
				for i := range 60 {
					_ = f.try(sources[i%len(sources)], logins[i%len(logins)], "guess")
				}
				for _, ip := range sources {
					if err := f.try(ip, "anna@example.test", "right password"); !errors.Is(err, ErrThrottled) {
						t.Errorf("%s: %v, want ErrThrottled", ip, err)
					}
				}
			})
		})
	}
}

func TestUnknownNamesAreSlowedDownLikeKnownOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{})
		run := func(login string) (waits []time.Duration) {
			for range 12 {
				begin := time.Now()
				if err := f.try("192.0.2.1", login, "guess"); errors.Is(err, ErrThrottled) {
					waits = append(waits, -1)
				} else {
					waits = append(waits, time.Since(begin))
				}
			}
			return waits
		}
		known, unknown := run("anna@example.test"), run("nobody@example.test")
		if fmt.Sprint(known) != fmt.Sprint(unknown) {
			t.Errorf("known %v, unknown %v", known, unknown)
		}
	})
}

func TestManyConnectionsGainNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{Concurrency: 4, Waiting: 10_000})
		var mu sync.Mutex
		counts := map[string]int{}
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				err := f.try("192.0.2.1", "anna@example.test", fmt.Sprintf("guess %d", i))
				mu.Lock()
				defer mu.Unlock()
				counts[err.Error()]++
			})
		}
		wg.Wait()
		if n := counts[ErrCredentials.Error()]; n > burst+10 {
			t.Errorf("%d guesses of 1,000 connections at once: %v", n, counts)
		}
	})
}

func TestSuccessForgives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{})
		for range 20 {
			for range 4 {
				_ = f.try("192.0.2.1", "anna@example.test", "typo")
			}
			begin := time.Now()
			if err := f.try("192.0.2.1", "anna@example.test", "right password"); err != nil || time.Since(begin) != 0 {
				t.Fatalf("%v after %v", err, time.Since(begin))
			}
		}
	})
}

func TestFailuresAreForgottenWithTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{Throttle: ThrottleOptions{Forget: time.Hour}})
		for range 40 {
			_ = f.try("192.0.2.1", "anna@example.test", "guess")
		}
		if err := f.try("192.0.2.1", "anna@example.test", "right password"); !errors.Is(err, ErrThrottled) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Second)
		begin := time.Now()
		if err := f.try("192.0.2.1", "anna@example.test", "right password"); err != nil || time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestWaitingEndsWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{})
		for range 6 {
			_ = f.try("192.0.2.1", "anna@example.test", "guess")
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := f.Password(ctx, from("192.0.2.1"), "anna@example.test", []byte("right password"))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		f.throttle.mu.Lock()
		defer f.throttle.mu.Unlock()
		for _, p := range f.throttle.new {
			if p.pending != 0 {
				t.Errorf("%d tries are still under way", p.pending)
			}
		}
	})
}

func TestThrottleMemoryIsBounded(t *testing.T) {
	t.Parallel()
	th := newThrottle(ThrottleOptions{Pairs: 1000}, time.Now)
	for i := range 50_000 {
		tr, err := th.begin(context.Background(), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprint("name", i))
		must(t, err)
		tr.failed()
	}
	if n := th.len(); n > 1000 {
		t.Errorf("%d pairs of at most 1000", n)
	}
}

func TestExemptAddressesAreNotSlowedDownButStillChecked(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{Throttle: ThrottleOptions{Exempt: func(a netip.Addr) bool { return a.IsLoopback() }}})
	for range 50 {
		if err := f.try("127.0.0.1", "anna@example.test", "guess"); !errors.Is(err, ErrCredentials) {
			t.Fatal(err)
		}
	}
}

// Command flood measures what thousands of idle and slow connections do to everybody else: it starts the built server, sends
// messages one after another from a few polite clients, holds 5,000 connections open beside them, half of them idle and half
// sending an octet a second, and compares the times that the polite clients see, in one run.
//
//	go run ./bench/flood -binary bin/waxwing
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing/test/rig"
)

func main() {
	binary := flag.String("binary", "bin/waxwing", "the built server")
	connections := flag.Int("connections", 5000, "idle and slow connections")
	clients := flag.Int("clients", 4, "polite clients at one time")
	span := flag.Duration("time", 20*time.Second, "time of each measurement")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *binary, *connections, *clients, *span); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

const to = "ada@example.test"

func run(ctx context.Context, binary string, connections, clients int, span time.Duration) error {
	dir, err := os.MkdirTemp("", "flood")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := rig.Waxwing(ctx, dir, rig.WaxwingOptions{
		Binary: binary, Domain: "example.test", Accounts: []rig.Account{{Address: to, Password: "correct horse 7 battery"}},
	})
	if err != nil {
		return err
	}
	defer func() { _ = s.Stop() }()
	if _, err := measure(ctx, s.SMTP, clients, span/4); err != nil { // warms up
		return err
	}
	before, err := measure(ctx, s.SMTP, clients, span)
	if err != nil {
		return err
	}
	quiet := s.Memory()
	crowd, err := flood(s.SMTP, connections)
	if err != nil {
		return err
	}
	defer crowd.end()
	during, err := measure(ctx, s.SMTP, clients, span)
	if err != nil {
		return err
	}
	full := s.Memory()
	fmt.Printf("%-28s %9s %12s %12s\n", "", "messages", "p50", "p99")
	for _, row := range []struct {
		name  string
		times []time.Duration
	}{{"alone", before}, {fmt.Sprintf("beside %d connections", connections), during}} {
		fmt.Printf("%-28s %9d %12s %12s\n", row.name, len(row.times), at(row.times, 50), at(row.times, 99))
	}
	fmt.Printf("p99 ratio %.2f, still open %d, memory %d MiB and %d MiB\n",
		float64(at(during, 99))/float64(at(before, 99)), crowd.open(), quiet>>20, full>>20)
	return nil
}

func at(times []time.Duration, percent int) time.Duration {
	return times[min(len(times)*percent/100, len(times)-1)].Round(10 * time.Microsecond)
}

// measure sends messages, each on a connection of its own, and gives the times from dialing to the reply, in order.
func measure(ctx context.Context, addr string, clients int, span time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				err := send(addr)
				mu.Lock()
				all, failed = append(all, time.Since(began)), err
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all, failed
}

// send brings one message of about 10 KB.
func send(addr string) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	r := bufio.NewReader(nc)
	body := "Subject: hello\r\n\r\n" + strings.Repeat("a line of text that stands for what people write\r\n", 200) + "."
	for _, step := range []struct{ say, want string }{
		{"", "220"}, {"EHLO client.test", "250"}, {"MAIL FROM:<a@far.test>", "250"}, {"RCPT TO:<" + to + ">", "250"}, {"DATA", "354"}, {body, "250"},
	} {
		if step.say != "" {
			if _, err := nc.Write([]byte(step.say + "\r\n")); err != nil {
				return err
			}
		}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			if !strings.HasPrefix(line, step.want) {
				return fmt.Errorf("answered %q", line)
			}
			if line[3] == ' ' {
				break
			}
		}
	}
	return nil
}

// crowd is connections that are held.
type crowd struct {
	list []net.Conn
	stop chan struct{}
	done sync.WaitGroup
}

// flood opens connections; every other one sends an octet a second.
func flood(addr string, n int) (*crowd, error) {
	c := &crowd{stop: make(chan struct{})}
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			c.end()
			return nil, fmt.Errorf("connection %d: %w", len(c.list)+1, err)
		}
		c.list = append(c.list, nc)
	}
	c.done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-c.stop:
				return
			case <-tick.C:
				for i := 0; i < len(c.list); i += 2 {
					_, _ = c.list[i].Write([]byte("N")) // a peer that was sent away is counted by open
				}
			}
		}
	})
	return c, nil
}

// open counts the connections that the server still holds: those that end are read to their end.
func (c *crowd) open() (n int) {
	buf := make([]byte, 512)
	for _, nc := range c.list {
		if nc.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
			continue
		}
		for {
			_, err := nc.Read(buf)
			if err == nil {
				continue
			}
			if os.IsTimeout(err) {
				n++
			}
			break
		}
	}
	return n
}

func (c *crowd) end() {
	close(c.stop)
	c.done.Wait()
	for _, nc := range c.list {
		nc.Close()
	}
}

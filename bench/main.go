// Command bench runs Waxwing and Postfix with Dovecot in turn on the same work and prints ratios. It speaks only the
// public protocols, so that it measures what users get. Both store durably, both listen on loopback, both speak TLS
// where they would. Figures of one run compare; figures of two machines do not.
//
//	go run ./bench                          everything, some minutes
//	go run ./bench -only smtp,pop3          some of it
//	go run ./bench -system waxwing          one side, for profiling
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"waxwing/test/rig"
)

type options struct {
	only        string
	system      string
	binary      string
	messages    int
	size        int
	connections int
	rounds      int
	mailbox     int
	idle        int
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "smtp,submission,latency,imap,pop3,idle", "the kinds of work, by comma")
	flag.StringVar(&o.system, "system", "both", "waxwing, classic or both")
	flag.StringVar(&o.binary, "binary", "bin/waxwing", "the built server")
	flag.IntVar(&o.messages, "messages", 3000, "messages of an SMTP load")
	flag.IntVar(&o.size, "size", 10<<10, "octets of a message")
	flag.IntVar(&o.connections, "connections", 20, "connections of an SMTP load")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each load; the median counts")
	flag.IntVar(&o.mailbox, "mailbox", 10000, "messages of 4 KiB in the mailbox that IMAP and POP3 read")
	flag.IntVar(&o.idle, "idle", 100, "idle IMAP sessions")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// figure is one measured thing; more is better for rates, less for times.
type figure struct {
	name  string
	value float64
	unit  string
	rate  bool
}

func run(ctx context.Context, o options) error {
	results := map[string][]figure{}
	for _, system := range []string{"classic", "waxwing"} {
		if o.system != "both" && o.system != system {
			continue
		}
		figures, err := measure(ctx, o, system)
		if err != nil {
			return fmt.Errorf("%s: %w", system, err)
		}
		results[system] = figures
	}
	report(results)
	return nil
}

func measure(ctx context.Context, o options, system string) (figures []figure, err error) {
	dir, err := os.MkdirTemp("", "bench-"+system)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	sink, err := rig.StartSink(nil)
	if err != nil {
		return nil, err
	}
	defer sink.Stop()
	accounts := benchAccounts()
	s, err := start(ctx, system, dir, o.binary, accounts, sink.Address)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()

	for _, kind := range strings.Split(o.only, ",") {
		fmt.Fprintf(os.Stderr, "%s: %s\n", s.Name, kind)
		var f []figure
		switch kind {
		case "smtp":
			f, err = measureSMTP(ctx, o, s, accounts)
		case "submission":
			f, err = measureSubmission(ctx, o, s, accounts, sink)
		case "latency":
			f, err = measureLatency(ctx, o, s, accounts)
		case "imap":
			f, err = measureIMAP(o, s, accounts[len(accounts)-1])
		case "pop3":
			f, err = measurePOP3(o, s, accounts[len(accounts)-1])
		case "idle":
			f, err = measureIdle(o, s, accounts[0])
		default:
			err = fmt.Errorf("no such work: %q", kind)
		}
		if err != nil {
			return figures, fmt.Errorf("%s: %w", kind, err)
		}
		figures = append(figures, f...)
	}
	return figures, nil
}

// benchAccounts are 20 that receive mail and a last one whose mailbox is read.
func benchAccounts() []rig.Account {
	var all []rig.Account
	for i := range 21 {
		all = append(all, rig.Account{Address: fmt.Sprintf("user%02d@example.test", i), Password: "bench-Secret-phrase-7"})
	}
	return all
}

func start(ctx context.Context, system, dir, binary string, accounts []rig.Account, relay string) (*rig.Server, error) {
	if system == "classic" {
		return rig.Classic(ctx, dir, rig.ClassicOptions{Domain: "example.test", Accounts: accounts, Relay: relay})
	}
	return rig.Waxwing(ctx, dir, rig.WaxwingOptions{Binary: binary, Domain: "example.test", Accounts: accounts, Relay: relay})
}

// measureSMTP counts a message when it can be read in its mailbox, not when it is answered: with Postfix that is later.
func measureSMTP(ctx context.Context, o options, s *rig.Server, accounts []rig.Account) ([]figure, error) {
	readers := accounts[:len(accounts)-1]
	var to []string
	for _, a := range readers {
		to = append(to, a.Address)
	}
	var rates, cpu []float64
	for range o.rounds {
		had, err := countMail(s, readers)
		if err != nil {
			return nil, err
		}
		used := s.CPU()
		began := time.Now()
		job := smtpJob{Address: s.SMTP, Connections: o.connections, Messages: o.messages, Size: o.size, From: "sender@bench.test", To: to}
		r, err := job.run(ctx)
		if err != nil {
			return nil, err
		}
		for {
			have, err := countMail(s, readers)
			if err != nil {
				return nil, err
			}
			if have-had >= r.Accepted {
				break
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			time.Sleep(20 * time.Millisecond)
		}
		rates = append(rates, float64(r.Accepted)/time.Since(began).Seconds())
		cpu = append(cpu, (s.CPU()-used).Seconds()*1000/float64(r.Accepted))
	}
	return []figure{
		{"SMTP to mailbox", median(rates), "messages/s", true},
		{"  CPU of it", median(cpu), "ms/message", false},
	}, nil
}

// countMail sums the messages of the accounts' inboxes.
func countMail(s *rig.Server, accounts []rig.Account) (int, error) {
	total := 0
	for _, a := range accounts {
		c, err := dialIMAP(s.IMAPS, a.Address, a.Password)
		if err != nil {
			return 0, err
		}
		n, err := c.messages("INBOX")
		c.Close()
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// measureSubmission sends mail for another domain, which leaves for a sink at once: accepted and delivered count.
func measureSubmission(ctx context.Context, o options, s *rig.Server, accounts []rig.Account, sink *rig.Sink) ([]figure, error) {
	var accepted, delivered []float64
	for range o.rounds {
		before := sink.Received()
		began := time.Now()
		job := smtpJob{
			Address: s.Submission, Connections: o.connections, Messages: o.messages, Size: o.size,
			From: accounts[0].Address, To: []string{"a@sink.test", "b@sink.test"}, User: accounts[0].Address, Password: accounts[0].Password,
		}
		r, err := job.run(ctx)
		if err != nil {
			return nil, err
		}
		accepted = append(accepted, r.perSecond())
		deadline := time.Now().Add(3 * time.Minute)
		for sink.Received()-before < int64(r.Accepted) {
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("only %d of %d messages left", sink.Received()-before, r.Accepted)
			}
			time.Sleep(10 * time.Millisecond)
		}
		delivered = append(delivered, float64(r.Accepted)/time.Since(began).Seconds())
	}
	return []figure{
		{"submission to queue", median(accepted), "messages/s", true},
		{"  and out to the next server", median(delivered), "messages/s", true},
	}, nil
}

func measureLatency(ctx context.Context, o options, s *rig.Server, accounts []rig.Account) ([]figure, error) {
	job := smtpJob{Address: s.SMTP, Connections: 1, Messages: 200, Size: o.size, From: "sender@bench.test", To: []string{accounts[0].Address}}
	r, err := job.run(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{{"latency of one message, median", ms(median(r.Latencies)), "ms", false}}, nil
}

func measureIMAP(o options, s *rig.Server, a rig.Account) ([]figure, error) {
	if err := ensureFilled(o, s, a); err != nil {
		return nil, err
	}
	times, err := timeIMAP(s.IMAPS, a.Address, a.Password, o.rounds)
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, task := range imapTasks {
		figures = append(figures, figure{fmt.Sprintf("IMAP %s, %d messages", task.name, o.mailbox), ms(times[task.name]), "ms", false})
	}
	return figures, nil
}

func ensureFilled(o options, s *rig.Server, a rig.Account) error {
	have, err := countMail(s, []rig.Account{a})
	if err != nil || have >= o.mailbox {
		return err
	}
	return fillIMAP(s.IMAPS, a.Address, a.Password, o.mailbox-have, 4<<10)
}

func measurePOP3(o options, s *rig.Server, a rig.Account) ([]figure, error) {
	if err := ensureFilled(o, s, a); err != nil {
		return nil, err
	}
	var rates, uidl, pipelined []float64
	for range o.rounds {
		t, err := timePOP3(s.POP3S, a.Address, a.Password, 1)
		if err != nil {
			return nil, err
		}
		rates = append(rates, float64(t.Messages)/t.RETR.Seconds())
		uidl = append(uidl, ms(t.UIDL))
		if t, err = timePOP3(s.POP3S, a.Address, a.Password, 32); err != nil {
			return nil, err
		}
		pipelined = append(pipelined, float64(t.Messages)/t.RETR.Seconds())
	}
	return []figure{
		{"POP3 RETR, one at a time", median(rates), "messages/s", true},
		{"POP3 RETR, pipelined", median(pipelined), "messages/s", true},
		{"POP3 UIDL", median(uidl), "ms", false},
	}, nil
}

func measureIdle(o options, s *rig.Server, a rig.Account) ([]figure, error) {
	// One session first: what it touches for the first time is not the session's own.
	closeOne, err := idleIMAP(s.IMAPS, a.Address, a.Password, 1)
	if err != nil {
		return nil, err
	}
	defer closeOne()
	settle(s)
	before := s.Memory()
	closeAll, err := idleIMAP(s.IMAPS, a.Address, a.Password, o.idle)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	settle(s)
	return []figure{{"memory of an idle TLS IMAP session", float64(s.Memory()-before) / float64(o.idle) / 1024, "KiB", false}}, nil
}

// settle waits until the memory of a system no longer moves by more than a hundredth.
func settle(s *rig.Server) {
	last := s.Memory()
	for range 20 {
		time.Sleep(500 * time.Millisecond)
		now := s.Memory()
		if diff := now - last; diff < last/100 && diff > -last/100 {
			return
		}
		last = now
	}
}

func report(results map[string][]figure) {
	classic, waxwing := results["classic"], results["waxwing"]
	var b bytes.Buffer
	fmt.Fprintf(&b, "%-48s %14s %14s %8s\n", "", "Postfix+Dovecot", "Waxwing", "ratio")
	names := classic
	if len(names) == 0 {
		names = waxwing
	}
	for _, f := range names {
		c, okC := find(classic, f.name)
		w, okW := find(waxwing, f.name)
		line := fmt.Sprintf("%-48s", f.name)
		for _, side := range []struct {
			figure
			ok bool
		}{{c, okC}, {w, okW}} {
			if side.ok {
				line += fmt.Sprintf(" %14.2f", side.value)
			} else {
				line += fmt.Sprintf(" %14s", "-")
			}
		}
		if okC && okW && c.value > 0 && w.value > 0 {
			ratio := w.value / c.value
			if !f.rate {
				ratio = c.value / w.value
			}
			line += fmt.Sprintf(" %7.2fx", ratio)
		} else {
			line += fmt.Sprintf(" %8s", "")
		}
		fmt.Fprintf(&b, "%s  %s\n", line, f.unit)
	}
	fmt.Fprintln(&b, "\nA ratio above 1 means that Waxwing is faster or smaller.")
	os.Stdout.Write(b.Bytes())
}

func find(all []figure, name string) (figure, bool) {
	i := slices.IndexFunc(all, func(f figure) bool { return f.name == name })
	if i < 0 {
		return figure{}, false
	}
	return all[i], true
}

func median[T float64 | time.Duration](s []T) T {
	if len(s) == 0 {
		return 0
	}
	s = slices.Clone(s)
	slices.Sort(s)
	return s[len(s)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func init() {
	// Postfix and Dovecot change to users of their own, who must be able to walk to their directories.
	if os.Getenv("TMPDIR") == "" {
		_ = os.Setenv("TMPDIR", filepath.Clean("/var/tmp"))
	}
}

// Package tlsreport counts what came of TLS sessions with other domains, and reports it to those that ask for it, once a
// day (RFC 8460). Nothing is kept of domains that publish no TLSRPT record.
//
// Counts stand in memory and join those in the store every few minutes, so that a delivery costs no write; a crash loses
// the counts of the last minutes. Of several nodes the one that leads sends. A report goes again after a crash that fell
// between its sending and the note of it, with the same id.
//
//	r, err := tlsreport.New(tlsreport.Options{Store: st, Resolver: resolver, Mail: submit, Hostname: "mx.example.test"})
//	go r.Run(ctx)
//	r.Take(outcome)
package tlsreport

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/dns"
	"waxwing/internal/store"
	"waxwing/internal/tlsrpt"
	"waxwing/internal/transport"
)

const (
	flushEvery = 5 * time.Minute
	lookups    = 8                // domains asked for their record at a time
	lookupTime = 10 * time.Second // for one
	maxCounts  = 5000             // different outcomes in memory
	maxOf      = 100              // of one domain; further ones are counted without host and address
	maxRows    = 1000             // of one report
	day        = 24 * time.Hour
)

// Store is what is kept; *store.Store is one.
type Store interface {
	AddTLSOutcomes(ctx context.Context, list []store.TLSOutcome) error
	TLSReportsDue(ctx context.Context, before int64, limit int) ([]store.TLSReportDomain, error)
	TLSOutcomes(ctx context.Context, d store.TLSReportDomain, limit int) (list []store.TLSOutcome, sent []string, err error)
	TLSReportSent(ctx context.Context, d store.TLSReportDomain, rua string) error
	TLSReportDone(ctx context.Context, d store.TLSReportDomain) error
	WhileLeading(ctx context.Context) (context.Context, context.CancelFunc)
}

// Resolver is what is asked of the DNS; *dns.Resolver is one.
type Resolver interface {
	TXT(ctx context.Context, name string) (dns.Texts, error)
}

// Options of a Reporter. Store, Resolver, Mail, Client, Contact and Hostname are needed.
type Options struct {
	Store    Store
	Resolver Resolver
	Mail     func(ctx context.Context, to address.Address, raw []byte) error // returns when it is committed
	Client   *http.Client                                                    // for reports that go over HTTPS
	Contact  func() (address.Address, bool)                                  // who stands behind the reports; false: nobody, and none are made
	Hostname string
	Clock    func() time.Time
	Logger   *slog.Logger
}

// Reporter counts and reports. It is safe for concurrent use.
type Reporter struct {
	o Options

	mu     sync.Mutex // guards what follows
	counts map[count]int64
	of     map[string]int // different outcomes by domain
}

// count is what outcomes are told apart by.
type count struct {
	day     int64
	outcome transport.Outcome
}

// New makes a Reporter.
func New(o Options) (*Reporter, error) {
	if o.Store == nil || o.Resolver == nil || o.Mail == nil || o.Client == nil || o.Contact == nil || o.Hostname == "" {
		return nil, errors.New("tlsreport: a store, a resolver, ways out, a contact and a host name are needed")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reporter{o: o, counts: map[count]int64{}, of: map[string]int{}}, nil
}

// Take counts an outcome. It never waits for anything but memory.
func (r *Reporter) Take(o transport.Outcome) {
	c := count{r.o.Clock().Unix() / int64(day/time.Second), o}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(c, 1)
}

func (r *Reporter) add(c count, n int64) {
	if _, ok := r.counts[c]; !ok && r.of[c.outcome.Domain] >= maxOf {
		o := c.outcome
		c.outcome = transport.Outcome{PolicyKey: transport.PolicyKey{Type: o.Type}, Domain: o.Domain, Failure: o.Failure}
	}
	if _, ok := r.counts[c]; !ok {
		if len(r.counts) >= maxCounts {
			return
		}
		r.of[c.outcome.Domain]++
	}
	r.counts[c] += n
}

// Run looks after counts and reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			r.log(r.flush(last))
			return
		case <-tick.C:
		}
		r.log(r.flush(ctx))
		lead, done := r.o.Store.WhileLeading(ctx)
		if lead.Err() == nil {
			r.log(r.send(lead))
		}
		done()
	}
}

func (r *Reporter) log(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		r.o.Logger.Error("tlsreport: reports about TLS can't be looked after, it is tried again", "error", err)
	}
}

// flush brings the counts of domains that want reports into the store.
func (r *Reporter) flush(ctx context.Context) error {
	r.mu.Lock()
	counts := r.counts
	r.counts, r.of = map[count]int64{}, map[string]int{}
	r.mu.Unlock()
	if _, wanted := r.o.Contact(); len(counts) == 0 || !wanted {
		return nil
	}
	want := r.ask(ctx, counts)
	var list []store.TLSOutcome
	var kept []count
	for c, n := range counts {
		if want[c.outcome.Domain] {
			list = append(list, row(c, n))
			kept = append(kept, c)
		}
	}
	if len(list) == 0 {
		return nil
	}
	err := r.o.Store.AddTLSOutcomes(ctx, list)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range kept {
			r.add(c, counts[c])
		}
	}
	return err
}

// ask finds out which domains want reports. One that can't be asked now counts as one that does: the record is looked for
// again before a report is made.
func (r *Reporter) ask(ctx context.Context, counts map[count]int64) map[string]bool {
	domains := make(chan string, len(counts))
	want := map[string]bool{}
	for c := range counts {
		if _, seen := want[c.outcome.Domain]; !seen {
			want[c.outcome.Domain] = false
			domains <- c.outcome.Domain
		}
	}
	close(domains)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range lookups {
		wg.Go(func() {
			for d := range domains {
				_, err := r.record(ctx, d)
				mu.Lock()
				want[d] = err == nil || dns.Temporary(err) && !errors.Is(err, tlsrpt.ErrNoRecord)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return want
}

// record gives where a domain wants its reports.
func (r *Reporter) record(ctx context.Context, domain string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	texts, err := r.o.Resolver.TXT(ctx, "_smtp._tls."+domain)
	if err != nil {
		return nil, err
	}
	return tlsrpt.ParseRecord(texts.Texts)
}

// row writes a count as the store keeps it.
func row(c count, n int64) store.TLSOutcome {
	o := &c.outcome
	p := tlsrpt.Policy{Type: o.Type, String: lines(o.Strings), Domain: o.Domain, MXHost: lines(o.Hosts)}
	out := store.TLSOutcome{Day: c.day, Domain: o.Domain, Sessions: n}
	policy, _ := json.Marshal(p) // strings always marshal
	out.Policy = string(policy)
	if o.Failure != "" {
		f := tlsrpt.Failure{Type: o.Failure, Host: o.Host, Code: o.Code}
		if o.IP.IsValid() {
			f.ReceiverIP = o.IP.String()
		}
		if o.Local.IsValid() {
			f.SendingIP = o.Local.String()
		}
		result, _ := json.Marshal(f)
		out.Result = string(result)
	}
	return out
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

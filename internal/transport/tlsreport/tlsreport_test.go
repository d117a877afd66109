package tlsreport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/dns"
	"waxwing/internal/message"
	"waxwing/internal/store"
	"waxwing/internal/tlsrpt"
	"waxwing/internal/transport"
)

// memoryStore is a Store in memory; err makes it fail.
type memoryStore struct {
	mu   sync.Mutex
	rows map[store.TLSOutcome]int64 // Sessions is 0 in the keys
	sent map[store.TLSReportDomain][]string
	err  error
}

func (m *memoryStore) AddTLSOutcomes(_ context.Context, list []store.TLSOutcome) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range list {
		n := o.Sessions
		if o.Sessions = 0; m.err == nil {
			m.rows[o] += n
		}
	}
	return m.err
}

func (m *memoryStore) TLSReportsDue(_ context.Context, before int64, _ int) ([]store.TLSReportDomain, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.TLSReportDomain
	for o := range m.rows {
		if d := (store.TLSReportDomain{Day: o.Day, Domain: o.Domain}); o.Day < before && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out, nil
}

func (m *memoryStore) TLSOutcomes(_ context.Context, d store.TLSReportDomain, _ int) (list []store.TLSOutcome, sent []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for o, n := range m.rows {
		if o.Sessions = n; o.Day == d.Day && o.Domain == d.Domain {
			list = append(list, o)
		}
	}
	return list, m.sent[d], nil
}

func (m *memoryStore) TLSReportSent(_ context.Context, d store.TLSReportDomain, rua string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent[d] = append(m.sent[d], rua)
	return nil
}

func (m *memoryStore) TLSReportDone(_ context.Context, d store.TLSReportDomain) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for o := range m.rows {
		if o.Day == d.Day && o.Domain == d.Domain {
			delete(m.rows, o)
		}
	}
	delete(m.sent, d)
	return nil
}

func (m *memoryStore) WhileLeading(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// zone answers TXT questions from a map of domains.
type zone map[string]string

func (z zone) TXT(_ context.Context, name string) (dns.Texts, error) {
	text, ok := z[strings.TrimPrefix(name, "_smtp._tls.")]
	switch {
	case !ok:
		return dns.Texts{}, &dns.Error{Name: name, Err: dns.ErrNotFound}
	case text == "fail":
		return dns.Texts{}, &dns.Error{Name: name, Err: dns.ErrTimeout}
	}
	return dns.Texts{Texts: []string{text}}, nil
}

type world struct {
	r     *Reporter
	store memoryStore
	zone  zone
	now   time.Time
	mails []string
	fail  error // of mail
	off   bool
}

func newWorld(t *testing.T, client *http.Client) *world {
	t.Helper()
	w := &world{
		zone: zone{}, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
		store: memoryStore{rows: map[store.TLSOutcome]int64{}, sent: map[store.TLSReportDomain][]string{}},
	}
	var err error
	w.r, err = New(Options{
		Store: &w.store, Resolver: w.zone, Client: client, Hostname: "mx.example.test",
		Contact: func() (address.Address, bool) {
			return address.Address{Local: "postmaster", Domain: "example.test"}, !w.off
		},
		Mail: func(_ context.Context, to address.Address, raw []byte) error {
			if w.fail == nil {
				w.mails = append(w.mails, to.String()+"\n"+string(raw))
			}
			return w.fail
		},
		Clock: func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func outcome(domain, failure string) transport.Outcome {
	return transport.Outcome{
		PolicyKey: transport.PolicyKey{Type: transport.TypeSTS, Strings: "version: STSv1\nmode: enforce", Hosts: "mx." + domain}, Domain: domain,
		Host: "mx." + domain, IP: netip.MustParseAddr("192.0.2.7"), Local: netip.MustParseAddr("192.0.2.1"), Failure: failure,
	}
}

// reports reads what was mailed.
func (w *world) reports(t *testing.T) (to []string, list []*tlsrpt.Report) {
	t.Helper()
	for _, m := range w.mails {
		who, raw, _ := strings.Cut(m, "\n")
		p := message.ParseBytes([]byte(raw))
		data, err := io.ReadAll(p.Section(2).Decoded(strings.NewReader(raw)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := tlsrpt.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		to, list = append(to, who), append(list, r)
	}
	return to, list
}

func TestADayIsReportedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.DefaultClient)
	w.zone["far.test"] = "v=TLSRPTv1; rua=mailto:tls@far.test"
	w.zone["later.test"] = "fail"
	for range 5 {
		w.r.Take(outcome("far.test", ""))
		w.r.Take(outcome("silent.test", ""))
	}
	w.r.Take(outcome("far.test", "certificate-expired"))
	w.r.Take(outcome("later.test", ""))
	if err := w.r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for o := range w.store.rows {
		if o.Domain == "silent.test" {
			t.Error("kept without being asked for")
		}
	}
	w.r.Take(outcome("far.test", "certificate-expired"))
	if err := errors.Join(w.r.flush(t.Context()), w.r.send(t.Context())); err != nil || len(w.mails) != 0 {
		t.Fatalf("%d reports of a day that goes on, %v", len(w.mails), err)
	}
	w.now = w.now.Add(12*time.Hour + quiet + spread)
	for range 2 {
		if err := w.r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	to, list := w.reports(t)
	if fmt.Sprint(to) != "[tls@far.test]" {
		t.Fatalf("reports went to %v", to)
	}
	r := list[0]
	p := r.Policies[0]
	if r.Range.Start != time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC) || r.Range.End != time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC) ||
		len(r.Policies) != 1 || p.Summary != (tlsrpt.Summary{Successful: 5, Failed: 2}) || len(p.Failures) != 1 ||
		p.Failures[0] != (tlsrpt.Failure{Type: "certificate-expired", Host: "mx.far.test", ReceiverIP: "192.0.2.7", SendingIP: "192.0.2.1", Sessions: 2}) ||
		fmt.Sprint(p.Policy) != "{sts [version: STSv1 mode: enforce] far.test [mx.far.test]}" {
		t.Errorf("%+v", r)
	}
	// The domain that nobody could ask waits, until it is late.
	if len(w.store.rows) != 1 {
		t.Errorf("%d rows are left", len(w.store.rows))
	}
	w.now = w.now.Add(patience)
	if err := w.r.send(t.Context()); err != nil || len(w.store.rows) != 0 {
		t.Errorf("%d rows are left of what is late, %v", len(w.store.rows), err)
	}
}

func TestWhatFailsIsTriedAgainAndWhatWentIsNot(t *testing.T) {
	t.Parallel()
	refuse := true
	var posted [][]byte
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err == nil && r.Method == http.MethodPost && r.Header.Get("Content-Type") == tlsrpt.MediaType {
			posted = append(posted, bytes.Clone(body))
		}
	}))
	defer s.Close()
	w := newWorld(t, s.Client())
	w.zone["far.test"] = "v=TLSRPTv1; rua=mailto:tls@far.test," + s.URL + "/r"
	w.store.err = errors.New("disk full")
	w.r.Take(outcome("far.test", ""))
	if w.r.flush(t.Context()) == nil {
		t.Fatal("no error of the store")
	}
	w.store.err = nil
	if err := w.r.flush(t.Context()); err != nil || len(w.store.rows) != 1 {
		t.Fatalf("counts were lost: %d rows, %v", len(w.store.rows), err)
	}
	w.now = w.now.Add(day)
	for range 2 {
		if err := w.r.send(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	refuse = false
	if err := w.r.send(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(w.mails) != 1 || len(posted) != 1 || len(w.store.rows) != 0 || len(w.store.sent) != 0 {
		t.Errorf("%d mails, %d posts, %d rows", len(w.mails), len(posted), len(w.store.rows))
	}
	if r, err := tlsrpt.Parse(posted[0]); err != nil || r.Policies[0].Summary.Successful != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNothingIsKeptWhenReportsAreOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.DefaultClient)
	w.zone["far.test"], w.off = "v=TLSRPTv1; rua=mailto:tls@far.test", true
	w.r.Take(outcome("far.test", ""))
	if err := w.r.flush(t.Context()); err != nil || len(w.store.rows) != 0 {
		t.Errorf("%d rows, %v", len(w.store.rows), err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.DefaultClient)
	for i := range 3 * maxOf {
		o := outcome("far.test", "validation-failure")
		o.IP = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		w.r.Take(o)
	}
	total := int64(0)
	for _, n := range w.r.counts {
		total += n
	}
	if len(w.r.counts) > maxOf+1 || total != 3*maxOf {
		t.Errorf("%d outcomes of one domain, %d sessions", len(w.r.counts), total)
	}
	for i := range 2 * maxCounts {
		w.r.Take(outcome(fmt.Sprintf("d%d.test", i), ""))
	}
	if len(w.r.counts) > maxCounts {
		t.Errorf("%d outcomes in memory", len(w.r.counts))
	}
}

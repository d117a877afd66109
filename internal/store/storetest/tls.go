package storetest

import (
	"fmt"
	"time"

	"waxwing/internal/store"
)

// tlsChecks hold what is kept about TLS with other servers.
var tlsChecks = []check{
	{"policies of other domains are kept, renewed and dropped", stsPolicies},
	{"outcomes of TLS are added up and go with their report", tlsOutcomes},
}

func stsPolicies(h *harness) {
	ctx, s := h.Context(), h.s
	at := func(n int64) time.Time { return time.UnixMilli(n) }
	for i, d := range []string{"a.test", "b.test", "c.test"} {
		p := store.STSPolicy{Domain: d, ID: "1", Body: "mode: none", Fetched: at(int64(10 * i)), Expires: at(int64(100 + i)), Used: at(50)}
		h.ok(s.SetSTSPolicy(ctx, p))
		got, found, err := s.STSPolicy(ctx, d)
		if h.ok(err); !found || got != p {
			h.Errorf("%s: %+v, %v", d, got, found)
		}
	}
	h.ok(s.SetSTSPolicy(ctx, store.STSPolicy{Domain: "a.test", ID: "2", Body: "x", Fetched: at(41), Expires: at(200), Used: at(50)}))
	old, err := s.OldSTSPolicies(ctx, at(40), 10)
	if h.ok(err); len(old) != 2 || old[0].Domain != "b.test" || old[1].Domain != "c.test" {
		h.Errorf("fetched before: %+v", old)
	}
	h.ok(s.UsedSTSPolicies(ctx, []string{"a.test", "b.test", "gone.test"}, at(60)))
	h.ok(s.DropSTSPolicies(ctx, at(101), at(60)))
	for d, want := range map[string]bool{"a.test": true, "b.test": false, "c.test": false} {
		if _, found, err := s.STSPolicy(ctx, d); err != nil || found != want {
			h.Errorf("%s is kept: %v, %v", d, found, err)
		}
	}
}

func tlsOutcomes(h *harness) {
	ctx, s := h.Context(), h.s
	row := func(day int64, domain, result string, n int64) store.TLSOutcome {
		return store.TLSOutcome{Day: day, Domain: domain, Policy: "{}", Result: result, Sessions: n}
	}
	h.ok(s.AddTLSOutcomes(ctx, []store.TLSOutcome{row(1, "a.test", "", 2), row(1, "a.test", "x", 1), row(2, "a.test", "", 1), row(1, "b.test", "", 1)}))
	h.ok(s.AddTLSOutcomes(ctx, []store.TLSOutcome{row(1, "a.test", "", 3)}))
	due, err := s.TLSReportsDue(ctx, 2, 10)
	if h.ok(err); fmt.Sprint(due) != "[{1 a.test} {1 b.test}]" {
		h.Errorf("due: %v", due)
	}
	h.ok(s.TLSReportSent(ctx, due[0], "mailto:x@a.test"))
	h.ok(s.TLSReportSent(ctx, due[0], "mailto:x@a.test"))
	list, sent, err := s.TLSOutcomes(ctx, due[0], 10)
	if h.ok(err); fmt.Sprint(list) != "[{1 a.test {}  5} {1 a.test {} x 1}]" || fmt.Sprint(sent) != "[mailto:x@a.test]" {
		h.Errorf("outcomes %v, sent to %v", list, sent)
	}
	h.ok(s.TLSReportDone(ctx, due[0]))
	list, sent, err = s.TLSOutcomes(ctx, due[0], 10)
	if h.ok(err); len(list)+len(sent) != 0 {
		h.Errorf("left: %v, %v", list, sent)
	}
	if due, err = s.TLSReportsDue(ctx, 100, 10); err != nil || fmt.Sprint(due) != "[{1 b.test} {2 a.test}]" {
		h.Errorf("due: %v, %v", due, err)
	}
}

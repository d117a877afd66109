package trace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// told writes a trace of a message at a time, and gives its id.
func told(t *testing.T, s *store.Store, at time.Time, steps ...Step) string {
	t.Helper()
	r := &Recorder{}
	trail := r.Trail()
	for i, step := range steps {
		step.At = at.Add(time.Duration(i) * time.Millisecond)
		trail.Add(step)
	}
	trail.SetID(strings.Replace(firstID(at), "0000000000000000", fmt.Sprintf("%016d", at.UnixNano()%1e6), 1))
	rows, index := prepare([]entry{{row: trail.Row()}})
	if err := s.TraceWrite(t.Context(), rows, index, maxTrace); err != nil {
		t.Fatal(err)
	}
	return trail.ID()
}

func accepted(from, to, messageID string, more ...Step) []Step {
	return append([]Step{
		{Kind: Connect, Remote: "192.0.2.9:4711"},
		{Kind: Hello, Host: "mail.remote.test"},
		{Kind: Sender, Address: from},
		{Kind: Recipient, Address: to},
		{Kind: Content, Data: []Pair{{MessageID, messageID}, {Size, "77"}}},
	}, more...)
}

func TestTracesAreFound(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	now := time.Now().Truncate(time.Millisecond)
	inbox := told(t, s, now.Add(-3*time.Hour), accepted("a@remote.test", "list@example.test", "one@remote.test",
		Step{Kind: Route, Address: "list@example.test", Data: []Pair{{Target, "anna@example.test"}}},
		Step{Kind: Mailbox, Outcome: Delivered, Address: "anna@example.test"}, Step{Kind: Accept})...)
	bounced := told(t, s, now.Add(-2*time.Hour), accepted("anna@example.test", "x@far.test", "two@example.test",
		Step{Kind: Queue, Outcome: Waiting, Address: "x@far.test"}, Step{Kind: Accept},
		Step{Kind: Attempt, Outcome: Deferred, Address: "x@far.test", Host: "mx.far.test", Remote: "198.51.100.4:25", Reply: "450 later"},
		Step{Kind: Attempt, Outcome: Bounced, Address: "x@far.test", Host: "mx.far.test", Remote: "198.51.100.4:25", Reply: "550 no"})...)
	refused := told(t, s, now.Add(-time.Hour), Step{Kind: Connect, Remote: "[2001:db8::7]:25"}, Step{Kind: Sender, Address: "spam@bad.test"},
		Step{Kind: Recipient, Address: "nobody@example.test", Outcome: Rejected, Reply: "550 5.1.1"})
	for name, tt := range map[string]struct {
		f    Filter
		want []string
	}{
		"everything":             {Filter{}, []string{refused, bounced, inbox}},
		"an address of anybody":  {Filter{Address: "ANNA@example.test"}, []string{bounced, inbox}},
		"a sender":               {Filter{From: "anna@example.test"}, []string{bounced}},
		"a recipient":            {Filter{To: "anna@example.test"}, []string{inbox}},
		"as it was given":        {Filter{To: "list@example.test"}, []string{inbox}},
		"a domain":               {Filter{Domain: "Far.test"}, []string{bounced}},
		"a message id":           {Filter{MessageID: "<one@remote.test>"}, []string{inbox}},
		"a host":                 {Filter{Host: "mx.far.test"}, []string{bounced}},
		"an address of a host":   {Filter{Remote: "2001:DB8::7"}, []string{refused}},
		"delivered":              {Filter{Outcomes: []Outcome{Delivered}}, []string{inbox}},
		"bounced":                {Filter{Outcomes: []Outcome{Bounced}}, []string{bounced}},
		"no longer deferred":     {Filter{Outcomes: []Outcome{Deferred}}, nil},
		"rejected or bounced":    {Filter{Outcomes: []Outcome{Rejected, Bounced}}, []string{refused, bounced}},
		"since":                  {Filter{Since: now.Add(-90 * time.Minute)}, []string{refused}},
		"until":                  {Filter{Until: now.Add(-150 * time.Minute)}, []string{inbox}},
		"an address within time": {Filter{Address: "anna@example.test", Until: now.Add(-150 * time.Minute)}, []string{inbox}},
		"two that don't fit":     {Filter{From: "a@remote.test", To: "x@far.test"}, nil},
		"nobody":                 {Filter{Address: "who@example.test"}, nil},
	} {
		page, err := Find(t.Context(), s, tt.f)
		var got []string
		for _, found := range page.Traces {
			got = append(got, found.ID)
		}
		if err != nil || !slices.Equal(got, tt.want) || page.Next != "" {
			t.Errorf("%s: %v, want %v; next %q, %v", name, got, tt.want, page.Next, err)
		}
	}
	found, err := Load(t.Context(), s, strings.ToLower(inbox))
	if err != nil || found.Sender() != "a@remote.test" || found.Remote() != "192.0.2.9:4711" || found.Fact(MessageID) != "one@remote.test" {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestFates(t *testing.T) {
	t.Parallel()
	tr := Trace{Steps: []Step{
		{Kind: Command, Outcome: Rejected, Reason: "VRFY"},
		{Kind: Sender, Address: "a@b.test"},
		{Kind: Recipient, Address: "no@b.test", Outcome: Rejected},
		{Kind: Recipient, Address: "x@b.test"},
		{Kind: Queue, Address: "x@b.test", Outcome: Waiting},
		{Kind: Accept},
		{Kind: Attempt, Address: "X@b.test", Outcome: Deferred},
		{Kind: Attempt, Address: "x@b.test", Outcome: Delivered},
	}}
	var got []string
	for _, f := range tr.Fates() {
		got = append(got, f.Address+" "+f.Outcome.String())
	}
	if want := []string{"no@b.test rejected", "x@b.test delivered"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	tr.Steps = tr.Steps[:3]
	if got := tr.Fates(); len(got) != 2 || got[0].Outcome != Rejected {
		t.Errorf("of a refusal: %+v", got)
	}
}

func TestPagesGoOn(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	var want []string
	for i := range 60 {
		want = append(want, told(t, s, time.Now().Add(-time.Duration(i)*7*time.Minute), accepted("a@remote.test", "b@example.test", "x")...))
	}
	r, err := New(Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []Filter{{}, {Address: "b@example.test"}} {
		var got []string
		for f.Limit = 7; ; {
			page, err := Find(t.Context(), s, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range page.Traces {
				got = append(got, found.ID)
			}
			if f.Before = page.Next; f.Before == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d of %d in %v", len(got), len(want), f)
		}
		if err := r.Tidy(t.Context()); err != nil { // the second round finds them in joined rows
			t.Fatal(err)
		}
	}
}

func TestTheIndexIsTidied(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	at := time.Now().Truncate(time.Hour)
	var want []string
	for i := range 50 {
		want = append(want, told(t, s, at.Add(time.Duration(i)*time.Second), Step{Kind: Sender, Address: fmt.Sprintf("u%d@remote.test", i)}))
	}
	r, err := New(Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows := 0
	if err := s.TraceIndexes(t.Context(), bucketOf(at), maxIndexed, func(store.TraceIndex) { rows++ }); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
	for i := range 50 {
		page, err := Find(t.Context(), s, Filter{From: fmt.Sprintf("u%d@remote.test", i)})
		if err != nil || len(page.Traces) != 1 || page.Traces[0].ID != want[i] {
			t.Errorf("u%d: %+v, %v", i, page.Traces, err)
		}
	}
}

func TestManyTracesOfOneHourShareRows(t *testing.T) {
	t.Parallel()
	var x indexer
	at := time.Now().Truncate(time.Hour)
	want := map[string]bool{}
	for i := range 3 * maxIndexed {
		trail := Trail{r: &Recorder{}, id: fmt.Sprintf("%s%06d", firstID(at)[:20], i)}
		trail.Add(Step{At: at, Kind: Sender, Address: "same@remote.test"})
		x.add(trail.Row())
		want[trail.id] = true
	}
	rows := x.rows()
	for _, row := range rows {
		if row.Traces > maxIndexed {
			t.Errorf("a row of %d traces", row.Traces)
		}
		lookUp(row, hashOf(wordAddress, "SAME@remote.test"), func(id string) { delete(want, id) })
	}
	if len(want) > 0 || len(rows) != 3 {
		t.Errorf("%d were not found in %d rows", len(want), len(rows))
	}
}

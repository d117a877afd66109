package trace

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// recording is a recorder that writes into a store; stop ends it when all is written.
func recording(t *testing.T, s *store.Store, c *clock) (r *Recorder, stop func()) {
	t.Helper()
	r, err := New(Options{Store: s, Clock: c.Now, Retention: func() time.Duration { return 24 * time.Hour }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return r, stop
}

// refused records a refusal of mail from someone, and returns its id.
func refused(r *Recorder, from string) string {
	trail := r.Trail()
	trail.Add(Step{Kind: Connect, Remote: "192.0.2.7:4711"})
	trail.Add(Step{Kind: Sender, Address: from, Outcome: Rejected, Reply: "550 5.7.1 no"})
	id := trail.ID()
	trail.Close()
	return id
}

func TestRecordsAreWritten(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	r, stop := recording(t, s, &clock{now: time.Now()})
	id := refused(r, "a@remote.test")
	r.Record(id, Step{Kind: Attempt, Outcome: Deferred, Reply: "450 later"})
	quiet := r.Trail()
	quiet.Add(Step{Kind: Connect})
	quiet.Close()
	stop()
	rows, err := s.Trace(t.Context(), id)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	ids, err := s.TraceIDs(t.Context(), "", "~", 10)
	if err != nil || len(ids) != 1 {
		t.Errorf("traces %v, %v: one where nothing was refused is of no interest", ids, err)
	}
	if got := r.Stats(); got.Written != 2 || got.Shed != 0 || got.Waiting != 0 {
		t.Errorf("%+v", got)
	}
}

func TestATraceDoesNotGrowForEver(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	big := store.TraceRow{ID: NewID(), Steps: make([]byte, maxTrail)}
	for range 3 * maxTrace / maxTrail {
		big.Part++
		if err := s.TraceWrite(t.Context(), []store.TraceRow{big}, nil, maxTrace); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := s.Trace(t.Context(), big.ID)
	if err != nil || len(rows) != maxTrace/maxTrail {
		t.Errorf("%d rows of %d octets, %v", len(rows), maxTrail, err)
	}
}

func TestFloodsAreShed(t *testing.T) {
	t.Parallel()
	r, err := New(Options{Store: storetest.New(t), Clock: (&clock{now: noon}).Now})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxHanded { // nobody writes
		refused(r, "a@remote.test")
	}
	got := r.Stats()
	if got.Waiting > paceBurst+1 || got.Waiting+got.Shed != 2*maxHanded {
		t.Errorf("%+v", got)
	}
	for range 3 * maxOctets / (100 << 10) {
		r.Record("x", Step{Reply: strings.Repeat("x", maxReply), Data: []Pair{{"x", strings.Repeat("x", maxValue)}}})
	}
	if r.octets.Load() > maxOctets {
		t.Errorf("%d octets wait", r.octets.Load())
	}
}

func TestWhatWasWrittenWithItsMessageIsFoundAfterACrash(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	c := &clock{now: time.Now()}
	lost := &Trail{r: &Recorder{o: Options{Clock: c.Now}}}
	lost.Add(Step{Kind: Sender, Address: "lost@remote.test"})
	if err := s.TraceWrite(t.Context(), []store.TraceRow{lost.Row()}, nil, maxTrace); err != nil { // and then came kill -9
		t.Fatal(err)
	}
	r, _ := recording(t, s, c)
	waitFor(t, func() bool {
		page, err := Find(t.Context(), s, Filter{Address: "Lost@Remote.test"})
		return err == nil && len(page.Traces) == 1 && page.Traces[0].ID == lost.ID()
	})
	_ = r
}

// waitFor waits for what another goroutine does.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came")
		}
	}
}

func TestOldTracesGo(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	c := &clock{now: time.Now()}
	r, stop := recording(t, s, c)
	id := refused(r, "a@remote.test")
	stop()
	if err := r.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, err := s.Trace(t.Context(), id); err != nil || len(rows) != 1 {
		t.Fatalf("too soon: %d rows, %v", len(rows), err)
	}
	c.add(26 * time.Hour)
	if err := r.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, err := s.Trace(t.Context(), id); err != nil || len(rows) != 0 {
		t.Errorf("still there: %d rows, %v", len(rows), err)
	}
	if _, _, ok, err := s.TraceBuckets(t.Context()); ok || err != nil {
		t.Errorf("words are left, %v", err)
	}
}

func TestFollowersHearWhatHappens(t *testing.T) {
	t.Parallel()
	r, _ := recording(t, storetest.New(t), &clock{now: time.Now()})
	_, place, _, err := followNow(t, r)
	if err != nil {
		t.Fatal(err)
	}
	id := refused(r, "a@remote.test")
	list, next, missed, err := r.Follow(t.Context(), place)
	if err != nil || len(list) != 1 || list[0].ID != id || len(list[0].Steps) != 2 || missed != 0 {
		t.Fatalf("%+v, missed %d, %v", list, missed, err)
	}
	for range recentRows + 10 {
		r.Record("x", Step{Kind: Attempt})
	}
	if list, _, missed, err = r.Follow(t.Context(), next); err != nil || len(list) != recentRows || missed != 10 {
		t.Errorf("%d, missed %d, %v", len(list), missed, err)
	}
}

// followNow asks for the place that stands for now.
func followNow(t *testing.T, r *Recorder) ([]Happening, int64, int64, error) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return r.Follow(ctx, -1)
}

package surge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// house is a Watch with its surroundings.
type house struct {
	*Watch
	policy Policy
	now    time.Time
	events []Event
	rows   map[store.AccountID]store.SurgeRow
	fails  error
	known  map[string]bool
	asked  int

	mu sync.Mutex
}

func (h *house) SurgeRow(_ context.Context, id store.AccountID) (store.SurgeRow, error) {
	r := h.rows[id]
	r.Account = id
	return r, h.fails
}

func (h *house) SaveSurges(_ context.Context, rows []store.SurgeRow) error {
	if h.fails != nil {
		return h.fails
	}
	for _, r := range rows {
		r.Action = h.rows[r.Account].Action
		h.rows[r.Account] = r
	}
	return nil
}

func (h *house) Of(_ context.Context, _ store.AccountID, a address.Address) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	return h.known[a.Key()]
}

func build() *house {
	h := &house{
		policy: Policy{Action: Folder, Least: 40, Factor: 8}, now: time.Unix(1_800_000_000, 0),
		rows: map[store.AccountID]store.SurgeRow{}, known: map[string]bool{},
	}
	h.restart()
	return h
}

func (h *house) restart() {
	h.Watch = New(Options{
		Store: h, Contacts: h, Policy: func() Policy { return h.policy }, Clock: func() time.Time { return h.now },
		Happened: func(_ context.Context, e Event) { h.events = append(h.events, e) },
	})
}

func (h *house) beats(t *testing.T) {
	t.Helper()
	if err := h.beat(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

func from(local, domain string) address.Address { return address.Address{Local: local, Domain: domain} }

// bomb sends messages of a kind, each from another domain, and tells how many were set aside.
func (h *house) bomb(t *testing.T, kind Kind, n int, every time.Duration) (aside int) {
	t.Helper()
	for i := range n {
		a := Arrival{Account: 1, Kind: kind, From: from("news", fmt.Sprintf("shop%d.test", i))}
		if kind == Bounces {
			a.From = address.Address{}
		}
		if h.Aside(t.Context(), a) {
			aside++
		}
		h.now = h.now.Add(every)
	}
	return aside
}

// begin has an account known, as its first message and a beat do.
func (h *house) begin(t *testing.T) {
	t.Helper()
	h.Sent(1, 0)
	h.beats(t)
}

func TestSurplusGoesAsideAndItEndsByItself(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Letters, Lists, Bounces} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			h := build()
			h.begin(t)
			h.known["friend@far.test"] = true
			aside := h.bomb(t, kind, 200, time.Second)
			if aside < 130 || aside > 165 {
				t.Errorf("%d of 200 were set aside", aside)
			}
			for _, other := range []Arrival{
				{Account: 1, Kind: kind, From: from("Friend", "far.test")},        // a contact
				{Account: 2, Kind: kind, From: from("news", "shop1.test")},        // another account
				{Account: 1, Kind: (kind + 1) % 2, From: from("li", "mail.test")}, // what isn't bombed with
			} {
				if h.Aside(t.Context(), other) {
					t.Errorf("%+v was set aside", other)
				}
			}
			h.beats(t)
			if len(h.events) != 1 || !h.events[0].Begins || h.events[0].Kind != kind || h.events[0].Count < 40 {
				t.Fatalf("events %+v", h.events)
			}
			h.now = h.now.Add(30 * time.Minute)
			if err := h.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.beats(t)
			if len(h.events) != 2 || h.events[1].Begins || h.events[1].Aside != aside {
				t.Fatalf("events %+v", h.events)
			}
			if h.bomb(t, kind, 10, time.Second) != 0 {
				t.Error("mail is set aside after the end")
			}
		})
	}
}

func TestWhatIsUsualIsNoSurge(t *testing.T) {
	t.Parallel()
	h := build()
	h.begin(t)
	// Two weeks with a message from strangers every 30 seconds: 20 in ten minutes.
	if n := h.bomb(t, Lists, 2*7*24*120, 30*time.Second); n != 0 {
		t.Fatalf("%d usual messages were set aside", n)
	}
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.restart() // what is usual outlives this
	h.begin(t)
	if n := h.bomb(t, Lists, 100, time.Second); n != 0 {
		t.Errorf("%d of 100 at a time were set aside, 20 are usual", n)
	}
	if n := h.bomb(t, Lists, 300, time.Second); n == 0 {
		t.Error("400 at a time are no surge, 20 are usual")
	}
}

func TestOneSenderAndOwnMailAreNoBomb(t *testing.T) {
	t.Parallel()
	h := build()
	h.begin(t)
	for range 500 {
		if h.Aside(t.Context(), Arrival{Account: 1, From: from("cron", "monitor.test")}) {
			t.Fatal("mail of one domain was set aside")
		}
	}
	// A newsletter to 1,000 people brings bounces.
	h.Sent(1, 1000)
	if n := h.bomb(t, Bounces, 300, time.Second); n != 0 {
		t.Errorf("%d bounces of own mail were set aside", n)
	}
}

func TestWhoWroteBeforeIsNoStranger(t *testing.T) {
	t.Parallel()
	h := build()
	h.begin(t)
	old := Arrival{Account: 1, Kind: Lists, From: from("weekly", "news.test")}
	h.Aside(t.Context(), old)
	if err := h.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.now = h.now.Add(25 * time.Hour)
	h.restart()
	h.begin(t)
	if h.bomb(t, Lists, 100, time.Second) == 0 {
		t.Fatal("no surge")
	}
	if h.Aside(t.Context(), old) {
		t.Error("a newsletter from before was set aside")
	}
	if !h.Aside(t.Context(), Arrival{Account: 1, Kind: Lists, From: from("new", "news.test")}) {
		t.Error("a new one was not")
	}
}

func TestQuietTimesAskNobody(t *testing.T) {
	t.Parallel()
	h := build()
	h.begin(t)
	h.bomb(t, Letters, 15, time.Second)
	if h.asked != 0 {
		t.Errorf("contacts were asked %d times", h.asked)
	}
}

func TestDeferringAsksStrangersToWait(t *testing.T) {
	t.Parallel()
	h := build()
	h.rows[1] = store.SurgeRow{Action: string(Defer)}
	h.begin(t)
	h.known["friend@far.test"] = true
	stranger, friend := from("x", "shop.test"), from("friend", "far.test")
	if h.Deferred(t.Context(), 1, stranger) {
		t.Error("deferred without a surge")
	}
	if n := h.bomb(t, Lists, 60, time.Second); n != 0 {
		t.Errorf("%d messages set aside, not deferred", n)
	}
	if !h.Deferred(t.Context(), 1, stranger) || h.Deferred(t.Context(), 1, friend) || h.Deferred(t.Context(), 1, address.Address{}) || h.Deferred(t.Context(), 2, stranger) {
		t.Error("the wrong mail is deferred")
	}
	// While it is tried again and again the surge lasts; then it ends.
	for range 100 {
		h.now = h.now.Add(10 * time.Second)
		if !h.Deferred(t.Context(), 1, stranger) {
			t.Fatal("the surge ends while it goes on")
		}
	}
	h.now = h.now.Add(time.Hour)
	if h.Deferred(t.Context(), 1, stranger) {
		t.Error("deferred after the end")
	}
}

func TestTheAccountsChoiceTakesEffect(t *testing.T) {
	t.Parallel()
	h := build()
	h.begin(t)
	h.bomb(t, Lists, 100, time.Second)
	h.rows[1] = store.SurgeRow{Action: string(Off), Told: h.now}
	h.Reload(1)
	h.beats(t)
	if n := h.bomb(t, Lists, 50, time.Second); n != 0 {
		t.Errorf("%d messages set aside although the account wants none to be", n)
	}
}

func TestUnknownHistoryIsNoSurge(t *testing.T) {
	t.Parallel()
	h := build()
	h.fails = errors.New("broken")
	if n := h.bomb(t, Lists, 200, time.Second); n != 0 {
		t.Errorf("%d set aside before anything is known of the account", n)
	}
	if err := h.beat(t.Context(), false); !errors.Is(err, h.fails) {
		t.Error(err)
	}
	h.fails = nil
	h.beats(t)
	if n := h.bomb(t, Lists, 10, time.Second); n == 0 {
		t.Error("nothing set aside after that")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	h := build()
	for i := range maxAccounts + 500 {
		h.Aside(t.Context(), Arrival{Account: store.AccountID(i + 1), From: from("a", "far.test")})
	}
	if len(h.accounts) > maxAccounts || len(h.load) > maxAccounts {
		t.Errorf("%d accounts in memory, %d to be read", len(h.accounts), len(h.load))
	}
	for i := range 3 * ringSize {
		h.Aside(t.Context(), Arrival{Account: 1, From: from(fmt.Sprint(i), "far.test")})
	}
	if n := len(h.accounts[1].heard); n != ringSize {
		t.Errorf("%d senders are remembered", n)
	}
}

// TestClockJumpsKeepNumbersSane: whatever the clock does and whatever was written down, numbers stay finite and not negative,
// and an account with little mail has no surge.
func TestClockJumpsKeepNumbersSane(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := build()
		h.rows[1] = store.SurgeRow{Usual: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "row")}
		h.Sent(1, 0)
		if err := h.beat(context.Background(), false); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 20).Draw(t, "messages") {
			h.now = h.now.Add(time.Duration(rapid.Int64Range(int64(-400*24*time.Hour), int64(400*24*time.Hour)).Draw(t, "jump")))
			if h.Aside(context.Background(), Arrival{Account: 1, Kind: Lists, From: from("a", rapid.StringMatching(`[a-z]{3}\.test`).Draw(t, "domain"))}) {
				t.Fatal("set aside")
			}
			a := h.accounts[1]
			for k := range a.lately {
				for _, n := range []float64{a.lately[k], a.usually[k], a.sent} {
					if math.IsNaN(n) || math.IsInf(n, 0) || n < 0 {
						t.Fatalf("%+v", a)
					}
				}
			}
		}
	})
}

func BenchmarkAside(b *testing.B) {
	h := build()
	a := Arrival{Account: 1, From: from("a", "far.test")}
	h.policy.Least = 100_000
	b.ReportAllocs()
	for b.Loop() {
		h.now = h.now.Add(time.Second)
		h.Aside(b.Context(), a)
	}
}

func TestManySessionsAtOnce(t *testing.T) {
	t.Parallel()
	h := build()
	h.begin(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				a := Arrival{Account: store.AccountID(1 + j%3), Kind: Kind(j % 2), From: from("x", fmt.Sprintf("shop%d-%d.test", i, j))}
				h.Aside(t.Context(), a)
				h.Deferred(t.Context(), a.Account, a.From)
				h.Sent(a.Account, 1)
			}
		})
	}
	for range 50 {
		h.beats(t)
		if err := h.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	h.beats(t)
	if len(h.events) == 0 {
		t.Error("1,600 messages of as many senders are no surge")
	}
}

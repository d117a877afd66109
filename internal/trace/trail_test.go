package trace

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123_000, time.UTC)

// anyStep draws steps as they may come, with text from anywhere.
func anyStep(t *rapid.T) Step {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z@.\x00-\x1f\x80-\xff]{0,600}`))
	s := Step{
		At: noon.Add(time.Duration(rapid.Int64Range(-1e9, 1e12).Draw(t, "at")) * time.Microsecond), Kind: Kind(rapid.IntRange(1, int(Accept)).Draw(t, "kind")),
		Outcome: Outcome(rapid.IntRange(0, int(Dropped)).Draw(t, "outcome")), Address: text.Draw(t, "address"), Host: text.Draw(t, "host"),
		Remote: text.Draw(t, "remote"), Reason: text.Draw(t, "reason"), Reply: text.Draw(t, "reply"),
	}
	for range rapid.IntRange(0, 20).Draw(t, "pairs") {
		s.Data = append(s.Data, Pair{text.Draw(t, "name"), text.Draw(t, "value")})
	}
	return s
}

// cleaned is a step as a row gives it back.
func cleaned(s Step) Step {
	s.Address, s.Host, s.Remote = clean(s.Address, maxAddress), clean(s.Host, maxHost), clean(s.Remote, maxHost)
	s.Reason, s.Reply = clean(s.Reason, maxReason), clean(s.Reply, maxReply)
	var data []Pair
	for _, p := range s.Data[:min(len(s.Data), maxPairs)] {
		data = append(data, Pair{clean(p.Name, maxName), clean(p.Value, maxValue)})
	}
	s.Data = data
	return s
}

func TestRowsGiveBackWhatWasAdded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		trail := Trail{r: &Recorder{}}
		var want []Step
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			s := anyStep(t)
			trail.Add(s)
			want = append(want, cleaned(s))
		}
		got, err := decode(trail.Row().Steps)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	})
}

func TestTextIsMadeHarmless(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain": "plain", "a\r\nb\tc": "a b c", "\x1b[31mred": "\uFFFD[31mred", "\xff": "\uFFFD", "\u202egnp.exe": "\uFFFDgnp.exe", "发票": "发票",
		strings.Repeat("发", 200): strings.Repeat("发", 32) + "…",
	} {
		if got := clean(in, 100); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestATrailIsBounded(t *testing.T) {
	t.Parallel()
	trail := Trail{r: &Recorder{}}
	for range 10_000 {
		trail.Add(Step{At: noon, Kind: Recipient, Reply: strings.Repeat("x", 5000)})
	}
	row := trail.Row()
	if len(row.Steps) > maxTrail+8<<10 {
		t.Errorf("a row of %d octets", len(row.Steps))
	}
	steps, err := decode(row.Steps)
	if err != nil || !strings.HasSuffix(steps[len(steps)-1].Reason, "more steps had no room") {
		t.Errorf("%v, the last of %d steps: %+v", err, len(steps), steps[len(steps)-1])
	}
}

func TestAMessageBeginsWithItsConnection(t *testing.T) {
	t.Parallel()
	conn := &Trail{r: &Recorder{}}
	conn.Add(Step{At: noon, Kind: Connect, Remote: "192.0.2.1:25"})
	one := conn.Message()
	one.Add(Step{At: noon.Add(time.Second), Kind: Sender, Address: "a@b.test"})
	mark := one.Mark()
	one.Add(Step{At: noon.Add(2 * time.Second), Kind: Mailbox, Outcome: Delivered})
	one.Rewind(mark)
	one.Add(Step{At: noon.Add(3 * time.Second), Kind: Content, Outcome: Deferred})
	two := conn.Message()
	if one.ID() == two.ID() || one.ID() == conn.ID() {
		t.Error("two trails with one id")
	}
	steps, err := decode(one.Row().Steps)
	if err != nil || len(steps) != 3 || steps[0].Kind != Connect || steps[1].Address != "a@b.test" || !steps[2].At.Equal(noon.Add(3*time.Second)) {
		t.Errorf("%v: %+v", err, steps)
	}
	if row := two.Row(); len(row.Steps) == 0 || two.Refused() || !one.Refused() {
		t.Error("what happens to one message stands in the trail of another")
	}
}

func TestNobodyRecords(t *testing.T) {
	t.Parallel()
	var r *Recorder
	trail := r.Trail()
	trail.Add(Step{Kind: Connect})
	trail.Message().Add(Step{})
	trail.SetID("x")
	trail.Rewind(trail.Mark())
	trail.Committed(trail.Row())
	trail.Close()
	r.Record("x", Step{})
	if trail.ID() != "" || trail.Refused() || r.Stats() != (Stats{}) {
		t.Error("a nil recorder keeps something")
	}
}

func FuzzDecode(f *testing.F) {
	trail := Trail{r: &Recorder{}}
	trail.Add(Step{At: noon, Kind: Attempt, Outcome: Deferred, Address: "a@b.test", Reply: "450 later", Data: []Pair{{NextTry, "x"}}})
	f.Add(trail.Row().Steps)
	f.Add([]byte{rowVersion})
	f.Fuzz(func(t *testing.T, row []byte) {
		steps, _ := decode(row)
		if len(steps) > len(row) {
			t.Errorf("%d steps of %d octets", len(steps), len(row))
		}
		for _, s := range steps {
			for _, text := range []string{s.Address, s.Host, s.Remote, s.Reason, s.Reply} {
				if clean(text, maxReply) != text {
					t.Errorf("%q isn't clean", text)
				}
			}
		}
	})
}

func BenchmarkTrail(b *testing.B) {
	conn := &Trail{r: &Recorder{}}
	conn.Add(Step{At: noon, Kind: Connect, Remote: "192.0.2.1:4711", Data: []Pair{{"listener", "mx"}, {"local", "192.0.2.2:25"}}})
	conn.Add(Step{At: noon, Kind: Hello, Host: "mail.remote.test"})
	b.ReportAllocs()
	for b.Loop() {
		m := conn.Message()
		m.Add(Step{At: noon, Kind: Sender, Address: "someone@remote.test"})
		m.Add(Step{At: noon, Kind: Recipient, Address: "anna@example.test"})
		m.Add(Step{At: noon, Kind: Content, Data: []Pair{{Size, "10240"}, {MessageID, "1234567890@remote.test"}}})
		m.Add(Step{At: noon, Kind: Mailbox, Outcome: Delivered, Address: "anna@example.test", Data: []Pair{{Folder, "inbox"}}})
		m.Add(Step{At: noon, Kind: Accept, Reply: "250 2.0.0 ok"})
		m.Row()
	}
}

package trace

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"waxwing/internal/store"
)

// Trace is one trace with all its steps, the oldest first.
type Trace struct {
	ID    string
	Steps []Step
}

// Fate is what became of one recipient, or of all when Address is empty.
type Fate struct {
	Address string
	Outcome Outcome
	Step    Step // that decided it
}

// Load reads a trace; store.ErrNotFound when there is none.
func Load(ctx context.Context, s *store.Store, id string) (Trace, error) {
	id = strings.ToUpper(id)
	rows, err := s.Trace(ctx, id)
	if err != nil {
		return Trace{}, err
	}
	if len(rows) == 0 {
		return Trace{}, fmt.Errorf("trace %s: %w", id, store.ErrNotFound)
	}
	t := Trace{ID: id}
	for _, row := range rows {
		steps, err := decode(row.Steps)
		t.Steps = append(t.Steps, steps...)
		if err != nil {
			t.Steps = append(t.Steps, Step{At: time.UnixMicro(timeOfPart(row.Part)).UTC(), Kind: Command, Reason: "what comes here is damaged and can't be read"})
		}
	}
	slices.SortStableFunc(t.Steps, func(a, b Step) int { return a.At.Compare(b.At) })
	return t, nil
}

// first is the first step of a kind, nil when there is none.
func (t *Trace) first(k Kind) *Step {
	for i := range t.Steps {
		if t.Steps[i].Kind == k {
			return &t.Steps[i]
		}
	}
	return nil
}

// Began is when the trace began.
func (t *Trace) Began() time.Time {
	if len(t.Steps) == 0 {
		return time.Time{}
	}
	return t.Steps[0].At
}

// Sender is the reverse-path that was given last, "" for none or the null one.
func (t *Trace) Sender() string {
	for i := range slices.Backward(t.Steps) {
		if t.Steps[i].Kind == Sender {
			return t.Steps[i].Address
		}
	}
	return ""
}

// Recipients are the forward-paths as they were given.
func (t *Trace) Recipients() []string {
	var list []string
	for i := range t.Steps {
		if s := &t.Steps[i]; s.Kind == Recipient && s.Address != "" && !slices.Contains(list, s.Address) {
			list = append(list, s.Address)
		}
	}
	return list
}

// Fact is a fact of the message, "" when it isn't known.
func (t *Trace) Fact(name string) string {
	for i := range t.Steps {
		if t.Steps[i].Kind == Content {
			if v := t.Steps[i].Get(name); v != "" {
				return v
			}
		}
	}
	return ""
}

// Remote is the address that the message came from.
func (t *Trace) Remote() string {
	for i := range slices.Backward(t.Steps) { // a proxy may have named another one
		if t.Steps[i].Kind == Connect {
			return t.Steps[i].Remote
		}
	}
	return ""
}

// Fates tells what became of each recipient: the last word on each address. Once a message was taken, what came before in its
// session says nothing any more but of recipients that were refused.
func (t *Trace) Fates() []Fate {
	taken := t.first(Accept) != nil
	var list []Fate
	for _, s := range t.Steps {
		if s.Outcome == Passed || taken && !decides(s.Kind) {
			continue
		}
		i := slices.IndexFunc(list, func(f Fate) bool { return strings.EqualFold(f.Address, s.Address) })
		if i < 0 {
			list = append(list, Fate{Address: s.Address})
			i = len(list) - 1
		}
		list[i].Outcome, list[i].Step = s.Outcome, s
	}
	return list
}

// decides tells whether steps of a kind decide about a message that was taken.
func decides(k Kind) bool {
	switch k {
	case Recipient, Mailbox, Queue, Attempt, Change:
		return true
	}
	return false
}

// Filter says which traces are wanted: all that is set must fit.
type Filter struct {
	Address   string // of anybody: sender, recipient, or what a recipient led to
	From, To  string
	Domain    string // of any of these addresses
	MessageID string
	Host      string // name of another server or client
	Remote    string // its address
	Outcomes  []Outcome
	Since     time.Time
	Until     time.Time
	Before    string // id that the page goes on after
	Limit     int
}

// Bounds of one page.
const (
	maxPage   = 1000
	maxLooked = 20_000 // traces that are read for one page
	idsAtOnce = 1000
)

// Page is a page of traces, the newest first.
type Page struct {
	Traces []Trace
	Next   string // to be given as Before; "" at the end
}

// Find looks for traces. It reads a bounded number of them: a page may be short, or empty, and yet have a next one.
func Find(ctx context.Context, s *store.Store, f Filter) (Page, error) {
	if f.Limit <= 0 || f.Limit > maxPage {
		f.Limit = maxPage
	}
	f.MessageID = strings.Trim(f.MessageID, "<>")
	before := f.Before
	if before == "" {
		before = "~" // after all ids
		if !f.Until.IsZero() {
			before = firstID(f.Until.Add(time.Millisecond))
		}
	}
	source := &candidates{store: s, filter: &f, before: strings.ToUpper(before)}
	var page Page
	for looked := 0; ; looked++ {
		id, err := source.next(ctx)
		if err != nil || id == "" {
			return page, err
		}
		t, err := Load(ctx, s, id)
		if err != nil {
			if isNotFound(err) { // it has just expired
				continue
			}
			return page, err
		}
		if f.fits(&t) {
			page.Traces = append(page.Traces, t)
		}
		if len(page.Traces) >= f.Limit || looked >= maxLooked {
			page.Next = id
			return page, nil
		}
	}
}

// fits tells whether a trace is wanted.
func (f *Filter) fits(t *Trace) bool {
	if !f.Since.IsZero() && t.Began().Before(f.Since) || !f.Until.IsZero() && t.Began().After(f.Until) {
		return false
	}
	any := func(want string, of func(s *Step) bool) bool {
		if want == "" {
			return true
		}
		for i := range t.Steps {
			if of(&t.Steps[i]) {
				return true
			}
		}
		return false
	}
	return any(f.Address, func(s *Step) bool { return named(s, f.Address) }) &&
		any(f.From, func(s *Step) bool { return s.Kind == Sender && strings.EqualFold(s.Address, f.From) }) &&
		any(f.To, func(s *Step) bool { return s.Kind != Sender && named(s, f.To) }) &&
		any(f.Domain, func(s *Step) bool { return inDomain(s.Address, f.Domain) || inDomain(s.Get(Target), f.Domain) }) &&
		any(f.MessageID, func(s *Step) bool { return strings.EqualFold(s.Get(MessageID), f.MessageID) }) &&
		any(f.Host, func(s *Step) bool { return strings.EqualFold(s.Host, f.Host) }) &&
		any(f.Remote, func(s *Step) bool { return ipOf(s.Remote) == ipOf(f.Remote) }) &&
		f.ended(t)
}

func named(s *Step, a string) bool {
	return strings.EqualFold(s.Address, a) || strings.EqualFold(s.Get(Target), a)
}

func inDomain(a, domain string) bool {
	at := strings.LastIndexByte(a, '@')
	return at >= 0 && strings.EqualFold(a[at+1:], domain)
}

func (f *Filter) ended(t *Trace) bool {
	if len(f.Outcomes) == 0 {
		return true
	}
	return slices.ContainsFunc(t.Fates(), func(fate Fate) bool { return slices.Contains(f.Outcomes, fate.Outcome) })
}

package trace

import (
	"context"
	"math/rand/v2"
	"strconv"

	"waxwing/internal/store"
)

// Trail gathers the steps of one connection or one message. It belongs to one goroutine; a nil Trail takes steps and forgets
// them.
type Trail struct {
	r       *Recorder
	id      string
	first   int64 // of the row, microseconds since 1970
	last    int64
	b       []byte // the steps, without the head of the row
	lost    int    // steps that had no room
	refused bool
	done    bool
}

// Trail begins the trail of a connection, or of a message that comes over none. It is nil when r is.
func (r *Recorder) Trail() *Trail {
	if r == nil {
		return nil
	}
	return &Trail{r: r}
}

// ID is the trail's id, made when it is asked for first; "" for nil.
func (t *Trail) ID() string {
	if t == nil {
		return ""
	}
	if t.id == "" {
		t.id = NewID()
	}
	return t.id
}

// SetID gives the trail an id that was made elsewhere, unless it has one.
func (t *Trail) SetID(id string) {
	if t != nil && t.id == "" {
		t.id = id
	}
}

// Message begins the trail of a message that comes over a connection: it has the connection's steps so far, and an id of its
// own.
func (t *Trail) Message() *Trail {
	if t == nil {
		return nil
	}
	b := append(make([]byte, 0, len(t.b)+512), t.b...)
	return &Trail{r: t.r, first: t.first, last: t.last, b: b}
}

// Add adds a step.
func (t *Trail) Add(s Step) {
	if t == nil || t.done {
		return
	}
	if s.Outcome == Rejected || s.Outcome == Deferred {
		t.refused = true
	}
	if len(t.b) > maxTrail {
		t.lost++
		return
	}
	if s.At.IsZero() {
		s.At = t.r.now()
	}
	at := s.At.UnixMicro()
	if len(t.b) == 0 {
		t.first, t.last = at, at
	}
	t.b = appendStep(t.b, &s, at, t.last)
	t.last = at
}

// Refused tells whether a step was a refusal.
func (t *Trail) Refused() bool { return t != nil && t.refused }

// Row is the row of the trail, for the transaction that takes the message; zero for an empty trail.
func (t *Trail) Row() store.TraceRow {
	if t == nil || len(t.b) == 0 {
		return store.TraceRow{}
	}
	b := appendHead(make([]byte, 0, len(t.b)+64), t.first)
	b = append(b, t.b...)
	if t.lost > 0 {
		b = appendStep(b, &Step{Kind: Command, Reason: strconv.Itoa(t.lost) + " more steps had no room"}, t.last, t.last)
	}
	last := t.last
	return store.TraceRow{ID: t.ID(), Part: partAt(last), Steps: b, Queued: func(b []byte, id store.QueueID) []byte {
		return appendStep(b, &Step{Kind: Queue, Data: []Pair{{QueueID, strconv.FormatInt(int64(id), 10)}}}, last, last)
	}}
}

// Mark is a place in a trail.
type Mark struct {
	octets int
	last   int64
	lost   int
}

// Mark gives the place where the trail ends now.
func (t *Trail) Mark() Mark {
	if t == nil {
		return Mark{}
	}
	return Mark{len(t.b), t.last, t.lost}
}

// Rewind takes back the steps after a place: what they tell was not committed.
func (t *Trail) Rewind(m Mark) {
	if t != nil && !t.done {
		t.b, t.last, t.lost = t.b[:m.octets], m.last, m.lost
	}
}

// Committed ends the trail: the row is on stable storage, and only the words by which it is found are still to come.
func (t *Trail) Committed(row store.TraceRow) {
	if t == nil || t.done || row.Steps == nil {
		return
	}
	t.done = true
	t.r.hand(entry{row: row, stands: true})
}

// Keep has Close record the trail, though nothing was refused.
func (t *Trail) Keep() {
	if t != nil {
		t.refused = true
	}
}

// Close records the trail unless it was committed or closed before, and only if something was refused: whoever only looks
// whether we are there is of no interest.
func (t *Trail) Close() {
	if t == nil || t.done {
		return
	}
	if t.refused && t.r.mayRefuse() {
		t.r.hand(entry{row: t.Row()})
	}
	t.done = true
}

// causeKey is the context's key of a cause.
type causeKey struct{}

// WithCause says that messages which are made under ctx are made because of the message with that trace.
func WithCause(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, causeKey{}, id)
}

// CauseOf is the trace of the message because of which one is made; "" when there is none.
func CauseOf(ctx context.Context) string {
	id, _ := ctx.Value(causeKey{}).(string)
	return id
}

// partAt numbers a row: by the time of its last step, and so that no other row of the trace has the same.
func partAt(micros int64) int64 { return micros<<9 | rand.Int64N(1<<9) }

// randomPart numbers a row of the index.
func randomPart() int64 { return rand.Int64N(1 << 62) }

// timeOfPart is the time, in microseconds, that a row was numbered by.
func timeOfPart(part int64) int64 { return part >> 9 }

package routing

import (
	"context"
	"sync"
	"time"

	"waxwing/internal/address"
)

// Verdict is what a server says of a recipient.
type Verdict uint8

// The verdicts.
const (
	Unasked Verdict = iota // nobody could be asked, or the answer says nothing of the recipient
	Taken
	Unknown
)

// Asker asks the servers of a destination whether they take a recipient.
type Asker interface {
	Ask(ctx context.Context, destination string, to address.Address) (v Verdict, words string)
}

const (
	askTime   = 20 * time.Second // for one answer
	askAtOnce = 16               // questions under way
	askRest   = 30 * time.Second // for which a server that can't be asked is not asked about the same recipient again
	askMemory = 20_000           // answers remembered, twice
)

// asked remembers answers. It is bounded: two generations of maps, of which the older goes when the newer is full.
type asked struct {
	from Asker
	room chan struct{}

	mu       sync.Mutex // guards what follows
	new, old map[string]answer
	underway map[string]*question
}

type answer struct {
	verdict Verdict
	words   string
	until   time.Time
}

// question is one that is being asked; answer is set before done is closed.
type question struct {
	done   chan struct{}
	answer answer
}

func newAsked(from Asker) *asked {
	return &asked{from: from, room: make(chan struct{}, askAtOnce), new: map[string]answer{}, underway: map[string]*question{}}
}

// ask gives the answer for a recipient, from memory if it is fresh. Who asks the same meanwhile gets the same answer.
func (a *asked) ask(ctx context.Context, now time.Time, destination string, to address.Address, known, unknown time.Duration) answer {
	key := destination + " " + to.Key()
	a.mu.Lock()
	if got, ok := a.get(key); ok && now.Before(got.until) {
		a.mu.Unlock()
		return got
	}
	q := a.underway[key]
	if q == nil {
		q = &question{done: make(chan struct{})}
		a.underway[key] = q
		go a.answer(context.WithoutCancel(ctx), q, key, destination, to, now, known, unknown)
	}
	a.mu.Unlock()
	select {
	case <-q.done:
		return q.answer
	case <-ctx.Done():
		return answer{words: "the session ended"}
	}
}

// answer asks, within the bounds of time and number.
func (a *asked) answer(ctx context.Context, q *question, key, destination string, to address.Address, now time.Time, known, unknown time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	got := answer{words: "too many questions are under way"}
	select {
	case a.room <- struct{}{}:
		got.verdict, got.words = a.from.Ask(ctx, destination, to)
		<-a.room
	case <-ctx.Done():
	}
	switch got.verdict {
	case Taken:
		got.until = now.Add(known)
	case Unknown:
		got.until = now.Add(unknown)
	default:
		got.until = now.Add(askRest)
	}
	a.mu.Lock()
	a.put(key, got)
	delete(a.underway, key)
	a.mu.Unlock()
	q.answer = got
	close(q.done)
}

func (a *asked) get(key string) (answer, bool) {
	if got, ok := a.new[key]; ok {
		return got, true
	}
	got, ok := a.old[key]
	return got, ok
}

func (a *asked) put(key string, got answer) {
	if len(a.new) >= askMemory {
		a.old, a.new = a.new, make(map[string]answer)
	}
	a.new[key] = got
}

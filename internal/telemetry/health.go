package telemetry

import (
	"sort"
	"sync"
	"time"
)

// Health is what is wrong with the server right now, by subject. A subject without an error is well.
type Health struct {
	clock func() time.Time
	mu    sync.Mutex
	state map[string]Condition
}

// Condition is the state of one subject.
type Condition struct {
	Subject string    `json:"subject"`
	Problem string    `json:"problem,omitempty"` // "" when it is well
	Since   time.Time `json:"since"`             // of this state, not of its last report
}

// NewHealth begins with no subject.
func NewHealth(clock func() time.Time) *Health {
	return &Health{clock: clock, state: map[string]Condition{}}
}

// Set states how a subject is; nil is well.
func (h *Health) Set(subject string, err error) {
	c := Condition{Subject: subject, Since: h.clock()}
	if err != nil {
		c.Problem = err.Error()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old, ok := h.state[subject]; ok && (old.Problem == "") == (c.Problem == "") {
		c.Since = old.Since
	}
	h.state[subject] = c
}

// Conditions are all subjects in order of name; well tells that none has a problem.
func (h *Health) Conditions() (list []Condition, well bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	well = true
	for _, c := range h.state {
		list = append(list, c)
		well = well && c.Problem == ""
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Subject < list[j].Subject })
	return list, well
}

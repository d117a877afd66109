package guard

import (
	"hash/maphash"
	"sync"
	"time"
)

// Rates counts what many subjects do, each in a token bucket: so much at once, and the same amount again within a time.
// It remembers a bounded number of subjects, those that were heard of last, and costs the same for each question. Within
// any time t a subject gets at most amount + amount*t/per. A clock that jumps back never keeps anyone out for longer than per; one
// that jumps forward fills the buckets, no further.
type Rates struct {
	seed   maphash.Seed
	clock  func() time.Time
	shards [rateShards]rateShard
}

const rateShards = 64

// rateShard holds two generations of subjects: the older is dropped when the newer is full.
type rateShard struct {
	mu       sync.Mutex
	max      int
	new, old map[uint64]int64
}

// NewRates gives a table for so many subjects.
func NewRates(subjects int, clock func() time.Time) *Rates {
	r := &Rates{seed: maphash.MakeSeed(), clock: clock}
	for i := range r.shards {
		r.shards[i].max = max(subjects/rateShards/2, 1)
	}
	return r
}

// Rate is an amount within a time.
type Rate struct {
	Amount int64
	Per    time.Duration
}

func (r Rate) unlimited() bool { return r.Amount <= 0 || r.Per <= 0 }

// step is how long one unit takes to come back, in nanoseconds.
func (r Rate) step() float64 { return float64(r.Per) / float64(r.Amount) }

// Take takes n units of a subject, all or none. A subject that never got anything always gets what is no more than the
// amount.
func (t *Rates) Take(kind byte, subject []byte, rate Rate, n int64) bool {
	return t.spend(kind, subject, rate, n, false)
}

// Spend takes n units of a subject, or what is left of them: for what has happened already.
func (t *Rates) Spend(kind byte, subject []byte, rate Rate, n int64) {
	t.spend(kind, subject, rate, n, true)
}

// Left tells whether a subject has a unit left.
func (t *Rates) Left(kind byte, subject []byte, rate Rate) bool {
	if rate.unlimited() {
		return true
	}
	k := t.key(kind, subject)
	s := &t.shards[k%rateShards]
	now := t.clock().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.debt(k, now, rate))+rate.step() <= float64(rate.Per)
}

// spend moves the time at which the subject's bucket is full again (generic cell rate algorithm).
func (t *Rates) spend(kind byte, subject []byte, rate Rate, n int64, force bool) bool {
	if rate.unlimited() || n <= 0 {
		return true
	}
	k := t.key(kind, subject)
	s := &t.shards[k%rateShards]
	now := t.clock().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	debt := s.debt(k, now, rate)
	cost := float64(n) * rate.step()
	if float64(debt)+cost > float64(rate.Per) {
		if !force {
			return false
		}
		cost = float64(rate.Per) - float64(debt)
	}
	s.put(k, now+debt+max(int64(cost), 1))
	return true
}

func (t *Rates) key(kind byte, subject []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_ = h.WriteByte(kind)
	_, _ = h.Write(subject)
	return h.Sum64()
}

// debt is how long the bucket takes to be full again, at most the whole time.
func (s *rateShard) debt(k uint64, now int64, rate Rate) int64 {
	full, ok := s.new[k]
	if !ok {
		full, ok = s.old[k]
	}
	if !ok || full <= now {
		return 0
	}
	if full-now > int64(rate.Per) { // the clock was set back
		full = now + int64(rate.Per)
		s.put(k, full)
	}
	return full - now
}

func (s *rateShard) put(k uint64, full int64) {
	if _, ok := s.new[k]; !ok && len(s.new) >= s.max {
		s.old, s.new = s.new, nil
	}
	if s.new == nil {
		s.new = make(map[uint64]int64)
	}
	s.new[k] = full
}

// Len is the number of subjects remembered.
func (t *Rates) Len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += len(s.new) + len(s.old)
		s.mu.Unlock()
	}
	return n
}

// counts counts what is open by subject.
type counts struct {
	mu sync.Mutex
	by map[string]int
}

func (c *counts) add(subject []byte, change int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = make(map[string]int)
	}
	n := c.by[string(subject)] + change
	if n <= 0 {
		delete(c.by, string(subject))
		return 0
	}
	c.by[string(subject)] = n
	return n
}

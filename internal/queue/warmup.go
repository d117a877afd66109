package queue

import (
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/transport"
)

// sentToday counts what each source address has sent to each provider on a day: what is written, of all nodes, and what this
// node has still to write.
type sentToday struct {
	mu      sync.Mutex
	day     int64
	written map[route]int64
	fresh   map[route]int64
	next    int // which source is preferred
}

// route is a source address and a provider.
type route struct{ address, provider string }

func (s *sentToday) at(day int64) {
	if s.day != day || s.fresh == nil {
		s.day, s.written, s.fresh = day, map[route]int64{}, map[route]int64{}
	}
}

// pick chooses a source that may send one message more to a provider, and counts it.
func (s *sentToday) pick(p *Pool, provider string, open transport.Via, now time.Time) (Source, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at(store.QueueDay(now))
	allowed := p.Warmup.Allowed(now)
	may := func(src Source) bool {
		l := route{src.Address.String(), provider}
		if allowed >= 0 && s.written[l]+s.fresh[l] >= allowed {
			return false
		}
		s.fresh[l]++
		return true
	}
	for _, src := range p.Sources {
		if src.Address == open.Address && src.Name == open.Name && may(src) {
			return src, true
		}
	}
	s.next++
	for i := range p.Sources {
		if src := p.Sources[(s.next+i)%len(p.Sources)]; may(src) {
			return src, true
		}
	}
	return Source{}, false
}

// drain takes what is to be written.
func (s *sentToday) drain() (int64, []store.QueueSource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]store.QueueSource, 0, len(s.fresh))
	for l, n := range s.fresh {
		s.written[l] += n
		list = append(list, store.QueueSource{Address: l.address, Provider: l.provider, Messages: n})
	}
	clear(s.fresh)
	slices.SortFunc(list, func(a, b store.QueueSource) int { // in one order for all nodes, so that none waits for one that waits for it
		if a.Address != b.Address {
			return strings.Compare(a.Address, b.Address)
		}
		return strings.Compare(a.Provider, b.Provider)
	})
	return s.day, list
}

// restore takes back what could not be written.
func (s *sentToday) restore(day int64, list []store.QueueSource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.day != day {
		return
	}
	for _, x := range list {
		l := route{x.Address, x.Provider}
		s.fresh[l] += x.Messages
		s.written[l] -= x.Messages
	}
}

// load takes in what all nodes have written of a day.
func (s *sentToday) load(day int64, list []store.QueueSource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at(day)
	clear(s.written)
	for _, x := range list {
		s.written[route{x.Address, x.Provider}] = x.Messages
	}
}

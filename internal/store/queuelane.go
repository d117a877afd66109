package store

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Lanes keep whoever sends much from holding up the others. A recipient gets its lane when it is queued and keeps it: mail of
// high priority has one, mail of low priority has one, and all other goes by how much its sender has queued lately: the first
// ten messages in one lane, the next ninety in another, and so on. Lanes take turns, each by its share, and so do the
// lanes of one destination, so the one message of a quiet sender waits for few of another one's hundred thousand, and those
// never wait for good.
const (
	laneUrgent = 0 // priority above 0 (RFC 6710)
	laneFirst  = 1 // the lanes by volume, up to laneLast
	laneLast   = 5
	laneLow    = 6 // priority below 0
	laneCount  = 7

	laneAll = -1 // what concerns all lanes of a destination is done before what concerns one
)

// laneCost is what a recipient of a lane counts when lanes take turns: the dearer, the smaller the share.
var laneCost = [laneCount]int64{1, 4, 4, 4, 4, 4, 16}

// laneOf is the lane of a recipient whose sender has queued so many before it.
func laneOf(priority, before int) int {
	switch {
	case priority > 0:
		return laneUrgent
	case priority < 0:
		return laneLow
	}
	lane := laneFirst
	for n := 10; before >= n && lane < laneLast; n *= 10 {
		lane++
	}
	return lane
}

const (
	volumeHalf = 10 * time.Minute // in which half of what a sender has queued is forgotten
	maxVolumes = 10_000           // senders that are remembered
)

// volumes remembers how much senders have queued lately, on this node since it started: that is enough to tell a flood from a
// letter.
type volumes struct {
	mu sync.Mutex
	of map[string]volume
}

type volume struct {
	n  float64
	at time.Time
}

func (v volume) now(t time.Time) float64 {
	age := t.Sub(v.at)
	if age <= 0 {
		return v.n
	}
	return v.n * math.Exp2(-float64(age)/float64(volumeHalf))
}

// add counts a recipient of a sender, and tells how many came before it.
func (v *volumes) add(sender string, t time.Time) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.of == nil {
		v.of = make(map[string]volume)
	}
	old, known := v.of[sender]
	if !known && len(v.of) >= maxVolumes {
		maps.DeleteFunc(v.of, func(_ string, o volume) bool { return o.now(t) < 10 })
		if len(v.of) >= maxVolumes {
			clear(v.of)
		}
	}
	n := old.now(t)
	v.of[sender] = volume{n + 1, t}
	return int(n)
}

// senderOf names the sender of a message for the sharing of the queue: the account, or else the domain of the reverse-path.
func senderOf(m *QueueMessage) string {
	if m.Account != 0 {
		return "#" + strconv.FormatInt(int64(m.Account), 10)
	}
	return strings.ToLower(m.From[strings.LastIndexByte(m.From, '@')+1:])
}

// turns shares something among lanes by stride scheduling: the lane that has got least for its cost is next. One that had
// nothing to do gains nothing by that.
type turns struct {
	pass [laneCount]int64
	now  int64
}

// next is the lane that is to be served among those that are ready; -1 for none.
func (t *turns) next(ready func(lane int) bool) int {
	best := -1
	for lane := range laneCount {
		if !ready(lane) {
			continue
		}
		t.pass[lane] = max(t.pass[lane], t.now)
		if best < 0 || t.pass[lane] < t.pass[best] {
			best = lane
		}
	}
	if best >= 0 {
		t.now = t.pass[best]
	}
	return best
}

func (t *turns) charge(lane, n int) { t.pass[lane] += laneCost[lane] * int64(n) }

// maxTurns bounds the destinations whose turns are remembered: those that had several lanes at a time.
const maxTurns = 10_000

// laneTurns is whose turn it is, of all lanes and of the lanes of each destination.
type laneTurns struct {
	mu  sync.Mutex
	all turns
	of  map[string]*turns
}

func (l *laneTurns) destination(domain string) *turns {
	t := l.of[domain]
	if t == nil {
		if l.of == nil || len(l.of) >= maxTurns {
			l.of = make(map[string]*turns)
		}
		t = &turns{}
		l.of[domain] = t
	}
	return t
}

// candidates are destinations that have something to do and may do it, by lane, in the order in which they are served.
type candidates [laneCount][]pick

func (c *candidates) count() (n int) {
	for _, list := range c {
		n += len(list)
	}
	return n
}

// take chooses whom to serve next: the lane whose turn it is, its first destination, and of that destination's lanes the one
// whose turn it is there. What is chosen is no candidate any more.
func (c *candidates) take(l *laneTurns) pick {
	lane := l.all.next(func(lane int) bool { return len(c[lane]) > 0 })
	domain := c[lane][0].domain
	at := [laneCount]int{}
	several := 0
	for other := range c {
		at[other] = slices.IndexFunc(c[other], func(p pick) bool { return p.domain == domain })
		if at[other] >= 0 {
			several++
		}
	}
	if several > 1 {
		lane = l.destination(domain).next(func(lane int) bool { return at[lane] >= 0 })
	}
	p := c[lane][at[lane]]
	c[lane] = slices.Delete(c[lane], at[lane], at[lane]+1)
	return p
}

// served charges a lane for what was taken of it.
func (l *laneTurns) served(p pick, n int) {
	l.all.charge(p.lane, n)
	if t := l.of[p.domain]; t != nil {
		t.charge(p.lane, n)
	}
}

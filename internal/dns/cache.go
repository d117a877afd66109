package dns

import (
	"container/list"
	"sync"
	"time"
)

// cache keeps answers until their TTL ends, the least recently used leaving first when it is full. Both the number of
// answers and their octets are bounded, for an answer may have 64 KiB.
type cache struct {
	mu       sync.Mutex
	maxCount int
	maxBytes int
	bytes    int
	entries  map[question]*list.Element
	order    *list.List // of *cached, most recently used first
}

type cached struct {
	q   question
	res *result
}

func newCache(count, bytes int) *cache {
	return &cache{maxCount: count, maxBytes: bytes, entries: map[question]*list.Element{}, order: list.New()}
}

func (c *cache) get(q question, now time.Time) (*result, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.entries[q]
	if !ok {
		return nil, false
	}
	e := el.Value.(*cached)
	left := e.res.expires.Sub(now)
	// An answer that seems to last longer than it was given means that the clock was set back.
	if left <= 0 || left > e.res.ttl {
		c.remove(el)
		return nil, false
	}
	c.order.MoveToFront(el)
	return e.res, true
}

func (c *cache) put(q question, res *result, now time.Time) {
	res.expires = now.Add(res.ttl)
	if res.ttl <= 0 || c.maxCount < 0 || res.cost > c.maxBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.entries[q]; ok {
		c.remove(el)
	}
	c.entries[q] = c.order.PushFront(&cached{q: q, res: res})
	c.bytes += res.cost
	for len(c.entries) > c.maxCount || c.bytes > c.maxBytes {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.order.Remove(el).(*cached)
	delete(c.entries, e.q)
	c.bytes -= e.res.cost
}

func (c *cache) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
	c.order.Init()
	c.bytes = 0
}

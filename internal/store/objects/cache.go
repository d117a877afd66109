package objects

import (
	"container/list"
	"strconv"
	"sync"

	"golang.org/x/sync/singleflight"
)

// chunkSize is what is fetched of an object at a time: a round trip brings the neighbours of a message too, which came
// with it.
const chunkSize = 256 << 10

// chunkKey names a chunk of an object.
type chunkKey struct {
	object string
	n      int64
}

// cache holds chunks, up to a bound in octets; the one longest unused goes first. Objects never change, so nothing in it
// is ever old; but what came may have been changed on its way, and is forgotten when it looks damaged.
type cache struct {
	max   int64
	fetch func(chunkKey) ([]byte, error)
	calls singleflight.Group

	mu   sync.Mutex
	used int64
	lru  *list.List // of *cached, the last used in front
	in   map[chunkKey]*list.Element
}

type cached struct {
	key  chunkKey
	data []byte
}

func newCache(max int64, fetch func(chunkKey) ([]byte, error)) *cache {
	return &cache{max: max, fetch: fetch, lru: list.New(), in: make(map[chunkKey]*list.Element)}
}

// get returns a chunk, which must not be changed. Those who want the same one at the same time wait for one fetch.
func (c *cache) get(k chunkKey) ([]byte, error) {
	if b, ok := c.known(k); ok {
		return b, nil
	}
	v, err, _ := c.calls.Do(k.object+"#"+strconv.FormatInt(k.n, 10), func() (any, error) {
		if b, ok := c.known(k); ok {
			return b, nil
		}
		b, err := c.fetch(k)
		if err == nil {
			c.add(k, b)
		}
		return b, err
	})
	if err != nil {
		return nil, err
	}
	return v.([]byte), nil
}

func (c *cache) known(k chunkKey) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.in[k]
	if !ok {
		return nil, false
	}
	c.lru.MoveToFront(e)
	return e.Value.(*cached).data, true
}

func (c *cache) add(k chunkKey, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.in[k]; ok {
		return
	}
	c.in[k] = c.lru.PushFront(&cached{k, b})
	c.used += int64(cap(b))
	for c.used > c.max && c.lru.Len() > 0 {
		c.drop(c.lru.Back())
	}
}

// forget gives up all chunks of an object, and tells whether there were any.
func (c *cache) forget(object string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.in)
	for k, e := range c.in {
		if k.object == object {
			c.drop(e)
		}
	}
	return len(c.in) < before
}

// drop gives up a chunk. The caller holds mu.
func (c *cache) drop(e *list.Element) {
	old := c.lru.Remove(e).(*cached)
	delete(c.in, old.key)
	c.used -= int64(cap(old.data))
}
